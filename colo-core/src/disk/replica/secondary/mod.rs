//! The secondary's side: what comes over the connection goes to the disks, or to the epochs over them.

mod disk;
mod receive;
mod shared;
#[cfg(test)]
mod tests;

pub use disk::ReplicaDisk;

use super::{DiskState, DiskStatus, SecondaryDisks};
use crate::disk::backend::{open_locked, size_of};
use crate::disk::shared_file::open_shared;
use crate::disk::target::Target;
use crate::disk::{DiskError, FileBackend, RecoverError, StoreConfig, Volume, VolumeError};
use crate::ids::Epoch;
use crate::peer::{ShutdownHandle, StateChannel};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So long may what the guest has asked for take when it stands still for a checkpoint: less than whoever drives the disks waits for an answer. A
/// disk that has hung for so long ends the session.
const FREEZE_WITHIN: Duration = Duration::from_secs(5);

/// Where a secondary's disks are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaConfig {
    /// Files or block devices, each of the size that the primary's has; or the primary's own, if [the store](StoreConfig::is_shared) says so.
    pub disks: Vec<PathBuf>,
    /// The journal: a file, best on a disk of its own. It is made when it is not there.
    pub journal: PathBuf,
    /// Limits.
    pub store: StoreConfig,
}

/// Why a secondary's disks cannot be taken up. Nothing was changed.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ReplicaError {
    /// A file cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in the journal does not belong to these disks.
    #[error("{}: {source}; another journal, or other disks? If what was not yet written to the disks may be lost, remove it", path.display())]
    Journal {
        /// Which.
        path: PathBuf,
        /// Why.
        source: VolumeError,
    },
}

/// The disks of a machine that follows another, on files. Epochs that a process before this one has left in the journal are written to
/// the disks first: they are at one epoch then, all of them.
pub struct Replica {
    shared: Arc<Shared>,
    receiving: Option<Receiving>,
}

struct Shared {
    store: StoreConfig,
    files: Files,
    /// The disks themselves, to be read while there are no epochs.
    direct: Vec<Target>,
    sizes: Vec<u64>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    phase: Phase,
    /// The last epoch that is here as a whole.
    barrier: Epoch,
    /// Whether somebody sends.
    is_attached: bool,
    /// Whether there is a session, or was one until its connection broke: then there is a machine, which may have to be held.
    has_session: bool,
    /// Why nobody sends any more, if that was not on request.
    ended: Option<String>,
    is_frozen: bool,
    /// It is known that the primary does not write to the disks any more, nor will.
    is_fenced: bool,
    /// Requests of the guest that are under way.
    active: usize,
}

struct Files {
    disks: Vec<File>,
    journal: File,
}

enum Phase {
    /// Between two sessions, or before the first barrier of one: what comes goes straight to the disks, which are at no epoch. There is no
    /// guest; but whoever prepares one reads them.
    Direct,
    /// There are epochs; or the guest serves.
    Epochs(Arc<Volume>),
}

