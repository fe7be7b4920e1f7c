use super::batch::PageBatch;
use super::{Flushed, RestoreCallbacks};
use crate::domain::{Domain, DomainSpec, StateRecord};
use crate::ids::{Page, Pfn};
use crate::save::CallbackError;

/// Into the guest at once: for a domain that is being made, and that nobody counts on yet.
#[derive(Default, Debug)]
pub struct PlainRestore {
    /// Whether the domain stays suspended at the end.
    pub paused: bool,
    batch: PageBatch,
    received_pages: u64,
}

impl PlainRestore {
    /// That leaves the domain suspended.
    pub fn paused() -> Self {
        PlainRestore { paused: true, ..PlainRestore::default() }
    }
}

impl RestoreCallbacks for PlainRestore {
    fn init(&mut self, _spec: &DomainSpec) -> Result<(), CallbackError> {
        Ok(())
    }

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        self.received_pages += 1;
        Ok(self.batch.slot(domain, pfn)?)
    }

    fn get_pages<'a>(&'a mut self, domain: &'a mut dyn Domain, pfns: &[Pfn]) -> Result<&'a mut [Page], CallbackError> {
        let pages = self.batch.slots(domain, pfns)?;
        self.received_pages += pages.len() as u64;
        Ok(pages)
    }

    fn clear_pages(&mut self, domain: &mut dyn Domain, pfns: &[Pfn]) -> Result<(), CallbackError> {
        self.received_pages += pfns.len() as u64;
        Ok(self.batch.clear(domain, pfns)?)
    }

    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        Ok(self.batch.write(domain)?)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        self.batch.write(domain)?;
        let pages = std::mem::take(&mut self.received_pages);
        Ok(Flushed { received_pages: pages, written_pages: pages })
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        domain.load_state(state)?;
        if !self.paused {
            domain.resume()?;
        }
        Ok(())
    }
}
