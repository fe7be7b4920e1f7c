use super::Message;
use super::decoder::{FrameDecoder, ReadState};
use super::error::PeerError;
use super::frame::FrameEncoder;
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// The most bytes that wait to be sent: what a 10 Gbit/s connection carries in 7 ms. A peer that is further behind needs a
/// checkpoint, not more packets.
pub const MAX_QUEUED_BYTES: usize = 8 << 20;

/// How much of [`MAX_QUEUED_BYTES`] is kept for messages that are not packets, so that a heartbeat, or the last word, has room
/// behind packets that wait.
const CONTROL_RESERVE_BYTES: usize = 64 * 1024;

/// The most reads in one call of [`NetChannel::receive`], so that a peer that never stops sending does not keep the caller from
/// everything else.
const MAX_READS: usize = 16;

/// Whether there was room for a message.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queued {
    /// It will be sent.
    Yes,
    /// There is no room, and it has been left out. For a packet that means: ask for a checkpoint.
    Full,
}

/// The connection for packets and heartbeats, for a loop that polls: no call waits. Made from a [`super::StateChannel`] by
/// [`super::StateChannel::into_net`].
#[derive(Debug)]
pub struct NetChannel {
    socket: TcpStream,
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    out: Vec<u8>,
    /// How much of `out` has been sent.
    sent_bytes: usize,
    /// How sending has failed. The system tells it once, and from then on shows an end that the peer has not made.
    failed: Option<ErrorKind>,
    /// The end of this side's words was sent.
    has_ended: bool,
}

impl Drop for NetChannel {
    /// Ends the connection even where a poll loop still holds a duplicate of its descriptor: a peer must see the end.
    fn drop(&mut self) {
        // Fails only when the connection has ended by itself.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl NetChannel {
    /// The socket does not block.
    pub(super) fn new(socket: TcpStream, encoder: FrameEncoder, decoder: FrameDecoder) -> NetChannel {
        NetChannel { socket, encoder, decoder, out: Vec::new(), sent_bytes: 0, failed: None, has_ended: false }
    }

    /// Readable when [`NetChannel::receive`] may have something; to be polled for writing too while
    /// [`NetChannel::wants_write`].
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Appends the messages that have come, and returns how many.
    ///
    /// # Errors
    /// [`PeerError::Closed`] at the end of the connection, and everything that can be wrong with a message. Those that came
    /// before are in `messages` even then, and count.
    pub fn receive(&mut self, messages: &mut Vec<Message>) -> Result<usize, PeerError> {
        let before = messages.len();
        for _ in 0..MAX_READS {
            let state = self.decoder.read_from(&mut &self.socket).map_err(PeerError::io("recv"))?;
            while let Some(message) = self.decoder.next_message()? {
                messages.push(message);
            }
            match state {
                ReadState::More => {}
                ReadState::Blocked => break,
                ReadState::Closed => {
                    let failed = self.failed.map(|kind| PeerError::Io { call: "send", source: kind.into() });
                    return Err(failed.unwrap_or_else(|| self.decoder.closed()));
                }
            }
        }
        Ok(messages.len() - before)
    }

    /// Puts a message in the queue, to be sent by [`NetChannel::flush`].
    ///
    /// # Errors
    /// [`PeerError::Payload`] when it cannot be sent at all; the channel is as it was.
    pub fn queue(&mut self, message: &Message) -> Result<Queued, PeerError> {
        let is_packets = matches!(message, Message::Input { .. } | Message::Output { .. } | Message::Released { .. });
        let limit = if is_packets { MAX_QUEUED_BYTES - CONTROL_RESERVE_BYTES } else { MAX_QUEUED_BYTES };
        let start = self.out.len();
        let mut encoder = self.encoder.clone();
        encoder.encode(message, &mut self.out)?;
        if self.queued_bytes() > limit {
            self.out.truncate(start);
            return Ok(Queued::Full);
        }
        self.encoder = encoder;
        Ok(Queued::Yes)
    }

    /// Bytes that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.out.len() - self.sent_bytes
    }

    /// Whether [`NetChannel::flush`] has something to send.
    pub fn wants_write(&self) -> bool {
        self.queued_bytes() > 0
    }

    /// Sends as much of the queue as the system takes.
    ///
    /// # Errors
    /// [`PeerError::Io`], [`PeerError::Closed`].
    pub fn flush(&mut self) -> Result<(), PeerError> {
        while self.wants_write() {
            match (&self.socket).write(&self.out[self.sent_bytes..]) {
                Ok(0) => return Err(PeerError::Closed),
                Ok(count) => self.sent_bytes += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(source) => {
                    self.failed.get_or_insert(source.kind());
                    return Err(PeerError::Io { call: "send", source });
                }
            }
        }
        self.forget_sent();
        Ok(())
    }

    /// Ends this side's words: sends what is left, then the end, and throws away what the peer still says. Returns whether it is over: the peer
    /// has closed the connection, or it has broken. Until then it is to be called again whenever the socket is ready, and the channel to
    /// be kept, for as long as the peer may take: who closes a connection on which the peer still speaks has the system throw away what the
    /// peer has not read, and the peer sees a connection that broke, and no last word.
    pub fn see_off(&mut self) -> bool {
        if !self.has_ended {
            // A peer that sleeps is to hear it when it wakes.
            let options = SockRef::from(&self.socket);
            let _ = options.set_tcp_user_timeout(None);
            let _ = options.set_keepalive(false);
            if self.flush().is_err() {
                return true;
            }
            if !self.wants_write() {
                self.has_ended = true;
                if self.socket.shutdown(Shutdown::Write).is_err() {
                    return true;
                }
            }
        }
        self.discard()
    }

    /// Throws away what has come; whether the connection has ended.
    fn discard(&self) -> bool {
        let mut thrown_away = [0; 4096];
        for _ in 0..MAX_READS {
            match (&self.socket).read(&mut thrown_away) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock),
            }
        }
        false
    }

    /// Drops what has been sent from the queue: at once when that is all, else when it is more than what would have to be moved.
    fn forget_sent(&mut self) {
        if self.sent_bytes * 2 >= self.out.len() {
            self.out.drain(..self.sent_bytes);
            self.sent_bytes = 0;
        }
    }
}
