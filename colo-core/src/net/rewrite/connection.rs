//! What is known of one connection.

use super::super::wire::{Segment, TcpFlags, TcpOption};
use super::super::{Frame, Seq};
use super::{HALF_OPEN_IDLE_LIMIT, IDLE_LIMIT};
use std::time::Instant;

#[derive(Default, Debug)]
pub(super) struct Connection {
    /// The number of the guest's SYN.
    pub(super) guest_isn: Option<Seq>,
    /// What is to be added to the primary's numbers to have the secondary's.
    pub(super) difference: Option<u32>,
    /// The latest value of the guest's own clock that it has said.
    pub(super) guest_clock: Option<u32>,
    /// What is to be added to the primary's clock to have the secondary's.
    clock_difference: Option<u32>,
    pub(super) kept: Vec<Frame>,
    /// What the client ends with, and the guest, in the guest's numbers: what follows their FINs.
    pub(super) fin_in: Option<Seq>,
    pub(super) fin_out: Option<Seq>,
    /// Those that the other side has acknowledged.
    fin_in_acked: bool,
    fin_out_acked: bool,
    /// By the last RST, behind which the guest has said nothing else.
    was_reset: bool,
    /// Since it was last looked at.
    was_used: bool,
    /// When it was last found to have been used.
    used_at: Option<Instant>,
}

/// By how much a connection's numbers are to be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Moved {
    pub(super) seq: u32,
    pub(super) clock: u32,
}

/// The guest has not sent its SYN yet.
#[derive(Debug)]
pub(super) struct NotYet;

impl Connection {
    /// The guest has sent a SYN with this number.
    pub(super) fn open(&mut self, isn: Seq, is_live: bool) {
        if self.guest_isn != Some(isn) {
            let kept = std::mem::take(&mut self.kept);
            *self =
                Connection { guest_isn: Some(isn), difference: is_live.then_some(0), kept, ..Connection::default() };
        }
    }

    /// The client has sent a segment.
    pub(super) fn note_input(&mut self, segment: &Segment) {
        self.was_used = true;
        self.was_reset |= segment.has(TcpFlags::RST);
        if segment.has(TcpFlags::FIN) {
            self.fin_in = Some(segment.seq + segment.payload_bytes() + 1);
        }
    }

    /// What it acknowledges is known in the guest's numbers.
    pub(super) fn note_input_ack(&mut self, segment: &Segment, moved: Moved) {
        if let (Some(fin), Some(ack)) = (self.fin_out, segment.ack) {
            self.fin_out_acked |= !fin.is_after(ack + moved.seq);
        }
    }

    /// The guest has sent a segment.
    pub(super) fn note_output(&mut self, segment: &Segment) {
        self.was_used = true;
        // Anybody can say a RST, and only the guest can tell whether it was one that it must believe (RFC 5961 §3.2): whoever goes on has
        // not. If what it says now was said before it heard of a true one, the client answers that with another.
        self.was_reset = segment.has(TcpFlags::RST);
        if segment.has(TcpFlags::FIN) {
            self.fin_out = Some(segment.seq + segment.payload_bytes() + 1);
        }
        if let (Some(fin), Some(ack)) = (self.fin_in, segment.ack) {
            self.fin_in_acked |= !fin.is_after(ack);
        }
    }

    /// Whether it is not over, and its numbers differ or may yet be found to.
    pub(super) fn needs_rewriting(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.was_used) || self.used_at.is_none() {
            self.used_at = Some(now);
        }
        let is_over = self.was_reset || self.fin_in_acked && self.fin_out_acked;
        let is_half_open = self.difference.is_none();
        let limit = if is_half_open { HALF_OPEN_IDLE_LIMIT } else { IDLE_LIMIT };
        let is_idle = self.used_at.is_some_and(|used_at| now.saturating_duration_since(used_at) >= limit);
        !is_over && !is_idle && (is_half_open || self.moved() != Moved::default())
    }

    /// Whether the guest says by this that it has had the connection since a checkpoint: it is beyond the handshake, and what took
    /// it there did not come this way. Its numbers are then the primary's. Until now only a repeated part of the handshake was seen,
    /// and the client's next acknowledgement may be of anything.
    pub(super) fn is_older(&self, segment: &Segment) -> bool {
        let is_beyond = self.guest_isn.is_none() || segment.has(TcpFlags::FIN) || !segment.payload_range().is_empty();
        self.difference.is_none() && is_beyond && !segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::RST)
    }

    pub(super) fn moved(&self) -> Moved {
        Moved { seq: self.difference.unwrap_or(0), clock: self.clock_difference.unwrap_or(0) }
    }

    /// Learns the differences from the first acknowledgement of the guest's SYN, and that of the clocks better from later ones.
    pub(super) fn learn(&mut self, segment: &Segment, frame: &[u8]) -> Result<(), NotYet> {
        let Some(ack) = segment.ack else {
            return Ok(());
        };
        let is_first = self.difference.is_none();
        if let (Some(said), Some(Timestamps { echo, .. })) = (self.guest_clock, timestamps(segment, frame)) {
            let is_ahead = |moved: u32| Seq(echo.wrapping_add(moved)).is_after(Seq(said));
            if is_first && self.guest_isn.is_some() || self.clock_difference.is_some_and(is_ahead) {
                self.clock_difference = Some(said.wrapping_sub(echo));
            }
        }
        if !is_first {
            return Ok(());
        }
        let primary_isn = ack - 1;
        let guest_isn = self.guest_isn.ok_or(NotYet)?;
        self.difference = Some(guest_isn.0.wrapping_sub(primary_isn.0));
        Ok(())
    }
}

/// The option that carries the clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamps {
    /// Where its first value stands in the TCP header.
    pub(super) at: usize,
    /// The sender's clock.
    pub(super) value: u32,
    /// The last that the sender has heard.
    pub(super) echo: u32,
}

pub(super) fn timestamps(segment: &Segment, frame: &[u8]) -> Option<Timestamps> {
    let option = segment.options(frame).find(|option| option.kind == TcpOption::TIMESTAMPS)?;
    let &[v0, v1, v2, v3, e0, e1, e2, e3] = option.data else {
        return None;
    };
    let (value, echo) = (u32::from_be_bytes([v0, v1, v2, v3]), u32::from_be_bytes([e0, e1, e2, e3]));
    Some(Timestamps { at: option.data_at, value, echo })
}
