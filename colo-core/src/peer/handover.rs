use super::connection::StateChannel;
use super::error::PeerError;
use std::net::TcpStream;
use std::time::Duration;

/// A connection that is given to another process: the socket, and what its messages are numbered by. It goes on there without a gap.
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
/// secondary.send(&Message::Welcome)?;
/// assert_eq!(primary.recv(deadline)?, Some(Message::Welcome));
///
/// // The socket as a descriptor, and three numbers, are all that another process needs.
/// let mut elsewhere = StateChannel::from_handover(primary.into_handover()?)?;
/// secondary.send(&Message::DiskFlushed { number: 1 })?;
/// assert_eq!(elsewhere.recv(deadline)?, Some(Message::DiskFlushed { number: 1 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Handover {
    /// The connection. Nothing of the message that comes next has been read from it.
    pub socket: TcpStream,
    /// How long the peer may take no data.
    pub patience: Duration,
    /// So many messages were sent: the number of the next one.
    pub sent: u64,
    /// So many have come.
    pub received: u64,
}

/// More messages than a connection can have carried before it is handed over, and so few that their numbers never overflow.
const MAX_MESSAGES: u64 = 1 << 48;

impl StateChannel {
    /// Gives the connection away, after a message that has come and before anything of the next has. Descriptors that were made by
    /// [`StateChannel::shutdown_handle`] stay good.
    ///
    /// # Errors
    /// [`PeerError::UnderWay`] when a part of a message has been read; [`PeerError::Failed`] when the connection is good for nothing.
    pub fn into_handover(self) -> Result<Handover, PeerError> {
        let (sender, receiver) = self.split();
        let received = receiver.received_whole()?;
        let (socket, patience, sent) = sender.into_parts();
        Ok(Handover { socket, patience, sent, received })
    }

    /// Goes on where another process, or another part of this one, has left off.
    ///
    /// # Errors
    /// [`PeerError::Handover`] when that cannot be true of any connection; those of [`StateChannel::new`], also when the socket is no TCP
    /// connection.
    pub fn from_handover(handover: Handover) -> Result<StateChannel, PeerError> {
        let Handover { socket, patience, sent, received } = handover;
        if sent > MAX_MESSAGES || received > MAX_MESSAGES {
            return Err(PeerError::Handover { sent, received });
        }
        StateChannel::new(socket, patience).map(|channel| channel.numbered_from(sent, received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Message;
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Instant;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn channels() -> (StateChannel, StateChannel, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let primary = StateChannel::connect(&address, PATIENCE, Instant::now() + PATIENCE).unwrap();
        let socket = listener.accept().unwrap().0;
        (primary, StateChannel::new(socket.try_clone().unwrap(), PATIENCE).unwrap(), socket)
    }

    fn hear(channel: &mut StateChannel) -> Message {
        channel.recv(Instant::now() + PATIENCE).unwrap().expect("a message in time")
    }

    #[test]
    fn both_ends_go_on_elsewhere_without_a_gap() {
        let (mut primary, mut secondary, _) = channels();
        for number in 0..3 {
            primary.send(&Message::DiskFlush { number, is_durable: false }).unwrap();
            assert_eq!(hear(&mut secondary), Message::DiskFlush { number, is_durable: false });
        }
        secondary.send(&Message::Welcome).unwrap();
        assert_eq!(hear(&mut primary), Message::Welcome);
        // What has come and was not looked at stays where it is.
        primary.send(&Message::DiskFlush { number: 3, is_durable: true }).unwrap();
        let (given, taken) = (primary.into_handover().unwrap(), secondary.into_handover().unwrap());
        assert_eq!((given.sent, given.received, taken.sent, taken.received), (4, 1, 1, 3));
        let elsewhere = std::thread::spawn(move || {
            let mut secondary = StateChannel::from_handover(taken).unwrap();
            assert_eq!(hear(&mut secondary), Message::DiskFlush { number: 3, is_durable: true });
            secondary.send(&Message::DiskFlushed { number: 3 }).unwrap();
            assert_eq!(hear(&mut secondary), Message::DiskFlush { number: 4, is_durable: true });
        });
        let mut primary = StateChannel::from_handover(given).unwrap();
        assert_eq!(hear(&mut primary), Message::DiskFlushed { number: 3 });
        primary.send(&Message::DiskFlush { number: 4, is_durable: true }).unwrap();
        elsewhere.join().unwrap();
    }

    #[test]
    fn half_a_message_is_not_left_behind() {
        let (mut primary, _secondary, mut socket) = channels();
        socket.write_all(b"COLO\x03").unwrap();
        while primary.poll_fd_is_quiet() {}
        assert_eq!(primary.recv(Instant::now()).unwrap(), None);
        assert!(matches!(primary.into_handover(), Err(PeerError::UnderWay { got: 5 })));
    }

    #[test]
    fn numbers_that_no_connection_has_are_refused() {
        let (primary, ..) = channels();
        let lie = Handover { sent: u64::MAX, ..primary.into_handover().unwrap() };
        assert!(matches!(StateChannel::from_handover(lie), Err(PeerError::Handover { sent: u64::MAX, received: 0 })));
    }

    impl StateChannel {
        /// Whether nothing has come, after waiting for it.
        fn poll_fd_is_quiet(&self) -> bool {
            use rustix::event::{PollFd, PollFlags, poll};
            poll(&mut [PollFd::new(&self.poll_fd(), PollFlags::IN)], None).is_ok_and(|count| count == 0)
        }
    }
}
