//! A place where one connection at a time comes in.

use super::Address;
use crate::net::socket_file::{SocketFile, SocketKind};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often a quiet TCP connection is probed, and how many unanswered probes end it: a host that has died must not keep the door
/// shut for the one that comes in its place.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
const KEEPALIVE_PROBES: u32 = 3;

/// After a connection could not be taken (no more descriptors, no memory), the next try.
const RETRY: Duration = Duration::from_millis(100);

/// A listener, and the connection that came in. The next one waits until that is gone: nobody is pushed out by a newcomer.
#[derive(Debug)]
pub(super) struct Door {
    /// Its name in the log: that of the command's option.
    name: &'static str,
    listener: Listener,
    connection: Option<OwnedFd>,
    /// Not looked at before.
    shut_until: Option<Instant>,
}

#[derive(Debug)]
enum Listener {
    Unix(SocketFile),
    Tcp(TcpListener),
}

impl Door {
    /// # Errors
    /// When it cannot be listened at that address.
    pub(super) fn open(name: &'static str, address: &Address) -> io::Result<Self> {
        let listener = match address {
            Address::Unix(path) => Listener::Unix(SocketFile::bind(path, SocketKind::Stream)?),
            Address::Tcp { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port))?;
                listener.set_nonblocking(true)?;
                Listener::Tcp(listener)
            }
        };
        Ok(Door { name, listener, connection: None, shut_until: None })
    }

    /// Where it is, with the port that the system chose.
    pub(super) fn address(&self, asked: &Address) -> Address {
        match (&self.listener, asked) {
            (Listener::Tcp(listener), Address::Tcp { host, port }) => {
                let port = listener.local_addr().map_or(*port, |address| address.port());
                Address::Tcp { host: host.clone(), port }
            }
            _ => asked.clone(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// What is to be polled for reading: the connection, or the listener. `None` while it rests after a failure.
    pub(super) fn poll_fd(&self, now: Instant) -> Option<BorrowedFd<'_>> {
        match (&self.connection, &self.listener) {
            (Some(connection), _) => Some(connection.as_fd()),
            _ if self.shut_until.is_some_and(|until| now < until) => None,
            (None, Listener::Unix(socket)) => Some(socket.as_fd()),
            (None, Listener::Tcp(socket)) => Some(socket.as_fd()),
        }
    }

    /// When [`Door::poll_fd`] will have something that it has not got now.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        self.shut_until.filter(|_| self.connection.is_none())
    }

    /// Takes the next connection. False when nobody waits.
    pub(super) fn accept(&mut self, now: Instant) -> bool {
        match self.try_accept() {
            Ok(connection) => self.connection = connection,
            Err(error) => {
                tracing::warn!("{}: a connection was not taken: {error}", self.name);
                self.shut_until = Some(now + RETRY);
                return false;
            }
        }
        self.shut_until = None;
        if self.is_connected() {
            tracing::info!("{}: connected", self.name);
        }
        self.is_connected()
    }

    fn try_accept(&self) -> io::Result<Option<OwnedFd>> {
        match &self.listener {
            Listener::Unix(socket) => socket.accept(),
            Listener::Tcp(listener) => match listener.accept() {
                Ok((connection, _)) => {
                    connection.set_nonblocking(true)?;
                    connection.set_nodelay(true)?;
                    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_EVERY).with_interval(KEEPALIVE_EVERY);
                    SockRef::from(&connection).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))?;
                    Ok(Some(connection.into()))
                }
                Err(error) if is_transient(&error) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Ends the connection, and tells why.
    pub(super) fn close(&mut self, why: &dyn std::fmt::Display) {
        if self.connection.take().is_some() {
            tracing::warn!("{}: {why}; waiting for the next connection", self.name);
        }
    }

    /// Reads what there is into the room. `None` when there is nothing, or nobody.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the connection; otherwise the kernel's.
    pub(super) fn read(&self, room: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(connection) = &self.connection else {
            return Ok(None);
        };
        match rustix::net::recv(connection, room, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends as much as there is room for. `None` when there is none, or nobody.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(connection) = &self.connection else {
            return Ok(None);
        };
        match rustix::net::send(connection, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Bytes that have come and were not read.
    pub(super) fn unread_bytes(&self) -> u64 {
        // A connection that cannot tell is broken, and the next read says so.
        self.connection.as_ref().map_or(0, |connection| rustix::io::ioctl_fionread(connection).unwrap_or(0))
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}

/// What the end of a connection is called.
pub(super) fn ended(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the other side has closed the connection".into(),
        _ => format!("the connection broke: {error}"),
    }
}
