//! The body of `/bytes/N`: the same bytes everywhere, made from their position alone.
//!
//! The stream is a sequence of 64-bit words, least significant byte first. Word number `i` is the output function of
//! SplitMix64 applied to `(i + 1) * 0x9e3779b97f4a7c15` (Steele, Lea, Flood: "Fast splittable pseudorandom number
//! generators", OOPSLA 2014), which is the `i`-th output of that generator seeded with 0. So any range can be made, and
//! checked, without what comes before it, and `/bytes/M` is a prefix of `/bytes/N` for `M <= N`.
//!
//! This file uses `core` alone, so that the host's side can include it to check what it downloads.

/// Bytes in a word of the stream.
const WORD_BYTES: usize = 8;

/// The word number `index` of the stream.
#[inline]
pub fn word(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills `out` with the stream's bytes from byte number `offset` on.
pub fn fill(offset: u64, out: &mut [u8]) {
    let mut index = offset / WORD_BYTES as u64;
    let within = (offset % WORD_BYTES as u64) as usize;
    let mut rest = out;
    if within != 0 {
        let count = rest.len().min(WORD_BYTES - within);
        let (head, tail) = rest.split_at_mut(count);
        head.copy_from_slice(&word(index).to_le_bytes()[within..within + count]);
        rest = tail;
        index += 1;
    }
    let mut words = rest.chunks_exact_mut(WORD_BYTES);
    for chunk in &mut words {
        chunk.copy_from_slice(&word(index).to_le_bytes());
        index += 1;
    }
    let tail = words.into_remainder();
    tail.copy_from_slice(&word(index).to_le_bytes()[..tail.len()]);
}

/// Compares `bytes` with the stream from byte number `offset` on: the first position in `bytes` that differs.
pub fn first_difference(offset: u64, bytes: &[u8]) -> Option<usize> {
    let mut expected = [0; 1024];
    let mut done = 0;
    for chunk in bytes.chunks(expected.len()) {
        let expected = &mut expected[..chunk.len()];
        fill(offset + done as u64, expected);
        if let Some(at) = chunk.iter().zip(expected.iter()).position(|(a, b)| a != b) {
            return Some(done + at);
        }
        done += chunk.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of SplitMix64 with seed 0, as published with the reference implementation.
    #[test]
    fn known_words() {
        assert_eq!(word(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(word(1), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(word(2), 0x06c4_5d18_8009_454f);
    }

    #[test]
    fn any_range_is_a_part_of_the_whole() {
        let mut whole = [0; 100];
        fill(0, &mut whole);
        for start in 0..whole.len() {
            for end in start..whole.len() {
                let mut part = [0; 100];
                let part = &mut part[..end - start];
                fill(start as u64, part);
                assert_eq!(part, &whole[start..end]);
            }
        }
    }

    #[test]
    fn a_difference_is_found_where_it_is() {
        let mut bytes = [0; 5000];
        fill(77, &mut bytes);
        assert_eq!(first_difference(77, &bytes), None);
        assert_eq!(first_difference(78, &bytes), Some(0));
        for at in [0, 1023, 1024, 4999] {
            let mut wrong = bytes;
            wrong[at] ^= 1;
            assert_eq!(first_difference(77, &wrong), Some(at));
        }
    }
}
