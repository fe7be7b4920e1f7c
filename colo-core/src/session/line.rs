//! The net thread's line to the other side: what is said on it, and whether there is anybody at its other end.

use super::net_loop::{RETRY, Source, timespec};
use crate::failover::{Detector, Loss};
use crate::peer::{GoodbyeReason, Message, NetChannel, PeerError, Queued, ShutdownHandle};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::time::{Duration, Instant};

/// How long a goodbye may take to leave, and where an answer is awaited, to be answered.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) struct Line {
    channel: Option<NetChannel>,
    /// Shut down when the peer is lost, so that nobody waits on the state channel for it, nor on the disks'.
    state: ShutdownHandle,
    detector: Detector,
    /// The peer may have said something.
    is_ready: bool,
    is_lost: bool,
}

/// What has come.
#[derive(Default)]
pub(super) struct Heard {
    /// Whether the peer has given any sign of itself.
    pub(super) any: bool,
    /// What is not for this line itself, in order.
    pub(super) messages: Vec<Message>,
    /// The end, after those messages: for [`Line::lose`].
    pub(super) loss: Option<Loss>,
}

impl Line {
    pub(super) fn new(channel: NetChannel, state: ShutdownHandle, heartbeat: Duration) -> Line {
        let detector = Detector::new(heartbeat, Instant::now());
        Line { channel: Some(channel), state, detector, is_ready: true, is_lost: false }
    }

    /// The peer may have said something, if that is so.
    pub(super) fn note_ready(&mut self, is_ready: bool) {
        self.is_ready |= is_ready;
    }

    /// Whether it may have, since this was asked last.
    pub(super) fn take_ready(&mut self) -> bool {
        std::mem::take(&mut self.is_ready)
    }

    /// Takes what has come; nothing from a peer that is lost.
    pub(super) fn hear(&mut self, now: Instant) -> Heard {
        let mut heard = Heard::default();
        let Some(channel) = self.channel.as_mut().filter(|_| !self.is_lost) else {
            return heard;
        };
        let mut messages = Vec::new();
        let received = channel.receive(&mut messages);
        heard.any = !messages.is_empty();
        if heard.any {
            self.detector.heard(now);
        }
        for message in messages {
            match message {
                Message::Heartbeat { .. } => {}
                Message::Goodbye(reason) => {
                    heard.loss = Some(Loss::Goodbye(reason));
                    return heard;
                }
                message => heard.messages.push(message),
            }
        }
        heard.loss = received.err().map(loss_of);
        heard
    }

    /// Whether what has come must be [heard](Line::hear) before it is [judged](Line::watch) whether the peer is there: this thread was kept
    /// from looking, or is about to find it lost.
    pub(super) fn must_hear(&mut self, now: Instant) -> bool {
        self.detector.stood_still(now) || self.detector.look(now)
    }

    /// Lets the peer hear from this side in time, or finds that it has been silent for too long.
    pub(super) fn watch(&mut self, now: Instant) -> Option<Loss> {
        let channel = self.channel.as_mut().filter(|_| !self.is_lost)?;
        if self.detector.look(now) {
            return Some(Loss::Silent);
        }
        if let Some(number) = self.detector.heartbeats_due(now) {
            // A full queue has something else in it to be heard. At once: what there is to do in a turn may take long. If it cannot be sent, the
            // end of the turn tells.
            let _ = channel.queue(&Message::Heartbeat { number });
            let _ = channel.flush();
        }
        None
    }

    /// The peer counts as lost from here on. Whether that is new. One that may still be there is kept, for a goodbye.
    pub(super) fn lose(&mut self, loss: &Loss) -> bool {
        if matches!(loss, Loss::Closed | Loss::Goodbye(_)) {
            self.channel = None;
        }
        let is_new = !std::mem::replace(&mut self.is_lost, true);
        if is_new {
            self.state.shutdown();
        }
        is_new
    }

    /// Whether the peer counts as lost.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether there is still a peer to speak to.
    pub(super) fn is_open(&self) -> bool {
        self.channel.is_some()
    }

    /// Puts a message in the queue; whether there was room, and a peer.
    pub(super) fn queue(&mut self, message: &Message) -> bool {
        self.channel.as_mut().is_some_and(|channel| matches!(channel.queue(message), Ok(Queued::Yes)))
    }

