use super::Message;
use super::codec::disk_write_head;
use super::decoder::{FrameDecoder, ReadState};
use super::error::PeerError;
use super::frame::{FrameEncoder, MessageKind, StreamSum};
use super::net_channel::NetChannel;
use crate::net::sys::set_receive_low_water;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use std::io::{ErrorKind, IoSlice, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The port that a secondary listens on, unless told otherwise: the one that Xen's tools have used for migration since Xend.
pub const DEFAULT_PORT: u16 = 8002;

/// Of a message that so much is missing of, or more, a [bulk](StateReceiver::expect_bulk) receiver is not woken for less.
const BULK_BYTES: usize = 64 << 10;

/// How often a quiet connection is probed: the most often that TCP can.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);

/// The connection for checkpoints, and the one on which every session begins: every call waits, but never longer than told.
///
/// ```
/// use colo_core::peer::{Message, StateChannel};
/// use std::net::TcpListener;
/// use std::time::{Duration, Instant};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let patience = Duration::from_secs(5);
/// let deadline = Instant::now() + patience;
/// let mut primary = StateChannel::connect(&listener.local_addr()?.to_string(), patience, deadline)?;
/// let mut secondary = StateChannel::new(listener.accept()?.0, patience)?;
///
/// secondary.send(&Message::Welcome)?;
/// assert_eq!(primary.recv(deadline)?, Some(Message::Welcome));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StateChannel {
    sender: StateSender,
    receiver: StateReceiver,
}

/// The sending half of a [`StateChannel`].
#[derive(Debug)]
pub struct StateSender {
    socket: TcpStream,
    patience: Duration,
    encoder: FrameEncoder,
    /// Room for messages that are not sent from where they lie.
    out: Vec<u8>,
}

/// The receiving half of a [`StateChannel`].
#[derive(Debug)]
pub struct StateReceiver {
    socket: TcpStream,
    decoder: FrameDecoder,
    expects_bulk: bool,
    /// From how many bytes on it is woken.
    low_water: usize,
}

impl StateChannel {
    /// Connects to `HOST`, `HOST:PORT`, `ADDRESS` or `[ADDRESS]:PORT`; without a port to [`DEFAULT_PORT`]. Tries all of the
    /// host's addresses in turn until the deadline. (Only the resolver's own time limit bounds the look-up of a name.)
    ///
    /// # Errors
    /// [`PeerError::Unreachable`].
    pub fn connect(target: &str, patience: Duration, deadline: Instant) -> Result<StateChannel, PeerError> {
        let unreachable = |reason| PeerError::Unreachable { target: target.to_owned(), reason };
        let addresses = resolve(target).map_err(|error| unreachable(error.to_string()))?;
        let mut reasons = Vec::new();
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                reasons.push("no time left".to_owned());
                break;
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(socket) => return StateChannel::new(socket, patience),
                Err(error) => reasons.push(format!("{address}: {error}")),
            }
        }
        Err(unreachable(if reasons.is_empty() { "it has no address".into() } else { reasons.join("; ") }))
    }

    /// Speaks over this socket, which may have come from a listener. `patience` is how long the peer may take no data before the
    /// connection counts as broken.
    ///
    /// # Errors
    /// [`PeerError::Io`] when the system refuses the socket's options.
    pub fn new(socket: TcpStream, patience: Duration) -> Result<StateChannel, PeerError> {
        // Waiting is done by `poll`: a time limit of the socket's would begin anew with every byte that comes.
        socket.set_nonblocking(true).map_err(PeerError::io("set_nonblocking"))?;
        socket.set_nodelay(true).map_err(PeerError::io("TCP_NODELAY"))?;
        let options = SockRef::from(&socket);
        options.set_tcp_user_timeout(Some(patience)).map_err(PeerError::io("TCP_USER_TIMEOUT"))?;
        // A host that is gone must be noticed on a quiet connection too; TCP_USER_TIMEOUT ends the probing.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_EVERY).with_interval(KEEPALIVE_EVERY);
        options.set_tcp_keepalive(&keepalive).map_err(PeerError::io("TCP_KEEPIDLE"))?;
        let reading = socket.try_clone().map_err(PeerError::io("dup"))?;
        Ok(StateChannel {
            sender: StateSender { socket, patience, encoder: FrameEncoder::new(), out: Vec::new() },
            receiver: StateReceiver {
                socket: reading,
                decoder: FrameDecoder::new(),
                expects_bulk: false,
                low_water: 1,
            },
        })
    }

    /// See [`StateSender::send`].
    ///
    /// # Errors
    /// Those.
    pub fn send(&mut self, message: &Message) -> Result<(), PeerError> {
        self.sender.send(message)
    }

    /// See [`StateSender::send_stream`].
    ///
    /// # Errors
    /// Those.
    pub fn send_stream(&mut self, parts: &[IoSlice<'_>]) -> Result<(), PeerError> {
        self.sender.send_stream(parts)
    }

    /// See [`StateReceiver::recv`].
    ///
    /// # Errors
    /// Those.
    pub fn recv(&mut self, deadline: Instant) -> Result<Option<Message>, PeerError> {
        self.receiver.recv(deadline)
    }

    /// Readable when [`StateChannel::recv`] may have something without waiting.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.receiver.socket.as_fd()
    }

    /// See [`StateSender::shutdown_handle`].
    ///
    /// # Errors
    /// Those.
    pub fn shutdown_handle(&self) -> Result<ShutdownHandle, PeerError> {
        self.sender.shutdown_handle()
    }

    /// Both halves, for two threads.
    pub fn split(self) -> (StateSender, StateReceiver) {
        (self.sender, self.receiver)
    }

    /// The same, as if so many messages had been sent and had come.
    pub(super) fn numbered_from(mut self, sent: u64, received: u64) -> StateChannel {
        self.sender.encoder = FrameEncoder::numbered_from(sent);
        self.receiver.decoder = FrameDecoder::numbered_from(received);
        self
    }

    /// Goes on as the connection for packets, after `Hello` and `Welcome`.
    pub fn into_net(self) -> NetChannel {
        NetChannel::new(self.sender.socket, self.sender.encoder, self.receiver.decoder)
    }
}

