use super::batch::page_mut;
use crate::ids::{PAGE_SIZE, Page, Pfn};

/// Pages of a chunk: no more than a batch has, and what the hardware likes.
const CHUNK_PAGES: u64 = 512;
const CHUNK_BYTES: usize = CHUNK_PAGES as usize * PAGE_SIZE;

/// What is in a chunk that nothing was put into.
static ZEROES: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// A guest's memory, in chunks that are there when something was put into one of their pages. A machine of Xen's has a million page
/// numbers below 4 GiB, however small it is.
#[derive(Default, Debug)]
pub(super) struct PageCache {
    chunks: Vec<Option<Box<[u8]>>>,
}

impl PageCache {
    /// Whether the page does not lie beside the one before it.
    pub(super) fn begins_chunk(pfn: Pfn) -> bool {
        pfn.0 % CHUNK_PAGES == 0
    }

    /// A page, to be written.
    pub(super) fn page_mut(&mut self, pfn: Pfn) -> &mut Page {
        let chunk = (pfn.0 / CHUNK_PAGES) as usize;
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        // Zeroes that come as memory which is mapped when it is written.
        let chunk = self.chunks[chunk].get_or_insert_with(|| vec![0; CHUNK_BYTES].into_boxed_slice());
        page_mut(chunk, offset(pfn))
    }

    /// A page.
    pub(super) fn page(&self, pfn: Pfn) -> &Page {
        self.pages(pfn, 1).try_into().expect("a page")
    }

    /// So many pages from this one on.
    ///
    /// # Panics
    /// When they do not lie in one chunk.
    pub(super) fn pages(&self, first: Pfn, count: usize) -> &[u8] {
        let chunk = self.chunks.get((first.0 / CHUNK_PAGES) as usize);
        let chunk = chunk.and_then(Option::as_deref).unwrap_or(&ZEROES);
        &chunk[offset(first)..][..count * PAGE_SIZE]
    }
}

/// Where a page begins in its chunk.
fn offset(pfn: Pfn) -> usize {
    (pfn.0 % CHUNK_PAGES) as usize * PAGE_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::ModelDomain;
    use crate::domain::{Control, DirtyLog};
    use crate::restore::{ColoRestore, RestoreCallbacks};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn memory_is_made_where_there_are_pages() {
        let mut cache = PageCache::default();
        cache.page_mut(Pfn(0xf_efff)).fill(7);
        cache.page_mut(Pfn(3)).fill(1);
        assert_eq!(cache.chunks.iter().flatten().count(), 2);
        assert!(cache.pages(Pfn(0xf_efff), 1).iter().all(|byte| *byte == 7));
        assert!(cache.pages(Pfn(512), 512).iter().all(|byte| *byte == 0), "a chunk that is not there");
        assert_eq!(cache.pages(Pfn(2), 3).iter().map(|byte| u64::from(*byte)).sum::<u64>(), 4096);
    }

    proptest! {
        /// What was received is in the guest after a flush, and what the guest itself has written since is not.
        #[test]
        fn a_guest_becomes_what_was_received(
            received in prop::collection::btree_map(0_u64..1600, 1_u8.., 0..40),
            written in prop::collection::btree_set(0_u64..1600, 0..40),
        ) {
            let mut domain = ModelDomain::new("sparse", 1600);
            let mut restore = ColoRestore::default();
            restore.init(domain.spec()).unwrap();
            for (pfn, fill) in &received {
                restore.get_page(&mut domain, Pfn(*pfn)).unwrap().fill(*fill);
            }
            restore.flush_memory(&mut domain).unwrap();
            let state = crate::domain::State::save_state(&mut domain).unwrap();
            restore.finish_restore(&mut domain, &state).unwrap();
            written.iter().for_each(|pfn| domain.store(*pfn as usize * PAGE_SIZE, &[99]));
            prop_assert_eq!(domain.dirty_log_kind(), "model");
            let flushed = restore.flush_memory(&mut domain).unwrap();
            prop_assert_eq!(flushed.written_pages, written.len() as u64);
            let there: BTreeMap<u64, u8> = domain.ram().chunks(PAGE_SIZE).zip(0..)
                .filter(|(page, _)| page[0] != 0).map(|(page, pfn)| (pfn, page[0])).collect();
            prop_assert_eq!(there, received);
        }
    }
}
