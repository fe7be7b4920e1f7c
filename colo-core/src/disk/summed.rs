use bytes::Bytes;
use std::ops::{Deref, Range};

/// Bytes, and their CRC-32C where it is known already: what came over a link was checked there, and need not be gone through once more for
/// the journal, which holds the same sum. So it goes with the bytes all the way, and tells if they change on it.
///
/// Two are equal when their bytes are.
///
/// ```
/// use colo_core::disk::Summed;
///
/// let bytes: Summed = b"123456789".to_vec().into();
/// assert_eq!((bytes.len(), bytes.crc()), (9, 0xe306_9283));
/// ```
#[derive(Clone, Debug)]
pub struct Summed {
    bytes: Bytes,
    crc: Option<u32>,
}

impl Summed {
    /// CRC-32C (Castagnoli, RFC 3720) over them: computed, if nobody has.
    pub fn crc(&self) -> u32 {
        self.crc.unwrap_or_else(|| crc32c::crc32c(&self.bytes))
    }

    /// The bytes alone, which are shared, not copied.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// A part of them, likewise.
    ///
    /// # Panics
    /// If it is not within them.
    #[must_use]
    pub fn slice(&self, part: Range<usize>) -> Summed {
        let crc = self.crc.filter(|_| part == (0..self.len()));
        Summed { bytes: self.bytes.slice(part), crc }
    }

    /// Whoever has checked them has found this sum.
    pub(crate) fn set_crc(&mut self, crc: u32) {
        self.crc = Some(crc);
    }
}

impl Deref for Summed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Summed {
    fn eq(&self, other: &Summed) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Summed {}

impl From<Bytes> for Summed {
    fn from(bytes: Bytes) -> Summed {
        Summed { bytes, crc: None }
    }
}

impl From<Vec<u8>> for Summed {
    fn from(bytes: Vec<u8>) -> Summed {
        Bytes::from(bytes).into()
    }
}
