//! A guest suspended: by its own way where it has one.
//!
//! ```text
//! guest has ...                                       how it is asked                              it has acknowledged when ...
//! a suspend event channel (PV, old kernels)           an event                                     (it does not)
//! the store (PV, PVH, HVM with PV drivers)            control/shutdown = "suspend"                 it has emptied the node
//! neither (HVM without PV drivers, or asleep in S3)   is not: the hypervisor stops it              (it cannot)
//! ```
//!
//! It has suspended when the hypervisor says so ([`DomainInfo::is_suspended`](super::DomainInfo::is_suspended)). The store's
//! `@releaseDomain`, or the event channel, says when to look.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::{Xen, suspend::{Suspender, Timeouts}};
//!
//! let mut suspender = Suspender::open(Xen::open()?, DomId(3))?;
//! let way = suspender.suspend(Timeouts::default())?;
//! println!("suspended: {way}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::evtchn::{EventChannels, EventPort};
use super::poll::{Wake, wait_unless};
use super::{Control, GuestType, ShutdownReason, Xen, XenError, XenStore};
use crate::ids::DomId;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::raw::c_int;
use std::time::{Duration, Instant};
use xen_sys::ctrl;

/// How a guest was suspended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuspendWay {
    /// It was asked through its suspend event channel.
    Channel,
    /// It was asked through the store.
    Store,
    /// The hypervisor stopped it; the guest knows nothing of it. Resume it with
    /// [`Control::resume_as_it_is`](super::Control::resume_as_it_is).
    Forced,
    /// It was suspended already.
    Already,
}

impl fmt::Display for SuspendWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SuspendWay::Channel => "asked by event channel",
            SuspendWay::Store => "asked by xenstore",
            SuspendWay::Forced => "stopped by the hypervisor",
            SuspendWay::Already => "it was suspended already",
        })
    }
}

/// How long a guest may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Until it says that it has seen the request. Then the request is taken back.
    pub acknowledge: Duration,
    /// From then until it is suspended.
    pub suspend: Duration,
}

impl Default for Timeouts {
    /// A minute each, as Xen's own toolstack waits.
    fn default() -> Self {
        Timeouts { acknowledge: Duration::from_secs(60), suspend: Duration::from_secs(60) }
    }
}

/// Why a guest is not suspended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuspendError {
    /// It did not see the request, which was taken back: it runs on as if nothing had been.
    #[error("{0} did not answer the request to suspend, which was taken back")]
    NotAcknowledged(DomId),
    /// The caller wanted no more of it ([`Suspender::stop_by`]) before the guest had seen the request, which was taken back: it runs
    /// on as if nothing had been.
    #[error("interrupted")]
    Interrupted(DomId),
    /// It saw the request (or had no way to say so) and did not suspend in time. It may still do so: look at it before going on.
    #[error("{0} did not suspend in time")]
    TimedOut(DomId),
    /// It stopped for another reason.
    #[error("{0} stopped instead of suspending: {1}")]
    Stopped(DomId, ShutdownReason),
    /// It is gone.
    #[error("{0} is gone")]
    Gone(DomId),
    /// A call failed.
    #[error(transparent)]
    Xen(#[from] XenError),
}

impl SuspendError {
    /// Whether the guest runs on as if it had not been asked.
    pub fn is_taken_back(&self) -> bool {
        matches!(self, SuspendError::NotAcknowledged(_) | SuspendError::Interrupted(_))
    }
}

/// Suspends one domain, again and again. What it needs for that (handles, watches, the guest's suspend event channel) it keeps.
pub struct Suspender {
    domid: DomId,
    /// Where the guest is asked.
    request_path: String,
    store: XenStore,
    channel: Option<SuspendChannel>,
    /// How the guest was suspended, if it was by this handle.
    suspended_by: Option<SuspendWay>,
    /// Readable once the caller wants no more of it.
    stop: Option<OwnedFd>,
    control: Control,
}

