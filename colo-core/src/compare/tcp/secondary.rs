use super::ranges::Ranges;
use super::stream::Stream;
use crate::compare::flow::{Outbox, Waiting, Witness, charge, longest, trim};
use crate::net::Seq;
use crate::net::wire::Segment;
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
    pub(super) syn: Option<(Witness, Segment)>,
    /// The highest acknowledgement; after a checkpoint, the primary's.
    pub(super) ack: Option<Seq>,
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

/// What a segment says to the other side's sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Acknowledgement {
    number: Seq,
    window: u16,
}

impl Acknowledgement {
    pub(super) fn of(segment: &Segment) -> Option<Self> {
        segment.ack.map(|number| Acknowledgement { number, window: segment.window })
    }

    /// Whether whoever heard `self` learns nothing from `other`.
    fn covers(&self, other: &Acknowledgement) -> bool {
        self.number.is_after(other.number) || self.number == other.number && self.window >= other.window
    }

    /// Who heard both, in this order, knows this.
    pub(super) fn after(self, earlier: Option<Acknowledgement>) -> Acknowledgement {
        match earlier {
            Some(earlier) if earlier.number.is_after(self.number) => earlier,
            _ => self,
        }
    }
}

#[derive(Debug)]
struct Pending {
    number: u64,
    since: Instant,
    places: Range<i64>,
    acknowledgement: Option<Acknowledgement>,
    charge: usize,
}

impl Secondary {
    /// The state after a checkpoint of a primary with this number and this highest acknowledgement.
    pub(super) fn like_primary(started: bool, isn: Option<Seq>, ack: Option<Seq>) -> Self {
        Secondary { started, isn, ack, ..Secondary::default() }
    }

    /// Keeps the SYN. Segments before it were of another connection: nothing of them can leave any more.
    pub(super) fn open(&mut self, witness: Witness, segment: Segment, out: &mut Outbox) {
        out.consumed.extend(self.pending.drain(..).map(|pending| pending.number));
        out.consumed.extend(self.resets.drain(..).map(|(witness, _)| witness.number));
        out.consumed.extend(self.unacknowledged.map(|(number, _)| number));
        *self = Secondary { started: true, isn: Some(segment.seq), ack: segment.ack, ..Secondary::default() };
        self.held_bytes = charge(&witness.frame);
        self.syn = Some((witness, segment));
    }

    /// The primary's SYN has left.
    pub(super) fn syn_left(&mut self, out: &mut Outbox) {
        if let Some((witness, _)) = self.syn.take() {
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

    /// Keeps the number of a frame until these places have left.
    pub(super) fn push_pending(
        &mut self,
        witness: &Witness,
        places: Range<i64>,
        acknowledgement: Option<Acknowledgement>,
    ) {
        let charge = charge(&witness.frame);
        self.held_bytes += charge;
        let pending = Pending { number: witness.number, since: witness.since, places, acknowledgement, charge };
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
        self.stream.forget(range);
        while self.pending.front().is_some_and(|pending| left.covers(&pending.places)) {
            let Some(pending) = self.pending.pop_front() else {
                break;
            };
            self.held_bytes -= pending.charge;
            self.acknowledge(pending.number, pending.acknowledgement, heard, out);
        }
        trim(&mut self.pending);
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
        let Some(new) = acknowledgement.filter(|new| !heard.is_some_and(|heard| heard.covers(new))) else {
            out.consumed.push_back(number);
            return;
        };
        match self.unacknowledged {
            Some((_, old)) if old.number.is_after(new.number) => out.consumed.push_back(number),
            _ => out.consumed.extend(self.unacknowledged.replace((number, new)).map(|(old, _)| old)),
        }
    }

    /// The other side has heard this.
    pub(super) fn acknowledgement_left(&mut self, heard: Acknowledgement, out: &mut Outbox) {
        if let Some((number, _)) = self.unacknowledged.filter(|(_, waiting)| heard.covers(waiting)) {
            self.unacknowledged = None;
            out.consumed.push_back(number);
        }
    }

    /// What has waited longest. A mere acknowledgement waits for nothing: the primary's own will do.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let at = |since| Waiting { since, is_primary: false };
        let syn = self.syn.as_ref().map(|(witness, _)| at(witness.since));
        let reset = self.resets.front().map(|(witness, _)| at(witness.since));
        let bytes = self.pending.front().map(|pending| at(pending.since));
        longest(longest(syn, reset), bytes)
    }
}
