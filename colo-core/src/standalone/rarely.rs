//! For what may happen often, and is told now and then.

use std::time::{Duration, Instant};

/// Two lines about the same come no closer than this.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// When something was told last, and how often it has happened since.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Rarely {
    told: Option<Instant>,
    untold: u64,
}

impl Rarely {
    /// It has happened so many times more. Returns how many there are to be told of, if now is a time to tell.
    pub(super) fn tell(&mut self, times: u64, now: Instant) -> Option<u64> {
        self.untold += times;
        if self.untold == 0 || self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out_of_the_count() {
        let (mut rarely, now) = (Rarely::default(), Instant::now());
        assert_eq!(rarely.tell(0, now), None);
        assert_eq!(rarely.tell(2, now), Some(2));
        assert_eq!(rarely.tell(3, now), None);
        assert_eq!(rarely.tell(1, now + TELL_EVERY), Some(4));
        assert_eq!(rarely.tell(0, now + 2 * TELL_EVERY), None);
        assert_eq!(rarely.tell(1, now + 3 * TELL_EVERY), Some(1));
    }
}
