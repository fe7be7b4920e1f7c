use alloc::vec::Vec;

use super::format::{Area, Decoded, Header, Record, decode, room};
use crate::disk::Request;

/// How much is read at once: no less than the longest record.
const CHUNK_BYTES: u64 = 128 << 10;

/// Reads the records of a half, from its start to where none is valid.
pub(super) struct Scan {
    generation: u64,
    half_offset: u64,
    /// Nothing from here on is looked at.
    limit: u64,
    /// Up to where the half was fetched.
    fetched: u64,
    /// What was fetched, and how much of it was looked at.
    bytes: Vec<u8>,
    looked: usize,
    /// Where the next record begins.
    at: u64,
    sequence: u64,
    epoch: u32,
}

/// What comes next.
pub(super) enum Found<'a> {
    Record(Record<'a>),
    /// Unknown: fetch more.
    More,
    /// No record.
    End,
}

impl Scan {
    /// Of the records behind that header, in the first `limit` bytes of their half.
    pub(super) fn new(area: &Area, header: &Header, limit: u64) -> Self {
        Self {
            generation: header.generation,
            half_offset: area.half_offset(header.generation),
            limit,
            fetched: 0,
            bytes: Vec::new(),
            looked: 0,
            at: 0,
            sequence: header.first_sequence,
            epoch: header.epoch,
        }
    }

    /// What is to be read from the disk next, for [`Scan::feed`]; `None` at the limit.
    pub(super) fn fetch(&self) -> Option<Request> {
        let bytes = CHUNK_BYTES.min(self.limit - self.fetched);
        let offset = self.half_offset + self.fetched;
        (bytes > 0).then(|| Request::read(offset, room(bytes as usize)))
    }

    /// Here it is.
    pub(super) fn feed(&mut self, chunk: &[u8]) {
        self.bytes.drain(..self.looked);
        self.looked = 0;
        self.fetched += chunk.len() as u64;
        self.bytes.extend_from_slice(chunk);
    }

    pub(super) fn next(&mut self) -> Found<'_> {
        match decode(&self.bytes[self.looked..], self.generation) {
            Decoded::Record(record)
                if record.sequence == self.sequence && record.epoch >= self.epoch =>
            {
                self.looked += record.bytes();
                self.at += record.bytes() as u64;
                self.sequence += 1;
                self.epoch = record.epoch;
                Found::Record(record)
            }
            Decoded::Short(wanted)
                if self.at + wanted as u64 <= self.limit && self.fetched < self.limit =>
            {
                Found::More
            }
            _ => Found::End,
        }
    }

    /// Where the records end, the next sequence number, and the epoch of the last record.
    pub(super) fn end(&self) -> (u64, u64, u32) {
        (self.at, self.sequence, self.epoch)
    }
}
