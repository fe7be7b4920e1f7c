use super::handshake::{ClientHandshake, ClientProgress, Offer};
use super::kept::{Change, together};
use super::location::{Address, Location};
use super::replies::{Answer, Replies};
use super::{ClientConfig, ClientError};
use crate::disk::nbd::request::Request;
use crate::net::socket_file::{self, SocketKind};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_keepalive, set_socket_timeout, set_tcp_nodelay, set_tcp_user_timeout};
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is taken from the socket at once.
const RECEIVED_BYTES: usize = 256 << 10;
/// So many changes are on their way at once when they are written again.
const WINDOW: usize = 64;
/// How often a thread that waits for the socket looks at the time, at least.
const TICK: Duration = Duration::from_secs(1);

/// A connection to a server, behind its negotiation.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// Another for each connection of a client.
    pub(super) number: u64,
    pub(super) offer: Offer,
    /// One request at a time, as a whole.
    sending: Mutex<()>,
    received: Mutex<Vec<u8>>,
}

impl Connection {
    /// Connects and negotiates.
    pub(super) fn open(
        location: &Location,
        config: &ClientConfig,
        number: u64,
        deadline: Instant,
    ) -> Result<(Connection, Replies), ClientError> {
        let socket = connect(&location.address, config, deadline)?;
        let tick = TICK.min(config.answer_within / 4).max(Duration::from_millis(1));
        for side in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&socket, side, Some(tick)).map_err(io::Error::from)?;
        }
        let mut handshake = ClientHandshake::new(&location.export);
        let mut bytes = [0; 4096];
        let offer = loop {
            send_all(&socket, &handshake.take_output(), &[], deadline)?;
            let count = receive(&socket, &mut bytes, deadline)?.ok_or(ErrorKind::TimedOut).map_err(io::Error::from)?;
            match handshake.feed(&bytes[..count]) {
                ClientProgress::More => {}
                ClientProgress::Agreed(offer) => break offer,
                ClientProgress::Broken(error) => return Err(error.into()),
            }
        };
        let mut replies = Replies::of(&offer);
        // Nothing was asked yet.
        replies.feed(&handshake.into_rest())?;
        let received = Mutex::new(vec![0; RECEIVED_BYTES]);
        Ok((Connection { socket, number, offer, sending: Mutex::new(()), received }, replies))
    }

    pub(super) fn send(&self, request: &Request, data: &[u8], deadline: Instant) -> io::Result<()> {
        let _sending = locked(&self.sending);
        send_all(&self.socket, &request.encode(), data, deadline)
    }

    /// Waits for some bytes, and hands them over. Nothing comes for a while: nothing is handed over.
    pub(super) fn receive(&self, take: impl FnOnce(&[u8])) -> io::Result<()> {
        let mut received = locked(&self.received);
        // Another thread can wait, too: once.
        if let Some(count) = receive(&self.socket, &mut received, Instant::now())? {
            take(&received[..count]);
        }
        Ok(())
    }

    /// Writes changes again, before there are other requests.
    // Not by way of `Line::run`: nobody waits for these, and nothing else may be asked before they are done.
    pub(super) fn rewrite(
        &self,
        replies: &mut Replies,
        changes: &[Change],
        deadline: Instant,
    ) -> Result<(), ClientError> {
        let mut rest = changes;
        while !rest.is_empty() {
            let (window, later) = rest.split_at(together(rest, WINDOW));
            rest = later;
            for change in window {
                replies.ask(&change.request);
                self.send(&change.request, change.data(), deadline)?;
            }
            let mut left = window.len();
            while left > 0 {
                let mut fed = Ok(());
                self.receive(|bytes| fed = replies.feed(bytes))?;
                fed?;
                while let Some(Answer { result, .. }) = replies.poll() {
                    result.map_err(ClientError::Rewrite)?;
                    left -= 1;
                }
                if Instant::now() > deadline {
                    return Err(io::Error::from(ErrorKind::TimedOut).into());
                }
            }
        }
        Ok(())
    }

    /// Whoever sends or waits hears that it is over.
    pub(super) fn close(&self) {
        // Fails when it is closed already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// A lock over what stays right when a thread panics.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(address: &Address, config: &ClientConfig, deadline: Instant) -> io::Result<OwnedFd> {
    let (host, port) = match address {
        Address::Unix(path) => {
            // Does not wait for a server that is full.
            let stream = UnixStream::from(socket_file::connect(path, SocketKind::Stream)?);
            stream.set_nonblocking(false)?;
            return Ok(stream.into());
        }
        Address::Tcp { host, port } => (host.as_str(), *port),
    };
    let mut last = io::Error::from(ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                set_tcp_nodelay(&stream, true)?;
                // A host that is gone says nothing.
                set_socket_keepalive(&stream, true)?;
                set_tcp_user_timeout(&stream, u32::try_from(config.answer_within.as_millis()).unwrap_or(u32::MAX))?;
                return Ok(stream.into());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Nothing: the time is over, or it is for once that nothing comes.
fn receive(socket: &OwnedFd, bytes: &mut [u8], deadline: Instant) -> io::Result<Option<usize>> {
    loop {
        match rustix::io::read(socket, &mut *bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => return Ok(Some(count)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < deadline => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn send_all(socket: &OwnedFd, head: &[u8], data: &[u8], deadline: Instant) -> io::Result<()> {
    let mut parts = [IoSlice::new(head), IoSlice::new(data)];
    let mut left = &mut parts[..];
    // Empty ones are left out.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match sendmsg(socket, left, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < deadline => {}
            Err(Errno::AGAIN) => return Err(ErrorKind::TimedOut.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
