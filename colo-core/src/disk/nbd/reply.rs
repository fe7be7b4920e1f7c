use super::wire::{ALLOCATION_ID, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk};
use crate::disk::{Allocation, DiskError};

/// A reply, or a part of one, on its way to a client: bytes, which data may have to follow.
pub struct Reply;

impl Reply {
    /// It is done, and there is nothing to say.
    pub fn done(cookie: u64) -> Vec<u8> {
        Reply::simple(cookie, 0)
    }

    /// It is not done. To a read there are two ways to say so.
    pub fn error(cookie: u64, error: DiskError, is_structured_read: bool) -> Vec<u8> {
        if !is_structured_read {
            return Reply::simple(cookie, error as u32);
        }
        let text = error.to_string();
        let mut reply = Reply::chunk(cookie, chunk::DONE, chunk::ERROR, 4 + 2 + text.len() as u32);
        reply.extend((error as u32).to_be_bytes());
        reply.extend((text.len() as u16).to_be_bytes());
        reply.extend(text.as_bytes());
        reply
    }

    /// What stands before the data that were read, all of them.
    pub fn data_head(cookie: u64, offset: u64, length: u32, is_structured: bool) -> Vec<u8> {
        if !is_structured {
            return Reply::simple(cookie, 0);
        }
        // No longer than the limit of a request, which is far from that of a number.
        let mut reply = Reply::chunk(cookie, chunk::DONE, chunk::OFFSET_DATA, 8 + length);
        reply.extend(offset.to_be_bytes());
        reply
    }

    /// What was read is zeroes, all of it. Only for structured replies.
    pub fn hole(cookie: u64, offset: u64, length: u32) -> Vec<u8> {
        let mut reply = Reply::chunk(cookie, chunk::DONE, chunk::OFFSET_HOLE, 12);
        reply.extend(offset.to_be_bytes());
        reply.extend(length.to_be_bytes());
        reply
    }

    /// What is allocated. Only for structured replies; there is at least one part.
    pub fn block_status(cookie: u64, parts: &[Allocation]) -> Vec<u8> {
        let mut reply = Reply::chunk(cookie, chunk::DONE, chunk::BLOCK_STATUS, 4 + 8 * parts.len() as u32);
        reply.extend(ALLOCATION_ID.to_be_bytes());
        for part in parts {
            let hole = if part.is_hole { chunk::STATE_HOLE } else { 0 };
            let zero = if part.is_zero { chunk::STATE_ZERO } else { 0 };
            reply.extend(part.length.to_be_bytes());
            reply.extend((hole | zero).to_be_bytes());
        }
        reply
    }

    fn simple(cookie: u64, error: u32) -> Vec<u8> {
        [&SIMPLE_REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat()
    }

    fn chunk(cookie: u64, flags: u16, kind: u16, length: u32) -> Vec<u8> {
        let mut reply = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend(flags.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        reply.extend(cookie.to_be_bytes());
        reply.extend(length.to_be_bytes());
        reply
    }
}
