use super::records::TwinState;
use super::reset::{Reset, reset};
use super::steps::Steps;
use super::{Overlay, OverlayStats, wait_let_go};
use crate::domain::{Control as _, DirtyBitmap, DomainError, Pages as _, StateRecord};
use crate::ids::{DomId, PAGE_SIZE, Page, Pfn};
use crate::layers::Timings;
use crate::stream::{PfnRanges, PortUse, TwinPorts};
use crate::xen::XenStore;
use crate::xen::control::ChannelStatus;
use crate::xen::device_model::DeviceModel;
use crate::xen::domain::XenDomain;
use crate::xen::evtchn::EventPort;
use crate::xen::frontends::{Frontends, StoreRing};
use crate::xen::tables::{GrantFrames, first_difference, is_written, read_ports, write_shared_info};
use std::time::{Duration, Instant};
use xen_sys::ctrl;

/// How long a backend, or the hypervisor, may take for what takes it milliseconds.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// How long a guest that was reset may take to connect its devices before it is stopped again. It has had its time by then.
const RECONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where a local APIC takes messages, and where in that address its number is.
const MSI_ADDRESS: u64 = 0xfee0_0000;
const MSI_APIC_SHIFT: u32 = 12;
/// The vector that wakes a vCPU; whatever it means to the guest is lost with the rest of what the guest was.
const KICK_VECTOR: u32 = 0xf3;

/// A PVH guest. Mostly nothing in the hypervisor is torn down: the twin has the same event channels and grants as the primary, so the
/// primary's memory is put under them, and the guest sees a suspension that was cancelled. Where they differ, this once, the twin is reset.
pub(super) struct PvhOverlay {
    store: XenStore,
    frontends: Frontends,
    ring: StoreRing,
    grants: GrantFrames,
    model: DeviceModel,
    /// The store's and the console's ring.
    rings: [Pfn; 2],
    vcpus: u32,
    /// Its event channels, when it was stopped.
    ports: TwinPorts,
    /// What it had when that was looked at, and by what one knows that it has not changed: how many pages it has and is to have.
    populated: PfnRanges,
    looked: Option<(u64, Option<Vec<u8>>)>,
    /// Where its events are.
    events: Option<Pfn>,
    /// What the primary had at the last checkpoint.
    primary: Option<PfnRanges>,
    go: Go,
    /// Whether its devices connect anew, since the last time.
    reconnects: bool,
    stats: OverlayStats,
    timings: Timings,
}

/// How the guest goes on.
enum Go {
    /// Its suspension is cancelled.
    Cancelled,
    /// It was somewhere else, and is here now.
    Anew,
}

impl PvhOverlay {
    pub(super) fn new(domain: &XenDomain) -> Result<PvhOverlay, DomainError> {
        let (domid, xen) = (domain.domid(), domain.xen());
        let (control, foreign, _) = domain.handles();
        let store_pfn = control.hvm_param(domid, ctrl::HVM_PARAM_STORE_PFN)?;
        let info = control.domain_info(domid)?.ok_or_else(|| DomainError::NotRunning(domid.to_string()))?;
        let mut overlay = PvhOverlay {
            store: XenStore::open(xen)?,
            frontends: Frontends::open(xen, domid)?,
            ring: StoreRing::map(foreign, domid, store_pfn)?,
            grants: GrantFrames::new(domid),
            model: DeviceModel::open(xen)?,
            rings: [Pfn(store_pfn), Pfn(control.hvm_param(domid, ctrl::HVM_PARAM_CONSOLE_PFN)?)],
            vcpus: info.max_vcpu_id.map_or(0, |highest| highest + 1),
            ports: TwinPorts::default(),
            populated: PfnRanges::default(),
            looked: None,
            // Found now, while nobody waits; looked at again at each stop.
            events: domain.event_array()?,
            primary: None,
            go: Go::Cancelled,
            reconnects: false,
            stats: OverlayStats::default(),
            timings: Timings::default(),
        };
        overlay.look_at_pages(domain)?;
        Ok(overlay)
    }

