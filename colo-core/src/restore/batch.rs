use crate::domain::{Domain, DomainError, MAX_BATCH_PAGES};
use crate::ids::{PAGE_SIZE, Page, Pfn};

/// Pages on their way into a guest that does not run yet, gathered so that the hypervisor is called once for many.
#[derive(Default, Debug)]
pub(super) struct PageBatch {
    pfns: Vec<Pfn>,
    pages: Vec<u8>,
}

impl PageBatch {
    /// Where to put that page: into the guest, where the host has it mapped, or among the gathered ones, which are written into the
    /// guest when there is no more room.
    pub(super) fn slot<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, DomainError> {
        if self.pfns.len() == MAX_BATCH_PAGES {
            self.write(domain)?;
        }
        match domain.page_mut(pfn) {
            Some(page) => Ok(page),
            None => Ok(self.gather(pfn)),
        }
    }

    fn gather(&mut self, pfn: Pfn) -> &mut Page {
        self.pages.resize(MAX_BATCH_PAGES * PAGE_SIZE, 0);
        let start = self.pfns.len() * PAGE_SIZE;
        self.pfns.push(pfn);
        page_mut(&mut self.pages, start)
    }

    /// Writes what is gathered into the guest.
    pub(super) fn write(&mut self, domain: &mut dyn Domain) -> Result<(), DomainError> {
        if !self.pfns.is_empty() {
            domain.write_pages(&self.pfns, &self.pages[..self.pfns.len() * PAGE_SIZE])?;
            self.pfns.clear();
        }
        Ok(())
    }
}

/// The page that begins at byte `start`.
pub(super) fn page_mut(bytes: &mut [u8], start: usize) -> &mut Page {
    (&mut bytes[start..start + PAGE_SIZE]).try_into().expect("a slice of one page")
}
