use super::batch::{PageBatch, page_mut};
use super::{Flushed, RestoreCallbacks};
use crate::domain::{Domain, DomainSpec, MAX_BATCH_PAGES, StateRecord};
use crate::ids::{PAGE_SIZE, Page, Pfn};
use crate::save::CallbackError;
use std::collections::HashMap;

/// Staged, then into the suspended guest, which therefore always stands at a whole checkpoint and can be resumed at once.
///
/// Before the first checkpoint there is nothing to keep whole, and pages go into the guest as they come.
#[derive(Default, Debug)]
pub struct RemusRestore {
    /// Whether the guest stands at a checkpoint.
    whole: bool,
    first: PageBatch,
    first_pages: u64,
    stage: Stage,
}

impl RestoreCallbacks for RemusRestore {
    fn init(&mut self, _spec: &DomainSpec) -> Result<(), CallbackError> {
        Ok(())
    }

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        if self.whole {
            return Ok(self.stage.slot(pfn));
        }
        self.first_pages += 1;
        Ok(self.first.slot(domain, pfn)?)
    }

    fn get_pages<'a>(&'a mut self, domain: &'a mut dyn Domain, pfns: &[Pfn]) -> Result<&'a mut [Page], CallbackError> {
        if self.whole {
            return Ok(std::slice::from_mut(self.stage.slot(pfns[0])));
        }
        let pages = self.first.slots(domain, pfns)?;
        self.first_pages += pages.len() as u64;
        Ok(pages)
    }

    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        Ok(self.first.write(domain)?)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        let mut pages = std::mem::take(&mut self.first_pages);
        self.first.write(domain)?;
        pages += self.stage.write(domain)?;
        self.first = PageBatch::default();
        self.whole = true;
        Ok(Flushed { received_pages: pages, written_pages: pages })
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        Ok(domain.load_state(state)?)
    }
}

/// The most chunks (4 MiB each) that a stage keeps for the next checkpoint; more is given back.
const KEPT_CHUNKS: usize = 16;

/// Pages by number, in chunks of one batch each, so that a chunk is written with one call.
#[derive(Default, Debug)]
struct Stage {
    slots: HashMap<Pfn, usize>,
    pfns: Vec<Pfn>,
    chunks: Vec<Vec<u8>>,
}

impl Stage {
    fn slot(&mut self, pfn: Pfn) -> &mut Page {
        let slot = *self.slots.entry(pfn).or_insert_with(|| {
            self.pfns.push(pfn);
            self.pfns.len() - 1
        });
        let (chunk, page) = (slot / MAX_BATCH_PAGES, slot % MAX_BATCH_PAGES);
        if chunk == self.chunks.len() {
            self.chunks.push(vec![0; MAX_BATCH_PAGES * PAGE_SIZE]);
        }
        page_mut(&mut self.chunks[chunk], page * PAGE_SIZE)
    }

    fn write(&mut self, domain: &mut dyn Domain) -> Result<u64, CallbackError> {
        for (pfns, chunk) in self.pfns.chunks(MAX_BATCH_PAGES).zip(&self.chunks) {
            domain.write_pages(pfns, &chunk[..pfns.len() * PAGE_SIZE])?;
        }
        let pages = self.pfns.len() as u64;
        self.pfns.clear();
        self.slots.clear();
        self.chunks.truncate(KEPT_CHUNKS);
        Ok(pages)
    }
}
