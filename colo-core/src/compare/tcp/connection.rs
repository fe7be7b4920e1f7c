mod leave;
mod parts;
mod verify;

use super::TcpSpares;
use super::ranges::{Ranges, SequenceSpace};
use super::secondary::Secondary;
use super::stream::Contradiction;
use super::window::{Acknowledgement, Narrow, shift_of};
use crate::compare::flow::{Outbox, Outgoing, Waiting, What, Witness, longest};
use crate::compare::rules::Scan;
use crate::compare::verdict::Reason;
use crate::net::wire::{Segment, TcpFlags};
use crate::net::{Frame, Seq};
use parts::rest;
use std::collections::VecDeque;
use std::ops::Range;
use verify::differs_at;

/// One direction of one TCP connection.
#[derive(Default, Debug)]
pub(super) struct Connection {
    space: SequenceSpace,
    /// What the client may have seen of the stream, over all epochs.
    left: Ranges,
    /// The latest acknowledgement that the client may have seen.
    heard: Option<Acknowledgement>,
    /// The last RST that left.
    left_reset: Option<(Seq, Option<Seq>)>,
    fin_left: bool,
    /// How far windows are shifted, when it is known.
    shift: Option<u8>,
    /// The client has reset the connection in this epoch: how much each machine had said until then is a matter of time, and what only one
    /// has said waits for nothing. The machines need not agree that it was the client; the next epoch begins anew.
    is_reset_by_client: bool,
    /// The place of the first byte, when the primary's SYN was seen.
    first: Option<i64>,
    /// How far the stream was gone through for what is masked.
    scan: Option<Box<ScanAt>>,
    /// What left last, if its window was narrow for the secondary's sake.
    narrow: Option<Box<Narrow>>,
    primary: Primary,
    secondary: Secondary,
}

/// A scan, and the place in the stream that it has come to.
#[derive(Debug)]
struct ScanAt {
    place: i64,
    scan: Scan,
}

/// What the primary has produced and the client has not seen.
#[derive(Default, Debug)]
struct Primary {
    started: bool,
    isn: Option<Seq>,
    /// The latest acknowledgement.
    said: Option<Acknowledgement>,
    held: VecDeque<Held>,
    /// How many of the first held segments the secondary has produced, too.
    verified: usize,
    /// Up to where the next one was compared.
    compared: Option<i64>,
    held_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Held {
    outgoing: Outgoing,
    segment: Segment,
    /// The place of its payload.
    start: i64,
    /// How many bytes of it have left already.
    left_bytes: usize,
}

impl Held {
    /// The places of its payload.
    fn payload(&self) -> Range<i64> {
        self.start..self.start + i64::from(self.segment.payload_bytes())
    }

    /// All the places that it takes: SYN and FIN have one each.
    fn places(&self) -> Range<i64> {
        let syn = i64::from(self.segment.has(TcpFlags::SYN));
        let fin = i64::from(self.segment.has(TcpFlags::FIN));
        let payload = self.payload();
        payload.start - syn..payload.end + fin
    }

    fn payload_bytes(&self) -> &[u8] {
        &self.outgoing.frame[self.segment.payload_range()]
    }
}

/// Which machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Primary,
    Secondary,
}

impl Connection {
    /// Whether a SYN of this side with this number repeats the one that opened the connection.
    pub(super) fn knows_syn(&self, side: Side, seq: Seq) -> bool {
        match side {
            Side::Primary => self.primary.isn == Some(seq),
            // Once its sequence numbers are rewritten, the secondary's SYN carries the primary's.
            Side::Secondary => {
                self.secondary.isn.is_some() && (self.secondary.isn == Some(seq) || self.primary.isn == Some(seq))
            }
        }
    }

    /// Whether a new SYN of this side opens this connection, and not the next.
    pub(super) fn accepts_syn(&self, side: Side) -> bool {
        let fresh = !self.primary.started && !self.secondary.started;
        match side {
            Side::Primary => self.primary.isn.is_none() && (fresh || self.secondary.isn.is_some()),
            Side::Secondary => self.secondary.isn.is_none() && (fresh || self.primary.isn.is_some()),
        }
    }

