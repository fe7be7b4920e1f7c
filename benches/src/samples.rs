use std::time::Duration;

/// Times of the same thing, measured again and again.
///
/// ```
/// use colo_benches::Samples;
/// use std::time::Duration;
///
/// let samples: Samples = (1..=100).map(Duration::from_millis).collect();
/// assert_eq!(samples.percentile(50), Duration::from_millis(50));
/// assert_eq!(samples.percentile(99), Duration::from_millis(99));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Adds all of another's.
    pub fn append(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that at least `percent` of all are not above: a time that was measured, by the nearest-rank method.
    /// Zero when there are none.
    ///
    /// # Panics
    /// When `percent` is not from 1 to 100.
    pub fn percentile(&self, percent: usize) -> Duration {
        assert!((1..=100).contains(&percent), "{percent} %");
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        rank.checked_sub(1).map_or(Duration::ZERO, |index| sorted[index])
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        Samples(samples.into_iter().collect())
    }
}

/// Milliseconds, for a table.
pub fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}
