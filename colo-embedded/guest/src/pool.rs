//! The connections of one TCP port: sockets that listen, sockets that serve, and what becomes of them.
//!
//! smoltcp looks at every socket for every packet, so only sockets in use are in its set: those of open connections, and a
//! backlog that listens. The backlog is filled up at every turn; since a turn takes in at most [`BACKLOG`] frames (see
//! [`crate::machine`]), no connection finds it empty unless the limit on connections is reached.

use alloc::vec::Vec;

use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp,
};

use crate::{
    nudge::{Connection, Watch},
    service::Context,
};

/// Sockets that listen, for each port. Also how many frames the machine takes in between two turns.
pub const BACKLOG: usize = 32;
/// How long a peer may take to finish the handshake.
const HANDSHAKE_LIMIT_NS: u64 = 10_000_000_000;
/// How long a connection must have been silent before it may be given up for a new one, when the pool is used up.
const SILENCE_LIMIT_NS: u64 = 30_000_000_000;
/// How long nothing may move, while something is outstanding, before the connection is nudged: longer than a LAN's round
/// trip, short against the outage of a failover. Doubled each time, up to the limit.
const NUDGE_DELAY_NS: u64 = 250_000_000;
const NUDGE_DELAY_LIMIT_NS: u64 = 4_000_000_000;
/// Closed sockets kept for the next connections, with their buffers: what the backlog takes.
const SPARE_LIMIT: usize = BACKLOG;

/// What a connection wants after it was served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// There is more to do at once, without anything having to happen first.
    pub again: bool,
    /// Bytes were moved since the last turn.
    pub progress: bool,
    /// The guest's time in ns at which to serve the connection again at the latest.
    pub deadline_ns: Option<u64>,
}

