use super::{GuestType, XenDomain};
use crate::domain::{DomainError, StateRecord};
use crate::ids::DomId;
use crate::xen::control::GrantSeed;
use crate::xen::toolstack::RestoreRequest;
use crate::xen::{Control, XenError};

/// What a domain that is being made needs to know of the toolstack that makes it, and the toolstack of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// The domain's event channel to xenstore, as the toolstack has allocated it.
    pub store_evtchn: u32,
    /// The domain that runs xenstore.
    pub store_domid: DomId,
    /// The domain's event channel to its console.
    pub console_evtchn: u32,
    /// The domain that runs the console.
    pub console_domid: DomId,
    /// Once the static data is loaded: the policies that it did not have, as the toolstack wants to know them
    /// ([`MISSING_CPUID`](crate::xen::toolstack::messages::MISSING_CPUID) and its kin).
    pub missing_policies: Option<u32>,
    /// The frame by which the domain talks to xenstore; known once its state is loaded. For PV a machine frame.
    pub store_gfn: u64,
    /// The frame by which it talks to its console; likewise.
    pub console_gfn: u64,
}

impl Incoming {
    /// What the toolstack has prepared.
    pub fn new(request: &RestoreRequest) -> Incoming {
        Incoming {
            store_evtchn: request.store_evtchn,
            store_domid: request.store_domid,
            console_evtchn: request.console_evtchn,
            console_domid: request.console_domid,
            missing_policies: None,
            store_gfn: 0,
            console_gfn: 0,
        }
    }

    /// The grants by which xenstore's and the console's domains map their pages.
    pub(super) fn seed_grants(&self, control: &Control, domid: DomId, is_hvm: bool) -> Result<(), XenError> {
        let (console, store) = ((self.console_gfn, self.console_domid), (self.store_gfn, self.store_domid));
        control.gnttab_seed(domid, GrantSeed { hvm: is_hvm, console, store })
    }
}

impl XenDomain {
    /// How many page numbers the guest may have: what its primary has. A domain in the making cannot tell by itself.
    pub(in crate::xen) fn set_pfn_limit(&mut self, pfn_limit: u64) {
        self.spec.pfn_limit = pfn_limit;
    }

    /// Loads as much of a state as the toolstack needs to finish the domain: where its rings are, and who may map them. A PV guest gets
    /// no registers by that, and its page tables stay plain memory, which can be written again.
    pub(in crate::xen) fn introduce(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        match self.guest_type {
            GuestType::Pv => self.introduce_pv(state),
            GuestType::Pvh | GuestType::Hvm => crate::domain::State::load_state(self, state),
        }
    }

    /// The guest is about to run: from here on this is a domain like any other.
    pub(in crate::xen) fn set_arrived(&mut self) {
        self.incoming = None;
    }
}
