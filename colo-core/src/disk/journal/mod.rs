//! The journal's format: what is in its file, byte by byte. All numbers are little-endian.
//!
//! ```text
//!      0  superblock, slot 0     the valid one with the higher number holds
//!   4096  superblock, slot 1
//!   8192  slots for segments, one after the other, all of one length
//! ```
//!
//! A journal is endless: places in it count up from 0, and of each segment's length of them the file has one slot, as long as they are needed. Then
//! the slot is another segment's. The first record of a segment says which it is.
//!
//! ```text
//!   journal   | segment 0 | segment 1 | segment 2 | segment 3 | segment 4 |  ...
//!               not needed any more     start ^            end ^
//!   file      superblocks | slot 0: segment 3 | slot 1: segment 4 | slot 2: segment 2
//! ```
//!
//! Records stand one after the other, each from a multiple of 64 bytes on, and none is in two segments: the data of a write may be in two records.
//!
//! | superblock | bytes | |
//! | --- | --: | --- |
//! | magic | 8 | `COLODISK` |
//! | version | 4 | 4; of disks that both hosts have 5 |
//! | disks | 4 | how many: at most 16 |
//! | generation | 8 | a random number, in each record too: what is left of an older journal is not taken for this one's |
//! | number | 8 | counts up |
//! | epoch | 8 | the epoch that the disks are at without any record |
//! | start | 8 | the place of the first record that still counts |
//! | sequence | 8 | its number |
//! | link | 4 | the checksum of the record before it, or 0 |
//! | serves | 4 | 1 if the secondary's guest serves, or 0: then a record may say so |
//! | segment | 8 | a segment's length in bytes: a multiple of 64 |
//! | sizes | 8 each | the disks', in bytes; zeroes up to 16 |
//! | checksum | 4 | CRC-32C over all before it |
//!
//! | record | bytes | |
//! | --- | --: | --- |
//! | magic | 4 | `COLJ` |
//! | kind | 1 | 1 data, 2 zeroes, 3 discard, 4 barrier, 5 commit, 6 abort, 7 scratch, 8 data that were scratch, 9 a segment's first, 10 the secondary's guest serves (of disks that both hosts have: and what has come since 6 counts) |
//! | disk | 1 | of 1 to 3 |
//! | zeroes | 2 | |
//! | generation | 8 | |
//! | sequence | 8 | counts up by one |
//! | epoch | 8 | of 4 and 5 |
//! | offset | 8 | on the disk, of 1 to 3 |
//! | length | 8 | in bytes, of 1 to 3 and 7 |
//! | checksum of the data | 4 | CRC-32C, of 1 and 7 |
//! | link | 4 | the checksum of the record before this one |
//! | life | 4 | of 4 |
//! | checksum | 4 | CRC-32C over all before it |
//! | data | length | of 1 and 7, filled up to a multiple of 64 |
//!
//! Instead of the epoch a record of kind 8 has the place of scratch data in the journal which are a disk's now, and those of kinds 6 and 9 a random
//! number; one of kind 9 has the segment's number instead of the offset. The first record after a recovery is of one of these kinds, with a new
//! random number, which the other has in the same place: a CRC is linear, and what two records make of one number might cancel out otherwise.
//! Or it is of kind 4, which has the upper half of the number, at a place from which that cancels out with none of the others'.
//!
//! So the link keeps what a crash has left behind a torn record from being taken for what follows another record in its place, even one that
//! says the same.
//!
//! The first superblock is durable before there is a record: a file that has room for records and no superblock is damaged, and a shorter one was never
//! begun.
//!
//! Records up to the first that is not valid count. A commit is only relied on when everything up to it has been made durable, so what is
//! torn or missing behind that was never relied on. Once the secondary's guest serves, its writes count whether there is a commit behind them or
//! not: whoever recovers adds one. Scratch is the secondary's own, and means nothing after a crash. (Or it is no data at all, and
//! is there for the data behind it to begin at a multiple of 4096.)
//!
//! A segment whose first record was lost is as good as one that was never begun: all of it came after what was relied on. A slot is used again only
//! once a superblock that needs it no more is durable.

mod read;

pub use read::{ReadAt, read_superblock};
pub(super) use read::{read_records, read_segments};

use super::MAX_DISKS;
use crate::ids::Epoch;

/// Where the first slot begins.
pub const RECORDS_AT: u64 = 8192;
/// Where the second superblock stands.
pub const SLOT_BYTES: u64 = 4096;
/// A superblock's length.
pub const SUPERBLOCK_BYTES: usize = SIZES_AT + 8 * MAX_DISKS + 4;
/// A record's head, and what each is a multiple of.
pub const RECORD_BYTES: u64 = 64;
/// The longest piece of data in one record.
pub const MAX_DATA_BYTES: u64 = 32 << 20;
/// How long a segment may be.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 4 * RECORD_BYTES..=1 << 30;

