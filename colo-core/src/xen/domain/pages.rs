use super::lent::{Lent, Place};
use super::pv::Frames;
use super::{GuestType, XenDomain, hvm, unmapped};
use crate::domain::{DirtyBitmap, DomainError, LentPages, MAX_BATCH_PAGES, Pages, check_batch, write_zeroes};
use crate::ids::{Mfn, PAGE_SIZE, Page, Pfn};
use crate::stream::{PageList, PageType};
use crate::xen::control::MmuextOp;
use crate::xen::foreign::Access;
use crate::xen::pv::twin::wants_memory;

/// Pages of a 2 MiB extent: one entry of the second level of the hardware's tables.
const EXTENT_PAGES: u64 = 512;
/// 2 to this power.
const EXTENT_ORDER: u32 = 9;

impl XenDomain {
    /// As [`Pages::capture_pages`], but page tables stay in terms of machine frames.
    pub(super) fn capture_raw(
        &mut self,
        pfns: &[Pfn],
        types: &mut Vec<PageType>,
        out: &mut [u8],
    ) -> Result<usize, DomainError> {
        if pfns.len() > MAX_BATCH_PAGES || out.len() < pfns.len() * PAGE_SIZE {
            return Err(DomainError::BadBatch { pages: pfns.len(), bytes: out.len() });
        }
        types.clear();
        if self.guest_type == GuestType::Pv {
            return self.capture_pv(pfns, types, out);
        }
        let memory = self.memory.get_mut();
        memory.map(&self.foreign, self.access, pfns.iter().map(|pfn| (*pfn, pfn.0)))?;
        let mut pages = out.chunks_exact_mut(PAGE_SIZE);
        let mut slot = pages.next();
        for &pfn in pfns {
            let page: Option<&mut Page> = slot.as_deref_mut().and_then(|page| page.try_into().ok());
            let there = page.is_some_and(|page| match self.twin.as_ref().and_then(|twin| twin.held(pfn)) {
                Some(held) => {
                    page.copy_from_slice(held);
                    true
                }
                None => memory.read(pfn, page),
            });
            types.push(if there { PageType::Normal } else { PageType::Invalid });
            if there {
                slot = pages.next();
            }
        }
        if self.suspended_at.is_some() {
            self.check_left_out(pfns, types)?;
        }
        Ok(types.iter().filter(|page_type| page_type.has_data()).count())
    }

    /// Writes pages where they are mapped, and stay so. A whole domain that has not got one of them gets it: its twin has it.
    fn write_mapped(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        let memory = self.memory.get_mut();
        memory.map(&self.foreign, self.access, pfns.iter().map(|pfn| (*pfn, pfn.0)))?;
        let missing: Vec<Pfn> = pfns.iter().copied().filter(|pfn| memory.pointer(*pfn).is_none()).collect();
        if !missing.is_empty() && self.incoming.is_none() {
            self.change_pages(&missing, &[])?;
        }
        let memory = self.memory.get_mut();
        memory.map(&self.foreign, self.access, pfns.iter().map(|pfn| (*pfn, pfn.0)))?;
        for (pfn, page) in pfns.iter().zip(data.chunks_exact(PAGE_SIZE)) {
            let page: &Page = page.try_into().expect("chunks are pages");
            let held_back = self.held_back.as_mut().filter(|held_back| held_back.pfn == *pfn);
            if let Some(held_back) = held_back {
                held_back.page = Some(Box::new(*page));
            } else if !memory.write(*pfn, page) {
                return Err(unmapped(*pfn, &self.spec.name));
            }
        }
        Ok(())
    }

    /// Gives the guest memory for `pfns`, which ascend and have none, in pieces as large as the hardware likes them; `got` is told each
    /// page's machine frame (for a translated guest, its own number).
    pub(super) fn populate_pfns(&self, pfns: &[u64], mut got: impl FnMut(u64, u64)) -> Result<(), DomainError> {
        let mut rest = pfns;
        let mut single = Vec::new();
        while let Some(&first) = rest.first() {
            let mut frame = [first];
            let whole = first % EXTENT_PAGES == 0
                && rest.get(EXTENT_PAGES as usize - 1) == Some(&(first + EXTENT_PAGES - 1))
                && self.control.populate_physmap(self.domid, EXTENT_ORDER, 0, &mut frame)? == 1;
            let pages = if whole { EXTENT_PAGES } else { 1 };
            if whole {
                (0..pages).for_each(|page| got(first + page, frame[0] + page));
            } else {
                single.push(first);
            }
            rest = &rest[pages as usize..];
        }
        if !single.is_empty() {
            let mut frames = single.clone();
            self.control.populate_physmap_exact(self.domid, 0, 0, &mut frames)?;
            single.into_iter().zip(frames).for_each(|(pfn, frame)| got(pfn, frame));
        }
        Ok(())
    }
}

