//! How QEMU's network filters and its `colo-compare` speak through sockets: the format, without any socket.
//!
//! ```text
//! frame:    length (4 bytes) | [length of the vnet header (4 bytes)] | vnet header | Ethernet frame
//! message:  length (4 bytes) | text
//! ```
//!
//! All numbers are big-endian. The first length counts what follows the numbers, so the vnet header too. Whether there is a second one
//! is agreed on beforehand (`vnet_hdr_support`); it is 0 when the card has no such header. There is no magic number and no checksum:
//! who has lost the beginning of a frame does not find the next one, and has to connect again.
//!
//! * [`FrameDecoder`], [`encode_frame`]: frames, at `primary_in`, `secondary_in` and `outdev`.
//! * [`NotifyMessage`], [`NotifyDecoder`]: the messages of `notify_dev`, by which Xen's toolstack takes part.
//!
//! ```
//! use colo_core::net::Frame;
//! use colo_core::net::qemu::{BufferPool, FrameDecoder, encode_frame};
//!
//! let mut wire = Vec::new();
//! encode_frame(&Frame::from_static(b"a frame"), None, &mut wire);
//! encode_frame(&Frame::from_static(b"another"), None, &mut wire);
//! assert_eq!(wire[..4], [0, 0, 0, 7]);
//!
//! let mut decoder = FrameDecoder::new(false, &BufferPool::new(1 << 20));
//! decoder.room()[..wire.len()].copy_from_slice(&wire);
//! decoder.advance(wire.len());
//! assert_eq!(decoder.next_frame()?.unwrap(), b"a frame"[..]);
//! assert_eq!(decoder.next_frame()?.unwrap(), b"another"[..]);
//! assert_eq!(decoder.next_frame()?, None);
//! # Ok::<(), colo_core::net::qemu::FramingError>(())
//! ```

mod buffers;
mod framing;
mod notify;

pub use buffers::BufferPool;
pub use framing::{FrameDecoder, FramingError, MAX_FRAME_BYTES, MAX_VNET_HEADER_BYTES, encode_frame};
pub use notify::{MAX_MESSAGE_BYTES, NotifyDecoder, NotifyError, NotifyMessage};
