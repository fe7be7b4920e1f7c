//! What leaves before it is whole, or before its turn: without that each machine might wait for the other.

use super::{Connection, Held};
use crate::compare::flow::{Outbox, Outgoing};
use crate::compare::tcp::part::part_of;
use crate::net::Seq;
use crate::net::wire::TcpFlags;
use std::ops::Range;

impl Connection {
    /// Lets the primary's last segment go before those that wait, if the client may have seen all that it says: it is said again because
    /// the client has lost it. What waits may wait for nothing else: the secondary may say no more before the client has acknowledged that.
    /// Of a segment that has more in it the beginning goes.
    pub(in crate::compare::tcp) fn overtake(&mut self, out: &mut Outbox) {
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
    pub(in crate::compare::tcp) fn has_part(&self) -> bool {
        self.part().is_some()
    }

    /// Lets that part go by itself.
    pub(in crate::compare::tcp) fn release_part(&mut self, out: &mut Outbox) {
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
    pub(super) fn part(&self) -> Option<Range<usize>> {
        let compared = self.primary.compared?;
        let held = self.primary.held.front().filter(|held| self.primary.verified == 0 && self.can_be_cut(held))?;
        let end = (compared - held.start) as usize;
        (end > held.left_bytes).then_some(held.left_bytes..end)
    }

    /// Whether a part of it may leave before the rest: a segment of bytes, perhaps with the end of the stream, that acknowledges no more
    /// than the secondary has.
    pub(super) fn can_be_cut(&self, held: &Held) -> bool {
        let segment = &held.segment;
        let other = [TcpFlags::SYN, TcpFlags::RST, TcpFlags::URG].into_iter().any(|flag| segment.has(flag));
        let acknowledged = self.secondary.said.map(|said| said.number);
        let is_beyond = |ack: Seq| acknowledged.is_none_or(|said| ack.is_after(said));
        !other && held.outgoing.fragments.is_none() && !segment.ack.is_some_and(is_beyond)
    }
}

/// What has not left of it.
pub(super) fn rest(held: Held) -> Held {
    if held.left_bytes == 0 {
        return held;
    }
    cut(&held, held.left_bytes..held.payload_bytes().len(), true).unwrap_or(held)
}

/// The same with only these bytes of its payload.
pub(super) fn cut(held: &Held, part: Range<usize>, is_last: bool) -> Option<Held> {
    let start = held.start + part.start as i64;
    let (frame, segment) = part_of(&held.outgoing.frame, &held.segment, part, is_last)?;
    let outgoing = Outgoing { frame, fragments: None, ..held.outgoing };
    Some(Held { outgoing, segment, start, left_bytes: 0 })
}
