//! Fragments, put together to be compared as the packet that they make. The originals leave.
//!
//! A packet is whole with the fragment that completes it; as for who receives it, that is its place in its flow. Fragments that overlap
//! (RFC 5722), are too many or make a packet that is too long, make none: each is compared for itself, as is one that repeats another.

use super::flow::charge;
use super::key::{FlowKey, FlowKind};
use crate::net::ip::{Fragment, IpPacket};
use crate::net::{Frame, Vlans};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most packets of a machine that are incomplete at once; of those beyond, the oldest's fragments are compared for themselves.
const MAX_PACKETS: usize = 64;

/// The most fragments of a packet: what 64 KiB are cut into for a link with an MTU of 296. More make none.
const MAX_PIECES: usize = 256;

/// The most that a packet's fragments count: the longest packet, and much more of headers than any guest says. More make none.
const MAX_PACKET_BYTES: usize = 256 << 10;

/// How long a packet is waited for whose fragments have all left: as long as a receiver may wait (RFC 8200 §4.5).
const MAX_AGE: Duration = Duration::from_secs(60);

/// The incomplete packets of one machine.
#[derive(Default, Debug)]
pub(super) struct Fragments {
    packets: Vec<Packet>,
    held_bytes: usize,
}

/// A fragment as it came.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The frame's order, or its number.
    pub(super) number: u64,
    pub(super) since: Instant,
    pub(super) frame: Frame,
}

/// What came of a fragment.
#[derive(Debug)]
pub(super) enum Assembled {
    /// Others are missing.
    Incomplete,
    /// The packet is whole: here it is, and those of its fragments that have not left, in the order in which they came.
    Whole(Frame, Vec<Part>),
    /// These make no packet.
    Apart(Vec<Part>),
}

/// What the fragments of a packet have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Id {
    nic: u8,
    vlans: Vlans,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
}

impl Id {
    fn flow(&self) -> FlowKey {
        let Id { nic, vlans, source, destination, protocol, .. } = *self;
        FlowKey { nic, vlans, kind: FlowKind::Ip { source, destination, protocol } }
    }
}

#[derive(Clone, Debug)]
struct Packet {
    id: Id,
    /// In the order in which they came.
    pieces: Vec<Piece>,
    /// How many of the first left with a checkpoint.
    left: usize,
}

#[derive(Clone, Debug)]
struct Piece {
    part: Part,
    ip: IpPacket,
    fragment: Fragment,
}

impl Piece {
    fn end(&self) -> usize {
        self.fragment.offset + self.ip.end - self.ip.payload_at
    }

    fn payload(&self) -> &[u8] {
        self.ip.payload(&self.part.frame)
    }

    fn repeats(&self, other: &Piece) -> bool {
        self.fragment == other.fragment && self.payload() == other.payload()
    }
}

impl Fragments {
    /// Takes a fragment.
    pub(super) fn insert(&mut self, nic: u8, ip: &IpPacket, fragment: Fragment, part: Part) -> Assembled {
        let IpPacket { vlans, source, destination, protocol, .. } = *ip;
        let id = Id { nic, vlans, source, destination, protocol, identification: fragment.identification };
        let piece = Piece { part, ip: *ip, fragment };
        let index = self.packets.iter().position(|packet| packet.id == id);
        if index.is_some_and(|index| self.packets[index].pieces.iter().any(|other| piece.repeats(other))) {
            return Assembled::Apart(vec![piece.part]);
        }
        self.held_bytes += charge(&piece.part.frame);
        let Some(index) = index else {
            let mut apart = Vec::new();
            if self.packets.len() == MAX_PACKETS {
                apart = self.take(0);
            }
            self.packets.push(Packet { id, pieces: vec![piece], left: 0 });
            return if apart.is_empty() { Assembled::Incomplete } else { Assembled::Apart(apart) };
        };
        let packet = &mut self.packets[index];
        packet.pieces.push(piece);
        match packet.state() {
            State::Incomplete => Assembled::Incomplete,
            State::Broken => Assembled::Apart(self.take(index)),
            State::Complete => match packet.assemble() {
                Some(frame) => Assembled::Whole(frame, self.take(index)),
                None => Assembled::Apart(self.take(index)),
            },
        }
    }

