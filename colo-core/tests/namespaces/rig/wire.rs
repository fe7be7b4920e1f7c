//! A bad wire: loses one frame in a hundred, and lets one in a hundred be overtaken.

use colo_core::net::Frame;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest that a frame is overtaken for, when too few others come.
const LONGEST_DELAY: Duration = Duration::from_millis(3);

/// xorshift64 (Marsaglia 2003).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// One direction of a wire. Without dice it is a good one.
pub(crate) struct Wire {
    dice: Option<Dice>,
    /// Each with how many frames may still overtake it, and until when.
    overtaken: VecDeque<(u64, Instant, Frame)>,
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
}

impl Wire {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Wire { dice: seed.map(Dice::new), overtaken: VecDeque::new(), lost: 0, reordered: 0 }
    }

    /// Takes a frame, and adds those that arrive by then.
    pub(crate) fn pass(&mut self, frame: Frame, now: Instant, arrived: &mut Vec<Frame>) {
        let Some(dice) = &mut self.dice else {
            return arrived.push(frame);
        };
        match dice.roll(100) {
            0 => self.lost += 1,
            1 => {
                self.reordered += 1;
                self.overtaken.push_back((1 + dice.roll(8), now + LONGEST_DELAY, frame));
                return;
            }
            _ => arrived.push(frame),
        }
        for (others, ..) in &mut self.overtaken {
            *others = others.saturating_sub(1);
        }
        self.late(now, arrived);
    }

    /// Adds what arrives now by itself.
    pub(crate) fn late(&mut self, now: Instant, arrived: &mut Vec<Frame>) {
        self.overtaken.retain(|(others, until, frame)| {
            let waits = *others > 0 && *until > now;
            if !waits {
                arrived.push(frame.clone());
            }
            waits
        });
    }

    /// When something arrives by itself.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.overtaken.iter().map(|(_, until, _)| *until).min()
    }
}
