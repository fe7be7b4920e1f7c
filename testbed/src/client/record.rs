//! What a client has seen, and when.

use std::fmt;
use std::time::{Duration, Instant};

/// What one client has seen so far. All times are of this machine's monotonic clock.
pub(crate) struct Record {
    name: &'static str,
    begun: Instant,
    ended: Instant,
    asked: Vec<Instant>,
    /// When answers came, whole ones or parts, in this order.
    arrivals: Vec<Instant>,
    /// When whole ones came, in this order, and how long they took.
    latencies: Vec<(Instant, Duration)>,
    /// When it stopped asking.
    silent: Option<Instant>,
    failure: Option<String>,
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
            asked: Vec::new(),
            arrivals: Vec::new(),
            latencies: Vec::new(),
            silent: None,
            failure: None,
            remark: String::new(),
        }
    }

    /// It asks.
    pub(crate) fn ask(&mut self, now: Instant) {
        self.asked.push(now);
    }

    /// An answer has come, to what was asked at `asked`.
    pub(crate) fn answer(&mut self, asked: Instant, now: Instant) {
        self.arrivals.push(now);
        self.latencies.push((now, now.saturating_duration_since(asked)));
    }

    /// A part of an answer has come.
    pub(crate) fn part(&mut self, now: Instant) {
        self.arrivals.push(now);
    }

    /// Something else that is to be told.
    pub(crate) fn remark(&mut self, remark: String) {
        self.remark = remark;
    }

    /// It asks no more: from now on it is no wonder if there is no answer.
    pub(crate) fn fall_silent(&mut self, now: Instant) {
        self.silent = Some(now);
    }

    /// It has come to its end, which may be a bad one.
    pub(crate) fn end(&mut self, now: Instant, failure: Option<String>) {
        // An answer may have come later still.
        self.ended = self.silent.map_or(now, |silent| self.arrivals.last().map_or(silent, |last| silent.max(*last)));
        self.failure = failure;
    }

    /// Which client it was.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What went wrong.
    pub(crate) fn failure(&self) -> Option<String> {
        let why = self.failure.as_ref()?;
        Some(format!("{}, after {:.1} s: {why}", self.name, (self.ended - self.begun).as_secs_f64()))
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Window<'_> {
        self.between(self.begun, self.ended)
    }

    /// What it has seen between these two moments.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Window<'_> {
        Window { record: self, from, to }
    }

    /// The longest time without an answer that was not over yet at this moment, or began later: an outage, from the last answer before
    /// it on.
    pub(crate) fn outage_since(&self, moment: Instant) -> Gap {
        let last_before = self.arrivals.iter().rfind(|at| **at <= moment);
        self.between(last_before.copied().unwrap_or(self.begun), self.ended).worst_gap()
    }
}

/// A part of what a client has seen.
pub(crate) struct Window<'a> {
    record: &'a Record,
    from: Instant,
    to: Instant,
}

impl Window<'_> {
    /// The latency that so many percent of the answers did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let inside = self.record.latencies.iter().filter(|(at, _)| self.has(*at));
        let mut sorted: Vec<Duration> = inside.map(|(_, latency)| *latency).collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).copied()
    }

    /// How many whole answers.
    pub(crate) fn answers(&self) -> usize {
        self.record.latencies.iter().filter(|(at, _)| self.has(*at)).count()
    }

    /// The longest time without an answer. At either end it may be a part of a longer one.
    pub(crate) fn worst_gap(&self) -> Gap {
        let mut worst = Gap { begin: self.from, length: Duration::ZERO };
        let mut last = self.from;
        let arrivals = self.record.arrivals.iter().copied().filter(|at| self.has(*at));
        for at in arrivals.chain([self.to]) {
            let length = at.saturating_duration_since(last);
            if length > worst.length {
                worst = Gap { begin: last, length };
            }
            last = at;
        }
        worst
    }

    fn has(&self, moment: Instant) -> bool {
        self.from <= moment && moment <= self.to
    }
}

impl fmt::Display for Window<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { name, begun, asked, .. } = self.record;
        let asked = asked.iter().filter(|at| self.has(**at)).count();
        let answered = self.answers();
        write!(f, "{name:<16} {asked:6} asked {answered:6} answered")?;
        if let [Some(half), Some(most), Some(all)] = [50, 99, 100].map(|percent| self.percentile(percent)) {
            write!(f, "  p50 {:7.1}  p99 {:7.1}  worst {:7.1} ms", ms(half), ms(most), ms(all))?;
        }
        let gap = self.worst_gap();
        write!(f, "  gap {:7.1} ms at {:.1} s", ms(gap.length), (gap.begin - *begun).as_secs_f64())
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.whole())?;
        if !self.remark.is_empty() {
            write!(f, "  {}", self.remark)?;
        }
        Ok(())
    }
}

/// Milliseconds.
fn ms(time: Duration) -> f64 {
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
            record.ask(at(ms - 5));
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
        assert_eq!(within.whole().worst_gap(), gap(at(200), 500));
        let (first, at) = record(&[600, 700, 900]);
        assert_eq!(first.whole().worst_gap(), gap(at(0), 600));
        let (last, at) = record(&[100, 200]);
        assert_eq!(last.whole().worst_gap(), gap(at(200), 800));
        let (none, at) = record(&[]);
        assert_eq!(none.whole().worst_gap(), gap(at(0), 1000));
    }

    #[test]
    fn a_gap_is_cut_where_the_window_is() {
        let (record, at) = record(&[100, 500, 600, 700]);
        let worst = |from, to| record.between(at(from), at(to)).worst_gap();
        assert_eq!(worst(300, 650), gap(at(300), 200));
        assert_eq!(worst(520, 560), gap(at(520), 40));
        assert_eq!(worst(560, 520).length, Duration::ZERO);
    }

    #[test]
    fn an_outage_begins_with_the_last_answer() {
        let (record, at) = record(&[400, 410, 420, 800, 810]);
        assert_eq!(record.outage_since(at(430)), gap(at(420), 380));
        assert_eq!(record.outage_since(at(100)), gap(at(0), 400));
        assert_eq!(record.outage_since(at(805)), gap(at(810), 190));
    }

    #[test]
    fn who_does_not_ask_misses_no_answer() {
        let (mut record, at) = record(&[100, 400]);
        record.fall_silent(at(450));
        record.end(at(5000), None);
        assert_eq!(record.whole().worst_gap(), gap(at(100), 300));
        record.answer(at(440), at(800));
        record.end(at(5000), None);
        assert_eq!(record.whole().worst_gap(), gap(at(400), 400));
    }

    #[test]
    fn percentiles() {
        let begun = Instant::now();
        let mut record = Record::new("it", begun);
        assert_eq!(record.whole().percentile(50), None);
        for ms in 1..=200 {
            record.answer(begun, begun + Duration::from_millis(ms));
        }
        let of = |from, percent| {
            let at = |ms| begun + Duration::from_millis(ms);
            record.between(at(from), at(1000)).percentile(percent).unwrap().as_millis()
        };
        assert_eq!([of(0, 0), of(0, 50), of(0, 99), of(0, 100)], [1, 100, 198, 200]);
        assert_eq!([of(101, 0), of(101, 50)], [101, 150]);
    }

    #[test]
    fn a_failure_is_one_line() {
        let (mut record, at) = record(&[100]);
        assert_eq!(record.failure(), None);
        record.end(at(1500), Some("reset".into()));
        assert_eq!(record.failure().unwrap(), "it, after 1.5 s: reset");
        assert!(record.to_string().starts_with("it                    1 asked      1 answered  p50     5.0  p99"));
    }
}
