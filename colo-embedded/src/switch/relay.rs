//! Connections of this host, carried to a guest: accepted here, made anew by the stack, and joined.

use super::stack::Stack;
use rustix::event::PollFlags;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpCidr, Ipv4Address};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The most connections at once.
pub const MAX_CONNECTIONS: usize = 1024;

/// The relay's own address on the LAN.
const MAC: [u8; 6] = [0x02, 0x43, 0x4f, 0x4c, 0x4f, 0x01];
const ADDRESS: Ipv4Address = Ipv4Address::new(10, 77, 0, 1);
const PREFIX_LEN: u8 = 24;

/// Connections to `from`, an address of this host, go to `to`, an address on the switch's LAN (10.77.0.0/24).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Where clients connect.
    pub from: SocketAddr,
    /// Where they get to.
    pub to: SocketAddrV4,
}

/// All forwards, and their connections.
pub(super) struct Relay {
    listeners: Vec<(TcpListener, SocketAddrV4)>,
    connections: Vec<Connection>,
    stack: Stack,
}

struct Connection {
    host: TcpStream,
    guest: SocketHandle,
    /// The client will send no more, and the guest's side has been told.
    client_done: bool,
    /// The guest will send no more, and the client has been told.
    guest_done: bool,
    /// The client's socket has no room.
    host_full: bool,
    /// One side broke: the other is being told.
    broken: bool,
}

impl Relay {
    pub(super) fn new(forwards: &[Forward], now: Instant) -> io::Result<Relay> {
        let listen = |forward: &Forward| {
            let listener = TcpListener::bind(forward.from)?;
            listener.set_nonblocking(true)?;
            Ok((listener, forward.to))
        };
        let listeners = forwards.iter().map(listen).collect::<io::Result<_>>()?;
        let stack = Stack::new(MAC, IpCidr::new(IpAddress::Ipv4(ADDRESS), PREFIX_LEN), now);
        Ok(Relay { listeners, connections: Vec::new(), stack })
    }

    /// What to sleep on.
    pub(super) fn poll_fds(&mut self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let mut fds: Vec<_> = if self.connections.len() < MAX_CONNECTIONS {
            self.listeners.iter().map(|(listener, _)| (listener.as_fd(), PollFlags::IN)).collect()
        } else {
            Vec::new()
        };
        for connection in &self.connections {
            let mut flags = PollFlags::empty();
            let guest = self.stack.socket(connection.guest);
            flags.set(PollFlags::IN, !connection.client_done && guest.can_send());
            flags.set(PollFlags::OUT, connection.host_full);
            if !flags.is_empty() {
                fds.push((connection.host.as_fd(), flags));
            }
        }
        fds
    }

    /// When a turn is due at the latest.
    pub(super) fn poll_delay(&mut self, now: Instant) -> Option<Duration> {
        self.stack.poll_delay(now)
    }

    /// A frame from the LAN.
    pub(super) fn handle_frame(&mut self, frame: &[u8]) {
        self.stack.handle_frame(frame);
    }

    /// Does what can be done. Returns whether anything was.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        let mut moved = self.accept();
        moved |= self.stack.poll(now);
        for connection in &mut self.connections {
            moved |= connection.pump(&mut self.stack);
        }
        moved |= self.stack.poll(now);
        let stack = &mut self.stack;
        self.connections.retain(|connection| {
            let over = stack.socket(connection.guest).state() == tcp::State::Closed;
            if over {
                connection.end();
                stack.remove(connection.guest);
            }
            !over
        });
        moved
    }

    /// Frames for the LAN. Give the buffers back.
    pub(super) fn take_frames(&mut self) -> Vec<Vec<u8>> {
        self.stack.take_frames()
    }

    pub(super) fn give_back(&mut self, frames: Vec<Vec<u8>>) {
        self.stack.give_back(frames);
    }

    fn accept(&mut self) -> bool {
        let mut any = false;
        for (listener, to) in &self.listeners {
            while self.connections.len() < MAX_CONNECTIONS {
                // An error concerns the one who connected, and he knows.
                let Ok((host, _)) = listener.accept() else { break };
                let ready = host.set_nonblocking(true).and_then(|()| host.set_nodelay(true));
                if let (Ok(()), Some(guest)) = (ready, self.stack.connect(*to)) {
                    self.connections.push(Connection::new(host, guest));
                    any = true;
                }
            }
        }
        any
    }
}

impl Connection {
    fn new(host: TcpStream, guest: SocketHandle) -> Connection {
        Connection { host, guest, client_done: false, guest_done: false, host_full: false, broken: false }
    }

    /// Moves bytes both ways. Returns whether any moved.
    fn pump(&mut self, stack: &mut Stack) -> bool {
        let guest = stack.socket(self.guest);
        let result = self.to_guest(guest).and_then(|sent| Ok(sent | self.to_client(guest)?));
        match result {
            Ok(moved) => moved,
            Err(error) => {
                tracing::debug!("a client broke its connection: {error}");
                self.broken = true;
                guest.abort();
                true
            }
        }
    }

    fn to_guest(&mut self, guest: &mut tcp::Socket<'_>) -> io::Result<bool> {
        let mut moved = false;
        while !self.client_done && guest.can_send() {
            let mut result = Ok(0);
            let sent = guest.send(|buffer| {
                result = (&self.host).read(buffer);
                let count = *result.as_ref().unwrap_or(&0);
                (count, count)
            });
            match result {
                Ok(0) => {
                    self.client_done = true;
                    guest.close();
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            moved |= sent.is_ok_and(|sent| sent > 0);
        }
        Ok(moved)
    }

    fn to_client(&mut self, guest: &mut tcp::Socket<'_>) -> io::Result<bool> {
        let mut moved = false;
        self.host_full = false;
        while guest.can_recv() {
            let mut result = Ok(0);
            let received = guest.recv(|data| {
                result = (&self.host).write(data);
                let count = *result.as_ref().unwrap_or(&0);
                (count, count)
            });
            match result {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.host_full = true;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            moved |= received.is_ok_and(|received| received > 0);
        }
        let finished = matches!(
            guest.state(),
            tcp::State::CloseWait | tcp::State::LastAck | tcp::State::Closing | tcp::State::TimeWait
        );
        if finished && !guest.can_recv() && !self.guest_done {
            self.guest_done = true;
            self.host.shutdown(Shutdown::Write)?;
            moved = true;
        }
        Ok(moved)
    }

    /// The guest's side is over. If it did not end in order, the client's must not look as if it had.
    fn end(&self) {
        if !(self.guest_done && self.client_done) && !self.broken {
            // Closing then resets. Fails only for a socket that is gone.
            let _ = socket2::SockRef::from(&self.host).set_linger(Some(Duration::ZERO));
        }
    }
}
