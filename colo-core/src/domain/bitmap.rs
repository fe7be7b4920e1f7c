use crate::ids::Pfn;

/// A set of pages below a fixed limit, one bit each.
///
/// ```
/// use colo_core::domain::DirtyBitmap;
/// use colo_core::ids::Pfn;
///
/// let mut dirty = DirtyBitmap::new(100);
/// dirty.set(Pfn(99));
/// dirty.set(Pfn(3));
/// assert_eq!(dirty.iter().collect::<Vec<_>>(), [Pfn(3), Pfn(99)]);
/// assert_eq!(dirty.count(), 2);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirtyBitmap {
    words: Vec<u64>,
    pfn_limit: u64,
}

impl DirtyBitmap {
    /// An empty set of pages below `pfn_limit`.
    pub fn new(pfn_limit: u64) -> Self {
        let words = vec![0; pfn_limit.div_ceil(64) as usize];
        DirtyBitmap { words, pfn_limit }
    }

    /// The first page number that can not be in the set.
    pub fn pfn_limit(&self) -> u64 {
        self.pfn_limit
    }

    /// Adds a page.
    ///
    /// # Panics
    /// When `pfn` is not below the limit.
    pub fn set(&mut self, pfn: Pfn) {
        assert!(pfn.0 < self.pfn_limit, "{pfn} in a bitmap of {}", self.pfn_limit);
        self.words[(pfn.0 / 64) as usize] |= 1 << (pfn.0 % 64);
    }

    /// Adds all pages from `first`, `pages` of them.
    ///
    /// # Panics
    /// When they do not all lie below the limit.
    pub fn set_range(&mut self, first: Pfn, pages: u64) {
        let end = first.0 + pages;
        assert!(end <= self.pfn_limit, "pages {}..{end} in a bitmap of {}", first.0, self.pfn_limit);
        let mut pfn = first.0;
        while pfn < end {
            let bit = pfn % 64;
            let run = (64 - bit).min(end - pfn);
            let ones = if run == 64 { u64::MAX } else { (1 << run) - 1 };
            self.words[(pfn / 64) as usize] |= ones << bit;
            pfn += run;
        }
    }

    /// Whether the page is in the set. A page beyond the limit is not.
    pub fn contains(&self, pfn: Pfn) -> bool {
        pfn.0 < self.pfn_limit && self.words[(pfn.0 / 64) as usize] & (1 << (pfn.0 % 64)) != 0
    }

    /// Adds every page of `other`.
    ///
    /// # Panics
    /// When the limits differ.
    pub fn union(&mut self, other: &DirtyBitmap) {
        assert_eq!(self.pfn_limit, other.pfn_limit, "bitmaps of one domain");
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
    }

    /// Adds every page whose bit is set in `words`: bit 0 of the first is page 0. Bits beyond the limit are left out.
    ///
    /// # Panics
    /// When there are more or fewer words than the limit needs.
    pub fn union_words(&mut self, words: &[u64]) {
        assert_eq!(self.words.len(), words.len(), "bitmaps of one domain");
        for (mine, theirs) in self.words.iter_mut().zip(words) {
            *mine |= theirs;
        }
        let beyond = self.pfn_limit % 64;
        if let Some(last) = self.words.last_mut().filter(|_| beyond != 0) {
            *last &= (1 << beyond) - 1;
        }
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// How many pages are in the set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The pages of the set, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.iter_from(Pfn(0))
    }

    /// The pages of the set from `first` on, lowest first.
    pub fn iter_from(&self, first: Pfn) -> impl Iterator<Item = Pfn> + '_ {
        let start = (first.0 / 64) as usize;
        self.words.iter().enumerate().skip(start).flat_map(move |(index, &word)| {
            let mut rest = if index == start { word & (u64::MAX << (first.0 % 64)) } else { word };
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = u64::from(rest.trailing_zeros());
                    rest &= rest - 1;
                    Pfn(index as u64 * 64 + bit)
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set_of_numbers(
            limit in 1_u64..400,
            ranges in prop::collection::vec((0_u64..400, 0_u64..200), 0..8),
            singles in prop::collection::vec(0_u64..400, 0..20),
        ) {
            let mut bitmap = DirtyBitmap::new(limit);
            let mut model = BTreeSet::new();
            for (first, pages) in ranges {
                let first = first % limit;
                let pages = pages.min(limit - first);
                bitmap.set_range(Pfn(first), pages);
                model.extend(first..first + pages);
            }
            for pfn in singles {
                bitmap.set(Pfn(pfn % limit));
                model.insert(pfn % limit);
            }
            prop_assert_eq!(bitmap.iter().map(|pfn| pfn.0).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            let mut other = DirtyBitmap::new(limit);
            other.union_words(&vec![u64::MAX; limit.div_ceil(64) as usize]);
            prop_assert_eq!(other.count(), limit);
            let from = limit / 2;
            prop_assert_eq!(bitmap.iter_from(Pfn(from)).map(|pfn| pfn.0).collect::<Vec<_>>(), model.range(from..).copied().collect::<Vec<_>>());
            prop_assert_eq!(bitmap.count(), model.len() as u64);
            prop_assert!((0..limit + 70).all(|pfn| bitmap.contains(Pfn(pfn)) == model.contains(&pfn)));
        }
    }
}
