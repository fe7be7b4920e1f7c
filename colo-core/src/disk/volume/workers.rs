//! Who carries out what a store asks for.

use super::files::{copy, write_journal, write_parts};
use super::{VolumeError, shared};
use crate::disk::backend::write_zeroes;
use crate::disk::target::Target;
use crate::disk::{Action, ActionId, Content, EpochStore};
use rustix::fs::{FallocateFlags, fallocate};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// So many actions a worker takes at once: taking one costs as much as a short write.
const AT_ONCE: usize = 16;

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Something has changed that somebody waits for.
    pub(super) changed: Condvar,
    /// There is something to do for workers.
    pub(super) work: Condvar,
    pub(super) journal: File,
    pub(super) disks: Vec<Target>,
}

pub(super) struct State {
    pub(super) store: EpochStore,
    /// What workers are to do.
    pub(super) queue: VecDeque<(ActionId, Action)>,
    /// How many wait for a change.
    pub(super) waiting: usize,
    pub(super) lets_through: bool,
    pub(super) stops: bool,
    pub(super) failed: Option<String>,
}

impl State {
    pub(super) fn fail(&mut self, error: &io::Error) {
        tracing::error!("a file of the disks has failed: {error}");
        self.failed.get_or_insert(error.to_string());
    }

    pub(super) fn check(&self) -> Result<(), VolumeError> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(VolumeError::Failed(why.clone())))
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker: until it is to stop, or something has failed.
    pub(super) fn work(&self) {
        let _alarm = Alarm(self);
        let mut state = self.lock();
        loop {
            if state.stops || state.failed.is_some() {
                return;
            }
            let garbage = state.store.take_garbage();
            if !garbage.is_empty() {
                drop(state);
                drop(garbage);
                state = self.lock();
                continue;
            }
            let some = state.queue.len().min(AT_ONCE);
            if some == 0 {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let actions: Vec<_> = state.queue.drain(..some).collect();
            drop(state);
            let done: Vec<_> = actions.into_iter().map(|(id, action)| (id, self.act(action))).collect();
            state = self.lock();
            for (id, done) in done {
                Self::end(&mut state, id, done);
            }
            self.carry_out(state);
            state = self.lock();
        }
    }

    /// Does what is to be done now: writes to the journal at once, in this thread, and the rest by workers. (A journal is written in order, and a
    /// hop to another thread costs more than a write to memory.)
    pub(super) fn carry_out<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        loop {
            let (mut writes, before) = (Vec::new(), state.queue.len());
            while let Some((id, action)) = state.store.poll_action() {
                match action {
                    Action::Journal { at, parts } => writes.push((id, at, parts)),
                    action => state.queue.push_back((id, action)),
                }
            }
            match state.queue.len() - before {
                0 => {}
                1 => self.work.notify_one(),
                _ => self.work.notify_all(),
            }
            if writes.is_empty() || state.failed.is_some() {
                return self.tell(&state);
            }
            drop(state);
            let done = write_journal(&self.journal, &writes);
            state = self.lock();
            if let Err(error) = done {
                state.fail(&error);
            }
            for (id, ..) in writes {
                Self::end(&mut state, id, Ok(()));
            }
        }
    }

    fn end(state: &mut State, id: ActionId, done: io::Result<()>) {
        match done {
            // What has not been done is never said to have been.
            Ok(()) if state.failed.is_none() => state.store.done(id),
            Ok(()) => {}
            Err(error) => state.fail(&error),
        }
    }

    /// For those who wait.
    pub(super) fn tell(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        if state.failed.is_some() {
            self.work.notify_all();
        }
    }

    fn act(&self, action: Action) -> io::Result<()> {
        match action {
            Action::Journal { at, parts } => write_parts(&self.journal, at, &parts),
            Action::SyncJournal => self.journal.sync_data(),
            Action::Disk { disk, range, content } => self.put(disk, &range, content),
            Action::SyncDisk { disk } => self.disks[usize::from(disk)].sync(),
            Action::Release(range) => {
                // Space is all that this is about: where it cannot be given back it is not.
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let _ = fallocate(&self.journal, flags, range.start, range.end - range.start);
                Ok(())
            }
        }
    }

    /// Writes to a disk itself.
    pub(super) fn put(&self, disk: u8, range: &Range<u64>, content: Content) -> io::Result<()> {
        let file = match &self.disks[usize::from(disk)] {
            Target::Own(file) => file,
            Target::Shared(disk) => return shared::put(&self.journal, disk, range, &content),
        };
        match content {
            Content::Memory { bytes, .. } => file.write_all_at(&bytes, range.start),
            Content::Stored { at } => copy(&self.journal, at, file, range),
            Content::Zeroes { may_unmap } => write_zeroes(file, range.start, range.end - range.start, may_unmap),
        }
    }
}

/// A worker that panics has failed: nobody may wait for what it was to do.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.lock();
            state.failed.get_or_insert("a thread of the disks has panicked".into());
            self.0.tell(&state);
        }
    }
}
