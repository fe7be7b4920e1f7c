use super::buffers::{BUFFER_BYTES, BufferPool};
use crate::net::{Frame, Offload};
use bytes::Bytes;
use std::ops::Range;

/// The longest frame. With any vnet header it is as long as QEMU takes (4 KiB more than 64 KiB), which no frame of Ethernet's comes near.
pub const MAX_FRAME_BYTES: usize = 65_536 + 4096 - MAX_VNET_HEADER_BYTES;

/// The longest vnet header: the longest of virtio's (VIRTIO 1.3 §5.1.6) has 24 bytes, and some room.
pub const MAX_VNET_HEADER_BYTES: usize = 64;

/// Bytes of a length.
const LENGTH_BYTES: usize = 4;

/// Frames are left in the buffer that they were read into when they fill this much of it; fewer are copied together, which costs less
/// than they would keep.
const SHARED_BYTES: usize = BUFFER_BYTES / 8;

/// Why a connection cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Debug)]
pub enum FramingError {
    /// A frame that is empty or too long.
    #[error(
        "bad framing: a frame of {bytes} bytes, where 1 to {MAX_FRAME_BYTES} can be (is vnet_hdr_support the same on both sides?)"
    )]
    Length {
        /// Its length.
        bytes: u32,
    },
    /// A vnet header that cannot be one, or leaves nothing for the frame.
    #[error(
        "bad framing: a vnet header of {header_bytes} bytes in a frame of {bytes} (is vnet_hdr_support the same on both sides?)"
    )]
    VnetHeader {
        /// Its length.
        header_bytes: u32,
        /// The length of frame and header.
        bytes: u32,
    },
}

/// Cuts frames from the bytes of a connection, however these come. Give it bytes by [`room`](Self::room) and
/// [`advance`](Self::advance), then take frames by [`next_frame`](Self::next_frame) until there are none.
///
/// It holds one buffer of 256 KiB, of which all is there to be read into at once. Where the frames' memory comes from: [`BufferPool`].
#[derive(Debug)]
pub struct FrameDecoder {
    has_vnet_header: bool,
    pool: BufferPool,
    /// What is read into. Begins with a frame.
    filling: Box<[u8]>,
    filled: usize,
    /// Whole frames.
    ready: Bytes,
    /// How much of them has been taken.
    ready_at: usize,
    /// Whether frames are taken as copies.
    copies: bool,
    vnet_header_bytes: usize,
    taken_bytes: u64,
}

impl FrameDecoder {
    /// For a new connection, with or without vnet headers.
    pub fn new(has_vnet_header: bool, pool: &BufferPool) -> Self {
        FrameDecoder {
            has_vnet_header,
            filling: pool.take(),
            pool: pool.clone(),
            filled: 0,
            ready: Bytes::new(),
            ready_at: 0,
            copies: false,
            vnet_header_bytes: 0,
            taken_bytes: 0,
        }
    }

    /// Where to put bytes that have come. Empty only while frames have not been taken.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.filling[self.filled..]
    }

    /// So many bytes have been put into the [`room`](Self::room).
    ///
    /// # Panics
    /// When there is not so much room.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.filling.len() - self.filled, "{bytes} bytes where there is no room for them");
        self.filled += bytes;
    }

    /// The next frame, if all of it has come.
    ///
    /// # Errors
    /// When a length makes no sense. What follows cannot be understood, and the error comes again and again.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FramingError> {
        if self.ready_at == self.ready.len() && !self.start_cutting()? {
            return Ok(None);
        }
        let rest = &self.ready[self.ready_at..];
        // All that is ready was looked through before.
        let Some(head) = Head::parse(rest, self.has_vnet_header)? else {
            return Ok(None);
        };
        let mut offload = Offload::default();
        if let Some(header) = rest[head.vnet_header()].first_chunk() {
            offload = Offload::from_header(*header);
        }
        let Range { start, end } = head.frame();
        let frame = if self.copies {
            Frame::copy_from_slice(&rest[start..end])
        } else {
            self.ready.slice(self.ready_at + start..self.ready_at + end).into()
        };
        self.vnet_header_bytes = head.vnet_header_bytes;
        self.ready_at += end;
        self.taken_bytes += end as u64;
        if self.ready_at == self.ready.len() {
            // The buffer is the frames' alone now.
            self.ready = Bytes::new();
            self.ready_at = 0;
        }
        Ok(Some(frame.with_offload(offload)))
    }

    /// Whether a whole frame, or an error, waits to be taken.
    pub fn has_frame(&self) -> bool {
        self.ready_at < self.ready.len()
            || !matches!(Head::whole(&self.filling[..self.filled], self.has_vnet_header), Ok(None))
    }

    /// Bytes of the vnet header that came with the frame taken last.
    pub fn vnet_header_bytes(&self) -> usize {
        self.vnet_header_bytes
    }

    /// Bytes of the connection up to the end of the frame taken last.
    pub fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Bytes of the connection that have come.
    pub fn received_bytes(&self) -> u64 {
        self.taken_bytes + (self.ready.len() - self.ready_at + self.filled) as u64
    }

    /// Makes the whole frames that have come ready to be taken. False when there is none.
    fn start_cutting(&mut self) -> Result<bool, FramingError> {
        let end = self.end_of_frames()?;
        if end == 0 {
            return Ok(false);
        }
        let is_much = end >= SHARED_BYTES;
        self.copies = !self.pool.may_lend(if is_much { BUFFER_BYTES } else { end });
        self.ready = if is_much || self.copies {
            let mut buffer = self.pool.take();
            buffer[..self.filled - end].copy_from_slice(&self.filling[end..self.filled]);
            self.pool.lend(std::mem::replace(&mut self.filling, buffer), end)
        } else {
            let copy = self.pool.lend(Box::from(&self.filling[..end]), end);
            self.filling.copy_within(end..self.filled, 0);
            copy
        };
        self.filled -= end;
        Ok(true)
    }

    /// Where the last whole frame ends. An error only when it comes first: what is before it counts.
    fn end_of_frames(&self) -> Result<usize, FramingError> {
        let filled = &self.filling[..self.filled];
        let mut end = 0;
        loop {
            match Head::whole(&filled[end..], self.has_vnet_header) {
                Ok(Some(head)) => end += head.end(),
                Err(error) if end == 0 => return Err(error),
                Ok(None) | Err(_) => return Ok(end),
            }
        }
    }
}

