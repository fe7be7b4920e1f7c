//! The protection of a guest by a second host, whatever does it: `colo`, or `xl remus`, which it is measured by.

mod checkpoints;
mod colo;
mod disk_copy;
mod fence;
mod xl;

pub(crate) use checkpoints::Checkpoints;
pub(crate) use disk_copy::DiskCopy;
pub(crate) use fence::Fence;

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
    /// Between two checkpoints, at the latest, if it is not to be what is usual.
    pub(crate) interval: Option<Duration>,
    /// Between two heartbeats, likewise.
    pub(crate) heartbeat: Option<Duration>,
    /// Whether the memory on both hosts is compared after each checkpoint.
    pub(crate) verify: bool,
    /// Whether the guest has a disk, which both hosts serve ([`ServedDisk`](crate::disk::ServedDisk)).
    pub(crate) has_disk: bool,
    /// How long it may last.
    pub(crate) limit: Duration,
    /// What the second host does when it hears nothing of the first any more.
    pub(crate) promotion: Promotion,
}

/// What a host does that hears nothing of the other any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Promotion {
    /// It takes over: it has been told that the risk is accepted.
    Unfenced,
    /// It has the other one fenced ([`Fence`]), and takes over then.
    Fenced,
    /// It has no means to be sure that the other is dead, and has been told nothing.
    Never,
}

/// A protection that has begun.
pub(crate) trait Protection {
    /// Waits until the second host could take over.
    fn wait_protected(&mut self) -> Result<()>;

    /// The checkpoints so far. An error if the protection has ended.
    fn checkpoints(&mut self) -> Result<&Checkpoints>;

    /// How the second host's disks were made like the first one's, if there are some. Known when the guest is protected.
    fn disk_copy(&self) -> Option<&DiskCopy>;

    /// Kills the host on which the guest is, and says when that was.
    fn kill_primary(&mut self) -> Result<Instant>;

    /// Kills the second host, and says when that was.
    fn kill_secondary(&mut self) -> Result<Instant>;

    /// Waits until the first host knows that the guest has no protection any more. It has to run on there.
    fn wait_unprotected(&mut self) -> Result<()>;

    /// Waits until the first host says that it is over, whoever has ended it, and returns how.
    fn wait_ended(&mut self) -> Result<String>;

    /// Waits until the second host holds the guest: it hears nothing of the first, and must not take over by itself.
    fn wait_held(&mut self) -> Result<()>;

    /// Tells the second host, as an operator, that the first one is dead.
    fn promote(&mut self) -> Result<()>;

    /// Waits until the second host has taken over.
    fn wait_taken_over(&mut self) -> Result<()>;

    /// Ends the protection: the guest stays where it is, unprotected.
    fn end(self: Box<Self>) -> Result<()>;

    /// Ends what is left of it on both hosts, if both live, after the first has lost the second.
    fn leave(self: Box<Self>) -> Result<()>;

    /// Ends what is left of it on the second host, after that has taken over.
    fn close(self: Box<Self>) -> Result<()>;
}

impl<'a> Plan<'a> {
    /// Begins.
    pub(crate) fn start(self, tool: Tool) -> Result<Box<dyn Protection + 'a>> {
        self.to.take_kernels()?;
        match tool {
            Tool::Xl if self.verify => bail!("xl remus cannot verify anything"),
            Tool::Xl if self.has_disk => bail!("Debian's xl remus has no disks"),
            Tool::Xl if self.promotion != Promotion::Unfenced => {
                bail!("xl remus knows no fencing, and always takes over")
            }
            Tool::Xl => Ok(Box::new(xl::Xl::start(self)?)),
            Tool::Colo => Ok(Box::new(colo::Colo::start(self)?)),
        }
    }
}