    /// What they count against the limits.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Since when the first of them has waited, and between whom.
    pub(super) fn waiting(&self) -> Option<(Instant, FlowKey)> {
        let first = |packet: &Packet| packet.pieces.get(packet.left).map(|piece| (piece.part.since, packet.id));
        self.packets.iter().filter_map(first).min_by_key(|(since, _)| *since).map(|(since, id)| (since, id.flow()))
    }

    /// The primary's, at a checkpoint: returns those that have not left, as they do now; what completes their packets may come yet.
    /// The network card is with each.
    pub(super) fn begin_epoch(&mut self, now: Option<Instant>) -> Vec<(u8, Part)> {
        let is_young = |piece: &Piece| now.is_none_or(|now| now.saturating_duration_since(piece.part.since) < MAX_AGE);
        let mut ended = Vec::new();
        for packet in &mut self.packets {
            let pieces = packet.pieces[packet.left..].iter();
            ended.extend(pieces.map(|piece| (packet.id.nic, piece.part.clone())));
            packet.left = packet.pieces.len();
        }
        // A receiver counts from the first, whatever comes later.
        self.packets.retain(|packet| packet.pieces.first().is_some_and(is_young));
        self.held_bytes = 0;
        ended
    }

    /// The secondary's, at a checkpoint: its machine is what the primary's is.
    pub(super) fn become_primary(&mut self, primary: &Fragments) {
        self.packets.clone_from(&primary.packets);
        self.held_bytes = 0;
    }

    /// Takes those of a packet's fragments that have not left.
    fn take(&mut self, index: usize) -> Vec<Part> {
        let Packet { pieces, left, .. } = self.packets.remove(index);
        let parts: Vec<Part> = pieces.into_iter().skip(left).map(|piece| piece.part).collect();
        self.held_bytes -= parts.iter().map(|part| charge(&part.frame)).sum::<usize>();
        parts
    }
}

enum State {
    Incomplete,
    Complete,
    Broken,
}

impl Packet {
    fn state(&self) -> State {
        let bytes: usize = self.pieces.iter().map(|piece| charge(&piece.part.frame)).sum();
        if self.pieces.len() > MAX_PIECES || bytes > MAX_PACKET_BYTES {
            return State::Broken;
        }
        let mut end = 0;
        let mut has_last = false;
        let mut has_gap = false;
        for piece in self.sorted() {
            // Two ends, or something behind the end, or twice the same place.
            if has_last || piece.fragment.offset < end {
                return State::Broken;
            }
            has_gap |= piece.fragment.offset > end;
            (end, has_last) = (piece.end(), !piece.fragment.more);
        }
        if has_last && !has_gap { State::Complete } else { State::Incomplete }
    }

    fn sorted(&self) -> Vec<&Piece> {
        let mut sorted: Vec<&Piece> = self.pieces.iter().collect();
        sorted.sort_by_key(|piece| piece.fragment.offset);
        sorted
    }

