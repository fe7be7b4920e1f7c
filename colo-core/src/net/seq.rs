use std::fmt;

/// A TCP sequence or acknowledgement number: 32 bits that wrap around, compared as RFC 9293 §3.4 and RFC 1982 say.
///
/// ```
/// use colo_core::net::Seq;
///
/// let last = Seq(u32::MAX);
/// assert!((last + 1).is_after(last));
/// assert_eq!((last + 3).distance_from(last), 3);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// How far this number lies ahead of `other` (negative: behind it), by the shorter way round the circle.
    #[must_use]
    pub const fn distance_from(self, other: Seq) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether this number comes later than `other`.
    #[must_use]
    pub const fn is_after(self, other: Seq) -> bool {
        self.distance_from(other) > 0
    }

    /// The number as it stands in a header.
    pub(crate) const fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// The later of two numbers, either of which may be missing.
    pub(crate) fn later(a: Option<Seq>, b: Option<Seq>) -> Option<Seq> {
        match (a, b) {
            (Some(a), Some(b)) if b.is_after(a) => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        }
    }
}

impl std::ops::Add<u32> for Seq {
    type Output = Seq;

    fn add(self, bytes: u32) -> Seq {
        Seq(self.0.wrapping_add(bytes))
    }
}

impl std::ops::Sub<u32> for Seq {
    type Output = Seq;

    fn sub(self, bytes: u32) -> Seq {
        Seq(self.0.wrapping_sub(bytes))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_goes_round_the_circle() {
        for base in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let base = Seq(base);
            assert!((base + 1).is_after(base));
            assert!(!base.is_after(base));
            assert!(!base.is_after(base + 0x7fff_ffff));
            assert_eq!(Seq::later(Some(base), Some(base + 9)), Some(base + 9));
            assert_eq!(Seq::later(Some(base + 9), Some(base)), Some(base + 9));
        }
        assert_eq!(Seq::later(None, Some(Seq(1))), Some(Seq(1)));
        assert_eq!(Seq::later(Some(Seq(1)), None), Some(Seq(1)));
    }
}
