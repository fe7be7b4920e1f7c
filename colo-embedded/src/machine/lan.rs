use bytes::Bytes;
use colo_core::net::{Frame, MAX_BATCH_FRAMES, MAX_FRAME_BYTES, Port};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A card on the LAN: a connection to the switch, a Unix socket of the type `SOCK_SEQPACKET` on which each packet is one frame.
///
/// ```
/// use bytes::Bytes;
/// use colo_core::net::Port;
/// use colo_embedded::machine::SwitchPort;
///
/// let (mut here, mut there) = SwitchPort::pair()?;
/// assert_eq!(here.send(&[Bytes::from_static(b"an Ethernet frame")])?, 1);
/// let mut frames = Vec::new();
/// assert_eq!(there.receive(&mut frames)?, 1);
/// assert_eq!(frames[0], b"an Ethernet frame"[..]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SwitchPort {
    socket: OwnedFd,
    /// Where a frame arrives: one byte more than the longest, so that a longer one shows.
    buffer: Box<[u8]>,
}

impl SwitchPort {
    /// Connects to the switch that listens at that path.
    ///
    /// # Errors
    /// What the system says: `NotFound` or `ConnectionRefused` when there is no switch.
    pub fn connect(path: &Path) -> io::Result<SwitchPort> {
        // Connecting may wait for the switch to accept; what comes after may not.
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(SwitchPort::from_socket(socket))
    }

    /// Two ports, each the other's network.
    ///
    /// # Errors
    /// What the system says.
    pub fn pair() -> io::Result<(SwitchPort, SwitchPort)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((SwitchPort::from_socket(one), SwitchPort::from_socket(other)))
    }

    /// A port on a connected socket of the type `SOCK_SEQPACKET`: the switch's end, once it has accepted.
    pub fn from_socket(socket: OwnedFd) -> SwitchPort {
        SwitchPort { socket, buffer: vec![0; MAX_FRAME_BYTES + 1].into_boxed_slice() }
    }
}

impl Port for SwitchPort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let mut taken = 0;
        for _ in 0..MAX_BATCH_FRAMES {
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                // The other end has closed (nobody sends empty packets): the frames so far first, the end the next time.
                Ok((_, 0)) if taken > 0 => break,
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Too long to be a frame, and cut.
                Ok((_, len)) if len > MAX_FRAME_BYTES => {
                    tracing::debug!("dropped a packet longer than any frame");
                }
                Ok((_, len)) => {
                    frames.push(Bytes::copy_from_slice(&self.buffer[..len]));
                    taken += 1;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => (),
                Err(_) if taken > 0 => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(taken)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(frame) = frames.get(taken) {
            if frame.is_empty() || frame.len() > MAX_FRAME_BYTES {
                tracing::debug!(len = frame.len(), "dropped a frame of impossible length");
                taken += 1;
                continue;
            }
            match rustix::net::send(&self.socket, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => taken += 1,
                Err(Errno::AGAIN | Errno::NOBUFS) => break,
                Err(Errno::INTR) => (),
                Err(_) if taken > 0 => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(byte: u8, len: usize) -> Frame {
        Bytes::from(vec![byte; len])
    }

    #[test]
    fn a_full_socket_takes_fewer_and_loses_none() {
        let (mut here, mut there) = SwitchPort::pair().unwrap();
        let frames: Vec<Frame> = (0..2000).map(|index| frame(index as u8, 1500)).collect();
        let (mut sent, mut received, mut refused) = (0, Vec::new(), false);
        while sent < frames.len() {
            let taken = here.send(&frames[sent..]).unwrap();
            refused |= taken < frames.len() - sent;
            sent += taken;
            while there.receive(&mut received).unwrap() > 0 {}
        }
        assert!(refused, "the socket was never full");
        assert_eq!(received, frames);
    }

    #[test]
    fn frames_of_all_lengths_pass_but_no_others() {
        let (mut here, mut there) = SwitchPort::pair().unwrap();
        let frames =
            [frame(1, 14), frame(2, MAX_FRAME_BYTES), frame(3, MAX_FRAME_BYTES + 1), frame(4, 0), frame(5, 60)];
        assert_eq!(here.send(&frames).unwrap(), 5);
        let mut received = Vec::new();
        assert_eq!(there.receive(&mut received).unwrap(), 3);
        assert_eq!(received, [frames[0].clone(), frames[1].clone(), frames[4].clone()]);
    }

    #[test]
    fn the_end_comes_after_the_last_frame() {
        let (mut here, mut there) = SwitchPort::pair().unwrap();
        here.send(&[frame(1, 60)]).unwrap();
        drop(here);
        let mut received = Vec::new();
        assert_eq!(there.receive(&mut received).unwrap(), 1);
        assert_eq!(there.receive(&mut received).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(there.send(&[frame(1, 60)]).is_err());
    }
}