    /// Looks which pages the twin has, where it may have given some back or got some since: that takes as long as it is large.
    fn look_at_pages(&mut self, domain: &XenDomain) -> Result<(), DomainError> {
        let (control, _, store) = domain.handles();
        let info = control.domain_info(domain.domid())?;
        let info = info.ok_or_else(|| DomainError::NotRunning(domain.domid().to_string()))?;
        // What it gives back stays counted as long as it is mapped here; but it gives none back unless it is told to.
        let target = store.read(&format!("{}/memory/target", store.domain_path(domain.domid())?))?;
        let looked = Some((info.total_pages, target));
        if looked != self.looked || self.primary.as_ref().is_some_and(|primary| *primary != self.populated) {
            let mut populated = DirtyBitmap::new(domain.spec().pfn_limit);
            domain.populated(&mut populated)?;
            self.populated = populated.iter().collect();
            self.looked = looked;
        }
        Ok(())
    }

    /// Wakes the vCPUs: one that had halted when it was stopped would not notice that its state has become another.
    fn kick(&self, domid: DomId) -> Result<(), DomainError> {
        for vcpu in 0..self.vcpus {
            let apic_id = u64::from(vcpu * 2);
            self.model.inject_msi(domid, MSI_ADDRESS | apic_id << MSI_APIC_SHIFT, KICK_VECTOR)?;
        }
        Ok(())
    }

    /// Why the primary's memory cannot be put under the twin's tables, if it cannot.
    fn obstacle(&self, state: &TwinState) -> Option<String> {
        // Which vCPU gets an event is part of the table; but a guest only goes by it with the smaller interface.
        first_difference(&state.ports, &self.ports, false)
    }

    /// Makes the twin's pages those that the primary has. What was missing has been given and filled by then.
    fn take_pages(&mut self, domain: &mut XenDomain, state: &TwinState) -> Result<(), DomainError> {
        let extra: Vec<Pfn> = self.populated.without(&state.populated).collect();
        domain.change_pages(&[], &extra)
    }

    fn load_transparently(&mut self, domain: &mut XenDomain, state: &TwinState) -> Result<Option<String>, DomainError> {
        let mut steps = Steps::new("transparent", &self.timings);
        let (control, foreign, _) = domain.handles();
        if let Some(number) = self.grants.put(control, foreign, &state.grants)? {
            return Ok(Some(format!("grant {number} is of another page than the one that is mapped")));
        }
        write_shared_info(control, foreign, domain.domid(), &state.shared_info)?;
        steps.step("grants, shared info");
        let mut page: Page = [0; PAGE_SIZE];
        self.ring.page(&mut page);
        self.frontends.connect(&state.frontends, Instant::now() + STEP_LIMIT)?;
        steps.step("connect");
        self.ring.drain(&self.store)?;
        self.ring.replace(&page);
        steps.step("drain");
        let (control, ..) = domain.handles();
        control.set_hvm_context(domain.domid(), &state.context)?;
        steps.step("context");
        // From here on an event that comes is the guest's.
        if !domain.release_events()? {
            return Ok(Some("the primary has its events at another place".into()));
        }
        self.go = Go::Cancelled;
        self.stats.transparent += 1;
        Ok(None)
    }

    fn load_anew(&mut self, domain: &mut XenDomain, state: &TwinState, why: String) -> Result<(), DomainError> {
        tracing::info!("{}: reset, for {why}", domain.domid());
        domain.release_events()?;
        let mut steps = Steps::new("reset", &self.timings);
        let [store, console] = self.rings;
        let rings = Reset { store, console, context: Some(&state.context) };
        reset(domain, &mut self.frontends, rings, Instant::now() + STEP_LIMIT)?;
        // It has let go of the page.
        let (_, foreign, _) = domain.handles();
        self.ring = StoreRing::map(foreign, domain.domid(), store.0)?;
        self.grants = GrantFrames::new(domain.domid());
        steps.step("reset");
        self.go = Go::Anew;
        self.reconnects = true;
        self.stats.resets += 1;
        self.stats.last_reset = Some(why);
        Ok(())
    }

