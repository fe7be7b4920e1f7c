//! Where frames come in.

use super::door::{Door, ended};
use crate::net::Frame;
use crate::net::qemu::{BufferPool, FrameDecoder};
use std::time::{Duration, Instant};

/// A machine's frames.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) door: Door,
    decoder: FrameDecoder,
    pool: BufferPool,
    has_vnet_header: bool,
    /// What the connection carried up to here belongs to an ended epoch.
    stale_bytes: u64,
    /// How long it may be held back, and since when it is.
    hold_back: Duration,
    full_since: Option<Instant>,
    /// Connections that were closed for what they carried.
    pub(super) bad_framings: u64,
}

/// Whether there is room for a machine's frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// There is.
    Enough,
    /// There is none: the machine is held back.
    None,
    /// There is none, and the machine has been held back long enough.
    Overdue,
}

impl Inlet {
    pub(super) fn new(door: Door, has_vnet_header: bool, pool: &BufferPool, hold_back: Duration) -> Self {
        Inlet {
            door,
            decoder: FrameDecoder::new(has_vnet_header, pool),
            pool: pool.clone(),
            has_vnet_header,
            stale_bytes: 0,
            hold_back,
            full_since: None,
            bad_framings: 0,
        }
    }

    /// All that has come so far, read or not, belongs to the epoch that ends now.
    pub(super) fn end_epoch(&mut self) {
        self.stale_bytes = self.decoder.received_bytes() + self.door.unread_bytes();
    }

    /// Takes note of whether there is room for its frames.
    pub(super) fn note_room(&mut self, is_full: bool, now: Instant) {
        self.full_since = is_full.then(|| self.full_since.unwrap_or(now));
    }

    /// Whether it may be read.
    pub(super) fn room(&self, now: Instant) -> Room {
        match self.held_back_until() {
            None => Room::Enough,
            Some(until) if now < until => Room::None,
            Some(_) => Room::Overdue,
        }
    }

    /// When it will have been held back long enough.
    pub(super) fn held_back_until(&self) -> Option<Instant> {
        self.full_since.map(|since| since + self.hold_back)
    }

    /// Whether there is a frame that can be had without reading.
    pub(super) fn has_frame(&self) -> bool {
        self.decoder.has_frame()
    }

    /// Bytes of the vnet header that came with the frame taken last.
    pub(super) fn vnet_header_bytes(&self) -> usize {
        self.decoder.vnet_header_bytes()
    }

    /// Reads what has come. To be called when all frames have been taken.
    pub(super) fn read(&mut self) {
        match self.door.read(self.decoder.room()) {
            Ok(count) => self.decoder.advance(count.unwrap_or(0)),
            Err(error) => {
                let rest = self.decoder.received_bytes() - self.decoder.taken_bytes();
                let what = if rest == 0 { "" } else { ", in the middle of a frame" };
                self.close(&format!("{}{what}", ended(&error)));
            }
        }
    }

    /// The next frame, and whether it is of an ended epoch. Where there is none but bad framing, the connection is closed.
    pub(super) fn next_frame(&mut self) -> Option<(Frame, bool)> {
        let is_stale = self.decoder.taken_bytes() < self.stale_bytes;
        match self.decoder.next_frame() {
            Ok(frame) => Some((frame?, is_stale)),
            Err(error) => {
                self.bad_framings += 1;
                self.close(&error);
                None
            }
        }
    }

    fn close(&mut self, why: &dyn std::fmt::Display) {
        self.door.close(why);
        self.decoder = FrameDecoder::new(self.has_vnet_header, &self.pool);
        self.stale_bytes = 0;
    }
}
