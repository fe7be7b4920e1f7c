use super::TcpSpares;
use super::part::part_of;
use super::ranges::{Ranges, SequenceSpace};
use super::secondary::Secondary;
use super::stream::{Contradiction, first_difference};
use super::window::{Acknowledgement, Narrow, shift_of};
use crate::compare::flow::{Outbox, Outgoing, Waiting, What, Witness, longest};
use crate::compare::rules::Scan;
use crate::compare::verdict::Reason;
use crate::net::wire::{Segment, TCP_WINDOW_AT, TcpEdit, TcpFlags, TcpOption};
use crate::net::{Frame, Seq};
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

    /// Lets the primary's last segment go before those that wait, if the client may have seen all that it says: it is said again because
    /// the client has lost it. What waits may wait for nothing else: the secondary may say no more before the client has acknowledged that.
    /// Of a segment that has more in it the beginning goes.
    pub(super) fn overtake(&mut self, out: &mut Outbox) {
        let Some(held) = self.primary.held.back() else { return };
        // Most segments are new.
        let is_new = self.left.ends_before(held.start) && held.segment.payload_bytes() > 0;
        if is_new || !out.open || !self.can_be_cut(held) {
            return;
        }
        let places = held.places();
        if !places.is_empty() && self.left.covers(&places) {
            let Some(held) = self.primary.held.pop_back() else { return };
            let primary = &mut self.primary;
            primary.held_bytes -= held.outgoing.charge();
            if primary.verified >= primary.held.len() {
                (primary.verified, primary.compared) = (primary.held.len(), None);
            }
            self.release(held, out);
        } else if let Some(end) = self.left.end_of(held.start).filter(|_| !held.payload().is_empty()) {
            let bytes = (end - held.start) as usize;
            if let Some(part) = cut(held, 0..bytes, false) {
                self.primary.held.back_mut().into_iter().for_each(|held| held.left_bytes = bytes);
                out.cut_frames += 1;
                self.release(part, out);
            }
        }
    }

    /// Whether the beginning of the first held segment was produced by the secondary, too, and says nothing that the secondary has not
    /// said.
    pub(super) fn has_part(&self) -> bool {
        self.part().is_some()
    }

    /// Lets that part go by itself.
    pub(super) fn release_part(&mut self, out: &mut Outbox) {
        let (Some(part), Some(held)) = (self.part().filter(|_| out.open), self.primary.held.front_mut()) else {
            return;
        };
        held.left_bytes = part.end;
        if let Some(part) = cut(held, part, false) {
            out.cut_frames += 1;
            self.release(part, out);
        }
    }

    /// Which bytes of the first held segment's payload are such a part.
    fn part(&self) -> Option<Range<usize>> {
        let compared = self.primary.compared?;
        let held = self.primary.held.front().filter(|held| self.primary.verified == 0 && self.can_be_cut(held))?;
        let end = (compared - held.start) as usize;
        (end > held.left_bytes).then_some(held.left_bytes..end)
    }

    /// Whether a part of it may leave before the rest: a segment of bytes, perhaps with the end of the stream, that acknowledges no more
    /// than the secondary has.
    fn can_be_cut(&self, held: &Held) -> bool {
        let segment = &held.segment;
        let other = [TcpFlags::SYN, TcpFlags::RST, TcpFlags::URG].into_iter().any(|flag| segment.has(flag));
        let acknowledged = self.secondary.said.map(|said| said.number);
        let is_beyond = |ack: Seq| acknowledged.is_none_or(|said| ack.is_after(said));
        !other && held.outgoing.fragments.is_none() && !segment.ack.is_some_and(is_beyond)
    }

    /// The secondary now stands where the primary stands; all that the primary holds will leave before anything later.
    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>, spares: &mut TcpSpares) {
        while let Some(held) = self.primary.held.pop_front() {
            self.mark_left(&held, held.segment.window);
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
            && self.left.ends_before(held.start)
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

    /// Lets a segment go, with no more of a window than both have open.
    fn release(&mut self, mut held: Held, out: &mut Outbox) {
        if held.left_bytes > 0 {
            held = rest(held);
        }
        let window = self.window_for(&held);
        let left = self.mark_left(&held, window);
        let Held { mut outgoing, segment, .. } = held;
        if let Some(heard) = self.heard.filter(|_| segment.ack.is_some()) {
            let since = out.now.unwrap_or(outgoing.since);
            let is_narrow = Narrow::is_so(segment.window, window);
            if is_narrow || self.narrow.is_some() {
                self.narrow =
                    is_narrow.then(|| Box::new(Narrow { outgoing: outgoing.clone(), segment, window, since }));
            }
            self.secondary.acknowledgement_left(heard, out);
        }
        if left.is_new_reset {
            self.secondary.reset_left(out);
        }
        if segment.has(TcpFlags::SYN) {
            self.secondary.syn_left(out);
        }
        self.secondary.bytes_left(&self.left, &left.stretch, self.heard, out);
        set_window(&mut outgoing, &segment, window, out);
        out.release(outgoing);
    }

    fn window_for(&self, held: &Held) -> u16 {
        let segment = &held.segment;
        // A header in fragments is left as it is.
        let said = self.secondary.said.filter(|_| held.outgoing.fragments.is_none());
        let (Some(ours), Some(theirs)) = (Acknowledgement::of(segment), said) else {
            return segment.window;
        };
        match (&self.secondary.syn, segment.has(TcpFlags::SYN)) {
            // What a SYN says is not shifted.
            (Some(syn), true) => segment.window.min(syn.1.window),
            (None, true) => segment.window,
            (_, false) => ours.window_within(theirs, self.shift),
        }
    }

    /// Says again what was said with a narrow window, once it is open.
    fn reopen(&mut self, out: &mut Outbox) {
        let Some(narrow) = &self.narrow else { return };
        let (Some(ours), Some(theirs)) = (Acknowledgement::of(&narrow.segment), self.secondary.said) else {
            return;
        };
        let window = ours.window_within(theirs, self.shift);
        if !out.open || !narrow.has_opened(window) {
            return;
        }
        let (mut outgoing, segment) = (narrow.outgoing.clone(), narrow.segment);
        let since = out.now.unwrap_or(narrow.since);
        self.narrow.take_if(|_| !Narrow::is_so(segment.window, window));
        if let Some(narrow) = &mut self.narrow {
            (narrow.window, narrow.since) = (window, since);
        }
        let heard = Acknowledgement { window, ..ours }.after(self.heard);
        self.heard = Some(heard);
        self.secondary.acknowledgement_left(heard, out);
        out.reopened_windows += 1;
        set_window(&mut outgoing, &segment, window, out);
        out.release(outgoing);
    }

    /// Whether the first held segment is one of new bytes, and the secondary has produced none: there is nothing to be decided.
    fn waits_for_all(&self) -> bool {
        let is_new = |held: &Held| {
            held.segment.is_plain() && held.segment.payload_bytes() > 0 && self.left.ends_before(held.start)
        };
        self.primary.verified == 0
            && self.narrow.is_none()
            && self.secondary.has_nothing_pending()
            && self.primary.held.front().is_some_and(is_new)
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

    /// Counts the held segments that the secondary has produced, too, from the first on.
    fn verify(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        while let Some(held) = self.primary.held.get(self.primary.verified) {
            let places = held.places();
            let agreed = if held.segment.has(TcpFlags::RST) {
                true // Decided when it is the first.
            } else if held.segment.has(TcpFlags::SYN) && self.left.end_of(places.start).is_none() {
                match &self.secondary.syn {
                    Some(syn) if same_handshake(held, &syn.0.frame, &syn.1) => true,
                    Some(_) => return Err(Reason::HandshakeDiffers),
                    None => false,
                }
            } else {
                let from = self.primary.compared.unwrap_or(held.start);
                let mut scan = self.scan.take();
                let compared = self.compare_payload(held, from, &mut scan, out);
                self.scan = scan;
                let compared = compared?;
                out.compared_bytes += (compared - from) as u64;
                self.primary.compared = Some(compared);
                let held = &self.primary.held[self.primary.verified];
                compared == held.payload().end && self.fin_agrees(held)?
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
    fn compare_payload(
        &self,
        held: &Held,
        from: i64,
        scan: &mut Option<Box<ScanAt>>,
        out: &Outbox,
    ) -> Result<i64, Reason> {
        let payload = held.payload_bytes();
        let places = held.payload();
        let mut place = from;
        while place < places.end {
            if let Some(end) = self.left.end_of(place) {
                place = end.min(places.end);
                continue;
            }
            if self.secondary.fin.is_some_and(|fin| fin <= place) {
                return Err(Reason::FlagsDiffer);
            }
            let ours = &payload[(place - places.start) as usize..];
            let theirs = self.secondary.stream.run_at(place);
            let bytes = ours.len().min(theirs.len());
            if bytes == 0 {
                break;
            }
            let (ours, theirs) = (&ours[..bytes], &theirs[..bytes]);
            let difference = match out.masks() {
                _ if out.ignores_bytes() => None,
                Some(masks) => self.scan_at(place, scan).first_difference(masks, ours, theirs),
                None => first_difference(ours, theirs),
            };
            if let Some(at) = difference {
                return Err(differs_at(&self.space, place + at as i64));
            }
            place += bytes as i64;
            if let Some(scan) = scan {
                scan.place = place;
            }
        }
        Ok(place)
    }

    /// The scan for what is masked, at this place: where it was when the stream was gone through so far, else anew.
    fn scan_at<'a>(&self, place: i64, scan: &'a mut Option<Box<ScanAt>>) -> &'a mut Scan {
        let anew = || {
            let in_payload = self.first.map(|first| place.saturating_sub(first)).and_then(|at| u64::try_from(at).ok());
            Box::new(ScanAt { place, scan: Scan::at(in_payload) })
        };
        if scan.as_ref().is_some_and(|scan| scan.place != place) {
            *scan = None;
        }
        &mut scan.get_or_insert_with(anew).scan
    }

    fn fin_agrees(&self, held: &Held) -> Result<bool, Reason> {
        let place = held.payload().end;
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
        let acknowledged = self.secondary.said.map(|said| said.number);
        if segment.ack.is_some_and(|ack| behind(acknowledged, ack)) {
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
    fn mark_left(&mut self, held: &Held, window: u16) -> Left {
        let mut left = Left::default();
        if let Some(acknowledgement) = Acknowledgement::of(&held.segment) {
            self.heard = Some(Acknowledgement { window, ..acknowledgement }.after(self.heard));
        }
        if held.segment.has(TcpFlags::RST) {
            let reset = (held.segment.seq, held.segment.ack);
            left.is_new_reset = self.left_reset.replace(reset) != Some(reset);
            return left;
        }
        self.fin_left |= held.segment.has(TcpFlags::FIN);
        let places = held.places();
        if !places.is_empty() {
            self.space.reach(places.end);
            left.stretch = self.left.insert(places);
        }
        left
    }
}

/// What has not left of it.
fn rest(held: Held) -> Held {
    if held.left_bytes == 0 {
        return held;
    }
    cut(&held, held.left_bytes..held.payload_bytes().len(), true).unwrap_or(held)
}

/// The same with only these bytes of its payload.
fn cut(held: &Held, part: Range<usize>, is_last: bool) -> Option<Held> {
    let start = held.start + part.start as i64;
    let (frame, segment) = part_of(&held.outgoing.frame, &held.segment, part, is_last)?;
    let outgoing = Outgoing { frame, fragments: None, ..held.outgoing };
    Some(Held { outgoing, segment, start, left_bytes: 0 })
}

/// What a segment that has left was.
#[derive(Default)]
struct Left {
    is_new_reset: bool,
    /// The stretch of the stream that it has become a part of; empty if it takes no place.
    stretch: Range<i64>,
}

/// Gives the frame this window.
fn set_window(outgoing: &mut Outgoing, segment: &Segment, window: u16, out: &mut Outbox) {
    if window != segment.window {
        out.clamped_windows += 1;
        let edit = TcpEdit::new(&outgoing.frame, segment);
        let frame = std::mem::take(&mut outgoing.frame);
        outgoing.frame = frame.edit(|bytes| edit.put(bytes, TCP_WINDOW_AT, &window.to_be_bytes()));
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
