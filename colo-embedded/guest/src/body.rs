//! The reproducible bodies of `/bytes/N`: a byte stream that both ends can produce from any position.
//!
//! The stream is a sequence of 64-bit words, least significant byte first. Word `i` (from 0) is SplitMix64's output number
//! `i` for seed 0 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a counter, well mixed. So any
//! part is made without what is before it, and a byte lost, doubled or moved shows.
//!
//! This file uses `core` alone; clients on the host include it as it is.

/// Writes the stream's bytes from `offset` on into `out`.
pub fn fill(offset: u64, out: &mut [u8]) {
    let mut index = offset / 8;
    let skip = (offset % 8) as usize;
    let mut rest = out;
    if skip != 0 {
        let count = rest.len().min(8 - skip);
        let (head, tail) = rest.split_at_mut(count);
        head.copy_from_slice(&word(index)[skip..skip + count]);
        rest = tail;
        index += 1;
    }
    let mut chunks = rest.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&word(index));
        index += 1;
    }
    let tail = chunks.into_remainder();
    let count = tail.len();
    tail.copy_from_slice(&word(index)[..count]);
}

/// Whether `data` is what the stream holds from `offset` on.
#[must_use]
pub fn matches(offset: u64, data: &[u8]) -> bool {
    let mut expected = [0; 1024];
    let mut at = offset;
    data.chunks(expected.len()).all(|part| {
        let expected = &mut expected[..part.len()];
        fill(at, expected);
        at += part.len() as u64;
        expected == part
    })
}

fn word(index: u64) -> [u8; 8] {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words() {
        // The reference generator's first outputs for seed 0.
        let mut out = [0; 16];
        fill(0, &mut out);
        assert_eq!(out[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
        assert_eq!(out[8..], 0x6e78_9e6a_a1b9_65f4_u64.to_le_bytes());
    }

    #[test]
    fn any_part_equals_the_whole() {
        let mut whole = [0; 100];
        fill(0, &mut whole);
        for start in 0..40 {
            for len in 0..60 {
                let mut part = [0; 60];
                fill(start as u64, &mut part[..len]);
                assert_eq!(part[..len], whole[start..start + len]);
                assert!(matches(start as u64, &part[..len]));
            }
        }
        whole[50] ^= 1;
        assert!(!matches(0, &whole));
    }
}
