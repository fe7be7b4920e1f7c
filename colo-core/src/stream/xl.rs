//! The header that `xl` puts before libxl's stream in a file: it says so, and holds the domain's configuration.
//!
//! Xen has no specification of it; this is what `xl` of Xen 4.17 writes and reads (`save_file_header` in `tools/xl/xl.h`).
//!
//! ```text
//! "Xen saved domain, xl format\n \0 \r"   32 bytes
//! byte order u32 (0x01020304) | mandatory flags u32 | optional flags u32 | length of the optional data u32
//! optional data: length of the configuration u32 | configuration, with a NUL at its end | whatever a newer xl has to say
//! ```
//!
//! ```
//! use colo_core::stream::xl::XlHeader;
//!
//! let mut bytes = Vec::new();
//! XlHeader::new(br#"{"c_info": {"name": "web"}}"#).encode(&mut bytes)?;
//! let (header, rest) = XlHeader::parse(&bytes)?;
//! assert_eq!((header.config, header.is_json, rest), (Some(&br#"{"c_info": {"name": "web"}}"#[..]), true, &[][..]));
//! # Ok::<(), colo_core::stream::xl::XlFault>(())
//! ```

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most optional data, in bytes: 1 MiB. A configuration is some kilobytes.
pub const MAX_OPTIONAL_BYTES: usize = 1 << 20;

/// What every file of xl's begins with.
pub const MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";

const BYTE_ORDER: u32 = 0x0102_0304;
/// The configuration is JSON, as libxl writes it, and no text as a person does.
const MANDATORY_JSON: u32 = 1;
/// What follows is a libxl stream of version 2.
const MANDATORY_STREAM_V2: u32 = 2;

/// What can be wrong with xl's header.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum XlFault {
    /// The bytes end within the header.
    #[error("it is cut off: {needed} bytes are needed, {got} are there")]
    Truncated {
        /// Bytes of the whole, as far as known.
        needed: usize,
        /// Bytes there are.
        got: usize,
    },
    /// The header does not begin as every file of xl's does.
    #[error("this is no file of xl's")]
    NotXl,
    /// The numbers of the file are big-endian.
    #[error("its numbers are big-endian")]
    BigEndian,
    /// Something else stands where the order of bytes should.
    #[error("its order of bytes is {0:#x}, not 0x1020304")]
    ByteOrder(u32),
    /// A flag of a newer xl, without which the file cannot be understood.
    #[error("mandatory flags {0:#x} of xl's header are unknown")]
    UnknownMandatory(u32),
    /// A file of Xen 4.5 or before.
    #[error("this is a legacy image, of Xen 4.5 or before")]
    Legacy,
    /// More optional data than the limit.
    #[error("{length} bytes of optional data, but the limit is {limit}")]
    TooLong {
        /// How much.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The configuration is longer than the data it is in.
    #[error("a configuration of {length} bytes in {room} bytes of optional data")]
    ConfigLength {
        /// How long the configuration would be.
        length: usize,
        /// How much there is.
        room: usize,
    },
}

/// The front of xl's header, which is always there.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 32],
    byte_order: U32,
    mandatory_flags: U32,
    optional_flags: U32,
    optional_bytes: U32,
}

/// The header of a file of xl's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XlHeader<'a> {
    /// The domain's configuration, without the NUL at its end. `xl restore` needs one from elsewhere if it is not here.
    pub config: Option<&'a [u8]>,
    /// Whether the configuration is JSON, as libxl writes it.
    pub is_json: bool,
    /// Flags that a reader need not know; no xl has any.
    pub optional_flags: u32,
}

impl<'a> XlHeader<'a> {
    /// Bytes of its front, before the optional data.
    pub const FRONT_BYTES: usize = size_of::<RawHeader>();

    /// The header for a domain with this configuration, JSON as libxl writes it.
    pub fn new(config: &'a [u8]) -> XlHeader<'a> {
        XlHeader { config: Some(config), is_json: true, optional_flags: 0 }
    }

    /// Reads the header from the front of `bytes`.
    ///
    /// # Errors
    /// An [`XlFault`].
    pub fn parse(bytes: &'a [u8]) -> Result<(XlHeader<'a>, &'a [u8]), XlFault> {
        let whole = Self::bytes(bytes)?;
        let truncated = XlFault::Truncated { needed: whole, got: bytes.len() };
        let (header, rest) = bytes.split_at_checked(whole).ok_or(truncated.clone())?;
        let (raw, optional) = RawHeader::ref_from_prefix(header).map_err(|_| truncated)?;
        let mandatory = raw.mandatory_flags.get();
        let header = XlHeader {
            config: split_config(optional)?,
            is_json: mandatory & MANDATORY_JSON != 0,
            optional_flags: raw.optional_flags.get(),
        };
        Ok((header, rest))
    }

    /// How long the whole header is, by its front, which is checked.
    ///
    /// # Errors
    /// An [`XlFault`].
    pub fn bytes(front: &[u8]) -> Result<usize, XlFault> {
        let truncated = XlFault::Truncated { needed: Self::FRONT_BYTES, got: front.len() };
        let (raw, _) = RawHeader::ref_from_prefix(front).map_err(|_| truncated)?;
        if raw.magic != *MAGIC {
            return Err(XlFault::NotXl);
        }
        match raw.byte_order.get() {
            BYTE_ORDER => {}
            order if order == BYTE_ORDER.swap_bytes() => return Err(XlFault::BigEndian),
            order => return Err(XlFault::ByteOrder(order)),
        }
        let mandatory = raw.mandatory_flags.get();
        let unknown = mandatory & !(MANDATORY_JSON | MANDATORY_STREAM_V2);
        if unknown != 0 {
            return Err(XlFault::UnknownMandatory(unknown));
        }
        if mandatory & MANDATORY_STREAM_V2 == 0 {
            return Err(XlFault::Legacy);
        }
        let length = raw.optional_bytes.get() as usize;
        if length > MAX_OPTIONAL_BYTES {
            return Err(XlFault::TooLong { length, limit: MAX_OPTIONAL_BYTES });
        }
        Ok(Self::FRONT_BYTES + length)
    }

    /// Appends the header.
    ///
    /// # Errors
    /// [`XlFault::TooLong`] when the configuration is longer than [`MAX_OPTIONAL_BYTES`] allows; nothing is appended.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), XlFault> {
        // The configuration's length, and its NUL.
        let length = self.config.map_or(0, |config| size_of::<U32>() + config.len() + 1);
        if length > MAX_OPTIONAL_BYTES {
            return Err(XlFault::TooLong { length, limit: MAX_OPTIONAL_BYTES });
        }
        let raw = RawHeader {
            magic: *MAGIC,
            byte_order: BYTE_ORDER.into(),
            mandatory_flags: (MANDATORY_STREAM_V2 | if self.is_json { MANDATORY_JSON } else { 0 }).into(),
            optional_flags: self.optional_flags.into(),
            optional_bytes: (length as u32).into(),
        };
        out.extend_from_slice(raw.as_bytes());
        if let Some(config) = self.config {
            out.extend_from_slice(U32::new(config.len() as u32 + 1).as_bytes());
            out.extend_from_slice(config);
            out.push(0);
        }
        Ok(())
    }
}

