//! The net thread's line to the other side: what is said on it, and whether there is anybody at its other end.

use super::net_loop::{Source, timespec};
use crate::failover::{Detector, Loss};
use crate::peer::{GoodbyeReason, Message, NetChannel, PeerError, Queued, ShutdownHandle};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::time::{Duration, Instant};

/// How long a goodbye may take to be answered, where somebody waits for that.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a net thread that is to end waits for a goodbye to be heard.
const SEE_OFF_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Line {
    channel: Option<NetChannel>,
    stage: Stage,
    /// Shut down when the peer is lost, so that nobody waits on the state channel for it, nor on the disks'.
    state: ShutdownHandle,
    detector: Detector,
    /// The peer may have said something.
    is_ready: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Open,
    /// The peer is lost, and was told nothing.
    Lost,
    /// Goodbye was said. The channel is kept until the peer has closed it: it may be asleep, and must not take a connection that broke for
    /// this side's death. But nothing waits for that any more from this moment on.
    Parting {
        until: Instant,
    },
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
        Line { channel: Some(channel), stage: Stage::Open, state, detector, is_ready: true }
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
        let Some(channel) = self.channel.as_mut().filter(|_| self.stage == Stage::Open) else {
            return heard;
        };
        // How long this side stood still decides what an end of the connection means.
        self.detector.look(now);
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
        heard.loss = received.err().map(|error| self.loss_of(error));
        heard
    }

    /// Whether what has come must be [heard](Line::hear) before it is [judged](Line::watch) whether the peer is there: this thread was kept
    /// from looking, or is about to find it lost.
    pub(super) fn must_hear(&mut self, now: Instant) -> bool {
        self.detector.stood_still(now) || self.detector.look(now)
    }

    /// Lets the peer hear from this side in time, or finds that it has been silent for too long.
    pub(super) fn watch(&mut self, now: Instant) -> Option<Loss> {
        let channel = self.channel.as_mut().filter(|_| self.stage == Stage::Open)?;
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
        if matches!(loss, Loss::Closed | Loss::Unclear | Loss::Goodbye(_)) {
            self.channel = None;
        }
        let is_new = self.stage == Stage::Open;
        if is_new {
            self.stage = Stage::Lost;
            self.state.shutdown();
        }
        is_new
    }

    /// Whether the peer counts as there.
    pub(super) fn is_open(&self) -> bool {
        self.channel.is_some() && self.stage == Stage::Open
    }

    /// Puts a message in the queue; whether there was room, and a peer.
    pub(super) fn queue(&mut self, message: &Message) -> bool {
        let channel = self.channel.as_mut().filter(|_| !matches!(self.stage, Stage::Parting { .. }));
        channel.is_some_and(|channel| matches!(channel.queue(message), Ok(Queued::Yes)))
    }

    /// Whether something waits to be sent.
    pub(super) fn wants_write(&self) -> bool {
        self.channel.as_ref().is_some_and(NetChannel::wants_write)
    }

    /// Sends what waits; how the peer was lost, if that fails.
    pub(super) fn flush(&mut self) -> Option<Loss> {
        if matches!(self.stage, Stage::Parting { .. }) {
            self.see_off();
            return None;
        }
        let error = self.channel.as_mut()?.flush().err()?;
        Some(self.loss_of(error))
    }

    /// Says goodbye, and nothing else from here on; once, and only to a peer that may be there.
    pub(super) fn say_goodbye(&mut self, reason: GoodbyeReason) {
        self.queue(&Message::Goodbye(reason));
        self.keep_parting();
    }

    /// Takes the channel, to [`part`] from the peer.
    pub(super) fn take(&mut self) -> Option<NetChannel> {
        if matches!(self.stage, Stage::Parting { .. }) { None } else { self.channel.take() }
    }

    /// Gives back a channel on which goodbye was said, and not heard yet.
    pub(super) fn give_back(&mut self, channel: NetChannel) {
        self.channel = Some(channel);
        self.keep_parting();
    }

    /// Whether a goodbye was said that is still waited for to be heard.
    pub(super) fn is_parting(&self, now: Instant) -> bool {
        self.channel.is_some() && matches!(self.stage, Stage::Parting { until } if now < until)
    }

    /// Waits until it is heard. For the end of the net thread.
    pub(super) fn finish(&mut self) {
        let Stage::Parting { until } = self.stage else { return };
        while let Some(channel) = &mut self.channel {
            if channel.see_off() || !wait(channel, until) {
                self.channel = None;
            }
        }
    }

    fn keep_parting(&mut self) {
        if !matches!(self.stage, Stage::Parting { .. }) {
            self.stage = Stage::Parting { until: Instant::now() + SEE_OFF_TIMEOUT };
            self.is_ready = true;
            self.see_off();
        }
    }

    fn see_off(&mut self) {
        let is_due = std::mem::take(&mut self.is_ready) || self.wants_write();
        if is_due && self.channel.as_mut().is_some_and(NetChannel::see_off) {
            self.channel = None;
        }
    }

    /// What is to be polled at all.
    pub(super) fn channel(&self) -> Option<&NetChannel> {
        self.channel.as_ref()
    }

    /// What is to be polled now.
    pub(super) fn wanted(&self) -> Option<(Source, PollFlags)> {
        self.channel.as_ref().filter(|_| self.stage != Stage::Lost)?;
        Some((Source::Peer, if self.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }))
    }

    /// When [`Line::watch`] is to be asked again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.is_open().then(|| self.detector.poll_timeout())
    }

    /// How an error of the channel looks to the one who decides who serves. Only what the other host's system has said tells that the
    /// process there is gone: this host's own giving up (a time-out, no route) is silence. And to a side that stood still it does not tell even
    /// that.
    fn loss_of(&self, error: PeerError) -> Loss {
        match loss_of(error) {
            Loss::Closed if self.detector.may_be_given_up() => Loss::Unclear,
            loss => loss,
        }
    }
}

