use super::cards::{Cards, lock};
use crate::domain::{
    Control as _, DirtyBitmap, DirtyLog, Domain, DomainError, DomainSpec, Pages, RunState, State, StateRecord,
};
use crate::ids::{DomId, Page, Pfn};
use crate::stream::{DomainHeader, DomainKind, PageList, PageType};
use crate::xen::domain::{Incoming, XenDomain};
use crate::xen::image::{ensure_free, head_of};
use crate::xen::overlay::{Twin, overlay_for, wait_connected};
use crate::xen::plan::DomainPlan;
use crate::xen::role::Role;
use crate::xen::save_lock::SaveLock;
use crate::xen::toolstack::{RestoreGuard, RestoreOptions, Xl, XlRestore};
use crate::xen::{Control, GuestType, Xen, XenStore};
use rustix::io::Errno;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A secondary's domain, from its making to its end.
///
/// ```text
/// Planned    nothing is there yet
/// Building   the toolstack waits for its memory, and for what else the first checkpoint brings
/// Standing   the toolstack has finished it, its devices wait for it, and it has never run: each checkpoint is written over the last one
/// Running    it runs beside its primary, and each checkpoint is put over what it did; or it serves
/// ```
///
/// Under Remus it stands until it takes over; in lock-step it runs from the first checkpoint on. What takes the toolstack's time happens
/// when the first data come, not when it is made: heartbeats are answered by then.
pub(super) struct Arriving {
    xen: Xen,
    spec: DomainSpec,
    plan: DomainPlan,
    header: DomainHeader,
    guard: RestoreGuard,
    cards: Arc<Mutex<Cards>>,
    phase: Phase,
    /// Nobody else saves it meanwhile. Declared last, so that it is given up last.
    lock: Option<SaveLock>,
}

enum Phase {
    Planned,
    Building(Box<XenDomain>, Box<XlRestore>),
    Standing(Standing),
    Running(Box<XenDomain>),
    Twin(Box<Twin>),
    Gone,
}

struct Standing {
    domain: Box<XenDomain>,
    /// With what it will begin.
    state: Vec<StateRecord>,
    /// Whether its device model has that state, too. It is given it only when the next checkpoint is not near: that takes a sixth of a
    /// second under emulation, ten times as long as all the rest.
    is_model_behind: bool,
}

/// How long a guest's devices may take to connect. One that takes longer goes on without: it may have lost its driver.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

impl Arriving {
    pub(super) fn new(
        xen: Xen,
        spec: &DomainSpec,
        plan: DomainPlan,
        guard: RestoreGuard,
        cards: Arc<Mutex<Cards>>,
    ) -> Result<Arriving, DomainError> {
        let (xen_major, xen_minor) = Control::open(xen)?.version()?;
        let kind = if plan.config.guest_type() == GuestType::Pv { DomainKind::X86Pv } else { DomainKind::X86Hvm };
        let header = DomainHeader { kind, page_shift: DomainHeader::PAGE_SHIFT, xen_major, xen_minor };
        let spec = spec.clone();
        Ok(Arriving { xen, spec, plan, header, guard, cards, phase: Phase::Planned, lock: None })
    }

    /// Has the toolstack make the domain, as far as it can without a guest.
    fn begin(&mut self) -> Result<(), DomainError> {
        let (name, uuid) = (self.plan.config.name().to_owned(), self.plan.config.uuid());
        for name in [&name, &self.spec.name] {
            ensure_free(self.xen, name, uuid).map_err(hypervisor)?;
        }
        // The guest's memory holds its backends' paths, and with them its number.
        let taken = |number: DomId| Ok::<_, DomainError>(Control::open(self.xen)?.domain_info(number)?.is_some());
        if let Some(number) = self.plan.config.number() {
            if taken(number)? {
                tracing::info!("domain number {} is taken here: {name} gets another", number.0);
                self.plan.config.set_number(None);
            }
        }
        let toolstack = match self.start() {
            // A number that was in use a moment ago is not given out, and nobody can see that before.
            Err(error) if self.plan.config.number().is_some() => {
                tracing::info!("{name} gets another number than its primary's: {error}");
                self.plan.config.set_number(None);
                self.start()
            }
            started => started,
        }
        .map_err(DomainError::Hypervisor)?;
        let request = toolstack.request();
        // What is left of it when this process and its guard are killed is known by these two.
        self.lock = Some(SaveLock::take(request.domid, &name).map_err(hypervisor)?);
        Role::write(Some(Role::Secondary), &XenStore::open(self.xen)?, request.domid)?;
        lock(&self.cards).set_domid(request.domid);
        let mut domain = XenDomain::receive(self.xen, request.domid, Incoming::new(request))?;
        domain.set_pfn_limit(self.spec.pfn_limit);
        self.phase = Phase::Building(Box::new(domain), Box::new(toolstack));
        Ok(())
    }