impl Turn {
    /// Adds what another connection wants.
    pub fn merge(&mut self, other: Turn) {
        self.again |= other.again;
        self.progress |= other.progress;
        self.deadline_ns = match (self.deadline_ns, other.deadline_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// One side of a conversation over TCP.
pub trait Session: Default {
    /// Reads, answers, closes: as far as `socket` lets it.
    fn serve(&mut self, socket: &mut tcp::Socket<'_>, context: &mut Context<'_>) -> Turn;
}

/// The size of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Connections at once, whatever their state.
    pub connections: usize,
    /// Receive buffer of each, in bytes.
    pub receive_bytes: usize,
    /// Send buffer of each, in bytes.
    pub send_bytes: usize,
}

impl PoolLimits {
    /// Memory that the buffers may come to take, in bytes.
    pub const fn memory_bytes(&self) -> usize {
        (self.connections + BACKLOG + SPARE_LIMIT) * (self.receive_bytes + self.send_bytes)
    }
}

struct Entry<S> {
    handle: SocketHandle,
    session: S,
    /// The guest's time when the peer was last heard of, in ns: 0 while the socket listens.
    active_ns: u64,
    /// Bytes that were waiting to be acknowledged after the last turn.
    queued_bytes: usize,
    /// Who it is with: from the handshake on.
    connection: Option<Connection>,
    /// When to nudge it, in ns of the guest's time, and how long to wait then.
    nudge_at_ns: u64,
    nudge_delay_ns: u64,
}

/// The connections of one port.
pub struct Pool<S> {
    port: u16,
    limits: PoolLimits,
    entries: Vec<Entry<S>>,
    spare: Vec<tcp::Socket<'static>>,
}

impl<S: Session> Pool<S> {
    /// A pool for `port`; it listens from the first [`Pool::serve`] on.
    pub fn new(port: u16, limits: PoolLimits) -> Self {
        Self {
            port,
            limits,
            entries: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Serves each connection once, clears up after those that ended, and fills up the backlog.
    pub fn serve(&mut self, sockets: &mut SocketSet<'static>, context: &mut Context<'_>) -> Turn {
        let mut turn = Turn::default();
        let mut listening = 0;
        let mut index = 0;
        while index < self.entries.len() {
            let entry = &mut self.entries[index];
            let socket = sockets.get_mut::<tcp::Socket>(entry.handle);
            match socket.state() {
                tcp::State::Closed => {
                    self.retire(sockets, index, context.watch);
                    continue;
                }
                tcp::State::Listen => {
                    entry.await_connection(context.watch);
                    listening += 1;
                }
                tcp::State::TimeWait => {}
                tcp::State::SynReceived => turn.merge(entry.await_handshake(socket, context)),
                _ => turn.merge(entry.serve(socket, context)),
            }
            index += 1;
        }
        while listening < BACKLOG && self.make_room(sockets, context) {
            self.listen(sockets);
            listening += 1;
        }
        turn
    }

    /// Connections that are open or being closed.
    pub fn connections(&self, sockets: &SocketSet<'static>) -> usize {
        let is_open = |entry: &&Entry<S>| {
            sockets.get::<tcp::Socket>(entry.handle).state() != tcp::State::Listen
        };
        self.entries.iter().filter(is_open).count()
    }

    fn listen(&mut self, sockets: &mut SocketSet<'static>) {
        let mut socket = self.spare.pop().unwrap_or_else(|| new_socket(&self.limits));
        // Spare and new sockets are closed, and the port is not 0: nothing can fail.
        let _ = socket.listen(self.port);
        let handle = sockets.add(socket);
        self.entries.push(Entry {
            handle,
            session: S::default(),
            active_ns: 0,
            queued_bytes: 0,
            connection: None,
            nudge_at_ns: 0,
            nudge_delay_ns: NUDGE_DELAY_NS,
        });
    }

    fn retire(&mut self, sockets: &mut SocketSet<'static>, index: usize, watch: &mut Watch) {
        let mut entry = self.entries.swap_remove(index);
        entry.await_connection(watch);
        let smoltcp::socket::Socket::Tcp(mut socket) = sockets.remove(entry.handle) else {
            return;
        };
        if self.spare.len() < SPARE_LIMIT {
            // Out of the set, this sends nothing.
            socket.abort();
            self.spare.push(socket);
        }
    }

    /// Sees to it that there is room for one more socket; `false` if all are needed.
    ///
    /// When the limit is reached, connections that only wait for stray packets (TIME-WAIT) go first. They are forgotten, not
    /// reset: a reset could cost the peer data that it has not read yet. Next is the connection that has been silent for
    /// longest, if that is long: without this, clients that vanished would hold the port for ever.
    fn make_room(&mut self, sockets: &mut SocketSet<'static>, context: &mut Context<'_>) -> bool {
        if self.entries.len() < self.limits.connections {
            return true;
        }
        let state = |entry: &Entry<S>| sockets.get::<tcp::Socket<'_>>(entry.handle).state();
        if let Some(index) = self
            .entries
            .iter()
            .position(|entry| state(entry) == tcp::State::TimeWait)
        {
            self.retire(sockets, index, context.watch);
            return true;
        }
        let in_use = self
            .entries
            .iter()
            .filter(|entry| state(entry) != tcp::State::Listen);
        if let Some(oldest) = in_use.min_by_key(|entry| entry.active_ns) {
            if context.now_ns.saturating_sub(oldest.active_ns) > SILENCE_LIMIT_NS {
                // It is closed when its reset has been sent, and makes room then.
                sockets.get_mut::<tcp::Socket<'_>>(oldest.handle).abort();
            }
        }
        false
    }
}

impl<S: Session> Entry<S> {
    /// Nobody is at the other end, or not any more.
    fn await_connection(&mut self, watch: &mut Watch) {
        self.active_ns = 0;
        if let Some(connection) = self.connection.take() {
            watch.remove(connection);
        }
    }

    fn await_handshake(&mut self, socket: &mut tcp::Socket<'_>, context: &mut Context<'_>) -> Turn {
        if self.active_ns == 0 {
            self.active_ns = context.now_ns;
        }
        if let (None, Some(peer), Some(local)) = (
            self.connection,
            socket.remote_endpoint(),
            socket.local_endpoint(),
        ) {
            let connection = Connection::new(peer, local.port);
            context.watch.add(connection);
            self.connection = Some(connection);
        }
        let deadline_ns = self.active_ns + HANDSHAKE_LIMIT_NS;
        if context.now_ns >= deadline_ns {
            socket.abort();
            return Turn {
                again: true,
                ..Turn::default()
            };
        }
        Turn {
            deadline_ns: Some(deadline_ns),
            ..Turn::default()
        }
    }

    fn serve(&mut self, socket: &mut tcp::Socket<'_>, context: &mut Context<'_>) -> Turn {
        let acknowledged = socket.send_queue() != self.queued_bytes;
        let mut turn = self.session.serve(socket, context);
        self.queued_bytes = socket.send_queue();
        let moved = turn.progress || acknowledged || self.active_ns == 0;
        if moved {
            self.active_ns = context.now_ns;
            self.nudge_delay_ns = NUDGE_DELAY_NS;
        }
        let is_closing = matches!(
            socket.state(),
            tcp::State::FinWait1 | tcp::State::Closing | tcp::State::LastAck
        );
        if self.queued_bytes > 0 || is_closing {
            turn.merge(self.nudge_if_due(moved, context));
        }
        turn
    }

    /// Something is outstanding: if nothing has moved for too long, nudges the connection.
    fn nudge_if_due(&mut self, moved: bool, context: &mut Context<'_>) -> Turn {
        if moved || self.nudge_at_ns == 0 {
            self.nudge_at_ns = context.now_ns + self.nudge_delay_ns;
        } else if context.now_ns >= self.nudge_at_ns {
            context.stalled.extend(self.connection);
            self.nudge_delay_ns = (self.nudge_delay_ns * 2).min(NUDGE_DELAY_LIMIT_NS);
            self.nudge_at_ns = context.now_ns + self.nudge_delay_ns;
        }
        Turn {
            deadline_ns: Some(self.nudge_at_ns),
            ..Turn::default()
        }
    }
}

fn new_socket(limits: &PoolLimits) -> tcp::Socket<'static> {
    let buffer = |bytes: usize| tcp::SocketBuffer::new(alloc::vec![0; bytes]);
    let mut socket = tcp::Socket::new(buffer(limits.receive_bytes), buffer(limits.send_bytes));
    socket.set_nagle_enabled(false);
    // Acknowledge at once. The machine sends after it has served, so an acknowledgement still travels with the answer if
    // there is one; and no timer decides what the stream of segments looks like.
    socket.set_ack_delay(None);
    socket
}
