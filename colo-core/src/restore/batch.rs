use crate::domain::{Domain, DomainError, MAX_BATCH_PAGES};
use crate::ids::{PAGE_SIZE, Page, Pfn};
use std::collections::HashMap;

/// Pages on their way into a guest that does not run yet, gathered so that the hypervisor is called once for many.
#[derive(Default, Debug)]
pub(super) struct PageBatch {
    pfns: Vec<Pfn>,
    pages: Vec<u8>,
    /// Where each of them is: one that comes again replaces what it was, also when it is mapped by then.
    slots: HashMap<Pfn, usize>,
}

impl PageBatch {
    /// Where to put that page: into the guest, where the host has it mapped, or among the gathered ones, which are written into the
    /// guest when there is no more room.
    pub(super) fn slot<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, DomainError> {
        if self.pfns.len() == MAX_BATCH_PAGES {
            self.write(domain)?;
        }
        if let Some(&slot) = self.slots.get(&pfn) {
            return Ok(page_mut(&mut self.pages, slot * PAGE_SIZE));
        }
        match domain.page_mut(pfn) {
            Some(page) => Ok(page),
            None => Ok(self.gather(pfn)),
        }
    }

    fn gather(&mut self, pfn: Pfn) -> &mut Page {
        self.pages.resize(MAX_BATCH_PAGES * PAGE_SIZE, 0);
        let slot = self.pfns.len();
        self.pfns.push(pfn);
        self.slots.insert(pfn, slot);
        page_mut(&mut self.pages, slot * PAGE_SIZE)
    }

    /// Writes what is gathered into the guest.
    pub(super) fn write(&mut self, domain: &mut dyn Domain) -> Result<(), DomainError> {
        if !self.pfns.is_empty() {
            domain.write_pages(&self.pfns, &self.pages[..self.pfns.len() * PAGE_SIZE])?;
            self.pfns.clear();
            self.slots.clear();
        }
        Ok(())
    }
}

/// The page that begins at byte `start`.
pub(super) fn page_mut(bytes: &mut [u8], start: usize) -> &mut Page {
    (&mut bytes[start..start + PAGE_SIZE]).try_into().expect("a slice of one page")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::ModelDomain;

    #[test]
    fn a_page_that_comes_again_is_what_it_was_last() {
        let mut domain = ModelDomain::new("batch", 4);
        let mut batch = PageBatch::default();
        let mut put = |domain: &mut ModelDomain, pfn, fill| batch.slot(domain, Pfn(pfn)).unwrap().fill(fill);
        // As a page table, which is not mapped, and then as plain memory, which is.
        put(&mut domain, 1, 1);
        domain.mapped = vec![Pfn(1), Pfn(2)];
        put(&mut domain, 1, 2);
        // The other way round: it stays mapped.
        put(&mut domain, 2, 3);
        put(&mut domain, 2, 4);
        // A table twice.
        put(&mut domain, 3, 5);
        put(&mut domain, 3, 6);
        batch.write(&mut domain).unwrap();
        let fills: Vec<u8> = domain.ram().chunks(PAGE_SIZE).map(|page| page[0]).collect();
        assert_eq!(fills, [0, 2, 4, 6]);
        assert!(batch.slots.is_empty());
    }
}
