//! One TCP connection of both machines: streams of bytes, however they were cut.

use super::assembly::{Assembly, Contradiction, Piece, first_conflict, first_missing};
use super::hint::Hint;
use super::tcp::Sent;
use super::{Difference, Excerpt, Place, byte, describe, handshake};
use crate::net::Seq;
use crate::net::wire::TcpFlags;

/// Streams that are farther apart have different sequence numbers: so much of one flow is not held.
const FAR_BYTES: i64 = 16 << 20;

/// In what the streams differ: where two bytes or two ends do, or else what one of them lacks.
pub(super) fn differences(ours: &[Sent<'_>], theirs: &[Sent<'_>], hint: Hint) -> Vec<Difference> {
    let base = ours.iter().chain(theirs).find(|sent| takes_place(sent)).map_or(Seq(0), |sent| sent.segment.seq);
    let both = Both { base, ours: Stream::of(base, ours), theirs: Stream::of(base, theirs) };
    if let Some(far) = both.far_apart() {
        return vec![far];
    }
    let (conflicts, lacks) = (both.conflicts(hint), both.lacks());
    match (conflicts.is_empty(), lacks.is_empty()) {
        // What is not compared by a rule differs, too.
        (false, false) if hint == Hint::Alone => lacks,
        (false, _) => conflicts,
        (true, _) => lacks,
    }
}

/// Whether a segment's number says where it is in the stream. A RST or a bare acknowledgement may carry any.
fn takes_place(sent: &Sent<'_>) -> bool {
    let has_place = sent.segment.payload_bytes() > 0 || sent.has(TcpFlags::FIN);
    has_place && !sent.has(TcpFlags::RST) && !sent.has(TcpFlags::SYN)
}

/// What one machine has said in a connection.
struct Stream<'s, 'a> {
    bytes: Assembly<'a>,
    /// Where its FIN is, and in which frame.
    fin: Option<(i64, usize)>,
    reset: Option<&'s Sent<'a>>,
    /// The highest, and in which frame.
    ack: Option<(Seq, usize)>,
    /// The latest end of urgent data, and in which frame.
    urgent: Option<(Seq, usize)>,
}

impl<'s, 'a> Stream<'s, 'a> {
    fn of(base: Seq, segments: &'s [Sent<'a>]) -> Self {
        let mut stream = Stream { bytes: Assembly::default(), fin: None, reset: None, ack: None, urgent: None };
        let later = |known: Option<(Seq, usize)>, seq: Seq, index: usize| match known {
            Some((known, at)) if !seq.is_after(known) => Some((known, at)),
            _ => Some((seq, index)),
        };
        for sent in segments {
            let (segment, index) = (&sent.segment, sent.index);
            if let Some(ack) = segment.ack {
                stream.ack = later(stream.ack, ack, index);
            }
            if sent.has(TcpFlags::URG) {
                stream.urgent = later(stream.urgent, segment.seq + u32::from(segment.urgent), index);
            }
            if sent.has(TcpFlags::RST) {
                stream.reset = stream.reset.or(Some(sent));
            }
            if takes_place(sent) {
                let start = i64::from(segment.seq.distance_from(base));
                let range = segment.payload_range();
                let end = start + range.len() as i64;
                stream.bytes.insert(start, Piece { bytes: sent.payload(), frame: index, offset: range.start });
                if sent.has(TcpFlags::FIN) {
                    stream.fin = stream.fin.or(Some((end, index)));
                }
            }
        }
        stream
    }

    /// Behind everything that it has, its FIN not counted.
    fn end(&self) -> Option<i64> {
        self.bytes.end().max(self.fin.map(|(place, _)| place))
    }
}

/// What of one frame, from a place on, the other machine has not sent.
fn missing(ours: &Assembly<'_>, theirs: &Assembly<'_>, place: i64) -> Option<(i64, String)> {
    let bytes = ours.at(place)?.bytes;
    let gap = theirs.next_after(place).and_then(|next| usize::try_from(next - place).ok());
    let bytes = &bytes[..gap.unwrap_or(usize::MAX).min(bytes.len())];
    Some((place, describe::bytes(bytes)))
}

struct Both<'s, 'a> {
    base: Seq,
    ours: Stream<'s, 'a>,
    theirs: Stream<'s, 'a>,
}

impl Both<'_, '_> {
    fn seq(&self, place: i64) -> Seq {
        self.base + place as u32
    }

