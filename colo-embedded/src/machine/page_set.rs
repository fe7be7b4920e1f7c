use colo_core::ids::Pfn;
use std::sync::atomic::{AtomicU64, Ordering};

/// A set of pages that several threads add to.
pub(crate) struct AtomicPageSet {
    words: Vec<AtomicU64>,
}

impl AtomicPageSet {
    /// An empty set of pages below `pfn_limit`.
    pub(crate) fn new(pfn_limit: u64) -> AtomicPageSet {
        AtomicPageSet { words: (0..pfn_limit.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether the page is in the set; one beyond the limit is not.
    pub(crate) fn contains(&self, pfn: Pfn) -> bool {
        self.word(pfn).is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Adds the page, unless it is beyond the limit.
    pub(crate) fn insert(&self, pfn: Pfn) {
        if let Some((word, bit)) = self.word(pfn) {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Takes the page out.
    pub(crate) fn remove(&self, pfn: Pfn) {
        if let Some((word, bit)) = self.word(pfn) {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Empties the set, calling `f` with each page in it, lowest first.
    pub(crate) fn drain(&self, mut f: impl FnMut(Pfn)) {
        for (index, word) in self.words.iter().enumerate() {
            // Most words are empty: a read costs less than an exchange.
            if word.load(Ordering::Acquire) == 0 {
                continue;
            }
            let mut rest = word.swap(0, Ordering::AcqRel);
            while rest != 0 {
                f(Pfn(index as u64 * 64 + u64::from(rest.trailing_zeros())));
                rest &= rest - 1;
            }
        }
    }

    fn word(&self, pfn: Pfn) -> Option<(&AtomicU64, u64)> {
        let word = self.words.get(usize::try_from(pfn.0 / 64).ok()?)?;
        Some((word, 1 << (pfn.0 % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drains_what_was_put_in_once() {
        let set = AtomicPageSet::new(200);
        for pfn in [199, 0, 64, 63, 64] {
            set.insert(Pfn(pfn));
        }
        set.insert(Pfn(5));
        set.remove(Pfn(5));
        assert!(set.contains(Pfn(63)) && !set.contains(Pfn(5)) && !set.contains(Pfn(u64::MAX)));
        let mut drained = Vec::new();
        set.drain(|pfn| drained.push(pfn.0));
        assert_eq!(drained, [0, 63, 64, 199]);
        set.drain(|pfn| panic!("{pfn} is still there"));
    }
}