    fn start(&self) -> Result<XlRestore, Box<dyn std::error::Error + Send + Sync>> {
        let config = &self.plan.config;
        let head = head_of(config)?;
        let options = RestoreOptions { paused: true, ..RestoreOptions::new(&head, config.name(), config.uuid()) };
        Ok(XlRestore::start(&Xl::find()?, &options, Some(self.guard.clone()))?)
    }

    /// The first checkpoint is in the guest's memory: the toolstack does the rest.
    fn finish(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        let (mut domain, mut toolstack) = match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Building(domain, toolstack) => (domain, toolstack),
            other => {
                self.phase = other;
                return Ok(());
            }
        };
        // A domain whose memory is mapped cannot go: on every way out that is given up first.
        let tail = match hand_over(&mut domain, &mut toolstack, state) {
            Ok(tail) => tail,
            Err(error) => {
                drop(domain);
                return Err(error);
            }
        };
        let mut domain = Some(domain);
        let domid = toolstack.finish(&tail, || domain = None).map_err(hypervisor)?;
        let mut domain = domain.ok_or_else(|| not_running(&self.spec))?;
        let committed = if domain.guest_type() == GuestType::Pv { domain.commit_types() } else { Ok(()) };
        // Whatever has gone wrong: the toolstack has finished it, and nobody else would destroy it.
        self.phase = Phase::Standing(Standing { domain, state: state.to_vec(), is_model_behind: false });
        committed?;
        let store = XenStore::open(self.xen)?;
        lock(&self.cards).take_aside(&store, domid, &self.plan)
    }

    /// It runs for the first time, and its devices connect. Until all of that is done it counts as standing, so that it is there to be
    /// destroyed when something goes wrong.
    fn arrive(&mut self) -> Result<(), DomainError> {
        crate::domain::Control::make_ready(self)?;
        let Phase::Standing(Standing { domain, state, .. }) = &mut self.phase else { return Ok(()) };
        if domain.guest_type() == GuestType::Pv {
            domain.load_state(state)?;
        }
        if self.plan.is_twin {
            // To be overlaid it must be a domain like any other.
            domain.adopt_restored()?;
            domain.enable_dirty_log()?;
            domain.map_ahead()?;
        } else {
            domain.set_arrived();
        }
        // It may write to the guest's memory at once: what its card has got meanwhile. By now that is logged.
        domain.start_device_model()?;
        domain.handles().0.unpause(domain.domid())?;
        if let Err(error) = wait_connected(domain, Instant::now() + CONNECT_LIMIT) {
            tracing::warn!("{} goes on with devices that did not connect: {error}", self.spec.name);
        }
        let overlay = if self.plan.is_twin { Some(overlay_for(domain)?) } else { None };
        self.phase = match (std::mem::replace(&mut self.phase, Phase::Gone), overlay) {
            (Phase::Standing(Standing { domain, .. }), Some(overlay)) => {
                Phase::Twin(Box::new(Twin::new(*domain, overlay)))
            }
            (Phase::Standing(Standing { domain, .. }), None) => Phase::Running(domain),
            (other, _) => other,
        };
        Ok(())
    }

    /// Whether a page of a PV guest is put there with all others at once: by then its tables are as they travel.
    fn flushes_whole_at_first(&self) -> bool {
        self.plan.is_twin && self.plan.config.guest_type() == GuestType::Pv && !matches!(self.phase, Phase::Twin(_))
    }

    fn domain(&self) -> Result<&dyn Domain, DomainError> {
        match &self.phase {
            Phase::Building(domain, _) | Phase::Standing(Standing { domain, .. }) | Phase::Running(domain) => {
                Ok(&**domain)
            }
            Phase::Twin(twin) => Ok(&**twin),
            Phase::Planned | Phase::Gone => Err(not_running(&self.spec)),
        }
    }

    fn domain_mut(&mut self) -> Result<&mut dyn Domain, DomainError> {
        match &mut self.phase {
            Phase::Building(domain, _) | Phase::Standing(Standing { domain, .. }) | Phase::Running(domain) => {
                Ok(&mut **domain)
            }
            Phase::Twin(twin) => Ok(&mut **twin),
            Phase::Planned | Phase::Gone => Err(not_running(&self.spec)),
        }
    }
}

