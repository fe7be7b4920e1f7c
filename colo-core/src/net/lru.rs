//! A table of flows with a limit: found by key, kept in the order of their last use. That order is exact to within a sixteenth of the
//! limit: so many uses may pass before an entry that is used again and again takes its new place, and most uses cost nothing.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::{BuildHasher, Hash};

/// How many of the least recently used entries are looked at for one that may go, before the table counts as full.
const EVICTION_TRIES: usize = 16;

/// Into how many parts the order is exact.
const ORDER_PARTS: usize = 16;

const NONE: u32 = u32::MAX;

/// The place of an entry. That of an entry which is gone finds nothing, even when the place was taken again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SlotId {
    index: u32,
    generation: u32,
}

/// The table. Every operation takes constant time, and none allocates but the growth of the table itself.
pub(crate) struct LruTable<K, V> {
    limit: usize,
    hasher: DefaultHashBuilder,
    /// Places in `slots`: the keys stand there only.
    index: HashTable<u32>,
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    /// How often anything was used, modulo 2^32.
    uses: u32,
    /// What was found last: frames of a flow come in trains.
    last: u32,
}

struct Slot<K, V> {
    generation: u32,
    newer: u32,
    older: u32,
    /// When it took its place in the order.
    placed: u32,
    entry: Option<(K, V)>,
}

impl<K: Eq, V> Slot<K, V> {
    fn has_key(&self, key: &K) -> bool {
        self.entry.as_ref().is_some_and(|(own, _)| own == key)
    }
}

impl<K: Hash + Eq, V> LruTable<K, V> {
    /// An empty table for at most `limit` entries.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.clamp(1, NONE as usize);
        LruTable {
            limit,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            uses: 0,
            last: NONE,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Finds an entry and makes it the most recently used.
    pub(crate) fn find(&mut self, key: &K) -> Option<SlotId> {
        if !self.slots.get(self.last as usize).is_some_and(|slot| slot.has_key(key)) {
            let hash = self.hasher.hash_one(key);
            self.last = *self.index.find(hash, |index| self.slots[*index as usize].has_key(key))?;
        }
        let index = self.last;
        self.uses = self.uses.wrapping_add(1);
        let since_placed = self.uses.wrapping_sub(self.slots[index as usize].placed);
        if self.newest != index && since_placed as usize > self.limit / ORDER_PARTS {
            self.unlink(index);
            self.link_newest(index);
        }
        Some(SlotId { index, generation: self.slots[index as usize].generation })
    }

    /// Adds an entry whose key is not in the table. When the table is full, one of the least recently used that `may_go` goes; when
    /// none may, the entry is not added.
    pub(crate) fn insert(&mut self, key: K, value: V, may_go: impl Fn(&V) -> bool) -> Result<Inserted<V>, TableFull> {
        let evicted = if self.len() >= self.limit { Some(self.evict(may_go).ok_or(TableFull)?) } else { None };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, newer: NONE, older: NONE, placed: 0, entry: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        let hash = self.hasher.hash_one(&key);
        slot.entry = Some((key, value));
        let id = SlotId { index, generation: slot.generation };
        let rehash =
            |index: &u32| self.slots[*index as usize].entry.as_ref().map_or(0, |(key, _)| self.hasher.hash_one(key));
        self.index.insert_unique(hash, index, rehash);
        self.link_newest(index);
        Ok(Inserted { id, evicted })
    }

    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<(&K, &mut V)> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.entry.as_mut().map(|(key, value)| (&*key, value))
    }

    /// Makes the entry the most recently used.
    pub(crate) fn promote(&mut self, id: SlotId) {
        if self.get_mut(id).is_some() && self.newest != id.index {
            self.unlink(id.index);
            self.link_newest(id.index);
        }
    }

    /// Makes the entry the least recently used: the first to go when the place is needed.
    pub(crate) fn demote(&mut self, id: SlotId) {
        if self.get_mut(id).is_none() || self.oldest == id.index {
            return;
        }
        self.unlink(id.index);
        let former = std::mem::replace(&mut self.oldest, id.index);
        self.slots[former as usize].older = id.index;
        let slot = &mut self.slots[id.index as usize];
        // When it is used again it is to leave this place at once.
        (slot.newer, slot.placed) = (former, self.uses.wrapping_sub(self.limit as u32));
    }

    pub(crate) fn remove(&mut self, id: SlotId) -> Option<V> {
        self.get_mut(id)?;
        self.unlink(id.index);
        let slot = &mut self.slots[id.index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let (key, value) = slot.entry.take()?;
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(&key), |index| *index == id.index) {
            entry.remove();
        }
        self.free.push(id.index);
        Some(value)
    }

