//! Frames through file descriptors, many per system call: one packet of a `SOCK_SEQPACKET` socket is one frame.

use super::queue::FrameQueue;
use colo_core::net::MAX_FRAME_BYTES;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The most frames per call: spreads its cost well; more would only delay the others on the one thread.
pub(super) const BATCH_FRAMES: usize = 64;

/// Bytes kept for each frame of a batch: the longest one, and one more to tell a longer one by.
const SLOT_BYTES: usize = MAX_FRAME_BYTES + 1;

/// Frames just received. Used again and again; of each slot only what frames have needed is ever touched.
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// 0 for a frame that was too long or empty.
    lengths: Vec<usize>,
}

/// What a call to receive found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// The batch is full: there may be more.
    More,
    /// Everything that there was.
    Drained,
    /// The other end is gone. What is in the batch came before.
    Closed,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; BATCH_FRAMES * SLOT_BYTES], lengths: Vec::with_capacity(BATCH_FRAMES) }
    }

    /// A batch of no room, to stand in for one that is lent.
    pub(super) fn empty() -> Self {
        Self { bytes: Vec::new(), lengths: Vec::new() }
    }

    /// The frames, first to last, with an empty one for each that was too long.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(SLOT_BYTES).zip(&self.lengths).map(|(slot, &length)| &slot[..length])
    }

    pub(super) fn clear(&mut self) {
        self.lengths.clear();
    }

    /// Replaces the batch with what waits in a packet socket. An empty packet says the same as a hang-up: there is no empty
    /// frame.
    ///
    /// # Errors
    /// When the socket is broken.
    pub(super) fn receive_packets(&mut self, socket: BorrowedFd<'_>) -> io::Result<Received> {
        self.lengths.clear();
        let mut vectors: Vec<libc::iovec> = self
            .bytes
            .chunks_exact_mut(SLOT_BYTES)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT_BYTES })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors.iter_mut().map(message).collect();
        // SAFETY: `messages` points to `vectors`, and those to distinct slots of `self.bytes`; all outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH_FRAMES as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Drained),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(Received::More),
                error => Err(error),
            };
        };
        for message in &messages[..count] {
            match message.msg_len as usize {
                0 => return Ok(Received::Closed),
                length if length > MAX_FRAME_BYTES => self.lengths.push(0),
                length => self.lengths.push(length),
            }
        }
        Ok(if count == BATCH_FRAMES { Received::More } else { Received::Drained })
    }

    /// Replaces the batch with what waits in a character device, such as a TAP, which gives one frame per read.
    ///
    /// # Errors
    /// When the device is broken.
    pub(super) fn read_frames(&mut self, device: BorrowedFd<'_>) -> io::Result<Received> {
        self.lengths.clear();
        for slot in self.bytes.chunks_exact_mut(SLOT_BYTES) {
            match rustix::io::read(device, &mut *slot) {
                Ok(0) => return Ok(Received::Closed),
                Ok(length) => self.lengths.push(if length > MAX_FRAME_BYTES { 0 } else { length }),
                Err(Errno::AGAIN) => return Ok(Received::Drained),
                Err(Errno::INTR) => return Ok(Received::More),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Received::More)
    }
}

/// Sends frames as packets, in order, and returns how many the socket took: fewer than given when it is full. A frame that
/// it can never take counts as taken, and is lost.
///
/// # Errors
/// When the socket is broken, or its other end gone.
pub(super) fn send_packets<'a>(socket: BorrowedFd<'_>, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
    let mut vectors: Vec<libc::iovec> = frames
        .take(BATCH_FRAMES)
        // The kernel only reads what it sends; the pointer is mutable because the structure serves both ways.
        .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = vectors.iter_mut().map(message).collect();
    if messages.is_empty() {
        return Ok(0);
    }
    // SAFETY: `messages` points to `vectors`, and those to the frames, which the kernel only reads; all outlive the call.
    let count = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            messages.len() as libc::c_uint,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    match usize::try_from(count) {
        Ok(count) => Ok(count),
        Err(_) => refused(Errno::from_io_error(&io::Error::last_os_error())),
    }
}

/// Writes frames one by one to a character device, such as a TAP. Otherwise as [`send_packets`].
///
/// # Errors
/// When the device is broken.
pub(super) fn write_frames<'a>(device: BorrowedFd<'_>, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
    let mut count = 0;
    for frame in frames.take(BATCH_FRAMES) {
        match rustix::io::write(device, frame) {
            Ok(_) => count += 1,
            Err(errno) => {
                return if count > 0 { Ok(count) } else { refused(Some(errno)) };
            }
        }
    }
    Ok(count)
}

/// Empties `queue` through `send` as far as it goes; returns how many frames went.
///
/// # Errors
/// Those of `send`.
pub(super) fn drain(
    queue: &mut FrameQueue,
    mut send: impl FnMut(&mut dyn Iterator<Item = &[u8]>) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut sent = 0;
    while !queue.is_empty() {
        let count = send(&mut queue.iter())?;
        if count == 0 {
            break;
        }
        queue.pop(count);
        sent += count;
    }
    Ok(sent)
}

/// What an error at the first frame means.
fn refused(errno: Option<Errno>) -> io::Result<usize> {
    match errno {
        // Full: later, when the poll says so.
        Some(Errno::AGAIN) => Ok(0),
        // Too long for this port, malformed for this device, a TAP that is down (EIO), a kernel short of memory. No poll
        // would say when that ends: the frame is lost, as on a cable.
        Some(Errno::MSGSIZE | Errno::INVAL | Errno::IO | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => Ok(1),
        Some(errno) => Err(errno.into()),
        None => Err(io::ErrorKind::Other.into()),
    }
}

fn message(vector: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: both structures are plain C data, for which all bits zero is a valid value.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = vector;
    message.msg_hdr.msg_iovlen = 1;
    message
}