impl Replica {
    /// Opens the disks, locks them, and takes up what is in the journal.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn open(config: ReplicaConfig) -> Result<Replica, ReplicaError> {
        let files: Result<Vec<File>, _> =
            config.disks.iter().map(|path| open_disk(path, config.store.is_shared)).collect();
        let (files, journal) = (files?, open_journal(&config.journal)?);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ReplicaError::Open { path, source }
        };
        let size = |(file, path): (&File, &PathBuf)| size_of(file).map_err(failed(path));
        let sizes = files.iter().zip(&config.disks).map(size).collect::<Result<_, _>>()?;
        let files = Files { disks: files, journal };
        let direct = files.targets(config.store.is_shared).map_err(failed(&config.journal))?;
        let is_begun = files.journal.metadata().map_err(failed(&config.journal))?.len() > 0;
        let recover = || {
            let (journal, disks) = files.clones()?;
            Volume::recover(config.store, journal, disks)
        };
        let phase = match is_begun.then(recover) {
            // No epoch has ever counted that was safe here.
            None | Some(Err(VolumeError::Recover(RecoverError::NotBegun))) => Phase::Direct,
            Some(Ok(volume)) => Phase::Epochs(Arc::new(volume)),
            Some(Err(source)) => return Err(ReplicaError::Journal { path: config.journal, source }),
        };
        let barrier = phase.volume().map_or(Epoch::NONE, |volume| volume.epoch());
        let state = State {
            phase,
            barrier,
            is_attached: false,
            has_session: false,
            ended: None,
            is_frozen: false,
            is_fenced: false,
            active: 0,
        };
        let shared =
            Shared { store: config.store, files, direct, sizes, state: Mutex::new(state), changed: Condvar::new() };
        Ok(Replica { shared: Arc::new(shared), receiving: None })
    }

    /// The disks' sizes in bytes.
    pub fn sizes(&self) -> &[u64] {
        &self.shared.sizes
    }

    /// Disk number `disk`.
    ///
    /// # Panics
    /// When there is none.
    pub fn disk(&self, disk: u8) -> ReplicaDisk {
        assert!(usize::from(disk) < self.shared.sizes.len(), "there is no disk {disk}");
        ReplicaDisk { shared: self.shared.clone(), disk }
    }

    /// The epoch that the disks are at: none while they are being copied.
    pub fn epoch(&self) -> Option<Epoch> {
        self.shared.lock().phase.volume().map(|volume| volume.epoch())
    }

    /// What the disks are doing.
    pub fn status(&self) -> DiskStatus {
        let (volume, is_attached, ended) = {
            let state = self.shared.lock();
            (state.phase.volume().cloned(), state.is_attached, state.ended.clone())
        };
        let limit_bytes = self.shared.store.pending_bytes;
        let Some(volume) = volume else {
            let state = if is_attached { DiskState::Receiving } else { DiskState::Alone(ended) };
            let (epoch, whole_epoch) = (Epoch::NONE, Epoch::NONE);
            return DiskStatus { state, epoch, whole_epoch, waiting_bytes: 0, limit_bytes, journal_bytes: 0 };
        };
        volume.look(|store| DiskStatus {
            state: match store.serves() {
                true => DiskState::Serving,
                false if is_attached => DiskState::InStep,
                false => DiskState::Alone(ended),
            },
            epoch: store.epoch(),
            whole_epoch: store.last_barrier(),
            waiting_bytes: store.pending_bytes(),
            limit_bytes,
            journal_bytes: store.journal_bytes(),
        })
    }

    /// Whether they have taken over, in this process's life or before.
    pub fn serves(&self) -> bool {
        self.shared.volume().is_some_and(|volume| volume.serves())
    }

    /// Waits until everything that counts is on the disks themselves.
    ///
    /// # Errors
    /// [`DiskError::Io`] when a file has failed.
    pub fn settle(&self) -> Result<(), DiskError> {
        self.shared.volume().map_or(Ok(()), |volume| volume.settle().map_err(|error| told(&error)))
    }

    /// Hears the primary no more, and ends the connection. The disks stay at the epoch that they are at.
    pub fn detach(&mut self) {
        self.receiving = None;
        let mut state = self.shared.lock();
        state.has_session = false;
        // The primary goes on, and does not say any more what it changes.
        if state.phase.volume().is_some_and(|volume| self.shared.store.is_shared && !volume.serves()) {
            let _volume = std::mem::replace(&mut state.phase, Phase::Direct);
            drop(state);
        }
    }

    fn freeze_until(&self, deadline: Instant) {
        let mut state = self.shared.lock();
        state.is_frozen = true;
        while state.active > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::error!("the secondary's disks have not done in time what the guest has asked for");
                return;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn let_through(&self, lets_through: bool) {
        if let Some(volume) = self.shared.volume() {
            volume.let_through(lets_through);
        }
    }
}

impl SecondaryDisks for Replica {
    fn attach(&mut self, channel: StateChannel) -> Result<(), DiskError> {
        self.detach();
        self.shared.begin_copy()?;
        let (sender, receiver) = channel.split();
        let handle = || sender.shutdown_handle().map_err(|_| DiskError::Io);
        let (shutdown, at_end) = (handle()?, handle()?);
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("disk epochs".into()).spawn(move || {
            let _attached = Attached(&shared, at_end);
            let received = match shared.store.is_shared {
                true => shared.receive_shared(receiver, sender),
                false => shared.receive(receiver, sender),
            };
            match received {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!("the primary's disks: {error}");
                    shared.lock().ended = Some(error.to_string());
                }
            }
        });
        self.shared.lock().has_session = true;
        self.receiving = Some(Receiving { shutdown, thread: Some(thread.map_err(|_| DiskError::Io)?) });
        Ok(())
    }

    fn wait_barrier(&mut self, epoch: Epoch, deadline: Instant) -> bool {
        let mut state = self.shared.lock();
        while state.barrier < epoch {
            let left = deadline.saturating_duration_since(Instant::now());
            if !state.is_attached || left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        // Here the primary is held up where its guest writes faster than this host's disks: what is not acknowledged is not so much more, and
        // the guest goes on until that has no room. Nobody else waits: what comes is taken, and a takeover needs no room.
        let Some(volume) = state.phase.volume().cloned() else { return true };
        drop(state);
        volume.wait_for_room(deadline).unwrap_or_else(|error| {
            told(&error);
            false
        })
    }

    fn release(&mut self) {
        self.let_through(true);
    }

    /// One that fails is followed by a [`SecondaryDisks::commit`] that fails, too.
    fn freeze(&mut self) {
        self.freeze_until(Instant::now() + FREEZE_WITHIN);
    }

    fn thaw(&mut self) {
        self.let_through(false);
        self.shared.lock().is_frozen = false;
        self.shared.changed.notify_all();
    }

    fn wants_checkpoint(&self) -> bool {
        self.shared.volume().is_some_and(|volume| volume.wants_checkpoint())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), DiskError> {
        let volume = self.shared.volume().ok_or(DiskError::Invalid)?;
        if self.shared.lock().active > 0 {
            return Err(told(&"requests of the guest are under way at a checkpoint"));
        }
        // That of the first barrier counts from the beginning.
        if volume.epoch() == epoch {
            return Ok(());
        }
        volume.commit(epoch).map_err(|error| told(&error))
    }

    fn needs_fence(&self) -> bool {
        self.shared.store.is_shared
    }

    fn fenced(&mut self) {
        self.shared.lock().is_fenced = true;
    }

    fn fail_over(&mut self) -> Result<(), DiskError> {
        if self.shared.store.is_shared && !self.shared.lock().is_fenced {
            tracing::error!("the disks are shared, and nobody says that the primary does not write to them any more");
            return Err(DiskError::NotPermitted);
        }
        self.receiving = None;
        self.shared.volume().ok_or(DiskError::Invalid)?.fail_over().map_err(|error| told(&error))
    }
}

