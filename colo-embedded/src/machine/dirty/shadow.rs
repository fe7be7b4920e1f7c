use super::DirtyTracker;
use crate::machine::ram::GuestRam;
use colo_core::domain::{DirtyBitmap, DomainError};
use colo_core::ids::{PAGE_SIZE, Page, Pfn};

/// A second copy of memory, as it was when the dirty log was last taken; what differs from it is dirty.
///
/// The copy holds what the engine *may have read*. A page that was read with other content, while the guest ran, is marked
/// dirty for good, since the guest could put the old content back before the next comparison.
#[derive(Default)]
pub(crate) struct ShadowLog {
    /// One entry for each page; `None` stands for zeroes. Empty while the log is off.
    copy: Vec<Option<Box<Page>>>,
}

/// What a page without a copy is compared with.
static ZEROES: Page = [0; PAGE_SIZE];

impl ShadowLog {
    fn shadow(&self, pfn: Pfn) -> Option<&Page> {
        self.copy.get(pfn.0 as usize).map(|page| page.as_deref().unwrap_or(&ZEROES))
    }

    /// Makes the copy of a page what the page is now, whatever it is.
    fn refresh(&mut self, ram: &GuestRam, pfn: Pfn) -> Result<(), DomainError> {
        let page = self.copy[pfn.0 as usize].get_or_insert_with(|| Box::new(ZEROES));
        ram.read_page(pfn, page)
    }
}

impl DirtyTracker for ShadowLog {
    fn kind(&self) -> &'static str {
        "shadow compare"
    }

    fn enable(&mut self, ram: &GuestRam) -> Result<(), DomainError> {
        self.copy.resize_with(ram.pfn_limit() as usize, || None);
        let mut unused = DirtyBitmap::new(ram.pfn_limit());
        self.take(ram, &mut unused)
    }

    fn take(&mut self, ram: &GuestRam, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        let mut result = Ok(());
        ram.for_each_populated_run(|first, pages| {
            for pfn in (first.0..first.0 + pages).map(Pfn) {
                if self.shadow(pfn).is_some_and(|shadow| ram.page_differs(pfn, shadow)) {
                    into.set(pfn);
                    let refreshed = self.refresh(ram, pfn);
                    if result.is_ok() {
                        result = refreshed;
                    }
                }
            }
        })?;
        result
    }

    fn disable(&mut self) {
        self.copy = Vec::new();
    }

    fn page_was_read(&self, ram: &GuestRam, pfn: Pfn, content: &Page) {
        if self.shadow(pfn).is_some_and(|shadow| shadow != content) {
            ram.mark_device_dirty(pfn);
        }
    }

    fn page_will_be_written(&mut self, ram: &GuestRam, pfn: Pfn, content: &Page) {
        let Some(shadow) = self.shadow(pfn) else {
            return;
        };
        // What the guest wrote here before is not to be forgotten.
        if ram.is_populated(pfn).unwrap_or(true) && ram.page_differs(pfn, shadow) {
            ram.mark_device_dirty(pfn);
        }
        if shadow != content {
            self.copy[pfn.0 as usize] = Some(Box::new(*content));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: u64 = 16;

    #[derive(Clone, Debug)]
    enum Step {
        /// The guest fills a page.
        GuestWrites(u64, u8),
        /// The engine overwrites a page.
        EngineWrites(u64, u8),
        /// The engine reads a page while the guest runs.
        LiveRead(u64),
        Take,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..PAGES, 0_u8..3).prop_map(|(pfn, byte)| Step::GuestWrites(pfn, byte)),
            (0..PAGES, 0_u8..3).prop_map(|(pfn, byte)| Step::EngineWrites(pfn, byte)),
            (0..PAGES).prop_map(Step::LiveRead),
            Just(Step::Take),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// The engine's view of each page (what it last read or wrote) is right after each take, but for the pages reported.
        #[test]
        fn never_hides_a_page_that_the_engine_has_wrong(steps in steps()) {
            let ram = GuestRam::new(PAGES * PAGE_SIZE as u64).unwrap();
            let mut log = ShadowLog::default();
            log.enable(&ram).unwrap();
            let mut view = [0_u8; PAGES as usize];
            let mut now = view;
            for step in steps {
                match step {
                    Step::GuestWrites(pfn, byte) => {
                        ram.write_page(Pfn(pfn), &[byte; PAGE_SIZE]).unwrap();
                        now[pfn as usize] = byte;
                    }
                    Step::EngineWrites(pfn, byte) => {
                        log.page_will_be_written(&ram, Pfn(pfn), &[byte; PAGE_SIZE]);
                        ram.write_page(Pfn(pfn), &[byte; PAGE_SIZE]).unwrap();
                        now[pfn as usize] = byte;
                        view[pfn as usize] = byte;
                    }
                    Step::LiveRead(pfn) => {
                        let mut page = [0; PAGE_SIZE];
                        ram.read_page(Pfn(pfn), &mut page).unwrap();
                        log.page_was_read(&ram, Pfn(pfn), &page);
                        view[pfn as usize] = page[0];
                    }
                    Step::Take => {
                        let mut dirty = DirtyBitmap::new(PAGES);
                        log.take(&ram, &mut dirty).unwrap();
                        ram.take_device_dirty(&mut dirty);
                        for pfn in 0..PAGES as usize {
                            prop_assert!(dirty.contains(Pfn(pfn as u64)) || view[pfn] == now[pfn], "page {} is missing", pfn);
                        }
                        view = now;
                    }
                }
            }
        }
    }
}
