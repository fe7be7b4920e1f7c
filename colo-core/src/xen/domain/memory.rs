use crate::ids::{DomId, PAGE_SIZE, Page, Pfn};
use crate::xen::foreign::{Access, Mapping};
use crate::xen::{ForeignMemory, XenError};

/// Pages in one leaf of the index.
const LEAF_PAGES: u64 = 1024;

/// A guest's pages in our address space, mapped as they are asked for, and kept.
///
/// A mapping costs several times what a copy of its pages does, and its end again as much; so it is made once for each page. A page
/// whose frame has changed is mapped anew.
pub(super) struct GuestMemory {
    domid: DomId,
    mappings: Vec<Mapping>,
    /// Where each page is, in leaves that are there when one of their pages is.
    index: Vec<Option<Box<[Slot; LEAF_PAGES as usize]>>>,
    /// Slots of pages that are mapped elsewhere by now.
    stale: usize,
}

/// Where a page is mapped.
#[derive(Clone, Copy)]
struct Slot {
    mapping: u32,
    page: u32,
    /// The frame that it was then.
    frame: u64,
}

/// No page is there.
const NOWHERE: Slot = Slot { mapping: u32::MAX, page: 0, frame: u64::MAX };

/// Words of a page that are compared before it is asked whether they are the same.
const STEP_WORDS: usize = 8;

/// More dead slots than this, and everything is mapped anew as it is asked for.
const MAX_STALE: usize = 256 * 1024;

/// So many pages are mapped by one call. For as long as it takes the kernel lets no other thread of this process change its memory, nor take a
/// page fault: the one that the other host listens for would be taken for dead.
const MAP_AT_ONCE: usize = 2048;

/// As many mappings, and everything is mapped anew: a process may have 65,530 (`vm.max_map_count`), and a large guest is more.
const MAX_MAPPINGS: usize = 32 * 1024;

impl GuestMemory {
    pub(super) fn new(domid: DomId) -> Self {
        GuestMemory { domid, mappings: Vec::new(), index: Vec::new(), stale: 0 }
    }

    /// Forgets every mapping: the guest's memory may have other frames now.
    pub(super) fn forget(&mut self) {
        self.mappings.clear();
        self.index.clear();
        self.stale = 0;
    }

    /// Maps those of the pages that are not mapped yet; each comes with its frame (for HVM and PVH, its own number). A page that
    /// cannot be mapped is left out: [`GuestMemory::read`] and [`GuestMemory::pages_mut`] tell.
    pub(super) fn map(
        &mut self,
        foreign: &ForeignMemory,
        access: Access,
        pages: impl Iterator<Item = (Pfn, u64)>,
    ) -> Result<(), XenError> {
        if self.stale > MAX_STALE || self.mappings.len() >= MAX_MAPPINGS {
            self.forget();
        }
        let (mut pfns, mut frames) = (Vec::new(), Vec::new());
        for (pfn, frame) in pages.filter(|(pfn, frame)| self.slot(*pfn).frame != *frame) {
            pfns.push(pfn);
            frames.push(frame);
        }
        for (pfns, frames) in pfns.chunks(MAP_AT_ONCE).zip(frames.chunks(MAP_AT_ONCE)) {
            let mapped = foreign.map_partial(self.domid, access, frames)?;
            let mapping = self.mappings.len() as u32;
            for (page, (&pfn, &frame)) in pfns.iter().zip(frames).enumerate() {
                let there = mapped.page_error(page).is_none();
                let slot = if there { Slot { mapping, page: page as u32, frame } } else { NOWHERE };
                self.set_slot(pfn, slot);
            }
            self.mappings.push(mapped);
        }
        Ok(())
    }

    /// Copies a page, if it is mapped.
    pub(super) fn read(&self, pfn: Pfn, out: &mut Page) -> bool {
        let slot = self.slot(pfn);
        match self.mappings.get(slot.mapping as usize) {
            Some(mapping) => {
                mapping.read_page(slot.page as usize, out);
                true
            }
            None => false,
        }
    }