    /// The packet: the first fragment's headers, everybody's payload.
    fn assemble(&self) -> Option<Frame> {
        let sorted = self.sorted();
        let first = *sorted.first()?;
        let IpPacket { at, payload_at, .. } = first.ip;
        let mut frame = first.part.frame[..payload_at].to_vec();
        for piece in sorted {
            let known = frame.len() - payload_at;
            frame.extend_from_slice(piece.payload().get(known - piece.fragment.offset..).unwrap_or(&[]));
        }
        let set = |frame: &mut Vec<u8>, at: usize, field: u16| frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
        let get = |at: usize| u16::from_be_bytes([first.part.frame[at], first.part.frame[at + 1]]);
        match first.ip.fragment_at {
            None => {
                let length = u16::try_from(frame.len() - at).ok()?;
                set(&mut frame, at + 2, length);
                // The offset, and whether more come.
                set(&mut frame, at + 6, get(at + 6) & 0xC000);
            }
            Some(fragment_at) => {
                const FIXED_HEADER_BYTES: usize = 40;
                let length = u16::try_from(frame.len() - at - FIXED_HEADER_BYTES).ok()?;
                set(&mut frame, at + 4, length);
                set(&mut frame, fragment_at + 2, get(fragment_at + 2) & 0x0006);
            }
        }
        let whole = IpPacket::parse(&frame)?;
        whole.fragment.is_none().then(|| frame.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{fragments, tagged, udp, udp6};
    use proptest::prelude::*;

    fn insert(fragments: &mut Fragments, number: u64, frame: &Frame) -> Assembled {
        let ip = IpPacket::parse(frame).unwrap();
        let part = Part { number, since: Instant::now(), frame: frame.clone() };
        fragments.insert(0, &ip, ip.fragment.unwrap(), part)
    }

    fn numbers(parts: &[Part]) -> Vec<u64> {
        parts.iter().map(|part| part.number).collect()
    }

    /// The payload of an IP packet, and its protocol.
    fn packet(frame: &[u8]) -> (u8, Vec<u8>) {
        let ip = IpPacket::parse(frame).unwrap();
        (ip.protocol, ip.payload(frame).to_vec())
    }

    proptest! {
        #[test]
        fn any_order_makes_the_packet(
            payload in prop::collection::vec(any::<u8>(), 30..300),
            size in 1usize..5,
            order in any::<prop::sample::Index>(),
            twice in any::<bool>(),
            is_v6 in any::<bool>(),
        ) {
            let whole = if is_v6 { udp6(53, 4000, &payload) } else { udp(53, 4000, &payload) };
            let mut parts = fragments(&whole, size * 8, 7);
            let turn = order.index(parts.len());
            parts.rotate_left(turn);
            if twice {
                parts.insert(1, parts[0].clone());
            }
            let mut assembler = Fragments::default();
            for (number, part) in parts.iter().enumerate() {
                match insert(&mut assembler, number as u64, part) {
                    Assembled::Incomplete => prop_assert!(number + 1 < parts.len()),
                    Assembled::Whole(frame, all) => {
                        prop_assert_eq!(number + 1, parts.len());
                        prop_assert_eq!(packet(&frame), packet(&whole));
                        let others = (0..parts.len() as u64).filter(|number| !twice || *number != 1);
                        prop_assert_eq!(numbers(&all), others.collect::<Vec<_>>());
                    }
                    Assembled::Apart(all) => prop_assert!(twice && number == 1 && numbers(&all) == [1]),
                }
            }
            prop_assert_eq!((assembler.held_bytes(), assembler.packets.len()), (0, 0));
        }
    }

    #[test]
    fn overlaps_two_ends_and_giants_make_no_packet() {
        let whole = udp(53, 4000, &[7; 100]);
        let parts = fragments(&whole, 48, 7);
        let mut changed = parts[1].to_vec();
        *changed.last_mut().unwrap() ^= 1;
        let mut assembler = Fragments::default();
        insert(&mut assembler, 0, &parts[1]);
        assert!(matches!(insert(&mut assembler, 1, &changed.into()), Assembled::Apart(all) if numbers(&all) == [0, 1]));
        // By as little as can be.
        let mut early = parts[1].to_vec();
        early[20..22].copy_from_slice(&(0x2000_u16 | 5).to_be_bytes());
        insert(&mut assembler, 0, &parts[0]);
        assert!(matches!(insert(&mut assembler, 1, &early.into()), Assembled::Apart(all) if numbers(&all) == [0, 1]));
        // Behind the end.
        insert(&mut assembler, 2, parts.last().unwrap());
        let longer = fragments(&udp(53, 4000, &[7; 300]), 48, 7);
        assert!(matches!(insert(&mut assembler, 3, &longer[4]), Assembled::Apart(all) if numbers(&all) == [2, 3]));
        // An end beyond what a packet can have.
        let mut far = parts[2].to_vec();
        far[20..22].copy_from_slice(&(0x1FFF_u16).to_be_bytes());
        let giant = |number: u64| {
            let mut assembler = Fragments::default();
            let last = Frame::from(far.clone());
            insert(&mut assembler, 0, &last);
            // All in one, up to there.
            let mut body = parts[0][..34].to_vec();
            body.resize(34 + 65_504, 0);
            body[16..18].copy_from_slice(&65_524_u16.to_be_bytes());
            insert(&mut assembler, 1, &body.clone().into());
            body.truncate(34 + 24);
            body[16..18].copy_from_slice(&44_u16.to_be_bytes());
            body[20..22].copy_from_slice(&(0x2000 | (65_504_u16 / 8)).to_be_bytes());
            insert(&mut assembler, number, &body.into())
        };
        assert!(matches!(giant(2), Assembled::Apart(all) if numbers(&all) == [0, 1, 2]));
        assert_eq!(assembler.held_bytes(), 0);
    }

    #[test]
    fn packets_are_told_apart_and_limited() {
        let mut assembler = Fragments::default();
        let one = fragments(&udp(53, 4000, &[7; 100]), 48, 1);
        let other = fragments(&tagged(&udp(53, 4000, &[7; 100]), &[(0x8100, 5)]), 48, 1);
        insert(&mut assembler, 0, &one[0]);
        insert(&mut assembler, 1, &other[1]);
        for identification in 2..MAX_PACKETS as u16 {
            let parts = fragments(&udp(53, 4000, &[7; 100]), 48, identification);
            assert!(matches!(insert(&mut assembler, identification.into(), &parts[0]), Assembled::Incomplete));
        }
        let parts = fragments(&udp(53, 4000, &[7; 100]), 48, 999);
        assert!(matches!(insert(&mut assembler, 999, &parts[0]), Assembled::Apart(all) if numbers(&all) == [0]));
        assert_eq!(assembler.packets.len(), MAX_PACKETS);
    }

    /// However often a guest repeats what it never completes, and however small it cuts.
    #[test]
    fn the_pieces_of_a_packet_are_limited() {
        let parts = fragments(&udp(53, 4000, &[7; 8 * (MAX_PIECES + 8)]), 8, 1);
        let mut assembler = Fragments::default();
        insert(&mut assembler, 0, &parts[0]);
        let held_bytes = assembler.held_bytes();
        for number in 1..10 {
            assert!(
                matches!(insert(&mut assembler, number, &parts[0]), Assembled::Apart(all) if numbers(&all) == [number])
            );
        }
        assert_eq!((assembler.held_bytes(), assembler.packets[0].pieces.len()), (held_bytes, 1));
        for (number, part) in (1..).zip(&parts[1..MAX_PIECES]) {
            assert!(matches!(insert(&mut assembler, number, part), Assembled::Incomplete));
        }
        assert!(
            matches!(insert(&mut assembler, 999, &parts[MAX_PIECES]), Assembled::Apart(all) if all.len() == MAX_PIECES + 1)
        );
        assert_eq!((assembler.held_bytes(), assembler.packets.len()), (0, 0));
    }

    /// A checkpoint does not count them any more, so nothing else would end it.
    #[test]
    fn a_packet_that_is_still_added_to_is_forgotten_in_time() {
        let parts = fragments(&udp(53, 4000, &[7; 100]), 48, 1);
        let mut assembler = Fragments::default();
        insert(&mut assembler, 0, &parts[0]);
        assembler.begin_epoch(None);
        let later = Instant::now() + MAX_AGE;
        let ip = IpPacket::parse(&parts[1]).unwrap();
        let part = Part { number: 1, since: later, frame: parts[1].clone() };
        assembler.insert(0, &ip, ip.fragment.unwrap(), part);
        assert_eq!((assembler.begin_epoch(Some(later)).len(), assembler.packets.len()), (1, 0));
    }

    /// What a checkpoint lets go completes its packet later, on both machines, and does not leave again.
    #[test]
    fn a_checkpoint_in_the_middle() {
        let parts = fragments(&udp(53, 4000, &[7; 100]), 48, 1);
        let (mut primary, mut secondary) = (Fragments::default(), Fragments::default());
        insert(&mut primary, 0, &parts[0]);
        assert!(primary.waiting().is_some());
        assert_eq!(primary.begin_epoch(None).len(), 1);
        secondary.become_primary(&primary);
        assert!(primary.waiting().is_none() && primary.held_bytes() == 0);
        for machine in [&mut primary, &mut secondary] {
            insert(machine, 1, &parts[1]);
            assert!(matches!(insert(machine, 2, &parts[2]), Assembled::Whole(_, rest) if numbers(&rest) == [1, 2]));
        }
        insert(&mut primary, 3, &parts[1]);
        let later = Instant::now() + MAX_AGE;
        assert_eq!((primary.begin_epoch(Some(later)).len(), primary.packets.len()), (1, 0));
    }
}