    /// The guest may have missed an event while it was stopped; one too many is nothing to it.
    fn notify(&self, domain: &XenDomain) -> Result<(), DomainError> {
        let (control, ..) = domain.handles();
        for number in (0..self.ports.ports.len()).filter(|number| self.is_interdomain(*number)) {
            let (status, _) = control.evtchn_status(domain.domid(), EventPort(number as u32))?;
            if let ChannelStatus::Interdomain(DomId(0), port) = status {
                control.evtchn_send(port)?;
            }
        }
        Ok(())
    }

    fn is_interdomain(&self, number: usize) -> bool {
        matches!(self.ports.ports[number].connected, PortUse::Interdomain(..) | PortUse::Unbound(..))
    }
}

impl Overlay for PvhOverlay {
    fn check(&self, _: &XenDomain, state: &[StateRecord]) -> Result<(), DomainError> {
        TwinState::parse(state).map(drop)
    }

    fn stop(&mut self, domain: &mut XenDomain) -> Result<(), DomainError> {
        if std::mem::take(&mut self.reconnects) {
            // Stopped before, its tables would be half of what they are to be, and it would be reset for ever.
            if let Err(error) = self.frontends.wait_connected(Instant::now() + RECONNECT_LIMIT) {
                tracing::warn!("{}: {error}", domain.domid());
            }
        }
        let mut steps = Steps::new("stop", &self.timings);
        domain.force_suspend(STEP_LIMIT)?;
        steps.step("stop");
        let (control, ..) = domain.handles();
        self.ports = read_ports(control, domain.domid())?;
        self.kick(domain.domid())?;
        self.events = domain.hold_back_events(self.events)?;
        steps.step("ports");
        self.frontends.begin_disconnect()?;
        // Meanwhile.
        self.look_at_pages(domain)?;
        steps.step("look at pages");
        self.frontends.finish_disconnect(Instant::now() + STEP_LIMIT)?;
        wait_let_go(&self.frontends, &mut self.grants, domain, Instant::now() + STEP_LIMIT)?;
        steps.step("disconnect");
        self.ring.drain(&self.store)?;
        steps.step("drain");
        Ok(())
    }

    fn unlogged(&mut self, domain: &mut XenDomain, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        let limit = into.pfn_limit();
        let (control, foreign, _) = domain.handles();
        let grants = self.grants.read(control, foreign)?;
        let written = grants.entries.iter().filter(|entry| is_written(**entry)).map(|entry| Pfn(entry.frame.into()));
        written.chain(self.rings).chain(self.events).filter(|pfn| pfn.0 < limit).for_each(|pfn| into.set(pfn));
        // What it has given back of itself the primary still has.
        if let Some(primary) = &self.primary {
            let missing: Vec<Pfn> = primary.without(&self.populated).filter(|pfn| pfn.0 < limit).collect();
            if !missing.is_empty() {
                domain.forget_memory()?;
                missing.into_iter().for_each(|pfn| into.set(pfn));
            }
        }
        Ok(())
    }

    fn load(&mut self, domain: &mut XenDomain, state: &[StateRecord]) -> Result<(), DomainError> {
        let state = TwinState::parse(state)?;
        self.take_pages(domain, &state)?;
        let obstacle = match self.obstacle(&state) {
            None => self.load_transparently(domain, &state)?,
            obstacle => obstacle,
        };
        if let Some(why) = obstacle {
            self.load_anew(domain, &state, why)?;
        }
        self.primary = Some(state.populated);
        Ok(())
    }

    fn go(&mut self, domain: &mut XenDomain) -> Result<(), DomainError> {
        let mut steps = Steps::new("go", &self.timings);
        let (control, ..) = domain.handles();
        match self.go {
            Go::Cancelled => {
                control.resume(domain.domid(), true)?;
                self.store.resume_domain(domain.domid())?;
                self.notify(domain)?;
            }
            Go::Anew => control.unpause(domain.domid())?,
        }
        steps.step("resume");
        Ok(())
    }

    fn stats(&self) -> OverlayStats {
        self.stats.clone()
    }

    fn timings(&self) -> Timings {
        self.timings.clone()
    }
}
