//! What both machines have produced: the primary's held segments against the secondary's stream.

use super::{Connection, Held, ScanAt, SequenceSpace};
use crate::compare::flow::Outbox;
use crate::compare::rules::Scan;
use crate::compare::tcp::stream::first_difference;
use crate::compare::verdict::Reason;
use crate::net::wire::{Segment, TcpFlags, TcpOption};

impl Connection {
    /// Whether the first held segment is one of new bytes, and the secondary has produced none: there is nothing to be decided.
    pub(super) fn waits_for_all(&self) -> bool {
        let is_new = |held: &Held| {
            held.segment.is_plain() && held.segment.payload_bytes() > 0 && self.left.ends_before(held.start)
        };
        self.primary.verified == 0
            && self.narrow.is_none()
            && self.secondary.has_nothing_pending()
            && self.primary.held.front().is_some_and(is_new)
    }

    /// Counts the held segments that the secondary has produced, too, from the first on.
    pub(super) fn verify(&mut self, out: &mut Outbox) -> Result<(), Reason> {
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
    pub(super) fn compare_payload(
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
    pub(super) fn scan_at<'a>(&self, place: i64, scan: &'a mut Option<Box<ScanAt>>) -> &'a mut Scan {
        let anew = || {
            let in_payload = self.first.map(|first| place.saturating_sub(first)).and_then(|at| u64::try_from(at).ok());
            Box::new(ScanAt { place, scan: Scan::at(in_payload) })
        };
        if scan.as_ref().is_some_and(|scan| scan.place != place) {
            *scan = None;
        }
        &mut scan.get_or_insert_with(anew).scan
    }

    pub(super) fn fin_agrees(&self, held: &Held) -> Result<bool, Reason> {
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
}

pub(super) fn differs_at(space: &SequenceSpace, place: i64) -> Reason {
    Reason::PayloadDiffers { offset: u64::from(space.seq_at(place).0) }
}

/// Whether two SYNs agree in everything but the sequence number, the clock's value and the window of the moment.
pub(super) fn same_handshake(held: &Held, frame: &[u8], segment: &Segment) -> bool {
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
