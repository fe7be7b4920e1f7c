//! What people and machines get to see.

use crate::progress::Progress;
use colo_core::session::{Event, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Exit code: something failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: the command line makes no sense.
pub(crate) const SENSELESS: u8 = 2;
/// Exit code: the other side serves.
const STOOD_DOWN: u8 = 3;
/// Exit code: the guest crashed.
const GUEST_CRASHED: u8 = 4;

/// Exit code: the guest runs on, and nobody protects it.
pub(crate) const UNPROTECTED: u8 = 5;

/// Starts the log on stderr. `RUST_LOG` has the last word.
pub(crate) fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Tells a session's events as they come.
pub(crate) struct Teller {
    json: bool,
    /// Whether every checkpoint is told.
    verbose: bool,
    bar: Option<ProgressBar>,
    disks: Progress,
}

impl Teller {
    pub(crate) fn new(json: bool) -> Self {
        Teller { json, verbose: tracing::enabled!(tracing::Level::DEBUG), bar: None, disks: Progress::default() }
    }

    /// Prints the event: JSON on stdout, or a line on stderr, or the progress bar of the first copy.
    pub(crate) fn tell(&mut self, event: &Event) {
        if self.json {
            return print_json(&event_json(event));
        }
        match event {
            Event::Copying(copy) if std::io::stderr().is_terminal() => {
                self.disks.end();
                let bar = self.bar.get_or_insert_with(copy_bar);
                bar.set_length(copy.round_pages);
                bar.set_position(copy.sent_pages);
                bar.set_message(format!("pages, round {}", copy.round + 1));
            }
            // The log on stderr has told it.
            Event::CopyingDisks { .. } if self.verbose => {}
            Event::CopyingDisks { done_bytes, all_bytes, pace, .. } => {
                let pace = pace.map_or(String::new(), |pace| pace.to_string());
                self.disks.tell("disks", *done_bytes, *all_bytes, &event.to_string(), &pace);
            }
            Event::Copying(_) => {}
            // One a second or more: only for those who ask.
            Event::Checkpoint { .. } | Event::Staged(_) | Event::Applied { .. } | Event::Miscompare(_)
                if !self.verbose => {}
            // The log on stderr has told it.
            _ if self.verbose => {}
            event => {
                self.disks.end();
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                eprintln!("colo: {event}");
            }
        }
    }
}

fn copy_bar() -> ProgressBar {
    let style = "{msg} [{bar:40}] {pos}/{len}, {per_sec}, {eta} left";
    ProgressBar::new(0).with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// An error and its causes, on one line; a cause that the error before it has told already is not told again.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line += if line.is_empty() { "" } else { ": " };
            line += &cause;
        }
    }
    line.replace('\n', "; ")
}

/// Prints one object on a line of its own. Nobody who does not listen any more is bothered.
pub(crate) fn print_json(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// The exit code for how a session ended.
pub(crate) fn exit_code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Outcome::Stopped | Outcome::GuestShutDown | Outcome::Left => ExitCode::SUCCESS,
        Outcome::StoodDown => ExitCode::from(STOOD_DOWN),
        Outcome::GuestCrashed => ExitCode::from(GUEST_CRASHED),
        Outcome::Unprotected(_) => ExitCode::from(UNPROTECTED),
        _ => ExitCode::from(FAILED),
    }
}

/// An event as an object: `event` is its name, `text` what `tell` would print; times in milliseconds.
fn event_json(event: &Event) -> Value {
    let mut value = match event {
        Event::Connected { peer, domain, dirty_log } => {
            json!({"event": "connected", "peer": peer, "domain": domain, "dirty_log": dirty_log})
        }
        Event::Copying(copy) => json!({"event": "copying", "round": copy.round, "sent_pages": copy.sent_pages,
            "round_pages": copy.round_pages, "stream_bytes": copy.stream_bytes}),
        Event::CopyingDisks { done_bytes, all_bytes, sent_bytes, pace } => json!({"event": "copying-disks",
            "done_bytes": done_bytes, "all_bytes": all_bytes, "sent_bytes": sent_bytes,
            "bytes_per_second": pace.map(|pace| pace.bytes_per_second),
            "left_s": pace.and_then(|pace| pace.left).map(|left| left.as_secs())}),
        Event::Rehearsed => json!({"event": "rehearsed"}),
        Event::Protected(epoch) => json!({"event": "protected", "epoch": epoch.0}),
        Event::Miscompare(what) => json!({"event": "miscompare", "what": what}),
        Event::Checkpoint { stats, pause } => json!({"event": "checkpoint", "epoch": stats.epoch.0,
            "trigger": stats.trigger.name(), "dirty_pages": stats.dirty_pages, "stream_bytes": stats.stream_bytes,
            "pause_ms": pause.as_secs_f64() * 1e3}),
        Event::Staged(epoch) => json!({"event": "staged", "epoch": epoch.0}),
        Event::Applied { applied, pause, way } => json!({"event": "applied", "epoch": applied.epoch.0, "way": way,
            "stream_bytes": applied.stream_bytes, "received_pages": applied.flushed.received_pages,
            "written_pages": applied.flushed.written_pages, "pause_ms": pause.as_secs_f64() * 1e3}),
        Event::PeerLost(how) => json!({"event": "peer-lost", "how": how}),
        Event::FenceFailed(why) => json!({"event": "fence-failed", "why": why}),
        Event::Held { domain, epoch, why } => {
            json!({"event": "held", "domain": domain, "epoch": epoch.0, "why": why})
        }
        Event::Unprotected(why) => json!({"event": "unprotected", "why": why}),
        Event::TookOver { epoch, took, resent_frames } => json!({"event": "took-over", "epoch": epoch.0,
            "took_ms": took.as_secs_f64() * 1e3, "resent_frames": resent_frames}),
        Event::Ended(outcome) => json!({"event": "ended", "outcome": outcome_name(outcome)}),
        _ => json!({"event": "other"}),
    };
    value["text"] = json!(event.to_string());
    value
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Stopped => "stopped",
        Outcome::GuestShutDown => "guest-shut-down",
        Outcome::GuestCrashed => "guest-crashed",
        Outcome::Left => "left",
        Outcome::Unprotected(_) => "unprotected",
        Outcome::LeftSuspended(_) => "left-suspended",
        Outcome::StoodDown => "stood-down",
        Outcome::Ended(_) => "ended",
        Outcome::Failed(_) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_guest_that_lost_its_protection_is_not_as_asked() {
        let code = |outcome: &Outcome| format!("{:?}", exit_code(outcome));
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(&Outcome::Left), expected(0));
        assert_eq!(code(&Outcome::Unprotected("no heartbeat".into())), expected(5));
        assert_eq!(code(&Outcome::LeftSuspended("no heartbeat".into())), expected(1));
    }

    #[test]
    fn a_cause_is_told_once() {
        let full = std::io::Error::other("no room");
        let told = anyhow::Error::new(colo_core::save::SaveError::Sink(full)).context("web is not saved");
        assert_eq!(one_line(&told), "web is not saved: writing the stream: no room");
        let plain: anyhow::Result<()> = Err(std::io::Error::other("two\nlines")).context("image");
        assert_eq!(one_line(&plain.unwrap_err()), "image: two; lines");
    }
}
