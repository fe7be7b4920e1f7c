use super::secondary_net::SecondaryNetHandle;
use crate::domain::Domain;
use crate::restore::{Flushed, RestoreCallbacks};
use crate::save::CallbackError;

/// Around the callbacks of a restore: what the guest had said by the moment at which it was stopped is forgotten then, when it can say no
/// more, and not later, when it runs in the next epoch.
pub(super) struct ForgetsOutput {
    inner: Box<dyn RestoreCallbacks>,
    net: SecondaryNetHandle,
}

impl ForgetsOutput {
    pub(super) fn new(inner: Box<dyn RestoreCallbacks>, net: SecondaryNetHandle) -> Self {
        ForgetsOutput { inner, net }
    }
}

impl RestoreCallbacks for ForgetsOutput {
    crate::hand_on_restore!(inner: init, get_page, get_pages, clear_pages, record, verify, update_p2m, finish_restore);

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        domain.suspend()?;
        self.net.forget_output()?;
        self.inner.flush_memory(domain)
    }
}
