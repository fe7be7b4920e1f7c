//! The key-value store, in memory of a fixed budget. [`crate::kv`] is how it is served.
//!
//! Whatever holds memory for the store holds a charge for it: values that are stored, values still on their way in,
//! and values replaced while an answer is still being sent from them. So the budget bounds all of them together.

use alloc::{collections::BTreeMap, rc::Rc, vec::Vec};
use core::cell::Cell;

use crate::sum::Sum;

/// The longest key, in bytes. A path segment of this length fits a request's head many times over.
pub const KEY_LIMIT: usize = 256;
/// The longest value, in bytes.
pub const VALUE_LIMIT: usize = 64 << 10;
/// What an entry is charged beyond its key and its value: the tree's nodes, the allocator's rounding.
const ENTRY_OVERHEAD: usize = 128;

/// Why a value cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Longer than [`VALUE_LIMIT`].
    TooLarge,
    /// The budget, or memory, is used up.
    Full,
}

/// A share of the budget, given back when dropped.
pub struct Charge {
    used: Rc<Cell<usize>>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.bytes);
    }
}

/// A value on its way in: its key, its bytes so far, and room for the rest.
pub struct Upload {
    key: Rc<[u8]>,
    bytes: Vec<u8>,
    wanted: usize,
    charge: Charge,
}

impl Upload {
    /// Its key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// How long the value is, all in all.
    pub fn bytes(&self) -> usize {
        self.wanted
    }

    /// What has come, and the memory's charge: for whoever wants it elsewhere than in the store.
    pub fn into_parts(self) -> (Vec<u8>, Charge) {
        (self.bytes, self.charge)
    }

    /// Bytes still to come.
    pub fn missing(&self) -> usize {
        self.wanted - self.bytes.len()
    }

    /// Appends as much of `bytes` as is missing; returns how much that was.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.missing());
        self.bytes.extend_from_slice(&bytes[..count]);
        count
    }
}

/// A stored value. Whoever holds it may go on reading it after it was replaced.
pub struct Value {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl Value {
    /// A value that is not stored.
    pub fn new(bytes: Vec<u8>, charge: Charge) -> Self {
        Self {
            bytes,
            _charge: charge,
        }
    }
}

impl core::ops::Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The store.
///
/// ```
/// use colo_guest::store::Store;
/// let mut store = Store::new(1 << 20);
/// let mut upload = store.begin(b"greeting", 5).unwrap();
/// upload.push(b"hello");
/// assert!(store.commit(upload), "the key is new");
/// assert_eq!(&store.get(b"greeting").unwrap()[..], b"hello");
/// ```
pub struct Store {
    entries: BTreeMap<Rc<[u8]>, Rc<Value>>,
    used: Rc<Cell<usize>>,
    limit: usize,
}

impl Store {
    /// An empty store that uses at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            used: Rc::new(Cell::new(0)),
            limit,
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Rc<Value>> {
        self.entries.get(key).cloned()
    }

    /// Reserves room for a value of `length` bytes. The old value, if there is one, stays until [`Store::commit`]: a
    /// replacement needs room for both.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub fn begin(&self, key: &[u8], length: u64) -> Result<Upload, StoreError> {
        let wanted = usize::try_from(length)
            .ok()
            .filter(|&wanted| wanted <= VALUE_LIMIT)
            .ok_or(StoreError::TooLarge)?;
        let charge = self.charge(key.len() + wanted + ENTRY_OVERHEAD)?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(wanted)
            .map_err(|_| StoreError::Full)?;
        Ok(Upload {
            key: key.into(),
            bytes,
            wanted,
            charge,
        })
    }

    /// Stores what was uploaded; whether the key is new.
    pub fn commit(&mut self, upload: Upload) -> bool {
        let is_new = !self.entries.contains_key(&upload.key);
        self.insert(upload);
        is_new
    }

    /// Stores what was uploaded; returns key and value.
    pub fn insert(&mut self, upload: Upload) -> (Rc<[u8]>, Rc<Value>) {
        let key = upload.key;
        let value = Rc::new(Value::new(upload.bytes, upload.charge));
        self.entries.insert(key.clone(), value.clone());
        (key, value)
    }

    /// Removes a key; returns what was there.
    pub fn remove(&mut self, key: &[u8]) -> Option<(Rc<[u8]>, Rc<Value>)> {
        self.entries.remove_entry(key)
    }

