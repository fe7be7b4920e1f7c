//! Something that takes long, and what is told of it meanwhile.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// A line is told after so many percent, ...
const PERCENT: u64 = 5;
/// ... and after so long.
const EVERY: Duration = Duration::from_secs(60);
/// But not sooner than that.
const AT_LEAST: Duration = Duration::from_secs(1);

/// A bar on a terminal, and a line now and then elsewhere.
#[derive(Default)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: Lines,
}

impl Progress {
    /// So much is done, in MiB on the bar; `text` is the line.
    pub(crate) fn tell(&mut self, what: &str, done_bytes: u64, all_bytes: u64, text: &str, rest: &str) {
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| ProgressBar::new(0).with_style(style()));
            bar.set_length(all_bytes >> 20);
            bar.set_position(done_bytes >> 20);
            bar.set_message(what.to_owned());
            bar.set_prefix(rest.to_owned());
        } else if self.lines.is_due(Instant::now(), done_bytes, all_bytes) {
            eprintln!("colo: {text}");
        }
    }

    /// It is over.
    pub(crate) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.lines = Lines::default();
    }
}

fn style() -> ProgressStyle {
    let style = "{msg} [{bar:40}] {pos}/{len} MiB {prefix}";
    ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Which lines are told.
#[derive(Default)]
struct Lines {
    last: Option<(Instant, u64)>,
}

impl Lines {
    fn is_due(&mut self, now: Instant, done: u64, all: u64) -> bool {
        let is_due = self.last.is_none_or(|(when, before)| {
            let since = now.saturating_duration_since(when);
            let is_further = done.saturating_sub(before) >= all.saturating_mul(PERCENT) / 100;
            since >= EVERY || since >= AT_LEAST && is_further || done >= all && before < all
        });
        if is_due {
            self.last = Some((now, done));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_for_each_five_percent_or_each_minute_and_the_last_one_always() {
        let begin = Instant::now();
        let told = |lines: &mut Lines, second: u64, done| lines.is_due(begin + Duration::from_secs(second), done, 1000);
        let mut lines = Lines::default();
        assert!(told(&mut lines, 0, 1));
        assert!(!told(&mut lines, 0, 900), "too soon");
        assert!(!told(&mut lines, 10, 50), "not far enough");
        assert!(told(&mut lines, 10, 51));
        assert!(!told(&mut lines, 69, 52));
        assert!(told(&mut lines, 70, 52), "after a minute");
        assert!(told(&mut lines, 70, 1000), "the last");
        assert!(!told(&mut lines, 75, 1000), "once");
    }
}
