//! A port whose device comes later: a secondary's guest has no network card before its domain is built.
//!
//! ```
//! use colo_core::net::{Frame, Port, late, memory};
//!
//! let (mut port, end) = late::port()?;
//! assert_eq!(port.send(&[Frame::from_static(b"too early")])?, 0, "no room yet");
//! let (guest, mut host) = memory::pair(8)?;
//! end.connect(Box::new(guest))?;
//! assert_eq!(port.send(&[Frame::from_static(b"a frame")])?, 1);
//! let mut frames = Vec::new();
//! assert_eq!(host.receive(&mut frames)?, 1);
//! # Ok::<(), std::io::Error>(())
//! ```

use super::{Frame, Port};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::epoll::{CreateFlags, EventData, EventFlags, add, create};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// See the module.
pub struct LatePort {
    /// Readable when the device is: it watches that as soon as it is there.
    watch: OwnedFd,
    coming: Receiver<Box<dyn Port>>,
    port: Option<Box<dyn Port>>,
}

/// Where the device is handed in.
pub struct LateEnd {
    watch: OwnedFd,
    port: Sender<Box<dyn Port>>,
}

/// A port, and the end by which it gets its device.
///
/// # Errors
/// When the system has no more file descriptors.
pub fn port() -> io::Result<(LatePort, LateEnd)> {
    let watch = create(CreateFlags::CLOEXEC)?;
    let (sender, coming) = bounded(1);
    Ok((LatePort { watch: watch.try_clone()?, coming, port: None }, LateEnd { watch, port: sender }))
}

impl LateEnd {
    /// The device is there. What became of the port meanwhile does not matter.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn connect(self, port: Box<dyn Port>) -> io::Result<()> {
        add(&self.watch, port.poll_fd(), EventData::new_u64(0), EventFlags::IN)?;
        let _ = self.port.send(port);
        Ok(())
    }
}

impl LatePort {
    fn port(&mut self) -> Option<&mut Box<dyn Port>> {
        if self.port.is_none() {
            self.port = self.coming.try_recv().ok();
        }
        self.port.as_mut()
    }
}

impl Port for LatePort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    fn has_left_guest(&self) -> bool {
        self.port.as_ref().is_some_and(|port| port.has_left_guest())
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        self.port().map_or(Ok(0), |port| port.receive(frames))
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        self.port().map_or(Ok(0), |port| port.send(frames))
    }

    fn take_back(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        self.port().map_or(Ok(0), |port| port.take_back(frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::memory;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(port: &LatePort) -> bool {
        let mut entries = [PollFd::from_borrowed_fd(port.poll_fd(), PollFlags::IN)];
        poll(&mut entries, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn it_is_readable_when_its_device_is() {
        let (mut port, end) = port().unwrap();
        let (guest, mut host) = memory::pair(8).unwrap();
        assert!(!is_readable(&port));
        assert_eq!(port.receive(&mut Vec::new()).unwrap(), 0);
        host.send(&[Frame::from_static(b"early")]).unwrap();
        end.connect(Box::new(guest)).unwrap();
        assert!(is_readable(&port));
        let mut frames = Vec::new();
        assert_eq!(port.receive(&mut frames).unwrap(), 1);
        assert_eq!(frames, [&b"early"[..]]);
        assert!(!is_readable(&port));
        host.send(&[Frame::from_static(b"later")]).unwrap();
        assert!(is_readable(&port));
    }

    #[test]
    fn an_end_that_is_never_connected_is_no_error() {
        let (mut port, end) = port().unwrap();
        drop(end);
        assert_eq!(port.receive(&mut Vec::new()).unwrap(), 0);
        assert_eq!(port.send(&[Frame::from_static(b"lost")]).unwrap(), 0);
        assert!(!is_readable(&port));
    }
}
