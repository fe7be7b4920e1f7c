//! One TCP connection: its socket, and what is spoken on it.
//!
//! Each has a `SocketSet` of its own. In one set for all, smoltcp would ask every socket about every packet.

use alloc::vec;
use alloc::vec::Vec;
use colo_guest::plan::Plan;
use colo_guest::service::Service;
use colo_guest::session::Session;
use colo_guest::window_probe::WindowProbe;
use smoltcp::iface::{Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant;

use crate::device::Card;

pub(crate) const ECHO_PORT: u16 = 7;
pub(crate) const HTTP_PORT: u16 = 80;

/// Rounds of a connection's work before the others have their turn.
const MAX_ROUNDS: usize = 8;
/// What an echo moves at once.
const ECHO_CHUNK_BYTES: usize = 2048;

enum Speech {
    Http(Session),
    Echo,
}

/// A connection's place: used for one after the other.
pub(crate) struct Connection {
    pub(crate) sockets: SocketSet<'static>,
    handle: SocketHandle,
    speech: Speech,
    /// The key under which packets find it.
    pub(crate) flow: u64,
    /// When it is to be looked at again, if nothing comes before.
    pub(crate) deadline: Option<Instant>,
    /// When something last came.
    pub(crate) heard_at: Instant,
    /// Waits for its turn.
    pub(crate) queued: bool,
    probe: WindowProbe,
}

/// What [`Connection::work`] came to.
pub(crate) enum Worked {
    /// Nothing more to do until something comes, or its deadline.
    Done,
    /// There is more to do.
    More,
    /// The connection has ended.
    Ended,
}

impl Connection {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; plan.rx_bytes]),
            SocketBuffer::new(vec![0; plan.tx_bytes]),
        );
        socket.set_nagle_enabled(false);
        // Acknowledgements go out at once, but not before the batch of packets and its answers, so they ride on those.
        socket.set_ack_delay(None);
        socket.set_congestion_control(CongestionControl::None);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            sockets,
            handle,
            speech: Speech::Echo,
            flow: 0,
            deadline: None,
            heard_at: Instant::ZERO,
            queued: false,
            probe: WindowProbe::default(),
        }
    }

    /// Makes the place ready for a new connection to `port`, whatever was there before.
    pub(crate) fn listen(&mut self, port: u16, flow: u64, now: Instant) {
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        socket.abort();
        socket.set_keep_alive(None);
        // An aborted socket can listen, and the port is not 0.
        let _ = socket.listen(port);
        self.speech = if port == HTTP_PORT {
            Speech::Http(Session::new())
        } else {
            Speech::Echo
        };
        self.flow = flow;
        self.heard_at = now;
        self.deadline = None;
        self.probe = WindowProbe::default();
    }

    pub(crate) fn state(&self) -> State {
        self.sockets.get::<Socket>(self.handle).state()
    }

    /// Nobody would miss it: an HTTP connection on which nothing is under way.
    pub(crate) fn idle(&self) -> bool {
        let socket = self.sockets.get::<Socket>(self.handle);
        socket.send_queue() == 0 && matches!(&self.speech, Speech::Http(session) if session.idle())
    }

    /// Answers what has come, and sends what can be sent.
    pub(crate) fn work(
        &mut self,
        now: Instant,
        interface: &mut Interface,
        card: &mut Card,
        service: &mut Service,
    ) -> Worked {
        let mut more = true;
        for _ in 0..MAX_ROUNDS {
            let spoke = self.speak(service);
            let mut sent = false;
            while interface.poll_egress(now, card, &mut self.sockets)
                == PollResult::SocketStateChanged
            {
                sent = true;
            }
            more = spoke || sent;
            if !more || card.blocked() {
                break;
            }
        }
        let socket = self.sockets.get::<Socket>(self.handle);
        if matches!(socket.state(), State::Closed | State::Listen)
            && socket.remote_endpoint().is_none()
        {
            return Worked::Ended;
        }
        self.deadline = self.next_deadline(now, interface);
        if more || card.blocked() {
            Worked::More
        } else {
            Worked::Done
        }
    }

    fn speak(&mut self, service: &mut Service) -> bool {
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        match &mut self.speech {
            Speech::Http(session) => speak_http(socket, session, service),
            Speech::Echo => speak_echo(socket),
        }
    }

    fn next_deadline(&mut self, now: Instant, interface: &mut Interface) -> Option<Instant> {
        self.probe.update(self.sockets.get_mut(self.handle), now);
        let deadline = interface.poll_at(now, &self.sockets);
        self.probe
            .deadline(self.sockets.get(self.handle), now, deadline)
    }
}

/// Moves bytes between the session and its socket. Whether any moved.
fn speak_http(socket: &mut Socket, session: &mut Session, service: &mut Service) -> bool {
    let mut moved = 0;
    loop {
        let before = moved;
        // A long body goes out in large pieces, so that segments are full.
        let room = (socket.send_capacity() - socket.send_queue()) as u64;
        if socket.may_send()
            && session.pending() != 0
            && room >= session.pending().min(socket.send_capacity() as u64 / 2)
        {
            while session.pending() != 0 {
                let count = socket.send(|out| {
                    let count = session.write(out);
                    (count, count)
                });
                match count {
                    Ok(count) if count != 0 => moved += count,
                    _ => break,
                }
            }
        }
        if session.pending() == 0 && socket.can_recv() {
            let count = socket.recv(|data| {
                let count = session.read(data, service);
                (count, count)
            });
            moved += count.unwrap_or(0);
        }
        if moved == before {
            break;
        }
    }
    // After the last answer, or when the client has said all and been answered.
    let heard_all = !socket.may_recv() && !socket.can_recv() && session.pending() == 0;
    if (session.finished() || heard_all) && socket.may_send() {
        socket.close();
        return true;
    }
    moved != 0
}

fn speak_echo(socket: &mut Socket) -> bool {
    let mut chunk = [0; ECHO_CHUNK_BYTES];
    let mut moved = false;
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let Ok(count) = socket.recv_slice(&mut chunk[..room.min(ECHO_CHUNK_BYTES)]) else {
            break;
        };
        // There is room for all of it, as just seen.
        let _ = socket.send_slice(&chunk[..count]);
        moved = true;
    }
    if !socket.may_recv() && !socket.can_recv() && socket.may_send() {
        socket.close();
        return true;
    }
    moved
}
