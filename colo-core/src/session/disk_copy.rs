//! What is told of the first copy of disks.

use super::Event;
use crate::disk::Rate;
use std::time::{Duration, Instant};

/// It is told no more often than that.
const EVERY: Duration = Duration::from_secs(1);

/// How far the first copy of a machine's disks is.
#[derive(Default)]
pub(super) struct DiskCopy {
    rate: Rate,
    told: Option<Instant>,
}

impl DiskCopy {
    /// What is to be told of it, if anything: its beginning, its end, and what is between them now and then.
    pub(super) fn observe(&mut self, now: Instant, done_bytes: u64, all_bytes: u64, sent_bytes: u64) -> Option<Event> {
        self.rate.observe(now, done_bytes);
        let is_due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= EVERY);
        if !is_due && done_bytes < all_bytes {
            return None;
        }
        self.told = Some(now);
        Some(Event::CopyingDisks { done_bytes, all_bytes, sent_bytes, pace: self.rate.pace(all_bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Pace;

    #[test]
    fn it_is_told_once_a_second_and_at_the_end_and_with_a_rate_once_that_is_known() {
        let (mut copy, begin) = (DiskCopy::default(), Instant::now());
        let mut told: Vec<_> = (0..=3000)
            .filter_map(|milli| copy.observe(begin + Duration::from_millis(milli), milli * 100, 300_050, 7))
            .collect();
        told.extend(copy.observe(begin + Duration::from_millis(3001), 300_050, 300_050, 9));
        assert_eq!(told.len(), 5, "{told:#?}");
        let event = |done_bytes, sent_bytes, pace: Option<(u64, u64)>| {
            let pace =
                pace.map(|(bytes_per_second, left)| Pace { bytes_per_second, left: Some(Duration::from_secs(left)) });
            Event::CopyingDisks { done_bytes, all_bytes: 300_050, sent_bytes, pace }
        };
        assert_eq!(told[0], event(0, 7, None));
        assert_eq!(told[1], event(100_000, 7, Some((100_000, 3))));
        assert_eq!(told[4], event(300_050, 9, Some((99_983, 0))));
    }
}
