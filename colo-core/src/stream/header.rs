use super::error::{Fault, StreamError};
use zerocopy::byteorder::{big_endian, little_endian};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Every image begins with these eight bytes of ones; a legacy image (Xen 4.5 and before) never does.
const MARKER: u64 = u64::MAX;
/// "XENF".
const IMAGE_ID: u32 = 0x5845_4E46;
/// Bit 0 of the options: the stream's numbers are big-endian.
const BIG_ENDIAN: u16 = 1;

/// The version of the format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// Xen 4.6 to 4.13; only read.
    V2,
    /// Since Xen 4.14: as version 2, but the static data ends with a record of its own.
    V3,
}

/// The first header: says that this is an image, and how it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageHeader {
    /// The version of the format.
    pub version: Version,
}

/// As in the specification, "Image Header". All numbers are big-endian, whatever the options say.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawImageHeader {
    marker: big_endian::U64,
    id: big_endian::U32,
    version: big_endian::U32,
    options: big_endian::U16,
    reserved: [u8; 6],
}

impl ImageHeader {
    /// Its length in a stream.
    pub const BYTES: usize = size_of::<RawImageHeader>();

    /// Reads the header from the front of `bytes`. Reserved fields are ignored, as the specification wants.
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::NotAnImage`], [`Fault::UnknownVersion`], [`Fault::BigEndian`].
    pub fn parse(bytes: &[u8]) -> Result<(ImageHeader, &[u8]), StreamError> {
        let (raw, rest) = RawImageHeader::ref_from_prefix(bytes).map_err(|_| truncated(Self::BYTES, bytes))?;
        let version = match (raw.marker.get(), raw.id.get(), raw.version.get()) {
            (MARKER, IMAGE_ID, 2) => Ok(Version::V2),
            (MARKER, IMAGE_ID, 3) => Ok(Version::V3),
            (MARKER, IMAGE_ID, version) => Err(Fault::UnknownVersion(version)),
            _ => Err(Fault::NotAnImage),
        };
        let version = version.map_err(StreamError::at(0))?;
        if raw.options.get() & BIG_ENDIAN != 0 {
            return Err(StreamError { offset: 0, fault: Fault::BigEndian });
        }
        Ok((ImageHeader { version }, rest))
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let version = match self.version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        let raw = RawImageHeader {
            marker: MARKER.into(),
            id: IMAGE_ID.into(),
            version: big_endian::U32::new(version),
            options: 0.into(),
            reserved: [0; 6],
        };
        out.extend_from_slice(raw.as_bytes());
    }
}

/// What kind of machine a stream holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DomainKind {
    /// A paravirtual x86 guest of Xen.
    X86Pv,
    /// A hardware-virtualised x86 guest of Xen; PVH guests too.
    X86Hvm,
    /// A guest of colo's embedded hypervisor. Its number, `0x434C_454D` ("CLEM"), is ours and not in Xen's
    /// specification, so that Xen's tools refuse such an image.
    Embedded,
}

impl DomainKind {
    const ALL: [DomainKind; 3] = [DomainKind::X86Pv, DomainKind::X86Hvm, DomainKind::Embedded];

    /// Its number in the domain header.
    pub fn number(self) -> u32 {
        match self {
            DomainKind::X86Pv => 1,
            DomainKind::X86Hvm => 2,
            DomainKind::Embedded => 0x434C_454D,
        }
    }

    fn from_number(number: u32) -> Result<DomainKind, Fault> {
        Self::ALL.into_iter().find(|kind| kind.number() == number).ok_or(Fault::UnknownDomain(number))
    }
}

/// The second header: what kind of machine this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DomainHeader {
    /// The kind of machine.
    pub kind: DomainKind,
    /// A page has 2 to this power bytes: always 12.
    pub page_shift: u16,
    /// The major version of the Xen that wrote the stream, 0 when it was converted from a legacy image; for an embedded domain
    /// the version of our own records, 1.0.
    pub xen_major: u32,
    /// Its minor version.
    pub xen_minor: u32,
}

/// As in the specification, "Domain Header".
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDomainHeader {
    kind: little_endian::U32,
    page_shift: little_endian::U16,
    reserved: [u8; 2],
    xen_major: little_endian::U32,
    xen_minor: little_endian::U32,
}

impl DomainHeader {
    /// Its length in a stream.
    pub const BYTES: usize = size_of::<RawDomainHeader>();
    /// The only page size there is, as a power of two.
    pub const PAGE_SHIFT: u16 = crate::ids::PAGE_SIZE.trailing_zeros() as u16;

    /// The header of an embedded domain's stream.
    pub fn embedded() -> DomainHeader {
        DomainHeader { kind: DomainKind::Embedded, page_shift: Self::PAGE_SHIFT, xen_major: 1, xen_minor: 0 }
    }

    /// Reads the header from the front of `bytes`. Reserved fields are ignored, as the specification wants.
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::UnknownDomain`], [`Fault::PageShift`].
    pub fn parse(bytes: &[u8]) -> Result<(DomainHeader, &[u8]), StreamError> {
        let (raw, rest) = RawDomainHeader::ref_from_prefix(bytes).map_err(|_| truncated(Self::BYTES, bytes))?;
        let kind = DomainKind::from_number(raw.kind.get()).map_err(StreamError::at(0))?;
        let page_shift = raw.page_shift.get();
        if page_shift != Self::PAGE_SHIFT {
            return Err(StreamError { offset: 0, fault: Fault::PageShift(page_shift) });
        }
        let header = DomainHeader { kind, page_shift, xen_major: raw.xen_major.get(), xen_minor: raw.xen_minor.get() };
        Ok((header, rest))
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let raw = RawDomainHeader {
            kind: self.kind.number().into(),
            page_shift: self.page_shift.into(),
            reserved: [0; 2],
            xen_major: self.xen_major.into(),
            xen_minor: self.xen_minor.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }
}