impl Drop for FrameDecoder {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.filling));
    }
}

/// Appends a frame to what is to be sent, with a vnet header of that many bytes, or without any.
///
/// # Panics
/// When no [`FrameDecoder`] would take it: the frame is empty, or frame or header are too long.
pub fn encode_frame(frame: &Frame, vnet_header_bytes: Option<usize>, into: &mut Vec<u8>) {
    let header_bytes = vnet_header_bytes.unwrap_or(0);
    let bytes = header_bytes + frame.len();
    assert!((1..=MAX_FRAME_BYTES).contains(&frame.len()), "a frame of {} bytes", frame.len());
    into.extend_from_slice(&(bytes as u32).to_be_bytes());
    if vnet_header_bytes.is_some() {
        into.extend_from_slice(&(header_bytes as u32).to_be_bytes());
        let mut header = [0; MAX_VNET_HEADER_BYTES];
        header[..Offload::HEADER_BYTES].copy_from_slice(&frame.offload.to_header());
        into.extend_from_slice(&header[..header_bytes]);
    }
    into.extend_from_slice(frame);
}

/// The lengths at the beginning of a frame, which make sense.
struct Head {
    lengths_bytes: usize,
    vnet_header_bytes: usize,
    /// Of the header and the frame.
    bytes: usize,
}

impl Head {
    /// `None` when not all of it has come.
    fn parse(from: &[u8], has_vnet_header: bool) -> Result<Option<Head>, FramingError> {
        let Some(length) = from.first_chunk() else {
            return Ok(None);
        };
        let bytes = u32::from_be_bytes(*length);
        let mut head = Head { lengths_bytes: LENGTH_BYTES, vnet_header_bytes: 0, bytes: bytes as usize };
        if has_vnet_header && (1..=MAX_FRAME_BYTES + MAX_VNET_HEADER_BYTES).contains(&head.bytes) {
            let Some(length) = from[LENGTH_BYTES..].first_chunk() else {
                return Ok(None);
            };
            let header_bytes = u32::from_be_bytes(*length);
            head.lengths_bytes += LENGTH_BYTES;
            head.vnet_header_bytes = header_bytes as usize;
            let can_be = (Offload::HEADER_BYTES..=MAX_VNET_HEADER_BYTES).contains(&head.vnet_header_bytes);
            if !(can_be || header_bytes == 0) || header_bytes >= bytes {
                return Err(FramingError::VnetHeader { header_bytes, bytes });
            }
        }
        if !(1..=MAX_FRAME_BYTES).contains(&(head.bytes - head.vnet_header_bytes)) {
            return Err(FramingError::Length { bytes });
        }
        Ok(Some(head))
    }

    /// `None` when not all of the frame has come.
    fn whole(from: &[u8], has_vnet_header: bool) -> Result<Option<Head>, FramingError> {
        Ok(Head::parse(from, has_vnet_header)?.filter(|head| head.end() <= from.len()))
    }

    fn vnet_header(&self) -> Range<usize> {
        self.lengths_bytes..self.lengths_bytes + self.vnet_header_bytes
    }

    fn frame(&self) -> Range<usize> {
        self.vnet_header().end..self.end()
    }

    fn end(&self) -> usize {
        self.lengths_bytes + self.bytes
    }
}

#[cfg(test)]
mod tests;
