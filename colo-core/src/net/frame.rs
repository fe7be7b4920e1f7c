//! An Ethernet frame, and what its sender has left for a card to do.
//!
//! ```
//! use colo_core::net::{Frame, Offload};
//!
//! let frame = Frame::from_static(b"what goes over a cable");
//! assert_eq!(&frame[..4], b"what");
//! // Nothing is left to do: it is on the cable as it stands.
//! assert_eq!(frame.offload, Offload::default());
//! ```

use bytes::{Bytes, BytesMut};
use std::fmt;
use std::ops::{Deref, RangeBounds};

/// An Ethernet frame without its checksum, from the destination address on. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Frame {
    bytes: Bytes,
    /// What is left for a card to do.
    pub offload: Offload,
}

/// What a frame's sender has left for a card to do: the fields of virtio's net header (VIRTIO 1.2 §5.1.6), which Linux' TAP devices
/// and packet sockets speak, too. All are zero when the frame is on the cable as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Offload {
    /// Bit 0 (`NEEDS_CSUM`): the checksum at `checksum_start + checksum_offset` holds only the sum over the pseudo header, and is to
    /// be completed over everything from `checksum_start` on. Bit 1 (`DATA_VALID`): the checksums were found right.
    pub flags: u8,
    /// 0: none. 1: TCP over IPv4, 4: TCP over IPv6, 5: UDP; with bit 7 for TCP with ECN. What the frame is to be cut into.
    pub gso_type: u8,
    /// Bytes of all headers, a hint.
    pub header_bytes: u16,
    /// The most bytes of payload in each of the frames that it is cut into.
    pub gso_size: u16,
    /// Where checksumming begins, in bytes from the start of the frame.
    pub checksum_start: u16,
    /// Where the checksum stands, in bytes from there.
    pub checksum_offset: u16,
}

impl Offload {
    /// Bytes of virtio's net header when it has no number of buffers.
    pub const HEADER_BYTES: usize = 10;
    const NEEDS_CHECKSUM: u8 = 1;

    /// Whether the transport checksum is still to be completed.
    pub const fn needs_checksum(&self) -> bool {
        self.flags & Self::NEEDS_CHECKSUM != 0
    }

    /// How many bytes each of the datagrams has that a card is to make of this one; `None` when it is to make none.
    pub(crate) fn datagram_bytes(&self) -> Option<u16> {
        const UDP: u8 = 5;
        (self.gso_type == UDP).then_some(self.gso_size)
    }

    /// Reads a header, in little-endian order.
    pub const fn from_header(header: [u8; Self::HEADER_BYTES]) -> Self {
        let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1] = header;
        Offload {
            flags,
            gso_type,
            header_bytes: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([s0, s1]),
            checksum_start: u16::from_le_bytes([c0, c1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// The header, as [`from_header`](Self::from_header) reads it.
    pub const fn to_header(self) -> [u8; Self::HEADER_BYTES] {
        let [h0, h1] = self.header_bytes.to_le_bytes();
        let [s0, s1] = self.gso_size.to_le_bytes();
        let [c0, c1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

impl Frame {
    /// A frame of no bytes.
    pub const fn new() -> Self {
        Frame::from_static(&[])
    }

    /// A frame of bytes that live for ever.
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Frame { bytes: Bytes::from_static(bytes), offload: NONE }
    }

    /// A frame of a copy of these bytes.
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }

    /// The same frame with something left to do.
    #[must_use]
    pub fn with_offload(self, offload: Offload) -> Self {
        Frame { offload, ..self }
    }

    /// A part of its bytes, without a copy.
    ///
    /// # Panics
    /// When the frame has no such bytes.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    /// The frame after a change of its bytes: in place when nobody else has them.
    #[must_use]
    pub fn edit(self, change: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = self.bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        change(&mut bytes);
        Frame { bytes: bytes.freeze(), offload: self.offload }
    }
}

const NONE: Offload =
    Offload { flags: 0, gso_type: 0, header_bytes: 0, gso_size: 0, checksum_start: 0, checksum_offset: 0 };

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<T: Into<Bytes>> From<T> for Frame {
    fn from(bytes: T) -> Self {
        Frame { bytes: bytes.into(), offload: NONE }
    }
}

impl PartialEq<[u8]> for Frame {
    fn eq(&self, other: &[u8]) -> bool {
        self.bytes == other
    }
}

impl PartialEq<&[u8]> for Frame {
    fn eq(&self, other: &&[u8]) -> bool {
        self.bytes == *other
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.fmt(f)?;
        if self.offload == NONE { Ok(()) } else { write!(f, " with {:?}", self.offload) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_are_kept(header: [u8; Offload::HEADER_BYTES]) {
            prop_assert_eq!(Offload::from_header(header).to_header(), header);
        }
    }

    #[test]
    fn only_a_shared_frame_is_copied_to_be_changed() {
        let mut buffer = BytesMut::from(&b"hello"[..]);
        let at = buffer.as_mut_ptr();
        let offload = Offload { flags: 1, ..Offload::default() };
        let frame = Frame::from(buffer.freeze()).with_offload(offload).edit(|bytes| bytes[0] = b'j');
        assert_eq!((&frame[..], frame.as_ptr()), (&b"jello"[..], at.cast_const()));
        let other = frame.clone().edit(|bytes| bytes[0] = b'c');
        assert_eq!((&frame[..], &other[..], other.offload), (&b"jello"[..], &b"cello"[..], offload));
    }
}
