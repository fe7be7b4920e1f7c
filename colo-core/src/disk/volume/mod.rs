mod disk;
mod files;
mod shared;
mod workers;

pub use disk::VolumeDisk;

use super::target::Target;
use super::{Change, EpochStore, Piece, ReadId, RecoverError, Source, StoreConfig, StoreError, Taken};
use crate::ids::Epoch;
use crate::random;
use files::{JournalFile, sizes};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use workers::{Shared, State};

/// How a store finds where a part of a disk is.
type Find = fn(&mut EpochStore, u8, Range<u64>) -> Result<(ReadId, Vec<Piece>), StoreError>;

/// So many actions are carried out at once: a journal and a disk, and each has more than one way to be busy.
const WORKERS: usize = 4;

/// What failed, and with it all that comes after.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum VolumeError {
    /// A file failed, now or before.
    #[error("a file of the disks has failed: {0}")]
    Failed(String),
    /// The store refuses; nothing has changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal cannot be taken up.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A file cannot be asked.
    #[error("a file of the disks: {0}")]
    Io(#[from] io::Error),
}

/// An [`EpochStore`] over files: a journal, and the disks. Its threads do what the store asks for. Dropped, it stops; what is not on the
/// disks by then is in the journal.
///
/// ```
/// use colo_core::disk::{StoreConfig, Volume};
/// use colo_core::ids::Epoch;
/// # let folder = std::env::temp_dir().join(format!("colo-doc-volume-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let open = |name| std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(name));
/// let disk = open("disk")?;
/// disk.set_len(1 << 20)?;
///
/// let volume = Volume::create(StoreConfig::default(), open("journal")?, vec![disk], Epoch::NONE)?;
/// volume.write(0, 0..3, b"new".to_vec().into())?;
/// volume.barrier(Epoch(1))?;
/// volume.commit(Epoch(1))?;
/// volume.wait_durable()?;
/// let mut bytes = [0; 3];
/// volume.read(0, 0, &mut bytes)?;
/// assert_eq!(&bytes, b"new");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Volume {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Both hosts have the disks.
    is_shared: bool,
}

impl Volume {
    /// Over disks that are the primary's at the moment at which `epoch` begins, with a new journal: whatever is in that file is lost. On return it is
    /// durable, and what counts can be found in it; the file's name is its maker's business.
    ///
    /// # Errors
    /// [`VolumeError::Io`], [`VolumeError::Failed`].
    pub fn create(config: StoreConfig, journal: File, disks: Vec<File>, epoch: Epoch) -> Result<Volume, VolumeError> {
        let sizes = sizes(&disks)?;
        journal.set_len(0)?;
        let store = EpochStore::new(config, &sizes, epoch, random::number());
        let volume = Volume::start(store, journal, disks, config.is_shared)?;
        volume.with(|_| Ok(()))?;
        volume.wait(|state| state.store.has_begun())?;
        Ok(volume)
    }

    /// Takes up what was left behind: see [`EpochStore::recover`].
    ///
    /// # Errors
    /// [`VolumeError::Recover`], [`VolumeError::Io`].
    pub fn recover(config: StoreConfig, journal: File, disks: Vec<File>) -> Result<Volume, VolumeError> {
        let sizes = sizes(&disks)?;
        // The process that has begun it may have died before it was durable.
        journal.sync_data()?;
        let store = EpochStore::recover(config, &sizes, &JournalFile(&journal), random::number())?;
        Volume::start(store, journal, disks, config.is_shared)
    }

    fn start(store: EpochStore, journal: File, disks: Vec<File>, is_shared: bool) -> Result<Volume, VolumeError> {
        let mut volume = Volume::idle(store, journal, disks, is_shared)?;
        for _ in 0..WORKERS {
            volume.workers.push(volume.hire()?);
        }
        Ok(volume)
    }

