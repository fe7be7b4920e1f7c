//! What the log is in bytes. Numbers are little-endian.
//!
//! ```text
//! 0       header 0      of the even generations
//! 4096    header 1      of the odd ones
//! 8192    half 0        records of an even generation
//!         half 1        of an odd one
//! middle  the raw area, which `/disk` addresses: nothing of the log's
//! ```
//!
//! The valid header with the greater generation says which half counts. Records follow each other in it without gaps, and end where
//! none is valid. A record counts if its checksum is right, which is one over the generation too; if its sequence number is the next;
//! and if its epoch is no smaller than the one before. Each start of the machine begins an epoch with a record that says so, and is
//! durable before any other is written: so what an earlier start left behind the end can never count again.

use alloc::{vec, vec::Vec};

use crate::{
    store::{KEY_LIMIT, VALUE_LIMIT},
    sum::Sum,
};

/// What a header takes on the disk: more than is ever written as a whole or not at all.
pub const HEADER_BYTES: usize = 4096;
/// A record's own fields: checksum, sequence number, epoch, lengths of key and value, zero.
const RECORD_HEAD_BYTES: usize = 32;
/// The length of the value in a record that removes its key.
const REMOVED: u32 = u32::MAX;
const MAGIC: u64 = u64::from_le_bytes(*b"COLOKVLG");
const VERSION: u32 = 1;

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// What a half takes.
    pub half_bytes: u64,
    /// Where the raw area begins.
    pub raw_offset: u64,
    /// Its size.
    pub raw_bytes: u64,
}

impl Area {
    /// Of a disk of so many bytes.
    pub fn of(disk_bytes: u64) -> Self {
        let page = HEADER_BYTES as u64;
        let raw_offset = disk_bytes / 2 / page * page;
        Self {
            half_bytes: raw_offset.saturating_sub(2 * page) / 2 / page * page,
            raw_offset,
            raw_bytes: disk_bytes - raw_offset,
        }
    }

    /// What all entries together may take as records: half of a half, so that a log is not rewritten for every few records.
    pub fn live_limit_bytes(&self) -> u64 {
        self.half_bytes / 2
    }

    /// Where that generation's header is.
    pub fn header_offset(&self, generation: u64) -> u64 {
        generation % 2 * HEADER_BYTES as u64
    }

    /// Where its half begins.
    pub fn half_offset(&self, generation: u64) -> u64 {
        2 * HEADER_BYTES as u64 + generation % 2 * self.half_bytes
    }
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Counts how often the log was begun anew.
    pub generation: u64,
    /// The sequence number of the first record.
    pub first_sequence: u64,
    /// The epoch in which it was begun.
    pub epoch: u32,
}

impl Header {
    /// As it is on the disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let sum = checksum(0, &bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    /// `None` if it is none, or a torn one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, rest) = bytes.split_at_checked(32)?;
        let sum = u64_at(rest, 0)?;
        let known = u64_at(fields, 0)? == MAGIC && u32_at(fields, 28)? == VERSION;
        (known && sum == checksum(0, fields)).then_some(Self {
            generation: u64_at(fields, 8)?,
            first_sequence: u64_at(fields, 16)?,
            epoch: u32_at(fields, 24)?,
        })
    }
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// One more than that of the record before.
    pub sequence: u64,
    /// Which start of the machine wrote it.
    pub epoch: u32,
    /// Empty in the record that begins an epoch, and only there.
    pub key: &'a [u8],
    /// `None` removes the key.
    pub value: Option<&'a [u8]>,
}

/// What a record with such a key and value takes.
pub fn record_bytes(key_bytes: usize, value_bytes: usize) -> usize {
    RECORD_HEAD_BYTES + (key_bytes + value_bytes).next_multiple_of(8)
}