/// Where in a superblock the disks' sizes stand.
const SIZES_AT: usize = 72;

/// No journal is that long: places in it can be added to without care.
const MAX_AT: u64 = 1 << 62;

const MAGIC: [u8; 8] = *b"COLODISK";
const RECORD_MAGIC: [u8; 4] = *b"COLJ";
const VERSION: u32 = 4;
/// Whoever knows only the other version must not take such a journal up.
const SHARED_VERSION: u32 = 5;

/// A place between two records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// In bytes from the journal's beginning, wherever that is in the file.
    pub at: u64,
    /// The number of the record that stands there, or will.
    pub sequence: u64,
    /// The checksum of the one before.
    pub link: u32,
}

impl Mark {
    /// Of a journal without records.
    pub const BEGIN: Mark = Mark { at: 0, sequence: 0, link: 0 };
}

/// What a journal says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// A random number.
    pub generation: u64,
    /// Counts up; its lowest bit says in which slot it stands.
    pub number: u64,
    /// The epoch that the disks are at without any record.
    pub epoch: Epoch,
    /// Where the first record stands that still counts.
    pub start: Mark,
    /// Whether the secondary's guest serves.
    pub serves: bool,
    /// Whether both hosts have the disks: then data are what these were before.
    pub is_shared: bool,
    /// A segment's length in bytes.
    pub segment_bytes: u64,
    /// The disks' sizes in bytes.
    pub sizes: Vec<u64>,
}

