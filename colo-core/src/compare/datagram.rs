//! Flows whose frames are compared one by one, the first of the one side with the first of the other.

use super::flow::{AllSpares, Held, Outbox, Outgoing, Waiting, What, Witness, charge, longest};
use super::rules::Scan;
use super::verdict::{Evidence, Reason};
use crate::net::Frame;
use crate::net::ip::IpPacket;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;

/// Which bytes of a frame are not compared; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mask {
    /// Where what is not compared begins, and its length, in the order of the frame; of length 0 if there is no more.
    ignored: [(u16, u16); 3],
    /// A byte of which only the upper half is compared.
    half_at: Option<u16>,
    /// Where the packet ends: nothing that follows is compared. 0 for the whole frame.
    end: u32,
    /// Where the payload of the innermost protocol that is known begins.
    payload_at: u32,
}

impl Mask {
    /// For an IP packet with a checksum at that place of its payload.
    pub(super) fn of(packet: &IpPacket, checksum_at: Option<usize>) -> Mask {
        // UDP's header, and that of an echo.
        let header_bytes = if checksum_at.is_some() { 8 } else { 0 };
        let payload_at = (packet.payload_at + header_bytes) as u32;
        // A packet is no longer than 64 KiB, with some headers before it.
        let place = |at: usize, bytes: u16| u16::try_from(at).map_or((0, 0), |at| (at, bytes));
        let checksum = checksum_at.map_or((0, 0), |at| place(packet.payload_at + at, 2));
        let end = packet.end as u32;
        match packet.source {
            // The identification, the header's checksum.
            IpAddr::V4(_) => Mask {
                ignored: [place(packet.at + 4, 2), place(packet.at + 10, 2), checksum],
                half_at: None,
                end,
                payload_at,
            },
            // The flow label, which begins within a byte, and a fragment's identification.
            IpAddr::V6(_) => {
                let identification = packet.fragment_at.map_or((0, 0), |at| place(at + 4, 4));
                let half_at = u16::try_from(packet.at + 1).ok();
                Mask { ignored: [place(packet.at + 1, 3), identification, checksum], half_at, end, payload_at }
            }
        }
    }

    /// Where the payload is, in a frame.
    fn payload(&self, frame: &[u8]) -> Range<usize> {
        let end = if self.end == 0 { frame.len() } else { self.end as usize };
        self.payload_at as usize..end
    }

    /// The same for what is before a place, behind all that is ignored.
    fn up_to(self, end: usize) -> Mask {
        Mask { end: end as u32, ..self }
    }

    /// The stretches that are compared, in order, for a frame of this length.
    fn compared(&self, frame_bytes: usize) -> [Range<usize>; 4] {
        let end = if self.end == 0 { frame_bytes } else { self.end as usize };
        let mut from = 0;
        let mut stretches = [0..0, 0..0, 0..0, 0..0];
        for (stretch, (at, bytes)) in stretches.iter_mut().zip(self.ignored) {
            if bytes > 0 {
                *stretch = from..usize::from(at);
                from = usize::from(at) + usize::from(bytes);
            }
        }
        stretches[3] = from..end;
        stretches
    }
}

/// A frame, and which of its bytes are compared.
#[derive(Debug)]
pub(super) struct Datagram<T> {
    item: T,
    mask: Mask,
    is_notice: bool,
}

/// A flow of datagrams.
#[derive(Default, Debug)]
pub(super) struct DatagramFlow {
    primary: VecDeque<Datagram<Outgoing>>,
    secondary: VecDeque<Datagram<Witness>>,
    /// How many of the first pairs were found equal, and wait for the flow to be opened.
    equal: usize,
    held: Held,
    /// The notices that hold.
    posted: Posted,
}

impl DatagramFlow {
    pub(super) fn push_primary(&mut self, item: Outgoing, mask: Mask, is_notice: bool, spares: &mut AllSpares) {
        self.held.primary += item.charge();
        spares.outgoing.equip(&mut self.primary);
        self.primary.push_back(Datagram { item, mask, is_notice });
    }

    pub(super) fn push_secondary(&mut self, item: Witness, mask: Mask, is_notice: bool, spares: &mut AllSpares) {
        self.held.secondary += charge(&item.frame);
        spares.witnesses.equip(&mut self.secondary);
        self.secondary.push_back(Datagram { item, mask, is_notice });
    }

    pub(super) fn advance(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        let verdict = self.settle(out);
        out.spares.outgoing.settle(&mut self.primary);
        out.spares.witnesses.settle(&mut self.secondary);
        verdict
    }

    pub(super) fn secondary_has_notice(&self) -> bool {
        self.equal == 0 && self.secondary.front().is_some_and(|said| said.is_notice)
    }

    /// Nobody waits for the secondary's first notice any more: no client has heard it.
    pub(super) fn forget_notice(&mut self, out: &mut Outbox) {
        self.consume_first(out);
        out.spares.witnesses.settle(&mut self.secondary);
    }

