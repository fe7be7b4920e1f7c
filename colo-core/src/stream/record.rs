use super::error::{Fault, StreamError};
use super::{PageData, kind};
use crate::ids::Pfn;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The longest body of a record, by default: 8 MiB. Twice what a full PAGE_DATA record needs (1024 pages and their numbers), and
/// more than any other record of a domain's state; Xen of before 2020 had the same limit. Newer Xen allows 128 MiB, but only
/// COLO's list of dirty pages can be that long.
pub const MAX_BODY_BYTES: usize = 8 << 20;

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = size_of::<RawRecordHeader>();

/// Every record begins and ends at a multiple of this, counted from its stream's beginning.
pub(super) const ALIGN_BYTES: usize = 8;

/// A number of a page, with or without a type in its high bits.
pub(super) type PfnWord = U64;

/// The first page number that no domain has: 2^32, 16 TiB of memory, more than any Xen gives one. For the images of domains that
/// nothing is known of.
pub const MAX_PFN_LIMIT: u64 = 1 << 32;

/// What a reader puts up with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The first page number that does not exist in the domain.
    pub pfn_limit: u64,
    /// The longest body of a record, in bytes.
    pub body_bytes: usize,
}

impl Limits {
    /// For a domain of that many pages, with bodies of up to [`MAX_BODY_BYTES`].
    pub fn new(pfn_limit: u64) -> Limits {
        Limits { pfn_limit, body_bytes: MAX_BODY_BYTES }
    }

    /// For a domain whose size is not known: up to [`MAX_PFN_LIMIT`].
    pub fn of_any_domain() -> Limits {
        Limits::new(MAX_PFN_LIMIT)
    }
}

/// As in the specification, "Records".
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawRecordHeader {
    pub(super) kind: U32,
    body_bytes: U32,
}

impl RawRecordHeader {
    /// `body_bytes` has been checked against a limit far below `u32::MAX`.
    pub(super) fn new(kind: u32, body_bytes: usize) -> RawRecordHeader {
        RawRecordHeader { kind: kind.into(), body_bytes: (body_bytes as u32).into() }
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.body_bytes.get() as usize
    }

    /// Reads the header at the front of `bytes`; returns the body's length, and the length of the whole record with padding.
    pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<(u32, usize, usize), Fault> {
        let truncated = Fault::Truncated { needed: RECORD_HEADER_BYTES, got: bytes.len() };
        let (raw, _) = RawRecordHeader::ref_from_prefix(bytes).map_err(|_| truncated)?;
        let (kind, length) = (raw.kind.get(), raw.body_bytes());
        if length > limits.body_bytes {
            return Err(Fault::TooLong { kind, length, limit: limits.body_bytes });
        }
        Ok((kind, length, RECORD_HEADER_BYTES + length.next_multiple_of(ALIGN_BYTES)))
    }
}