impl Record<'_> {
    /// What it takes.
    pub fn bytes(&self) -> usize {
        record_bytes(self.key.len(), self.value.map_or(0, <[u8]>::len))
    }

    /// Appends the record as it is in that generation.
    pub fn encode(&self, generation: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let value_bytes = self.value.map_or(REMOVED, |value| value.len() as u32);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&value_bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value.unwrap_or_default());
        out.resize(start + self.bytes(), 0);
        let sum = checksum(generation, &out[start + 8..]);
        out[start..start + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// What is at the start of some bytes of a half.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A record, whatever its sequence number and epoch.
    Record(Record<'a>),
    /// It takes so many bytes to tell.
    Short(usize),
    /// No record.
    Nothing,
}

/// Reads the record at the start of `bytes`.
pub fn decode(bytes: &[u8], generation: u64) -> Decoded<'_> {
    let fields = || {
        let head = bytes.get(..RECORD_HEAD_BYTES)?;
        let lengths = (u32_at(head, 20)?, u32_at(head, 24)?);
        Some((
            u64_at(head, 0)?,
            u64_at(head, 8)?,
            u32_at(head, 16)?,
            lengths,
        ))
    };
    let Some((sum, sequence, epoch, (key_bytes, value_bytes))) = fields() else {
        return Decoded::Short(RECORD_HEAD_BYTES);
    };
    let key_bytes = key_bytes as usize;
    let (is_removed, value_bytes) = match value_bytes {
        REMOVED => (true, 0),
        bytes => (false, bytes as usize),
    };
    if key_bytes > KEY_LIMIT || value_bytes > VALUE_LIMIT || (key_bytes == 0 && !is_removed) {
        return Decoded::Nothing;
    }
    let all = record_bytes(key_bytes, value_bytes);
    let Some(record) = bytes.get(..all) else {
        return Decoded::Short(all);
    };
    if sum != checksum(generation, &record[8..]) {
        return Decoded::Nothing;
    }
    let (key, rest) = record[RECORD_HEAD_BYTES..].split_at(key_bytes);
    Decoded::Record(Record {
        sequence,
        epoch,
        key,
        value: (!is_removed).then(|| &rest[..value_bytes]),
    })
}

fn checksum(generation: u64, bytes: &[u8]) -> u64 {
    let mut sum = Sum::default();
    sum.add_word(generation);
    sum.add_bytes(bytes);
    sum.value()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Zeroes to be read into.
pub fn room(bytes: usize) -> Vec<u8> {
    vec![0; bytes]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_parts_of_a_disk_do_not_overlap() {
        for disk_bytes in [1 << 20, (1 << 20) + 4096, 3 << 20, 16 << 40] {
            let area = Area::of(disk_bytes);
            let halves = [area.half_offset(2), area.half_offset(3)];
            assert_eq!(halves, [8192, 8192 + area.half_bytes]);
            assert!(halves[1] + area.half_bytes <= area.raw_offset);
            assert_eq!(area.raw_offset + area.raw_bytes, disk_bytes);
            let largest = record_bytes(KEY_LIMIT, VALUE_LIMIT) + record_bytes(0, 0);
            assert!(area.live_limit_bytes() >= largest as u64);
        }
    }

    #[test]
    fn a_torn_header_is_none() {
        let header = Header {
            generation: 5,
            first_sequence: 6,
            epoch: 7,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for at in 0..40 {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert_eq!(Header::decode(&torn), None, "{at}");
            assert_eq!(Header::decode(&bytes[..at]), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_and_a_damaged_one_is_not(
            sequence: u64, epoch: u32, generation: u64,
            key in proptest::collection::vec(any::<u8>(), 1..KEY_LIMIT),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..600)),
            at: usize, bit in 0u8..8,
        ) {
            let record = Record { sequence, epoch, key: &key, value: value.as_deref() };
            let mut bytes = Vec::new();
            record.encode(generation, &mut bytes);
            prop_assert_eq!(bytes.len(), record.bytes());
            prop_assert_eq!(decode(&bytes, generation), Decoded::Record(record));
            prop_assert_eq!(decode(&bytes, generation ^ 1), Decoded::Nothing);
            let is_short = matches!(decode(&bytes[..at % bytes.len()], generation), Decoded::Short(_));
            prop_assert!(is_short);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let is_record = matches!(decode(&bytes, generation), Decoded::Record(_));
            prop_assert!(!is_record);
        }

        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>, generation: u64) {
            let _ = (decode(&bytes, generation), Header::decode(&bytes));
        }
    }
}
