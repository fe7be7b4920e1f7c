use super::{Contender, Folder};
use anyhow::{Context, Result, ensure};
use colo_core::disk::nbd::{Export, serve};
use colo_core::disk::{
    Backend, DiskEvent, FileBackend, PrimaryDisks, Replica, ReplicaConfig, SecondaryDisks, StoreConfig, Tap, TapConfig,
};
use colo_core::ids::Epoch;
use colo_core::peer::StateChannel;
use rustix::time::{ClockId, clock_gettime};
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A disk of ours that nobody protects, served by threads of this process.
pub struct Alone {
    socket: PathBuf,
}

impl Alone {
    /// Over this disk.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn start(folder: &Folder, disk: &Path) -> Result<Alone> {
        let (backend, size) = backend(disk)?;
        let socket = folder.path("colo");
        serve_at(&socket, Arc::new(backend), size)?;
        Ok(Alone { socket })
    }
}

impl Contender for Alone {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }

    fn cpu_time(&self) -> Result<Duration> {
        Ok(own_cpu_time())
    }
}

/// A disk of ours that is protected: primary and secondary in this process, with a TCP connection between them.
pub struct Protected {
    socket: PathBuf,
    sides: Arc<Mutex<Sides>>,
}

struct Sides {
    tap: Tap,
    replica: Replica,
    epoch: Epoch,
}

impl Protected {
    /// Over this disk, with another for the secondary, which must be as large. There is a checkpoint when the disks ask for one, as a session
    /// would have it.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn start(folder: &Folder, disk: &Path, secondary: &Path) -> Result<Protected> {
        Protected::within(folder, disk, secondary, TapConfig::default(), StoreConfig::default())
    }

    /// The same, with as much as there may be between two checkpoints.
    ///
    /// # Errors
    /// As for [`Protected::start`].
    pub fn without_limit(folder: &Folder, disk: &Path, secondary: &Path) -> Result<Protected> {
        let config = TapConfig { pending_bytes: u64::MAX, ..TapConfig::default() };
        let store = StoreConfig { pending_bytes: u64::MAX, ..StoreConfig::default() };
        Protected::within(folder, disk, secondary, config, store)
    }

    fn within(
        folder: &Folder,
        disk: &Path,
        secondary: &Path,
        config: TapConfig,
        store: StoreConfig,
    ) -> Result<Protected> {
        let (backend, size) = backend(disk)?;
        let mut tap = Tap::new(vec![(Arc::new(backend), size)], config);
        let mut replica =
            Replica::open(ReplicaConfig { disks: vec![secondary.into()], journal: folder.path("journal"), store })?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let primary = StateChannel::connect(&address, PATIENCE, Instant::now() + PATIENCE)?;
        replica.attach(StateChannel::new(listener.accept()?.0, PATIENCE)?)?;
        let (sender, events) = channel();
        tap.attach(primary, Box::new(move |event| drop(sender.send(event))))?;
        while events.recv_timeout(PATIENCE)? != DiskEvent::InStep {}
        let socket = folder.path("colo-protected");
        serve_at(&socket, Arc::new(tap.disk(0)), size)?;
        let mut sides = Sides { tap, replica, epoch: Epoch::NONE };
        sides.checkpoint()?;
        let sides = Arc::new(Mutex::new(sides));
        let (weak, wants_checkpoint) = (Arc::downgrade(&sides), |event| matches!(event, DiskEvent::WantsCheckpoint));
        std::thread::spawn(move || {
            for _ in events.iter().filter(|event| wants_checkpoint(event.clone())) {
                let Some(sides) = weak.upgrade() else { return };
                // What fails here fails again where somebody waits for it.
                let _ = sides.lock().unwrap_or_else(PoisonError::into_inner).checkpoint();
            }
        });
        Ok(Protected { socket, sides })
    }

    fn sides(&self) -> MutexGuard<'_, Sides> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sides {
    /// Returns how long the guest would stand still.
    fn checkpoint(&mut self) -> Result<Duration> {
        self.epoch = self.epoch.next();
        let began = Instant::now();
        self.tap.freeze();
        self.tap.barrier(self.epoch);
        self.tap.thaw();
        let on_primary = began.elapsed();
        // The primary's guest runs again; the secondary's stands still from here on.
        ensure!(self.replica.wait_barrier(self.epoch, Instant::now() + PATIENCE), "the barrier does not come");
        let began = Instant::now();
        self.replica.release();
        self.replica.freeze();
        self.replica.commit(self.epoch)?;
        self.replica.thaw();
        let on_secondary = began.elapsed();
        self.tap.committed(self.epoch);
        Ok(on_primary.max(on_secondary))
    }
}

impl Contender for Protected {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn processes(&self) -> Vec<u32> {
        vec![std::process::id()]
    }

    fn cpu_time(&self) -> Result<Duration> {
        Ok(own_cpu_time())
    }

    fn settle(&self) -> Result<()> {
        let mut sides = self.sides();
        sides.checkpoint()?;
        Ok(sides.replica.settle()?)
    }

    fn checkpoint(&mut self) -> Result<Option<Duration>> {
        let took = self.sides().checkpoint()?;
        Ok(Some(took))
    }
}

pub(super) fn backend(disk: &Path) -> Result<(FileBackend, u64)> {
    let file = OpenOptions::new().read(true).write(true).open(disk).context("the disk")?;
    let size = file.metadata()?.len();
    Ok((FileBackend::new(file), size))
}

/// Serves a disk to whoever connects, until the process ends.
pub(super) fn serve_at(socket: &Path, disk: Arc<dyn Backend>, size: u64) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    let export = Arc::new(Export::new("disk", size));
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let (disk, export) = (disk.clone(), export.clone());
            std::thread::spawn(move || serve(connection, &export, &*disk));
        }
    });
    Ok(())
}

/// Of all threads of this process.
pub(super) fn own_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
