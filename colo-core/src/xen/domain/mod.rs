//! A domain of Xen behind the engine's seam.
//!
//! [`XenDomain`] is one of three kinds of machine: PV, whose page tables the guest and the hypervisor share; HVM, which has a device
//! model; and PVH, which is HVM without one. What they have in common is here and in the traits' files, what they have not in
//! `hvm.rs` and `pv.rs`.
//!
//! ```no_run
//! use colo_core::domain::Control;
//! use colo_core::ids::DomId;
//! use colo_core::xen::domain::XenDomain;
//! use colo_core::xen::Xen;
//! use std::time::Duration;
//!
//! let mut domain = XenDomain::open(Xen::open()?, DomId(3), Duration::from_secs(60))?;
//! domain.suspend()?;
//! println!("{} stands still", domain.spec().name);
//! domain.resume()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod control;
mod emulator;
mod hvm;
mod incoming;
mod lent;
mod log;
mod memory;
mod page_set;
mod pages;
mod populated;
mod pv;
mod pv_state;
mod pv_twin;
mod state;
mod twin;

pub use incoming::Incoming;

use crate::domain::{DomainError, DomainSpec};
use crate::ids::{DomId, Pfn};
use crate::stream::{DomainHeader, DomainKind, EmulatorState};
use crate::xen::foreign::Access;
use crate::xen::qmp::QmpClient;
use crate::xen::suspend::{SuspendError, Suspender};
use crate::xen::toolstack::{ConfigError, DomainConfig, DomainUuid, LiveState, Xl};
use crate::xen::{Control, DomainInfo, ForeignMemory, GuestType, Xen, XenError, XenStore};
use log::DirtyLogState;
use memory::GuestMemory;
use page_set::PageSet;
use pv::Pv;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use twin::{HeldBack, TwinSide};

/// How long another toolstack may keep us from a domain's configuration: it does not hold the lock while it waits for anything.
const CONFIG_LIMIT: Duration = Duration::from_secs(10);

/// A domain of Xen.
///
/// It holds handles of its own, and mappings of guest memory that it keeps from one batch to the next: making a mapping costs
/// several times what the copy of its pages does. While they are held a destroyed domain's memory is not free.
pub struct XenDomain {
    control: Control,
    foreign: ForeignMemory,
    store: XenStore,
    xen: Xen,
    domid: DomId,
    uuid: DomainUuid,
    spec: DomainSpec,
    guest_type: GuestType,
    header: DomainHeader,
    /// Kept mappings; borrowed for the length of one call.
    memory: RefCell<GuestMemory>,
    /// What they are for: a guest that is saved is only read.
    access: Access,
    /// The guest's pages when this was opened, as long as the mappings have not been forgotten.
    mapped_total: Option<u64>,
    log: DirtyLogState,
    /// Of a PV guest.
    pv: Option<Box<Pv>>,
    /// Pages that have got memory, of a translated guest that is being restored.
    populated: PageSet,
    /// By whom the guest is suspended, once it has been.
    suspender: Option<Suspender>,
    /// How long the guest has to suspend itself.
    suspend_limit: Duration,
    /// What ends the wait for it, for the suspender.
    stop: Option<OwnedFd>,
    suspended_at: Option<Instant>,
    /// Whether the guest has been asked to suspend itself, by this, and has not been resumed.
    is_asked: bool,
    /// It is paused, for as long as it is not known whether it may serve.
    is_held: bool,
    last_pause: Option<Duration>,
    emulator: Option<EmulatorState>,
    /// The conversation with the device model, while it is held.
    monitor: RefCell<Option<QmpClient>>,
    /// Whether the state is for a domain that runs beside it on another host.
    has_twin: bool,
    /// What that takes, once it has been needed.
    twin: Option<Box<TwinSide>>,
    /// Of a domain that is given another's state: the page that comes last.
    held_back: Option<HeldBack>,
    incoming: Option<Incoming>,
}

impl XenDomain {
    /// Opens a domain that runs. `suspend_limit` is how long the guest may take to suspend itself when it is asked.
    ///
    /// # Errors
    /// When there is no such domain, or Xen refuses.
    pub fn open(xen: Xen, domid: DomId, suspend_limit: Duration) -> Result<XenDomain, DomainError> {
        let control = Control::open(xen)?;
        let info = control.domain_info(domid)?.ok_or_else(|| DomainError::NotRunning(domid.0.to_string()))?;
        Self::with_handles(xen, control, XenStore::open(xen)?, &info, suspend_limit)
    }

