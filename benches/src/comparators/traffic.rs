use colo_core::net::Frame;
use colo_core::net::qemu::encode_frame;
use colo_core::net::testing::{Tcp, udp};

/// Where the frames' fields are, behind the frame's length.
const SEQ_AT: usize = 4 + 38;
const CHECKSUM_AT: usize = 4 + 50;

/// What the frames are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Segments of established connections, each of which goes on where the last one ended.
    Tcp,
    /// Datagrams, the same again and again in each flow: QEMU takes the last one first, and would find others to differ.
    Udp,
}

/// Frames as they go through the sockets, flow by flow in turn, for ever: a ring that is brought up to date as it goes round.
#[derive(Debug)]
pub struct Traffic {
    protocol: Protocol,
    payload_bytes: usize,
    flows: usize,
    frame_bytes: usize,
    wire: Vec<u8>,
    /// Frames made ready so far.
    ready: u64,
}

impl Traffic {
    /// With room for so many frames under way.
    ///
    /// # Panics
    /// When there are more flows than ports.
    pub fn new(protocol: Protocol, payload_bytes: usize, flows: usize, under_way: usize) -> Traffic {
        let payload: Vec<u8> = (0..payload_bytes).map(|at| (at * 7) as u8).collect();
        let rounds = under_way.div_ceil(flows);
        let mut wire = Vec::new();
        for round in 0..rounds {
            for flow in 0..flows {
                let port = u16::try_from(10_000 + flow).expect("as many flows as ports");
                let seq = 1000 + (round * payload_bytes) as u32;
                let frame: Frame = match protocol {
                    Protocol::Tcp => Tcp::new(80, port).seq(seq).ack(1).payload(&payload).frame(),
                    Protocol::Udp => udp(53, port, &payload),
                };
                encode_frame(&frame, None, &mut wire);
            }
        }
        let frame_bytes = wire.len() / (rounds * flows);
        Traffic { protocol, payload_bytes, flows, frame_bytes, wire, ready: 0 }
    }

    /// Bytes of a frame in the socket.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Frames made ready so far.
    pub(super) fn ready(&self) -> u64 {
        self.ready
    }

    /// Makes frames ready up to that number of all. Those are overwritten that come a whole ring before.
    pub(super) fn make_ready(&mut self, number: u64) {
        let frames = (self.wire.len() / self.frame_bytes) as u64;
        while self.ready < number {
            if self.ready >= frames && self.protocol == Protocol::Tcp {
                let at = (self.ready % frames) as usize * self.frame_bytes;
                let step = (frames as usize / self.flows * self.payload_bytes) as u32;
                go_on(&mut self.wire[at..at + self.frame_bytes], step);
            }
            self.ready += 1;
        }
    }

    /// The bytes from a place on up to another, as far as they lie in one piece. Places count all that was ever sent.
    pub(super) fn piece(&self, from: u64, to: u64) -> &[u8] {
        let at = (from % self.wire.len() as u64) as usize;
        let bytes = ((to - from) as usize).min(self.wire.len() - at);
        &self.wire[at..at + bytes]
    }
}

/// Moves a segment on in its stream, and its checksum with it (RFC 1624).
fn go_on(wire: &mut [u8], step: u32) {
    let word = |wire: &[u8], at: usize| u16::from_be_bytes([wire[at], wire[at + 1]]);
    let mut sum = u32::from(!word(wire, CHECKSUM_AT));
    let seq = u32::from(word(wire, SEQ_AT)) << 16 | u32::from(word(wire, SEQ_AT + 2));
    let new = seq.wrapping_add(step);
    sum += u32::from(!word(wire, SEQ_AT)) + u32::from(!word(wire, SEQ_AT + 2)) + (new >> 16) + (new & 0xffff);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    wire[SEQ_AT..SEQ_AT + 4].copy_from_slice(&new.to_be_bytes());
    wire[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_go_on_where_they_ended() {
        let mut traffic = Traffic::new(Protocol::Tcp, 100, 3, 7);
        let bytes = traffic.frame_bytes() as u64;
        traffic.make_ready(100);
        // A ring has nine frames: this is the last time round of the third flow's second place.
        let number = 95;
        let round = 95 / 3;
        let payload: Vec<u8> = (0..100).map(|at| (at * 7) as u8).collect();
        let frame = Tcp::new(80, 10_002).seq(1000 + round * 100).ack(1).payload(&payload).frame();
        assert_eq!(traffic.piece(number * bytes, (number + 1) * bytes)[4..], frame[..]);
    }
}