    /// The entry that was not used for the longest time.
    pub(crate) fn oldest(&self) -> Option<SlotId> {
        let slot = self.slots.get(self.oldest as usize)?;
        Some(SlotId { index: self.oldest, generation: slot.generation })
    }

    /// All values, in no order; none counts as used.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().filter_map(|slot| slot.entry.as_mut().map(|(_, value)| value))
    }

    pub(crate) fn clear(&mut self) {
        while let Some(id) = self.oldest() {
            self.remove(id);
        }
    }

    fn evict(&mut self, may_go: impl Fn(&V) -> bool) -> Option<V> {
        let mut index = self.oldest;
        for _ in 0..EVICTION_TRIES {
            let slot = self.slots.get(index as usize)?;
            if slot.entry.as_ref().is_some_and(|(_, value)| may_go(value)) {
                return self.remove(SlotId { index, generation: slot.generation });
            }
            // It is in use: a second chance, so that the next search does not find it again.
            let newer = slot.newer;
            self.unlink(index);
            self.link_newest(index);
            index = newer;
        }
        None
    }

    fn unlink(&mut self, index: u32) {
        let Slot { newer, older, .. } = self.slots[index as usize];
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
        let slot = &mut self.slots[index as usize];
        (slot.newer, slot.older) = (NONE, NONE);
    }

    fn link_newest(&mut self, index: u32) {
        let former = std::mem::replace(&mut self.newest, index);
        let slot = &mut self.slots[index as usize];
        (slot.older, slot.placed) = (former, self.uses);
        match self.slots.get_mut(former as usize) {
            Some(slot) => slot.newer = index,
            None => self.oldest = index,
        }
    }
}

/// What [`LruTable::insert`] did.
#[derive(Debug)]
pub(crate) struct Inserted<V> {
    pub(crate) id: SlotId,
    /// What had to go for it.
    pub(crate) evicted: Option<V>,
}

/// None of the least recently used entries may go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TableFull;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Insert(u8),
        Find(u8),
        Remove(u8),
        Promote(u8),
        Demote(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let key = 0..12u8;
        prop_oneof![
            key.clone().prop_map(Op::Insert),
            key.clone().prop_map(Op::Find),
            key.clone().prop_map(Op::Remove),
            key.clone().prop_map(Op::Promote),
            key.prop_map(Op::Demote)
        ]
    }

    proptest! {
        /// Against a list, oldest first.
        #[test]
        fn behaves_like_a_list(ops in proptest::collection::vec(op(), 0..200)) {
            const LIMIT: usize = 5;
            let mut table = LruTable::new(LIMIT);
            let mut list: Vec<u8> = Vec::new();
            for op in ops {
                match op {
                    Op::Insert(key) if !list.contains(&key) => {
                        let evicted = table.insert(key, key, |_| true).unwrap().evicted;
                        prop_assert_eq!(evicted, (list.len() == LIMIT).then(|| list.remove(0)));
                        list.push(key);
                    }
                    Op::Insert(key) | Op::Find(key) => {
                        let found = table.find(&key).is_some();
                        prop_assert_eq!(found, list.contains(&key));
                        if found {
                            list.retain(|k| *k != key);
                            list.push(key);
                        }
                    }
                    Op::Remove(key) => {
                        let id = table.find(&key);
                        prop_assert_eq!(id.and_then(|id| table.remove(id)), list.contains(&key).then_some(key));
                        prop_assert!(id.is_none_or(|id| table.get_mut(id).is_none()));
                        list.retain(|k| *k != key);
                    }
                    Op::Promote(key) => {
                        if let Some(id) = table.oldest().filter(|_| list.first() == Some(&key)) {
                            table.promote(id);
                            list.rotate_left(1);
                        }
                    }
                    Op::Demote(key) => {
                        if let Some(id) = table.find(&key) {
                            table.demote(id);
                            list.retain(|k| *k != key);
                            list.insert(0, key);
                        }
                    }
                }
                prop_assert_eq!(table.len(), list.len());
            }
            table.clear();
            prop_assert_eq!((table.len(), table.newest, table.oldest), (0, NONE, NONE));
        }
    }

    #[test]
    fn what_may_not_go_stays() {
        let mut table = LruTable::new(2);
        table.insert(1, "busy", |_| true).unwrap();
        table.insert(2, "idle", |_| true).unwrap();
        assert_eq!(table.insert(3, "x", |v| *v == "idle").unwrap().evicted, Some("idle"));
        assert_eq!(table.insert(4, "x", |_| false).unwrap_err(), TableFull);
        assert!(table.find(&1).is_some() && table.find(&3).is_some());
    }
}