impl StateSender {
    /// Sends one message.
    ///
    /// # Errors
    /// [`PeerError::Payload`] when it cannot be sent, after which the channel is as it was; [`PeerError::Stalled`] when the peer
    /// takes nothing for longer than `patience`; [`PeerError::Io`].
    pub fn send(&mut self, message: &Message) -> Result<(), PeerError> {
        self.out.clear();
        self.encoder.encode(message, &mut self.out)?;
        write_all(&self.socket, self.patience, &mut [IoSlice::new(&self.out)])
    }

    /// Sends one `Stream` message whose payload is these parts, one after the other, without copying them.
    ///
    /// # Errors
    /// Those of [`StateChannel::send`]; [`PeerError::TooLong`], after which the channel is as it was.
    pub fn send_stream(&mut self, parts: &[IoSlice<'_>]) -> Result<(), PeerError> {
        let header = self.encoder.header_for(MessageKind::Stream, parts)?;
        let mut slices = Vec::with_capacity(1 + parts.len());
        slices.push(IoSlice::new(&header));
        slices.extend_from_slice(parts);
        write_all(&self.socket, self.patience, &mut slices)
    }

    /// Sends one `DiskWrite` message without copying its data.
    ///
    /// # Errors
    /// Those of [`StateSender::send_stream`].
    pub fn send_disk_write(&mut self, disk: u8, offset: u64, data: &[u8]) -> Result<(), PeerError> {
        self.send_disk_data(MessageKind::DiskWrite, disk, offset, data)
    }

    /// The same for one `DiskBefore` message.
    ///
    /// # Errors
    /// Those of [`StateSender::send_stream`].
    pub fn send_disk_before(&mut self, disk: u8, offset: u64, data: &[u8]) -> Result<(), PeerError> {
        self.send_disk_data(MessageKind::DiskBefore, disk, offset, data)
    }

    fn send_disk_data(&mut self, kind: MessageKind, disk: u8, offset: u64, data: &[u8]) -> Result<(), PeerError> {
        let head = disk_write_head(disk, offset);
        let header = self.encoder.header_for(kind, &[IoSlice::new(&head), IoSlice::new(data)])?;
        let mut slices = [IoSlice::new(&header), IoSlice::new(&head), IoSlice::new(data)];
        write_all(&self.socket, self.patience, &mut slices)
    }

    /// The socket, how long the peer may take nothing, and how many messages were sent.
    pub(super) fn into_parts(self) -> (TcpStream, Duration, u64) {
        (self.socket, self.patience, self.encoder.next_number())
    }

    /// The sum over the `Stream` messages sent since the last call: what `EpochEnd` must say.
    pub fn take_sent_sum(&mut self) -> StreamSum {
        self.encoder.take_stream_sum()
    }

    /// A handle by which another thread can end the connection.
    ///
    /// # Errors
    /// [`PeerError::Io`] when there are no file descriptors left.
    pub fn shutdown_handle(&self) -> Result<ShutdownHandle, PeerError> {
        self.socket.try_clone().map(|socket| ShutdownHandle(vec![socket])).map_err(PeerError::io("dup"))
    }
}

impl StateReceiver {
    /// Waits for the next message; `None` when the deadline passes first. A message that has come in part by then is not lost. With
    /// a deadline in the past, takes what is there.
    ///
    /// # Errors
    /// [`PeerError::Closed`] at the end of the connection, and everything that can be wrong with a message.
    pub fn recv(&mut self, deadline: Instant) -> Result<Option<Message>, PeerError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(Some(message));
            }
            match self.decoder.read_step_from(&mut &self.socket).map_err(PeerError::io("recv"))? {
                ReadState::More => {}
                ReadState::Closed => return Err(self.decoder.closed()),
                ReadState::Blocked if self.wait(deadline)? => {}
                ReadState::Blocked => return Ok(None),
            }
        }
    }

    /// From here on a long message is waited for as a whole: to be woken for each of its parts costs both sides more than to receive it. For
    /// messages that nobody waits for.
    pub fn expect_bulk(&mut self) {
        self.expects_bulk = true;
    }

    /// Waits for more; false when the deadline passes first.
    fn wait(&mut self, deadline: Instant) -> Result<bool, PeerError> {
        let missing = self.decoder.missing_bytes();
        let low_water = if self.expects_bulk && missing >= BULK_BYTES { missing } else { 1 };
        if low_water != self.low_water {
            set_receive_low_water(&self.socket, low_water).map_err(PeerError::io("SO_RCVLOWAT"))?;
            self.low_water = low_water;
        }
        wait(&self.socket, PollFlags::IN, deadline)
    }

    /// The minor version that the peer speaks, by the last message that has come here.
    pub fn peer_minor(&self) -> Option<u8> {
        self.decoder.peer_minor()
    }

    /// How many messages have come, if nothing of the next one has been read.
    pub(super) fn received_whole(&self) -> Result<u64, PeerError> {
        self.decoder.whole_messages()
    }
}

