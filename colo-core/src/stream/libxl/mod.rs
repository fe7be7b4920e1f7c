//! libxl's stream, which wraps libxc's: a header, the libxc stream, and then what Xen itself does not know of a domain, the state
//! of its device model.
//!
//! The format is that of `docs/specs/libxl-migration-stream.pandoc` in Xen's sources ("libxenlight Domain Image Format"), version 2,
//! little-endian. Its records are laid out like libxc's, but their types have other meanings:
//!
//! ```text
//! plain         header, LIBXC_CONTEXT, a libxc stream, emulator records ..., END
//! checkpointed  header, LIBXC_CONTEXT, libxc headers and records to CHECKPOINT, emulator records ..., CHECKPOINT_END,
//!               { CHECKPOINT_STATE (only COLO), libxc records to CHECKPOINT, emulator records ..., CHECKPOINT_END } ...
//! ```
//!
//! ```
//! use colo_core::stream::libxl::{LibxlHeader, LibxlRecord, XenstoreData};
//!
//! let mut bytes = Vec::new();
//! LibxlHeader::default().encode(&mut bytes);
//! LibxlRecord::LibxcContext.encode(&mut bytes)?;
//!
//! let (header, rest) = LibxlHeader::parse(&bytes)?;
//! assert!(!header.legacy);
//! assert_eq!(LibxlRecord::parse(rest, 1 << 20)?, (LibxlRecord::LibxcContext, &[][..]));
//! # Ok::<(), colo_core::stream::libxl::LibxlFault>(())
//! ```

mod order;
mod record;

pub use order::LibxlOrder;
pub use record::{
    CheckpointState, Emulator, EmulatorId, LibxlRecord, MAX_LIBXL_BODY_BYTES, XenstoreData, encode_xenstore_data,
};

use super::kind as libxc_kind;
use zerocopy::byteorder::big_endian;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The types of libxl's records, by their names in the specification.
pub mod kind {
    macro_rules! kinds {
        ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
            $($(#[$doc])* pub const $name: u32 = $value;)*

            /// The name of a record type, for people.
            pub fn name(kind: u32) -> &'static str {
                match kind {
                    $($name => stringify!($name),)*
                    _ => "unknown",
                }
            }
        };
    }

    kinds! {
        /// The last record of a stream.
        END = 0x0;
        /// A libxc stream follows.
        LIBXC_CONTEXT = 0x1;
        /// What the device model keeps in xenstore.
        EMULATOR_XENSTORE_DATA = 0x2;
        /// The device model's state.
        EMULATOR_CONTEXT = 0x3;
        /// The end of a checkpoint.
        CHECKPOINT_END = 0x4;
        /// COLO: what one side has come to.
        CHECKPOINT_STATE = 0x5;
    }
}

