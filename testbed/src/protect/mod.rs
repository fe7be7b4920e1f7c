//! The protection of a guest by a second host, whatever does it: `colo`, or `xl remus`, which it is measured by.

mod checkpoints;
mod colo;
mod xl;

pub(crate) use checkpoints::Checkpoints;

use crate::host::Host;
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// What protects a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Tool {
    /// `xl remus`, in the only way that Debian's can do it: nothing of a guest's output is held back.
    Xl,
    /// Ours.
    Colo,
}

/// How `colo` protects it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Mode {
    /// The guest runs on both hosts.
    Colo,
    /// The guest runs on one, and its output is held back.
    Remus,
}

impl Mode {
    /// As it is written on a command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Colo => "colo",
            Mode::Remus => "remus",
        }
    }
}

/// A protection as it is wanted.
#[derive(Clone)]
pub(crate) struct Plan<'a> {
    /// The host on which the guest is.
    pub(crate) from: &'a Host,
    /// The host that shall have it when the first one dies.
    pub(crate) to: &'a Host,
    /// The guest.
    pub(crate) guest: &'a str,
    /// How.
    pub(crate) mode: Mode,
    /// Remus: between two checkpoints.
    pub(crate) interval: Duration,
    /// Whether the memory on both hosts is compared after each checkpoint.
    pub(crate) verify: bool,
    /// How long it may last.
    pub(crate) limit: Duration,
    /// A command that makes sure that the first host is dead before the second takes over. Without one the second is told that it need
    /// not be sure.
    pub(crate) fence: Option<&'a str>,
}

/// A protection that has begun.
pub(crate) trait Protection {
    /// Waits until the second host could take over.
    fn wait_protected(&mut self) -> Result<()>;

    /// The checkpoints so far. An error if the protection has ended.
    fn checkpoints(&mut self) -> Result<&Checkpoints>;

    /// Kills the host on which the guest is, and says when that was.
    fn kill_primary(&mut self) -> Result<Instant>;

    /// Waits until the second host has taken over.
    fn wait_taken_over(&mut self) -> Result<()>;

    /// Ends the protection: the guest stays where it is, unprotected.
    fn end(self: Box<Self>) -> Result<()>;

    /// Ends what is left of it after the second host has taken over, and the guest is gone.
    fn close(self: Box<Self>) -> Result<()>;
}

impl<'a> Plan<'a> {
    /// Begins.
    pub(crate) fn start(self, tool: Tool) -> Result<Box<dyn Protection + 'a>> {
        match tool {
            Tool::Xl if self.verify => bail!("xl remus cannot verify anything"),
            Tool::Xl if self.fence.is_some() => bail!("xl remus knows no fencing"),
            Tool::Xl => Ok(Box::new(xl::Xl::start(self)?)),
            Tool::Colo => Ok(Box::new(colo::Colo::start(self)?)),
        }
    }
}
