//! The guest's disk: requests in a ring in its memory, which a thread of the monitor does over a [`Backend`], one after the other.
//!
//! What is under way is in guest memory alone: the ring's position moves when a request is done, and not before. So whoever copies the
//! machine in between has a machine whose request is not done, and which does it (again) when it goes on.

mod protected;
mod ring;

pub use protected::GatedTap;

use super::doorbell::Doorbell;
use super::ram::GuestRam;
use colo_core::disk::Backend;
use colo_core::domain::DomainError;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

/// Stops the disk of a machine, and lets it go on: for whoever must know which requests were done before a moment, and which after.
///
/// The disk stands still anyway while the domain is suspended. Who freezes it *before* that lets the guest run while the last request
/// is being done; the other way round the guest waits for it.
///
/// ```
/// use colo_core::disk::FileBackend;
/// use colo_core::domain::Control;
/// use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain};
/// use std::sync::Arc;
///
/// let path = std::env::temp_dir().join(format!("colo-doc-disk-{}", std::process::id()));
/// let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
/// file.set_len(1 << 20)?;
/// let config = EmbeddedConfig { disk_bytes: 1 << 20, ..EmbeddedConfig::named("db") };
/// let disk = Arc::new(FileBackend::new(file));
/// let (mut domain, _port) = EmbeddedDomain::boot_with(&config, Some(disk))?;
/// domain.resume()?;
/// let gate = domain.disk_gate().expect("it has a disk");
/// gate.freeze();
/// // Here the file does not change.
/// gate.thaw();
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct DiskGate {
    line: Arc<DiskLine>,
}

impl DiskGate {
    /// On return no request is under way, and none touches the disk or guest memory until [`DiskGate::thaw`]. What is in the ring
    /// stays there. Waits for as long as the backend takes for one request; not to be called by the backend itself. Freezing twice
    /// is freezing once.
    pub fn freeze(&self) {
        drop(self.line.hold(|state| state.frozen = true));
    }

    /// Goes on, unless the domain is suspended: then with the domain. Looks at the ring anew, whatever was put into guest memory.
    pub fn thaw(&self) {
        self.line.lock().frozen = false;
        self.line.doorbell.ring();
    }

    /// The request that is under way is not waited for any more: it has failed, and the guest is not to hear of it now. When it comes back it
    /// touches nothing, and is begun anew. Nothing happens but in the thread that does it.
    fn abandon(&self) {
        let mut state = self.line.lock();
        if state.busy == Some(thread::current().id()) {
            state.abandoned = true;
            self.line.idle.notify_all();
        }
    }
}

/// What the domain, its vCPU, its disk's thread and [`DiskGate`] share. A machine without a disk has one as well, at which nobody
/// serves.
pub(crate) struct DiskLine {
    ram: Arc<GuestRam>,
    doorbell: Doorbell,
    state: Mutex<LineState>,
    idle: Condvar,
}

#[derive(Default)]
struct LineState {
    /// The domain is not suspended.
    open: bool,
    frozen: bool,
    /// The domain has ended: the thread ends, too.
    ended: bool,
    /// A request is under way, in that thread.
    busy: Option<ThreadId>,
    /// But it touches guest memory no more, and will not have been done.
    abandoned: bool,
    /// The thread has panicked.
    broken: bool,
}

impl DiskLine {
    /// Of a suspended domain.
    pub(crate) fn new(ram: Arc<GuestRam>) -> Result<DiskLine, DomainError> {
        Ok(DiskLine { ram, doorbell: Doorbell::new()?, state: Mutex::default(), idle: Condvar::new() })
    }

    /// As a gate for others.
    pub(crate) fn gate(self: Arc<Self>) -> DiskGate {
        DiskGate { line: self }
    }

    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// On return no request is under way, and none will be until [`DiskLine::open`].
    ///
    /// # Errors
    /// When the disk's thread is gone: the guest would wait for it for ever.
    pub(crate) fn shut(&self) -> Result<(), DomainError> {
        if self.hold(|state| state.open = false).broken {
            return Err(DomainError::Other("the disk's thread has panicked".into()));
        }
        Ok(())
    }

    /// Lets requests be done again. What is in the ring is looked at, whoever put it there.
    pub(crate) fn open(&self) {
        self.lock().open = true;
        self.doorbell.ring();
    }

    /// The guest has ended by itself: what it has not been told to be done is not done.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.doorbell.ring();
    }

    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change after which no request begins, and waits for the one that is under way.
    fn hold(&self, change: impl FnOnce(&mut LineState)) -> MutexGuard<'_, LineState> {
        let mut state = self.lock();
        change(&mut state);
        self.idle
            .wait_while(state, |state| state.busy.is_some() && !state.abandoned)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk's thread.
    fn serve(&self, backend: &dyn Backend, disk_bytes: u64) {
        let mut buffer = Vec::new();
        loop {
            match self.begin() {
                Begun::Request(busy, position, request) => {
                    let status = ring::perform(&request, backend, disk_bytes, &self.ram, &mut buffer);
                    if !self.lock().abandoned {
                        ring::complete(&self.ram, position, status);
                    }
                    drop(busy);
                }
                Begun::Nothing => {
                    self.doorbell.wait();
                    self.doorbell.silence();
                }
                Begun::End => return,
            }
        }
    }

    fn begin(&self) -> Begun<'_> {
        let mut state = self.lock();
        if state.ended {
            return Begun::End;
        }
        if !state.open || state.frozen {
            return Begun::Nothing;
        }
        let Some((position, request)) = ring::next(&self.ram) else {
            return Begun::Nothing;
        };
        state.busy = Some(thread::current().id());
        Begun::Request(Busy(self), position, request)
    }
}

enum Begun<'a> {
    Request(Busy<'a>, u32, super::abi::DiskRequest),
    Nothing,
    End,
}

/// While it is there, a request is under way.
struct Busy<'a>(&'a DiskLine);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.busy, state.abandoned) = (None, false);
        state.broken = thread::panicking();
        drop(state);
        self.0.idle.notify_all();
    }
}

/// The thread. Dropping it waits for the request that is under way: after that nothing that the guest said reaches the disk.
pub(crate) struct DiskThread {
    line: Arc<DiskLine>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Serves the guest at `line`.
    pub(crate) fn start(
        line: Arc<DiskLine>,
        backend: Arc<dyn Backend>,
        disk_bytes: u64,
    ) -> Result<DiskThread, DomainError> {
        let served = line.clone();
        let thread = thread::Builder::new()
            .name("colo-disk".into())
            .spawn(move || served.serve(&*backend, disk_bytes))
            .map_err(DomainError::sys("spawn of the disk's thread"))?;
        Ok(DiskThread { line, thread: Some(thread) })
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        self.line.end();
        if let Some(thread) = self.thread.take() {
            // A panic has been told where it happened, and to whoever suspended the domain after it.
            let _ = thread.join();
        }
    }
}