/// Both headers, as they stand at the beginning of every stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers {
    /// The first.
    pub image: ImageHeader,
    /// The second.
    pub domain: DomainHeader,
}

impl Headers {
    /// Their length in a stream.
    pub const BYTES: usize = ImageHeader::BYTES + DomainHeader::BYTES;

    /// The headers of a new stream of the current version.
    pub fn new(domain: DomainHeader) -> Headers {
        Headers { image: ImageHeader { version: Version::V3 }, domain }
    }

    /// Reads both from the front of `bytes`.
    ///
    /// # Errors
    /// Those of [`ImageHeader::parse`] and [`DomainHeader::parse`].
    pub fn parse(bytes: &[u8]) -> Result<(Headers, &[u8]), StreamError> {
        let (image, rest) = ImageHeader::parse(bytes)?;
        let (domain, rest) = DomainHeader::parse(rest)
            .map_err(|error| StreamError { offset: error.offset + ImageHeader::BYTES as u64, fault: error.fault })?;
        Ok((Headers { image, domain }, rest))
    }

    /// Appends both.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.image.encode(out);
        self.domain.encode(out);
    }
}

fn truncated(needed: usize, bytes: &[u8]) -> StreamError {
    StreamError { offset: 0, fault: Fault::Truncated { needed, got: bytes.len() } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the specification gives for an HVM guest of Xen 4.17.
    const GOLDEN: [u8; 40] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'X', b'E', b'N', b'F', 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
        0, //
        2, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0,
    ];

    #[test]
    fn golden_headers() {
        let domain = DomainHeader { kind: DomainKind::X86Hvm, page_shift: 12, xen_major: 4, xen_minor: 17 };
        let mut bytes = Vec::new();
        Headers::new(domain).encode(&mut bytes);
        assert_eq!(bytes, GOLDEN);
        assert_eq!(Headers::parse(&GOLDEN), Ok((Headers::new(domain), &[][..])));
    }

    #[test]
    fn wrong_headers_are_told_apart() {
        let with = |at: usize, value: u8| {
            let mut bytes = GOLDEN;
            bytes[at] = value;
            Headers::parse(&bytes).map(|_| ()).map_err(|error| (error.offset, error.fault))
        };
        assert_eq!(with(0, 0), Err((0, Fault::NotAnImage)));
        assert_eq!(with(9, b'x'), Err((0, Fault::NotAnImage)));
        assert_eq!(with(15, 4), Err((0, Fault::UnknownVersion(4))));
        assert_eq!(with(17, 1), Err((0, Fault::BigEndian)));
        assert_eq!(with(24, 3), Err((24, Fault::UnknownDomain(3))));
        assert_eq!(with(28, 13), Err((24, Fault::PageShift(13))));
        assert_eq!(with(31, 1), Ok(()), "reserved fields are ignored");
        for length in 0..GOLDEN.len() {
            let error = Headers::parse(&GOLDEN[..length]).unwrap_err();
            assert!(matches!(error.fault, Fault::Truncated { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn domain_kinds_by_number() {
        for kind in DomainKind::ALL {
            assert_eq!(DomainKind::from_number(kind.number()), Ok(kind));
        }
    }
}
