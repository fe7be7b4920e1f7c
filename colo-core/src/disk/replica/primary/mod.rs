//! The primary's side: between the guest and its disks.

mod before;
mod compare;
mod copy;
mod course;
mod link;
mod ranges;
mod share;

pub use compare::Verification;

use super::{DiskEvent, DiskState, DiskStatus, OnDiskEvent, OnVerifyEvent, PrimaryDisks, VerifyError};
use crate::disk::{Allocation, Backend, DiskError, MAX_DISKS};
use crate::ids::Epoch;
use crate::peer::StateChannel;
use before::Before;
use course::Course;
use link::{Link, Room};
use ranges::Ranges;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a completed flush of the guest's promises, beside that it is safe on the primary's disk.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Durability {
    /// Nothing: what was flushed is on its way, and the secondary has it before any client hears of it.
    #[default]
    AsyncEpoch,
    /// The secondary has it in its memory.
    Memory,
    /// It is durable on the secondary, too, and so is each epoch before its output leaves.
    Disk,
}

/// How disks are replicated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TapConfig {
    /// What a flush promises.
    pub durability: Durability,
    /// So many bytes of writes may wait for a checkpoint: at half of them one is asked for, and from there on writers wait for it.
    pub pending_bytes: u64,
    /// So many bytes at most in a second are sent by the first copy, and are looked at by a comparison; 0 for as many as there can be.
    pub copy_bytes_per_second: u64,
    /// The secondary's host has the same disks, and not a copy of them: what is written waits until the secondary has what stood there. What it
    /// flushes is safe for both.
    pub is_shared: bool,
}

impl Default for TapConfig {
    fn default() -> Self {
        let durability = Durability::AsyncEpoch;
        TapConfig { durability, pending_bytes: 512 << 20, copy_bytes_per_second: 0, is_shared: false }
    }
}

/// So many zeroes at most are written at once to a disk that both hosts have.
const SHARED_ZEROES_BYTES: u64 = 1 << 20;

/// Disks of a guest that serves, whose writes go to a secondary, too, while one is attached. The guest has each as a [`TapDisk`], with
/// protection or without, and does not notice when that begins or ends.
///
/// ```
/// use colo_core::disk::{Backend, FileBackend, Tap, TapConfig};
/// # let path = std::env::temp_dir().join(format!("colo-doc-tap-{}", std::process::id()));
/// # let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
/// file.set_len(1 << 20)?;
/// let tap = Tap::new(vec![(std::sync::Arc::new(FileBackend::new(file)), 1 << 20)], TapConfig::default());
/// tap.disk(0).write(4096, b"hello")?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tap {
    shared: Arc<Shared>,
    copier: Option<copy::Copier>,
}

/// One of a [`Tap`]'s disks, as the guest has it.
#[derive(Clone)]
pub struct TapDisk {
    shared: Arc<Shared>,
    disk: u8,
}

struct Shared {
    config: TapConfig,
    disks: Vec<(Arc<dyn Backend>, u64)>,
    /// What is being written right now: two writes of one place must come to both hosts in the same order.
    ranges: Ranges,
    /// How much may be sent before a checkpoint.
    room: Room,
    /// What the secondary has of what stood on the disks, where it has the same.
    before: Option<Before>,
    link: Mutex<Option<Link>>,
    /// How far the secondary is, or the last one was.
    course: Mutex<Arc<Course>>,
    expected: ExpectedRead,
}

/// A read that is looked out for.
#[derive(Default)]
struct ExpectedRead {
    /// Its disk and its place, plus one: 0 for none.
    place: AtomicU64,
    was_seen: AtomicBool,
}

impl ExpectedRead {
    /// A disk's number is in the uppermost byte: no disk has so many bytes.
    fn key(disk: u8, offset: u64) -> u64 {
        (u64::from(disk) << 56 | offset & (u64::MAX >> 8)) + 1
    }

    fn note(&self, disk: u8, offset: u64) {
        if self.place.load(Ordering::Relaxed) == ExpectedRead::key(disk, offset) {
            self.was_seen.store(true, Ordering::Release);
        }
    }
}

impl Tap {
    /// Over these disks, with their sizes in bytes.
    ///
    /// # Panics
    /// With more than [`MAX_DISKS`] disks.
    pub fn new(disks: Vec<(Arc<dyn Backend>, u64)>, config: TapConfig) -> Tap {
        assert!(disks.len() <= MAX_DISKS, "at most {MAX_DISKS} disks");
        let room = Room::new(config.pending_bytes);
        let course = Mutex::new(Arc::new(Course::ended()));
        let (ranges, link, expected) = (Ranges::default(), Mutex::new(None), ExpectedRead::default());
        let sizes = || disks.iter().map(|(_, size)| *size).collect();
        let before = config.is_shared.then(|| Before::new(sizes()));
        let shared = Shared { config, disks, ranges, room, before, link, course, expected };
        Tap { shared: Arc::new(shared), copier: None }
    }

