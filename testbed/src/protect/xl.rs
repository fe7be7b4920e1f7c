//! `xl remus -F -n -d`, which is all that Debian's `xl` can do: forced, without network buffering, without disks.
//!
//! It has no heartbeat, and hears of a host's death only if a connection is closed: so that is done for it, at the last moment, and its
//! outage is without the time that it would take to find out.

use super::{Checkpoints, DiskCopy, Plan, Protection};
use crate::control::Running;
use anyhow::{Context, Result, bail, ensure};
use colo_testbed_inside::protocol::Outcome;
use std::time::{Duration, Instant};

const PORT: u16 = 7001;
/// Between two checkpoints: `xl`'s own is the same.
const INTERVAL: Duration = Duration::from_millis(200);
/// Where all of the sender's log is, in dom0: the testbed gets what is of interest.
const LOG: &str = "/tmp/xl-remus.log";
/// What the sender says at each checkpoint.
const SUSPENDED: &str = "now suspended";
/// The first copy of a guest takes half a minute on a machine that does nothing else.
const COPY_LIMIT: Duration = Duration::from_secs(240);
/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(60);
/// What the sender says when it has lost the other host.
const UNPROTECTED: &str = "Backup failed? resuming domain at primary";
const KILL: u8 = 9;

pub(super) struct Xl<'a> {
    plan: Plan<'a>,
    sender: Running<'a>,
    receiver: Running<'a>,
    checkpoints: Checkpoints,
}

impl<'a> Xl<'a> {
    pub(super) fn start(plan: Plan<'a>) -> Result<Xl<'a>> {
        let receive = format!("socat -d -d TCP-LISTEN:{PORT},reuseaddr EXEC:'xl migrate-receive -r',nofork");
        let mut receiver = plan.to.spawn(&receive, plan.limit)?;
        receiver.wait_said("listening on")?;
        let interval = plan.interval.unwrap_or(INTERVAL).as_millis();
        let (guest, peer) = (plan.guest, plan.to.link_address());
        let send = format!(
            "set -o pipefail; xl -vvv remus -F -n -d -i {interval} -s '' {guest} \
             'socat -b 262144 - TCP:{peer}:{PORT},nodelay' 2>&1 | \
             awk '{{ print > \"{LOG}\" }} /{SUSPENDED}|rror|ailed/ {{ print; fflush() }}'"
        );
        let sender = plan.from.spawn(&send, plan.limit)?;
        Ok(Xl { plan, sender, receiver, checkpoints: Checkpoints::default() })
    }

    /// Takes what the sender has said until this moment, at the longest until there are so many checkpoints.
    fn listen(&mut self, until: Instant, enough: usize) -> Result<()> {
        while self.checkpoints.count() < enough {
            match self.sender.next_line(until)? {
                Some(line) if line.contains(SUSPENDED) => self.checkpoints.add("interval"),
                Some(_) => (),
                None => break,
            }
        }
        if let Some(outcome) = self.sender.ended() {
            let log = self.plan.from.sh(&format!("tail -n 12 {LOG}")).map(|done| done.stdout).unwrap_or_default();
            bail!("xl remus has ended: {outcome:?}: {log}");
        }
        Ok(())
    }
}

impl Protection for Xl<'_> {
    fn wait_protected(&mut self) -> Result<()> {
        // With the second the first is known to be on the other host.
        self.listen(Instant::now() + COPY_LIMIT, 2)?;
        ensure!(self.checkpoints.count() >= 2, "xl remus has no checkpoint after {} s", COPY_LIMIT.as_secs());
        Ok(())
    }

    fn checkpoints(&mut self) -> Result<&Checkpoints> {
        self.listen(Instant::now(), usize::MAX)?;
        Ok(&self.checkpoints)
    }

    fn disk_copy(&self) -> Option<&DiskCopy> {
        None
    }

    fn kill_primary(&mut self) -> Result<Instant> {
        self.plan.from.sh("kill -9 $(pidof socat)")?;
        self.plan.from.kill()
    }

    fn kill_secondary(&mut self) -> Result<Instant> {
        // For this it has no heartbeat either.
        self.plan.to.sh("killall -9 xl")?;
        self.plan.to.kill()
    }

    fn wait_unprotected(&mut self) -> Result<()> {
        let until = Instant::now() + LIMIT;
        while let Some(line) = self.sender.next_line(until)? {
            if line.contains(UNPROTECTED) {
                return Ok(());
            }
        }
        bail!("xl remus does not say that the guest is unprotected");
    }

    fn wait_ended(&mut self) -> Result<String> {
        bail!("xl remus does not say how it ends")
    }

    fn wait_held(&mut self) -> Result<()> {
        bail!("xl remus holds nothing")
    }

    fn promote(&mut self) -> Result<()> {
        bail!("xl remus always takes over")
    }

    fn wait_taken_over(&mut self) -> Result<()> {
        self.receiver.wait_said("Remus Failover for domain")
    }

    fn end(self: Box<Self>) -> Result<()> {
        let Xl { plan, sender, receiver, .. } = *self;
        // Whoever is left alone goes on: the second host must not be.
        receiver.signal(KILL)?;
        receiver.wait()?;
        plan.to
            .sh(&format!("xl destroy {}--incoming", plan.guest))
            .context("what xl remus has left on the second host")?;
        let done = sender.wait()?;
        ensure!(done.outcome != Outcome::TimedOut, "xl remus does not end");
        Ok(())
    }

    fn leave(self: Box<Self>) -> Result<()> {
        self.sender.wait().map(drop)
    }

    fn close(self: Box<Self>) -> Result<()> {
        let done = self.receiver.wait()?;
        ensure!(done.is_good(), "xl migrate-receive: {:?}: {}", done.outcome, done.stderr);
        Ok(())
    }
}
