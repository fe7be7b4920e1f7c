//! The memory that a guest keeps, so that a wrong page is found: every word of it follows from a seed, its place, and how often
//! its page was rewritten.
//!
//! ```
//! use colo_testbed_inside::memory::Memory;
//! let mut memory = Memory::new(4, 2);
//! memory.dirty(10);
//! let mut checked = memory.check();
//! assert_eq!(checked.wrong_pages, 0);
//! assert_eq!(checked.sum, Memory::expected_sum(4));
//! ```

/// The size of a page.
pub const PAGE_BYTES: usize = 4096;
/// The pages that never change: 32 MiB.
pub const FIXED_PAGES: usize = 8192;
/// The pages that are rewritten while the guest runs: 4 MiB. More would leave too little for Linux in a guest of 128 MiB.
pub const CHANGING_PAGES: usize = 1024;

const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// All pages of all guests follow from it: what is tested is whether pages are mixed up, which one seed shows as well as many.
const SEED: u64 = 0x636f_6c6f;

/// Pages that never change, and pages that do.
pub struct Memory {
    fixed: Vec<u64>,
    changing: Vec<u64>,
    /// How often each of the changing pages was rewritten.
    versions: Vec<u32>,
    /// Which pages are rewritten.
    random: u64,
    /// The next page that [`Memory::check_some`] looks at.
    next: usize,
}

/// What a check has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// The words of the pages that never change, added up.
    pub sum: u64,
    /// Pages that are not what they should be.
    pub wrong_pages: usize,
}

impl Memory {
    /// Fills so many pages of each kind.
    pub fn new(fixed_pages: usize, changing_pages: usize) -> Memory {
        let mut memory = Memory {
            fixed: vec![0; fixed_pages * PAGE_WORDS],
            changing: vec![0; changing_pages * PAGE_WORDS],
            versions: vec![0; changing_pages],
            random: SEED,
            next: 0,
        };
        for (page, words) in memory.fixed.chunks_exact_mut(PAGE_WORDS).enumerate() {
            fill(words, page, 0);
        }
        for (page, words) in memory.changing.chunks_exact_mut(PAGE_WORDS).enumerate() {
            fill(words, fixed_pages + page, 0);
        }
        memory
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        (self.fixed.len() + self.changing.len()) / PAGE_WORDS
    }

    /// Rewrites so many pages, chosen at random, of those that change.
    pub fn dirty(&mut self, pages: usize) {
        if self.versions.is_empty() {
            return;
        }
        for _ in 0..pages {
            self.random = self.random.wrapping_add(1);
            let page = (mix(self.random) % self.versions.len() as u64) as usize;
            self.versions[page] = self.versions[page].wrapping_add(1);
            let words = &mut self.changing[page * PAGE_WORDS..][..PAGE_WORDS];
            fill(words, self.fixed.len() / PAGE_WORDS + page, self.versions[page]);
        }
    }

    /// Checks all pages.
    pub fn check(&self) -> Checked {
        (0..self.pages()).fold(Checked::default(), |checked, page| self.check_page(page, checked))
    }

    /// Checks the next few pages, and begins anew after the last: `true` in the second place if it has just come round.
    pub fn check_some(&mut self, pages: usize) -> (Checked, bool) {
        let end = self.pages().min(self.next.saturating_add(pages));
        let checked = (self.next..end).fold(Checked::default(), |checked, page| self.check_page(page, checked));
        let is_round = end == self.pages();
        self.next = if is_round { 0 } else { end };
        (checked, is_round)
    }

    /// The sum of a right memory with so many pages that never change.
    pub fn expected_sum(fixed_pages: usize) -> u64 {
        (0..fixed_pages * PAGE_WORDS).fold(0, |sum, index| sum.wrapping_add(word(index, 0)))
    }

    fn check_page(&self, page: usize, mut checked: Checked) -> Checked {
        let fixed_pages = self.fixed.len() / PAGE_WORDS;
        let (all, at, version) = match page.checked_sub(fixed_pages) {
            None => (&self.fixed, page, 0),
            Some(changing) => (&self.changing, changing, self.versions[changing]),
        };
        // The compiler must not conclude from how a page was filled what it holds now.
        let words = std::hint::black_box(&all[at * PAGE_WORDS..][..PAGE_WORDS]);
        let base = page * PAGE_WORDS;
        if words.iter().enumerate().any(|(offset, found)| *found != word(base + offset, version)) {
            checked.wrong_pages += 1;
        }
        if page < fixed_pages {
            checked.sum = words.iter().fold(checked.sum, |sum, found| sum.wrapping_add(*found));
        }
        checked
    }
}

fn fill(words: &mut [u64], page: usize, version: u32) {
    for (offset, into) in words.iter_mut().enumerate() {
        *into = word(page * PAGE_WORDS + offset, version);
    }
}

/// What belongs at a place.
fn word(index: usize, version: u32) -> u64 {
    mix(SEED.wrapping_add(index as u64).wrapping_add(u64::from(version) << 32))
}

/// SplitMix64's way to scatter a number's bits.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_right() {
        let mut memory = Memory::new(3, 5);
        assert_eq!(memory.pages(), 8);
        assert_eq!(memory.check(), Checked { sum: Memory::expected_sum(3), wrong_pages: 0 });
        memory.dirty(100);
        assert!(memory.versions.iter().any(|version| *version > 1));
        assert_eq!(memory.check(), Checked { sum: Memory::expected_sum(3), wrong_pages: 0 });
    }

    #[test]
    fn a_wrong_bit_a_swapped_page_and_an_old_page_are_found() {
        let mut memory = Memory::new(3, 5);
        memory.fixed[700] ^= 1;
        let checked = memory.check();
        assert_eq!(checked.wrong_pages, 1);
        assert_ne!(checked.sum, Memory::expected_sum(3));

        let mut memory = Memory::new(3, 5);
        let (first, rest) = memory.fixed.split_at_mut(PAGE_WORDS);
        first.swap_with_slice(&mut rest[..PAGE_WORDS]);
        assert_eq!(memory.check().wrong_pages, 2);

        let mut memory = Memory::new(3, 5);
        let old = memory.changing.clone();
        memory.dirty(1);
        memory.changing = old;
        assert_eq!(memory.check().wrong_pages, 1);
    }

    #[test]
    fn some_at_a_time_see_them_all() {
        let mut memory = Memory::new(3, 5);
        memory.changing[4 * PAGE_WORDS] ^= 1;
        let mut sum = 0_u64;
        for (wrong_pages, is_round) in [(0, false), (0, false), (1, true), (0, false)] {
            let (checked, round) = memory.check_some(3);
            assert_eq!((checked.wrong_pages, round), (wrong_pages, is_round));
            sum = sum.wrapping_add(checked.sum);
        }
        assert_eq!(sum, Memory::expected_sum(3).wrapping_mul(2));
    }

    #[test]
    fn nothing_to_change() {
        let mut memory = Memory::new(1, 0);
        memory.dirty(3);
        assert_eq!(memory.check().wrong_pages, 0);
        assert!(memory.check_some(usize::MAX).1);
    }
}
