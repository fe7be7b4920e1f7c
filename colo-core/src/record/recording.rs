use super::comment::Comment;
use super::pcapng::{write_interface, write_packet, write_section};
use super::{Miscompare, PRIMARY, SECONDARY, explain};
use crate::net::Frame;
use std::ops::Range;
use std::time::UNIX_EPOCH;

/// The most bytes of a recording, unless told otherwise: 64 MiB. Enough for tens of thousands of miscompares of small packets, and little
/// enough to be forgotten on a disk.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

/// The most bytes of one miscompare's frames, each with 512 bytes for what stands around it: 1 MiB. Of more, those around the
/// difference are recorded.
pub const MAX_MISCOMPARE_BYTES: usize = 1 << 20;

/// What a frame's block, comment included, takes beside the frame, at most for flows with the longest names.
const FRAME_OVERHEAD_BYTES: usize = 512;

/// How many frames before the one with the difference are recorded, of more than [`MAX_MISCOMPARE_BYTES`].
const LEAD: usize = 8;

/// Makes a file of miscompares, piece by piece.
#[derive(Debug)]
pub struct Recording {
    bytes: u64,
    max_bytes: u64,
}

impl Recording {
    /// One of at most so many bytes.
    pub fn new(max_bytes: u64) -> Self {
        Recording { bytes: 0, max_bytes }
    }

    /// The beginning of the file.
    pub fn begin(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        write_section(&mut out, concat!("colo ", env!("CARGO_PKG_VERSION")));
        write_interface(&mut out, PRIMARY);
        write_interface(&mut out, SECONDARY);
        self.bytes += out.len() as u64;
        out
    }

    /// What follows in the file; `None` when the file would become too long with it.
    pub fn add(&mut self, miscompare: &Miscompare) -> Option<Vec<u8>> {
        let out = encode(miscompare);
        let bytes = self.bytes + out.len() as u64;
        if bytes > self.max_bytes {
            return None;
        }
        self.bytes = bytes;
        Some(out)
    }

    /// The length of the file so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn encode(miscompare: &Miscompare) -> Vec<u8> {
    let nanos = miscompare.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
    let (primary, secondary) = chosen(miscompare);
    let all = miscompare.primary.len() + miscompare.secondary.len();
    let mut comment = Comment {
        number: miscompare.number,
        epoch: miscompare.epoch,
        frame: 0,
        frames: primary.len() + secondary.len(),
        what: miscompare.what.clone(),
    };
    if comment.frames < all {
        comment.what += &format!(" ({all} frames; these are around the difference)");
    }
    let mut out = Vec::new();
    for pair in 0..primary.len().max(secondary.len()) {
        for (interface, frames) in [(0, primary), (1, secondary)] {
            if let Some(frame) = frames.get(pair) {
                comment.frame += 1;
                write_packet(&mut out, interface, nanos, frame, &comment.to_string());
            }
        }
    }
    out
}

/// Those frames of both that are recorded: all, or as many as there is room for.
fn chosen(miscompare: &Miscompare) -> (&[Frame], &[Frame]) {
    let (primary, secondary) = (&miscompare.primary[..], &miscompare.secondary[..]);
    let (of_primary, of_secondary) = (cost(primary), cost(secondary));
    if of_primary + of_secondary <= MAX_MISCOMPARE_BYTES {
        return (primary, secondary);
    }
    // What the one does not need of its half is the other's.
    let half = MAX_MISCOMPARE_BYTES / 2;
    let for_primary = MAX_MISCOMPARE_BYTES - of_secondary.min(half);
    let for_secondary = MAX_MISCOMPARE_BYTES - of_primary.min(half);
    let differences = explain::differences(miscompare);
    let place = differences.first().map(|difference| difference.place).unwrap_or_default();
    let (primary_at, secondary_at) = (place.primary_frame, place.secondary_frame);
    (&primary[around(primary, primary_at, for_primary)], &secondary[around(secondary, secondary_at, for_secondary)])
}

/// As many frames as fit: from a few before the given one on, or if none is given, the last.
fn around(frames: &[Frame], at: Option<usize>, mut room: usize) -> Range<usize> {
    let mut fits = |frame: &Frame| match room.checked_sub(cost(std::slice::from_ref(frame))) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    let Some(at) = at else {
        let count = frames.iter().rev().take_while(|frame| fits(frame)).count();
        return frames.len() - count..frames.len();
    };
    // The one that counts first, whatever is before it.
    let last = frames[at..].iter().take(1).filter(|frame| fits(frame)).count();
    let before = frames[..at].iter().rev().take(LEAD).take_while(|frame| fits(frame)).count();
    let after = frames[at + last..].iter().take_while(|frame| fits(frame)).count();
    at - before..at + last + after
}

fn cost(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| frame.len() + FRAME_OVERHEAD_BYTES).sum()
}
