//! What happens by itself: data go from memory to the journal, from there to the disks, and from there nowhere.

use super::log::{Start, SuperblockState};
use super::{Action, EpochStore, ReadId, Work};
use crate::disk::Content;
use crate::disk::journal::{Entry, Mark, RECORD_BYTES};
use crate::disk::layer::Layer;
use std::collections::BTreeSet;

/// As much as may wait for the disks goes to them in so many parts, or more: several epochs at once, so that what was written in each of them is
/// written to a disk once.
const FOLDS: u64 = 4;

/// What is being written to the disks: one or several epochs.
pub(super) struct Folding {
    pub(super) layer: Layer,
    /// From which place of which disk on it has still to be written; all of it has been when there is none.
    pub(super) next: Option<(u8, u64)>,
    pub(super) bytes_in_flight: u64,
    pub(super) writes: usize,
    /// Which disks are to be made durable, and how many of them are being.
    pub(super) touched: BTreeSet<u8>,
    pub(super) syncs: usize,
}

impl EpochStore {
    pub(super) fn pump(&mut self) {
        self.spill();
        self.fold();
        if self.serves && self.committed.is_empty() && self.folding.is_none() {
            // The sooner it is on the disks, the sooner nobody needs this any more.
            self.flush();
        }
        self.sync();
        self.release();
    }

    /// Lets go of data in memory that are in the journal, too.
    fn spill(&mut self) {
        if self.memory_at_most <= self.config.memory_bytes {
            return;
        }
        self.memory_at_most = self.memory_bytes();
        if self.memory_at_most <= self.config.memory_bytes {
            return;
        }
        self.write_scratch();
        let written = self.log.written();
        for layer in self.layers_mut() {
            layer.forget_memory(written);
        }
        self.memory_at_most = self.memory_bytes();
    }

    /// Puts what the secondary's own guest has written into the journal, where it means nothing.
    fn write_scratch(&mut self) {
        let mut overlay = std::mem::replace(&mut self.overlay, Layer::new(self.sizes.len(), self.log.end));
        let unwritten: Vec<_> = overlay.unwritten().collect();
        if !unwritten.is_empty() {
            overlay.data_from = overlay.data_from.min(self.log.end.at);
        }
        for (disk, range, bytes) in unwritten {
            let mut at = range.start;
            while at < range.end {
                let end = at + self.make_room(range.end - at);
                let piece = bytes.slice((at - range.start) as usize..(end - range.start) as usize);
                let entry = Entry::Scratch { length: end - at, checksum: piece.crc() };
                let stands_at = self.append(entry, Some(piece.as_bytes().clone()));
                overlay.insert(disk, at..end, Content::Memory { bytes: piece, at: Some(stands_at) });
                at = end;
            }
        }
        self.overlay = overlay;
    }

    /// Writes what counts, and is durable in the journal, to the disks: one part after the other.
    fn fold(&mut self) {
        loop {
            if self.folding.is_none() {
                self.begin_folding();
            }
            let Some(folding) = self.folding.take() else { return };
            self.folding = self.go_on(folding);
            if self.folding.is_some() {
                return;
            }
        }
    }

    /// Returns what is being written still.
    fn go_on(&mut self, mut folding: Folding) -> Option<Folding> {
        while folding.bytes_in_flight < self.config.fold_bytes {
            let Some((disk, range, content)) = folding.next.and_then(|next| folding.layer.first_from(next)) else {
                folding.next = None;
                break;
            };
            let content = match content {
                Content::Stored { at } => Content::Stored { at: self.place(*at) },
                content => content.clone(),
            };
            folding.next = Some((disk, range.end));
            let bytes = range.end - range.start;
            folding.touched.insert(disk);
            folding.bytes_in_flight += bytes;
            folding.writes += 1;
            self.ask(Work::Fold(bytes), Action::Disk { disk, range, content });
        }
        let is_written = folding.next.is_none() && folding.writes == 0;
        if is_written {
            for disk in std::mem::take(&mut folding.touched) {
                folding.syncs += 1;
                self.ask(Work::FoldSync, Action::SyncDisk { disk });
            }
        }
        if is_written && folding.syncs == 0 {
            // The disks have it.
            self.garbage.push(folding.layer);
            return None;
        }
        Some(folding)
    }

