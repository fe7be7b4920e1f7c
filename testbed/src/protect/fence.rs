//! A fence: a command in one host's dom0 that ends well when the other host is dead. It is the testbed that kills it.

use crate::control::Running;
use crate::host::{COMMAND_LIMIT, Host};
use anyhow::{Result, ensure};
use std::time::Duration;

/// The command.
pub(super) const COMMAND: &str = "sh /host/fence";
/// It asks by way of one pipe, and has its answer by way of another.
const SCRIPT: &str = "echo please > /tmp/fence.asked && read answer < /tmp/fence.answer && [ \"$answer\" = dead ]\n";

/// A fence that a host has.
pub(crate) struct Fence<'a> {
    host: &'a Host,
    asked: Running<'a>,
}

impl<'a> Fence<'a> {
    /// Gives a host a fence, which may be asked for within so long.
    pub(crate) fn new(host: &'a Host, limit: Duration) -> Result<Fence<'a>> {
        host.give("fence", SCRIPT.as_bytes())?;
        host.sh("rm -f /tmp/fence.asked /tmp/fence.answer; mkfifo /tmp/fence.asked /tmp/fence.answer")?;
        Ok(Fence { host, asked: host.spawn("cat /tmp/fence.asked", limit)? })
    }

    /// Waits until it is asked for.
    pub(crate) fn wait_asked(self) -> Result<Asked<'a>> {
        let done = self.asked.wait()?;
        ensure!(done.stdout == "please\n", "the fence of host {} was asked: {:?}", self.host.name(), done.stdout);
        Ok(Asked { host: self.host })
    }

    /// Waits until it is asked for, kills the other host, and tells that it is dead.
    pub(crate) fn wait_and_kill(self, other: &Host) -> Result<()> {
        let asked = self.wait_asked()?;
        other.kill()?;
        asked.answer()
    }
}

/// A fence that has been asked for, and whoever has asked waits. Dropped, it has no answer.
pub(crate) struct Asked<'a> {
    host: &'a Host,
}

impl Asked<'_> {
    /// Tells that the other host is dead.
    pub(crate) fn answer(self) -> Result<()> {
        self.host.sh_within("echo dead > /tmp/fence.answer", COMMAND_LIMIT)?;
        Ok(())
    }
}
