use super::TcpSpares;
use super::ranges::Ranges;
use super::stream::Stream;
use super::window::Acknowledgement;
use crate::compare::flow::{Outbox, Waiting, What, Witness, charge, longest};
use crate::compare::spares::Spares;
use crate::net::wire::Segment;
use crate::net::{Frame, Seq};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

/// What the secondary has produced in a connection and the primary has not yet.
#[derive(Default, Debug)]
pub(super) struct Secondary {
    /// Whether it has produced anything here.
    pub(super) started: bool,
    /// The number of its own SYN.
    pub(super) isn: Option<Seq>,
    /// Its SYN, until the primary's has left.
    pub(super) syn: Option<Box<(Witness, Segment)>>,
    /// The latest acknowledgement; after a checkpoint, the primary's.
    pub(super) said: Option<Acknowledgement>,
    /// The end of the latest urgent data.
    pub(super) urgent: Option<Seq>,
    /// Where its FIN stands.
    pub(super) fin: Option<i64>,
    /// Its bytes.
    pub(super) stream: Stream,
    /// Its RSTs, until the primary's leave.
    pub(super) resets: VecDeque<(Witness, Segment)>,
    /// Its frames with bytes or FIN, by where they end, until all of that has left.
    pending: VecDeque<Pending>,
    /// The latest frame whose bytes have left, but whose acknowledgement has not.
    unacknowledged: Option<(u64, Acknowledgement)>,
    /// What all of these count.
    pub(super) held_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Pending {
    number: u64,
    since: Instant,
    places: Range<i64>,
    acknowledgement: Option<Acknowledgement>,
    charge: usize,
    /// The frame, when it is wanted for evidence.
    frame: Option<Box<Frame>>,
}

impl Secondary {
    /// A checkpoint: it stands where the primary stands, which has this number and this latest acknowledgement.
    pub(super) fn become_primary(
        &mut self,
        started: bool,
        isn: Option<Seq>,
        said: Option<Acknowledgement>,
        spares: &mut TcpSpares,
    ) {
        self.pending.clear();
        spares.pending.settle(&mut self.pending);
        self.stream.clear(&mut spares.pieces);
        *self = Secondary { started, isn, said, ..Secondary::default() };
    }

    /// Keeps the SYN. Segments before it were of another connection: nothing of them can leave any more.
    pub(super) fn open(&mut self, witness: Witness, segment: Segment, shift: Option<u8>, out: &mut Outbox) {
        out.consumed.extend(self.pending.drain(..).map(|pending| pending.number));
        out.consumed.extend(self.resets.drain(..).map(|(witness, _)| witness.number));
        out.consumed.extend(self.unacknowledged.map(|(number, _)| number));
        let said = Acknowledgement::latest(&segment, shift, None);
        self.become_primary(true, Some(segment.seq), said, &mut out.spares.tcp);
        self.held_bytes = charge(&witness.frame);
        self.syn = Some(Box::new((witness, segment)));
    }

    /// The primary's SYN has left.
    pub(super) fn syn_left(&mut self, out: &mut Outbox) {
        if let Some(syn) = self.syn.take() {
            let (witness, _) = *syn;
            self.held_bytes -= charge(&witness.frame);
            out.consumed.push_back(witness.number);
        }
    }

    pub(super) fn push_reset(&mut self, witness: Witness, segment: Segment) {
        self.held_bytes += charge(&witness.frame);
        self.resets.push_back((witness, segment));
    }

    /// One RST of the primary has left.
    pub(super) fn reset_left(&mut self, out: &mut Outbox) {
        if let Some((witness, _)) = self.resets.pop_front() {
            self.held_bytes -= charge(&witness.frame);
            out.consumed.push_back(witness.number);
        }
    }