    /// Makes a change that was made before, by another start of the machine.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        // First, since there need not be room for both.
        self.remove(key);
        if let Some(value) = value {
            let mut upload = self.begin(key, value.len() as u64)?;
            upload.push(value);
            self.insert(upload);
        }
        Ok(())
    }

    /// All entries, in the order of their keys.
    pub fn snapshot(&self) -> Vec<(Rc<[u8]>, Rc<Value>)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes charged to the budget now, and the budget.
    pub fn usage_bytes(&self) -> (usize, usize) {
        (self.used.get(), self.limit)
    }

    /// Takes all entries into `sum`, in the order of their keys.
    pub fn add_to(&self, sum: &mut Sum) {
        sum.add_word(self.entries.len() as u64);
        for (key, value) in &self.entries {
            sum.add_bytes(key);
            sum.add_bytes(value);
        }
    }

    /// Takes a share of the budget, for memory that holds no value.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub fn charge(&self, bytes: usize) -> Result<Charge, StoreError> {
        let used = self.used.get() + bytes;
        if used > self.limit {
            return Err(StoreError::Full);
        }
        self.used.set(used);
        Ok(Charge {
            used: self.used.clone(),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeMap as Model, vec};

    fn put(store: &mut Store, key: &[u8], value: &[u8]) -> Result<bool, StoreError> {
        let mut upload = store.begin(key, value.len() as u64)?;
        for chunk in value.chunks(1000) {
            assert_eq!(upload.push(chunk), chunk.len());
        }
        assert_eq!((upload.missing(), upload.push(b"x")), (0, 0));
        Ok(store.commit(upload))
    }

    #[test]
    fn limits_hold() {
        let mut store = Store::new(200_000);
        assert_eq!(put(&mut store, b"a", &vec![1; VALUE_LIMIT]), Ok(true));
        assert_eq!(
            store.begin(b"b", VALUE_LIMIT as u64 + 1).err(),
            Some(StoreError::TooLarge)
        );
        assert_eq!(
            store.begin(b"b", u64::MAX).err(),
            Some(StoreError::TooLarge)
        );
        let upload = store.begin(b"b", VALUE_LIMIT as u64).expect("room");
        let third = store.begin(b"c", VALUE_LIMIT as u64).expect("room");
        assert_eq!(
            store.begin(b"d", VALUE_LIMIT as u64).err(),
            Some(StoreError::Full)
        );
        drop(third);
        drop(upload);
        assert_eq!(put(&mut store, b"d", &vec![2; VALUE_LIMIT]), Ok(true));
    }

    #[test]
    fn a_replaced_value_is_charged_until_it_is_let_go() {
        let mut store = Store::new(1 << 20);
        put(&mut store, b"k", b"old").expect("room");
        let (before, _) = store.usage_bytes();
        let reader = store.get(b"k").expect("stored");
        assert_eq!(put(&mut store, b"k", b"new"), Ok(false));
        assert_eq!(&reader[..], b"old");
        assert_eq!(store.usage_bytes().0, 2 * before);
        drop(reader);
        assert_eq!(store.usage_bytes().0, before);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(operations in proptest::collection::vec((0u8..6, proptest::collection::vec(any::<u8>(), 0..600)), 0..60)) {
            let mut store = Store::new(3000);
            let mut model: Model<vec::Vec<u8>, vec::Vec<u8>> = Model::new();
            let cost = |key: &[u8], value: &[u8]| key.len() + value.len() + ENTRY_OVERHEAD;
            for (key, value) in operations {
                let key = vec![key; usize::from(key) + 1];
                let used: usize = model.iter().map(|(key, value)| cost(key, value)).sum();
                prop_assert_eq!(store.usage_bytes(), (used, 3000));
                let answer = put(&mut store, &key, &value);
                if used + cost(&key, &value) > 3000 {
                    prop_assert_eq!(answer, Err(StoreError::Full));
                } else {
                    prop_assert_eq!(answer, Ok(model.insert(key, value).is_none()));
                }
                for (key, value) in &model {
                    let stored = store.get(key);
                    prop_assert_eq!(stored.as_deref().map(|value| &value[..]), Some(&value[..]));
                }
                prop_assert_eq!(store.len(), model.len());
            }
        }
    }
}