/// Ends a [`StateChannel`]'s connection, or those of several, from another thread: whoever waits in it gets an error at once.
#[derive(Debug)]
pub struct ShutdownHandle(Vec<TcpStream>);

impl ShutdownHandle {
    /// Ends what the other ends, too.
    #[must_use]
    pub fn and(mut self, other: ShutdownHandle) -> ShutdownHandle {
        self.0.extend(other.0);
        self
    }

    /// Ends the connections, both ways. Safe to repeat.
    pub fn shutdown(&self) {
        for socket in &self.0 {
            // Fails only when the connection has ended by itself, which is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn resolve(target: &str) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(address) = target.parse::<std::net::IpAddr>() {
        return Ok(vec![SocketAddr::new(address, DEFAULT_PORT)]);
    }
    let bare = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(target);
    let addresses = match target.rsplit_once(':') {
        Some(_) if bare.len() == target.len() => target.to_socket_addrs()?,
        _ => (bare, DEFAULT_PORT).to_socket_addrs()?,
    };
    Ok(addresses.collect())
}

/// Writes all slices, however few bytes the system takes at a time.
fn write_all(mut socket: &TcpStream, patience: Duration, mut slices: &mut [IoSlice<'_>]) -> Result<(), PeerError> {
    while !slices.is_empty() {
        match socket.write_vectored(slices) {
            Ok(0) => return Err(PeerError::Closed),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return Err(PeerError::Stalled(patience));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !wait(socket, PollFlags::OUT, Instant::now() + patience)? {
                    return Err(PeerError::Stalled(patience));
                }
            }
            Err(source) => {
                return Err(PeerError::Io { call: "send", source });
            }
        }
    }
    Ok(())
}

/// Waits until the socket is ready, or has failed, which reading or writing will tell; false when the deadline passes first.
fn wait(socket: &TcpStream, flags: PollFlags, deadline: Instant) -> Result<bool, PeerError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => {
                return Err(PeerError::Io { call: "poll", source: errno.into() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_long_message_is_waited_for_as_a_whole_and_a_short_one_is_not_missed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let patience = Duration::from_secs(60);
        let (_, mut receiver) = StateChannel::new(listener.accept().unwrap().0, patience).unwrap().split();
        receiver.expect_bulk();
        let long = Message::DiskWrite { disk: 1, offset: 512, data: vec![7; 1 << 20].into() };
        let (mut encoder, mut bytes) = (FrameEncoder::new(), Vec::new());
        encoder.encode(&long, &mut bytes).unwrap();
        let (some, rest) = bytes.split_at(400_000);
        let (more, last) = rest.split_at(400_000);
        socket.write_all(some).unwrap();
        wait(&receiver.socket, PollFlags::IN, Instant::now() + patience).unwrap();
        assert_eq!(receiver.recv(Instant::now()).unwrap(), None);
        socket.write_all(more).unwrap();
        let is_readable = |receiver: &StateReceiver| {
            poll(&mut [PollFd::new(&receiver.socket, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
        };
        assert!(!is_readable(&receiver), "woken for a part");
        socket.write_all(last).unwrap();
        assert_eq!(receiver.recv(Instant::now() + patience).unwrap(), Some(long));
        assert_eq!(receiver.recv(Instant::now()).unwrap(), None);
        let short = Message::Heartbeat { number: 3 };
        bytes.clear();
        encoder.encode(&short, &mut bytes).unwrap();
        socket.write_all(&bytes).unwrap();
        assert!(wait(&receiver.socket, PollFlags::IN, Instant::now() + patience).unwrap(), "not woken");
        assert_eq!(receiver.recv(Instant::now()).unwrap(), Some(short));
    }

    #[test]
    fn targets_with_and_without_a_port() {
        for (target, address) in [
            ("127.0.0.1", "127.0.0.1:8002"),
            ("127.0.0.1:99", "127.0.0.1:99"),
            ("::1", "[::1]:8002"),
            ("[::1]", "[::1]:8002"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(resolve(target).unwrap(), [address.parse().unwrap()], "{target}");
        }
        for target in ["", "127.0.0.1:", "127.0.0.1:99999", "[::1]x"] {
            assert!(resolve(target).is_err(), "{target}");
        }
    }
}
