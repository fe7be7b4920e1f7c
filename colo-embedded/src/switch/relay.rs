//! One forwarded connection: a host's TCP socket on one side, a TCP socket of the switch's own stack on the other.
//!
//! Bytes go from one socket's buffer straight into the other's, and only as many as it has room for: back-pressure is TCP's
//! own. An end of stream is passed on as one, for each direction by itself; a broken side breaks the other (RST).

use super::nic::Nic;
use super::nudge::LastSaid;
use super::queue::FrameQueue;
use smoltcp::iface::{Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, RecvError, State};
use smoltcp::time::Duration as SmolDuration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of the receive window: at 300 MB/s it takes 0.9 ms to fill, more than the LAN's round trip under load.
pub(super) const RECEIVE_BYTES: usize = 256 << 10;

/// Bytes kept until the guest has acknowledged them.
pub(super) const SEND_BYTES: usize = 256 << 10;

/// How long the guest may take to accept.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the guest may leave data unacknowledged: longer than a failover that waits for a person.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long nothing moves before the guest is asked again. See [`Relay::handle_stall`].
pub(super) const FIRST_NUDGE: Duration = Duration::from_millis(250);

/// The longest time between two such questions: an idle connection costs next to nothing.
pub(super) const LAST_NUDGE: Duration = Duration::from_secs(8);

/// The shortest time before a connection is looked at again though nothing happened.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Alive,
    /// Both directions ended in order.
    Done,
    /// One side broke; the other has been told.
    Broken,
}

/// One connection.
pub(super) struct Relay {
    host: TcpStream,
    /// This connection's socket alone: the stack then need not search all of them for every frame.
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    /// Hold until a call said that it would block.
    pub(super) host_readable: bool,
    pub(super) host_writable: bool,
    /// The poll reported an error or a hang-up of the host's side.
    pub(super) host_hung_up: bool,
    established: bool,
    /// The host's end of stream came; it is passed on once the guest has accepted.
    host_ended: bool,
    /// The guest's end of stream was passed on.
    guest_ended: bool,
    /// Our end of stream was given to the stack.
    fin_queued: bool,
    /// Both ends of stream are through, and acknowledged: only bytes for the host remain.
    settled: bool,
    /// The last frame that was sent to the guest.
    said: LastSaid,
    /// The last that came from it.
    heard: LastSaid,
    nudge_at: Instant,
    nudge_delay: Duration,
}

