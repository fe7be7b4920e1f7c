use std::time::{Duration, Instant};

/// Tells whether the other side is still there, by what is heard of it. Anything heard counts, not only heartbeats.
///
/// Time in which nobody listened is no silence: a host that stood still itself may have what the other one said on its way still. So no more
/// than [`Detector::UNSEEN`] intervals count between one look and the next. And the other host may have given up this one meanwhile.
///
/// ```
/// use colo_core::failover::Detector;
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let mut detector = Detector::new(Duration::from_millis(100), start);
/// assert_eq!(detector.heartbeats_due(start + Duration::from_millis(100)), Some(0));
/// for ms in [100, 200, 300, 400, 499] {
///     assert!(!detector.look(start + Duration::from_millis(ms)));
/// }
/// assert!(detector.look(start + Duration::from_millis(500)));
/// ```
#[derive(Clone, Debug)]
pub struct Detector {
    interval: Duration,
    last_heard: Instant,
    last_look: Instant,
    next_beat: Instant,
    number: u64,
    /// When this side went on after it had stood still for so long that the other may have given it up, if it was not heard since.
    went_on: Option<Instant>,
}

impl Detector {
    /// So many intervals without a sign, and the other side counts as lost: a scheduler's hiccup is shorter, a client's patience
    /// is longer.
    pub const MISSED: u32 = 5;

    /// So many intervals count as silence at most between two looks.
    pub const UNSEEN: u32 = 2;

    /// Begins at `now`, as if the other side had just been heard.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Detector { interval, last_heard: now, last_look: now, next_beat: now, number: 0, went_on: None }
    }

    /// Something was heard.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = now;
        // Not what had come meanwhile: who has given up this side says nothing more.
        self.went_on.take_if(|went_on| now >= *went_on + self.interval * Self::UNSEEN);
    }

    /// Whether too much time has passed since the last look for all of it to count: what came meanwhile must be heard before anything else is done.
    pub fn stood_still(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_look) > self.interval * Self::UNSEEN
    }

    /// Whether too long nothing was heard. To be asked at least once in an interval.
    pub fn look(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.last_look);
        let unseen = since.saturating_sub(self.interval * Self::UNSEEN);
        // One interval less than the other side's patience, for what its last sign took on the way.
        if since >= self.interval * (Self::MISSED - 1) {
            self.went_on = Some(now);
        }
        self.last_heard = (self.last_heard + unseen).min(self.last_heard.max(now));
        self.last_look = self.last_look.max(now);
        now.saturating_duration_since(self.last_heard) >= self.interval * Self::MISSED
    }

    /// Whether the other side may have lost this one, which stood still itself: then it serves alone. It has said so, but who did not listen
    /// cannot count on having heard it.
    pub fn may_be_given_up(&self) -> bool {
        self.went_on.is_some()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn who_stood_still_listens_before_it_judges() {
        let start = Instant::now();
        let mut detector = Detector::new(INTERVAL, start);
        assert!(detector.stood_still(start + INTERVAL * 100));
        assert!(!detector.look(start + INTERVAL * 100));
        assert!(!detector.stood_still(start + INTERVAL * 102));
        assert!(!detector.look(start + INTERVAL * 102));
        assert!(detector.look(start + INTERVAL * 103));
        detector.heard(start + INTERVAL * 103);
        assert!(!detector.look(start + INTERVAL * 103));
    }

    #[test]
    fn who_stood_still_for_as_long_as_the_other_is_patient_may_be_given_up_until_it_is_heard_again() {
        let start = Instant::now();
        let mut detector = Detector::new(INTERVAL, start);
        let mut now = start;
        let steps =
            [(3, true, false), (4, true, true), (1, true, true), (1, false, true), (1, true, false), (4, false, true)];
        for (passed, heard, doubtful) in steps {
            now += INTERVAL * passed;
            detector.look(now);
            if heard {
                detector.heard(now);
            }
            assert_eq!(detector.may_be_given_up(), doubtful, "{:?}", now - start);
        }
    }

    proptest! {
        /// Lost is who was silent for so long, less what nobody saw.
        #[test]
        fn silence_is_what_was_listened_to(steps in proptest::collection::vec((0_u32..1000, any::<bool>(), any::<bool>()), 0..40)) {
            let mut now = Instant::now();
            let mut detector = Detector::new(INTERVAL, now);
            let mut silent = Duration::ZERO;
            for (ms, heard_before, heard) in steps {
                let passed = Duration::from_millis(ms.into());
                now += passed;
                silent += passed.min(INTERVAL * Detector::UNSEEN);
                if heard_before {
                    detector.heard(now);
                    silent = Duration::ZERO;
                }
                prop_assert_eq!(detector.look(now), silent >= INTERVAL * Detector::MISSED);
                prop_assert!(detector.poll_timeout() <= now + INTERVAL * Detector::MISSED);
                if heard {
                    detector.heard(now);
                    silent = Duration::ZERO;
                }
            }
        }
    }
}
