use crate::ids::Pfn;

/// Pages in one leaf.
const LEAF_PAGES: u64 = 64 * LEAF_WORDS as u64;
const LEAF_WORDS: usize = 512;

/// A set of pages whose end is not known, and that may have wide holes: 4 KiB for each 128 MiB of a guest in which there is one.
#[derive(Default)]
pub(super) struct PageSet {
    leaves: Vec<Option<Box<[u64; LEAF_WORDS]>>>,
}

impl PageSet {
    /// Adds a page; `false` if it was there.
    pub(super) fn insert(&mut self, pfn: Pfn) -> bool {
        let leaf = (pfn.0 / LEAF_PAGES) as usize;
        if leaf >= self.leaves.len() {
            self.leaves.resize_with(leaf + 1, || None);
        }
        let leaf = self.leaves[leaf].get_or_insert_with(|| Box::new([0; LEAF_WORDS]));
        let (word, bit) = ((pfn.0 % LEAF_PAGES / 64) as usize, 1 << (pfn.0 % 64));
        let new = leaf[word] & bit == 0;
        leaf[word] |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_page_is_new_once(pfns in prop::collection::vec(prop_oneof![0_u64..200, 32_700_u64..32_800, 0_u64..1 << 24], 0..200)) {
            let (mut set, mut model) = (PageSet::default(), BTreeSet::new());
            for pfn in pfns {
                prop_assert_eq!(set.insert(Pfn(pfn)), model.insert(pfn));
            }
        }
    }
}