impl Pages for XenDomain {
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        match self.guest_type {
            GuestType::Pv => self.populated_pv(into),
            GuestType::Pvh | GuestType::Hvm => hvm::populated(&self.control, self.domid, self.spec.pfn_limit, into),
        }
    }

    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        check_batch(pfns, out.len())?;
        let mut memory = self.memory.borrow_mut();
        memory.map(&self.foreign, self.access, pfns.iter().filter_map(|pfn| Some((*pfn, self.frame_of(*pfn)?))))?;
        for (&pfn, page) in pfns.iter().zip(out.chunks_exact_mut(PAGE_SIZE)) {
            let read = page.try_into().is_ok_and(|page: &mut Page| memory.read(pfn, page));
            if !read {
                page.fill(0);
            }
        }
        Ok(())
    }

    fn read_normalised(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.read_pages(pfns, out)?;
        self.normalise_read(pfns, out)
    }

    fn flushes_whole(&self) -> bool {
        self.pv.as_deref().is_some_and(|pv| matches!(pv.frames, Frames::Twin(_)))
    }

    fn flush_whole<'a>(&mut self, changed: &DirtyBitmap, page: &dyn Fn(Pfn) -> &'a Page) -> Result<u64, DomainError> {
        self.flush_twin(changed, page)
    }

    fn shared_pages(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        match self.guest_type {
            GuestType::Pv => self.shared_pages_pv(into),
            GuestType::Pvh | GuestType::Hvm => self.shared_pages_of(into),
        }
    }

    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        check_batch(pfns, data.len())?;
        if self.guest_type != GuestType::Pv && self.access == Access::ReadWrite {
            return self.write_mapped(pfns, data);
        }
        let limit = self.spec.pfn_limit;
        let frames: Option<Vec<u64>> = pfns.iter().map(|pfn| self.frame_of(*pfn)).collect();
        let frames = frames.ok_or_else(|| DomainError::PfnOutOfRange { pfn: pfns[0], pfn_limit: limit })?;
        // For these pages alone: a page that becomes a page table must not be mapped for writing any more.
        let mut mapping = self.foreign.map(self.domid, Access::ReadWrite, &frames)?;
        for (index, page) in data.chunks_exact(PAGE_SIZE).enumerate() {
            mapping.write_bytes(index, 0, page);
        }
        Ok(())
    }

    fn capture_pages(&mut self, pfns: &[Pfn], types: &mut Vec<PageType>, out: &mut [u8]) -> Result<usize, DomainError> {
        let pages = self.capture_raw(pfns, types, out)?;
        self.note_captured(pfns, types, &out[..pages * PAGE_SIZE]);
        match self.guest_type {
            GuestType::Pv => self.normalise_pv(pfns, types, &mut out[..pages * PAGE_SIZE]),
            GuestType::Pvh | GuestType::Hvm => Ok(pages),
        }
    }

    fn lend_pages(
        &mut self,
        pfns: &[Pfn],
        types: &mut Vec<PageType>,
    ) -> Result<Option<Box<dyn LentPages + '_>>, DomainError> {
        let places = if self.guest_type == GuestType::Pv {
            self.places_pv(pfns, types)?
        } else {
            let memory = self.memory.get_mut();
            memory.map(&self.foreign, self.access, pfns.iter().map(|pfn| (*pfn, pfn.0)))?;
            let pointers: Vec<_> = pfns.iter().map(|pfn| memory.pointer(*pfn)).collect();
            types.clear();
            types.extend(pointers.iter().map(|page| if page.is_some() { PageType::Normal } else { PageType::Invalid }));
            self.check_left_out(pfns, types)?;
            pointers.into_iter().flatten().map(Place::Guest).collect()
        };
        // SAFETY: each is a page of a mapping in `memory`, which is borrowed, so that nothing is unmapped, while they are lent.
        Ok(Some(Box::new(unsafe { Lent::new(places) })))
    }

    fn populate(&mut self, pages: &PageList<'_>) -> Result<(), DomainError> {
        if self.guest_type == GuestType::Pv {
            return self.populate_pv(pages);
        }
        if self.incoming.is_none() {
            // A whole domain has its pages; what it lacks it gets when that is written.
            return Ok(());
        }
        let mut gfns = Vec::new();
        for (pfn, _) in pages.pages().filter(|(_, page_type)| wants_memory(*page_type)) {
            if self.populated.insert(pfn) {
                gfns.push(pfn.0);
            }
        }
        gfns.sort_unstable();
        self.populate_pfns(&gfns, |_, _| ())
    }

    fn localise(&mut self, page_type: PageType, page: &mut Page) -> Result<(), DomainError> {
        self.localise_pv(page_type, page)
    }

    fn pages_mut(&mut self, pfns: &[Pfn]) -> Result<Option<&mut [Page]>, DomainError> {
        if self.plain_frame_of(pfns[0]).is_none() {
            return Ok(None);
        }
        // All at once: a call costs as much as many pages.
        let frames: Vec<_> = pfns.iter().filter_map(|pfn| Some((*pfn, self.plain_frame_of(*pfn)?))).collect();
        let memory = self.memory.get_mut();
        memory.map(&self.foreign, self.access, frames.iter().copied())?;
        let plain = frames.iter().zip(pfns).take_while(|((pfn, _), wanted)| pfn == *wanted).count();
        Ok(memory.pages_mut(&pfns[..plain]))
    }

    fn clear_pages(&mut self, pfns: &[Pfn]) -> Result<(), DomainError> {
        let frame_of = |pfn: &Pfn| self.frame_of(*pfn).map(|frame| MmuextOp::Clear(Mfn(frame)));
        let operations: Option<Vec<MmuextOp>> = pfns.iter().map(frame_of).collect();
        // A dom0 that is itself translated may not ask for it, and a page that is mapped as a table must not be: then as any content.
        if operations.is_some_and(|operations| self.control.mmuext(self.domid, &operations).is_ok()) {
            return Ok(());
        }
        write_zeroes(self, pfns)
    }

    fn update_p2m(&mut self) -> Result<(), DomainError> {
        match self.guest_type {
            GuestType::Pv => self.write_p2m(),
            GuestType::Pvh | GuestType::Hvm => Ok(()),
        }
    }
}
