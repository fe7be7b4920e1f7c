//! Internet checksums, mended instead of computed anew (RFC 1624).

/// Overwrites `segment[at..]` with `bytes` and mends the checksum of the segment for it, by equation 3 of RFC 1624:
/// `HC' = ~(~HC + ~m + m')`. A checksum that was wrong stays wrong by as much.
///
/// # Panics
/// When `bytes` do not fit, or touch the checksum itself.
pub(crate) fn replace(segment: &mut [u8], at: usize, bytes: &[u8], checksum_at: usize) {
    // The sum goes over 16-bit words: what begins or ends in the middle of one concerns the whole word.
    let start = at & !1;
    let end = (at + bytes.len()).next_multiple_of(2).min(segment.len());
    assert!(end <= checksum_at || start >= checksum_at + 2, "a checksum does not cover itself");
    let old = sum(&segment[start..end]);
    segment[at..at + bytes.len()].copy_from_slice(bytes);
    let new = sum(&segment[start..end]);
    let checksum = u16::from_be_bytes([segment[checksum_at], segment[checksum_at + 1]]);
    segment[checksum_at..checksum_at + 2].copy_from_slice(&mend(checksum, old, new).to_be_bytes());
}

/// The checksum when what had one sum has another: equation 3 of RFC 1624.
pub(crate) fn mend(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

/// The one's complement sum of the 16-bit words, the last one filled with a zero byte (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    words.fold(0, |sum, word| fold(u32::from(sum) + word))
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn mended_equals_computed_anew(
            mut segment in proptest::collection::vec(any::<u8>(), 24..80),
            at in 18usize..24,
            bytes in proptest::collection::vec(any::<u8>(), 1..9),
        ) {
            const AT: usize = 16;
            let at = at.min(segment.len() - bytes.len());
            prop_assume!(at >= AT + 2);
            // As in every real packet, something in it is not zero.
            segment[0] |= 1;
            let compute = |segment: &[u8]| {
                let mut blank = segment.to_vec();
                blank[AT..AT + 2].fill(0);
                !sum(&blank)
            };
            let checksum = compute(&segment);
            segment[AT..AT + 2].copy_from_slice(&checksum.to_be_bytes());
            replace(&mut segment, at, &bytes, AT);
            prop_assert_eq!(&segment[at..at + bytes.len()], &bytes[..]);
            prop_assert_eq!(u16::from_be_bytes([segment[AT], segment[AT + 1]]), compute(&segment));
        }
    }
}
