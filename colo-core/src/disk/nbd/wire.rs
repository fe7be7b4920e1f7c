//! The protocol's numbers.

/// The longest read or write. The protocol lets a client rely on so much, and no client asks for more unless it is told that it may.
pub const MAX_REQUEST_BYTES: u32 = 32 << 20;

pub(super) const MAGIC: u64 = 0x4e42_444d_4147_4943;
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Of both sides: the fixed newstyle negotiation, and no zeroes behind what `NBD_OPT_EXPORT_NAME` is answered with.
pub(super) const FIXED_NEWSTYLE: u32 = 1;
pub(super) const NO_ZEROES: u32 = 2;

pub(super) mod option {
    pub(in crate::disk::nbd) const EXPORT_NAME: u32 = 1;
    pub(in crate::disk::nbd) const ABORT: u32 = 2;
    pub(in crate::disk::nbd) const LIST: u32 = 3;
    pub(in crate::disk::nbd) const INFO: u32 = 6;
    pub(in crate::disk::nbd) const GO: u32 = 7;
    pub(in crate::disk::nbd) const STRUCTURED_REPLY: u32 = 8;
    pub(in crate::disk::nbd) const LIST_META_CONTEXT: u32 = 9;
    pub(in crate::disk::nbd) const SET_META_CONTEXT: u32 = 10;
}

pub(super) mod reply {
    pub(in crate::disk::nbd) const ACK: u32 = 1;
    pub(in crate::disk::nbd) const SERVER: u32 = 2;
    pub(in crate::disk::nbd) const INFO: u32 = 3;
    pub(in crate::disk::nbd) const META_CONTEXT: u32 = 4;
    pub(in crate::disk::nbd) const ERROR_BIT: u32 = 1 << 31;
    pub(in crate::disk::nbd) const UNSUPPORTED: u32 = ERROR_BIT | 1;
    pub(in crate::disk::nbd) const INVALID: u32 = ERROR_BIT | 3;
    pub(in crate::disk::nbd) const UNKNOWN: u32 = ERROR_BIT | 6;
    pub(in crate::disk::nbd) const TOO_BIG: u32 = ERROR_BIT | 9;
}

pub(super) mod info {
    pub(in crate::disk::nbd) const EXPORT: u16 = 0;
    pub(in crate::disk::nbd) const NAME: u16 = 1;
    pub(in crate::disk::nbd) const DESCRIPTION: u16 = 2;
    pub(in crate::disk::nbd) const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub(super) mod can {
    pub(in crate::disk::nbd) const HAS_FLAGS: u16 = 1;
    pub(in crate::disk::nbd) const READ_ONLY: u16 = 1 << 1;
    pub(in crate::disk::nbd) const FLUSH: u16 = 1 << 2;
    pub(in crate::disk::nbd) const FUA: u16 = 1 << 3;
    pub(in crate::disk::nbd) const TRIM: u16 = 1 << 5;
    pub(in crate::disk::nbd) const WRITE_ZEROES: u16 = 1 << 6;
    pub(in crate::disk::nbd) const DF: u16 = 1 << 7;
    pub(in crate::disk::nbd) const MULTI_CONN: u16 = 1 << 8;
    pub(in crate::disk::nbd) const CACHE: u16 = 1 << 10;
}

/// A request's flags.
pub(super) mod flag {
    pub(in crate::disk::nbd) const FUA: u16 = 1;
    pub(in crate::disk::nbd) const NO_HOLE: u16 = 1 << 1;
    pub(in crate::disk::nbd) const DF: u16 = 1 << 2;
    pub(in crate::disk::nbd) const REQ_ONE: u16 = 1 << 3;
}

/// Kinds of structured replies' chunks, and of what `base:allocation` says.
pub(super) mod chunk {
    pub(in crate::disk::nbd) const DONE: u16 = 1;
    pub(in crate::disk::nbd) const NONE: u16 = 0;
    pub(in crate::disk::nbd) const OFFSET_DATA: u16 = 1;
    pub(in crate::disk::nbd) const OFFSET_HOLE: u16 = 2;
    pub(in crate::disk::nbd) const BLOCK_STATUS: u16 = 5;
    pub(in crate::disk::nbd) const ERROR_BIT: u16 = 1 << 15;
    pub(in crate::disk::nbd) const ERROR: u16 = ERROR_BIT | 1;
    pub(in crate::disk::nbd) const ERROR_OFFSET: u16 = ERROR_BIT | 2;
    pub(in crate::disk::nbd) const STATE_HOLE: u32 = 1;
    pub(in crate::disk::nbd) const STATE_ZERO: u32 = 2;
}

/// The only context that there is, and its number.
pub(super) const ALLOCATION: &str = "base:allocation";
pub(super) const ALLOCATION_ID: u32 = 1;
