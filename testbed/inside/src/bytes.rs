//! The bytes that a guest serves: each follows from its place, so that every guest serves the same, and a client knows what to expect.
//!
//! ```
//! use colo_testbed_inside::bytes::fill;
//! let (mut whole, mut end) = ([0; 20], [0; 7]);
//! fill(0, &mut whole);
//! fill(13, &mut end);
//! assert_eq!(whole[13..], end);
//! ```

use crate::memory::mix;

/// Other bytes than those of the guest's memory.
const SEED: u64 = 0x6279_7465;

/// The bytes that begin at this place.
pub fn fill(offset: u64, into: &mut [u8]) {
    let mut at = offset;
    let mut rest = into;
    while !rest.is_empty() {
        let word = mix(SEED.wrapping_add(at / 8)).to_le_bytes();
        let begin = (at % 8) as usize;
        let count = rest.len().min(8 - begin);
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&word[begin..begin + count]);
        at = at.wrapping_add(count as u64);
        rest = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn they_do_not_repeat_and_do_not_change() {
        let mut bytes = [0; 4096];
        fill(0, &mut bytes);
        assert_eq!(bytes[..8], mix(SEED).to_le_bytes());
        let mut words: Vec<&[u8]> = bytes.chunks_exact(8).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 512);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_they_are_asked_for(offset in 0..10_000_u64, cut in 0..100_usize, length in 0..100_usize) {
            let mut whole = vec![0; cut + length];
            fill(offset, &mut whole);
            let mut end = vec![0; length];
            fill(offset + cut as u64, &mut end);
            prop_assert_eq!(&whole[cut..], &end[..]);
        }
    }
}
