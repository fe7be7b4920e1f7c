use super::target::Target;
use super::xl::Xl;
use crate::guard::Guard;
use crate::ids::DomId;
use crate::xen::poll::ready_one;
use crate::xen::{Control, Xen};
use rustix::event::PollFlags;
use rustix::process::{Signal, pidfd_send_signal};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Somebody to destroy the half-made domain of an [`XlRestore`](super::XlRestore) that is killed together with its `xl`.
///
/// As long as `xl` lives the domain is in libxl's hands: it destroys it when the restoring process is gone, or finishes it, if it has all
/// that it needs. So the guard waits for the end of `xl`, and then destroys what libxl has not finished. A domain that is finished stays.
///
/// ```no_run
/// use colo_core::xen::toolstack::{DomainUuid, RestoreGuard, RestoreOptions, Xl, XlRestore};
///
/// // Before there are other threads, and much memory.
/// let guard = RestoreGuard::start(false)?;
/// # let (head, uuid) = (Vec::new(), DomainUuid([0; 16]));
/// let restore = XlRestore::start(&Xl::find()?, &RestoreOptions::new(&head, "web", uuid), Some(guard))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// One that is [lasting](RestoreGuard::start_lasting) watches on when the domain is finished, for a host that takes in one domain after
/// the other, none of which shall outlive it unless it says so.
#[derive(Clone, Debug)]
#[must_use]
pub struct RestoreGuard {
    /// None once it is dismissed.
    guard: Arc<Mutex<Option<Guard>>>,
    is_lasting: bool,
}

impl RestoreGuard {
    /// How long `xl` may take to end by itself: as long as it has to finish a domain.
    pub(super) const END_LIMIT: Duration = Duration::from_secs(120);
    /// How long a process may take to end that is killed.
    const KILL_LIMIT: Duration = Duration::from_secs(10);

    /// Starts it; see [`Guard::start`]. A domain that is finished, but has not yet been let run by an `xl` that was killed, is let run,
    /// unless it is to be `paused`.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn start(paused: bool) -> io::Result<RestoreGuard> {
        let guard = Guard::start(|what, kept| settle(what, kept, Some(paused)))?;
        Ok(RestoreGuard { guard: Arc::new(Mutex::new(Some(guard))), is_lasting: false })
    }

    /// Starts one that destroys the domain, finished or not, until it is told to [forget](RestoreGuard::forget) it. It may then be used
    /// for another.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn start_lasting() -> io::Result<RestoreGuard> {
        let guard = Guard::start(|what, kept| settle(what, kept, None))?;
        Ok(RestoreGuard { guard: Arc::new(Mutex::new(Some(guard))), is_lasting: true })
    }

    /// The domain may outlive this process.
    pub fn forget(&self) {
        if let Some(guard) = &mut *self.lock() {
            // One that has been killed has forgotten.
            let _ = guard.forget();
        }
    }

    /// From here on this domain must not be left half made by this `xl`, known by its pidfd. To be said before it can make it.
    pub(super) fn begin(&mut self, target: &Target, xl: BorrowedFd<'_>) -> io::Result<()> {
        let mut guard = self.lock();
        let guard = guard.as_mut().ok_or(io::ErrorKind::NotFound)?;
        guard.keep(xl)?;
        guard.watch(&target.to_bytes())
    }

    /// More is known of the domain.
    pub(super) fn update(&mut self, target: &Target) {
        if let Some(guard) = &mut *self.lock() {
            // What it knew before is enough; and if it has been killed, that alone is no reason to give the restore up.
            let _ = guard.watch(&target.to_bytes());
        }
    }

    /// The domain is finished.
    pub(super) fn finished(self) {
        if !self.is_lasting {
            self.dismiss();
        }
    }

    /// The domain is gone.
    pub(super) fn gone(self) {
        if self.is_lasting { self.forget() } else { self.dismiss() }
    }

    fn dismiss(self) {
        if let Some(guard) = self.lock().take() {
            guard.dismiss();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Guard>> {
        // What it guards is a connection, which no panic leaves half changed.
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The restore was killed, or could not clean up. A finished domain stays, and is let run unless it is to be `paused`; with `None` it goes,
/// too.
fn settle(what: &[u8], mut kept: Vec<OwnedFd>, paused: Option<bool>) {
    let (Some(target), Some(at_work)) = (Target::from_bytes(what), kept.pop()) else { return };
    let ends_within = |limit| matches!(ready_one(&at_work, PollFlags::IN, Instant::now() + limit), Ok(true));
    if !ends_within(RestoreGuard::END_LIMIT) {
        let _ = pidfd_send_signal(&at_work, Signal::KILL);
        ends_within(RestoreGuard::KILL_LIMIT);
    }
    let Ok(xl) = Xl::find() else { return };
    let Some(paused) = paused else {
        let _ = target.destroy_left_over(&xl);
        return;
    };
    if let Ok(Some(domid)) = target.destroy_unfinished(&xl) {
        if !paused && has_never_run(domid) {
            let _ = xl.unpause(domid);
        }
    }
}

/// As `xl` leaves a domain that is killed between the last two things it does: to store what it has made, and to let it run.
fn has_never_run(domid: DomId) -> bool {
    let control = Xen::open().ok().and_then(|xen| Control::open(xen).ok());
    let info = control.and_then(|control| control.domain_info(domid).ok().flatten());
    info.is_some_and(|info| info.paused && info.cpu_time_ns == 0)
}