    /// As [`XenDomain::open`], with handles that are open already.
    ///
    /// # Errors
    /// When Xen refuses.
    pub fn with_handles(
        xen: Xen,
        control: Control,
        store: XenStore,
        info: &DomainInfo,
        suspend_limit: Duration,
    ) -> Result<XenDomain, DomainError> {
        Self::with(xen, control, store, info, suspend_limit, None)
    }

    /// Opens a whole domain that is to be given another's state, over its own.
    ///
    /// # Errors
    /// As for [`XenDomain::open`].
    pub fn adopt(xen: Xen, domid: DomId) -> Result<XenDomain, DomainError> {
        let mut domain = Self::open(xen, domid, Duration::ZERO)?;
        match &mut domain.pv {
            // What it has for page tables must not be mapped for writing.
            Some(pv) => pv.become_twin(&domain.control, &domain.foreign)?,
            None => domain.access = Access::ReadWrite,
        }
        Ok(domain)
    }

    /// Makes it what [`XenDomain::adopt`] does: a domain that has just been restored from its primary, and has not run yet. After an error
    /// it can only be destroyed.
    ///
    /// # Errors
    /// As for [`XenDomain::open`].
    pub(in crate::xen) fn adopt_restored(&mut self) -> Result<(), DomainError> {
        let mut domain = Self::adopt(self.xen, self.domid)?;
        domain.spec.pfn_limit = self.spec.pfn_limit;
        if let (Some(own), Some(restored)) = (&mut domain.pv, self.pv.take()) {
            own.become_restored_twin(&domain.control, &domain.foreign, *restored)?;
        }
        *self = domain;
        Ok(())
    }

    /// Has [`State::save_state`] give, too, what an [`overlay`](crate::xen::overlay) on another host needs.
    ///
    /// [`State::save_state`]: crate::domain::State::save_state
    pub fn set_has_twin(&mut self) {
        self.has_twin = true;
    }

    /// Says of the domain what another host must know to make one like it. Its name and the limit of its pages must be its own.
    pub(in crate::xen) fn set_spec(&mut self, spec: DomainSpec) {
        self.spec = spec;
    }

    /// Opens a domain that the toolstack has just made, to put a guest into it.
    ///
    /// # Errors
    /// As for [`XenDomain::open`].
    pub fn receive(xen: Xen, domid: DomId, incoming: Incoming) -> Result<XenDomain, DomainError> {
        let control = Control::open(xen)?;
        let info = control.domain_info(domid)?.ok_or_else(|| DomainError::NotRunning(domid.0.to_string()))?;
        Self::with(xen, control, XenStore::open(xen)?, &info, Duration::ZERO, Some(incoming))
    }

    fn with(
        xen: Xen,
        control: Control,
        store: XenStore,
        info: &DomainInfo,
        suspend_limit: Duration,
        incoming: Option<Incoming>,
    ) -> Result<XenDomain, DomainError> {
        let domid = info.domid;
        let name = store.read(&format!("/local/domain/{}/name", domid.0))?.unwrap_or_default();
        let guest_type = info.guest_type();
        // A domain in the making has no memory yet by which to know its end.
        let pfn_limit = match (&incoming, guest_type) {
            (Some(_), _) => DomainSpec::MAX_PFN_LIMIT,
            // What a PV guest claims may be much more than its table has; that is looked at when it is read.
            (None, GuestType::Pv) => control.nr_gpfns(domid)?.min(pv::limits().entries),
            (None, GuestType::Pvh | GuestType::Hvm) => control.nr_gpfns(domid)?,
        };
        if pfn_limit > DomainSpec::MAX_PFN_LIMIT {
            // A guest may put a page where it likes: each number below would be looked at, and take memory here.
            let why = format!("it has a page at number {}; the limit is {}", pfn_limit - 1, DomainSpec::MAX_PFN_LIMIT);
            return Err(DomainError::Other(why));
        }
        let (xen_major, xen_minor) = control.version()?;
        let kind = if guest_type == GuestType::Pv { DomainKind::X86Pv } else { DomainKind::X86Hvm };
        Ok(XenDomain {
            foreign: ForeignMemory::open(xen)?,
            memory: RefCell::new(GuestMemory::new(domid)),
            access: if incoming.is_some() { Access::ReadWrite } else { Access::Read },
            mapped_total: Some(info.total_pages),
            pv: match guest_type {
                GuestType::Pv => Some(Box::new(Pv::open(&control, domid, incoming.is_some())?)),
                GuestType::Pvh | GuestType::Hvm => None,
            },
            populated: PageSet::default(),
            spec: DomainSpec {
                name: String::from_utf8_lossy(&name).into_owned(),
                hypervisor: "xen".into(),
                pfn_limit,
                nics: Vec::new(),
                disks: Vec::new(),
                config: Vec::new(),
            },
            header: DomainHeader { kind, page_shift: DomainHeader::PAGE_SHIFT, xen_major, xen_minor },
            uuid: DomainUuid(info.uuid),
            xen,
            control,
            store,
            domid,
            guest_type,
            log: DirtyLogState::Off,
            suspender: None,
            suspend_limit,
            stop: None,
            suspended_at: None,
            is_asked: false,
            is_held: false,
            last_pause: None,
            emulator: None,
            monitor: RefCell::new(None),
            has_twin: false,
            twin: None,
            held_back: None,
            incoming,
        })
    }

