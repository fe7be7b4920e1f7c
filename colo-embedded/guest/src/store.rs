//! What the guest keeps: keys and values, and an arena of pages to dirty. Bounded by a budget fixed at boot; what would exceed
//! it is refused.
//!
//! ```
//! use colo_guest::store::Store;
//! let mut store = Store::new(1 << 20, 16);
//! let mut value = store.reserve(b"key", 5).unwrap();
//! value.extend(b"value");
//! assert!(store.put(b"key", value));
//! assert_eq!(&store.get(b"key").unwrap()[..], b"value");
//! ```

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Deref;

/// What an entry costs beside its key and value: the tree's node, the allocator's rounding, the reference counts. Generous,
/// so that the budget, not the allocator, is what ends first.
const ENTRY_OVERHEAD_BYTES: usize = 192;

/// A page of the arena; aligned, so that one page here is one page of the machine.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u64; 512]);

/// A value being received, or stored. Its bytes count against the store's budget for as long as anybody holds it: a slow
/// reader of a value long replaced, too.
pub struct Value {
    bytes: Vec<u8>,
    reserved: usize,
    cost: usize,
    used: Rc<Cell<usize>>,
}

impl Value {
    /// Appends what arrived, as far as it was reserved, and returns how much that was.
    pub fn extend(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.missing());
        self.bytes.extend_from_slice(&data[..count]);
        count
    }

    /// Bytes reserved and not yet there.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.reserved - self.bytes.len()
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.cost);
    }
}

/// The guest's memory, as its clients see it.
pub struct Store {
    values: BTreeMap<Box<[u8]>, Rc<Value>>,
    used: Rc<Cell<usize>>,
    budget_bytes: usize,
    arena: Vec<Page>,
    arena_pages: usize,
    cursor: usize,
    writes: u64,
}

impl Store {
    /// A store of at most `budget_bytes` of keys and values, and `arena_pages` pages. The pages' addresses are taken at once,
    /// and the memory itself when it is first dirtied; when there is no room for so many, there are none.
    #[must_use]
    pub fn new(budget_bytes: usize, arena_pages: usize) -> Self {
        let mut arena = Vec::new();
        let arena_pages = if arena.try_reserve_exact(arena_pages).is_ok() {
            arena_pages
        } else {
            0
        };
        let used = Rc::new(Cell::new(0));
        Self {
            values: BTreeMap::new(),
            used,
            budget_bytes,
            arena,
            arena_pages,
            cursor: 0,
            writes: 0,
        }
    }

    /// Room for a value of `len` bytes under `key`, or `None` when the store is full.
    #[must_use]
    pub fn reserve(&self, key: &[u8], len: usize) -> Option<Value> {
        let cost = key
            .len()
            .checked_add(len)?
            .checked_add(ENTRY_OVERHEAD_BYTES)?;
        let used = self
            .used
            .get()
            .checked_add(cost)
            .filter(|used| *used <= self.budget_bytes)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        self.used.set(used);
        Some(Value {
            bytes,
            reserved: len,
            cost,
            used: Rc::clone(&self.used),
        })
    }

    /// Stores a value under the key that it was reserved for. Whether the key is new.
    pub fn put(&mut self, key: &[u8], value: Value) -> bool {
        let value = Rc::new(value);
        match self.values.get_mut(key) {
            Some(place) => {
                *place = value;
                false
            }
            None => self.values.insert(key.into(), value).is_none(),
        }
    }

    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Rc<Value>> {
        self.values.get(key).cloned()
    }

    /// Writes to `count` pages of the arena, going on where the last call ended and around, and returns how many different
    /// pages that were: at most all of them.
    pub fn dirty(&mut self, count: u64) -> u64 {
        let count = count.min(self.arena_pages as u64);
        for _ in 0..count {
            if self.cursor == self.arena.len() {
                self.arena.push(Page([0; 512]));
            }
            self.writes += 1;
            let word = (self.writes % 512) as usize;
            self.arena[self.cursor].0[word] = self.writes;
            self.cursor = (self.cursor + 1) % self.arena_pages;
        }
        count
    }

    /// A checksum of all keys, values and touched pages, in the order of the keys and of the pages: FNV-1a with 64 bits
    /// (Fowler, Noll, Vo), fed with words of 8 bytes, least significant first, in place of bytes. Each key and each value is
    /// preceded by its length and padded with zeros.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        for (key, value) in &self.values {
            hash.bytes(key);
            hash.bytes(value);
        }
        for page in &self.arena {
            page.0.iter().for_each(|word| hash.word(*word));
        }
        hash.0
    }
}

struct Fnv(u64);

impl Fnv {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn put(store: &mut Store, key: &[u8], data: &[u8]) -> Option<bool> {
        let mut value = store.reserve(key, data.len())?;
        assert_eq!(value.extend(data), data.len());
        Some(store.put(key, value))
    }

    #[test]
    fn a_replaced_value_counts_while_it_is_read() {
        let mut store = Store::new(2 * (1 + 1000 + ENTRY_OVERHEAD_BYTES), 0);
        assert_eq!(put(&mut store, b"k", &[1; 1000]), Some(true));
        let reader = store.get(b"k").unwrap();
        assert_eq!(put(&mut store, b"k", &[2; 1000]), Some(false));
        assert_eq!(put(&mut store, b"k", &[3; 1000]), None);
        drop(reader);
        assert_eq!(put(&mut store, b"k", &[3; 1000]), Some(false));
    }

    #[test]
    fn the_arena_goes_around() {
        let mut store = Store::new(0, 4);
        assert_eq!(store.dirty(3), 3);
        assert_eq!(store.arena.len(), 3);
        assert_eq!(store.dirty(3), 3);
        assert_eq!((store.arena.len(), store.cursor), (4, 2));
        assert_eq!(store.dirty(u64::MAX), 4);
    }

    proptest! {
        #[test]
        fn like_a_map(steps in proptest::collection::vec(("[a-d]{1,2}", proptest::collection::vec(any::<u8>(), 0..600)), 0..60)) {
            let budget = 4000;
            let mut store = Store::new(budget, 0);
            let mut model: HashMap<String, Vec<u8>> = HashMap::new();
            for (key, data) in steps {
                let cost = |key: &str, data: &[u8]| key.len() + data.len() + ENTRY_OVERHEAD_BYTES;
                let used: usize = model.iter().map(|(key, data)| cost(key, data)).sum();
                // The old value and the new one are both there for a moment.
                let fits = used + cost(&key, &data) <= budget;
                let done = put(&mut store, key.as_bytes(), &data);
                prop_assert_eq!(done, fits.then(|| !model.contains_key(&key)));
                if fits {
                    model.insert(key, data);
                }
                for (key, data) in &model {
                    prop_assert_eq!(&store.get(key.as_bytes()).unwrap()[..], &data[..]);
                }
            }
        }

        #[test]
        fn the_sum_sees_every_change(data in proptest::collection::vec(any::<u8>(), 1..100), at in any::<prop::sample::Index>(), pages in 1_u64..5) {
            let sum = |data: &[u8], pages| {
                let mut store = Store::new(1 << 16, 8);
                put(&mut store, b"k", data).unwrap();
                store.dirty(pages);
                store.sum()
            };
            let mut other = data.clone();
            other[at.index(data.len())] ^= 1;
            prop_assert_eq!(sum(&data, pages), sum(&data, pages));
            prop_assert_ne!(sum(&data, pages), sum(&other, pages));
            prop_assert_ne!(sum(&data, pages), sum(&data, pages + 1));
        }
    }
}
