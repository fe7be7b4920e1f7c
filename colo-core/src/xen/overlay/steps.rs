use crate::layers::Timings;
use std::fmt::Write;
use std::time::Instant;

/// What the parts of one piece of work take: told in one line at its end, and booked.
pub(super) struct Steps {
    what: &'static str,
    timings: Timings,
    last: Instant,
    told: String,
}

impl Steps {
    pub(super) fn new(what: &'static str, timings: &Timings) -> Self {
        Steps { what, timings: timings.clone(), last: Instant::now(), told: String::new() }
    }

    /// Everything since the last step was this.
    pub(super) fn step(&mut self, name: &'static str) {
        let took = self.last.elapsed();
        self.last = Instant::now();
        self.timings.book(name, took);
        let _ = write!(self.told, " {name} {took:.1?}");
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        tracing::debug!("{}:{}", self.what, self.told);
    }
}