    /// This one has left, and is what the next ones say, too: the primary's repeats need none of them.
    pub(super) fn repeats_left(&mut self, left: (Seq, Option<Seq>), out: &mut Outbox) {
        let repeats = |segment: &Segment| (segment.seq, segment.ack) == left && segment.payload_bytes() == 0;
        while self.resets.front().is_some_and(|(_, segment)| repeats(segment)) {
            self.reset_left(out);
        }
    }

    /// Keeps the number of a frame until these places have left.
    pub(super) fn push_pending(
        &mut self,
        witness: &Witness,
        places: Range<i64>,
        acknowledgement: Option<Acknowledgement>,
        keep_frame: bool,
        spares: &mut Spares<Pending>,
    ) {
        let charge = charge(&witness.frame);
        self.held_bytes += charge;
        let frame = keep_frame.then(|| Box::new(witness.frame.clone()));
        let pending = Pending { number: witness.number, since: witness.since, places, acknowledgement, charge, frame };
        spares.equip(&mut self.pending);
        // Segments come mostly in order.
        let behind = self.pending.iter().rev().take_while(|other| other.places.end > pending.places.end).count();
        self.pending.insert(self.pending.len() - behind, pending);
    }

    /// `left` has grown by a part of `range`.
    pub(super) fn bytes_left(
        &mut self,
        left: &Ranges,
        range: &Range<i64>,
        heard: Option<Acknowledgement>,
        out: &mut Outbox,
    ) {
        if range.is_empty() {
            return;
        }
        self.stream.forget(range, &mut out.spares.tcp.pieces);
        while self.pending.front().is_some_and(|pending| left.covers(&pending.places)) {
            let Some(pending) = self.pending.pop_front() else {
                break;
            };
            self.held_bytes -= pending.charge;
            self.acknowledge(pending.number, pending.acknowledgement, heard, out);
        }
        out.spares.tcp.pending.settle(&mut self.pending);
    }

    /// All that frame `number` has left to say is an acknowledgement. Only the latest is worth keeping: whoever hears it needs none
    /// of the earlier ones.
    pub(super) fn acknowledge(
        &mut self,
        number: u64,
        acknowledgement: Option<Acknowledgement>,
        heard: Option<Acknowledgement>,
        out: &mut Outbox,
    ) {
        let Some(new) = acknowledgement else {
            return out.consumed.push_back(number);
        };
        if self.unacknowledged.is_some_and(|(_, old)| old.number.is_after(new.number)) {
            return out.consumed.push_back(number);
        }
        out.consumed.extend(self.unacknowledged.take().map(|(old, _)| old));
        if heard.is_some_and(|heard| heard.covers(&new)) {
            out.consumed.push_back(number);
        } else {
            self.unacknowledged = Some((number, new));
        }
    }

    /// The other side has heard this.
    pub(super) fn acknowledgement_left(&mut self, heard: Acknowledgement, out: &mut Outbox) {
        if let Some((number, _)) = self.unacknowledged.filter(|(_, waiting)| heard.covers(waiting)) {
            self.unacknowledged = None;
            out.consumed.push_back(number);
        }
    }

    /// Whether no bytes and no end of the stream wait.
    pub(super) fn has_nothing_pending(&self) -> bool {
        self.pending.is_empty() && self.stream.is_empty() && self.fin.is_none()
    }

    /// The frames that wait, as far as they were kept.
    pub(super) fn frames(&self) -> impl Iterator<Item = &Frame> {
        let syn = self.syn.iter().map(|syn| &syn.0.frame);
        let bytes = self.pending.iter().filter_map(|pending| pending.frame.as_deref());
        syn.chain(bytes).chain(self.resets.iter().map(|(witness, _)| &witness.frame))
    }

    /// What has waited longest. A mere acknowledgement waits for nothing: the primary's own will do.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let at = |since| Waiting { since, what: What::Secondary };
        let syn = self.syn.as_ref().map(|syn| at(syn.0.since));
        let reset = self.resets.front().map(|(witness, _)| at(witness.since));
        let bytes = self.pending.front().map(|pending| at(pending.since));
        longest(longest(syn, reset), bytes)
    }
}
