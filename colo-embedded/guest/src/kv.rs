//! The key-value store as it is served: in memory, and on the disk if there is one.
//!
//! A change is in memory at once, so that those who come later see it; it is told to nobody before it is durable. [`Kv::settled`] tells
//! when an answer may be given. Without a disk that is always.

use alloc::rc::Rc;

use crate::{
    disk::{Disk, DiskFailed},
    log::{CheckReport, Log},
    receipt::Receipt,
    store::{Store, StoreError, Upload, Value},
};

/// When an answer may be given: see [`Kv::settled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// The ticket of what was not done because the disk has failed.
const NEVER: Ticket = Ticket(u64::MAX);

/// The store.
///
/// ```
/// use colo_guest::{kv::Kv, store::Store};
/// let mut kv = Kv::new(Store::new(1 << 20), None);
/// let mut upload = kv.store().begin(b"greeting", 5).unwrap();
/// upload.push(b"hello");
/// let (is_new, ticket) = kv.put(upload).unwrap();
/// assert!(is_new && kv.settled(ticket) == Some(Ok(())));
/// ```
pub struct Kv {
    store: Store,
    log: Option<Log>,
}

impl Kv {
    /// Over an empty store, which is filled from the disk if there is one.
    pub fn new(store: Store, disk: Option<&mut Disk>) -> Self {
        Self {
            store,
            log: disk.map(Log::new),
        }
    }

    /// What is in memory.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether it is read back from its disk. Nothing may be asked of it before.
    pub fn is_ready(&self) -> bool {
        self.log.as_ref().is_none_or(Log::is_ready)
    }

    /// Whether what comes with this ticket is durable; `None` as long as that is not known.
    pub fn settled(&self, ticket: Ticket) -> Option<Result<(), DiskFailed>> {
        match &self.log {
            Some(log) => log.settled(ticket.0),
            None => Some(Ok(())),
        }
    }

    /// The value of a key by the last change of it that was made.
    pub fn get(&self, key: &[u8]) -> (Option<Rc<Value>>, Ticket) {
        let ticket = self.log.as_ref().map_or(0, |log| log.ticket_of(key));
        (self.store.get(key), Ticket(ticket))
    }

    /// Stores what was uploaded; whether the key is new.
    ///
    /// # Errors
    /// [`StoreError::Full`] when the log has no room for it.
    pub fn put(&mut self, upload: Upload) -> Result<(bool, Ticket), StoreError> {
        let Some(log) = &mut self.log else {
            return Ok((self.store.commit(upload), Ticket(0)));
        };
        if log.has_failed() {
            return Ok((false, NEVER));
        }
        let old = self.store.get(upload.key());
        if !log.has_room(upload.key(), old.as_deref(), upload.bytes()) {
            return Err(StoreError::Full);
        }
        let (key, value) = self.store.insert(upload);
        let ticket = log.change(key, old.as_deref(), Some(value));
        Ok((old.is_none(), Ticket(ticket)))
    }

    /// Removes a key; whether it was there.
    pub fn delete(&mut self, key: &[u8]) -> (bool, Ticket) {
        if self.log.as_ref().is_some_and(Log::has_failed) {
            return (false, NEVER);
        }
        let removed = self.store.remove(key);
        let ticket = match (&mut self.log, &removed) {
            (Some(log), Some((key, old))) => log.change(key.clone(), Some(old), None),
            (Some(log), None) => log.ticket_of(key),
            (None, _) => 0,
        };
        (removed.is_some(), Ticket(ticket))
    }

    /// Has the log compared with memory. `None` while another check is under way, or when there is no log.
    pub fn begin_check(&mut self) -> Option<Receipt<CheckReport>> {
        self.log.as_mut()?.begin_check(&self.store)
    }

    /// Goes on as far as the disk has come. Whether there is something new for the disk, or for those who wait.
    pub fn pump(&mut self, disk: &mut Disk) -> bool {
        self.log
            .as_mut()
            .is_some_and(|log| log.pump(disk, &mut self.store))
    }
}