    /// Its number.
    pub fn domid(&self) -> DomId {
        self.domid
    }

    /// Its identity.
    pub fn uuid(&self) -> DomainUuid {
        self.uuid
    }

    /// Lets the guest be waited for, when it is asked to suspend itself, only until this descriptor can be read; see
    /// [`Suspender::stop_by`]. To be said before it is suspended for the first time.
    pub fn stop_by(&mut self, stop: OwnedFd) {
        self.stop = Some(stop);
    }

    /// What kind of machine it is.
    pub fn guest_type(&self) -> GuestType {
        self.guest_type
    }

    /// The configuration that it has now, as an image has it in front.
    ///
    /// # Errors
    /// When the toolstack's files and xenstore do not tell, or the device model does not answer.
    pub fn config(&self, xl: &Xl) -> Result<DomainConfig, ConfigError> {
        let device_model_cpus = self.with_device_model(QmpClient::query_cpus)?;
        let scheduler = self.control.scheduler(self.domid);
        let live = LiveState { uuid: self.uuid, device_model_cpus, scheduler };
        DomainConfig::current(self.domid, &live, &self.store, xl, Instant::now() + CONFIG_LIMIT)
    }

    /// How long the guest stood still, the last time that it was suspended and resumed.
    pub fn last_pause(&self) -> Option<Duration> {
        self.last_pause
    }

    /// What the toolstack must be told once the static data is loaded; once.
    pub fn take_missing_policies(&mut self) -> Option<u32> {
        self.incoming.as_mut()?.missing_policies.take()
    }

    /// The frames by which a restored domain talks to xenstore and to its console, once its state is loaded.
    pub fn rings(&self) -> Option<(u64, u64)> {
        self.incoming.as_ref().map(|incoming| (incoming.store_gfn, incoming.console_gfn))
    }

    /// The frame that a page is in, for mapping it.
    fn frame_of(&self, pfn: Pfn) -> Option<u64> {
        match &self.pv {
            Some(pv) => pv.frame_of(pfn).map(|frame| frame.0),
            None => Some(pfn.0),
        }
    }

    fn info(&self) -> Result<DomainInfo, DomainError> {
        self.control.domain_info(self.domid)?.ok_or_else(|| DomainError::NotRunning(self.spec.name.clone()))
    }
}

fn bad_state(error: impl std::fmt::Display) -> DomainError {
    DomainError::BadState(error.to_string())
}

/// A page that the hypervisor has and does not let be mapped: without it the image would not be the guest.
fn unmapped(pfn: Pfn, name: &str) -> DomainError {
    DomainError::Other(format!("{pfn} of {name} is there, but cannot be mapped"))
}

fn grown(name: &str) -> DomainError {
    DomainError::Other(format!("the memory of {name} grew while it was saved: try again"))
}

impl From<SuspendError> for DomainError {
    fn from(error: SuspendError) -> Self {
        DomainError::Hypervisor(Box::new(error))
    }
}

impl From<XenError> for DomainError {
    fn from(error: XenError) -> Self {
        DomainError::Hypervisor(Box::new(error))
    }
}
