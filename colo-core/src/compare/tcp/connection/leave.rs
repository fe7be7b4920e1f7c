//! How a segment leaves, and what the client then knows.

use super::parts::rest;
use super::{Connection, Held};
use crate::compare::flow::{Outbox, Outgoing};
use crate::compare::tcp::window::{Acknowledgement, Narrow};
use crate::compare::verdict::Reason;
use crate::net::Seq;
use crate::net::wire::{Segment, TCP_WINDOW_AT, TcpEdit, TcpFlags};
use std::ops::Range;

impl Connection {
    /// Whether the first held segment, whose content is verified, says nothing else that the secondary has not said.
    pub(super) fn head_may_leave(&self) -> Result<bool, Reason> {
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

    pub(super) fn reset_may_leave(&self, held: &Held) -> Result<bool, Reason> {
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

    /// Lets a segment go, with no more of a window than both have open.
    pub(super) fn release(&mut self, mut held: Held, out: &mut Outbox) {
        if held.left_bytes > 0 {
            held = rest(held);
        }
        let window = self.window_for(&held);
        let left = self.mark_left(&held, window);
        let Held { mut outgoing, segment, .. } = held;
        if let Some(heard) = self.heard.filter(|_| segment.ack.is_some()) {
            let since = out.now.unwrap_or(outgoing.since);
            let is_narrow = !segment.has(TcpFlags::RST) && Narrow::is_so(segment.window, window);
            if is_narrow || self.narrow.is_some() {
                self.narrow =
                    is_narrow.then(|| Box::new(Narrow { outgoing: outgoing.clone(), segment, window, since }));
            }
            self.secondary.acknowledgement_left(heard, out);
        }
        if left.is_new_reset {
            self.secondary.reset_left(out);
        }
        if let Some(reset) = self.left_reset.filter(|_| segment.has(TcpFlags::RST)) {
            self.secondary.repeats_left(reset, out);
        }
        if segment.has(TcpFlags::SYN) {
            self.secondary.syn_left(out);
        }
        self.secondary.bytes_left(&self.left, &left.stretch, self.heard, out);
        set_window(&mut outgoing, &segment, window, out);
        out.release(outgoing);
    }

    pub(super) fn window_for(&self, held: &Held) -> u16 {
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
    pub(super) fn reopen(&mut self, out: &mut Outbox) {
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

    /// The client has seen this segment, or will before anything later.
    pub(super) fn mark_left(&mut self, held: &Held, window: u16) -> Left {
        let mut left = Left::default();
        if let Some(acknowledgement) = Acknowledgement::of(&held.segment) {
            self.heard = Some(Acknowledgement { window, ..acknowledgement }.after(self.heard));
        }
        if held.segment.has(TcpFlags::RST) {
            // Whoever is reset waits for no window.
            self.narrow = None;
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

/// What a segment that has left was.
#[derive(Default)]
pub(super) struct Left {
    is_new_reset: bool,
    /// The stretch of the stream that it has become a part of; empty if it takes no place.
    stretch: Range<i64>,
}

/// Gives the frame this window.
pub(super) fn set_window(outgoing: &mut Outgoing, segment: &Segment, window: u16, out: &mut Outbox) {
    if window != segment.window {
        out.clamped_windows += 1;
        let edit = TcpEdit::new(&outgoing.frame, segment);
        let frame = std::mem::take(&mut outgoing.frame);
        outgoing.frame = frame.edit(|bytes| edit.put(bytes, TCP_WINDOW_AT, &window.to_be_bytes()));
    }
}