/// The configuration in the optional data. What follows it, a newer xl has written.
fn split_config(optional: &[u8]) -> Result<Option<&[u8]>, XlFault> {
    if optional.is_empty() {
        return Ok(None);
    }
    let too_short = XlFault::ConfigLength { length: 0, room: optional.len() };
    let (length, rest) = U32::ref_from_prefix(optional).map_err(|_| too_short)?;
    let length = length.get() as usize;
    let config = rest.get(..length).ok_or(XlFault::ConfigLength { length, room: rest.len() })?;
    Ok(Some(config.strip_suffix(&[0]).unwrap_or(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn golden() -> Vec<u8> {
        let parts: [&[u8]; 4] = [
            b"Xen saved domain, xl format\n \0 \r",
            &[4, 3, 2, 1, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0],
            &[3, 0, 0, 0],
            b"{}\0",
        ];
        parts.concat()
    }

    #[test]
    fn golden_header() {
        let mut bytes = Vec::new();
        XlHeader::new(b"{}").encode(&mut bytes).unwrap();
        assert_eq!(bytes, golden());
        assert_eq!(XlHeader::parse(&golden()), Ok((XlHeader::new(b"{}"), &[][..])));
    }

    #[test]
    fn wrong_headers_are_told_apart() {
        let with = |at: usize, bytes: &[u8]| {
            let mut header = golden();
            header[at..at + bytes.len()].copy_from_slice(bytes);
            XlHeader::parse(&header)
                .map(|(header, _)| header.config.map(<[u8]>::len))
                .map_err(|fault| fault.to_string())
        };
        let err = |text: &str| Err(text.to_owned());
        assert_eq!(with(0, b"x"), err("this is no file of xl's"));
        assert_eq!(with(32, &[1, 2, 3, 4]), err("its numbers are big-endian"));
        assert_eq!(with(32, &[0; 4]), err("its order of bytes is 0x0, not 0x1020304"));
        assert_eq!(with(36, &[7]), err("mandatory flags 0x4 of xl's header are unknown"));
        assert_eq!(with(36, &[1]), err("this is a legacy image, of Xen 4.5 or before"));
        assert_eq!(with(40, &[9]), Ok(Some(2)), "optional flags may be anything");
        assert_eq!(with(44, &[1, 0, 16]), err("1048577 bytes of optional data, but the limit is 1048576"));
        assert_eq!(with(44, &[2]), err("a configuration of 0 bytes in 2 bytes of optional data"));
        assert_eq!(with(48, &[4]), err("a configuration of 4 bytes in 3 bytes of optional data"));
        assert_eq!(with(48, &[2]), Ok(Some(2)), "what follows the configuration is skipped");
        assert_eq!(with(44, &[0]), Ok(None), "no configuration");
        for length in 0..golden().len() {
            assert!(matches!(XlHeader::parse(&golden()[..length]), Err(XlFault::Truncated { .. })), "{length}");
        }
    }

    #[test]
    fn a_configuration_beyond_the_limit_is_not_written() {
        let mut out = Vec::new();
        assert!(XlHeader::new(&vec![b' '; MAX_OPTIONAL_BYTES - 4]).encode(&mut out).is_err());
        assert!(out.is_empty());
        XlHeader::new(&vec![b' '; MAX_OPTIONAL_BYTES - 5]).encode(&mut out).unwrap();
        assert!(XlHeader::parse(&out).is_ok());
    }

    proptest! {
        #[test]
        fn round_trips(config: Option<String>, is_json: bool, optional_flags: u32) {
            // A NUL at the end would be taken for the one that ends the configuration.
            let config = config.as_deref().map(|config| config.trim_end_matches('\0').as_bytes());
            let header = XlHeader { config, is_json, optional_flags };
            let mut bytes = Vec::new();
            header.encode(&mut bytes).unwrap();
            prop_assert_eq!(XlHeader::parse(&bytes), Ok((header, &[][..])));
        }
    }
}