/// One record, borrowed from the bytes it was read from. What is in it has been checked, but for the bodies that are opaque here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RecordRef<'a> {
    /// Pages of guest memory.
    PageData(PageData<'a>),
    /// A piece of the domain's state, in one of the specification's records for it. Only the hypervisor reads the body.
    State {
        /// The record's type: one of [`kind`].
        kind: u32,
        /// Its body.
        body: &'a [u8],
    },
    /// The end of what never changes while the guest runs.
    StaticDataEnd,
    /// From here on all memory is sent again, to be compared.
    Verify,
    /// What came so far is a consistent state.
    Checkpoint,
    /// The pages that the secondary has dirtied, on COLO's back channel.
    DirtyPfnList(PfnList<'a>),
    /// The end of the stream.
    End,
    /// One of [our own records](kind::is_own): the embedded hypervisor's state, or what [`super::own`] reads.
    Own {
        /// The record's type.
        kind: u32,
        /// Its body.
        body: &'a [u8],
    },
    /// An optional record that is not known here.
    Skipped {
        /// The record's type.
        kind: u32,
    },
}

impl<'a> RecordRef<'a> {
    /// Reads the record at the front of `bytes`; returns it and the bytes after it and its padding. Padding is not looked at, as
    /// the specification wants.
    ///
    /// # Errors
    /// A [`StreamError`] with offset 0.
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<(RecordRef<'a>, &'a [u8]), StreamError> {
        Self::split(bytes, limits).map_err(StreamError::at(0))
    }

    /// The record's type.
    pub fn kind(&self) -> u32 {
        match *self {
            RecordRef::PageData(_) => kind::PAGE_DATA,
            RecordRef::StaticDataEnd => kind::STATIC_DATA_END,
            RecordRef::Verify => kind::VERIFY,
            RecordRef::Checkpoint => kind::CHECKPOINT,
            RecordRef::DirtyPfnList(_) => kind::CHECKPOINT_DIRTY_PFN_LIST,
            RecordRef::End => kind::END,
            RecordRef::State { kind, .. } | RecordRef::Own { kind, .. } | RecordRef::Skipped { kind } => kind,
        }
    }

    fn split(bytes: &'a [u8], limits: &Limits) -> Result<(RecordRef<'a>, &'a [u8]), Fault> {
        let (kind, body_bytes, record_bytes) = RawRecordHeader::parse(bytes, limits)?;
        let (record, rest) =
            bytes.split_at_checked(record_bytes).ok_or(Fault::Truncated { needed: record_bytes, got: bytes.len() })?;
        let body = &record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body_bytes];
        Ok((Self::from_body(kind, body, limits)?, rest))
    }

    fn from_body(kind: u32, body: &'a [u8], limits: &Limits) -> Result<RecordRef<'a>, Fault> {
        let empty = |record| match body {
            [] => Ok(record),
            _ => Err(Fault::BadLength { kind, length: body.len() }),
        };
        match kind {
            kind::PAGE_DATA => PageData::parse(body, limits.pfn_limit).map(RecordRef::PageData),
            kind::CHECKPOINT_DIRTY_PFN_LIST => PfnList::parse(body, limits.pfn_limit).map(RecordRef::DirtyPfnList),
            kind::STATIC_DATA_END => empty(RecordRef::StaticDataEnd),
            kind::VERIFY => empty(RecordRef::Verify),
            kind::CHECKPOINT => empty(RecordRef::Checkpoint),
            kind::END => empty(RecordRef::End),
            kind::X86_PV_INFO..=kind::HVM_PARAMS
            | kind::X86_PV_VCPU_MSRS
            | kind::X86_CPUID_POLICY
            | kind::X86_MSR_POLICY => Ok(RecordRef::State { kind, body }),
            _ if kind::is_own(kind) => Ok(RecordRef::Own { kind, body }),
            _ if kind::is_optional(kind) => Ok(RecordRef::Skipped { kind }),
            _ => Err(Fault::UnknownMandatory(kind)),
        }
    }
}

/// A CHECKPOINT_DIRTY_PFN_LIST record: page numbers in no order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PfnList<'a>(&'a [PfnWord]);

impl<'a> PfnList<'a> {
    /// The pages.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Pfn> + use<'a> {
        self.0.iter().map(|word| Pfn(word.get()))
    }

    fn parse(body: &'a [u8], pfn_limit: u64) -> Result<PfnList<'a>, Fault> {
        let words = <[PfnWord]>::ref_from_bytes(body)
            .map_err(|_| Fault::BadLength { kind: kind::CHECKPOINT_DIRTY_PFN_LIST, length: body.len() })?;
        match words.iter().find(|word| word.get() >= pfn_limit) {
            Some(word) => Err(Fault::PfnOutOfRange { pfn: Pfn(word.get()), pfn_limit }),
            None => Ok(PfnList(words)),
        }
    }
}

/// Appends a whole record: header, body, padding.
///
/// # Errors
/// [`Fault::TooLong`] when the body is longer than [`MAX_BODY_BYTES`]; nothing is appended.
pub fn write_record(out: &mut Vec<u8>, kind: u32, body: &[u8]) -> Result<(), StreamError> {
    if body.len() > MAX_BODY_BYTES {
        let fault = Fault::TooLong { kind, length: body.len(), limit: MAX_BODY_BYTES };
        return Err(StreamError { offset: 0, fault });
    }
    let padding = body.len().next_multiple_of(ALIGN_BYTES) - body.len();
    out.extend_from_slice(RawRecordHeader::new(kind, body.len()).as_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&[0; ALIGN_BYTES][..padding]);
    Ok(())
}

/// Appends CHECKPOINT_DIRTY_PFN_LIST records for these pages: one, or as many as [`MAX_BODY_BYTES`] asks for. Xen wants exactly
/// one, so a list for Xen must be no longer than a million pages.
pub fn write_dirty_pfn_list(out: &mut Vec<u8>, pages: &[Pfn]) -> Result<(), StreamError> {
    if pages.is_empty() {
        return write_record(out, kind::CHECKPOINT_DIRTY_PFN_LIST, &[]);
    }
    for part in pages.chunks(MAX_BODY_BYTES / size_of::<PfnWord>()) {
        let words: Vec<PfnWord> = part.iter().map(|pfn| pfn.0.into()).collect();
        write_record(out, kind::CHECKPOINT_DIRTY_PFN_LIST, words.as_bytes())?;
    }
    Ok(())
}

/// The records in a buffer that holds nothing but whole records, one after the other. Ends after the first error.
///
/// ```
/// use colo_core::stream::{Limits, RecordRef, Records, kind, write_record};
///
/// let mut bytes = Vec::new();
/// write_record(&mut bytes, kind::EMBEDDED_VCPU, b"registers")?;
/// write_record(&mut bytes, kind::CHECKPOINT, &[])?;
///
/// let records: Vec<_> = Records::new(&bytes, Limits::new(16)).collect::<Result<_, _>>()?;
/// assert_eq!(records, [RecordRef::Own { kind: kind::EMBEDDED_VCPU, body: b"registers" }, RecordRef::Checkpoint]);
/// # Ok::<(), colo_core::stream::StreamError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    offset: u64,
    limits: Limits,
}

impl<'a> Records<'a> {
    /// The records in `bytes`.
    pub fn new(bytes: &'a [u8], limits: Limits) -> Records<'a> {
        Records { rest: bytes, offset: 0, limits }
    }

    /// How many bytes have been read: after a record, where the next one begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match RecordRef::split(self.rest, &self.limits) {
            Ok((record, rest)) => {
                self.offset += (self.rest.len() - rest.len()) as u64;
                self.rest = rest;
                Some(Ok(record))
            }
            Err(fault) => {
                self.rest = &[];
                Some(Err(StreamError { offset: self.offset, fault }))
            }
        }
    }
}
