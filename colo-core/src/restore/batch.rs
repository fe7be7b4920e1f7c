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
        Ok(&mut self.slots(domain, &[pfn])?[0])
    }

    /// Where to put the first of those pages, and as many that follow as have their places beside it.
    pub(super) fn slots<'a>(
        &'a mut self,
        domain: &'a mut dyn Domain,
        pfns: &[Pfn],
    ) -> Result<&'a mut [Page], DomainError> {
        if self.pfns.len() == MAX_BATCH_PAGES {
            self.write(domain)?;
        }
        if let Some(&slot) = self.slots.get(&pfns[0]) {
            return Ok(std::slice::from_mut(page_mut(&mut self.pages, slot * PAGE_SIZE)));
        }
        let elsewhere = pfns.iter().take_while(|pfn| !self.slots.contains_key(pfn)).count();
        match domain.pages_mut(&pfns[..elsewhere])? {
            Some(pages) => Ok(pages),
            None => Ok(std::slice::from_mut(self.gather(pfns[0]))),
        }
    }

    /// Puts zeroes into those pages.
    pub(super) fn clear(&mut self, domain: &mut dyn Domain, pfns: &[Pfn]) -> Result<(), DomainError> {
        // What was gathered of them would come after.
        if pfns.iter().any(|pfn| self.slots.contains_key(pfn)) {
            self.write(domain)?;
        }
        domain.clear_pages(pfns)
    }

    fn gather(&mut self, pfn: Pfn) -> &mut Page {
        if self.pages.is_empty() {
            // Not by growing, which would touch all of it.
            self.pages = vec![0; MAX_BATCH_PAGES * PAGE_SIZE];
        }
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
        let put = |batch: &mut PageBatch, domain: &mut ModelDomain, pfn, fill| {
            batch.slot(domain, Pfn(pfn)).unwrap().fill(fill);
        };
        // As a page table, which is not mapped, and then as plain memory, which is.
        put(&mut batch, &mut domain, 1, 1);
        domain.mapped = vec![Pfn(1), Pfn(2)];
        put(&mut batch, &mut domain, 1, 2);
        // The other way round: it stays mapped.
        put(&mut batch, &mut domain, 2, 3);
        put(&mut batch, &mut domain, 2, 4);
        // A table twice.
        put(&mut batch, &mut domain, 3, 5);
        put(&mut batch, &mut domain, 3, 6);
        // As a table, and then as zeroes.
        put(&mut batch, &mut domain, 0, 7);
        batch.clear(&mut domain, &[Pfn(0)]).unwrap();
        batch.write(&mut domain).unwrap();
        let fills: Vec<u8> = domain.ram().chunks(PAGE_SIZE).map(|page| page[0]).collect();
        assert_eq!(fills, [0, 2, 4, 6]);
        assert!(batch.slots.is_empty());
    }

    #[test]
    fn pages_that_lie_side_by_side_are_had_at_once() {
        let mut domain = ModelDomain::new("batch", 8);
        domain.mapped = vec![Pfn(1), Pfn(2), Pfn(3), Pfn(5)];
        let mut batch = PageBatch::default();
        let mut room = |batch: &mut PageBatch, pfns: &[u64]| {
            let pfns: Vec<Pfn> = pfns.iter().map(|pfn| Pfn(*pfn)).collect();
            batch.slots(&mut domain, &pfns).unwrap().len()
        };
        assert_eq!(room(&mut batch, &[1, 2, 3, 4]), 3);
        assert_eq!(room(&mut batch, &[3, 5]), 1, "not side by side");
        assert_eq!(room(&mut batch, &[4, 5]), 1, "not mapped: gathered");
        domain.mapped.push(Pfn(4));
        let mut room = |pfns: &[Pfn]| batch.slots(&mut domain, pfns).unwrap().len();
        assert_eq!(room(&[Pfn(3), Pfn(4), Pfn(5)]), 1, "what is gathered stays so");
    }
}