    /// A page's words, two by two, if it is mapped: for who goes over all of a guest's memory, and needs none of it for longer.
    pub(super) fn word_pairs(&self, pfn: Pfn) -> Option<impl Iterator<Item = u128>> {
        // A page begins where a word may.
        #[allow(clippy::cast_ptr_alignment)]
        let there = self.pointer(pfn)?.cast::<u64>();
        // SAFETY: the page is mapped, and has so many words; volatile, as others may write to it.
        let word = move |at| u128::from(unsafe { there.add(at).read_volatile() });
        Some((0..PAGE_SIZE / 8).step_by(2).map(move |at| word(at) | word(at + 1) << 64))
    }

    /// Whether a page has this content, if it is mapped. While somebody writes to it the answer may be either.
    pub(super) fn is_same(&self, pfn: Pfn, page: &Page) -> Option<bool> {
        // A page begins where a word may.
        #[allow(clippy::cast_ptr_alignment)]
        let there = self.pointer(pfn)?.cast::<u64>();
        let differs = |any, (at, word): (usize, &[u8])| {
            // SAFETY: the page is mapped, and has so many words; volatile, as others may write to it.
            let other = unsafe { there.add(at).read_volatile() };
            any | (other ^ u64::from_ne_bytes(word.try_into().expect("a word")))
        };
        let mut words = (0..).zip(page.chunks_exact(8));
        Some((0..PAGE_SIZE / 8 / STEP_WORDS).all(|_| words.by_ref().take(STEP_WORDS).fold(0, differs) == 0))
    }

    /// Writes a page, if it is mapped (for writing).
    pub(super) fn write(&mut self, pfn: Pfn, page: &Page) -> bool {
        let slot = self.slot(pfn);
        match self.mappings.get_mut(slot.mapping as usize) {
            Some(mapping) => {
                mapping.write_page(slot.page as usize, page);
                true
            }
            None => false,
        }
    }

    /// Where a page is, if it is mapped: for as long as nothing is forgotten.
    pub(super) fn pointer(&self, pfn: Pfn) -> Option<*const u8> {
        let slot = self.slot(pfn);
        Some(self.mappings.get(slot.mapping as usize)?.page_ptr(slot.page as usize))
    }

    /// The first of these pages, and those that follow it there where they are mapped for writing. The guest must not run.
    pub(super) fn pages_mut(&mut self, pfns: &[Pfn]) -> Option<&mut [Page]> {
        let first = self.slot(*pfns.first()?);
        let follows = |(pfn, page): &(&Pfn, u32)| {
            let slot = self.slot(**pfn);
            slot.mapping == first.mapping && slot.page == *page
        };
        let count = pfns.iter().zip(first.page..).take_while(follows).count();
        let mapping = self.mappings.get_mut(first.mapping as usize)?;
        // SAFETY: the seam has a page written only while its guest stands still, and a guest that is being restored has neither
        // device model nor backends yet.
        Some(unsafe { mapping.pages_mut(first.page as usize, count) })
    }

    fn slot(&self, pfn: Pfn) -> Slot {
        match self.index.get((pfn.0 / LEAF_PAGES) as usize) {
            Some(Some(leaf)) => leaf[(pfn.0 % LEAF_PAGES) as usize],
            _ => NOWHERE,
        }
    }

    fn set_slot(&mut self, pfn: Pfn, slot: Slot) {
        let leaf = (pfn.0 / LEAF_PAGES) as usize;
        if leaf >= self.index.len() {
            self.index.resize_with(leaf + 1, || None);
        }
        let leaf = self.index[leaf].get_or_insert_with(|| Box::new([NOWHERE; LEAF_PAGES as usize]));
        let old = std::mem::replace(&mut leaf[(pfn.0 % LEAF_PAGES) as usize], slot);
        self.stale += usize::from(old.mapping != NOWHERE.mapping);
    }
}
