//! The memory that `/dirty/N` writes: load for the dirty log.

use crate::{body, sum::Sum};

/// 64-bit words in a page of 4 KiB.
pub const PAGE_WORDS: usize = 512;

/// A run of pages, written round and round.
///
/// ```
/// let mut arena = colo_guest::arena::Arena::new(vec![0; 4 * 512].leak());
/// arena.dirty(3).unwrap();
/// assert!(arena.dirty(5).is_err());
/// ```
pub struct Arena {
    words: &'static mut [u64],
    /// Pages written since the start: says which page is next, and what is written.
    written: u64,
}

/// More pages were asked for than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl Arena {
    /// An arena over `words`, of which whole pages are used.
    pub fn new(words: &'static mut [u64]) -> Self {
        Self { words, written: 0 }
    }

    /// Pages in the arena.
    pub fn pages(&self) -> u64 {
        (self.words.len() / PAGE_WORDS) as u64
    }

    /// Writes one word into each of the next `count` pages, different pages all; every write changes its page.
    ///
    /// # Errors
    /// [`TooMany`] if there are fewer pages; then none is written.
    pub fn dirty(&mut self, count: u64) -> Result<(), TooMany> {
        let pages = self.pages();
        if count > pages {
            return Err(TooMany);
        }
        for _ in 0..count {
            let page = (self.written % pages) as usize;
            // Another word of the page each time round, so that not only the first bytes of pages ever differ.
            let word = (self.written / pages) as usize % PAGE_WORDS;
            self.words[page * PAGE_WORDS + word] = body::word(self.written) | 1;
            self.written += 1;
        }
        Ok(())
    }

    /// Takes the arena into `sum`: how often it was written, and the contents of the pages ever written.
    pub fn add_to(&self, sum: &mut Sum) {
        sum.add_word(self.written);
        let pages = self.written.min(self.pages()) as usize;
        for word in &self.words[..pages * PAGE_WORDS] {
            sum.add_word(*word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn sum(arena: &Arena) -> u64 {
        let mut sum = Sum::default();
        arena.add_to(&mut sum);
        sum.value()
    }

    #[test]
    fn each_call_changes_exactly_so_many_pages() {
        let mut arena = Arena::new(vec![0; 10 * PAGE_WORDS + 5].leak());
        assert_eq!(arena.pages(), 10);
        for count in [0, 1, 7, 10, 10, 3] {
            let before = arena.words.to_vec();
            arena.dirty(count).expect("few enough");
            let pages = |words: &[u64]| {
                words
                    .chunks(PAGE_WORDS)
                    .map(<[u64]>::to_vec)
                    .collect::<vec::Vec<_>>()
            };
            let changed = pages(&before)
                .iter()
                .zip(pages(arena.words))
                .filter(|(a, b)| *a != b)
                .count();
            assert_eq!(changed as u64, count);
        }
    }

    #[test]
    fn too_many_pages_change_nothing() {
        let mut arena = Arena::new(vec![0; 2 * PAGE_WORDS].leak());
        let before = sum(&arena);
        assert_eq!(arena.dirty(3), Err(TooMany));
        assert_eq!(sum(&arena), before);
        arena.dirty(2).expect("few enough");
        assert_ne!(sum(&arena), before);
    }

    #[test]
    fn an_empty_arena_is_no_trouble() {
        let mut arena = Arena::new(&mut []);
        assert_eq!(arena.dirty(0), Ok(()));
        assert_eq!(arena.dirty(1), Err(TooMany));
    }
}