/// The thread that receives, until this is dropped.
struct Receiving {
    shutdown: ShutdownHandle,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.shutdown.shutdown();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// As long as the receiving thread lives. With it the connection ends, which the primary hears.
struct Attached<'a>(&'a Shared, ShutdownHandle);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.1.shutdown();
        self.0.lock().is_attached = false;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn volume(&self) -> Option<Arc<Volume>> {
        self.lock().phase.volume().cloned()
    }

    /// From here on the disks are at no epoch, until the first barrier.
    fn begin_copy(&self) -> Result<(), DiskError> {
        let volume = self.volume();
        if let Some(volume) = &volume {
            if volume.serves() {
                return Err(DiskError::NotPermitted);
            }
            // What of the last session does not count is forgotten, the rest is put where it belongs.
            volume.settle().map_err(|error| told(&error))?;
        }
        let mut state = self.lock();
        (state.phase, state.barrier, state.is_attached) = (Phase::Direct, Epoch::NONE, true);
        (state.ended, state.is_fenced) = (None, false);
        drop(state);
        drop(volume);
        let emptied = self.files.journal.set_len(0).and_then(|()| self.files.journal.sync_all());
        emptied.map_err(|error| told(&error))
    }
}

impl Phase {
    fn volume(&self) -> Option<&Arc<Volume>> {
        match self {
            Phase::Direct => None,
            Phase::Epochs(volume) => Some(volume),
        }
    }
}

impl Files {
    /// The journal and the disks, once more.
    fn clones(&self) -> io::Result<(File, Vec<File>)> {
        Ok((self.journal.try_clone()?, self.disks.iter().map(File::try_clone).collect::<io::Result<_>>()?))
    }

    fn targets(&self, is_shared: bool) -> io::Result<Vec<Target>> {
        self.disks.iter().map(|disk| Target::new(disk.try_clone()?, is_shared)).collect()
    }

    fn backends(&self) -> io::Result<Vec<FileBackend>> {
        self.disks.iter().map(|disk| disk.try_clone().map(FileBackend::new)).collect()
    }
}

fn open(path: &Path, is_made: bool) -> Result<File, ReplicaError> {
    open_locked(path, is_made).map_err(|source| ReplicaError::Open { path: path.to_owned(), source })
}

/// The same for the journal, which is made when it is not there. Its name is durable then: a takeover may depend on what is in it.
fn open_journal(path: &Path) -> Result<File, ReplicaError> {
    let file = open(path, true)?;
    let folder = path.canonicalize().and_then(|path| File::open(path.parent().unwrap_or(&path)));
    match folder.and_then(|folder| folder.sync_all()) {
        Ok(()) => Ok(file),
        // On this file system a folder is as durable as it can be.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(file),
        Err(source) => Err(ReplicaError::Open { path: path.to_owned(), source }),
    }
}

fn open_disk(path: &Path, is_shared: bool) -> Result<File, ReplicaError> {
    match is_shared {
        true => open_shared(path).map_err(|source| ReplicaError::Open { path: path.to_owned(), source }),
        false => open(path, false),
    }
}

/// What is said to a guest, and what to the log.
fn told(error: &impl std::fmt::Display) -> DiskError {
    tracing::error!("the secondary's disks: {error}");
    DiskError::Io
}