impl Suspender {
    /// Gets ready to suspend a domain: opens what is needed, and takes the guest's suspend event channel where it has one.
    ///
    /// # Errors
    /// [`XenError`] of whatever is opened. A channel that cannot be had (somebody else has it) is logged, and the store used.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, suspend::Suspender}};
    /// let suspender = Suspender::open(Xen::open()?, DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(xen: Xen, domid: DomId) -> Result<Suspender, XenError> {
        let control = Control::open(xen)?;
        let store = XenStore::open(xen)?;
        let home = store.domain_path(domid)?;
        let request_path = format!("{home}/control/shutdown");
        store.watch("@releaseDomain", "stopped")?;
        store.watch(&request_path, "request")?;
        let remote = store.read_text(&format!("{home}/device/suspend/event-channel"))?;
        let remote = remote.and_then(|port| port.trim().parse().ok());
        let channel = remote.and_then(|port| {
            SuspendChannel::take(xen, domid, port)
                .inspect_err(|error| tracing::warn!(%error, "the suspend event channel cannot be used"))
                .ok()
        });
        Ok(Suspender { domid, request_path, store, channel, suspended_by: None, stop: None, control })
    }

    /// From here on a guest that does not answer is waited for only until this descriptor can be read: a request that it has not seen
    /// is taken back then. One that it has seen cannot be: the guest will suspend itself, and needs somebody to let it go on.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, suspend::{Suspender, Timeouts}}};
    /// use std::os::unix::net::UnixStream;
    ///
    /// # let mut suspender = Suspender::open(Xen::open()?, DomId(3))?;
    /// let (stop, on_signal) = UnixStream::pair()?;
    /// // ... a handler of signals writes to `on_signal` ...
    /// suspender.stop_by(stop.into());
    /// suspender.suspend(Timeouts::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop_by(&mut self, stop: OwnedFd) {
        self.stop = Some(stop);
    }

    /// Suspends the guest by its own way.
    ///
    /// # Errors
    /// [`SuspendError`]. After [`SuspendError::NotAcknowledged`] and [`SuspendError::Interrupted`] the guest runs on.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, suspend::{Suspender, Timeouts}}};
    /// # let mut suspender = Suspender::open(Xen::open()?, DomId(3))?;
    /// suspender.suspend(Timeouts::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn suspend(&mut self, timeouts: Timeouts) -> Result<SuspendWay, SuspendError> {
        if self.is_suspended()? {
            return Ok(SuspendWay::Already);
        }
        let way = match self.way()? {
            SuspendWay::Channel => self.by_channel(timeouts),
            SuspendWay::Store => self.by_store(timeouts).inspect_err(|error| {
                // Nobody would hear of a guest that suspends itself later.
                if let SuspendError::Xen(_) = error {
                    let _ = self.take_back();
                }
            }),
            SuspendWay::Forced | SuspendWay::Already => return self.force(timeouts.suspend),
        }?;
        self.suspended_by = Some(way);
        Ok(way)
    }

    /// Makes the hypervisor suspend the guest, which knows nothing of it.
    ///
    /// # Errors
    /// [`SuspendError`].
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, suspend::Suspender}};
    /// # use std::time::Duration;
    /// # let mut suspender = Suspender::open(Xen::open()?, DomId(3))?;
    /// suspender.force(Duration::from_secs(5))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn force(&mut self, timeout: Duration) -> Result<SuspendWay, SuspendError> {
        if self.is_suspended()? {
            return Ok(SuspendWay::Already);
        }
        self.control.shutdown(self.domid, ShutdownReason::SUSPEND)?;
        self.wait_suspended(Instant::now() + timeout)?;
        self.suspended_by = Some(SuspendWay::Forced);
        Ok(SuspendWay::Forced)
    }

    /// Lets the suspended guest go on where it is: it learns that its suspension was cancelled, if it knows of it at all. A guest that
    /// another suspended is taken to have been suspended as this handle would have done it. Tells
    /// xenstored, too, so that the next suspension is an event again.
    ///
    /// # Errors
    /// [`SuspendError`]; `EINVAL`: it is not suspended.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, suspend::{Suspender, Timeouts}}};
    /// # let mut suspender = Suspender::open(Xen::open()?, DomId(3))?;
    /// suspender.suspend(Timeouts::default())?;
    /// suspender.resume()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&mut self) -> Result<(), SuspendError> {
        let way = match self.suspended_by.take() {
            Some(way) => way,
            None => self.way()?,
        };
        match way {
            // To a guest that did not ask for it, "cancelled" would be a register changed under its feet.
            SuspendWay::Forced => self.control.resume_as_it_is(self.domid)?,
            SuspendWay::Channel | SuspendWay::Store | SuspendWay::Already => self.control.resume(self.domid, true)?,
        }
        Ok(self.store.resume_domain(self.domid)?)
    }

    /// Ends a suspension that another process has begun and did not see through: the request is taken back, or, if the guest has seen
    /// it, it is waited for the guest to have suspended. Whether it has.
    ///
    /// # Errors
    /// [`SuspendError`].
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, suspend::Suspender}};
    /// # use std::time::Duration;
    /// let mut suspender = Suspender::open(Xen::open()?, DomId(3))?;
    /// if suspender.call_off(Duration::from_secs(60))? {
    ///     suspender.resume()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_off(&mut self, limit: Duration) -> Result<bool, SuspendError> {
        if !self.is_suspended()? && self.way()? == SuspendWay::Store && self.take_back()? {
            return Ok(false);
        }
        self.wait_suspended(Instant::now() + limit)?;
        Ok(true)
    }

    /// The way that fits what the guest has now; drivers come and go.
    fn way(&self) -> Result<SuspendWay, SuspendError> {
        let info = self.control.domain_info(self.domid)?.ok_or(SuspendError::Gone(self.domid))?;
        if info.hvm {
            let asleep = self.control.hvm_param(self.domid, ctrl::HVM_PARAM_ACPI_S_STATE)? != 0;
            let has_drivers = self.control.hvm_param(self.domid, ctrl::HVM_PARAM_CALLBACK_IRQ)? != 0;
            // A PVH guest has nothing but PV drivers.
            let is_pvh = info.guest_type() == GuestType::Pvh;
            if asleep || !(has_drivers || is_pvh) {
                return Ok(SuspendWay::Forced);
            }
        }
        Ok(if self.channel.is_some() { SuspendWay::Channel } else { SuspendWay::Store })
    }

    fn by_channel(&mut self, timeouts: Timeouts) -> Result<SuspendWay, SuspendError> {
        if let Some(channel) = &self.channel {
            channel.events.notify(channel.port)?;
        }
        self.wait_suspended(Instant::now() + timeouts.suspend)?;
        Ok(SuspendWay::Channel)
    }

    fn by_store(&mut self, timeouts: Timeouts) -> Result<SuspendWay, SuspendError> {
        self.store.write(&self.request_path, REQUEST)?;
        let deadline = Instant::now() + timeouts.acknowledge;
        loop {
            // A guest that stops now has no need to answer.
            if self.is_suspended()? {
                return Ok(SuspendWay::Store);
            }
            if is_acknowledged(self.store.read(&self.request_path)?.as_deref()) {
                break;
            }
            let not_suspended = match self.wait_event(deadline, true)? {
                Wake::Ready => continue,
                Wake::Stopped => SuspendError::Interrupted(self.domid),
                Wake::TimedOut => SuspendError::NotAcknowledged(self.domid),
            };
            if self.take_back()? {
                return Err(not_suspended);
            }
            break;
        }
        self.wait_suspended(Instant::now() + timeouts.suspend)?;
        Ok(SuspendWay::Store)
    }

    /// Takes the request back, unless the guest has answered after all. Whether it did not.
    fn take_back(&self) -> Result<bool, XenError> {
        self.store.transaction(|transaction| {
            if is_acknowledged(transaction.read(&self.request_path)?.as_deref()) {
                return Ok(false);
            }
            transaction.write(&self.request_path, b"")?;
            Ok(true)
        })
    }

    /// Whatever the caller wants by now: it cannot be called off any more.
    fn wait_suspended(&self, deadline: Instant) -> Result<(), SuspendError> {
        loop {
            if self.is_suspended()? {
                return Ok(());
            }
            if self.wait_event(deadline, false)? != Wake::Ready {
                return Err(SuspendError::TimedOut(self.domid));
            }
        }
    }

    /// Whether it is; an error when it never will be.
    fn is_suspended(&self) -> Result<bool, SuspendError> {
        let info = self.control.domain_info(self.domid)?.filter(|info| !info.dying);
        match info.ok_or(SuspendError::Gone(self.domid))?.shutdown {
            None => Ok(false),
            Some(ShutdownReason::SUSPEND) => Ok(true),
            Some(other) => Err(SuspendError::Stopped(self.domid, other)),
        }
    }

    /// Waits until something may have changed, and takes all events that say so; or until the caller wants no more, if it is asked.
    fn wait_event(&self, deadline: Instant, may_stop: bool) -> Result<Wake, XenError> {
        let mut fds = vec![self.store.as_fd()];
        fds.extend(self.channel.as_ref().map(|channel| channel.events.as_fd()));
        let stop = self.stop.as_ref().filter(|_| may_stop).map(OwnedFd::as_fd);
        let wake = wait_unless(&fds, stop, deadline).map_err(|errno| XenError::new("poll", None, errno.into()))?;
        if wake != Wake::Ready {
            return Ok(wake);
        }
        while self.store.check_watch()?.is_some() {}
        if let Some(channel) = &self.channel {
            channel.clear()?;
        }
        Ok(wake)
    }
}