/// Says something to a peer that needs no more than to know it.
pub(super) fn last_word(mut peer: NetChannel, message: &Message) {
    // At a peer that is not there any more it need not arrive.
    let _ = peer.queue(message);
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while !peer.see_off() && wait(&peer, deadline) {}
}

/// Waits until there is something to be done on the channel; whether there is, before the deadline.
fn wait(peer: &NetChannel, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let flags = if peer.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    let mut entry = [PollFd::from_borrowed_fd(peer.poll_fd(), flags)];
    !left.is_zero() && !matches!(poll(&mut entry, Some(&timespec(left))), Ok(0))
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
pub(super) fn part(peer: &mut NetChannel, reason: GoodbyeReason) -> Farewell {
    // That it cannot be said is seen below.
    let _ = peer.queue(&Message::Goodbye(reason));
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let _ = peer.flush();
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
        if !wait(peer, deadline) {
            return Farewell::Unheard;
        }
    }
}

/// What an error of the channel tells of a peer that had no reason to give up this side.
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
    use crate::ids::Epoch;
    use crate::net::Frame;
    use crate::peer::NetFrame;
    use crate::session::tests::{HEARTBEAT, PATIENCE, connection};
    use rustix::io::Errno;

    /// A line, and its other end.
    fn line() -> (Line, NetChannel) {
        let (ours, theirs) = connection();
        (Line::new(ours.into_net(), connection().0.shutdown_handle().unwrap(), HEARTBEAT), theirs.into_net())
    }

    fn say(peer: &mut NetChannel, message: &Message) {
        assert_eq!(peer.queue(message).unwrap(), Queued::Yes);
        peer.flush().unwrap();
    }

    fn await_input(channel: &NetChannel) {
        assert!(wait(channel, Instant::now() + PATIENCE));
    }

    /// What a peer hears that begins to listen only now, and speaks meanwhile, until the connection ends; and how it ends.
    fn heard_late(line: &mut Line, theirs: &mut NetChannel) -> (Vec<Message>, PeerError) {
        let mut messages = Vec::new();
        loop {
            line.note_ready(true);
            assert!(line.flush().is_none());
            say(theirs, &Message::Heartbeat { number: 0 });
            await_input(theirs);
            if let Err(error) = theirs.receive(&mut messages) {
                return (messages, error);
            }
        }
    }

    #[test]
    fn a_peer_that_slept_behind_a_full_window_hears_the_goodbye() {
        let (mut line, mut theirs) = line();
        let frames = vec![NetFrame { nic: 0, frame: Frame::from(vec![7; 1500]) }; 256];
        let input = Message::Input { epoch: Epoch(1), again: false, frames };
        while line.queue(&input) {
            assert!(line.flush().is_none());
        }
        assert!(line.lose(&Loss::Silent));
        line.say_goodbye(GoodbyeReason::Stopped);
        let (messages, end) = heard_late(&mut line, &mut theirs);
        let is_goodbye = messages.last() == Some(&Message::Goodbye(GoodbyeReason::Stopped));
        assert!(is_goodbye && matches!(end, PeerError::Closed), "after {} messages: {end}", messages.len());
        // Which is all that the line is kept for.
        drop(theirs);
        line.finish();
        assert!(line.channel().is_none());
    }

    #[test]
    fn nothing_is_said_after_a_goodbye() {
        let (mut line, mut theirs) = line();
        line.say_goodbye(GoodbyeReason::Promoted);
        line.say_goodbye(GoodbyeReason::Stopped);
        assert!(!line.queue(&Message::CheckpointWanted) && !line.is_open());
        assert_eq!(line.watch(Instant::now() + HEARTBEAT * 100), None);
        let (messages, _) = heard_late(&mut line, &mut theirs);
        assert_eq!(messages, [Message::Goodbye(GoodbyeReason::Promoted)]);
    }

    #[test]
    fn a_connection_that_breaks_is_a_death_only_to_who_was_awake() {
        for (slept, loss) in
            [(HEARTBEAT * (Detector::MISSED - 2), Loss::Closed), (HEARTBEAT * Detector::MISSED, Loss::Unclear)]
        {
            let (mut line, theirs) = line();
            let start = Instant::now();
            drop(theirs);
            await_input(line.channel().unwrap());
            assert_eq!(line.hear(start + slept).loss, Some(loss));
        }
    }

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
