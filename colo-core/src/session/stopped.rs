use super::secondary_net::SecondaryNetHandle;
use crate::domain::Domain;
use crate::restore::{Flushed, RestoreCallbacks};
use crate::save::CallbackError;

/// Around the callbacks of a restore: what is under way to and from the guest at the moment at which it was stopped is forgotten then, when
/// it can take and say no more, and not later, when it runs in the next epoch.
pub(super) struct ForgetsFrames {
    inner: Box<dyn RestoreCallbacks>,
    net: SecondaryNetHandle,
}

impl ForgetsFrames {
    pub(super) fn new(inner: Box<dyn RestoreCallbacks>, net: SecondaryNetHandle) -> Self {
        ForgetsFrames { inner, net }
    }
}

impl RestoreCallbacks for ForgetsFrames {
    crate::hand_on_restore!(inner: init, get_page, get_pages, clear_pages, record, verify, update_p2m, finish_restore);

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        domain.suspend()?;
        self.net.forget_frames()?;
        self.inner.flush_memory(domain)
    }
}