/// What the guest is asked by.
const REQUEST: &[u8] = b"suspend";

/// A guest answers by emptying the node, or removing it.
fn is_acknowledged(node: Option<&[u8]>) -> bool {
    node != Some(REQUEST)
}

/// The guest's suspend event channel, locked against other toolstacks; released when dropped.
struct SuspendChannel {
    domid: DomId,
    port: EventPort,
    lock: c_int,
    events: EventChannels,
    /// Of its own, as what is locked is released through it.
    control: Control,
}

impl SuspendChannel {
    fn take(xen: Xen, domid: DomId, remote: u32) -> Result<Self, XenError> {
        let call = "xc_suspend_evtchn_init_sane";
        let (control, events) = (Control::open(xen)?, EventChannels::open(xen)?);
        let remote = c_int::try_from(remote);
        let remote = remote.map_err(|_| XenError::invalid(call, domid, "a port has 31 bits".into()))?;
        let mut lock = -1;
        // SAFETY: both handles are open, and the number is ours.
        let port = unsafe {
            let library = &xen.0.guest;
            library.xc_suspend_evtchn_init_sane(control.handle(), events.handle(), domid.0, remote, &raw mut lock)
        };
        let port = u32::try_from(port).map(EventPort).map_err(|_| XenError::last(call, domid))?;
        Ok(SuspendChannel { domid, port, lock, events, control })
    }

    /// Takes all events. There is one right after binding, too.
    fn clear(&self) -> Result<(), XenError> {
        while let Some(port) = self.events.wait(Instant::now())? {
            self.events.unmask(port)?;
        }
        Ok(())
    }
}

impl Drop for SuspendChannel {
    fn drop(&mut self) {
        // A port is a non-negative c_int: it was one.
        let port = self.port.0 as c_int;
        // SAFETY: both handles are open, and the port and the lock are what taking it gave.
        unsafe {
            let (control, events) = (self.control.handle(), self.events.handle());
            self.control.xen.guest.xc_suspend_evtchn_release(control, events, self.domid.0, port, &raw mut self.lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_the_request_is_an_answer() {
        assert!(!is_acknowledged(Some(b"suspend")));
        assert!(is_acknowledged(Some(b"")));
        assert!(is_acknowledged(None));
        assert!(is_acknowledged(Some(b"poweroff")));
    }
}