    /// Sequence numbers that have nothing to do with each other.
    fn far_apart(&self) -> Option<Difference> {
        let (ours, theirs) = (self.ours.bytes.start()?, self.theirs.bytes.start()?);
        let (our_end, their_end) = (self.ours.end()?, self.theirs.end()?);
        let is_far = ours - their_end > FAR_BYTES || theirs - our_end > FAR_BYTES;
        let frame = |bytes: &Assembly<'_>, place| bytes.at(place).map(|piece| piece.frame);
        is_far.then(|| Difference {
            protocol: "TCP",
            field: "sequence number".into(),
            place: Place {
                primary_frame: frame(&self.ours.bytes, ours),
                secondary_frame: frame(&self.theirs.bytes, theirs),
                ..Place::default()
            },
            primary: Some(self.seq(ours).to_string()),
            secondary: Some(self.seq(theirs).to_string()),
            excerpts: None,
        })
    }

    /// Where the two say different things, in the order of the stream; what the hint points at first.
    fn conflicts(&self, hint: Hint) -> Vec<Difference> {
        let hinted = match hint {
            Hint::Place(seq) => Some(i64::from(Seq(seq as u32).distance_from(self.base))),
            Hint::Alone | Hint::Nothing => None,
        };
        let byte_at = |bytes: &Assembly<'_>, place| bytes.at(place).map(|piece| piece.bytes[0]);
        let differs = |place: i64| match (byte_at(&self.ours.bytes, place), byte_at(&self.theirs.bytes, place)) {
            (Some(a), Some(b)) => a != b,
            _ => false,
        };
        let place =
            hinted.filter(|place| differs(*place)).or_else(|| first_conflict(&self.ours.bytes, &self.theirs.bytes));
        let bytes = place.map(|place| self.at("payload", place)).or_else(|| self.contradiction(hinted));
        // Behind an end only one of them has bytes, so what differs in bytes comes before it.
        let mut found: Vec<Difference> = bytes.into_iter().chain(self.ends()).collect();
        if let (Some(ours), Some(theirs)) = (self.ours.reset, self.theirs.reset) {
            found.extend(handshake::payload(ours, theirs));
        }
        found
    }

    /// Where a machine sends something again, and other than before or than the other.
    fn contradiction(&self, hinted: Option<i64>) -> Option<Difference> {
        let ours = self.ours.bytes.contradictions().iter().map(|other| (other, true));
        let theirs = self.theirs.bytes.contradictions().iter().map(|other| (other, false));
        let (other, is_ours) =
            ours.chain(theirs).min_by_key(|(other, _)| (hinted != Some(other.place), other.place))?;
        let &Contradiction { place, frame, offset, byte: value } = other;
        let mut difference = self.at("payload that was sent again", place);
        let (at, from, text) = match is_ours {
            true => {
                (&mut difference.place.primary_frame, &mut difference.place.primary_offset, &mut difference.primary)
            }
            false => {
                let place = &mut difference.place;
                (&mut place.secondary_frame, &mut place.secondary_offset, &mut difference.secondary)
            }
        };
        (*at, *from, *text) = (Some(frame), Some(offset), Some(byte(value)));
        // The bytes around it are those that came first.
        difference.excerpts = None;
        Some(difference)
    }

    /// Where one ends its stream, and the other does not or elsewhere.
    fn ends(&self) -> Option<Difference> {
        let difference = |place: i64, primary: String, secondary: String| {
            let mut difference = self.event("FIN", place, Some(primary), Some(secondary));
            difference.place.primary_frame = self.ours.fin.map(|(_, frame)| frame);
            difference.place.secondary_frame = self.theirs.fin.map(|(_, frame)| frame);
            Some(difference)
        };
        let follows = |end: i64, place: i64| match end - place {
            1 => "not set, 1 byte follows".to_owned(),
            bytes => format!("not set, {bytes} bytes follow"),
        };
        match (self.ours.fin, self.theirs.fin) {
            (Some((ours, _)), Some((theirs, _))) if ours != theirs => {
                let text = |place| format!("at sequence number {}", self.seq(place));
                difference(ours.min(theirs), text(ours), text(theirs))
            }
            (Some((place, _)), None) => {
                let end = self.theirs.end().filter(|end| *end > place)?;
                difference(place, "set".into(), follows(end, place))
            }
            (None, Some((place, _))) => {
                let end = self.ours.end().filter(|end| *end > place)?;
                difference(place, follows(end, place), "set".into())
            }
            _ => None,
        }
    }