    /// Whether nothing of it waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting().is_none()
    }

    /// The client has reset the connection.
    pub(super) fn client_reset(&mut self) {
        self.is_reset_by_client = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.left_reset.is_some() || self.fin_left
    }

    pub(super) fn held_bytes(&self) -> (usize, usize) {
        (self.primary.held_bytes, self.secondary.held_bytes)
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        let waiting = self.waits_for();
        if self.is_reset_by_client { waiting.map(|waiting| Waiting { what: What::Nobody, ..waiting }) } else { waiting }
    }

    fn waits_for(&self) -> Option<Waiting> {
        let head = self.primary.held.front().map(|held| Waiting { since: held.outgoing.since, what: What::Primary });
        let closed = self.narrow.as_ref().filter(|narrow| narrow.window == 0);
        let closed = closed.map(|narrow| Waiting { since: narrow.since, what: What::Window });
        longest(longest(head, closed), self.secondary.waiting())
    }

    /// What waits of the primary's.
    pub(super) fn primary_frames(&self) -> impl Iterator<Item = &Frame> {
        self.primary.held.iter().map(|held| &held.outgoing.frame)
    }

    /// What waits of the secondary's, as far as it was kept.
    pub(super) fn secondary_frames(&self) -> impl Iterator<Item = &Frame> {
        self.secondary.frames()
    }

    pub(super) fn push_primary(&mut self, outgoing: Outgoing, segment: &Segment, spares: &mut TcpSpares) {
        let start = self.payload_places(segment).start;
        let shift = shift_of(segment, &outgoing.frame);
        self.shift = shift.or(self.shift);
        let primary = &mut self.primary;
        primary.started = true;
        if segment.has(TcpFlags::SYN) {
            primary.isn = Some(segment.seq);
            self.first = Some(start);
        }
        primary.said = Acknowledgement::latest(segment, shift, primary.said);
        primary.held_bytes += outgoing.charge();
        spares.held.equip(&mut primary.held);
        primary.held.push_back(Held { outgoing, segment: *segment, start, left_bytes: 0 });
    }

    pub(super) fn push_secondary(
        &mut self,
        witness: Witness,
        segment: &Segment,
        out: &mut Outbox,
    ) -> Result<(), Reason> {
        let shift = shift_of(segment, &witness.frame);
        if segment.has(TcpFlags::SYN) {
            if self.knows_syn(Side::Secondary, segment.seq) {
                self.secondary.said = Acknowledgement::latest(segment, shift, self.secondary.said);
                out.consumed.push_back(witness.number);
            } else {
                self.secondary.open(witness, *segment, shift, out);
            }
            return Ok(());
        }
        let Some(witness) = self.push_twin(witness, segment, out) else {
            return Ok(());
        };
        self.secondary.started = true;
        self.secondary.said = Acknowledgement::latest(segment, shift, self.secondary.said);
        if segment.has(TcpFlags::URG) {
            let end = segment.seq + u32::from(segment.urgent);
            self.secondary.urgent = Seq::later(self.secondary.urgent, Some(end));
        }
        if segment.has(TcpFlags::RST) {
            if self.left_reset == Some((segment.seq, segment.ack)) {
                out.consumed.push_back(witness.number);
            } else {
                self.secondary.push_reset(witness, *segment);
            }
            return Ok(());
        }
        self.push_stream(witness, segment, out)
    }

    /// Compares what can be compared, and releases what may leave.
    pub(super) fn advance(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        if self.waits_for_all() {
            return Ok(());
        }
        let verdict = self.verify(out);
        while out.open && self.primary.verified > 0 && self.head_may_leave()? {
            let Some(held) = self.primary.held.pop_front() else {
                break;
            };
            self.primary.verified -= 1;
            self.primary.held_bytes -= held.outgoing.charge();
            self.release(held, out);
        }
        out.spares.tcp.held.settle(&mut self.primary.held);
        self.reopen(out);
        verdict
    }

    /// The secondary now stands where the primary stands; all that the primary holds will leave before anything later.
    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>, spares: &mut TcpSpares) {
        while let Some(held) = self.primary.held.pop_front() {
            self.mark_left(&held, held.segment.window);
            // The client hears the primary's own window then, which the primary knows of. What has overtaken it was said later.
            let is_later = |narrow: &mut Box<Narrow>| held.outgoing.order >= narrow.outgoing.order;
            if held.segment.ack.is_some() {
                self.narrow.take_if(is_later);
            }
            ended.push(rest(held).outgoing);
        }
        let primary = &mut self.primary;
        spares.held.settle(&mut primary.held);
        (primary.verified, primary.compared, primary.held_bytes) = (0, None, 0);
        self.is_reset_by_client = false;
        self.secondary.become_primary(primary.started, primary.isn, primary.said, spares);
    }

    /// A segment that the primary has cut just so, and that is the next to leave, is compared as it stands and needs no place among what
    /// waits. That is how most come. Returns the witness when it is anything else.
    fn push_twin(&mut self, witness: Witness, segment: &Segment, out: &mut Outbox) -> Option<Witness> {
        let Some(held) = self.primary.held.front() else {
            return Some(witness);
        };
        let said = Acknowledgement::latest(segment, None, self.secondary.said);
        let is_twin = out.open
            && out.rule.is_none()
            && segment.is_plain()
            && held.segment.is_plain()
            && held.segment.seq == segment.seq
            && segment.payload_bytes() > 0
            && self.primary.verified == 0
            && self.primary.compared.is_none_or(|compared| compared == held.start)
            && self.secondary.has_nothing_pending()
            && held.segment.ack.is_none_or(|ack| said.is_some_and(|said| !ack.is_after(said.number)));
        if !is_twin || held.payload_bytes() != &witness.frame[segment.payload_range()] {
            return Some(witness);
        }
        let held = self.primary.held.pop_front()?;
        self.primary.compared = None;
        (self.secondary.started, self.secondary.said) = (true, said);
        self.primary.held_bytes -= held.outgoing.charge();
        out.compared_bytes += u64::from(segment.payload_bytes());
        self.release(held, out);
        self.secondary.acknowledge(witness.number, Acknowledgement::of(segment), self.heard, out);
        None
    }

    /// Where a segment's payload lies. Segments that take no place in the stream do not say where it is, either: a RST or a bare
    /// acknowledgement may carry any number.
    fn payload_places(&mut self, segment: &Segment) -> Range<i64> {
        let bytes = i64::from(segment.payload_bytes());
        let takes_place = bytes > 0 || segment.has(TcpFlags::SYN) || segment.has(TcpFlags::FIN);
        if !takes_place || segment.has(TcpFlags::RST) {
            return 0..0;
        }
        let start = self.space.place(segment.seq) + i64::from(segment.has(TcpFlags::SYN));
        start..start + bytes
    }

    fn push_stream(&mut self, witness: Witness, segment: &Segment, out: &mut Outbox) -> Result<(), Reason> {
        let payload = self.payload_places(segment);
        let fin = segment.has(TcpFlags::FIN);
        let places = payload.start..payload.end + i64::from(fin);
        let acknowledgement = Acknowledgement::of(segment);
        if self.left.covers(&places) {
            self.secondary.acknowledge(witness.number, acknowledgement, self.heard, out);
            return Ok(());
        }
        let is_near = self.space.is_near(places.start) && self.space.is_near(places.end);
        let spares = &mut out.spares.tcp;
        self.secondary.push_pending(&witness, places, acknowledgement, out.keep_evidence, &mut spares.pending);
        if !is_near {
            return Err(Reason::OutOfWindow);
        }
        if fin && self.secondary.fin.is_some_and(|other| other != payload.end) {
            return Err(Reason::FlagsDiffer);
        }
        if fin {
            self.secondary.fin = Some(payload.end);
        }
        let ignores_bytes = out.ignores_bytes();
        let (part, spares) = (segment.payload_range(), &mut out.spares.tcp.pieces);
        let inserted = self.secondary.stream.insert(payload.start, witness.frame, part, ignores_bytes, spares);
        inserted.map_err(|Contradiction { place }| differs_at(&self.space, place))
    }
}