/// A domain that does not serve goes with whoever holds it.
impl Drop for Arriving {
    fn drop(&mut self) {
        if !lock(&self.cards).serves() {
            self.destroy();
        }
    }
}

impl crate::domain::Control for Arriving {
    fn spec(&self) -> &DomainSpec {
        &self.spec
    }

    fn run_state(&self) -> RunState {
        match &self.phase {
            Phase::Planned => RunState::Suspended,
            _ => self.domain().map_or(RunState::ShutDown, |domain| domain.run_state()),
        }
    }

    fn suspend(&mut self) -> Result<(), DomainError> {
        match &mut self.phase {
            Phase::Twin(twin) => twin.suspend(),
            Phase::Planned | Phase::Building(..) | Phase::Standing(..) => Ok(()),
            Phase::Running(_) | Phase::Gone => Err(not_running(&self.spec)),
        }
    }

    fn hold(&mut self) -> Result<(), DomainError> {
        match &mut self.phase {
            Phase::Twin(twin) => twin.hold(),
            _ => self.suspend(),
        }
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        match &mut self.phase {
            Phase::Twin(twin) => twin.resume(),
            Phase::Running(_) => Ok(()),
            Phase::Standing(..) => self.arrive(),
            Phase::Planned | Phase::Building(..) | Phase::Gone => Err(not_running(&self.spec)),
        }
    }

    fn make_ready(&mut self) -> Result<(), DomainError> {
        match &mut self.phase {
            Phase::Standing(Standing { domain, state, is_model_behind }) if *is_model_behind => {
                super::tail::load_device_model(domain, state)?;
                *is_model_behind = false;
            }
            // Before its pages become tables again; that takes as long as half of the detector's patience, under emulation.
            Phase::Standing(Standing { domain, .. }) if domain.guest_type() == GuestType::Pv => domain.unmap(),
            _ => {}
        }
        Ok(())
    }

    fn load_way(&self) -> Option<String> {
        self.domain().ok()?.load_way()
    }

    fn destroy(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Building(domain, toolstack) => {
                drop(domain);
                if let Err(error) = toolstack.abort(Errno::CANCELED) {
                    tracing::error!("{error}");
                }
            }
            Phase::Standing(Standing { mut domain, .. }) | Phase::Running(mut domain) => domain.destroy(),
            Phase::Twin(mut twin) => twin.destroy(),
            // Whoever was to put its cards back is there already.
            Phase::Planned | Phase::Gone => return lock(&self.cards).clear(),
        }
        self.guard.forget();
        self.lock = None;
        lock(&self.cards).clear();
    }
}

impl DirtyLog for Arriving {
    fn dirty_log_kind(&self) -> &'static str {
        self.domain().map_or("log-dirty", |domain| domain.dirty_log_kind())
    }

    fn enable_dirty_log(&mut self) -> Result<(), DomainError> {
        match &self.phase {
            // Whoever will need it will have it when the guest runs, and can write.
            Phase::Standing(..) => Ok(()),
            _ => self.domain_mut()?.enable_dirty_log(),
        }
    }

    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.domain_mut()?.take_dirty(into)
    }

    fn disable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.domain_mut()?.disable_dirty_log()
    }
}

