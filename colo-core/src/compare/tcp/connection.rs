use super::ranges::{Ranges, SequenceSpace};
use super::secondary::{Acknowledgement, Secondary};
use super::stream::{Contradiction, first_difference};
use crate::compare::flow::{Outbox, Outgoing, Waiting, Witness, charge, longest, trim};
use crate::compare::verdict::Reason;
use crate::net::Seq;
use crate::net::wire::{Segment, TcpFlags, TcpOption};
use std::collections::VecDeque;
use std::ops::Range;

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
    primary: Primary,
    secondary: Secondary,
}

/// What the primary has produced and the client has not seen.
#[derive(Default, Debug)]
struct Primary {
    started: bool,
    isn: Option<Seq>,
    /// The highest acknowledgement.
    ack: Option<Seq>,
    held: VecDeque<Held>,
    /// How many of the first held segments the secondary has produced, too.
    verified: usize,
    /// Up to where the next one was compared.
    compared: Option<i64>,
    held_bytes: usize,
}

#[derive(Debug)]
struct Held {
    outgoing: Outgoing,
    segment: Segment,
    /// The place of its payload.
    payload: Range<i64>,
}

impl Held {
    /// All the places that it takes: SYN and FIN have one each.
    fn places(&self) -> Range<i64> {
        let syn = i64::from(self.segment.has(TcpFlags::SYN));
        let fin = i64::from(self.segment.has(TcpFlags::FIN));
        self.payload.start - syn..self.payload.end + fin
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

    pub(super) fn is_closed(&self) -> bool {
        self.left_reset.is_some() || self.fin_left
    }

    pub(super) fn held_bytes(&self) -> (usize, usize) {
        (self.primary.held_bytes, self.secondary.held_bytes)
    }

    pub(super) fn waiting(&self) -> Option<Waiting> {
        let head = self.primary.held.front().map(|held| Waiting { since: held.outgoing.since, is_primary: true });
        longest(head, self.secondary.waiting())
    }

    pub(super) fn push_primary(&mut self, outgoing: Outgoing, segment: Segment) {
        let payload = self.payload_places(&segment);
        let primary = &mut self.primary;
        primary.started = true;
        if segment.has(TcpFlags::SYN) {
            primary.isn = Some(segment.seq);
        }
        primary.ack = Seq::later(primary.ack, segment.ack);
        primary.held_bytes += charge(&outgoing.frame);
        primary.held.push_back(Held { outgoing, segment, payload });
    }

    pub(super) fn push_secondary(
        &mut self,
        witness: Witness,
        segment: Segment,
        out: &mut Outbox,
    ) -> Result<(), Reason> {
        if segment.has(TcpFlags::SYN) {
            if self.knows_syn(Side::Secondary, segment.seq) {
                self.secondary.ack = Seq::later(self.secondary.ack, segment.ack);
                out.consumed.push_back(witness.number);
            } else {
                self.secondary.open(witness, segment, out);
            }
            return Ok(());
        }
        self.secondary.started = true;
        self.secondary.ack = Seq::later(self.secondary.ack, segment.ack);
        if segment.has(TcpFlags::URG) {
            let end = segment.seq + u32::from(segment.urgent);
            self.secondary.urgent = Seq::later(self.secondary.urgent, Some(end));
        }
        if segment.has(TcpFlags::RST) {
            if self.left_reset == Some((segment.seq, segment.ack)) {
                out.consumed.push_back(witness.number);
            } else {
                self.secondary.push_reset(witness, segment);
            }
            return Ok(());
        }
        self.push_stream(&witness, &segment, out)
    }

    /// Compares what can be compared, and releases what may leave.
    pub(super) fn advance(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        let verdict = self.verify(out);
        while out.open && self.primary.verified > 0 && self.head_may_leave()? {
            let Some(held) = self.primary.held.pop_front() else {
                break;
            };
            self.primary.verified -= 1;
            self.primary.held_bytes -= charge(&held.outgoing.frame);
            self.mark_left(&held, out);
            out.release(held.outgoing.frame);
        }
        trim(&mut self.primary.held);
        verdict
    }

    /// The secondary now stands where the primary stands; all that the primary holds will leave before anything later.
    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>) {
        // What the secondary's frames said in the ended epoch is nobody's concern any more.
        let mut ignored = Outbox::default();
        while let Some(held) = self.primary.held.pop_front() {
            self.mark_left(&held, &mut ignored);
            ended.push(held.outgoing);
        }
        let primary = &mut self.primary;
        (primary.verified, primary.compared, primary.held_bytes) = (0, None, 0);
        self.secondary = Secondary::like_primary(primary.started, primary.isn, primary.ack);
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

    fn push_stream(&mut self, witness: &Witness, segment: &Segment, out: &mut Outbox) -> Result<(), Reason> {
        let payload = self.payload_places(segment);
        let fin = segment.has(TcpFlags::FIN);
        let places = payload.start..payload.end + i64::from(fin);
        let acknowledgement = Acknowledgement::of(segment);
        if self.left.covers(&places) {
            self.secondary.acknowledge(witness.number, acknowledgement, self.heard, out);
            return Ok(());
        }
        if !self.space.is_near(places.start) || !self.space.is_near(places.end) {
            return Err(Reason::OutOfWindow);
        }
        if fin && self.secondary.fin.is_some_and(|other| other != payload.end) {
            return Err(Reason::FlagsDiffer);
        }
        self.secondary.push_pending(witness, places, acknowledgement);
        if fin {
            self.secondary.fin = Some(payload.end);
        }
        let bytes = witness.frame.slice(segment.payload_range());
        let inserted = self.secondary.stream.insert(payload.start, &bytes);
        inserted.map_err(|Contradiction { place }| differs_at(&self.space, place))
    }

    /// Counts the held segments that the secondary has produced, too, from the first on.
    fn verify(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        while let Some(held) = self.primary.held.get(self.primary.verified) {
            let places = held.places();
            let agreed = if held.segment.has(TcpFlags::RST) {
                true // Decided when it is the first.
            } else if held.segment.has(TcpFlags::SYN) && self.left.end_of(places.start).is_none() {
                match &self.secondary.syn {
                    Some((witness, syn)) if same_handshake(held, &witness.frame, syn) => true,
                    Some(_) => return Err(Reason::HandshakeDiffers),
                    None => false,
                }
            } else {
                let from = self.primary.compared.unwrap_or(held.payload.start);
                let compared = self.compare_payload(held, from)?;
                out.compared_bytes += (compared - from) as u64;
                self.primary.compared = Some(compared);
                let held = &self.primary.held[self.primary.verified];
                compared == held.payload.end && self.fin_agrees(held)?
            };
            if !agreed {
                break;
            }
            self.primary.verified += 1;
            self.primary.compared = None;
        }
        Ok(())
    }

    /// Compares a segment's payload from a place on, and returns up to where the secondary has produced the same.
    fn compare_payload(&self, held: &Held, from: i64) -> Result<i64, Reason> {
        let payload = held.payload_bytes();
        let mut place = from;
        while place < held.payload.end {
            if let Some(end) = self.left.end_of(place) {
                place = end.min(held.payload.end);
                continue;
            }
            if self.secondary.fin.is_some_and(|fin| fin <= place) {
                return Err(Reason::FlagsDiffer);
            }
            let ours = &payload[(place - held.payload.start) as usize..];
            let theirs = self.secondary.stream.run_at(place);
            let bytes = ours.len().min(theirs.len());
            if bytes == 0 {
                break;
            }
            if let Some(at) = first_difference(&ours[..bytes], &theirs[..bytes]) {
                return Err(differs_at(&self.space, place + at as i64));
            }
            place += bytes as i64;
        }
        Ok(place)
    }

    fn fin_agrees(&self, held: &Held) -> Result<bool, Reason> {
        let place = held.payload.end;
        if !held.segment.has(TcpFlags::FIN) || self.left.end_of(place).is_some() {
            return Ok(true);
        }
        match self.secondary.fin {
            Some(fin) if fin == place => Ok(true),
            None if !self.secondary.stream.reaches(place) => Ok(false),
            _ => Err(Reason::FlagsDiffer),
        }
    }

    /// Whether the first held segment, whose content is verified, says nothing else that the secondary has not said.
    fn head_may_leave(&self) -> Result<bool, Reason> {
        let Some(held) = self.primary.held.front() else {
            return Ok(false);
        };
        let segment = &held.segment;
        let behind = |said: Option<Seq>, seq: Seq| said.is_none_or(|said| seq.is_after(said));
        if segment.ack.is_some_and(|ack| behind(self.secondary.ack, ack)) {
            return Ok(false);
        }
        if segment.has(TcpFlags::RST) {
            return self.reset_may_leave(held);
        }
        let urgent = segment.has(TcpFlags::URG) && !self.left.covers(&held.places());
        Ok(!urgent || !behind(self.secondary.urgent, segment.seq + u32::from(segment.urgent)))
    }

    fn reset_may_leave(&self, held: &Held) -> Result<bool, Reason> {
        if self.left_reset == Some((held.segment.seq, held.segment.ack)) && held.segment.payload_bytes() == 0 {
            return Ok(true);
        }
        let Some((witness, segment)) = self.secondary.resets.front() else {
            return Ok(false);
        };
        if witness.frame[segment.payload_range()] != *held.payload_bytes() {
            return Err(Reason::PayloadDiffers { offset: u64::from(held.segment.seq.0) });
        }
        Ok(true)
    }

    /// The client has seen this segment, or will before anything later.
    fn mark_left(&mut self, held: &Held, out: &mut Outbox) {
        if let Some(acknowledgement) = Acknowledgement::of(&held.segment) {
            let heard = acknowledgement.after(self.heard);
            self.heard = Some(heard);
            self.secondary.acknowledgement_left(heard, out);
        }
        if held.segment.has(TcpFlags::RST) {
            let reset = (held.segment.seq, held.segment.ack);
            if self.left_reset.replace(reset) != Some(reset) {
                self.secondary.reset_left(out);
            }
            return;
        }
        if held.segment.has(TcpFlags::SYN) {
            self.secondary.syn_left(out);
        }
        self.fin_left |= held.segment.has(TcpFlags::FIN);
        let places = held.places();
        if !places.is_empty() {
            self.space.reach(places.end);
            let range = self.left.insert(places);
            self.secondary.bytes_left(&self.left, &range, self.heard, out);
        }
    }
}

fn differs_at(space: &SequenceSpace, place: i64) -> Reason {
    Reason::PayloadDiffers { offset: u64::from(space.seq_at(place).0) }
}

/// Whether two SYNs agree in everything but the sequence number, the clock's value and the window of the moment.
fn same_handshake(held: &Held, frame: &[u8], segment: &Segment) -> bool {
    let options = |frame, segment: &Segment| -> Vec<(u8, Vec<u8>)> {
        let masked = |option: TcpOption<'_>| match option.kind {
            TcpOption::TIMESTAMPS => (option.kind, vec![0; option.data.len()]),
            kind => (kind, option.data.to_vec()),
        };
        segment.options(frame).map(masked).collect()
    };
    held.segment.flags == segment.flags
        && held.segment.ack == segment.ack
        && held.payload_bytes() == &frame[segment.payload_range()]
        && options(&held.outgoing.frame, &held.segment) == options(frame, segment)
}
