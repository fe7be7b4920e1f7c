//! `libxenevtchn`: event channels, the interrupts between domains.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::{Xen, evtchn::{EventChannels, EventPort}};
//! use std::time::{Duration, Instant};
//!
//! let channels = EventChannels::open(Xen::open()?)?;
//! let port = channels.bind_interdomain(DomId(3), EventPort(7))?;
//! channels.notify(port)?;
//! if channels.wait(Instant::now() + Duration::from_secs(1))? == Some(port) {
//!     channels.unmask(port)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::poll::ready_one;
use super::{Xen, XenError, log};
use crate::ids::DomId;
use rustix::event::PollFlags;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::raw::c_int;
use std::ptr::NonNull;
use std::time::Instant;
use xen_sys::evtchn as c;

/// One end of an event channel, by its number in the domain that has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EventPort(pub u32);

impl fmt::Display for EventPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// A handle of `libxenevtchn`, with the ports that it has bound; they are closed with it. It may move between threads.
pub struct EventChannels {
    xen: &'static xen_sys::Xen,
    handle: NonNull<c::xenevtchn_handle>,
    fd: c_int,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the library keeps nothing that belongs to the thread that opened the handle.
unsafe impl Send for EventChannels {}

impl EventChannels {
    /// Opens the device. Needs to be root in dom0.
    ///
    /// # Errors
    /// `xenevtchn_open`: `ENOENT` or `EACCES` where this is no dom0, or not root.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, evtchn::EventChannels};
    /// let channels = EventChannels::open(Xen::open()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(xen: Xen) -> Result<EventChannels, XenError> {
        let library = &xen.0.evtchn;
        // SAFETY: the logger lives as long as the process.
        let handle = NonNull::new(unsafe { library.xenevtchn_open(log::logger(), 0) });
        let handle = handle.ok_or_else(|| XenError::last("xenevtchn_open", None))?;
        let mut channels = EventChannels { xen: xen.0, handle, fd: -1, not_sync: PhantomData };
        // SAFETY: the handle is open.
        channels.fd = unsafe { library.xenevtchn_fd(handle.as_ptr()) };
        if channels.fd < 0 {
            return Err(XenError::last("xenevtchn_fd", None));
        }
        Ok(channels)
    }

    /// Connects a new port of ours with one that the domain keeps for us (`xenevtchn_bind_interdomain`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: the port is not there, or not for us.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, evtchn::{EventChannels, EventPort}}};
    /// # let channels = EventChannels::open(Xen::open()?)?;
    /// let port = channels.bind_interdomain(DomId(3), EventPort(7))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind_interdomain(&self, domid: DomId, remote: EventPort) -> Result<EventPort, XenError> {
        // SAFETY: the handle is open.
        let port = unsafe { self.xen.evtchn.xenevtchn_bind_interdomain(self.handle(), domid.0, remote.0) };
        port_or_error("xenevtchn_bind_interdomain", domid, port)
    }

    /// A new port of ours that the domain may connect to (`xenevtchn_bind_unbound_port`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, evtchn::EventChannels}};
    /// # let channels = EventChannels::open(Xen::open()?)?;
    /// let port = channels.bind_unbound(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind_unbound(&self, domid: DomId) -> Result<EventPort, XenError> {
        // SAFETY: the handle is open.
        let port = unsafe { self.xen.evtchn.xenevtchn_bind_unbound_port(self.handle(), domid.0) };
        port_or_error("xenevtchn_bind_unbound_port", domid, port)
    }

    /// A port on which the hypervisor tells of something, by its number `VIRQ_*` (`xenevtchn_bind_virq`).
    ///
    /// # Errors
    /// `EINVAL`: no such; `EEXIST`: somebody has it.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, evtchn::EventChannels};
    /// # let channels = EventChannels::open(Xen::open()?)?;
    /// // VIRQ_DOM_EXC: a domain has stopped, or is gone.
    /// let port = channels.bind_virq(3)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bind_virq(&self, virq: u32) -> Result<EventPort, XenError> {
        // SAFETY: the handle is open.
        let port = unsafe { self.xen.evtchn.xenevtchn_bind_virq(self.handle(), virq) };
        port_or_error("xenevtchn_bind_virq", None, port)
    }

    /// Closes a port of ours (`xenevtchn_unbind`).
    ///
    /// # Errors
    /// `ENOTCONN`: it is not ours.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, evtchn::EventChannels}};
    /// # let channels = EventChannels::open(Xen::open()?)?;
    /// # let port = channels.bind_unbound(DomId(3))?;
    /// channels.unbind(port)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unbind(&self, port: EventPort) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.evtchn.xenevtchn_unbind(self.handle(), port.0) };
        done("xenevtchn_unbind", result)
    }

    /// Sends an event to the other end of one of our ports (`xenevtchn_notify`).
    ///
    /// # Errors
    /// `ENOTCONN`: it is not ours.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, evtchn::EventChannels}};
    /// # let channels = EventChannels::open(Xen::open()?)?;
    /// # let port = channels.bind_unbound(DomId(3))?;
    /// channels.notify(port)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn notify(&self, port: EventPort) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.evtchn.xenevtchn_notify(self.handle(), port.0) };
        done("xenevtchn_notify", result)
    }

    /// Waits for an event on one of our ports, but not beyond the deadline (`xenevtchn_pending`). The port is masked then: no
    /// further event of it comes before [`EventChannels::unmask`].
    ///
    /// # Errors
    /// Any; none is to be expected.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, evtchn::EventChannels};
    /// # use std::time::{Duration, Instant};
    /// # let channels = EventChannels::open(Xen::open()?)?;
    /// let port = channels.wait(Instant::now() + Duration::from_secs(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(&self, deadline: Instant) -> Result<Option<EventPort>, XenError> {
        let ready = ready_one(self, PollFlags::IN, deadline);
        if !ready.map_err(|errno| XenError::new("poll", None, errno.into()))? {
            return Ok(None);
        }
        // SAFETY: the handle is open. It has an event, so this does not wait.
        let port = unsafe { self.xen.evtchn.xenevtchn_pending(self.handle()) };
        port_or_error("xenevtchn_pending", None, port).map(Some)
    }

    /// Lets events of a port come again (`xenevtchn_unmask`).
    ///
    /// # Errors
    /// `EINVAL`: it is not ours.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, evtchn::EventChannels}};
    /// # let channels = EventChannels::open(Xen::open()?)?;
    /// # let port = channels.bind_unbound(DomId(3))?;
    /// channels.unmask(port)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unmask(&self, port: EventPort) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.evtchn.xenevtchn_unmask(self.handle(), port.0) };
        done("xenevtchn_unmask", result)
    }

    pub(super) fn handle(&self) -> *mut c::xenevtchn_handle {
        self.handle.as_ptr()
    }
}

impl AsFd for EventChannels {
    /// Can be read while an event waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it is the library's, and open as long as the handle is.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for EventChannels {
    fn drop(&mut self) {
        // SAFETY: it is open, and is not used after.
        unsafe { self.xen.evtchn.xenevtchn_close(self.handle()) };
    }
}

fn port_or_error(call: &'static str, domid: impl Into<Option<DomId>>, port: c_int) -> Result<EventPort, XenError> {
    u32::try_from(port).map(EventPort).map_err(|_| XenError::last(call, domid))
}

fn done(call: &'static str, result: c_int) -> Result<(), XenError> {
    if result < 0 { Err(XenError::last(call, None)) } else { Ok(()) }
}
