//! The checksum behind `/sum`.

/// FNV-1a (Fowler, Noll, Vo; RFC 9923) with its 64-bit offset basis and prime, fed 64-bit words where FNV takes bytes, so
/// that it keeps up with memory. Tells different memories apart; no protection against intent.
///
/// ```
/// let mut sum = colo_guest::sum::Sum::default();
/// sum.add_bytes(b"abc");
/// assert_ne!(sum.value(), colo_guest::sum::Sum::default().value());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sum(u64);

impl Default for Sum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    /// Takes in one word.
    pub fn add_word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        // FNV's multiplication carries upwards only: without this, the top bit of a word would reach one bit of the sum.
        self.0 ^= self.0 >> 32;
    }

    /// Takes in a string of bytes: its length, then its words, the last filled up with zeros.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        self.add_word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add_word(u64::from_le_bytes(word));
        }
    }

    /// The sum of all that was taken in.
    pub fn value(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(parts: &[&[u8]]) -> u64 {
        let mut sum = Sum::default();
        for part in parts {
            sum.add_bytes(part);
        }
        sum.value()
    }

    #[test]
    fn where_a_string_ends_matters() {
        assert_ne!(sum(&[b"ab", b"c"]), sum(&[b"a", b"bc"]));
        assert_ne!(sum(&[b"a"]), sum(&[b"a\0"]));
    }

    proptest! {
        #[test]
        fn one_bit_changes_the_sum(mut bytes in proptest::collection::vec(any::<u8>(), 1..200), at: usize, bit in 0u8..8) {
            let before = sum(&[&bytes]);
            let at = at % bytes.len();
            bytes[at] ^= 1u8 << bit;
            prop_assert_ne!(before, sum(&[&bytes]));
        }
    }
}
