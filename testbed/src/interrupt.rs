//! Commands in dom0 that are interrupted half-way.

use crate::control::Done;
use crate::host::Host;
use anyhow::Result;
use colo_testbed_inside::protocol::Outcome;
use std::fmt;
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

/// When a command is interrupted.
#[derive(Clone, Debug)]
pub(crate) enum When {
    /// So long after its start.
    After(Duration),
    /// When this node in xenstore is written to for the so many-th time.
    Written {
        /// Its path.
        node: String,
        /// From 1 on.
        times: u32,
    },
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::After(time) => write!(f, "after {time:.3?}"),
            When::Written { node, times } => write!(f, "when {node} is written to for the {times}. time"),
        }
    }
}

/// How long a command may take that fails: less than a guest has to suspend itself, so that one that waits for nothing is found.
pub(crate) const FAIL_LIMIT: Duration = Duration::from_secs(45);

/// Runs a command in dom0 and interrupts it. Waits, too, for the end of all that it started and left behind, `colo`'s own processes
/// included; the outcome is its own.
pub(crate) fn interrupt(host: &Host, command: &str, when: &When, by: Interruption) -> Result<Done> {
    let group = matches!(by, Interruption::KillAll | Interruption::Interrupt);
    let whom = if group { "-- -$pid" } else { "$pid" };
    let (before, wait) = match when {
        When::After(time) => (String::new(), format!("usleep {}", time.as_micros())),
        // It hears of its watch when that is set, too: only then may the command begin.
        When::Written { node, times } => (
            format!("exec 4< <(exec xenstore-watch -n {} {node}); read -u 4", times + 1),
            format!("for n in $(seq {times}); do read -u 4; done"),
        ),
    };
    // -m: it gets a process group of its own, and hears SIGINT. What the shell says of its end is not what it says itself.
    // Nothing tells of the end of a process that is nobody's child any more: it is looked for.
    let script = format!(
        "set -m; {before}\nexec 3>&2 2>/dev/null; {command} 2>&3 3>&- 4<&- & pid=$!; {wait}; kill -{} {whom}; wait $pid; \
         code=$?; while kill -0 -- -$pid || grep -qsx colo /proc/[0-9]*/comm; do usleep 20000; done >/dev/null; exit $code",
        by.signal(),
    );
    host.try_sh(&script, FAIL_LIMIT)
}