    /// Without workers: nothing becomes durable, and nothing comes to the disks.
    fn idle(store: EpochStore, journal: File, disks: Vec<File>, is_shared: bool) -> Result<Volume, VolumeError> {
        let disks = disks.into_iter().map(|disk| Target::new(disk, is_shared)).collect::<io::Result<_>>()?;
        let state = Mutex::new(State {
            store,
            queue: VecDeque::new(),
            waiting: 0,
            lets_through: false,
            stops: false,
            failed: None,
        });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), work: Condvar::new(), journal, disks });
        Ok(Volume { shared, workers: Vec::new(), is_shared })
    }

    /// A worker more, for as long as there is this volume.
    fn hire(&self) -> io::Result<JoinHandle<()>> {
        let shared = self.shared.clone();
        std::thread::Builder::new().name("disk".into()).spawn(move || shared.work())
    }

    /// The last epoch that counts.
    pub fn epoch(&self) -> Epoch {
        self.shared.lock().store.epoch()
    }

    /// The last epoch that would count after a crash now.
    pub fn durable_epoch(&self) -> Epoch {
        self.shared.lock().store.durable_epoch()
    }

    /// The primary's guest has written that: see [`EpochStore::write`].
    ///
    /// # Errors
    /// [`VolumeError`]; a store that serves has no primary.
    pub fn write(&self, disk: u8, range: Range<u64>, change: Change) -> Result<(), VolumeError> {
        self.write_all(std::iter::once((disk, range, change)))
    }

    /// The same for several writes, in their order. At the first that is refused it ends.
    ///
    /// # Errors
    /// As for [`Volume::write`].
    pub fn write_all(&self, writes: impl Iterator<Item = (u8, Range<u64>, Change)>) -> Result<(), VolumeError> {
        self.with(|store| {
            if store.serves() {
                return Err(StoreError::NotNow("while it serves"));
            }
            writes.into_iter().try_for_each(|(disk, range, change)| store.write(disk, range, change).map(drop))
        })
    }

    /// The secondary's guest has written that: into its overlay, or, where it serves, for good. Waits while too much waits for a commit, or for the
    /// disks.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn write_guest(&self, disk: u8, range: Range<u64>, change: Change) -> Result<(), VolumeError> {
        self.wait(|state| !state.store.is_full() || state.lets_through && !state.store.serves())?;
        let kept = change.clone();
        let taken = self.with(|store| match store.serves() {
            true => store.write(disk, range.clone(), kept).map(Some),
            false => store.write_overlay(disk, range.clone(), kept).map(|()| None),
        })?;
        match taken {
            // What is thrown away with the next commit need not outlive anything.
            None => Ok(()),
            // What stands before it in the journal may come to the file after it, from another thread, and without that it is nothing.
            Some(Taken::Kept { until }) => self.wait(|state| state.store.is_written(until)),
            Some(Taken::Direct) => Ok(self.shared.put(disk, &range, change.into())?),
        }
    }

    /// See [`EpochStore::barrier`].
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn barrier(&self, epoch: Epoch) -> Result<(), VolumeError> {
        self.with(|store| store.barrier(epoch))
    }

    /// See [`EpochStore::commit`].
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn commit(&self, epoch: Epoch) -> Result<(), VolumeError> {
        self.with(|store| store.commit(epoch))
    }

    /// See [`EpochStore::fail_over`]. When it is done, the end of this process changes nothing about it; of disks that both hosts have, nor does
    /// a loss of power.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn fail_over(&self) -> Result<(), VolumeError> {
        let until = self.with(EpochStore::fail_over)?;
        self.wait(|state| state.store.is_written(until))?;
        // Else they might be the primary's again after a crash, and somebody have seen that they were not.
        if self.is_shared { self.wait_durable() } else { Ok(()) }
    }

    /// Whether the secondary's guest serves.
    pub fn serves(&self) -> bool {
        self.shared.lock().store.serves()
    }

    /// See [`EpochStore::wants_checkpoint`].
    pub fn wants_checkpoint(&self) -> bool {
        self.shared.lock().store.wants_checkpoint()
    }

    /// Waits until there is room for one more epoch that counts: see [`EpochStore::is_behind`]. Returns whether there is, by then.
    ///
    /// # Errors
    /// [`VolumeError::Failed`].
    pub fn wait_for_room(&self, deadline: Instant) -> Result<bool, VolumeError> {
        self.wait_until(Some(deadline), |state| !state.store.is_behind())
    }

    /// Whether the secondary's guest need not wait where too much waits for a commit.
    pub fn let_through(&self, lets_through: bool) {
        let mut state = self.shared.lock();
        state.lets_through = lets_through;
        self.shared.tell(&state);
    }

    /// Forgets what does not count, and waits until what does is on the disks themselves.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn settle(&self) -> Result<(), VolumeError> {
        self.with(|store| {
            store.abort();
            Ok(())
        })?;
        self.wait(|state| state.store.is_settled())
    }

    /// Waits until all that has come so far is durable, whether it counts or not.
    ///
    /// # Errors
    /// [`VolumeError::Failed`].
    pub fn wait_durable(&self) -> Result<(), VolumeError> {
        let at = self.with(|store| Ok(store.make_durable()))?;
        self.wait(|state| state.store.is_durable(at))
    }

    /// The secondary's guest wants to be sure of all that it has written: waits until that is durable. Until it serves, nothing of it need
    /// ever be.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn flush_guest(&self) -> Result<(), VolumeError> {
        let (is_direct, at) = self.with(|store| {
            let at = if store.serves() { store.flush() } else { 0 };
            Ok((store.is_direct(), at))
        })?;
        if is_direct {
            return self.shared.disks.iter().try_for_each(|disk| Ok(disk.sync()?));
        }
        self.wait(|state| state.store.is_durable(at))
    }

    /// Reads what the secondary's guest sees.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn read(&self, disk: u8, offset: u64, bytes: &mut [u8]) -> Result<(), VolumeError> {
        if self.is_shared {
            return self.read_shared(disk, offset, bytes);
        }
        self.read_found(disk, offset, bytes, EpochStore::read).map(drop)
    }

    /// Reads what the primary's guest sees, as far as its writes have come: see [`EpochStore::read_primary`].
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn read_primary(&self, disk: u8, offset: u64, bytes: &mut [u8]) -> Result<(), VolumeError> {
        self.read_found(disk, offset, bytes, EpochStore::read_primary).map(drop)
    }

    /// Returns which parts were read from the disk itself.
    fn read_found(&self, disk: u8, offset: u64, bytes: &mut [u8], find: Find) -> Result<Vec<Range<u64>>, VolumeError> {
        let mut from_disk = Vec::new();
        let (id, pieces) = self.with(|store| find(store, disk, offset..offset + bytes.len() as u64))?;
        let read = pieces.into_iter().try_for_each(|(range, source)| {
            let part = &mut bytes[(range.start - offset) as usize..(range.end - offset) as usize];
            match source {
                Source::Memory(memory) => part.copy_from_slice(&memory),
                Source::Journal { at } => self.shared.journal.read_exact_at(part, at)?,
                Source::Zeroes => part.fill(0),
                Source::Disk => {
                    self.shared.disks[usize::from(disk)].read_exact_at(part, range.start)?;
                    from_disk.push(range);
                }
            }
            Ok(())
        });
        let mut state = self.shared.lock();
        state.store.read_done(id);
        self.shared.carry_out(state);
        read.map(|()| from_disk)
    }

    /// Looks at the store.
    pub(in crate::disk) fn look<T>(&self, look: impl FnOnce(&EpochStore) -> T) -> T {
        look(&self.shared.lock().store)
    }

    /// Does something with the store, after which there may be something to do.
    fn with<T>(&self, with: impl FnOnce(&mut EpochStore) -> Result<T, StoreError>) -> Result<T, VolumeError> {
        let mut state = self.shared.lock();
        state.check()?;
        let result = with(&mut state.store);
        self.shared.carry_out(state);
        Ok(result?)
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> Result<(), VolumeError> {
        self.wait_until(None, until).map(drop)
    }

    /// Returns whether it is so, by then.
    fn wait_until(&self, deadline: Option<Instant>, until: impl Fn(&State) -> bool) -> Result<bool, VolumeError> {
        let mut state = self.shared.lock();
        while !until(&state) {
            state.check()?;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state.waiting += 1;
            let changed = &self.shared.changed;
            state = match left {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
            state.waiting -= 1;
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.shared.lock().stops = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // One that panicked has said so.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
