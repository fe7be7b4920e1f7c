//! What each machine has said, and whether what left was said by both. Read from the frames by another parser than the comparator's,
//! and kept in the simplest way.

use colo_core::net::Frame;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// So much of a stream is remembered behind what has left: more than any window, so that what is said again can be looked up.
const REMEMBERED: usize = 16 << 20;

/// Sender and receiver.
type Key = (SocketAddr, SocketAddr);

#[derive(Default)]
pub(crate) struct Ledger {
    streams: HashMap<Key, Stream>,
    /// What the secondary has acknowledged with its last SYN, where the primary may not have said its own yet.
    handshakes: HashMap<Key, Option<u32>>,
    /// Frames of the secondary that are no segments, and have not left: without what may differ, and how often each was said.
    datagrams: HashMap<Vec<u8>, u64>,
    /// What left and should not have.
    pub(crate) wrong: Vec<String>,
    /// Bytes and frames that left and were looked up.
    pub(crate) stream_bytes: u64,
    pub(crate) datagram_frames: u64,
}

/// One direction of a connection, by the primary's numbers; the byte after its SYN is at place 0.
struct Stream {
    /// The number at place 0, modulo 2^32.
    base: u32,
    /// The highest place seen.
    top: i64,
    /// The secondary's bytes; those before are forgotten.
    start: i64,
    bytes: Vec<u8>,
    /// Where it has said something: start to end.
    said: BTreeMap<i64, i64>,
    /// Where something has left with a checkpoint.
    excused: BTreeMap<i64, i64>,
    fin: Option<i64>,
    /// The secondary's highest acknowledgement, and the highest that has left with a checkpoint.
    ack: Option<u32>,
    excused_ack: Option<u32>,
}

struct Segment {
    key: Key,
    seq: u32,
    ack: Option<u32>,
    syn: bool,
    fin: bool,
    rst: bool,
    payload: Vec<u8>,
}

enum Said {
    Segment(Segment),
    Datagram(Vec<u8>),
}

impl Ledger {
    /// The primary has said this.
    pub(crate) fn primary(&mut self, frame: &Frame) {
        if let Said::Segment(Segment { key, seq, syn: true, .. }) = read(frame) {
            let base = seq.wrapping_add(1);
            if self.streams.get(&key).is_none_or(|stream| stream.base != base) {
                let ack = self.handshakes.remove(&key).flatten();
                self.streams.insert(key, Stream { ack, ..Stream::new(base) });
            }
        }
    }

    /// The secondary has said this, in the primary's numbers.
    pub(crate) fn secondary(&mut self, frame: &Frame) {
        match read(frame) {
            Said::Datagram(what) => *self.datagrams.entry(what).or_default() += 1,
            Said::Segment(segment) => {
                if segment.syn {
                    self.handshakes.insert(segment.key, segment.ack);
                }
                // Before the primary's SYN the secondary can only have said its own, with another number.
                let Some(stream) = self.streams.get_mut(&segment.key) else { return };
                stream.ack = later(stream.ack, segment.ack);
                if !segment.syn && !segment.rst {
                    stream.say(&segment);
                }
            }
        }
    }

    /// This leaves because both have said it.
    pub(crate) fn leaves(&mut self, frame: &Frame) {
        match read(frame) {
            Said::Datagram(what) => match self.datagrams.get_mut(&what) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    self.datagram_frames += 1;
                }
                _ => self.wrong.push(format!("the secondary has not said {what:02x?}")),
            },
            Said::Segment(segment) => {
                if segment.rst {
                    return;
                }
                let Some(stream) = self.streams.get_mut(&segment.key) else {
                    return self.wrong.push(format!("{:?} has no beginning", segment.key));
                };
                if let Err(wrong) = stream.check(&segment) {
                    self.wrong.push(format!("{:?}: {wrong}", segment.key));
                }
                self.stream_bytes += segment.payload.len() as u64;
            }
        }
    }

    /// This leaves with a checkpoint.
    pub(crate) fn leaves_by_checkpoint(&mut self, frame: &Frame) {
        let Said::Segment(segment) = read(frame) else { return };
        if let Some(stream) = self.streams.get_mut(&segment.key) {
            stream.excused_ack = later(stream.excused_ack, segment.ack);
            let place = stream.place(segment.seq);
            insert(&mut stream.excused, place, place + segment.payload.len() as i64 + i64::from(segment.fin));
        }
    }

    /// A checkpoint: what the secondary had said and had not left is forgotten, as it would be by a machine that is given another's
    /// state.
    pub(crate) fn checkpoint(&mut self) {
        self.datagrams.clear();
    }
}

impl Stream {
    fn new(base: u32) -> Self {
        Stream {
            base,
            top: 0,
            start: 0,
            bytes: Vec::new(),
            said: BTreeMap::new(),
            excused: BTreeMap::new(),
            fin: None,
            ack: None,
            excused_ack: None,
        }
    }

    /// The place of a number: the one nearest to the highest so far.
    fn place(&mut self, seq: u32) -> i64 {
        let top = self.base.wrapping_add(self.top as u32);
        let place = self.top + i64::from(seq.wrapping_sub(top) as i32);
        self.top = self.top.max(place);
        place
    }

