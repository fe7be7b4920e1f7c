//! Chance that can be had again: the same seed gives the same numbers.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Numbers of a seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A seed that is another one each time, and short enough to be typed.
    pub(crate) fn any_seed() -> u64 {
        RandomState::new().build_hasher().finish() % 1_000_000
    }

    /// Chance for somebody else, who takes from it when he will.
    pub(crate) fn split(&mut self) -> Random {
        Random(self.next())
    }

    /// The next number.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// So many moments of a time, one in each of as many equal parts of it: so none of its parts is left out.
    pub(crate) fn moments(&mut self, count: u32, whole: Duration) -> Vec<Duration> {
        let part = whole / count.max(1);
        (0..count).map(|number| part * number + part.mul_f64(self.next() as f64 / u64::MAX as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_in_each_part_and_the_same_again() {
        let whole = Duration::from_secs(6);
        let moments = Random::new(7).moments(6, whole);
        for (number, moment) in moments.iter().enumerate() {
            assert_eq!(moment.as_secs(), number as u64, "{moments:?}");
        }
        assert_eq!(moments, Random::new(7).moments(6, whole));
        assert_ne!(moments, Random::new(8).moments(6, whole));
        assert!(Random::new(7).moments(0, whole).is_empty());
    }
}
