//! A domain's event channels and grant table, from outside.

use super::page_tables::Hypercalls;
use super::{Control, check};
use crate::ids::DomId;
use crate::xen::XenError;
use crate::xen::error::domid_16;
use crate::xen::evtchn::EventPort;
use xen_sys::ctrl;

/// What a port of a domain is connected with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChannelStatus {
    /// Nothing.
    Closed,
    /// Nothing yet: this domain may connect to it.
    Unbound(DomId),
    /// A port of another domain.
    Interdomain(DomId, EventPort),
    /// An interrupt of a device.
    Pirq(u32),
    /// Something that the hypervisor tells.
    Virq(u32),
    /// Another vCPU of the same domain.
    Ipi,
    /// Something that a newer hypervisor knows.
    Other(u32),
}

impl Control {
    /// A new port in the domain that `remote` may connect to (`xc_evtchn_alloc_unbound`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `ENOSPC`: it has no port left.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let store_port = control.evtchn_alloc_unbound(DomId(4), DomId(0))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn evtchn_alloc_unbound(&self, domid: DomId, remote: DomId) -> Result<EventPort, XenError> {
        // SAFETY: the handle is open.
        let port = unsafe { self.xen.ctrl.xc_evtchn_alloc_unbound(self.handle(), domid.0, remote.0) };
        Ok(EventPort(check("xc_evtchn_alloc_unbound", domid, port)? as u32))
    }

    /// What a port of the domain is connected with, and the vCPU that gets its events (`xc_evtchn_status`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: it cannot have such a port; all those below that it answers for are all it has.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen, evtchn::EventPort}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let (status, vcpu) = control.evtchn_status(DomId(3), EventPort(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn evtchn_status(&self, domid: DomId, port: EventPort) -> Result<(ChannelStatus, u32), XenError> {
        let call = "xc_evtchn_status";
        // SAFETY: numbers only.
        let mut status: ctrl::xc_evtchn_status_t = unsafe { std::mem::zeroed() };
        status.dom = domid_16(call, domid)?;
        status.port = port.0;
        // SAFETY: the handle is open, and the structure is ours.
        let result = unsafe { self.xen.ctrl.xc_evtchn_status(self.handle(), &raw mut status) };
        check(call, domid, result)?;
        let domain = |id: u16| DomId(id.into());
        // SAFETY: all members are numbers, and all bytes of the union were written (it began as zeroes).
        let (unbound, interdomain, irq) = unsafe { (status.u.unbound, status.u.interdomain, status.u.pirq) };
        let kind = match status.status {
            ctrl::EVTCHNSTAT_closed => ChannelStatus::Closed,
            ctrl::EVTCHNSTAT_unbound => ChannelStatus::Unbound(domain(unbound.dom)),
            ctrl::EVTCHNSTAT_interdomain => {
                ChannelStatus::Interdomain(domain(interdomain.dom), EventPort(interdomain.port))
            }
            ctrl::EVTCHNSTAT_pirq => ChannelStatus::Pirq(irq),
            ctrl::EVTCHNSTAT_virq => ChannelStatus::Virq(irq),
            ctrl::EVTCHNSTAT_ipi => ChannelStatus::Ipi,
            other => ChannelStatus::Other(other),
        };
        Ok((kind, status.vcpu))
    }

    /// Closes all event channels of the domain (`xc_evtchn_reset`). A guest that goes on after this, and does not know, is deaf.
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.evtchn_reset(DomId(4))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn evtchn_reset(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.ctrl.xc_evtchn_reset(self.handle(), domid.0) };
        check("xc_evtchn_reset", domid, result).map(drop)
    }

    /// Sends an event through a port of this machine's own domain, whoever in it has bound that (hypercall `event_channel_op`,
    /// `EVTCHNOP_send`): the other end gets it.
    ///
    /// # Errors
    /// `EINVAL`: it is no port that is connected.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Control, Xen, evtchn::EventPort};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.evtchn_send(EventPort(12))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn evtchn_send(&self, port: EventPort) -> Result<(), XenError> {
        let number = ctrl::__HYPERVISOR_event_channel_op;
        let command = u64::from(ctrl::EVTCHNOP_send);
        let argument = ctrl::evtchn_send { port: port.0 };
        // SAFETY: the command takes this structure.
        unsafe { self.hypercall("EVTCHNOP_send", None, argument, |argument| [command, argument, 0], number) }.map(drop)
    }

    /// How many pages of grant entries the domain has (hypercall `grant_table_op`, `GNTTABOP_query_size`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let pages = control.grant_frames(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grant_frames(&self, domid: DomId) -> Result<u32, XenError> {
        let call = "GNTTABOP_query_size";
        // SAFETY: numbers only.
        let mut argument: ctrl::gnttab_query_size = unsafe { std::mem::zeroed() };
        argument.dom = domid_16(call, domid)?;
        let (number, command) = (ctrl::__HYPERVISOR_grant_table_op, u64::from(ctrl::GNTTABOP_query_size));
        // SAFETY: the command takes an array of these structures, and how many there are.
        let size = unsafe { self.hypercall(call, Some(domid), argument, |argument| [command, argument, 1], number)? };
        match size.status {
            0 => Ok(size.nr_frames),
            status => Err(XenError::bad_answer(call, domid, format!("status {status}"))),
        }
    }

    /// Which version the entries of the domain's grant table have: 1 or 2 (`GNTTABOP_get_version`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// assert_eq!(control.grant_version(DomId(3))?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grant_version(&self, domid: DomId) -> Result<u32, XenError> {
        let call = "GNTTABOP_get_version";
        let argument = ctrl::gnttab_get_version { dom: domid_16(call, domid)?, pad: 0, version: 0 };
        let (number, command) = (ctrl::__HYPERVISOR_grant_table_op, u64::from(ctrl::GNTTABOP_get_version));
        // SAFETY: the command takes this structure.
        let got = unsafe { self.hypercall(call, Some(domid), argument, |argument| [command, argument, 1], number)? };
        Ok(got.version)
    }

    /// A hypercall of three arguments, one of which is where `argument` is; what the hypervisor made of that comes back.
    ///
    /// # Safety
    /// The hypercall reads and writes no more than a `T` there, and no other of its arguments is an address.
    unsafe fn hypercall<T: Copy>(
        &self,
        call: &'static str,
        domid: Option<DomId>,
        argument: T,
        arguments: impl FnOnce(u64) -> [u64; 3],
        number: u32,
    ) -> Result<T, XenError> {
        let hypercalls = Hypercalls::get(&self.hypercalls, self.xen)?;
        let mut kept = self.scratch.borrow_mut();
        let buffer = kept.at_least(size_of::<T>(), self.xen, self.handle)?.cast::<T>();
        let [first, second, third] = arguments(buffer.as_ptr() as u64);
        // SAFETY: the buffer is page-aligned, large enough, and ours alone while it is borrowed; the rest is our caller's promise.
        unsafe {
            buffer.write(argument);
            let result = self.xen.call.xencall3(hypercalls.pointer(), number, first, second, third);
            check(call, domid, result)?;
            Ok(buffer.read())
        }
    }

    /// Grants the console's and the store's pages to those who serve them, as in a new domain (`xc_dom_gnttab_seed`): by guest frames for
    /// HVM and PVH, by machine frames for PV.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. Else its grant table cannot be mapped.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen, control::GrantSeed}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let (console, store) = ((0xfefff, DomId(0)), (0xfeffc, DomId(0)));
    /// control.gnttab_seed(DomId(4), GrantSeed { hvm: true, console, store })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn gnttab_seed(&self, domid: DomId, seed: GrantSeed) -> Result<(), XenError> {
        let GrantSeed { hvm, console, store } = seed;
        // SAFETY: the handle is open.
        let result = unsafe {
            let library = &self.xen.guest;
            library.xc_dom_gnttab_seed(self.handle(), domid.0, hvm, console.0, store.0, console.1.0, store.1.0)
        };
        check("xc_dom_gnttab_seed", domid, result).map(drop)
    }
}

/// The two grants of a new domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrantSeed {
    /// Whether it is an HVM or PVH domain.
    pub hvm: bool,
    /// The console's frame, and the domain that serves it.
    pub console: (u64, DomId),
    /// The store's frame, and the domain that serves it.
    pub store: (u64, DomId),
}