/// What can be wrong with a libxl stream.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LibxlFault {
    /// The bytes end within the header or a record.
    #[error("it is cut off: {needed} bytes are needed, {got} are there")]
    Truncated {
        /// Bytes of the whole, as far as known.
        needed: usize,
        /// Bytes there are.
        got: usize,
    },
    /// The header does not begin as every libxl stream does.
    #[error("this is no libxl stream")]
    NotLibxl,
    /// A version of the format that is not known.
    #[error("version {0} of the libxl format is unknown (2 is known)")]
    UnknownVersion(u32),
    /// The numbers of the stream are big-endian, which no machine that runs Xen writes.
    #[error("its numbers are big-endian")]
    BigEndian,
    /// A record of a type that libxl does not know; it passes over none.
    #[error("libxl record of unknown type {0:#x}")]
    UnknownRecord(u32),
    /// A record's body is longer than the reader allows.
    #[error("{} record of {length} bytes, but the limit is {limit}", kind::name(*kind))]
    TooLong {
        /// The record's type.
        kind: u32,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A record of the wrong length for its type.
    #[error("{} record of {length} bytes", kind::name(*kind))]
    BadLength {
        /// The record's type.
        kind: u32,
        /// Its length.
        length: usize,
    },
    /// A device model of an unknown kind.
    #[error("{} record of unknown emulator {id:#x}", kind::name(*kind))]
    UnknownEmulator {
        /// The record's type.
        kind: u32,
        /// The device model.
        id: u32,
    },
    /// What is to go to xenstore is no list of keys and values.
    #[error("EMULATOR_XENSTORE_DATA record: {0}")]
    Xenstore(&'static str),
    /// A state of a checkpoint that there is not.
    #[error("CHECKPOINT_STATE record of unknown state {0}")]
    UnknownState(u32),
    /// A record where it may not be.
    #[error("{} record where {expected} must come", kind::name(*kind))]
    OutOfOrder {
        /// The type of the record that came.
        kind: u32,
        /// What could have come.
        expected: &'static str,
    },
    /// A record that this domain may not have.
    #[error("{} record of a PV guest", kind::name(*kind))]
    NotAllowed {
        /// Its type.
        kind: u32,
    },
    /// A field that must be zero is not.
    #[error("{0} is not zero")]
    NotZero(&'static str),
}

/// "LibxlFmt".
const IDENT: u64 = 0x4c69_6278_6c46_6d74;
const VERSION: u32 = 2;
const BIG_ENDIAN: u32 = 1;
const LEGACY: u32 = 2;

/// The header of a libxl stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LibxlHeader {
    /// Whether the stream was made from one of Xen 4.5 or before.
    pub legacy: bool,
}

/// As in the specification, "Header". All numbers are big-endian, whatever the options say.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    ident: big_endian::U64,
    version: big_endian::U32,
    options: big_endian::U32,
}

impl LibxlHeader {
    /// Its length in a stream.
    pub const BYTES: usize = size_of::<RawHeader>();
    /// What every libxl stream begins with.
    pub const IDENT: [u8; 8] = IDENT.to_be_bytes();

    /// Reads the header from the front of `bytes`. Reserved options are ignored.
    ///
    /// # Errors
    /// [`LibxlFault::Truncated`], [`LibxlFault::NotLibxl`], [`LibxlFault::UnknownVersion`], [`LibxlFault::BigEndian`].
    pub fn parse(bytes: &[u8]) -> Result<(LibxlHeader, &[u8]), LibxlFault> {
        let truncated = LibxlFault::Truncated { needed: Self::BYTES, got: bytes.len() };
        let (raw, rest) = RawHeader::ref_from_prefix(bytes).map_err(|_| truncated)?;
        match (raw.ident.get(), raw.version.get(), raw.options.get()) {
            (IDENT, VERSION, options) if options & BIG_ENDIAN != 0 => Err(LibxlFault::BigEndian),
            (IDENT, VERSION, options) => Ok((LibxlHeader { legacy: options & LEGACY != 0 }, rest)),
            (IDENT, version, _) => Err(LibxlFault::UnknownVersion(version)),
            _ => Err(LibxlFault::NotLibxl),
        }
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let options = if self.legacy { LEGACY } else { 0 };
        let raw = RawHeader { ident: IDENT.into(), version: VERSION.into(), options: options.into() };
        out.extend_from_slice(raw.as_bytes());
    }

    /// Whether the options that mean nothing are zero in a header that [`LibxlHeader::parse`] has read from `bytes`.
    pub(super) fn check_reserved(bytes: &[u8]) -> Result<(), LibxlFault> {
        match RawHeader::ref_from_prefix(bytes) {
            Ok((raw, _)) if raw.options.get() & !(BIG_ENDIAN | LEGACY) != 0 => {
                Err(LibxlFault::NotZero("a reserved option of the libxl header"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a record that follows a CHECKPOINT_END is libxl's, by its type. What follows is either COLO's CHECKPOINT_STATE, or
/// libxc's next state; and no state begins with the libxc record of that number, X86_PV_VCPU_EXTENDED.
pub(super) const fn is_libxl_after_checkpoint(record_kind: u32) -> bool {
    const { assert!(kind::CHECKPOINT_STATE == libxc_kind::X86_PV_VCPU_EXTENDED) };
    record_kind == kind::CHECKPOINT_STATE
}

#[cfg(test)]
mod tests;
