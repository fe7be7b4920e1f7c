use super::before::Written;
use super::course::Course;
use crate::disk::replica::{DiskEvent, OnDiskEvent};
use crate::ids::Epoch;
use crate::peer::{MAX_DISK_BYTES, Message, PeerError, StateSender};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The way to a secondary's disks.
pub(super) struct Link {
    sender: StateSender,
    on_event: Arc<OnDiskEvent>,
    asked: u64,
    flushes: Arc<Flushes>,
    course: Arc<Course>,
}

/// A flush that the secondary was asked for.
pub(super) struct Asked {
    number: u64,
    flushes: Arc<Flushes>,
}

/// How far the secondary has flushed.
#[derive(Default)]
pub(super) struct Flushes {
    /// The last one that is done; none any more is `u64::MAX`.
    done: Mutex<u64>,
    changed: Condvar,
}

impl Link {
    pub(super) fn new(sender: StateSender, on_event: Arc<OnDiskEvent>, course: Arc<Course>) -> Link {
        Link { sender, on_event, asked: 0, flushes: Arc::default(), course }
    }

    pub(super) fn tell(&self, event: DiskEvent) {
        (self.on_event)(event);
    }

    pub(super) fn flushes(&self) -> Arc<Flushes> {
        self.flushes.clone()
    }

    pub(super) fn course(&self) -> &Arc<Course> {
        &self.course
    }

    pub(super) fn write(&mut self, disk: u8, offset: u64, bytes: &[u8]) -> Result<(), PeerError> {
        for (number, part) in bytes.chunks(MAX_DISK_BYTES).enumerate() {
            self.sender.send_disk_write(disk, offset + (number * MAX_DISK_BYTES) as u64, part)?;
        }
        Ok(())
    }

    pub(super) fn zeroes(&mut self, disk: u8, offset: u64, length: u64, may_unmap: bool) -> Result<(), PeerError> {
        self.sender.send(&Message::DiskZeroes { disk, offset, length, may_unmap })
    }

    pub(super) fn barrier(&mut self, epoch: Epoch, is_durable: bool) -> Result<(), PeerError> {
        self.sender.send(&Message::DiskBarrier { epoch, is_durable })
    }

    pub(super) fn send(&mut self, message: &Message) -> Result<(), PeerError> {
        self.sender.send(message)
    }

    /// What stands there, before it is changed: no more than fits into a message.
    pub(super) fn before(&mut self, disk: u8, offset: u64, bytes: &[u8]) -> Result<(), PeerError> {
        match bytes.iter().all(|byte| *byte == 0) {
            true => self.send(&Message::DiskBeforeZeroes { disk, offset, length: bytes.len() as u64 }),
            false => self.sender.send_disk_before(disk, offset, bytes),
        }
    }

    pub(super) fn same(&mut self, written: &Written) -> Result<(), PeerError> {
        let Written { disk, offset, length, seed, hash } = *written;
        self.send(&Message::DiskSame { disk, offset, length, seed, hash })
    }

    pub(super) fn ask_hashes(&mut self, disk: u8, offset: u64, length: u32, seed: u64) -> Result<(), PeerError> {
        self.sender.send(&Message::DiskHashesWanted { disk, offset, length, seed })
    }

    /// Asks for everything to be safe there that was said before.
    pub(super) fn ask_flush(&mut self, is_durable: bool) -> Result<Asked, PeerError> {
        self.asked += 1;
        self.sender.send(&Message::DiskFlush { number: self.asked, is_durable })?;
        Ok(Asked { number: self.asked, flushes: self.flushes.clone() })
    }
}

/// Nobody waits for an answer that cannot come.
impl Drop for Link {
    fn drop(&mut self) {
        self.flushes.done(u64::MAX);
        self.course.end(None);
        if let Ok(shutdown) = self.sender.shutdown_handle() {
            shutdown.shutdown();
        }
    }
}

