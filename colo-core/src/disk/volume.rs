use super::backend::{Backend, DiskError};
use super::journal::ReadAt;
use super::{Action, ActionId, Change, Content, EpochStore, RecoverError, Source, StoreConfig, StoreError, Taken};
use crate::ids::Epoch;
use crate::random;
use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, pwritev};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// So many actions are carried out at once: a journal and a disk, and each has more than one way to be busy.
const WORKERS: usize = 4;

/// So many actions a worker takes at once: taking one costs as much as a short write.
const AT_ONCE: usize = 16;

/// So many parts are written by one call: `IOV_MAX`.
const MAX_PARTS: usize = 1024;

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
}

struct Shared {
    state: Mutex<State>,
    /// Something has changed that somebody waits for.
    changed: Condvar,
    /// There is something to do for workers.
    work: Condvar,
    journal: File,
    disks: Vec<File>,
}

struct State {
    store: EpochStore,
    /// What workers are to do.
    queue: VecDeque<(ActionId, Action)>,
    /// How many wait for a change.
    waiting: usize,
    lets_through: bool,
    stops: bool,
    failed: Option<String>,
}

impl Volume {
    /// Over disks that are the primary's at the moment at which `epoch` begins, with a new journal: whatever is in that file is lost.
    ///
    /// # Errors
    /// [`VolumeError::Io`].
    pub fn create(config: StoreConfig, journal: File, disks: Vec<File>, epoch: Epoch) -> Result<Volume, VolumeError> {
        let sizes = sizes(&disks)?;
        journal.set_len(0)?;
        Volume::start(EpochStore::new(config, &sizes, epoch, random::number()), journal, disks)
    }

    /// Takes up what was left behind: see [`EpochStore::recover`].
    ///
    /// # Errors
    /// [`VolumeError::Recover`], [`VolumeError::Io`].
    pub fn recover(config: StoreConfig, journal: File, disks: Vec<File>) -> Result<Volume, VolumeError> {
        let sizes = sizes(&disks)?;
        let store = EpochStore::recover(config, &sizes, &JournalFile(&journal), random::number())?;
        Volume::start(store, journal, disks)
    }

    fn start(store: EpochStore, journal: File, disks: Vec<File>) -> Result<Volume, VolumeError> {
        let state = Mutex::new(State {
            store,
            queue: VecDeque::new(),
            waiting: 0,
            lets_through: false,
            stops: false,
            failed: None,
        });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), work: Condvar::new(), journal, disks });
        let mut volume = Volume { shared, workers: Vec::new() };
        for _ in 0..WORKERS {
            let shared = volume.shared.clone();
            volume.workers.push(std::thread::Builder::new().name("disk".into()).spawn(move || shared.work())?);
        }
        Ok(volume)
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

    /// The secondary's guest has written that: into its overlay, or, where it serves, for good. Waits while too much waits for a commit.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn write_guest(&self, disk: u8, range: Range<u64>, change: Change) -> Result<(), VolumeError> {
        self.wait(|state| !state.store.is_full() || state.lets_through)?;
        let kept = change.clone();
        let taken = self.with(|store| match store.serves() {
            true => store.write(disk, range.clone(), kept),
            false => store.write_overlay(disk, range.clone(), kept).map(|()| Taken::Kept),
        })?;
        if taken == Taken::Direct {
            self.shared.put(disk, &range, change.into())?;
        }
        Ok(())
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

    /// See [`EpochStore::fail_over`].
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn fail_over(&self) -> Result<(), VolumeError> {
        self.with(EpochStore::fail_over)
    }

    /// Whether the secondary's guest serves.
    pub fn serves(&self) -> bool {
        self.shared.lock().store.serves()
    }

    /// See [`EpochStore::wants_checkpoint`].
    pub fn wants_checkpoint(&self) -> bool {
        self.shared.lock().store.wants_checkpoint()
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
            return self.shared.disks.iter().try_for_each(|disk| Ok(disk.sync_data()?));
        }
        self.wait(|state| state.store.is_durable(at))
    }

    /// Reads what the secondary's guest sees.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn read(&self, disk: u8, offset: u64, bytes: &mut [u8]) -> Result<(), VolumeError> {
        let (id, pieces) = self.with(|store| store.read(disk, offset..offset + bytes.len() as u64))?;
        let read = pieces.into_iter().try_for_each(|(range, source)| {
            let part = &mut bytes[(range.start - offset) as usize..(range.end - offset) as usize];
            match source {
                Source::Memory(memory) => part.copy_from_slice(&memory),
                Source::Journal { at } => self.shared.journal.read_exact_at(part, at)?,
                Source::Zeroes => part.fill(0),
                Source::Disk => self.shared.disks[usize::from(disk)].read_exact_at(part, range.start)?,
            }
            Ok(())
        });
        let mut state = self.shared.lock();
        state.store.read_done(id);
        self.shared.carry_out(state);
        read
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
        let mut state = self.shared.lock();
        while !until(&state) {
            state.check()?;
            state.waiting += 1;
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        Ok(())
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

/// One of a volume's disks, as the secondary's guest has it.
pub struct VolumeDisk {
    volume: Arc<Volume>,
    disk: u8,
}

impl VolumeDisk {
    /// Disk number `disk` of the volume.
    pub fn new(volume: Arc<Volume>, disk: u8) -> VolumeDisk {
        VolumeDisk { volume, disk }
    }

    fn put(&self, range: Range<u64>, change: Change) -> Result<(), DiskError> {
        self.volume.write_guest(self.disk, range, change).map_err(|error| told(&error))
    }
}

impl Backend for VolumeDisk {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.volume.read(self.disk, offset, bytes).map_err(|error| told(&error))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.put(offset..offset + bytes.len() as u64, bytes.to_vec().into())
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.put(offset..offset + length, Change::Zeroes { may_unmap })
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.volume.flush_guest().map_err(|error| told(&error))
    }
}