    /// Whether something waits to be sent.
    pub(super) fn wants_write(&self) -> bool {
        self.channel.as_ref().is_some_and(NetChannel::wants_write)
    }

    /// Sends what waits; how the peer was lost, if that fails.
    pub(super) fn flush(&mut self) -> Option<Loss> {
        self.channel.as_mut()?.flush().err().map(loss_of)
    }

    /// Takes the channel from the net thread, which says and hears nothing from here on.
    pub(super) fn take(&mut self) -> Option<NetChannel> {
        self.channel.take()
    }

    /// What is to be polled at all.
    pub(super) fn channel(&self) -> Option<&NetChannel> {
        self.channel.as_ref()
    }

    /// What is to be polled now.
    pub(super) fn wanted(&self) -> Option<(Source, PollFlags)> {
        self.channel.as_ref().filter(|_| !self.is_lost)?;
        Some((Source::Peer, if self.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }))
    }

    /// When [`Line::watch`] is to be asked again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.channel.as_ref().filter(|_| !self.is_lost)?;
        Some(self.detector.poll_timeout())
    }
}

/// Says goodbye on the net channel, and sees it off.
pub(super) fn goodbye(peer: &mut NetChannel, reason: GoodbyeReason) {
    let deadline = Instant::now() + GOODBYE_TIMEOUT;
    // To a peer that is not there any more a goodbye need not arrive.
    if peer.queue(&Message::Goodbye(reason)).is_err() {
        return;
    }
    while peer.flush().is_ok() && peer.wants_write() && Instant::now() < deadline {
        let mut entry = [PollFd::from_borrowed_fd(peer.poll_fd(), PollFlags::OUT)];
        let _ = poll(&mut entry, Some(&timespec(RETRY)));
    }
}

/// What came of a goodbye to which an answer was awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Farewell {
    /// The other side has closed the connection in order: it knows, or its process is gone.
    Heard,
    /// Whether the other side knows is not known.
    Unheard,
    /// It had taken over before it could hear.
    Promoted,
}

/// Says goodbye on the net channel, and waits for the other side to close it, as it does when it hears that.
pub(super) fn part(mut peer: NetChannel, reason: GoodbyeReason) -> Farewell {
    let deadline = Instant::now() + GOODBYE_TIMEOUT;
    goodbye(&mut peer, reason);
    loop {
        let mut messages = Vec::new();
        let received = peer.receive(&mut messages);
        if messages.contains(&Message::Goodbye(GoodbyeReason::Promoted)) {
            return Farewell::Promoted;
        }
        match received {
            Ok(_) => {}
            // It need not end what it was saying.
            Err(PeerError::Closed | PeerError::Truncated { .. }) => return Farewell::Heard,
            // A connection that was reset tells nothing about the other side.
            Err(_) => return Farewell::Unheard,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Farewell::Unheard;
        }
        let mut entry = [PollFd::from_borrowed_fd(peer.poll_fd(), PollFlags::IN)];
        let _ = poll(&mut entry, Some(&timespec(left)));
    }
}

/// How an error of the channel looks to the one who decides who serves. Only what the other host's system has said tells that the
/// process there is gone: this host's own giving up (a time-out, no route) is silence.
fn loss_of(error: PeerError) -> Loss {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    match error {
        PeerError::Closed | PeerError::Truncated { .. } => Loss::Closed,
        PeerError::Io { source, .. } if matches!(source.kind(), ConnectionReset | BrokenPipe) => Loss::Closed,
        PeerError::Io { .. } => Loss::Silent,
        broken => Loss::Broken(broken.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn only_the_other_hosts_word_is_a_closed_connection() {
        let failed = |errno: Errno| loss_of(PeerError::Io { call: "recv", source: errno.into() });
        assert_eq!(loss_of(PeerError::Closed), Loss::Closed);
        assert_eq!(loss_of(PeerError::Truncated { needed: 24, got: 3 }), Loss::Closed);
        assert_eq!((failed(Errno::CONNRESET), failed(Errno::PIPE)), (Loss::Closed, Loss::Closed));
        for silence in [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH] {
            assert_eq!(failed(silence), Loss::Silent, "{silence}");
        }
    }
}
