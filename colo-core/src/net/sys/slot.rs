use crate::net::{Frame, MAX_FRAME_BYTES, Offload};
use bytes::Bytes;

/// Bytes of a VLAN tag: its EtherType, and priority and number.
const TAG_BYTES: usize = 4;
/// Where it stands: behind two addresses.
const TAG_AT: usize = 12;

/// Room for one frame of any length behind virtio's header, both received by one call.
///
/// A frame that is held for long must not hold much more memory than it has bytes. So a small one is copied out, which costs less
/// than the call that brought it, and the room is used again. One that fills a good part of the room takes it along, and is never
/// copied: whoever holds it holds at most [`WASTE`] times its bytes, of which the kernel has given memory only to what was written.
#[derive(Debug)]
pub(super) struct Slot(Vec<u8>);

/// See [`Slot`].
const WASTE: usize = 4;

/// A tag that the kernel has taken out of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag {
    pub(super) ethertype: u16,
    pub(super) control: u16,
}

impl Slot {
    /// One byte more than the longest frame, to tell a longer one by.
    const ROOM_BYTES: usize = Offload::HEADER_BYTES + MAX_FRAME_BYTES + 1;

    pub(super) fn new() -> Self {
        Slot(Vec::with_capacity(Self::ROOM_BYTES))
    }

    /// The room, empty: for a header and the frame behind it.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        self.0.clear();
        &mut self.0
    }

    /// What was put into the room, as a frame; `None` when it is too long or too short to be one.
    pub(super) fn take(&mut self, tag: Option<Tag>) -> Option<Frame> {
        let header = self.0.first_chunk::<{ Offload::HEADER_BYTES }>()?;
        let mut offload = Offload::from_header(*header);
        let mut at = Offload::HEADER_BYTES;
        if let Some(tag) = tag.filter(|_| self.0.len() >= at + TAG_AT) {
            // The addresses move into the header's place, which has been read.
            self.0.copy_within(at..at + TAG_AT, at - TAG_BYTES);
            at -= TAG_BYTES;
            self.0[at + TAG_AT..][..2].copy_from_slice(&tag.ethertype.to_be_bytes());
            self.0[at + TAG_AT + 2..][..2].copy_from_slice(&tag.control.to_be_bytes());
            offload = behind_tag(offload);
        }
        let bytes = self.0.len() - at;
        if bytes == 0 || bytes > MAX_FRAME_BYTES {
            return None;
        }
        let frame = if bytes >= Self::ROOM_BYTES / WASTE {
            Bytes::from(std::mem::replace(self, Slot::new()).0).slice(at..)
        } else {
            Bytes::copy_from_slice(&self.0[at..])
        };
        Some(Frame::from(frame).with_offload(offload))
    }
}

/// What was said of the frame without its tag.
fn behind_tag(offload: Offload) -> Offload {
    const BYTES: u16 = TAG_BYTES as u16;
    let moved = |place: u16, is_said: bool| if is_said { place.saturating_add(BYTES) } else { place };
    Offload {
        header_bytes: moved(offload.header_bytes, offload.header_bytes > 0),
        checksum_start: moved(offload.checksum_start, offload.needs_checksum()),
        ..offload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; Offload::HEADER_BYTES] = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0];

    fn filled(frame: &[u8]) -> Slot {
        let mut slot = Slot::new();
        slot.room().extend_from_slice(&HEADER);
        slot.0.extend_from_slice(frame);
        slot
    }

    #[test]
    fn a_small_frame_leaves_the_room_and_a_large_one_takes_it_along() {
        for (bytes, stays) in [(60, true), (1514, true), (20_000, false), (MAX_FRAME_BYTES, false)] {
            let frame: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let mut slot = filled(&frame);
            let room = slot.0.as_ptr_range();
            let taken = slot.take(None).unwrap();
            assert_eq!((&taken[..], taken.offload), (&frame[..], Offload::from_header(HEADER)));
            assert_eq!(room.contains(&taken.as_ptr()), !stays, "{bytes}");
            assert_eq!(slot.room().as_ptr() == room.start, stays, "{bytes}");
            assert!(slot.room().is_empty() && slot.0.capacity() >= Slot::ROOM_BYTES);
            // Nobody else has its bytes: it is changed in place.
            let at = taken.as_ptr();
            assert_eq!(taken.edit(|bytes| bytes[0] = 1).as_ptr(), at);
        }
    }

    #[test]
    fn what_is_no_frame_is_left_out() {
        let mut slot = filled(&vec![0; MAX_FRAME_BYTES + 1]);
        assert_eq!(slot.take(None), None);
        assert_eq!(filled(&[]).take(None), None);
        slot.room().extend_from_slice(&HEADER[..9]);
        assert_eq!(slot.take(None), None);
        slot.room().extend_from_slice(&HEADER);
        slot.0.push(7);
        assert_eq!(slot.take(None).unwrap(), &[7][..], "the room is as before");
    }

    #[test]
    fn a_tag_is_put_back() {
        let tag = Tag { ethertype: 0x88A8, control: 0x6005 };
        for payload in [vec![7; 100], vec![7; 30_000]] {
            let frame = [&[1; 6][..], &[2; 6], &[8, 0], &payload].concat();
            let tagged = filled(&frame).take(Some(tag)).unwrap();
            let expected = [&[1; 6][..], &[2; 6], &[0x88, 0xA8, 0x60, 5], &[8, 0], &payload].concat();
            assert_eq!(tagged, &expected[..]);
            let Offload { header_bytes, checksum_start, checksum_offset, .. } = tagged.offload;
            assert_eq!((header_bytes, checksum_start, checksum_offset), (58, 38, 16));
        }
        // Too short to have had one.
        assert_eq!(filled(&[1; 11]).take(Some(tag)).unwrap(), &[1; 11][..]);
    }
}
