//! The one thread of the switch: waits for whatever happens, and carries frames.

use super::Counters;
use super::config::SwitchConfig;
use super::fabric::{Delivery, Fabric, PortId};
use super::forward::Forwarder;
use super::packet_io::{Batch, Received};
use super::ports::{Kind, MAX_PORTS, Port, Ports};
use super::queue::FrameQueue;
use colo_core::net::socket_file::SocketFile;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The switch's own stack, as a port.
const STACK: PortId = PortId(0);

/// Events taken from the kernel at once.
const EVENT_BATCH: usize = 256;

/// How often addresses that are too old are thrown away.
const AGE_INTERVAL: Duration = Duration::from_secs(30);

/// How long to wait before accepting again after `accept` failed, for want of descriptors for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What an event of the kernel's is about, packed into the 64 bits that it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Stop,
    Socket,
    Port(PortId),
    Listener(u32),
    Relay(u16),
}

/// Everything that the loop works on.
pub(super) struct Engine {
    epoll: OwnedFd,
    socket: SocketFile,
    fabric: Fabric,
    ports: Ports,
    forwarder: Forwarder,
    next_port: u32,
    /// Somebody may wait to be accepted at the socket.
    acceptable: bool,
    accept_at: Option<Instant>,
    age_at: Instant,
    stopped: bool,
    pub(super) counters: Counters,
    scratch: Scratch,
}

/// Buffers that are used again.
struct Scratch {
    batch: Batch,
    out: FrameQueue,
    ids: Vec<PortId>,
    accepted: Vec<u16>,
}

