use super::secondary_net::SecondaryNetHandle;
use crate::domain::{Domain, DomainSpec, StateRecord};
use crate::ids::{Page, Pfn};
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
    fn init(&mut self, spec: &DomainSpec) -> Result<(), CallbackError> {
        self.inner.init(spec)
    }

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        self.inner.get_page(domain, pfn)
    }

    fn get_pages<'a>(&'a mut self, domain: &'a mut dyn Domain, pfns: &[Pfn]) -> Result<&'a mut [Page], CallbackError> {
        self.inner.get_pages(domain, pfns)
    }

    fn clear_pages(&mut self, domain: &mut dyn Domain, pfns: &[Pfn]) -> Result<(), CallbackError> {
        self.inner.clear_pages(domain, pfns)
    }

    fn record(&mut self, kind: u32, body: &[u8]) -> Result<(), CallbackError> {
        self.inner.record(kind, body)
    }

    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.inner.verify(domain)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        domain.suspend()?;
        self.net.forget_output()?;
        self.inner.flush_memory(domain)
    }

    fn update_p2m(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.inner.update_p2m(domain)
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        self.inner.finish_restore(domain, state)
    }
}
