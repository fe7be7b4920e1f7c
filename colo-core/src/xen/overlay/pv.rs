//! A PV guest, by resetting it: it wakes up as one that was restored, and connects its devices anew.
//!
//! Its memory is written by the domain itself ([`Pages::flush_whole`](crate::domain::Pages::flush_whole)), between [`Overlay::stop`], after
//! which nothing holds on to a page of it, and [`Overlay::load`].

use super::steps::Steps;
use super::{Overlay, OverlayStats, wait_let_go};
use crate::domain::{DirtyBitmap, DomainError, StateRecord};
use crate::ids::DomId;
use crate::layers::Timings;
use crate::xen::Control;
use crate::xen::control::{ChannelStatus, GrantSeed, MmuextOp};
use crate::xen::domain::XenDomain;
use crate::xen::evtchn::EventPort;
use crate::xen::frontends::Frontends;
use crate::xen::pv::start_info::Rings;
use crate::xen::tables::GrantFrames;
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// How long the hypervisor or a backend may take for what takes it milliseconds. Neither asks the guest.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// How long the guest may take until its devices are connected again.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Who serves a guest's store and console.
const DOM0: DomId = DomId(0);

/// A PV guest. The hypervisor has no way to put event channels, or what it knows of vCPUs, back; so at each checkpoint it forgets them.
pub(super) struct PvOverlay {
    frontends: Frontends,
    grants: GrantFrames,
    stats: OverlayStats,
    timings: Timings,
}

impl PvOverlay {
    pub(super) fn new(domain: &XenDomain) -> Result<PvOverlay, DomainError> {
        Ok(PvOverlay {
            frontends: Frontends::open(domain.xen(), domain.domid())?,
            grants: GrantFrames::new(domain.domid()),
            stats: OverlayStats::default(),
            timings: Timings::default(),
        })
    }

    /// Empty rings, grants and nodes in xenstore, as a domain has them that was just made.
    fn begin_anew(
        &mut self,
        domain: &XenDomain,
        rings: &Rings,
        (store_port, console_port): (EventPort, EventPort),
    ) -> Result<(), DomainError> {
        let (domid, (control, foreign, store)) = (domain.domid(), domain.handles());
        let (store_frame, console_frame) = (rings.store.frame, rings.console.frame);
        control.mmuext(domid, &[MmuextOp::Clear(store_frame), MmuextOp::Clear(console_frame)])?;
        self.grants.clear_unused(control, foreign)?;
        let seed = GrantSeed { hvm: false, console: (console_frame.0, DOM0), store: (store_frame.0, DOM0) };
        control.gnttab_seed(domid, seed)?;
        let path = store.domain_path(domid)?;
        for (node, value) in [
            ("store/ring-ref", store_frame.0),
            ("store/port", store_port.0.into()),
            ("console/ring-ref", console_frame.0),
            // The console's daemon looks at it when it is written, whatever is written.
            ("console/port", console_port.0.into()),
        ] {
            store.write(&format!("{path}/{node}"), value.to_string().as_bytes())?;
        }
        self.frontends.start_over(Instant::now() + STEP_LIMIT)?;
        store.introduce_domain(domid, store_frame.0, store_port)?;
        Ok(store.resume_domain(domid)?)
    }
}

impl Overlay for PvOverlay {
    fn stop(&mut self, domain: &mut XenDomain) -> Result<(), DomainError> {
        let mut steps = Steps::new("stop", &self.timings);
        domain.force_suspend(STEP_LIMIT)?;
        let (domid, (control, ..)) = (domain.domid(), domain.handles());
        control.pause(domid)?;
        steps.step("stop");
        self.frontends.close(Instant::now() + STEP_LIMIT)?;
        wait_let_go(&self.frontends, &mut self.grants, domain, Instant::now() + STEP_LIMIT)?;
        steps.step("disconnect");
        reset(control, domid)?;
        steps.step("reset");
        // They let go of page tables and of the pages of their descriptors.
        let last = control.domain_info(domid)?.and_then(|info| info.max_vcpu_id);
        (0..=last.unwrap_or(0)).try_for_each(|vcpu| control.set_vcpu_context(domid, vcpu, None))?;
        steps.step("vCPUs");
        Ok(())
    }

    /// Who writes to a page without the log is disconnected: what it wrote is found when its grant ends, or by comparing.
    fn unlogged(&mut self, _: &mut XenDomain, _: &mut DirtyBitmap) -> Result<(), DomainError> {
        Ok(())
    }

    fn load(&mut self, domain: &mut XenDomain, state: &[StateRecord]) -> Result<(), DomainError> {
        let (domid, (control, ..)) = (domain.domid(), domain.handles());
        let timings = self.timings.clone();
        let mut steps = Steps::new("load", &timings);
        let ports = (control.evtchn_alloc_unbound(domid, DOM0)?, control.evtchn_alloc_unbound(domid, DOM0)?);
        let rings = domain.load_twin(state, (ports.0.0, ports.1.0))?;
        steps.step("registers");
        self.begin_anew(domain, &rings, ports)?;
        steps.step("start over");
        self.stats.resets += 1;
        Ok(())
    }

    fn go(&mut self, domain: &mut XenDomain) -> Result<(), DomainError> {
        let mut steps = Steps::new("go", &self.timings);
        let (domid, (control, ..)) = (domain.domid(), domain.handles());
        control.resume_as_it_is(domid)?;
        control.unpause(domid)?;
        steps.step("resume");
        self.frontends.wait_connected(Instant::now() + CONNECT_LIMIT)?;
        steps.step("connect");
        Ok(())
    }

    fn stats(&self) -> OverlayStats {
        self.stats.clone()
    }

    fn timings(&self) -> Timings {
        self.timings.clone()
    }
}

/// Closes all event channels, and has the hypervisor forget where the guest wants its vCPUs' figures. Of a PV domain the hypervisor then
/// finds that it cannot do the rest, and says that it has crashed it; but to a domain that is suspended already that does nothing.
fn reset(control: &Control, domid: DomId) -> Result<(), DomainError> {
    match control.soft_reset(domid) {
        Err(error) if error.errno() == Some(Errno::INVAL.raw_os_error()) => {}
        Err(error) => return Err(error.into()),
        Ok(()) => return Err(DomainError::Other(format!("{domid} was reset as if it were no PV domain"))),
    }
    // The same error comes when nothing was done.
    for port in (1..).map(EventPort) {
        match control.evtchn_status(domid, port) {
            Ok((ChannelStatus::Closed, _)) => {}
            Ok((status, _)) => {
                return Err(DomainError::Other(format!("{domid} was not reset: port {} is {status:?}", port.0)));
            }
            Err(error) if error.errno() == Some(Errno::INVAL.raw_os_error()) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
