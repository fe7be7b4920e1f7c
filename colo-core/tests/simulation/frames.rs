//! The few kinds of frames that guest and clients exchange.

use colo_core::net::Frame;
use colo_core::net::testing::udp;

/// The guest's ports.
pub const ASK_PORT: u16 = 53;
pub const TICK_PORT: u16 = 99;
pub const TCP_PORT: u16 = 80;
/// The clients' ports, counted up from here.
pub const ASK_CLIENT: u16 = 5000;
pub const TICK_CLIENT: u16 = 5900;
pub const TCP_CLIENT: u16 = 6000;

/// Flows by which clients ask by UDP; one more is the guest's own (ticks).
pub const ASK_FLOWS: usize = 3;
pub const UDP_FLOWS: usize = ASK_FLOWS + 1;
pub const TICK_FLOW: usize = ASK_FLOWS;
pub const TCP_FLOWS: usize = 2;
/// Every request by TCP is so long.
pub const TCP_REQUEST_BYTES: usize = 16;

/// How the guest comes by its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// By what it was asked until now: the same on both machines.
    Plain,
    /// By all of its memory, also what only its own pace decides.
    Memory,
    /// By something that only this machine has, such as its clock.
    Entropy,
    /// Perhaps not at all.
    Moody,
}

impl Kind {
    pub fn of(byte: u8) -> Kind {
        match byte % 4 {
            0 => Kind::Plain,
            1 => Kind::Memory,
            2 => Kind::Entropy,
            _ => Kind::Moody,
        }
    }
}

/// What is in a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    Udp { source: u16, destination: u16, payload: &'a [u8] },
    Tcp(Segment<'a>),
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    pub source: u16,
    pub destination: u16,
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub rst: bool,
    pub payload: &'a [u8],
}

pub fn parse(frame: &[u8]) -> Packet<'_> {
    if frame.len() < 42 || frame[12..14] != [8, 0] {
        return Packet::Other;
    }
    let end = 14 + usize::from(u16_at(frame, 16));
    let (source, destination) = (u16_at(frame, 34), u16_at(frame, 36));
    match frame[23] {
        17 => Packet::Udp { source, destination, payload: &frame[42..end] },
        6 => {
            let flags = frame[47];
            Packet::Tcp(Segment {
                source,
                destination,
                seq: u32_at(frame, 38),
                ack: (flags & 0x10 != 0).then(|| u32_at(frame, 42)),
                syn: flags & 2 != 0,
                rst: flags & 4 != 0,
                payload: &frame[34 + usize::from(frame[46] >> 4) * 4..end],
            })
        }
        _ => Packet::Other,
    }
}

/// A request by UDP. Swapping both addresses changes no checksum.
pub fn ask(flow: usize, id: u32, kind: Kind, what: u64) -> Frame {
    let payload = [&id.to_le_bytes()[..], &[kind as u8], &what.to_le_bytes()].concat();
    let mut frame = udp(ASK_CLIENT + flow as u16, ASK_PORT, &payload).to_vec();
    let (head, tail) = frame.split_at_mut(6);
    head.swap_with_slice(&mut tail[..6]);
    let (head, tail) = frame.split_at_mut(30);
    head[26..30].swap_with_slice(&mut tail[..4]);
    frame.into()
}

/// What the guest says by UDP: the `index`th in its flow, in answer to request `id`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    pub index: u32,
    pub id: u32,
    pub content: u64,
}

impl Answer {
    pub fn frame(&self, flow: usize) -> Frame {
        let (from, to) =
            if flow == TICK_FLOW { (TICK_PORT, TICK_CLIENT) } else { (ASK_PORT, ASK_CLIENT + flow as u16) };
        udp(from, to, &[&self.index.to_le_bytes()[..], &self.id.to_le_bytes(), &self.content.to_le_bytes()].concat())
    }

    /// The answer that a frame to this port carries, and its flow.
    pub fn parse(destination: u16, payload: &[u8]) -> (usize, Answer) {
        let flow = if destination == TICK_CLIENT { TICK_FLOW } else { usize::from(destination - ASK_CLIENT) };
        let content = u64::from_le_bytes(payload[8..16].try_into().expect("16 bytes"));
        (flow, Answer { index: le32(&payload[..4]), id: le32(&payload[4..8]), content })
    }
}

pub fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}