impl Relay {
    /// Begins to connect to `target` from local port `port`, on behalf of a host's client.
    ///
    /// # Errors
    /// When the host's socket is broken, or the target no address to connect to.
    pub(super) fn connect(
        interface: &mut Interface,
        host: TcpStream,
        target: SocketAddrV4,
        port: u16,
        now: Instant,
    ) -> io::Result<Self> {
        host.set_nonblocking(true)?;
        host.set_nodelay(true)?;
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(RECEIVE_BYTES), buffer(SEND_BYTES));
        socket.set_nagle_enabled(false);
        // The stack sends once per batch of frames: what is acknowledged is then already as much as there is.
        socket.set_ack_delay(None);
        socket.set_timeout(Some(smol_duration(CONNECT_TIMEOUT)));
        socket
            .connect(interface.context(), (*target.ip(), target.port()), port)
            .map_err(|_| io::Error::from(ErrorKind::AddrNotAvailable))?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Ok(Self {
            host,
            sockets,
            socket,
            host_readable: true,
            host_writable: true,
            host_hung_up: false,
            established: false,
            host_ended: false,
            guest_ended: false,
            fin_queued: false,
            settled: false,
            said: LastSaid::default(),
            heard: LastSaid::default(),
            nudge_at: now + FIRST_NUDGE,
            nudge_delay: FIRST_NUDGE,
        })
    }

    pub(super) fn host(&self) -> &TcpStream {
        &self.host
    }

    /// Whom the relay talks to.
    pub(super) fn remote(&self) -> Option<SocketAddrV4> {
        let endpoint = self.sockets.get::<tcp::Socket<'_>>(self.socket).remote_endpoint()?;
        let smoltcp::wire::IpAddress::Ipv4(address) = endpoint.addr;
        Some(SocketAddrV4::new(address, endpoint.port))
    }

    /// Bytes from the client that the guest has not acknowledged.
    #[cfg(test)]
    pub(super) fn queued_bytes(&self) -> usize {
        self.sockets.get::<tcp::Socket<'_>>(self.socket).send_queue()
    }

    /// Takes a frame that is meant for this connection.
    pub(super) fn handle_frame(
        &mut self,
        interface: &mut Interface,
        at: smoltcp::time::Instant,
        frame: &[u8],
        out: &mut FrameQueue,
    ) {
        self.heard.note(frame);
        let frames = out.len();
        let mut nic = Nic { frame: Some(frame), out };
        interface.poll_ingress_single(at, &mut nic, &mut self.sockets);
        self.note_said(frames, out);
    }

    /// Moves what can be moved, and sends what is to be sent.
    pub(super) fn advance(
        &mut self,
        interface: &mut Interface,
        now: Instant,
        at: smoltcp::time::Instant,
        out: &mut FrameQueue,
    ) -> Fate {
        let moved = self.exchange().unwrap_or_else(|error| {
            tracing::debug!(%error, "forwarded connection broken by its client");
            self.socket_mut().abort();
            0
        });
        let frames = out.len();
        self.send(interface, at, out);
        if now >= self.nudge_at {
            self.handle_stall(interface, now, at, out);
            self.send(interface, at, out);
        } else if moved > 0 || out.len() > frames {
            self.note_progress(now);
        }
        self.note_said(frames, out);
        self.fate()
    }

    /// When to call [`Relay::advance`] again though nothing happened.
    pub(super) fn deadline(
        &self,
        interface: &mut Interface,
        at: smoltcp::time::Instant,
        now: Instant,
    ) -> Option<Instant> {
        if self.settled {
            return None;
        }
        let stack = interface.poll_at(at, &self.sockets).map(|due| {
            // All that could be sent was. Should the stack say "now" all the same, it is not asked again without end.
            let wait = if due > at { due - at } else { SmolDuration::ZERO };
            now + Duration::from_micros(wait.total_micros()).max(SHORTEST_WAIT)
        });
        Some(stack.map_or(self.nudge_at, |stack| stack.min(self.nudge_at)))
    }

    /// The machine at `hardware_address` has just appeared at a port, perhaps after a failover: what either side sent
    /// before may be lost. Returns whether that concerns this connection, which is then to be advanced.
    pub(super) fn handle_appeared(&mut self, hardware_address: [u8; 6], now: Instant) -> bool {
        let concerned = self.heard.source() == Some(hardware_address);
        if concerned {
            (self.nudge_at, self.nudge_delay) = (now, FIRST_NUDGE);
        }
        concerned
    }

    /// Breaks the host's side too: RST instead of an end of stream, which would look as if everything had been said.
    pub(super) fn reset_host(&self) {
        // Best effort: the descriptor is closed right after.
        let _ = socket2::SockRef::from(&self.host).set_linger(Some(Duration::ZERO));
    }

    /// Nothing has moved for a while: whoever is stuck is made to send again, we ourselves too (see [`super::nudge`]).
    fn handle_stall(
        &mut self,
        interface: &mut Interface,
        now: Instant,
        at: smoltcp::time::Instant,
        out: &mut FrameQueue,
    ) {
        for frame in self.said.nudge() {
            out.push(&frame);
        }
        if self.established && self.socket_mut().send_queue() > 0 {
            let probe = self.heard.probe();
            for frame in probe.into_iter().chain(self.heard.nudge()) {
                let mut nic = Nic { frame: Some(&frame), out };
                interface.poll_ingress_single(at, &mut nic, &mut self.sockets);
                // What the probe allows must go before the window is said to be closed again.
                self.send(interface, at, out);
            }
        }
        self.nudge_at = now + self.nudge_delay;
        self.nudge_delay = (self.nudge_delay * 2).min(LAST_NUDGE);
    }

    /// Notes the last frame of `out` if there are more than `before`.
    fn note_said(&mut self, before: usize, out: &FrameQueue) {
        if let Some(frame) = out.last().filter(|_| out.len() > before) {
            self.said.note(frame);
        }
    }

    fn note_progress(&mut self, now: Instant) {
        self.nudge_at = now + FIRST_NUDGE;
        self.nudge_delay = FIRST_NUDGE;
    }

    fn socket_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Moves bytes and ends of stream both ways; returns how many bytes.
    fn exchange(&mut self) -> io::Result<usize> {
        if self.host_hung_up {
            self.host_hung_up = false;
            if let Some(error) = self.host.take_error()? {
                return Err(error);
            }
        }
        let moved = self.guest_to_host()? + self.host_to_guest()?;
        self.note_state();
        Ok(moved)
    }

    fn guest_to_host(&mut self) -> io::Result<usize> {
        let Self { host, sockets, socket, host_writable, .. } = self;
        let socket = sockets.get_mut::<tcp::Socket<'_>>(*socket);
        let mut moved = 0;
        while *host_writable && socket.can_recv() {
            let count = socket
                .recv(|bytes| match attempt(host_writable, || host.write(bytes)) {
                    Ok(count) => (count, Ok(count)),
                    Err(error) => (0, Err(error)),
                })
                .unwrap_or(Ok(0))?;
            moved += count;
        }
        let ended = !socket.can_recv() && matches!(socket.recv(|_| (0, ())), Err(RecvError::Finished));
        if ended && !self.guest_ended {
            self.guest_ended = true;
            match self.host.shutdown(Shutdown::Write) {
                Err(error) if error.kind() != ErrorKind::NotConnected => return Err(error),
                _ => {}
            }
        }
        Ok(moved)
    }

    fn host_to_guest(&mut self) -> io::Result<usize> {
        let Self { host, sockets, socket, host_readable, host_ended, .. } = self;
        let socket = sockets.get_mut::<tcp::Socket<'_>>(*socket);
        let mut moved = 0;
        while *host_readable && !*host_ended && socket.can_send() {
            let count = socket
                .send(|room| match attempt(host_readable, || host.read(room)) {
                    Ok(count) => (count, Ok(count)),
                    Err(error) => (0, Err(error)),
                })
                .unwrap_or(Ok(0))?;
            // A read of nothing that did not say "later" is the end.
            *host_ended = count == 0 && *host_readable;
            moved += count;
        }
        if self.host_ended && !self.fin_queued && socket.may_send() {
            self.fin_queued = true;
            socket.close();
        }
        Ok(moved)
    }

    fn note_state(&mut self) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
        if !self.established && !matches!(socket.state(), State::SynSent | State::Closed) {
            self.established = true;
            socket.set_timeout(Some(smol_duration(SILENCE_TIMEOUT)));
        }
    }

    /// Lets the stack send all that it has to.
    fn send(&mut self, interface: &mut Interface, at: smoltcp::time::Instant, out: &mut FrameQueue) {
        // At the end of TIME-WAIT the stack would throw away what the host has not taken yet.
        if self.settled {
            return;
        }
        let mut nic = Nic { frame: None, out };
        while interface.poll_egress(at, &mut nic, &mut self.sockets) == PollResult::SocketStateChanged {}
        self.settled = self.socket_mut().state() == State::TimeWait;
    }

    fn fate(&mut self) -> Fate {
        let (fin_queued, guest_ended) = (self.fin_queued, self.guest_ended);
        let socket = self.socket_mut();
        match socket.state() {
            State::TimeWait if guest_ended => Fate::Done,
            // In order only if the last to be said was our end of stream, and all before it was acknowledged.
            State::Closed if fin_queued && guest_ended && socket.send_queue() == 0 => Fate::Done,
            State::Closed if fin_queued && socket.can_recv() && socket.send_queue() == 0 => Fate::Alive,
            State::Closed => Fate::Broken,
            _ => Fate::Alive,
        }
    }
}

/// Runs a call on the host's socket; one that would block clears `ready` and counts as nothing moved.
fn attempt(ready: &mut bool, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                *ready = false;
                return Ok(0);
            }
            result => return result,
        }
    }
}

fn smol_duration(duration: Duration) -> SmolDuration {
    SmolDuration::from_micros(duration.as_micros() as u64)
}
