use crate::domain::DomainError;
use crate::ids::DomId;
use crate::xen::toolstack::LibxlChannel;
use crate::xen::{Control, XenError};

/// What a domain that is being made needs to know of the toolstack that makes it, and the toolstack of it.
pub struct Incoming {
    /// The domain's event channel to xenstore, as the toolstack has allocated it.
    pub store_evtchn: u32,
    /// The domain that runs xenstore.
    pub store_domid: DomId,
    /// The domain's event channel to its console.
    pub console_evtchn: u32,
    /// The domain that runs the console.
    pub console_domid: DomId,
    /// Where the toolstack waits for news.
    pub channel: LibxlChannel,
    /// The frame by which the domain talks to xenstore; known once its state is loaded. For PV a machine frame.
    pub store_gfn: u64,
    /// The frame by which it talks to its console; likewise.
    pub console_gfn: u64,
}

impl Incoming {
    /// The grants by which xenstore's and the console's domains map their pages.
    pub(super) fn seed_grants(&self, control: &Control, domid: DomId, is_hvm: bool) -> Result<(), XenError> {
        control.seed_grants(domid, is_hvm, self.console_gfn, self.store_gfn, self.console_domid, self.store_domid)
    }

    /// The guest's policies are loaded, but for `missing` of them.
    pub(super) fn static_data_done(&mut self, missing: u32) -> Result<(), DomainError> {
        self.channel.static_data_done(missing).map_err(|error| DomainError::Hypervisor(Box::new(error)))
    }
}
