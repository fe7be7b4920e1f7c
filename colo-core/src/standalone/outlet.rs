//! Where released frames go out.

use super::door::{Door, ended};
use crate::net::Frame;
use crate::net::qemu::encode_frame;
use std::collections::VecDeque;

/// The most bytes that wait to be sent: what a link of 1 Gbit/s carries in 130 ms, as a switch with deep buffers has. A checkpoint adds
/// all that was held, which is bounded by itself.
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// What a frame's place in the queue counts.
const PLACE_BYTES: usize = 64;

/// How much is made ready to be sent at once: what a Unix socket takes by default.
const SEND_BYTES: usize = 256 << 10;

/// Frames on their way out, in order.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) door: Door,
    queue: VecDeque<Frame>,
    queued_bytes: usize,
    /// Frames as they are sent. Begins with a frame.
    sending: Vec<u8>,
    /// How much of `sending` the socket has taken.
    sent_bytes: usize,
    /// Bytes of the vnet headers; `None` without them.
    vnet_header_bytes: Option<usize>,
    /// Frames that were ever put there.
    encoded_frames: u64,
    /// Frames that were too many.
    pub(super) lost_frames: u64,
}

impl Outlet {
    pub(super) fn new(door: Door, has_vnet_header: bool) -> Self {
        Outlet {
            door,
            queue: VecDeque::new(),
            queued_bytes: 0,
            sending: Vec::new(),
            sent_bytes: 0,
            vnet_header_bytes: has_vnet_header.then_some(0),
            encoded_frames: 0,
            lost_frames: 0,
        }
    }

    /// The card's vnet header has so many bytes now. Its length may change when a driver starts in the guest; a frame that was made
    /// before then leaves with the new one, as the card expects it.
    pub(super) fn set_vnet_header_bytes(&mut self, bytes: usize) {
        self.vnet_header_bytes = self.vnet_header_bytes.map(|_| bytes);
    }

    /// Takes a frame, or loses it when too much waits. Whoever reads here is QEMU, in the thread in which it sends what the primary
    /// says: were it held back there, nobody would ever read here again.
    pub(super) fn push(&mut self, frame: Frame) {
        if self.queued_bytes < MAX_QUEUED_BYTES {
            self.push_all_the_same(frame);
        } else {
            self.lost_frames += 1;
        }
    }

    /// Takes a frame of those that a checkpoint lets go.
    pub(super) fn push_all_the_same(&mut self, frame: Frame) {
        self.queued_bytes += frame.len() + PLACE_BYTES;
        self.queue.push_back(frame);
    }

    /// Whether something waits to be sent.
    pub(super) fn wants_write(&self) -> bool {
        self.door.is_connected() && !(self.queue.is_empty() && self.sending.is_empty())
    }

    /// Frames that the socket has taken.
    pub(super) fn sent_frames(&self) -> u64 {
        self.encoded_frames - self.unsent().count() as u64
    }

    /// Frames that wait.
    pub(super) fn waiting_frames(&self) -> u64 {
        (self.queue.len() + self.unsent().count()) as u64
    }

    /// Sends as much as the socket takes.
    pub(super) fn write(&mut self) {
        while self.wants_write() {
            if self.sending.is_empty() {
                self.encode();
            }
            match self.door.send(&self.sending[self.sent_bytes..]) {
                Ok(Some(count)) => self.sent_bytes += count,
                Ok(None) => return,
                Err(error) => return self.close(&ended(&error)),
            }
            if self.sent_bytes == self.sending.len() {
                self.sending.clear();
                self.sent_bytes = 0;
            }
        }
    }

    /// Looks whether the other side is still there. It has nothing to say.
    pub(super) fn read(&mut self) {
        match self.door.read(&mut [0; 64]) {
            Ok(None) => {}
            Ok(Some(_)) => self.close(&"bytes came where none are expected"),
            Err(error) => self.close(&ended(&error)),
        }
    }

    fn encode(&mut self) {
        while self.sending.len() < SEND_BYTES {
            let Some(frame) = self.queue.pop_front() else {
                break;
            };
            self.queued_bytes -= frame.len() + PLACE_BYTES;
            encode_frame(&frame, self.vnet_header_bytes, &mut self.sending);
            self.encoded_frames += 1;
        }
    }

    /// What the socket has not wholly taken is sent again on the next connection, from the frame's beginning.
    fn close(&mut self, why: &dyn std::fmt::Display) {
        self.door.close(why);
        let rest = self.unsent().next().unwrap_or(self.sending.len());
        self.sending.drain(..rest);
        self.sent_bytes = 0;
    }

    /// Where the frames begin that the socket has not wholly taken.
    fn unsent(&self) -> impl Iterator<Item = usize> {
        let lengths_bytes = if self.vnet_header_bytes.is_some() { 8 } else { 4 };
        let mut at = 0;
        let starts = std::iter::from_fn(move || {
            let start = at;
            let length = self.sending.get(start..)?.first_chunk()?;
            at += lengths_bytes + u32::from_be_bytes(*length) as usize;
            Some((start, at))
        });
        starts.filter(|(_, end)| *end > self.sent_bytes).map(|(start, _)| start)
    }
}