impl Engine {
    pub(super) fn new(
        config: &SwitchConfig,
        socket: SocketFile,
        tap: Option<OwnedFd>,
        forwarder: Forwarder,
    ) -> io::Result<Self> {
        let mut engine = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            socket,
            fabric: Fabric::new(config.max_age),
            ports: Ports::default(),
            forwarder,
            next_port: STACK.0 + 1,
            acceptable: true,
            accept_at: None,
            age_at: Instant::now() + AGE_INTERVAL,
            stopped: false,
            counters: Counters::default(),
            scratch: Scratch { batch: Batch::new(), out: FrameQueue::default(), ids: Vec::new(), accepted: Vec::new() },
        };
        watch(&engine.epoll, engine.socket.as_fd(), Token::Socket)?;
        for (index, listener) in (0..).zip(engine.forwarder.listeners()) {
            watch(&engine.epoll, listener.socket.as_fd(), Token::Listener(index))?;
        }
        if let Some(tap) = tap {
            engine.add_port(tap, Kind::Tap)?;
        }
        Ok(engine)
    }

    /// Runs until `stop` is readable.
    pub(super) fn run(&mut self, stop: BorrowedFd<'_>) -> io::Result<()> {
        // Level-triggered, unlike the rest: it is never read here, and must hold if it was readable before.
        epoll::add(&self.epoll, stop, epoll::EventData::new_u64(Token::Stop.pack()), epoll::EventFlags::IN)?;
        let mut events = Vec::with_capacity(EVENT_BATCH);
        let mut busy = true;
        self.stopped = false;
        while !self.stopped {
            events.clear();
            let timeout = self.timeout(busy);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                self.handle_event(event);
            }
            busy = self.turn(Instant::now());
        }
        epoll::delete(&self.epoll, stop)?;
        Ok(())
    }

    /// What has passed so far.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            frames_dropped: self.ports.dropped_frames,
            connections: self.forwarder.accepted,
            connections_broken: self.forwarder.broken,
            ..self.counters
        }
    }

    pub(super) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    fn handle_event(&mut self, event: &epoll::Event) {
        use epoll::EventFlags as Flags;
        let flags = event.flags;
        let hung_up = flags.intersects(Flags::HUP | Flags::ERR);
        let readable = hung_up || flags.intersects(Flags::IN | Flags::RDHUP);
        let writable = hung_up || flags.contains(Flags::OUT);
        match Token::unpack(event.data.u64()) {
            Some(Token::Stop) => self.stopped = true,
            Some(Token::Socket) => self.acceptable = true,
            Some(Token::Port(id)) => {
                if let Some(port) = self.ports.get_mut(id) {
                    port.readable |= readable;
                }
                if writable {
                    self.ports.set_writable(id);
                }
            }
            Some(Token::Listener(index)) => self.forwarder.set_acceptable(index as usize),
            Some(Token::Relay(port)) => self.forwarder.handle_host_event(port, readable, writable, hung_up),
            None => {}
        }
    }

    /// Does a bounded amount of everything that there is to do. True when there is more.
    fn turn(&mut self, now: Instant) -> bool {
        self.accept_ports(now);
        self.accept_connections(now);
        self.receive(now);
        while self.forwarder.advance(now) {
            self.carry_stack_frames(now);
        }
        self.carry_stack_frames(now);
        self.flush();
        if now >= self.age_at {
            self.fabric.handle_age(now);
            self.age_at = now + AGE_INTERVAL;
        }
        self.ports.readable(&mut self.scratch.ids);
        !self.scratch.ids.is_empty() || self.forwarder.is_busy()
    }

    fn accept_ports(&mut self, now: Instant) {
        self.accept_at = None;
        while self.acceptable && self.ports.len() < MAX_PORTS {
            match self.socket.accept() {
                Ok(Some(connection)) => {
                    // A larger buffer than the kernel gives by default, as far as it lets us: fewer wake-ups.
                    let _ = socket2::SockRef::from(&connection).set_send_buffer_size(super::SOCKET_BUFFER_BYTES);
                    if let Err(error) = self.add_port(connection, Kind::Packets) {
                        tracing::warn!(%error, "port not added");
                    }
                }
                Ok(None) => self.acceptable = false,
                Err(error) => {
                    tracing::warn!(%error, "port not accepted");
                    self.accept_at = Some(now + ACCEPT_RETRY);
                    return;
                }
            }
        }
    }

    fn accept_connections(&mut self, now: Instant) {
        let mut accepted = std::mem::take(&mut self.scratch.accepted);
        self.forwarder.accept(now, &mut accepted);
        for port in accepted.drain(..) {
            let Some(host) = self.forwarder.host(port) else {
                continue;
            };
            if let Err(error) = watch(&self.epoll, host.as_fd(), Token::Relay(port)) {
                // Out of the kernel's memory: as good as a broken client.
                tracing::warn!(%error, "connection not watched");
                let _ = host.shutdown(std::net::Shutdown::Both);
            }
        }
        self.scratch.accepted = accepted;
    }

    /// Takes one batch from each port that has something.
    fn receive(&mut self, now: Instant) {
        let mut ids = std::mem::take(&mut self.scratch.ids);
        let mut batch = std::mem::replace(&mut self.scratch.batch, Batch::empty());
        self.ports.readable(&mut ids);
        for &id in &ids {
            let Some(port) = self.ports.get_mut(id) else {
                continue;
            };
            batch.clear();
            let received = port.receive(&mut batch);
            for frame in batch.iter() {
                self.carry(now, id, frame);
            }
            match received {
                Ok(Received::More | Received::Drained) => {}
                Ok(Received::Closed) => self.remove_port(id),
                Err(error) => {
                    tracing::debug!(port = id.0, %error, "port broken");
                    self.remove_port(id);
                }
            }
        }
        (self.scratch.ids, self.scratch.batch) = (ids, batch);
    }

    /// One frame through the fabric.
    fn carry(&mut self, now: Instant, from: PortId, frame: &[u8]) {
        self.counters.frames_in += 1;
        let outcome = self.fabric.handle_frame(now, from, frame);
        if let Some(mac) = outcome.appeared.filter(|_| from != STACK) {
            tracing::debug!(port = from.0, %mac, "address learned");
            self.forwarder.handle_appeared(now, mac);
        }
        match outcome.delivery {
            Delivery::Drop => self.counters.frames_filtered += 1,
            Delivery::To(STACK) => self.forwarder.handle_frame(now, frame),
            Delivery::To(to) => self.ports.enqueue(to, frame),
            Delivery::Flood => {
                self.counters.frames_flooded += 1;
                self.ports.enqueue_all(from, frame);
                if from != STACK {
                    self.forwarder.handle_frame(now, frame);
                }
            }
        }
    }

    fn carry_stack_frames(&mut self, now: Instant) {
        // Frames of the stack's never come back to it, so this queue does not grow while it is read.
        std::mem::swap(&mut self.forwarder.out, &mut self.scratch.out);
        let mut out = std::mem::take(&mut self.scratch.out);
        for frame in out.iter() {
            self.carry(now, STACK, frame);
        }
        out.clear();
        self.scratch.out = out;
    }

    fn flush(&mut self) {
        let mut broken = std::mem::take(&mut self.scratch.ids);
        broken.clear();
        self.counters.frames_out += self.ports.flush(&mut broken);
        for id in broken.drain(..) {
            self.remove_port(id);
        }
        self.scratch.ids = broken;
    }

    fn add_port(&mut self, fd: OwnedFd, kind: Kind) -> io::Result<()> {
        let id = PortId(self.next_port);
        watch(&self.epoll, fd.as_fd(), Token::Port(id))?;
        self.next_port = self.next_port.checked_add(1).ok_or(io::ErrorKind::OutOfMemory)?;
        self.ports.insert(id, Port::new(fd, kind));
        tracing::info!(port = id.0, ?kind, "port added");
        Ok(())
    }

    fn remove_port(&mut self, id: PortId) {
        // Dropping the descriptor ends the watch.
        if let Some(port) = self.ports.remove(id) {
            self.fabric.remove_port(id);
            tracing::info!(port = id.0, dropped_frames = port.dropped_frames, "port removed");
        }
    }

    fn timeout(&self, busy: bool) -> Option<Timespec> {
        if busy {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let deadlines = [Some(self.age_at), self.forwarder.deadline(), self.accept_at];
        let first = deadlines.into_iter().flatten().min()?;
        let wait = first.saturating_duration_since(Instant::now());
        Timespec::try_from(wait).ok()
    }
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, value) = match self {
            Self::Stop => (0, 0),
            Self::Socket => (1, 0),
            Self::Port(id) => (2, id.0),
            Self::Listener(index) => (3, index),
            Self::Relay(port) => (4, u32::from(port)),
        };
        kind << 32 | u64::from(value)
    }

    fn unpack(bits: u64) -> Option<Self> {
        let value = bits as u32;
        Some(match bits >> 32 {
            0 => Self::Stop,
            1 => Self::Socket,
            2 => Self::Port(PortId(value)),
            3 => Self::Listener(value),
            4 => Self::Relay(u16::try_from(value).ok()?),
            _ => return None,
        })
    }
}

/// Watches for everything, edge-triggered: no system call to change one's mind, and the reader keeps note of what is left.
fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
    use epoll::EventFlags as Flags;
    let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
    Ok(epoll::add(epoll, fd, epoll::EventData::new_u64(token.pack()), flags)?)
}