impl Superblock {
    /// Where it stands.
    pub fn offset(&self) -> u64 {
        self.number % 2 * SLOT_BYTES
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(if self.is_shared { SHARED_VERSION } else { VERSION }.to_le_bytes());
        bytes.extend((self.sizes.len() as u32).to_le_bytes());
        let Mark { at, sequence, link } = self.start;
        for number in [self.generation, self.number, self.epoch.0, at, sequence] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(link.to_le_bytes());
        bytes.extend(u32::from(self.serves).to_le_bytes());
        bytes.extend(self.segment_bytes.to_le_bytes());
        for index in 0..MAX_DISKS {
            bytes.extend(self.sizes.get(index).copied().unwrap_or(0).to_le_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Reads one; `None` if these bytes are none.
    pub fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Option<Superblock> {
        let (body, checksum) = bytes.split_at(SUPERBLOCK_BYTES - 4);
        let disks = u32_at(bytes, 12) as usize;
        let is_one = body[..8] == MAGIC
            && [VERSION, SHARED_VERSION].contains(&u32_at(bytes, 8))
            && disks <= MAX_DISKS
            && (0..=MAX_AT).contains(&u64_at(bytes, 40))
            && SEGMENT_BYTES.contains(&u64_at(bytes, 64))
            && [40, 64].into_iter().all(|at| u64_at(bytes, at) % RECORD_BYTES == 0)
            && crc32c::crc32c(body).to_le_bytes() == checksum;
        is_one.then(|| Superblock {
            generation: u64_at(bytes, 16),
            number: u64_at(bytes, 24),
            epoch: Epoch(u64_at(bytes, 32)),
            start: Mark { at: u64_at(bytes, 40), sequence: u64_at(bytes, 48), link: u32_at(bytes, 56) },
            serves: u32_at(bytes, 60) != 0,
            is_shared: u32_at(bytes, 8) == SHARED_VERSION,
            segment_bytes: u64_at(bytes, 64),
            sizes: (0..disks).map(|index| u64_at(bytes, SIZES_AT + 8 * index)).collect(),
        })
    }
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// The data behind it are at this place of a disk now.
    Data {
        /// Which disk.
        disk: u8,
        /// Where on it.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// CRC-32C over them.
        checksum: u32,
    },
    /// So much of a disk is zeroes now.
    Zeroes {
        /// Which disk.
        disk: u8,
        /// Where on it.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// The disk may give the space back.
        may_unmap: bool,
    },
    /// What has come since the last barrier is this epoch.
    Barrier {
        /// Which.
        epoch: Epoch,
        /// The upper half of what [`Entry::Abort`] has.
        life: u32,
    },
    /// Everything up to the end of this epoch counts.
    Commit(Epoch),
    /// What has come since the last commit was never there.
    Abort {
        /// A random number, another after each recovery.
        life: u64,
    },
    /// The data behind it are the secondary's own.
    Scratch {
        /// How many bytes.
        length: u64,
        /// CRC-32C over them: they may become data.
        checksum: u32,
    },
    /// Data that were scratch are at this place of a disk now.
    Refer {
        /// Which disk.
        disk: u8,
        /// Where on it.
        offset: u64,
        /// How many bytes.
        length: u64,
        /// Where they stand in the journal.
        at: u64,
    },
    /// Here this segment begins.
    Segment {
        /// Which: its place in the journal, in segments.
        number: u64,
        /// As for [`Entry::Abort`].
        life: u64,
    },
    /// The primary is gone, and the secondary's guest serves: what came since the last barrier is its own, and so is what comes.
    Serve,
}

impl Entry {
    /// How many bytes of data follow the head.
    pub fn data_bytes(&self) -> u64 {
        match *self {
            Entry::Data { length, .. } | Entry::Scratch { length, .. } => length,
            _ => 0,
        }
    }

    /// How long the whole record is.
    pub fn record_bytes(&self) -> u64 {
        RECORD_BYTES + self.data_bytes().next_multiple_of(RECORD_BYTES)
    }

    /// The record's head, where it stands at that mark, and the mark behind it.
    pub fn encode(&self, generation: u64, mark: Mark) -> ([u8; RECORD_BYTES as usize], Mark) {
        let (kind, disk, epoch, offset, length, checksum) = match *self {
            Entry::Data { disk, offset, length, checksum } => (1, disk, 0, offset, length, checksum),
            Entry::Zeroes { disk, offset, length, may_unmap } => (2 + u8::from(may_unmap), disk, 0, offset, length, 0),
            Entry::Barrier { epoch, .. } => (4, 0, epoch.0, 0, 0, 0),
            Entry::Commit(epoch) => (5, 0, epoch.0, 0, 0, 0),
            Entry::Abort { life } => (6, 0, life, 0, 0, 0),
            Entry::Scratch { length, checksum } => (7, 0, 0, 0, length, checksum),
            Entry::Refer { disk, offset, length, at } => (8, disk, at, offset, length, 0),
            Entry::Segment { number, life } => (9, 0, life, number, 0, 0),
            Entry::Serve => (10, 0, 0, 0, 0, 0),
        };
        let mut bytes = [0; RECORD_BYTES as usize];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        (bytes[4], bytes[5]) = (kind, disk);
        for (at, number) in [(8, generation), (16, mark.sequence), (24, epoch), (32, offset), (40, length)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
        bytes[52..56].copy_from_slice(&mark.link.to_le_bytes());
        if let Entry::Barrier { life, .. } = self {
            bytes[56..60].copy_from_slice(&life.to_le_bytes());
        }
        let link = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&link.to_le_bytes());
        (bytes, self.behind(mark, link))
    }

    fn behind(&self, mark: Mark, link: u32) -> Mark {
        Mark { at: mark.at + self.record_bytes(), sequence: mark.sequence.wrapping_add(1), link }
    }

    /// Reads a head, and the mark behind the record; `None` if it is not one of this journal at that mark.
    pub fn decode(bytes: &[u8; RECORD_BYTES as usize], generation: u64, mark: Mark) -> Option<(Entry, Mark)> {
        let is_ours = bytes[..4] == RECORD_MAGIC
            && u64_at(bytes, 8) == generation
            && u64_at(bytes, 16) == mark.sequence
            && u32_at(bytes, 52) == mark.link
            && u32_at(bytes, 60) == crc32c::crc32c(&bytes[..60]);
        if !is_ours {
            return None;
        }
        let (disk, epoch) = (bytes[5], Epoch(u64_at(bytes, 24)));
        let (offset, length, checksum) = (u64_at(bytes, 32), u64_at(bytes, 40), u32_at(bytes, 48));
        let entry = match bytes[4] {
            1 if length <= MAX_DATA_BYTES => Entry::Data { disk, offset, length, checksum },
            kind @ (2 | 3) => Entry::Zeroes { disk, offset, length, may_unmap: kind == 3 },
            4 => Entry::Barrier { epoch, life: u32_at(bytes, 56) },
            5 => Entry::Commit(epoch),
            6 => Entry::Abort { life: epoch.0 },
            7 if length <= MAX_DATA_BYTES => Entry::Scratch { length, checksum },
            8 => Entry::Refer { disk, offset, length, at: epoch.0 },
            9 => Entry::Segment { number: offset, life: epoch.0 },
            10 => Entry::Serve,
            _ => return None,
        };
        Some((entry, entry.behind(mark, u32_at(bytes, 60))))
    }

    /// Which segment it is that begins with these bytes, if one of this journal does, whatever came before it.
    pub fn segment(bytes: &[u8; RECORD_BYTES as usize], generation: u64) -> Option<u64> {
        let mark = Mark { at: 0, sequence: u64_at(bytes, 16), link: u32_at(bytes, 52) };
        match Entry::decode(bytes, generation, mark)?.0 {
            Entry::Segment { number, .. } => Some(number),
            _ => None,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let (disk, offset, length) = (any::<u8>(), any::<u64>(), 0..=MAX_DATA_BYTES);
        prop_oneof![
            (disk, offset, length.clone(), any::<u32>()).prop_map(|(disk, offset, length, checksum)| Entry::Data {
                disk,
                offset,
                length,
                checksum
            }),
            (disk, offset, any::<u64>(), any::<bool>()).prop_map(|(disk, offset, length, may_unmap)| Entry::Zeroes {
                disk,
                offset,
                length,
                may_unmap
            }),
            (any::<u64>(), any::<u32>()).prop_map(|(epoch, life)| Entry::Barrier { epoch: Epoch(epoch), life }),
            any::<u64>().prop_map(|epoch| Entry::Commit(Epoch(epoch))),
            any::<u64>().prop_map(|life| Entry::Abort { life }),
            Just(Entry::Serve),
            (length, any::<u32>()).prop_map(|(length, checksum)| Entry::Scratch { length, checksum }),
            (any::<u8>(), any::<[u64; 3]>()).prop_map(|(disk, [offset, length, at])| Entry::Refer {
                disk,
                offset,
                length,
                at
            }),
            any::<[u64; 2]>().prop_map(|[number, life]| Entry::Segment { number, life }),
        ]
    }

    fn mark() -> impl Strategy<Value = Mark> {
        (0..1_u64 << 40, any::<u64>(), any::<u32>()).prop_map(|(at, sequence, link)| Mark {
            at: RECORD_BYTES * at,
            sequence,
            link,
        })
    }

    #[test]
    fn what_follows_says_which_life_it_is_of() {
        let kinds: [fn(u64) -> Entry; 4] = [
            |life| Entry::Abort { life },
            |life| Entry::Segment { number: 3, life },
            |life| Entry::Barrier { epoch: Epoch(3), life: (life >> 32) as u32 },
            |_| Entry::Commit(Epoch(3)),
        ];
        // Whatever follows what a life begins with: six records, a digit for each.
        for sequence in 0..3 * 4_usize.pow(5) {
            let digit = |turn: u32| if turn == 0 { sequence % 3 } else { sequence / 3 / 4_usize.pow(turn - 1) % 4 };
            let entries: Vec<_> = (0..6).map(|turn| kinds[digit(turn)]).collect();
            let first = if (0..6).any(|turn| digit(turn) == 2) { 32 } else { 0 };
            let lives = || (first..64).map(|bit| 1 << bit).chain([0]);
            let mut marks: Vec<Mark> = lives().map(|_| Mark::BEGIN).collect();
            for (turn, entry) in entries.into_iter().enumerate() {
                for (mark, life) in marks.iter_mut().zip(lives()) {
                    *mark = entry(life).encode(1, *mark).1;
                }
                let links: std::collections::BTreeSet<u32> = marks.iter().map(|mark| mark.link).collect();
                assert_eq!(links.len(), marks.len(), "after record {turn} of {sequence}");
            }
        }
    }

    proptest! {
        #[test]
        fn records_come_back_and_a_flipped_bit_is_none(
            entry in entry(), generation in any::<u64>(), mark in mark(), bit in 0..8 * RECORD_BYTES as usize,
        ) {
            let (mut bytes, behind) = entry.encode(generation, mark);
            prop_assert_eq!(behind.at, mark.at + entry.record_bytes());
            prop_assert_eq!(Entry::decode(&bytes, generation, mark), Some((entry, behind)));
            prop_assert_eq!(Entry::decode(&bytes, generation ^ 1, mark), None);
            let other = Mark { sequence: mark.sequence.wrapping_add(1), ..mark };
            prop_assert_eq!(Entry::decode(&bytes, generation, other), None);
            prop_assert_eq!(Entry::decode(&bytes, generation, Mark { link: mark.link ^ 1, ..mark }), None);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Entry::decode(&bytes, generation, mark), None);
        }

        #[test]
        fn a_superblock_comes_back_and_a_flipped_bit_is_none(
            numbers in any::<[u64; 3]>(), start in mark(), segment in 4..1_u64 << 24, [serves, is_shared] in any::<[bool; 2]>(),
            sizes in prop::collection::vec(any::<u64>(), 0..=MAX_DISKS),
            bit in 0..8 * SUPERBLOCK_BYTES,
        ) {
            let [generation, number, epoch] = numbers;
            let segment_bytes = segment * RECORD_BYTES;
            let epoch = Epoch(epoch);
            let superblock = Superblock { generation, number, epoch, start, serves, is_shared, segment_bytes, sizes };
            let mut bytes: [u8; SUPERBLOCK_BYTES] = superblock.encode().try_into().unwrap();
            prop_assert_eq!(Superblock::decode(&bytes), Some(superblock));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Superblock::decode(&bytes), None);
        }
    }
}