fn told(error: &VolumeError) -> DiskError {
    tracing::warn!("{error}");
    DiskError::Io
}

impl State {
    fn fail(&mut self, error: &io::Error) {
        tracing::error!("a file of the disks has failed: {error}");
        self.failed.get_or_insert(error.to_string());
    }

    fn check(&self) -> Result<(), VolumeError> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(VolumeError::Failed(why.clone())))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker: until it is to stop, or something has failed.
    fn work(&self) {
        let _alarm = Alarm(self);
        let mut state = self.lock();
        loop {
            if state.stops || state.failed.is_some() {
                return;
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
    fn carry_out<'a>(&'a self, mut state: MutexGuard<'a, State>) {
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
    fn tell(&self, state: &State) {
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
            Action::SyncDisk { disk } => self.disks[usize::from(disk)].sync_data(),
            Action::Release(range) => {
                // Space is all that this is about: where it cannot be given back it is not.
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let _ = fallocate(&self.journal, flags, range.start, range.end - range.start);
                Ok(())
            }
        }
    }

    /// Writes to a disk itself.
    fn put(&self, disk: u8, range: &Range<u64>, content: Content) -> io::Result<()> {
        let file = &self.disks[usize::from(disk)];
        match content {
            Content::Memory { bytes, .. } => file.write_all_at(&bytes, range.start),
            Content::Stored { at } => copy(&self.journal, at, file, range),
            Content::Zeroes { may_unmap } => {
                super::backend::write_zeroes(file, range.start, range.end - range.start, may_unmap)
            }
        }
    }
}

/// Writes to a journal, one after the other: those that are neighbours by one call.
fn write_journal(journal: &File, writes: &[(ActionId, u64, Vec<Bytes>)]) -> io::Result<()> {
    let mut rest = writes.iter().peekable();
    while let Some((_, at, parts)) = rest.next() {
        let mut all = parts.clone();
        let mut end = at + bytes_of(parts);
        while let Some((_, at, parts)) =
            rest.next_if(|(_, at, parts)| *at == end && all.len() + parts.len() <= MAX_PARTS)
        {
            all.extend_from_slice(parts);
            end = at + bytes_of(parts);
        }
        write_parts(journal, *at, &all)?;
    }
    Ok(())
}

fn bytes_of(parts: &[Bytes]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// Writes these parts, one behind the other.
fn write_parts(file: &File, mut at: u64, parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        match pwritev(file, slices, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                at += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
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

/// Copies a part of the journal to a disk, a piece at a time.
fn copy(journal: &File, mut from: u64, disk: &File, range: &Range<u64>) -> io::Result<()> {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut buffer = vec![0; (range.end - range.start).min(PIECE_BYTES) as usize];
    let mut at = range.start;
    while at < range.end {
        let piece = &mut buffer[..(range.end - at).min(PIECE_BYTES) as usize];
        journal.read_exact_at(piece, from)?;
        disk.write_all_at(piece, at)?;
        (from, at) = (from + piece.len() as u64, at + piece.len() as u64);
    }
    Ok(())
}

/// A journal's file, as recovery reads it.
struct JournalFile<'a>(&'a File);

impl ReadAt for JournalFile<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.0.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes[filled..].fill(0);
        Ok(())
    }
}

fn sizes(disks: &[File]) -> io::Result<Vec<u64>> {
    use std::io::{Seek, SeekFrom};
    disks.iter().map(|mut disk| disk.seek(SeekFrom::End(0))).collect()
}