    /// What one has said and the other has not, so far.
    fn lacks(&self) -> Vec<Difference> {
        let mut found: Vec<(i64, Difference)> = Vec::new();
        let (ours, theirs) = (&self.ours.bytes, &self.theirs.bytes);
        // What comes before the first byte of the other may have left before; it is given only if nothing else is.
        let from = |other: &Assembly<'_>| other.start().unwrap_or(i64::MIN);
        let place = first_missing(ours, theirs, from(theirs));
        if let Some((place, bytes)) = place.and_then(|place| missing(ours, theirs, place)) {
            found.push((place, Difference { primary: Some(bytes), secondary: None, ..self.at("payload", place) }));
        }
        let place = first_missing(theirs, ours, from(ours));
        if let Some((place, bytes)) = place.and_then(|place| missing(theirs, ours, place)) {
            found.push((place, Difference { primary: None, secondary: Some(bytes), ..self.at("payload", place) }));
        }
        let text = |fin: Option<(i64, usize)>| Some(if fin.is_some() { "set" } else { "not set" }.to_owned());
        if let (Some((place, _)), None) | (None, Some((place, _))) = (self.ours.fin, self.theirs.fin) {
            let mut difference = self.event("FIN", place, text(self.ours.fin), text(self.theirs.fin));
            difference.place.primary_frame = self.ours.fin.map(|(_, frame)| frame);
            difference.place.secondary_frame = self.theirs.fin.map(|(_, frame)| frame);
            found.push((place, difference));
        }
        found.sort_by_key(|(place, _)| *place);
        let mut found: Vec<Difference> = found.into_iter().map(|(_, difference)| difference).collect();
        // A RST ends everything, wherever it is.
        match (self.ours.reset, self.theirs.reset) {
            (Some(sent), None) => found.insert(0, Difference::frame(Some((sent.index, sent.frame)), None)),
            (None, Some(sent)) => found.insert(0, Difference::frame(None, Some((sent.index, sent.frame)))),
            _ => {}
        }
        found.extend(self.behind("urgent data up to sequence number", self.ours.urgent, self.theirs.urgent));
        found.extend(self.behind("acknowledgement number", self.ours.ack, self.theirs.ack));
        let place = first_missing(ours, theirs, i64::MIN).filter(|_| found.is_empty());
        if let Some((place, bytes)) = place.and_then(|place| missing(ours, theirs, place)) {
            found.push(Difference { primary: Some(bytes), secondary: None, ..self.at("payload", place) });
        }
        found
    }

    /// In what the secondary has not got as far as the primary.
    fn behind(&self, field: &str, ours: Option<(Seq, usize)>, theirs: Option<(Seq, usize)>) -> Option<Difference> {
        let (our_seq, our_frame) = ours?;
        if theirs.is_some_and(|(seq, _)| !our_seq.is_after(seq)) {
            return None;
        }
        Some(Difference {
            protocol: "TCP",
            field: field.into(),
            place: Place {
                primary_frame: Some(our_frame),
                secondary_frame: theirs.map(|(_, frame)| frame),
                ..Place::default()
            },
            primary: Some(our_seq.to_string()),
            secondary: theirs.map(|(seq, _)| format!("at most {seq}")),
            excerpts: None,
        })
    }

    /// The bytes of both in that place.
    fn at(&self, field: &str, place: i64) -> Difference {
        let (ours, theirs) = (self.ours.bytes.at(place), self.theirs.bytes.at(place));
        let text = |piece: Option<Piece<'_>>| piece.map(|piece| byte(piece.bytes[0]));
        let mut difference = self.event(field, place, text(ours), text(theirs));
        difference.place.primary_frame = ours.map(|piece| piece.frame);
        difference.place.secondary_frame = theirs.map(|piece| piece.frame);
        difference.place.primary_offset = ours.map(|piece| piece.offset);
        difference.place.secondary_offset = theirs.map(|piece| piece.offset);
        let start = self.ours.bytes.start().into_iter().chain(self.theirs.bytes.start()).min();
        difference.place.payload_offset = start.and_then(|start| u64::try_from(place - start).ok());
        let excerpt = |bytes: &Assembly<'_>| {
            let (bytes, at) = bytes.around(place, Excerpt::BEFORE, Excerpt::AFTER);
            Excerpt { bytes, at }
        };
        difference.excerpts = Some([excerpt(&self.ours.bytes), excerpt(&self.theirs.bytes)]);
        difference
    }

    fn event(&self, field: &str, place: i64, primary: Option<String>, secondary: Option<String>) -> Difference {
        Difference {
            protocol: "TCP",
            field: field.into(),
            place: Place { sequence_number: Some(self.seq(place)), ..Place::default() },
            primary,
            secondary,
            excerpts: None,
        }
    }
}
