use crate::disk::Content;
use bytes::Bytes;
use std::ops::Range;

/// Limits of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// So many bytes of data are kept in memory; more are in the journal only.
    pub memory_bytes: u64,
    /// A write so long is not kept in memory once the journal has it: it is read from there as fast, and memory is not free.
    pub long_bytes: u64,
    /// So many bytes may wait for a commit: at half of them a checkpoint is wanted, and from there on writers wait.
    pub pending_bytes: u64,
    /// So many bytes of the journal may be of what counts and is not on the disks yet: then no further epoch should count, and a guest that serves
    /// waits, until some of it is.
    pub behind_bytes: u64,
    /// So many bytes are under way to the disks at once.
    pub fold_bytes: u64,
    /// So long is a part of the journal that is used again as a whole. It must be in [`SEGMENT_BYTES`], and a multiple of 64; a journal that is
    /// taken up keeps its own.
    ///
    /// [`SEGMENT_BYTES`]: super::super::journal::SEGMENT_BYTES
    pub segment_bytes: u64,
    /// So many bytes the journal's file keeps, once it has had them, for what comes; what is beyond is given back when it is needed no more.
    pub journal_bytes: u64,
    /// Both hosts have the disks: what the primary says is what they were before it changed them, and a commit leaves them alone.
    pub is_shared: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            memory_bytes: 256 << 20,
            long_bytes: 128 << 10,
            pending_bytes: 1 << 30,
            behind_bytes: 1 << 30,
            fold_bytes: 8 << 20,
            segment_bytes: 16 << 20,
            journal_bytes: 1 << 30,
            is_shared: false,
        }
    }
}

/// Something to be done to the journal or to a disk. Those that are there may be done at once and in any order: whatever must come after
/// another is only asked for when that is [done](super::EpochStore::done).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write these parts, one behind the other, to this place of the journal.
    Journal {
        /// In bytes from its file's beginning.
        at: u64,
        /// What to write.
        parts: Vec<Bytes>,
    },
    /// Make durable what has been written to the journal.
    SyncJournal,
    /// Write this to this range of a disk.
    Disk {
        /// Which disk.
        disk: u8,
        /// Where on it.
        range: Range<u64>,
        /// What to write.
        content: Content,
    },
    /// Make durable what has been written to a disk.
    SyncDisk {
        /// Which disk.
        disk: u8,
    },
    /// This part of the journal's file is not needed: its space may be given back.
    Release(Range<u64>),
}

/// An [`Action`]'s number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ActionId(pub(super) u64);

/// A read that is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub(super) u64);

/// Where a part of what is read is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Here.
    Memory(Bytes),
    /// In the journal, from this place on.
    Journal {
        /// In bytes from its file's beginning.
        at: u64,
    },
    /// Nowhere: it is zeroes.
    Zeroes,
    /// On the disk itself.
    Disk,
}

/// A part of a disk, and where what is in it is.
pub type Piece = (Range<u64>, Source);

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Taken {
    /// The store has it. It outlives this process when the journal has been [written](super::EpochStore::is_written) so far.
    Kept {
        /// A place of the journal, in bytes from its beginning.
        until: u64,
    },
    /// There is nothing left for the store to do: it is to be written to the disk, by whoever asked.
    Direct,
}