    /// Until somebody waits for the other machine, or the two differ.
    fn settle(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        loop {
            while out.open && self.equal > 0 {
                self.equal -= 1;
                self.release_first(out);
                self.consume_first(out);
            }
            if out.open && !self.posted.is_empty() {
                if self
                    .primary
                    .front()
                    .is_some_and(|said| said.is_notice && self.posted.has(&said.item.frame, said.mask))
                {
                    self.release_first(out);
                    continue;
                }
                if self
                    .secondary
                    .front()
                    .is_some_and(|said| said.is_notice && self.posted.has(&said.item.frame, said.mask))
                {
                    self.consume_first(out);
                    continue;
                }
            }
            let (Some(ours), Some(theirs)) = (self.primary.get(self.equal), self.secondary.get(self.equal)) else {
                return Ok(());
            };
            if let Some(at) = first_difference(&ours.item.frame, ours.mask, &theirs.item.frame, theirs.mask, out) {
                return Err(Reason::PayloadDiffers { offset: at as u64 });
            }
            out.compared_bytes += ours.item.frame.len() as u64;
            self.equal += 1;
        }
    }

    /// The primary's first frame leaves.
    fn release_first(&mut self, out: &mut Outbox) {
        let Some(said) = self.primary.pop_front() else { return };
        self.held.primary -= said.item.charge();
        self.posted.note(&said);
        out.release(said.item);
    }

    /// Of the secondary's first frame nothing is left to say.
    fn consume_first(&mut self, out: &mut Outbox) {
        let Some(said) = self.secondary.pop_front() else { return };
        self.held.secondary -= charge(&said.item.frame);
        out.consumed.push_back(said.item.number);
    }

    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>, spares: &mut AllSpares) {
        // They leave before anything of this epoch does.
        self.primary.iter().for_each(|said| self.posted.note(said));
        ended.extend(self.primary.drain(..).map(|datagram| datagram.item));
        self.secondary.clear();
        spares.outgoing.settle(&mut self.primary);
        spares.witnesses.settle(&mut self.secondary);
        (self.equal, self.held) = (0, Held::default());
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        let primary = self.primary.front().map(|d| Waiting { since: d.item.since, what: What::Primary });
        let secondary = self.secondary.front().map(|d| Waiting { since: d.item.since, what: What::Secondary });
        longest(primary, secondary)
    }

    pub(super) fn held(&self) -> Held {
        self.held
    }

    /// The frames that wait, of each machine.
    pub(super) fn evidence(&self) -> Evidence {
        Evidence::new(
            self.primary.iter().map(|datagram| &datagram.item.frame),
            self.secondary.iter().map(|datagram| &datagram.item.frame),
        )
    }
}

/// So many notices hold at once: what is said to everybody, to a group, to one neighbour, and one more.
const MAX_POSTED: usize = 4;
/// No notice is longer that is remembered: neighbour discovery's and a few groups' fit.
const MAX_POSTED_BYTES: usize = 128;

/// Notices that have left, and that nothing has contradicted since: who hears one of them again hears nothing new. Of those to one neighbour
/// the last, and none of another Ethernet address than the last.
#[derive(Default, Debug)]
struct Posted(Vec<(Frame, Mask)>);

impl Posted {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, frame: &Frame, mask: Mask) -> bool {
        self.0.iter().any(|(posted, of_it)| first_difference_in_bytes(frame, mask, posted, *of_it).is_none())
    }

    /// That leaves.
    fn note(&mut self, said: &Datagram<Outgoing>) {
        let frame = &said.item.frame;
        if !said.is_notice || self.has(frame, said.mask) {
            return;
        }
        let (to, from) = (0..6, 6..12);
        self.0.retain(|(posted, _)| {
            posted[to.clone()] != frame[to.clone()] && posted[from.clone()] == frame[from.clone()]
        });
        if frame.len() <= MAX_POSTED_BYTES && self.0.len() < MAX_POSTED {
            self.0.push((frame.clone(), said.mask));
        }
    }
}

/// Where two frames first differ in a byte that is compared.
fn first_difference(a: &Frame, mask_a: Mask, b: &Frame, mask_b: Mask, out: &Outbox) -> Option<usize> {
    if out.rule.is_some() {
        return first_difference_by_rule(a, mask_a, b, mask_b, out);
    }
    // What a card makes several datagrams of must become the same ones.
    if a.offload.datagram_bytes() != b.offload.datagram_bytes() {
        return Some(0);
    }
    first_difference_in_bytes(a, mask_a, b, mask_b)
}

#[cold]
fn first_difference_by_rule(a: &[u8], mask_a: Mask, b: &[u8], mask_b: Mask, out: &Outbox) -> Option<usize> {
    let masks = out.masks().filter(|_| !out.ignores_bytes())?;
    let (payload_a, payload_b) = (mask_a.payload(a), mask_b.payload(b));
    if payload_a != payload_b {
        return Some(payload_a.start.min(payload_b.start));
    }
    let differing = Scan::at(Some(0)).first_difference(masks, &a[payload_a.clone()], &b[payload_b.clone()]);
    let up_to = |frame: &[u8], payload: Range<usize>| frame[..payload.start].to_vec();
    let headers = first_difference_in_bytes(
        &up_to(a, payload_a.clone()),
        mask_a.up_to(payload_a.start),
        &up_to(b, payload_b.clone()),
        mask_b.up_to(payload_b.start),
    );
    headers.or(differing.map(|at| payload_a.start + at))
}

