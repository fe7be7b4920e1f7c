use super::{GuestType, XenDomain};
use crate::domain::{Control as _, DirtyBitmap, DirtyLog, DomainError, MAX_BATCH_PAGES, Pages, RunState};
use crate::ids::{PAGE_SIZE, Pfn};
use crate::random;
use crate::stream::PageType;
use foldhash::quality::FixedState;
use std::hash::{BuildHasher, Hasher};
use std::time::Instant;
use xen_sys::ctrl;

/// How dirty pages are found.
pub(super) enum DirtyLogState {
    Off,
    /// By the hypervisor's log.
    Hypervisor {
        /// Room for its bitmap.
        words: Vec<u64>,
    },
    /// By comparing every page with what was last captured of it: for PV guests on a hypervisor without shadow paging, which has no
    /// log for them.
    Comparing(Captured),
    /// Not before the guest's memory is written, by comparing it with what is to be written: for such a guest, too, that runs beside its
    /// primary.
    WhenWritten,
}

impl DirtyLogState {
    pub(super) fn is_off(&self) -> bool {
        matches!(self, DirtyLogState::Off)
    }
}

impl XenDomain {
    /// Switches the hypervisor's log on; `false` where it has none for such a guest.
    fn enable_hypervisor_log(&mut self) -> Result<bool, DomainError> {
        let on = self.control.enable_log_dirty(self.domid);
        let on = match on {
            // It may be on already, for the sake of the screen's memory.
            Err(error) if !error.is_unsupported() => {
                self.control.disable_log_dirty(self.domid)?;
                self.control.enable_log_dirty(self.domid)
            }
            on => on,
        };
        match on {
            Ok(()) => Ok(true),
            Err(error) if error.is_unsupported() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What has been written since the last time, without what is no page of the guest's own: the page that it shares with the
    /// hypervisor and its grant table are in its reach, but a restored guest gets others.
    fn clean_hypervisor_log(&mut self, words: &mut [u64]) -> Result<(), DomainError> {
        self.control.clean_log_dirty(self.domid, self.spec.pfn_limit, words, false)?;
        if self.guest_type == GuestType::Pv {
            return Ok(());
        }
        // After the log has been taken: what is found now at another place than before is in this log or in the next.
        self.follow_memory()?;
        let mut types = Vec::new();
        keep_existing(words, |gfns| {
            types.resize(gfns.len(), 0);
            self.control.page_types(self.domid, gfns, &mut types)?;
            Ok(types.iter().map(|page_type| *page_type != ctrl::XEN_DOMCTL_PFINFO_XTAB).collect())
        })
    }

    /// Switches the hypervisor's log off, and the device model's: each, even if the other cannot be.
    pub(super) fn stop_logging(&mut self) -> Result<(), DomainError> {
        let device_model = self.set_device_model_log(false);
        self.control.disable_log_dirty(self.domid)?;
        device_model
    }

    /// Switches the logs off that another may have left on, who is gone.
    pub(super) fn stop_left_logging(&mut self) -> Result<(), DomainError> {
        // QEMU's assertions end it when a log is switched off that is not on; to switch it on twice is nothing to it.
        let device_model = self.set_device_model_log(true).and_then(|()| self.set_device_model_log(false));
        self.control.disable_log_dirty(self.domid)?;
        device_model
    }

    /// Adds to `into` every page that is not what was last captured.
    fn compare(&mut self, captured: &Captured, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        let mut pages = DirtyBitmap::new(self.spec.pfn_limit);
        self.populated(&mut pages)?;
        // A page that is gone has no content: it is not what it was either.
        captured.pages().for_each(|pfn| pages.set(pfn));
        let mut pfns = pages.iter().peekable();
        let mut types = Vec::new();
        while pfns.peek().is_some() {
            let batch: Vec<Pfn> = pfns.by_ref().take(MAX_BATCH_PAGES).collect();
            // Where they are: a guest's whole memory copied first would take as long again.
            self.look_pv(&batch, &mut types, |memory, pfn, page_type| {
                let Some(page) = memory.word_pairs(pfn) else { return false };
                if !captured.has(pfn, page_type, page) {
                    into.set(pfn);
                }
                true
            })?;
            let without = batch.iter().zip(&types).filter(|(_, page_type)| !page_type.has_data());
            without
                .filter(|(pfn, page_type)| !captured.has(**pfn, **page_type, []))
                .for_each(|(pfn, _)| into.set(*pfn));
        }
        Ok(())
    }

    /// Notes what has been captured, as it was in the guest, where it will be compared with what comes after.
    pub(super) fn note_captured(&mut self, pfns: &[Pfn], types: &[PageType], data: &[u8]) {
        if let DirtyLogState::Comparing(captured) = &mut self.log {
            for_each_page(pfns, types, data, |pfn, page_type, page| captured.note(pfn, page_type, page));
        }
    }
}

/// Takes out of a bitmap those pages that `exists` does not know; it is asked for so many at a time as one call can hold.
fn keep_existing(
    words: &mut [u64],
    mut exists: impl FnMut(&[u64]) -> Result<Vec<bool>, DomainError>,
) -> Result<(), DomainError> {
    let mut gfns = Vec::with_capacity(MAX_BATCH_PAGES);
    for first in (0..words.len()).step_by(MAX_BATCH_PAGES / 64) {
        let end = words.len().min(first + MAX_BATCH_PAGES / 64);
        gfns.clear();
        for (index, word) in words[first..end].iter().enumerate().filter(|(_, word)| **word != 0) {
            let gfn = (first + index) as u64 * 64;
            gfns.extend((0..64).filter(|bit| word & (1 << bit) != 0).map(|bit| gfn + bit));
        }
        if gfns.is_empty() {
            continue;
        }
        for (gfn, exists) in gfns.iter().zip(exists(&gfns)?) {
            if !exists {
                words[(gfn / 64) as usize] &= !(1 << (gfn % 64));
            }
        }
    }
    Ok(())
}

/// What was last captured of each page, as a hash of its type and content, by numbers that no guest knows.
pub(super) struct Captured {
    hashes: Vec<u128>,
    /// Each makes one half.
    halves: [FixedState; 2],
}

/// The hash of no page.
const NOT_CAPTURED: u128 = 0;

impl Captured {
    /// Nothing, of a domain with so many pages.
    fn nothing(pfn_limit: u64) -> Captured {
        let hashes = vec![NOT_CAPTURED; pfn_limit as usize];
        Captured { hashes, halves: [(), ()].map(|()| FixedState::with_seed(random::number())) }
    }

    /// The pages of which something was.
    fn pages(&self) -> impl Iterator<Item = Pfn> {
        (0..).map(Pfn).zip(&self.hashes).filter(|(_, hash)| **hash != NOT_CAPTURED).map(|(pfn, _)| pfn)
    }

    fn has(&self, pfn: Pfn, page_type: PageType, page: impl IntoIterator<Item = u128>) -> bool {
        self.hashes[pfn.0 as usize] == self.hash_of(page_type, page)
    }

    fn note(&mut self, pfn: Pfn, page_type: PageType, page: &[u8]) {
        self.hashes[pfn.0 as usize] = self.hash_of(page_type, word_pairs(page));
    }

    /// By two words at a time: by bytes, and by single words, these hashes take several times as long.
    fn hash_of(&self, page_type: PageType, page: impl IntoIterator<Item = u128>) -> u128 {
        let [mut high, mut low] = self.halves.each_ref().map(BuildHasher::build_hasher);
        for pair in page {
            high.write_u128(pair);
            low.write_u128(pair);
        }
        let [high, low] = [high, low].map(|mut half| {
            half.write_u32(page_type as u32);
            u128::from(half.finish())
        });
        (high << 64 | low) | 1
    }
}

/// As [`GuestMemory::word_pairs`](super::memory::GuestMemory::word_pairs).
fn word_pairs(page: &[u8]) -> impl Iterator<Item = u128> {
    page.chunks_exact(16).map(|pair| u128::from_le_bytes(pair.try_into().expect("two words")))
}

/// Calls with each page: its type, and its content where it has any.
fn for_each_page(pfns: &[Pfn], types: &[PageType], data: &[u8], mut with: impl FnMut(Pfn, PageType, &[u8])) {
    let mut rest = data.chunks_exact(PAGE_SIZE);
    for (&pfn, &page_type) in pfns.iter().zip(types) {
        with(pfn, page_type, if page_type.has_data() { rest.next().unwrap_or_default() } else { &[] });
    }
}

impl DirtyLog for XenDomain {
    fn dirty_log_kind(&self) -> &'static str {
        match self.log {
            DirtyLogState::Off => "off",
            DirtyLogState::Hypervisor { .. } => "log-dirty",
            DirtyLogState::Comparing(_) | DirtyLogState::WhenWritten => "comparing",
        }
    }

    fn enable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.log = DirtyLogState::Off;
        self.find_events()?;
        // Seen once: a guest that ran on another CPU at that moment took a triple fault.
        let stands_still = self.has_twin && self.guest_type != GuestType::Pv;
        if stands_still {
            self.control.pause(self.domid)?;
        }
        let on = self.enable_hypervisor_log();
        if stands_still {
            self.control.unpause(self.domid)?;
        }
        if on? {
            // What the device model writes is not the hypervisor's to see.
            if let Err(error) = self.set_device_model_log(true) {
                // Not the device model's: it has none, and would end for being told to stop it.
                let _ = self.control.disable_log_dirty(self.domid);
                return Err(error);
            }
            self.log = DirtyLogState::Hypervisor { words: vec![0; self.spec.pfn_limit.div_ceil(64) as usize] };
            return Ok(());
        }
        if self.guest_type != GuestType::Pv {
            return Err(DomainError::Other("this hypervisor logs no dirty pages".into()));
        }
        tracing::info!(
            "this hypervisor has no shadow paging: dirty pages of {} are found by comparing",
            self.spec.name
        );
        if self.flushes_whole() {
            self.log = DirtyLogState::WhenWritten;
            return Ok(());
        }
        self.log = DirtyLogState::Comparing(Captured::nothing(self.spec.pfn_limit));
        Ok(())
    }

    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.hold_shared_pages()?;
        match std::mem::replace(&mut self.log, DirtyLogState::Off) {
            DirtyLogState::Off => return Err(DomainError::DirtyLogOff),
            DirtyLogState::Hypervisor { mut words } => {
                let taken = self.clean_hypervisor_log(&mut words);
                into.union_words(&words);
                self.log = DirtyLogState::Hypervisor { words };
                taken?;
            }
            DirtyLogState::Comparing(captured) => {
                let began = Instant::now();
                let compared = self.compare(&captured, into);
                tracing::debug!("{}: compared in {:?}", self.spec.name, began.elapsed());
                self.log = DirtyLogState::Comparing(captured);
                compared?;
            }
            DirtyLogState::WhenWritten => self.log = DirtyLogState::WhenWritten,
        }
        self.take_deferred(into);
        self.add_unlogged(into)
    }

    fn disable_dirty_log(&mut self) -> Result<(), DomainError> {
        let log = std::mem::replace(&mut self.log, DirtyLogState::Off);
        // Nobody looks into the guest from here on, and a page that is mapped cannot go when the guest gives it up.
        self.memory.get_mut().forget();
        if matches!(log, DirtyLogState::Hypervisor { .. }) && self.run_state() != RunState::ShutDown {
            return self.stop_logging();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_page_is_what_was_captured_only_with_each_of_its_bits() {
        let mut captured = Captured::nothing(3);
        let mut page = [0; PAGE_SIZE];
        captured.note(Pfn(1), PageType::Normal, &page);
        captured.note(Pfn(2), PageType::Invalid, &[]);
        assert_eq!(captured.pages().collect::<Vec<_>>(), [Pfn(1), Pfn(2)]);
        let has = |pfn, page_type, page: &[u8]| captured.has(Pfn(pfn), page_type, word_pairs(page));
        assert!(has(1, PageType::Normal, &page) && has(2, PageType::Invalid, &[]));
        assert!(!has(0, PageType::Normal, &page) && !has(2, PageType::Normal, &page));
        assert!(!has(1, PageType::L1, &page) && !has(1, PageType::Invalid, &[]));
        for bit in 0..8 * PAGE_SIZE {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(!has(1, PageType::Normal, &page), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }

    proptest! {
        #[test]
        fn what_does_not_exist_is_taken_out(
            dirty in prop::collection::btree_set(0_u64..5000, 0..1500),
            there in prop::collection::btree_set(0_u64..5000, 0..3000),
        ) {
            let mut words = vec![0; 5000_usize.div_ceil(64)];
            dirty.iter().for_each(|gfn| words[(gfn / 64) as usize] |= 1 << (gfn % 64));
            let mut asked = Vec::new();
            keep_existing(&mut words, |gfns| {
                assert!((1..=MAX_BATCH_PAGES).contains(&gfns.len()));
                asked.extend_from_slice(gfns);
                Ok(gfns.iter().map(|gfn| there.contains(gfn)).collect())
            }).unwrap();
            let mut kept = DirtyBitmap::new(5000);
            kept.union_words(&words);
            let kept: BTreeSet<u64> = kept.iter().map(|pfn| pfn.0).collect();
            prop_assert_eq!(kept, &dirty & &there);
            prop_assert_eq!(asked, dirty.into_iter().collect::<Vec<_>>());
        }
    }
}
