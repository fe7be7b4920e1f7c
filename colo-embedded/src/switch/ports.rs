//! The cables that come out of the switch: connections to its socket, and the TAP.

use super::fabric::PortId;
use super::packet_io::{self, Batch, Received};
use super::queue::FrameQueue;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most ports. Each may hold a queue of 4 MiB; one host runs far fewer machines.
pub const MAX_PORTS: usize = 128;

/// How frames pass through a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `SOCK_SEQPACKET`: a packet is a frame.
    Packets,
    /// A TAP: a read or a write is a frame.
    Tap,
}

/// One port. It is watched edge-triggered: `readable` and `writable` hold until a call said that it would block.
#[derive(Debug)]
pub(super) struct Port {
    fd: OwnedFd,
    kind: Kind,
    queue: FrameQueue,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Frames lost because the queue was full.
    pub(super) dropped_frames: u64,
}

/// All ports, and those with frames to send.
#[derive(Debug, Default)]
pub(super) struct Ports {
    ports: BTreeMap<PortId, Port>,
    unsent: Vec<PortId>,
    /// Frames lost because a port's queue was full, ports that are gone included.
    pub(super) dropped_frames: u64,
}

impl Port {
    pub(super) fn new(fd: OwnedFd, kind: Kind) -> Self {
        let queue = FrameQueue::default();
        Self { fd, kind, queue, readable: true, writable: true, dropped_frames: 0 }
    }

    /// Replaces `batch` with frames that wait at this port.
    ///
    /// # Errors
    /// When the port is broken.
    pub(super) fn receive(&mut self, batch: &mut Batch) -> io::Result<Received> {
        let received = match self.kind {
            Kind::Packets => batch.receive_packets(self.fd.as_fd()),
            Kind::Tap => batch.read_frames(self.fd.as_fd()),
        }?;
        self.readable = received == Received::More;
        Ok(received)
    }

    /// Sends what is queued, as far as the port takes it; returns how many frames went.
    fn flush(&mut self) -> io::Result<usize> {
        if !self.writable {
            return Ok(0);
        }
        let (fd, kind) = (self.fd.as_fd(), self.kind);
        let sent = packet_io::drain(&mut self.queue, |frames| match kind {
            Kind::Packets => packet_io::send_packets(fd, frames),
            Kind::Tap => packet_io::write_frames(fd, frames),
        })?;
        self.writable = self.queue.is_empty();
        Ok(sent)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Ports {
    pub(super) fn insert(&mut self, id: PortId, port: Port) {
        self.ports.insert(id, port);
    }

    pub(super) fn remove(&mut self, id: PortId) -> Option<Port> {
        self.ports.remove(&id)
    }

    pub(super) fn get_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.ports.len()
    }

    /// The ports that may have frames for us.
    pub(super) fn readable(&self, ids: &mut Vec<PortId>) {
        ids.clear();
        ids.extend(self.ports.iter().filter(|(_, port)| port.readable).map(|(&id, _)| id));
    }

    /// Notes that a port takes frames again.
    pub(super) fn set_writable(&mut self, id: PortId) {
        if let Some(port) = self.ports.get_mut(&id) {
            port.writable = true;
            if !port.queue.is_empty() {
                self.unsent.push(id);
            }
        }
    }

    /// Queues a frame for one port. A full queue loses it: a port that does not read must not stop the others.
    pub(super) fn enqueue(&mut self, to: PortId, frame: &[u8]) {
        if let Some(port) = self.ports.get_mut(&to) {
            if port.queue.is_empty() {
                self.unsent.push(to);
            }
            if !port.queue.push(frame) {
                port.dropped_frames += 1;
                self.dropped_frames += 1;
            }
        }
    }

    /// Queues a frame for every port but one.
    pub(super) fn enqueue_all(&mut self, but: PortId, frame: &[u8]) {
        for (&id, port) in &mut self.ports {
            if id == but {
                continue;
            }
            if port.queue.is_empty() {
                self.unsent.push(id);
            }
            if !port.queue.push(frame) {
                port.dropped_frames += 1;
                self.dropped_frames += 1;
            }
        }
    }

    /// Sends what is queued. Returns how many frames went; ports found broken are added to `broken`.
    pub(super) fn flush(&mut self, broken: &mut Vec<PortId>) -> u64 {
        let mut sent = 0;
        for id in self.unsent.drain(..) {
            let Some(port) = self.ports.get_mut(&id) else {
                continue;
            };
            match port.flush() {
                Ok(count) => sent += count as u64,
                Err(error) => {
                    tracing::debug!(port = id.0, %error, "port broken");
                    broken.push(id);
                }
            }
        }
        sent
    }
}
