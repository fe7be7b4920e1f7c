//! Where the parts of a journal are in its file.

use super::journal::{RECORDS_AT, Superblock};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Which slot of the file each segment of a journal is in. Slots that are needed no more are used again: what a file has already costs neither
/// space nor the file system's time, and its pages are in memory.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    /// A segment's length, and a slot's.
    bytes: u64,
    /// Slots from this one on are given back when they are free.
    kept: u64,
    slots: BTreeMap<u64, u64>,
    free: BTreeSet<u64>,
    /// So many slots the file has.
    count: u64,
    /// Nothing is free yet.
    is_held: bool,
}

impl Segments {
    /// Of a new journal. Free slots are kept as far as they are in the file's first `kept_bytes`.
    pub(super) fn new(bytes: u64, kept_bytes: u64) -> Segments {
        let kept = kept_bytes / bytes;
        Segments { bytes, kept, slots: BTreeMap::new(), free: BTreeSet::new(), count: 0, is_held: false }
    }

    /// Of one that was left behind: which segment each slot of the file says that it has. Nothing counts as free before [`Segments::settle`].
    pub(super) fn found(
        superblock: &Superblock,
        kept_bytes: u64,
        found: impl Iterator<Item = Option<u64>>,
    ) -> Segments {
        let mut segments = Segments::new(superblock.segment_bytes, kept_bytes);
        for (slot, number) in (0..).zip(found) {
            segments.count = slot + 1;
            // No two have the same number, unless somebody else has written them.
            let other = number.map_or(Some(slot), |number| segments.slots.insert(number, slot));
            segments.free.extend(other);
        }
        segments.is_held = true;
        segments
    }

    /// A segment's length in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many bytes are left of the segment that this place is in: all of it at its beginning.
    pub(super) fn left(&self, at: u64) -> u64 {
        self.bytes - at % self.bytes
    }

    /// Where in the file that place of the journal is; nowhere if its segment is not there.
    pub(super) fn place(&self, at: u64) -> Option<u64> {
        let slot = self.slots.get(&(at / self.bytes))?;
        Some(self.range(*slot).start + at % self.bytes)
    }

    /// Finds a slot for that segment. One that a crash has left behind has the slot that it had: there are no two of one number.
    pub(super) fn begin(&mut self, number: u64) {
        if self.slots.contains_key(&number) {
            return;
        }
        let free = if self.is_held { None } else { self.free.pop_first() };
        let slot = free.unwrap_or(self.count);
        self.count = self.count.max(slot + 1);
        self.slots.insert(number, slot);
    }

    /// Whether there is something to be given back below that place.
    pub(super) fn has_below(&self, below: u64) -> bool {
        !self.is_held && self.slots.first_key_value().is_some_and(|(first, _)| *first < below / self.bytes)
    }

    /// Nothing of the journal is needed below that place. Returns the slots whose space is to be given back to the file system before they are
    /// [used again](Segments::given_back).
    pub(super) fn give_back(&mut self, below: u64) -> Vec<u64> {
        let mut beyond = Vec::new();
        while self.has_below(below) {
            match self.slots.pop_first() {
                Some((_, slot)) if slot < self.kept => drop(self.free.insert(slot)),
                freed => beyond.extend(freed.map(|(_, slot)| slot)),
            }
        }
        beyond
    }

    /// That slot's space has been given back.
    pub(super) fn given_back(&mut self, slot: u64) {
        self.free.insert(slot);
    }

    /// What was found is durable: no crash brings an older superblock back, which would need more of the journal.
    pub(super) fn settle(&mut self) {
        self.is_held = false;
    }

    /// A slot's part of the file.
    pub(super) fn range(&self, slot: u64) -> Range<u64> {
        let start = RECORDS_AT + slot * self.bytes;
        start..start + self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::journal::Mark;
    use crate::ids::Epoch;

    #[test]
    fn slots_are_used_again_from_the_files_beginning() {
        let mut segments = Segments::new(256, 512);
        (0..4).for_each(|number| segments.begin(number));
        assert_eq!(segments.place(2 * 256 + 7), Some(RECORDS_AT + 2 * 256 + 7));
        // Of four, the first two are kept, and one is needed still.
        assert_eq!(segments.give_back(3 * 256 + 255), [2]);
        assert_eq!(segments.place(255), None);
        segments.begin(4);
        segments.begin(5);
        // The third has not been given back yet.
        segments.begin(6);
        segments.given_back(2);
        segments.begin(7);
        let places: Vec<_> = (3..8).map(|number| segments.place(number * 256)).collect();
        assert_eq!(places, [3, 0, 1, 4, 2].map(|slot| Some(RECORDS_AT + slot * 256)));
    }

    #[test]
    fn what_was_found_is_free_only_when_it_is_durable() {
        let superblock = Superblock {
            generation: 1,
            number: 1,
            epoch: Epoch(1),
            start: Mark::BEGIN,
            serves: false,
            is_shared: false,
            segment_bytes: 256,
            sizes: vec![1],
        };
        let mut segments = Segments::found(&superblock, u64::MAX, [Some(7), None, Some(8), Some(9)].into_iter());
        assert!(segments.give_back(8 * 256).is_empty());
        // A segment of the crash's has its slot, and a new one a new slot.
        segments.begin(9);
        segments.begin(10);
        assert_eq!(segments.place(9 * 256), Some(RECORDS_AT + 3 * 256));
        assert_eq!(segments.place(10 * 256), Some(RECORDS_AT + 4 * 256));
        segments.settle();
        assert!(segments.give_back(8 * 256).is_empty());
        segments.begin(11);
        segments.begin(12);
        assert_eq!(
            [11, 12].map(|number| segments.place(number * 256)),
            [0, 1].map(|slot| Some(RECORDS_AT + slot * 256))
        );
    }
}