    fn say(&mut self, segment: &Segment) {
        let place = self.place(segment.seq);
        let end = place + segment.payload.len() as i64;
        if segment.fin {
            self.fin = Some(end);
        }
        let from = place.max(self.start);
        if segment.payload.is_empty() || from >= end {
            return;
        }
        let room = (end - self.start) as usize;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let payload = &segment.payload[(from - place) as usize..];
        self.bytes[(from - self.start) as usize..][..payload.len()].copy_from_slice(payload);
        insert(&mut self.said, from, end);
    }

    fn check(&mut self, segment: &Segment) -> Result<(), String> {
        let beyond = |said: Option<u32>, ack: u32| said.is_none_or(|said| (ack.wrapping_sub(said) as i32) > 0);
        if let Some(ack) = segment.ack.filter(|ack| beyond(self.ack, *ack) && beyond(self.excused_ack, *ack)) {
            return Err(format!("acknowledges {ack}, the secondary {:?}", self.ack));
        }
        if segment.syn {
            return Ok(());
        }
        let place = self.place(segment.seq);
        let end = place + segment.payload.len() as i64;
        if place < self.start && !segment.payload.is_empty() {
            return Err(format!("place {place} is too old to be looked up"));
        }
        let mut at = place;
        while at < end {
            let ours = &segment.payload[(at - place) as usize..];
            let bytes = end_of(&self.said, at).map_or(0, |to| (to.min(end) - at) as usize);
            let theirs = self.bytes.get((at - self.start) as usize..).unwrap_or_default();
            let theirs = &theirs[..bytes];
            if ours[..bytes] != *theirs {
                at += ours.iter().zip(theirs).take_while(|(ours, theirs)| ours == theirs).count() as i64;
            } else if bytes > 0 {
                at += bytes as i64;
                continue;
            }
            at = end_of(&self.excused, at).ok_or(format!("the secondary has not said the byte at {at}"))?;
        }
        if segment.fin && self.fin != Some(end) && end_of(&self.excused, end).is_none() {
            return Err(format!("ends at {end}, the secondary at {:?}", self.fin));
        }
        self.forget(end);
        Ok(())
    }

    fn forget(&mut self, left: i64) {
        let superfluous = left - self.start - 2 * REMEMBERED as i64;
        if superfluous > 0 {
            let bytes = superfluous as usize + REMEMBERED;
            self.bytes.drain(..bytes);
            self.start += bytes as i64;
        }
    }
}

fn later(known: Option<u32>, new: Option<u32>) -> Option<u32> {
    match (known, new) {
        (Some(known), Some(new)) if (new.wrapping_sub(known) as i32) < 0 => Some(known),
        (known, new) => new.or(known),
    }
}

/// Where the range ends that has this place.
fn end_of(ranges: &BTreeMap<i64, i64>, at: i64) -> Option<i64> {
    ranges.range(..=at).next_back().map(|(_, end)| *end).filter(|end| *end > at)
}

/// Adds a range, and joins it with those that it touches.
fn insert(ranges: &mut BTreeMap<i64, i64>, mut start: i64, mut end: i64) {
    while let Some((&from, &to)) = ranges.range(..=end).next_back().filter(|(_, to)| **to >= start) {
        ranges.remove(&from);
        (start, end) = (start.min(from), end.max(to));
    }
    ranges.insert(start, end);
}

fn read(frame: &Frame) -> Said {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        return Said::Datagram(frame.to_vec());
    };
    let addresses = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
        }
        Some(NetSlice::Ipv6(ip)) => {
            (IpAddr::from(ip.header().source_addr()), IpAddr::from(ip.header().destination_addr()))
        }
        _ => return Said::Datagram(frame.to_vec()),
    };
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Said::Segment(Segment {
            key: (
                SocketAddr::new(addresses.0, tcp.source_port()),
                SocketAddr::new(addresses.1, tcp.destination_port()),
            ),
            seq: tcp.sequence_number(),
            ack: tcp.ack().then(|| tcp.acknowledgment_number()),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            payload: tcp.payload().to_vec(),
        }),
        _ => Said::Datagram(without_what_may_differ(frame, &packet)),
    }
}

/// Identification and checksums are each machine's own; so are flow labels.
fn without_what_may_differ(frame: &[u8], packet: &SlicedPacket<'_>) -> Vec<u8> {
    const IP_AT: usize = 14;
    let mut bytes = frame.to_vec();
    let header_bytes = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            bytes[IP_AT + 4..IP_AT + 6].fill(0);
            bytes[IP_AT + 10..IP_AT + 12].fill(0);
            ip.header().slice().len()
        }
        Some(NetSlice::Ipv6(_)) => {
            bytes[IP_AT + 1..IP_AT + 4].fill(0);
            if bytes[IP_AT + 6] == 44 {
                bytes[IP_AT + 44..IP_AT + 48].fill(0);
            }
            40
        }
        _ => return bytes,
    };
    let checksum_at = match &packet.transport {
        Some(TransportSlice::Udp(_)) => IP_AT + header_bytes + 6,
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => IP_AT + header_bytes + 2,
        _ => return bytes,
    };
    bytes[checksum_at..checksum_at + 2].fill(0);
    bytes
}
