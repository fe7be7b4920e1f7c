use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// How fast something goes on of which bytes are counted, and how long it will still take, by what was seen in the last seconds: a copy has
/// parts that only have to be read, and parts that have to be sent, so that its mean would say little of what is to come.
///
/// ```
/// use colo_core::disk::Rate;
/// use std::time::{Duration, Instant};
///
/// let (mut rate, begin) = (Rate::default(), Instant::now());
/// rate.observe(begin, 0);
/// assert_eq!(rate.pace(4 << 20), None, "nobody knows yet");
/// rate.observe(begin + Duration::from_secs(2), 1 << 20);
/// assert_eq!(rate.pace(4 << 20).unwrap().to_string(), "0.5 MiB/s, 6 s left");
/// ```
#[derive(Clone, Default, Debug)]
pub struct Rate {
    /// When how many bytes were done, oldest first.
    seen: VecDeque<(Instant, u64)>,
}

/// How fast something is, and how long it will still take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// How fast.
    pub bytes_per_second: u64,
    /// How long; unknown while it stands still.
    pub left: Option<Duration>,
}

/// What was longer ago than that says nothing any more.
const WINDOW: Duration = Duration::from_secs(10);
/// Less than that says nothing yet.
const AT_LEAST: Duration = Duration::from_secs(1);
/// Of what was seen within so long only the last is kept.
const APART: Duration = Duration::from_millis(250);

impl Rate {
    /// So many bytes are done by then, from the beginning on.
    pub fn observe(&mut self, now: Instant, done_bytes: u64) {
        // Never the first, from which on time is counted.
        if let [.., (before, _), _] = *self.seen.make_contiguous() {
            if now.saturating_duration_since(before) < APART {
                self.seen.pop_back();
            }
        }
        self.seen.push_back((now, done_bytes));
        // The oldest that is kept is as long ago as the window is wide, or longer.
        while self.seen.get(1).is_some_and(|(second, _)| now.saturating_duration_since(*second) >= WINDOW) {
            self.seen.pop_front();
        }
    }

    /// How fast it is, and how long it takes until so many bytes are done; unknown for the first second.
    pub fn pace(&self, all_bytes: u64) -> Option<Pace> {
        let ((first, from), (last, done)) = (*self.seen.front()?, *self.seen.back()?);
        let took = last.saturating_duration_since(first);
        Pace::of(done.saturating_sub(from), took, all_bytes.saturating_sub(done))
    }
}

impl Pace {
    /// Of something of which so many bytes have taken so long, and so many are left; unknown for the first second.
    pub(super) fn of(bytes: u64, took: Duration, left_bytes: u64) -> Option<Pace> {
        if took < AT_LEAST {
            return None;
        }
        let bytes_per_second = (bytes as f64 / took.as_secs_f64()) as u64;
        let left = (bytes_per_second > 0).then(|| Duration::from_secs(left_bytes.div_ceil(bytes_per_second)));
        Some(Pace { bytes_per_second, left })
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB/s", self.bytes_per_second as f64 / f64::from(1 << 20))?;
        match self.left.map(|left| left.as_secs()) {
            None => Ok(()),
            Some(secs @ 0..60) => write!(f, ", {secs} s left"),
            Some(secs @ 60..3600) => write!(f, ", {} min {} s left", secs / 60, secs % 60),
            Some(secs) => write!(f, ", {} h {} min left", secs / 3600, secs / 60 % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_long_ago_says_nothing_and_little_is_kept() {
        let (mut rate, begin) = (Rate::default(), Instant::now());
        let mut done = 0;
        // A minute of 100 bytes each millisecond, and ten seconds of one.
        for milli in 0..70_000 {
            done += if milli < 60_000 { 100 } else { 1 };
            rate.observe(begin + Duration::from_millis(milli), done);
            assert!(rate.seen.len() < 50);
            assert_eq!(rate.pace(0).is_some(), milli >= 1000);
        }
        let pace = rate.pace(done).unwrap();
        assert!((1000..5000).contains(&pace.bytes_per_second), "{pace:?}");
        assert_eq!(pace.left, Some(Duration::ZERO));
    }

    #[test]
    fn what_stands_still_has_no_end() {
        let (mut rate, begin) = (Rate::default(), Instant::now());
        assert_eq!(rate.pace(10), None);
        rate.observe(begin, 5);
        assert_eq!(rate.pace(10), None);
        rate.observe(begin + AT_LEAST, 5);
        assert_eq!(rate.pace(10), Some(Pace { bytes_per_second: 0, left: None }));
    }

    #[test]
    fn a_pace_is_told_as_people_do() {
        let pace = |bytes_per_second, left| Pace { bytes_per_second, left }.to_string();
        assert_eq!(pace(0, None), "0.0 MiB/s");
        let secs = |secs| pace(85 << 20, Some(Duration::from_secs(secs)));
        assert_eq!(secs(59), "85.0 MiB/s, 59 s left");
        assert_eq!(secs(61), "85.0 MiB/s, 1 min 1 s left");
        assert_eq!(secs(7_325), "85.0 MiB/s, 2 h 2 min left");
    }
}
