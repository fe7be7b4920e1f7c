use std::time::{Duration, Instant};

/// Tells whether the other side is still there, by what is heard of it. Anything heard counts, not only heartbeats.
///
/// ```
/// use colo_core::failover::Detector;
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let mut detector = Detector::new(Duration::from_millis(100), start);
/// assert_eq!(detector.heartbeats_due(start + Duration::from_millis(100)), Some(0));
/// assert!(!detector.is_lost(start + Duration::from_millis(499)));
/// assert!(detector.is_lost(start + Duration::from_millis(500)));
/// ```
#[derive(Clone, Debug)]
pub struct Detector {
    interval: Duration,
    last_heard: Instant,
    next_beat: Instant,
    number: u64,
}

impl Detector {
    /// So many intervals without a sign, and the other side counts as lost: a scheduler's hiccup is shorter, a client's patience
    /// is longer.
    pub const MISSED: u32 = 5;

    /// Begins at `now`, as if the other side had just been heard.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Detector { interval, last_heard: now, next_beat: now, number: 0 }
    }

    /// Something was heard.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Whether too long nothing was heard.
    pub fn is_lost(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_heard) >= self.interval * Self::MISSED
    }

    /// The number of the heartbeat to be sent now, if one is due.
    pub fn heartbeats_due(&mut self, now: Instant) -> Option<u64> {
        if now < self.next_beat {
            return None;
        }
        self.next_beat = now + self.interval;
        self.number += 1;
        Some(self.number - 1)
    }

    /// When to ask again.
    pub fn poll_timeout(&self) -> Instant {
        self.next_beat.min(self.last_heard + self.interval * Self::MISSED)
    }
}
