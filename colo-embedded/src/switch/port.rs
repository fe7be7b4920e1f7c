//! The other end of the switch's ports: a machine's or a session's.

use super::SOCKET_BUFFER_BYTES;
use super::packet_io::{self, BATCH_FRAMES, Batch, Received};
use colo_core::net::socket_file::{self, SocketKind};
use colo_core::net::{Frame, MAX_BATCH_FRAMES, Port};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A cable to a switch, to send and receive frames with. Dropping it unplugs it.
pub struct SwitchPort {
    socket: OwnedFd,
    batch: Batch,
    closed: bool,
}

impl SwitchPort {
    /// Plugs into the switch whose socket is at `path`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when there is no switch; otherwise the kernel's.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let socket = socket_file::connect(path.as_ref(), SocketKind::Packets)?;
        // As far as the kernel lets us; smaller ones only mean more wake-ups.
        let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER_BYTES);
        Ok(Self { socket, batch: Batch::new(), closed: false })
    }
}

impl Port for SwitchPort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let before = frames.len();
        while !self.closed && frames.len() - before + BATCH_FRAMES <= MAX_BATCH_FRAMES {
            let received = self.batch.receive_packets(self.socket.as_fd())?;
            frames.extend(self.batch.iter().filter(|frame| !frame.is_empty()).map(Frame::copy_from_slice));
            match received {
                Received::More => {}
                Received::Drained => break,
                Received::Closed => self.closed = true,
            }
        }
        let count = frames.len() - before;
        if self.closed && count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < frames.len() {
            let rest = frames[sent..].iter().map(|frame| &frame[..]);
            match packet_io::send_packets(self.socket.as_fd(), rest) {
                Ok(0) => break,
                Ok(count) => sent += count,
                // What went before went; the next call says the rest.
                Err(_) if sent > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}

impl fmt::Debug for SwitchPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwitchPort").field("socket", &self.socket).finish_non_exhaustive()
    }
}