impl Asked {
    /// Until it is done, or will never be, which is false.
    pub(super) fn wait(self) -> bool {
        let mut done = self.flushes.lock();
        while *done < self.number {
            done = self.flushes.changed.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
        *done != u64::MAX
    }

    pub(super) fn is_done(&self) -> bool {
        *self.flushes.lock() >= self.number
    }
}

impl Flushes {
    pub(super) fn done(&self, number: u64) {
        let mut done = self.lock();
        *done = number.max(*done);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much may be written before there must have been a checkpoint.
pub(super) struct Room {
    limit_bytes: u64,
    state: Mutex<RoomState>,
    changed: Condvar,
}

#[derive(Default)]
struct RoomState {
    /// Of the open epoch, and of those that are whole and do not count yet.
    open_bytes: u64,
    closed: VecDeque<(Epoch, u64)>,
    lets_through: bool,
    /// Whom to ask for a checkpoint; nobody while none is attached.
    on_event: Option<Arc<OnDiskEvent>>,
    has_asked: bool,
    /// The last epoch that is whole, and the last that counts.
    barrier: Epoch,
    committed: Epoch,
    /// Whether there are epochs: before, what is written goes straight to the other disks.
    has_begun: bool,
}

impl Room {
    pub(super) fn new(limit_bytes: u64) -> Room {
        Room { limit_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// From here on it is counted, once there are epochs.
    pub(super) fn open(&self, on_event: Arc<OnDiskEvent>) {
        *self.lock() = RoomState { on_event: Some(on_event), ..RoomState::default() };
    }

    /// It is counted no more, and nobody waits.
    pub(super) fn close(&self) {
        *self.lock() = RoomState::default();
        self.changed.notify_all();
    }

    /// Whether there are epochs, and so something that can be taken over from.
    pub(super) fn has_begun(&self) -> bool {
        self.lock().has_begun
    }

    /// Waits until there is room, or none is needed.
    pub(super) fn wait(&self) {
        let mut state = self.lock();
        while state.is_full(self.limit_bytes) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// So many bytes are on their way.
    pub(super) fn take(&self, bytes: u64) {
        let mut state = self.lock();
        if !state.has_begun {
            return;
        }
        state.open_bytes += bytes;
        if state.pending() >= self.limit_bytes / 2 && !state.has_asked {
            state.has_asked = true;
            if let Some(on_event) = state.on_event.clone() {
                drop(state);
                on_event(DiskEvent::WantsCheckpoint);
            }
        }
    }

    /// Waits until that time, or until nothing is attached any more.
    pub(super) fn pause_until(&self, until: Instant) {
        let mut state = self.lock();
        while state.on_event.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn let_through(&self, lets_through: bool) {
        self.lock().lets_through = lets_through;
        self.changed.notify_all();
    }

    /// The last epoch that counts, the last that is whole, and how many bytes wait.
    pub(super) fn status(&self) -> (Epoch, Epoch, u64) {
        let state = self.lock();
        (state.committed, state.barrier, state.pending())
    }

    pub(super) fn barrier(&self, epoch: Epoch) {
        let mut state = self.lock();
        let bytes = std::mem::take(&mut state.open_bytes);
        state.closed.push_back((epoch, bytes));
        (state.has_begun, state.has_asked, state.barrier) = (true, false, epoch);
    }

    pub(super) fn committed(&self, epoch: Epoch) {
        let mut state = self.lock();
        while state.closed.front().is_some_and(|(closed, _)| *closed <= epoch) {
            state.closed.pop_front();
        }
        state.committed = epoch.min(state.barrier).max(state.committed);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, RoomState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoomState {
    fn pending(&self) -> u64 {
        self.open_bytes + self.closed.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    fn is_full(&self, limit_bytes: u64) -> bool {
        self.on_event.is_some() && !self.lets_through && self.pending() >= limit_bytes
    }
}