    /// Looks out for a read from that place of that disk, and for no other one any more: by it one finds out which disk a device is.
    pub fn expect_read(&self, disk: u8, offset: u64) {
        self.shared.expected.place.store(0, Ordering::Relaxed);
        self.shared.expected.was_seen.store(false, Ordering::Release);
        self.shared.expected.place.store(ExpectedRead::key(disk, offset), Ordering::Release);
    }

    /// Whether the expected read has come.
    pub fn was_read(&self) -> bool {
        self.shared.expected.was_seen.load(Ordering::Acquire)
    }

    /// The disks' sizes in bytes.
    pub fn sizes(&self) -> Vec<u64> {
        self.shared.disks.iter().map(|(_, size)| *size).collect()
    }

    /// Disk number `disk`.
    ///
    /// # Panics
    /// When there is none.
    pub fn disk(&self, disk: u8) -> TapDisk {
        assert!(usize::from(disk) < self.shared.disks.len(), "there is no disk {disk}");
        TapDisk { shared: self.shared.clone(), disk }
    }

    /// What the disks are doing.
    pub fn status(&self) -> DiskStatus {
        let (epoch, whole_epoch, waiting_bytes) = self.shared.room.status();
        let (mut state, limit_bytes) = (self.shared.course().state(), self.shared.config.pending_bytes);
        if let (DiskState::Alone(why), Some(true)) = (&state, self.shared.before.as_ref().map(Before::is_held)) {
            state = DiskState::Held(why.clone());
        }
        DiskStatus { state, epoch, whole_epoch, waiting_bytes, limit_bytes, journal_bytes: 0 }
    }

    /// Compares the disks with the secondary's, by hashes, while the guest goes on and checkpoints are taken. Nothing is put right.
    ///
    /// # Errors
    /// [`VerifyError`], when it cannot begin. When it cannot go on, that is its last event.
    pub fn verify(&self, on_event: OnVerifyEvent) -> Result<Verification, VerifyError> {
        if self.shared.before.is_some() {
            return Err(VerifyError::Shared);
        }
        Verification::start(self.shared.clone(), on_event)
    }
}

impl PrimaryDisks for Tap {
    fn attach(&mut self, channel: StateChannel, on_event: OnDiskEvent) -> Result<(), DiskError> {
        self.detach();
        let (sender, receiver) = channel.split();
        let shutdown = sender.shutdown_handle().map_err(|_| DiskError::Io)?;
        let on_event: Arc<OnDiskEvent> = Arc::new(on_event);
        self.shared.room.open(on_event.clone());
        let course = Arc::new(Course::new());
        *self.shared.course.lock().unwrap_or_else(PoisonError::into_inner) = course.clone();
        *self.shared.link() = Some(Link::new(sender, on_event.clone(), course));
        self.copier = Some(copy::Copier::start(self.shared.clone(), receiver, shutdown, on_event)?);
        Ok(())
    }

    /// What is under way is not waited for: what the guest has not been told of it does again on the other side. Only whoever waits for a
    /// checkpoint must not hold up the one that is being taken.
    fn freeze(&mut self) {
        self.shared.room.let_through(true);
    }

    fn barrier(&mut self, epoch: Epoch) {
        if let Some(before) = &self.shared.before {
            return self.shared.barrier_shared(before, epoch);
        }
        self.shared.room.barrier(epoch);
        self.shared.send(|link| link.barrier(epoch, self.shared.config.durability == Durability::Disk));
    }

    fn thaw(&mut self) {
        self.shared.room.let_through(false);
    }

    fn committed(&mut self, epoch: Epoch) {
        self.shared.room.committed(epoch);
    }

    fn detach(&mut self) {
        // In this order: nobody finds no way, and that nothing need be saved.
        let mut link = self.shared.link();
        self.shared.hold();
        *link = None;
        drop(link);
        self.shared.room.close();
        self.copier = None;
    }

    fn is_shared(&self) -> bool {
        self.shared.before.is_some()
    }

    fn alone(&mut self) {
        if let Some(before) = &self.shared.before {
            before.alone();
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.detach();
    }
}

impl TapDisk {
    fn backend(&self) -> &dyn Backend {
        &*self.shared.disks[usize::from(self.disk)].0
    }