impl Pages for Arriving {
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.domain()?.populated(into)
    }

    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.domain()?.read_pages(pfns, out)
    }

    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        self.domain_mut()?.write_pages(pfns, data)
    }

    fn populate(&mut self, pages: &PageList<'_>) -> Result<(), DomainError> {
        self.domain_mut()?.populate(pages)
    }

    fn localise(&mut self, page_type: PageType, page: &mut Page) -> Result<(), DomainError> {
        if self.flushes_whole_at_first() {
            return Ok(());
        }
        self.domain_mut()?.localise(page_type, page)
    }

    fn flushes_whole(&self) -> bool {
        self.flushes_whole_at_first() || self.domain().is_ok_and(|domain| domain.flushes_whole())
    }

    fn flush_whole<'a>(&mut self, changed: &DirtyBitmap, page: &dyn Fn(Pfn) -> &'a Page) -> Result<u64, DomainError> {
        match &mut self.phase {
            Phase::Building(domain, _) => domain.put_travelled(changed, page),
            _ => self.domain_mut()?.flush_whole(changed, page),
        }
    }

    fn shared_pages(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.domain()?.shared_pages(into)
    }

    fn read_normalised(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.domain()?.read_normalised(pfns, out)
    }

    fn pages_mut(&mut self, pfns: &[Pfn]) -> Result<Option<&mut [Page]>, DomainError> {
        self.domain_mut()?.pages_mut(pfns)
    }

    fn clear_pages(&mut self, pfns: &[Pfn]) -> Result<(), DomainError> {
        self.domain_mut()?.clear_pages(pfns)
    }

    fn update_p2m(&mut self) -> Result<(), DomainError> {
        self.domain_mut()?.update_p2m()
    }
}

impl State for Arriving {
    fn stream_header(&self) -> DomainHeader {
        self.header
    }

    fn load_static(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        if let Phase::Planned = self.phase {
            self.begin()?;
        }
        let Phase::Building(domain, toolstack) = &mut self.phase else { return Err(not_running(&self.spec)) };
        domain.load_static(state)?;
        if let Some(missing) = domain.take_missing_policies() {
            let told = toolstack.channel().static_data_done(missing);
            told.map_err(|error| hypervisor(toolstack.channel_error(error)))?;
        }
        Ok(())
    }

    fn load_layout(&mut self, record: &StateRecord) -> Result<(), DomainError> {
        self.domain_mut()?.load_layout(record)
    }

    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        self.domain_mut()?.save_state()
    }

    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        self.domain()?.check_state(state)
    }

    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        match &mut self.phase {
            Phase::Building(..) => self.finish(state),
            Phase::Standing(Standing { domain, state: kept, is_model_behind }) => {
                match domain.guest_type() {
                    // Its page tables must stay plain memory until it runs.
                    GuestType::Pv => domain.commit_types()?,
                    GuestType::Pvh => domain.load_state(state)?,
                    GuestType::Hvm => {
                        domain.load_state(state)?;
                        *is_model_behind = true;
                    }
                }
                *kept = state.to_vec();
                Ok(())
            }
            Phase::Twin(twin) => twin.load_state(state),
            Phase::Running(_) => Err(DomainError::NotSuspended(self.spec.name.clone())),
            Phase::Planned | Phase::Gone => Err(not_running(&self.spec)),
        }
    }

    fn likeness(&mut self) -> Result<Vec<u8>, DomainError> {
        self.domain_mut()?.likeness()
    }
}

/// Tells the toolstack where the guest's rings are. Returns what it is to read next.
fn hand_over(domain: &mut XenDomain, toolstack: &mut XlRestore, state: &[StateRecord]) -> Result<Vec<u8>, DomainError> {
    domain.introduce(state)?;
    let (store_gfn, console_gfn) =
        domain.rings().ok_or_else(|| DomainError::BadState("the guest has no rings".into()))?;
    let told = toolstack.channel().results(store_gfn, console_gfn);
    told.map_err(|error| hypervisor(toolstack.channel_error(error)))?;
    super::tail::tail_of(state)
}

fn not_running(spec: &DomainSpec) -> DomainError {
    DomainError::NotRunning(spec.name.clone())
}

fn hypervisor(error: impl std::error::Error + Send + Sync + 'static) -> DomainError {
    DomainError::Hypervisor(Box::new(error))
}