    fn begin_folding(&mut self) {
        let Some(mut layer) = self.next_durable() else { return };
        // Whoever waits for some of it to be on the disks does not wait for all of it.
        while layer.end - layer.begin.at < self.config.behind_bytes / FOLDS {
            let Some(next) = self.next_durable() else { break };
            layer.overlay(next);
        }
        self.folding = Some(Folding {
            layer,
            next: Some((0, 0)),
            bytes_in_flight: 0,
            writes: 0,
            touched: BTreeSet::new(),
            syncs: 0,
        });
    }

    /// The first of the epochs that count, if the journal is durable up to its commit.
    fn next_durable(&mut self) -> Option<Layer> {
        self.committed.front().filter(|layer| layer.end <= self.log.durable)?;
        self.committed.pop_front()
    }

    fn sync(&mut self) {
        // A recovery need not begin before the first layer that is not on the disks.
        let first = self.first_needed();
        if self.log.superblock == SuperblockState::Durable && first != self.log.start.mark && self.wants_start(first) {
            let start = Start { mark: first, data_from: self.data_from() };
            self.write_superblock(start, self.epoch_before_layers());
        }
        // A journal without its first superblock is none, whatever is in it.
        let is_none = self.log.number == 1 && matches!(self.log.superblock, SuperblockState::Writing(_));
        if self.log.sync.is_some() || is_none {
            return;
        }
        let written = self.log.written();
        let is_wanted = self.log.wanted > self.log.durable && written >= self.log.wanted;
        let superblock = self.log.superblock;
        if is_wanted || matches!(superblock, SuperblockState::Written(_)) {
            if let SuperblockState::Written(start) = superblock {
                self.log.superblock = SuperblockState::Syncing(start);
            }
            self.log.sync = Some(written);
            self.ask(Work::Sync, Action::SyncJournal);
        }
    }

    /// Whether it is worth a superblock that a recovery begins there: not for a record that says nothing.
    fn wants_start(&self, first: Mark) -> bool {
        // It must not begin behind what would be torn off.
        first.at <= self.log.durable && (self.serves || first.at - self.log.start.mark.at > RECORD_BYTES)
    }

    /// Where a recovery would have to begin.
    fn first_needed(&self) -> Mark {
        let folding = self.folding.as_ref().map(|folding| &folding.layer);
        let layers = folding.into_iter().chain(&self.committed).chain(&self.closed);
        let layers = layers.chain(Some(&self.open).filter(|open| !open.is_empty()));
        layers.map(|layer| layer.begin).min_by_key(|mark| mark.at).unwrap_or(self.log.end)
    }

    /// Below that place of the journal no layer needs anything.
    pub(super) fn data_from(&self) -> u64 {
        self.layers().map(|layer| layer.data_from).fold(self.first_needed().at, u64::min)
    }

    fn release(&mut self) {
        while let Some((below, last)) = self.retiring.or_else(|| self.retire()) {
            // Whoever reads since before may have found something there. Whoever has come since has not, and need not be waited for: there may
            // always be somebody.
            if self.readers.first().is_some_and(|oldest| *oldest <= last) {
                self.retiring = Some((below, last));
                return;
            }
            self.retiring = None;
            for slot in self.segments.give_back(below) {
                let range = self.segments.range(slot);
                self.ask(Work::Release(slot), Action::Release(range));
            }
        }
    }

    /// Below which place nobody finds anything from now on, if there is something there.
    fn retire(&self) -> Option<(u64, ReadId)> {
        let below = self.log.start.data_from.min(self.data_from());
        self.segments.has_below(below).then_some((below, ReadId(self.next_id)))
    }
}
