//! The two connections between the hosts, without sockets: bytes on their way, in order, through the real codec. How many of them
//! arrive when, and whether at all, the world decides.

use crate::rng::Rng;
use colo_core::peer::{FrameDecoder, FrameEncoder, Message, MessageKind, PeerError, StreamSum};
use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Primary,
    Secondary,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Primary, Side::Secondary];

    pub fn other(self) -> Side {
        match self {
            Side::Primary => Side::Secondary,
            Side::Secondary => Side::Primary,
        }
    }
}

/// The channel cannot take anything any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    encoder: FrameEncoder,
    /// Sent, and not arrived.
    under_way: Vec<u8>,
    /// No more will be sent.
    ended: bool,
    /// The end is a reset: no side has asked for it.
    reset: bool,
    /// Arrived, and not read.
    arrived: Vec<u8>,
    /// The end has arrived.
    end_arrived: bool,
    decoder: FrameDecoder,
    /// The decoder may hold another message.
    may_have_more: bool,
    /// Nobody reads any more.
    deaf: bool,
    /// Nothing moves.
    stuck: bool,
}

impl Pipe {
    fn can_deliver(&self) -> bool {
        !self.stuck && (!self.under_way.is_empty() || self.ended && !self.end_arrived)
    }

    fn deliver(&mut self, bytes: usize) {
        let count = bytes.min(self.under_way.len());
        let part = self.under_way.drain(..count);
        if self.deaf {
            drop(part);
        } else {
            self.arrived.extend(part);
        }
        if self.ended && self.under_way.is_empty() {
            self.end_arrived = true;
        }
    }

    fn put(&mut self, encode: impl FnOnce(&mut FrameEncoder, &mut Vec<u8>)) -> Result<(), Broken> {
        if self.ended {
            return Err(Broken);
        }
        encode(&mut self.encoder, &mut self.under_way);
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Message>, PeerError> {
        loop {
            self.may_have_more = false;
            if let Some(message) = self.decoder.next_message()? {
                self.may_have_more = true;
                return Ok(Some(message));
            }
            if self.arrived.is_empty() {
                return match (self.end_arrived, self.reset) {
                    (false, _) => Ok(None),
                    (true, false) => Err(self.decoder.closed()),
                    (true, true) => {
                        Err(PeerError::Io { call: "recv", source: std::io::ErrorKind::ConnectionReset.into() })
                    }
                };
            }
            let count = self.decoder.feed(&self.arrived);
            self.arrived.drain(..count);
        }
    }
}

/// One connection. A handle: both hosts and the world hold it.
#[derive(Clone, Default)]
pub struct Link(Rc<RefCell<[Pipe; 2]>>);

impl Link {
    fn with<T>(&self, receiver: Side, act: impl FnOnce(&mut Pipe) -> T) -> T {
        act(&mut self.0.borrow_mut()[receiver as usize])
    }

    /// What that side sends, whole messages.
    pub fn send(&self, from: Side, message: &Message) -> Result<(), Broken> {
        self.with(from.other(), |pipe| {
            pipe.put(|encoder, out| encoder.encode(message, out).expect("the engine's messages are within limits"))
        })
    }

    pub fn send_stream(&self, from: Side, parts: &[IoSlice<'_>]) -> Result<(), Broken> {
        self.with(from.other(), |pipe| {
            pipe.put(|encoder, out| {
                out.extend(encoder.header_for(MessageKind::Stream, parts).expect("records are within limits"));
                parts.iter().for_each(|part| out.extend_from_slice(part));
            })
        })
    }

    pub fn take_sent_sum(&self, from: Side) -> StreamSum {
        self.with(from.other(), |pipe| pipe.encoder.take_stream_sum())
    }

    /// Bytes that side has sent and that have not arrived.
    pub fn queued_bytes(&self, from: Side) -> usize {
        self.with(from.other(), |pipe| pipe.under_way.len())
    }

    /// Whether that side's sending fails: the other's reset, or end, has arrived.
    pub fn is_broken(&self, at: Side) -> bool {
        self.with(at, |pipe| pipe.end_arrived)
    }

    pub fn receive(&self, at: Side) -> Result<Option<Message>, PeerError> {
        self.with(at, Pipe::receive)
    }

    /// Whether [`Link::receive`] may have something to say.
    pub fn is_readable(&self, at: Side) -> bool {
        self.with(at, |pipe| pipe.may_have_more || !pipe.arrived.is_empty() || pipe.end_arrived)
    }

    /// A side shuts its socket down: what it has sent still arrives, what was on its way to it does not.
    pub fn close(&self, at: Side) {
        self.with(at.other(), |pipe| pipe.ended = true);
        self.with(at, |pipe| {
            pipe.under_way.clear();
            (pipe.ended, pipe.end_arrived) = (true, true);
        });
    }

    /// A side's process is gone: its system closes the connection.
    pub fn orphan(&self, at: Side) {
        self.close(at);
        self.with(at, |pipe| pipe.deaf = true);
    }

    /// A side's host is gone: of what it has sent only some arrives, and then nothing more, not even an end.
    pub fn silence(&self, at: Side, rng: &mut Rng) {
        self.with(at.other(), |pipe| {
            let kept = rng.below(pipe.under_way.len() + 1);
            pipe.under_way.truncate(kept);
            let arrives = pipe.under_way.len();
            pipe.deliver(arrives);
            pipe.stuck = true;
        });
        self.with(at, |pipe| (pipe.deaf, pipe.stuck) = (true, true));
    }

    /// The connection breaks: somewhere in what is on its way, in both directions.
    pub fn cut(&self, rng: &mut Rng) {
        for side in Side::BOTH {
            self.with(side, |pipe| {
                let kept = rng.below(pipe.under_way.len() + 1);
                pipe.under_way.truncate(kept);
                // An orderly end that was on its way may be overtaken.
                (pipe.ended, pipe.reset) = (true, true);
            });
        }
    }

    /// What is on its way to that side stays where it is.
    pub fn set_stuck(&self, to: Side, stuck: bool) {
        self.with(to, |pipe| pipe.stuck = stuck);
    }

    /// Damages one bit on its way to that side; false when nothing is on its way.
    pub fn flip(&self, to: Side, rng: &mut Rng) -> bool {
        self.with(to, |pipe| {
            let bytes = pipe.under_way.len();
            if bytes > 0 {
                pipe.under_way[rng.below(bytes)] ^= 1 << rng.below(8);
            }
            bytes > 0
        })
    }

    pub fn can_deliver(&self, to: Side) -> bool {
        self.with(to, |pipe| pipe.can_deliver())
    }

    pub fn deliver(&self, to: Side, bytes: usize) {
        self.with(to, |pipe| pipe.deliver(bytes));
    }

    /// Everything that was sent to that side by now arrives.
    pub fn flush(&self, to: Side) {
        if self.can_deliver(to) {
            self.deliver(to, usize::MAX);
        }
    }
}

/// Both connections of a session.
#[derive(Clone, Default)]
pub struct Wires {
    pub state: Link,
    pub net: Link,
}

impl Wires {
    pub fn both(&self) -> [&Link; 2] {
        [&self.state, &self.net]
    }
}
