//! How much there is, and whether that is too much.

use super::EpochStore;
use crate::disk::layer::Layer;

impl EpochStore {
    /// Bytes of writes that wait for a commit.
    pub fn pending_bytes(&self) -> u64 {
        self.overlay.bytes() + self.open.bytes() + self.closed.iter().map(Layer::bytes).sum::<u64>()
    }

    /// Bytes of data that are kept in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.layers().map(Layer::memory_bytes).sum()
    }

    /// Bytes of the journal that are in use.
    pub fn journal_bytes(&self) -> u64 {
        self.log.end.at - self.log.start.data_from.min(self.data_from())
    }

    /// Whether so much waits for a commit that there should be a checkpoint.
    pub fn wants_checkpoint(&self) -> bool {
        !self.serves && self.pending_bytes() >= self.config.pending_bytes / 2
    }

    /// Whether the secondary's guest must wait with what it writes: until there has been a checkpoint, or, when it serves, until more is on the
    /// disks.
    pub fn is_full(&self) -> bool {
        if self.serves { self.is_behind() } else { self.pending_bytes() >= self.config.pending_bytes }
    }

    /// Bytes of the journal that are of what counts and is not on the disks yet: of a guest that serves, all that it has written.
    pub fn behind_bytes(&self) -> u64 {
        let folding = self.folding.as_ref().map(|folding| &folding.layer);
        let open = Some(&self.open).filter(|open| self.serves && !open.is_empty());
        let Some(first) = folding.or(self.committed.front()).or(open) else { return 0 };
        let last = self.committed.back().unwrap_or(first);
        let end = if self.serves { self.log.end.at } else { last.end };
        end - first.begin.at
    }

    /// Whether so much of what counts is not on the disks yet that there should be no more of it before some is. That comes without anybody's
    /// doing.
    pub fn is_behind(&self) -> bool {
        self.behind_bytes() >= self.config.behind_bytes.max(1)
    }
}
