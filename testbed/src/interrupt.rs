//! Commands in dom0 that are interrupted half-way.

use crate::control::Done;
use crate::host::{COMMAND_LIMIT, Host};
use anyhow::Result;
use colo_testbed_inside::protocol::Outcome;
use std::time::Duration;

/// By what a command is interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interruption {
    /// `kill -9`: of the process alone.
    Kill,
    /// `kill -9` of the process and all that it started, but for what has left its group.
    KillAll,
    /// SIGTERM, to the process.
    Terminate,
    /// Ctrl-C: SIGINT, to the process and all that it started.
    Interrupt,
}

impl Interruption {
    /// What a person calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Interruption::Kill => "kill -9",
            Interruption::KillAll => "kill -9 of its group",
            Interruption::Terminate => "SIGTERM",
            Interruption::Interrupt => "Ctrl-C",
        }
    }

    /// Its number.
    fn signal(self) -> u8 {
        match self {
            Interruption::Kill | Interruption::KillAll => 9,
            Interruption::Terminate => 15,
            Interruption::Interrupt => 2,
        }
    }

    /// How a command ends that this has ended.
    pub(crate) fn death(self) -> Outcome {
        // What a shell makes of a signal.
        Outcome::Code(128 + self.signal())
    }
}

/// Runs a command in dom0 and interrupts it after so long. Waits, too, for the end of all that it started and left behind, `colo`'s own
/// processes included; the outcome is its own.
pub(crate) fn interrupt(host: &Host, command: &str, after: Duration, by: Interruption) -> Result<Done> {
    let group = matches!(by, Interruption::KillAll | Interruption::Interrupt);
    let whom = if group { "-- -$pid" } else { "$pid" };
    // -m: it gets a process group of its own, and hears SIGINT. What the shell says of its end is not what it says itself.
    // Nothing tells of the end of a process that is nobody's child any more: it is looked for.
    let script = format!(
        "set -m; exec 3>&2 2>/dev/null; {command} 2>&3 3>&- & pid=$!; usleep {}; kill -{} {whom}; wait $pid; code=$?; \
         while kill -0 -- -$pid || pgrep -x colo; do usleep 20000; done >/dev/null; exit $code",
        after.as_micros(),
        by.signal(),
    );
    host.try_sh(&script, COMMAND_LIMIT)
}
