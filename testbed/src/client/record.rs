//! What a client has seen, and when.

use std::fmt;
use std::time::{Duration, Instant};

/// What one client has seen so far. All times are of this machine's monotonic clock.
pub(crate) struct Record {
    name: &'static str,
    begun: Instant,
    ended: Instant,
    asked: u64,
    /// When answers came, in this order.
    arrivals: Vec<Instant>,
    latencies: Vec<Duration>,
    failure: Option<(Instant, String)>,
    remark: String,
}

/// A time without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    /// When it began: with an answer, mostly.
    pub(crate) begin: Instant,
    /// How long it was.
    pub(crate) length: Duration,
}

impl Record {
    /// A client of this name begins.
    pub(crate) fn new(name: &'static str, now: Instant) -> Record {
        Record {
            name,
            begun: now,
            ended: now,
            asked: 0,
            arrivals: Vec::new(),
            latencies: Vec::new(),
            failure: None,
            remark: String::new(),
        }
    }

    /// It asks.
    pub(crate) fn ask(&mut self) {
        self.asked += 1;
    }

    /// An answer has come, to what was asked at `asked`.
    pub(crate) fn answer(&mut self, asked: Instant, now: Instant) {
        self.arrivals.push(now);
        self.latencies.push(now.saturating_duration_since(asked));
    }

    /// A part of an answer has come.
    pub(crate) fn part(&mut self, now: Instant) {
        self.arrivals.push(now);
    }

    /// Something else that is to be told.
    pub(crate) fn remark(&mut self, remark: String) {
        self.remark = remark;
    }

    /// It has come to its end, which may be a bad one.
    pub(crate) fn end(&mut self, now: Instant, failure: Option<String>) {
        self.ended = now;
        self.failure = failure.map(|why| (now, why));
    }

    /// Which client it was.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What went wrong.
    pub(crate) fn failure(&self) -> Option<String> {
        let (at, why) = self.failure.as_ref()?;
        Some(format!("{}, after {:.1} s: {why}", self.name, (*at - self.begun).as_secs_f64()))
    }

    /// The latency that so many percent of the answers did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied()
    }

    /// The longest time without an answer.
    pub(crate) fn worst_gap(&self) -> Gap {
        self.worst_gap_between(self.begun, self.ended)
    }

    /// The longest time without an answer that lies between these two moments, of which each may be a part of a longer one.
    pub(crate) fn worst_gap_between(&self, from: Instant, to: Instant) -> Gap {
        let mut worst = Gap { begin: from, length: Duration::ZERO };
        let mut last = from;
        let arrivals = self.arrivals.iter().copied().filter(|at| *at > from && *at < to);
        for at in arrivals.chain([to]) {
            let length = at.saturating_duration_since(last);
            if length > worst.length {
                worst = Gap { begin: last, length };
            }
            last = at;
        }
        worst
    }

    /// The longest time without an answer that was not over yet at this moment, or began later: an outage, from the last answer before it
    /// on.
    pub(crate) fn outage_since(&self, moment: Instant) -> Gap {
        let last_before = self.arrivals.iter().rfind(|at| **at <= moment);
        self.worst_gap_between(last_before.copied().unwrap_or(self.begun), self.ended)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<20} {:6} asked {:6} answered", self.name, self.asked, self.latencies.len())?;
        if let [Some(half), Some(most), Some(all)] = [50, 99, 100].map(|percent| self.percentile(percent)) {
            write!(f, "  p50 {:7.1} p99 {:7.1} worst {:7.1} ms", ms(half), ms(most), ms(all))?;
        }
        let gap = self.worst_gap();
        let at = (gap.begin - self.begun).as_secs_f64();
        write!(f, "  gap {:7.1} ms at {at:.1} s", ms(gap.length))?;
        if !self.remark.is_empty() {
            write!(f, "  {}", self.remark)?;
        }
        Ok(())
    }
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of answers that came so many milliseconds after the beginning, 5 ms after they were asked for each; it ends after 1 s.
    fn record(arrivals_ms: &[u64]) -> (Record, impl Fn(u64) -> Instant) {
        let begun = Instant::now();
        let at = move |ms| begun + Duration::from_millis(ms);
        let mut record = Record::new("it", begun);
        for ms in arrivals_ms {
            record.ask();
            record.answer(at(ms - 5), at(*ms));
        }
        record.end(at(1000), None);
        (record, at)
    }

    fn gap(begin: Instant, ms: u64) -> Gap {
        Gap { begin, length: Duration::from_millis(ms) }
    }

    #[test]
    fn the_worst_gap_may_be_at_an_end() {
        let (within, at) = record(&[100, 200, 700, 900]);
        assert_eq!(within.worst_gap(), gap(at(200), 500));
        let (first, at) = record(&[600, 700, 900]);
        assert_eq!(first.worst_gap(), gap(at(0), 600));
        let (last, at) = record(&[100, 200]);
        assert_eq!(last.worst_gap(), gap(at(200), 800));
        let (none, at) = record(&[]);
        assert_eq!(none.worst_gap(), gap(at(0), 1000));
    }

    #[test]
    fn a_gap_is_cut_where_the_window_is() {
        let (record, at) = record(&[100, 500, 600, 700]);
        assert_eq!(record.worst_gap_between(at(300), at(650)), gap(at(300), 200));
        assert_eq!(record.worst_gap_between(at(520), at(560)), gap(at(520), 40));
        assert_eq!(record.worst_gap_between(at(560), at(520)).length, Duration::ZERO);
    }

    #[test]
    fn an_outage_begins_with_the_last_answer() {
        let (record, at) = record(&[400, 410, 420, 800, 810]);
        assert_eq!(record.outage_since(at(430)), gap(at(420), 380));
        assert_eq!(record.outage_since(at(100)), gap(at(0), 400));
        assert_eq!(record.outage_since(at(805)), gap(at(810), 190));
    }

    #[test]
    fn percentiles() {
        let begun = Instant::now();
        let mut record = Record::new("it", begun);
        assert_eq!(record.percentile(50), None);
        for ms in (1..=200).rev() {
            record.answer(begun, begun + Duration::from_millis(ms));
        }
        let of = |percent| record.percentile(percent).unwrap().as_millis();
        assert_eq!([of(0), of(50), of(99), of(100)], [1, 100, 198, 200]);
    }

    #[test]
    fn a_failure_is_one_line() {
        let (mut record, at) = record(&[100]);
        assert_eq!(record.failure(), None);
        record.end(at(1500), Some("reset".into()));
        assert_eq!(record.failure().unwrap(), "it, after 1.5 s: reset");
        assert!(record.to_string().starts_with("it                        1 asked      1 answered  p50     5.0 p99"));
    }
}