    /// Changes that part of the disk, here and then there.
    fn change(
        &self,
        offset: u64,
        length: u64,
        bytes: Option<&[u8]>,
        here: impl FnOnce(&dyn Backend) -> Result<(), DiskError>,
        there: impl FnOnce(&mut Link) -> Result<(), crate::peer::PeerError>,
    ) -> Result<(), DiskError> {
        self.shared.room.wait();
        if let Some(before) = &self.shared.before {
            return self.shared.change_shared(before, self.disk, offset..offset + length, here, bytes);
        }
        let range = self.shared.ranges.enter(self.disk, offset..offset + length);
        if let Err(error) = here(self.backend()) {
            // Nobody but the guest waits for what has failed.
            drop(range);
            if !self.give_way("write to", error) {
                // Nobody knows what is there now.
                self.shared.lose(format!("a write to disk {} failed on this host", self.disk));
            }
            return Err(error);
        }
        self.shared.send(|link| {
            self.shared.room.take(length);
            there(link)
        });
        Ok(())
    }

    /// A request has failed. Where the secondary's disks can take over this is where it ends: the guest's thread waits here until there is no
    /// secondary any more. Else nothing happens, and false is returned.
    fn give_way(&self, what: &str, error: DiskError) -> bool {
        // The others are faults of the request, and would come there, too, as would those of a disk that both hosts have.
        if !matches!(error, DiskError::Io | DiskError::NoSpace) || self.shared.before.is_some() {
            return false;
        }
        let course = {
            let link = self.shared.link();
            let Some(link) = link.as_ref().filter(|_| self.shared.room.has_begun()) else { return false };
            let why = format!("a {what} disk {} failed on this host: {error}", self.disk);
            if link.course().fail(&why) {
                link.tell(DiskEvent::Failed(why));
            }
            link.course().clone()
        };
        course.wait_for_end();
        true
    }

    /// What was done, or has failed.
    fn or_give_way(&self, what: &str, done: Result<(), DiskError>) -> Result<(), DiskError> {
        if let Err(error) = done {
            self.give_way(what, error);
        }
        done
    }
}

impl Backend for TapDisk {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.shared.expected.note(self.disk, offset);
        let Err(error) = self.backend().read(offset, bytes) else { return Ok(()) };
        if !self.shared.room.has_begun() {
            return Err(error);
        }
        // What a disk does not give at once it may give when it is asked again.
        self.or_give_way("read from", self.backend().read(offset, bytes))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let there = |link: &mut Link| link.write(self.disk, offset, bytes);
        self.change(offset, bytes.len() as u64, Some(bytes), |backend| backend.write(offset, bytes), there)
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        // What stands there is saved first, for which there may be no room at once.
        let at_once = if self.shared.before.is_some() { SHARED_ZEROES_BYTES } else { length.max(1) };
        let (mut offset, end) = (offset, offset + length);
        while offset < end {
            let length = at_once.min(end - offset);
            let there = |link: &mut Link| link.zeroes(self.disk, offset, length, may_unmap);
            self.change(offset, length, None, |backend| backend.write_zeroes(offset, length, may_unmap), there)?;
            offset += length;
        }
        Ok(())
    }

    fn trim(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        match &self.shared.before {
            Some(before) if before.keeps() => Ok(()),
            _ => self.write_zeroes(offset, length, true),
        }
    }

    fn flush(&self) -> Result<(), DiskError> {
        let durability = self.shared.config.durability;
        let asked = match durability {
            // There is one disk.
            _ if self.shared.before.is_some() => None,
            Durability::AsyncEpoch => None,
            Durability::Memory | Durability::Disk => {
                self.shared.send(|link| link.ask_flush(durability == Durability::Disk))
            }
        };
        self.or_give_way("flush of", self.backend().flush())?;
        if let Some(asked) = asked {
            // Over when the secondary is: what is safe here is enough then.
            asked.wait();
        }
        Ok(())
    }

    fn publish(&self) -> Result<(), DiskError> {
        self.backend().publish()
    }

    fn allocation(&self, offset: u64, length: u32) -> Result<Vec<Allocation>, DiskError> {
        self.backend().allocation(offset, length)
    }
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn course(&self) -> Arc<Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says something to the secondary, if there is one. One that cannot be told is lost.
    fn send<T>(&self, say: impl FnOnce(&mut Link) -> Result<T, crate::peer::PeerError>) -> Option<T> {
        let mut link = self.link();
        match say(link.as_mut()?) {
            Ok(said) => Some(said),
            Err(error) => {
                self.end(&mut link, format!("the secondary's disks: {error}"));
                None
            }
        }
    }

    /// There will be no more checkpoints.
    fn lose(&self, why: String) {
        self.end(&mut self.link(), why);
    }

    fn hold(&self) {
        if let Some(before) = &self.before {
            before.hold();
        }
    }

    fn end(&self, link: &mut Option<Link>, why: String) {
        // In this order: nobody finds no way, and that nothing need be saved.
        self.hold();
        if let Some(link) = link.take() {
            self.room.close();
            link.course().end(Some(why.clone()));
            link.tell(DiskEvent::Lost(why));
        }
    }
}
