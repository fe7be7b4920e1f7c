//! The clients: they ask by UDP and do not ask again; by TCP they do, until they have every byte.

use crate::frames::{ASK_FLOWS, Kind, Packet, Segment, TCP_CLIENT, TCP_FLOWS, TCP_PORT, TCP_REQUEST_BYTES, ask, parse};
use crate::rng::{Rng, mix};
use colo_core::net::Frame;
use colo_core::net::testing::Tcp;
use std::time::{Duration, Instant};

/// After which a client sends again what was not acknowledged; twice as long after each time, as TCP does, or a slow guest would have
/// more and more to hear again.
const RESEND: Duration = Duration::from_millis(15);
/// So often the time is doubled at most.
const MAX_DOUBLINGS: u32 = 3;
/// The longest piece of a request stream in one segment, in requests.
const SEGMENT_REQUESTS: usize = 3;

/// How much this seed's clients want, and of which kind.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Requests by UDP, in each flow.
    pub asks: u32,
    /// Requests by TCP, in each connection.
    pub tcp_requests: usize,
    /// What is picked from for each request by UDP.
    pub kinds: Vec<Kind>,
}

pub struct Clients {
    wishes: Wishes,
    asks_left: [u32; ASK_FLOWS],
    next_id: u32,
    pub connections: [Connection; TCP_FLOWS],
    rng: Rng,
}

pub struct Connection {
    flow: usize,
    isn: u32,
    /// The guest's first number, once it is known.
    theirs: Option<u32>,
    /// What the client has to say: how much there is by now, and how much of it was acknowledged.
    written: usize,
    pub acked: usize,
    sent: usize,
    /// What it has heard.
    heard: Vec<u8>,
    last: Option<Instant>,
    /// Since something new was acknowledged.
    resends: u32,
}

impl Clients {
    pub fn new(wishes: Wishes, mut rng: Rng) -> Clients {
        let connections = std::array::from_fn(|flow| Connection {
            flow,
            isn: rng.next() as u32,
            theirs: None,
            written: 0,
            acked: 0,
            sent: 0,
            heard: Vec::new(),
            last: None,
            resends: 0,
        });
        let asks_left = [wishes.asks; ASK_FLOWS];
        Clients { wishes, asks_left, next_id: 0, connections, rng }
    }

    /// Whether all was asked and all that was said by TCP was acknowledged.
    pub fn are_done(&self) -> bool {
        let all = self.wishes.tcp_requests * TCP_REQUEST_BYTES;
        self.asks_left == [0; ASK_FLOWS] && self.connections.iter().all(|c| c.acked == all)
    }

    /// What a client says by itself now.
    pub fn act(&mut self, now: Instant) -> Option<Frame> {
        if self.rng.per_mille(500) {
            let flow = self.rng.below(ASK_FLOWS);
            self.asks_left[flow] = self.asks_left[flow].checked_sub(1)?;
            self.next_id += 1;
            let kind = *self.rng.pick(&self.wishes.kinds);
            return Some(ask(flow, self.next_id, kind, self.rng.next()));
        }
        let flow = self.rng.below(TCP_FLOWS);
        let wants_more = self.rng.per_mille(300);
        let connection = &mut self.connections[flow];
        let all = self.wishes.tcp_requests * TCP_REQUEST_BYTES;
        if all == 0 {
            return None;
        }
        if wants_more && connection.written < all {
            connection.written += TCP_REQUEST_BYTES;
        }
        connection.act(now)
    }

    /// A frame has come, perhaps from a machine that took over; what a client says to it.
    pub fn hear(&mut self, frame: &[u8], took_over: bool, now: Instant) -> Result<Option<Frame>, String> {
        match parse(frame) {
            Packet::Tcp(segment) => {
                let flow = usize::from(segment.destination - TCP_CLIENT);
                self.connections[flow].hear(&segment, took_over, now)
            }
            Packet::Udp { .. } | Packet::Other => Ok(None),
        }
    }
}

impl Connection {
    /// All that the client has heard.
    pub fn heard(&self) -> &[u8] {
        &self.heard
    }

    fn act(&mut self, now: Instant) -> Option<Frame> {
        let patience = RESEND * (1 << self.resends.min(MAX_DOUBLINGS));
        let is_late = self.last.is_some_and(|last| now >= last + patience);
        if self.theirs.is_none() {
            if self.last.is_some() && !is_late {
                return None;
            }
            self.last = Some(now);
            return Some(self.segment().syn().seq(self.isn).frame());
        }
        if is_late && self.sent > self.acked {
            self.sent = self.acked;
            self.resends += 1;
        }
        if self.sent == self.written {
            return None;
        }
        self.last = Some(now);
        let from = self.sent;
        self.sent = self.written.min(from + SEGMENT_REQUESTS * TCP_REQUEST_BYTES);
        let payload: Vec<u8> = (from..self.sent).map(|at| mix(at as u64 ^ u64::from(self.isn) << 32) as u8).collect();
        Some(self.acknowledging(from).payload(&payload).frame())
    }

    fn hear(&mut self, segment: &Segment<'_>, took_over: bool, now: Instant) -> Result<Option<Frame>, String> {
        if segment.rst {
            return Err(format!("connection {} was reset", self.flow));
        }
        if segment.syn {
            // One that took over may repeat its own before it can know the number that this client knows. A client that has a
            // connection does not care, and answers by what it knows (RFC 9293, 3.10.7.4); so the other learns it.
            if *self.theirs.get_or_insert(segment.seq) != segment.seq && !took_over {
                return Err(format!("connection {} was answered with two numbers", self.flow));
            }
            return Ok(Some(self.acknowledging(self.sent).frame()));
        }
        let theirs = self.theirs.ok_or(format!("connection {} is not open to the client", self.flow))?;
        let acked = segment.ack.unwrap_or(self.isn.wrapping_add(1)).wrapping_sub(self.isn).wrapping_sub(1) as usize;
        if acked > self.written {
            return Err(format!("connection {}: {acked} bytes acknowledged of {}", self.flow, self.written));
        }
        if acked > self.acked {
            (self.acked, self.last, self.resends) = (acked, Some(now), 0);
            self.sent = self.sent.max(acked);
        }
        if segment.payload.is_empty() {
            return Ok(None);
        }
        let at = segment.seq.wrapping_sub(theirs).wrapping_sub(1) as usize;
        if at <= self.heard.len() && at + segment.payload.len() > self.heard.len() {
            self.heard.extend_from_slice(&segment.payload[self.heard.len() - at..]);
        }
        Ok(Some(self.acknowledging(self.sent).frame()))
    }

    fn acknowledging(&self, at: usize) -> Tcp {
        let ack = self.theirs.unwrap_or(0).wrapping_add(1).wrapping_add(self.heard.len() as u32);
        self.segment().seq(self.isn.wrapping_add(1).wrapping_add(at as u32)).ack(ack)
    }

    fn segment(&self) -> Tcp {
        Tcp::new(TCP_CLIENT + self.flow as u16, TCP_PORT).inbound()
    }
}
