//! Acknowledgements, and the window that goes with them: none is said that only one of the machines has open.

use crate::compare::flow::Outgoing;
use crate::net::Seq;
use crate::net::wire::{Segment, TcpFlags, TcpOption};
use std::time::Instant;

/// The largest shift (RFC 7323 §2.3).
const MAX_SHIFT: u8 = 14;

/// What a segment says to the other side's sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Acknowledgement {
    pub(super) number: Seq,
    /// As it stands in the header of every segment but a SYN.
    pub(super) window: u16,
}

impl Acknowledgement {
    pub(super) fn of(segment: &Segment) -> Option<Self> {
        segment.ack.map(|number| Acknowledgement { number, window: segment.window })
    }

    /// The latest of a machine's after this segment. `shift` is that of a SYN, whose window is not shifted.
    pub(super) fn latest(segment: &Segment, shift: Option<u8>, earlier: Option<Self>) -> Option<Self> {
        match Acknowledgement::of(segment) {
            Some(own) => Some(Acknowledgement { window: own.window >> shift.unwrap_or(0), ..own }.after(earlier)),
            None => earlier,
        }
    }

    /// Whether whoever heard `self` learns nothing from `other`.
    pub(super) fn covers(&self, other: &Acknowledgement) -> bool {
        self.number.is_after(other.number) || self.number == other.number && self.window >= other.window
    }

    /// Who heard both, in this order, knows this.
    pub(super) fn after(self, earlier: Option<Acknowledgement>) -> Acknowledgement {
        match earlier {
            Some(earlier) if earlier.number.is_after(self.number) => earlier,
            _ => self,
        }
    }

    /// The window to be said with this, so that its edge is not beyond the edge that the other machine has said. Without a shift that is
    /// known the smaller of the two numbers: what the other acknowledged beyond is not counted then.
    pub(super) fn window_within(&self, other: Acknowledgement, shift: Option<u8>) -> u16 {
        let ahead = match shift {
            Some(shift) => other.number.distance_from(self.number).max(0) >> shift,
            None => 0,
        };
        let edge = u16::try_from(ahead).unwrap_or(u16::MAX).saturating_add(other.window);
        self.window.min(edge)
    }
}

/// How far the windows of this machine are shifted, as its SYN-ACK tells: it has the option only when the SYN had it. A SYN does not
/// tell, as the other side may refuse.
pub(super) fn shift_of(segment: &Segment, frame: &[u8]) -> Option<u8> {
    if !segment.has(TcpFlags::SYN) || segment.ack.is_none() {
        return None;
    }
    let mut options = segment.options(frame);
    let option = options.find(|option| option.kind == TcpOption::WINDOW_SCALE);
    Some(option.and_then(|option| option.data.first().copied()).unwrap_or(0).min(MAX_SHIFT))
}

/// A segment that left with its window closed, or less than half as wide as the primary's, because the secondary's was. The client may wait
/// for nothing but to hear that it is open again, and the primary does not know that it ever was not: so the segment leaves once more when
/// the secondary's opens.
#[derive(Debug)]
pub(super) struct Narrow {
    /// As the primary made it.
    pub(super) outgoing: Outgoing,
    pub(super) segment: Segment,
    /// The window that it left with.
    pub(super) window: u16,
    pub(super) since: Instant,
}

impl Narrow {
    /// Whether `window` instead of `ours` is narrow.
    pub(super) fn is_so(ours: u16, window: u16) -> bool {
        window < ours.div_ceil(2)
    }

    /// Whether a window that is so wide now is worth saying: not each byte by which it grows (RFC 9293 §3.8.6.2.2).
    pub(super) fn has_opened(&self, window: u16) -> bool {
        window > self.window && (window == self.segment.window || window / 2 >= self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_not_beyond_the_others() {
        let said = |number, window| Acknowledgement { number: Seq(number), window };
        let within = |ours, theirs, shift| Acknowledgement::window_within(&ours, theirs, shift);
        assert_eq!(within(said(100, 50), said(100, 60), Some(0)), 50);
        assert_eq!(within(said(100, 50), said(100, 40), Some(0)), 40);
        assert_eq!(within(said(100, 50), said(120, 20), Some(0)), 40, "both end at 140");
        assert_eq!(within(said(100, 50), said(120, 20), None), 20);
        assert_eq!(
            within(said(u32::MAX, 50), said(16, 2), Some(3)),
            4,
            "17 bytes are two units of 8, and one that is not whole"
        );
        assert_eq!(within(said(0, u16::MAX), said(1 << 20, u16::MAX), Some(0)), u16::MAX);
    }
}