fn first_difference_in_bytes(a: &[u8], mask_a: Mask, b: &[u8], mask_b: Mask) -> Option<usize> {
    // Packets of different shape have stretches of different length, which are not equal.
    for (in_a, in_b) in mask_a.compared(a.len()).into_iter().zip(mask_b.compared(b.len())) {
        if a[in_a.clone()] != b[in_b.clone()] {
            let equal = a[in_a.clone()].iter().zip(&b[in_b]).take_while(|(a, b)| a == b).count();
            return Some(in_a.start + equal);
        }
    }
    let half = |frame: &[u8], mask: Mask| mask.half_at.map(|at| frame[usize::from(at)] >> 4);
    match mask_a.half_at {
        Some(at) if half(a, mask_a) != half(b, mask_b) => Some(usize::from(at)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::classify::{Content, classify};
    use crate::net::testing::{echo_reply, tagged, udp, udp6, with_extensions};

    fn difference(a: &[u8], b: &[u8]) -> Option<usize> {
        let (a, b) = (&Frame::copy_from_slice(a), &Frame::copy_from_slice(b));
        let mask = |frame: &[u8]| match classify(0, frame).1 {
            Content::Datagram(mask) => mask,
            Content::Fragment(packet) => Mask::of(&packet, None),
            content => panic!("{content:?}"),
        };
        first_difference(a, mask(a), b, mask(b), &Outbox::default())
    }

    /// Every byte is flipped: only those that the module's table calls ignored make no difference.
    #[test]
    fn exactly_the_ignored_bytes_are_ignored() {
        assert_eq!(ignored_bytes(&udp(5, 6, b"payload")), [18, 19, 24, 25, 40, 41]);
    }

    fn ignored_bytes(frame: &[u8]) -> Vec<usize> {
        let differs = |at: &usize| {
            let mut other = frame.to_vec();
            other[*at] ^= 1;
            let (key, same) = (classify(0, frame).0, classify(0, &other).0);
            key != same || difference(frame, &other).is_some()
        };
        (0..frame.len()).filter(|at| !differs(at)).collect()
    }

    #[test]
    fn behind_tags_and_extension_headers_too() {
        let frame = udp(5, 6, b"payload");
        let tags = [(0x88A8, 7), (0x8100, 5)];
        assert_eq!(ignored_bytes(&tagged(&frame, &tags)), [26, 27, 32, 33, 48, 49]);
        // The flow label, the checksum.
        let frame = udp6(5, 6, b"payload");
        assert_eq!(ignored_bytes(&frame), [15, 16, 17, 60, 61]);
        let mut other = frame.to_vec();
        other[15] ^= 0x10;
        assert_eq!(difference(&frame, &other), Some(15), "half of this byte is of the traffic class");
        // A fragment's identification, too. Its payload is opaque.
        let fragment = with_extensions(&frame, &[(44, vec![0, 0, 0, 1, 1, 2, 3, 4])]);
        assert_eq!(ignored_bytes(&tagged(&fragment, &tags[1..])), [19, 20, 21, 62, 63, 64, 65]);
    }

    /// A fragment's header so far behind the others that its identification ends beyond what 16 bits say.
    #[test]
    fn places_at_the_end_of_the_longest_packets_are_compared() {
        const FRAGMENT_AT: usize = 65_530;
        let frame = udp6(5, 6, b"");
        let mut packet = IpPacket::parse(&frame).unwrap();
        packet.fragment_at = Some(FRAGMENT_AT);
        packet.end = FRAGMENT_AT + 8;
        let mask = Mask::of(&packet, None);
        let long = vec![0; packet.end];
        for (at, difference) in
            [(FRAGMENT_AT + 3, Some(FRAGMENT_AT + 3)), (FRAGMENT_AT + 4, None), (FRAGMENT_AT + 7, None)]
        {
            let mut other = long.clone();
            other[at] ^= 1;
            assert_eq!(first_difference_in_bytes(&long, mask, &other, mask), difference, "at {at}");
        }
    }

    #[test]
    fn different_lengths_and_options_differ() {
        let long = echo_reply(1, 2, &[7; 20]);
        assert!(difference(&long, &echo_reply(1, 2, &[7; 21])).is_some());
        assert!(difference(&echo_reply(1, 2, &[7; 21]), &long).is_some());
        assert_eq!(difference(&long, &echo_reply(1, 3, &[7; 20])), Some(41));
        let mut with_option = long[..34].to_vec();
        with_option.extend_from_slice(&[1, 1, 1, 1]);
        with_option.extend_from_slice(&long[34..]);
        with_option[14] = 0x46;
        with_option[17] += 4;
        assert_eq!(difference(&long, &with_option), Some(14));
    }

    #[test]
    fn padding_is_ignored() {
        let frame = echo_reply(1, 2, b"x");
        let mut padded = frame.to_vec();
        padded.resize(60, 0xaa);
        assert_eq!(difference(&frame, &padded), None);
    }
}
