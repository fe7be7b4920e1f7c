//! The guest's TCP: enough of it for a client to lose nothing. Each connection keeps all that it ever said.

use crate::frames::{Segment, TCP_CLIENT, TCP_FLOWS, TCP_PORT, TCP_REQUEST_BYTES};
use crate::guest::{CONNECTIONS, Guest, Memory, STREAMS};
use crate::rng::{Rng, mix};
use colo_core::ids::PAGE_SIZE;
use colo_core::net::testing::Tcp;

/// Words of a connection.
const WORDS: usize = 8;
/// 0: no connection; 1: its SYN was answered; 2: that answer was acknowledged.
const OPEN: usize = 0;
/// What it expects of the client next.
const EXPECTED: usize = 1;
const ISN: usize = 2;
/// Bytes of its stream: made, sent, acknowledged; and when it last sent something new.
const MADE: usize = 3;
const SENT: usize = 4;
const ACKED: usize = 5;
const SENT_AT: usize = 6;

/// Longest payload: a frame must fit a ring's slot.
const MAX_SEGMENT: usize = 180;
const MAX_IN_FLIGHT: u64 = 900;
/// Steps after which everything not acknowledged is sent again.
const RESEND_STEPS: u64 = 400;

impl Guest<'_> {
    pub(crate) fn tcp_segment(&mut self, segment: &Segment<'_>, entropy: &mut Rng) {
        let flow = usize::from(segment.source - TCP_CLIENT);
        let open = self.get(flow, OPEN) != 0;
        if segment.syn {
            if !open {
                self.set(flow, OPEN, 1);
                self.set(flow, EXPECTED, u64::from(segment.seq.wrapping_add(1)));
                self.set(flow, ISN, u64::from(entropy.next() as u32));
            }
            let (isn, expected) = (self.get(flow, ISN) as u32, self.get(flow, EXPECTED) as u32);
            if self.get(flow, OPEN) == 2 {
                return self.acknowledge(flow);
            }
            return self.say(&to(flow).syn().seq(isn).ack(expected).frame());
        }
        if !open {
            return self.say(&to(flow).rst().seq(segment.ack.unwrap_or(0)).frame());
        }
        if let Some(ack) = segment.ack {
            let at = u64::from(ack.wrapping_sub(self.get(flow, ISN) as u32).wrapping_sub(1));
            if at <= self.get(flow, MADE) {
                self.set(flow, OPEN, 2);
            }
            if at <= self.get(flow, MADE) && at > self.get(flow, ACKED) {
                self.set(flow, ACKED, at);
                self.set(flow, SENT, at.max(self.get(flow, SENT)));
            }
        }
        if !segment.payload.is_empty() {
            self.tcp_payload(flow, segment);
        }
    }

    /// Sends what there is to be sent, as far as there is room.
    pub(crate) fn tcp_timers(&mut self, entropy: &mut Rng) {
        for flow in 0..TCP_FLOWS {
            let (made, acked) = (self.get(flow, MADE), self.get(flow, ACKED));
            if acked < self.get(flow, SENT) && self.steps() > self.get(flow, SENT_AT) + RESEND_STEPS {
                self.set(flow, SENT, acked);
            }
            let sent = self.get(flow, SENT);
            if sent == made || sent - acked > MAX_IN_FLIGHT || self.tx_room() == 0 {
                continue;
            }
            let count = (made - sent).min(1 + entropy.below(MAX_SEGMENT) as u64);
            let from = STREAMS + flow * PAGE_SIZE + sent as usize;
            let payload = self.0.ram()[from..from + count as usize].to_vec();
            let seq = (self.get(flow, ISN) as u32).wrapping_add(1).wrapping_add(sent as u32);
            self.set(flow, SENT, sent + count);
            self.set(flow, SENT_AT, self.steps());
            let expected = self.get(flow, EXPECTED) as u32;
            self.say(&to(flow).seq(seq).ack(expected).payload(&payload).frame());
        }
    }

    fn tcp_payload(&mut self, flow: usize, segment: &Segment<'_>) {
        let expected = self.get(flow, EXPECTED) as u32;
        let known = expected.wrapping_sub(segment.seq) as usize;
        if known <= segment.payload.len() {
            let new = &segment.payload[known..];
            self.set(flow, EXPECTED, u64::from(expected.wrapping_add(new.len() as u32)));
            for request in new.chunks(TCP_REQUEST_BYTES) {
                self.tcp_request(flow, request);
            }
        }
        self.acknowledge(flow);
    }

    fn acknowledge(&mut self, flow: usize) {
        let (isn, sent) = (self.get(flow, ISN) as u32, self.get(flow, SENT) as u32);
        let ack = self.get(flow, EXPECTED) as u32;
        self.say(&to(flow).seq(isn.wrapping_add(1).wrapping_add(sent)).ack(ack).frame());
    }

    /// Appends the answer to the stream.
    fn tcp_request(&mut self, flow: usize, request: &[u8]) {
        let what = request.iter().fold(0u64, |sum, byte| mix(sum ^ u64::from(*byte)));
        let mut state = self.absorb(what);
        let made = self.get(flow, MADE) as usize;
        let count = (20 + state as usize % 300).min(PAGE_SIZE - made);
        let answer: Vec<u8> = std::iter::repeat_with(|| {
            state = mix(state);
            state as u8
        })
        .take(count)
        .collect();
        self.0.store(STREAMS + flow * PAGE_SIZE + made, &answer);
        self.set(flow, MADE, (made + count) as u64);
    }

    fn get(&self, flow: usize, word: usize) -> u64 {
        Memory(self.0.ram()).connection(flow, word)
    }

    fn set(&mut self, flow: usize, word: usize, value: u64) {
        self.0.store(CONNECTIONS + (flow * WORDS + word) * 8, &value.to_le_bytes());
    }
}

fn to(flow: usize) -> Tcp {
    Tcp::new(TCP_PORT, TCP_CLIENT + flow as u16)
}

impl<'a> Memory<'a> {
    /// All that was ever said in a connection; `None` before it is open.
    pub fn stream(&self, flow: usize) -> Option<&'a [u8]> {
        let from = STREAMS + flow * PAGE_SIZE;
        (self.connection(flow, OPEN) != 0).then(|| &self.0[from..from + self.connection(flow, MADE) as usize])
    }

    /// What it expects of the client next: everything before was heard.
    pub fn expected(&self, flow: usize) -> u32 {
        self.connection(flow, EXPECTED) as u32
    }

    fn connection(&self, flow: usize, word: usize) -> u64 {
        self.word(CONNECTIONS / 8 + flow * WORDS + word)
    }
}
