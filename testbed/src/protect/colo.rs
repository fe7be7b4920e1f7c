//! `colo primary` on one host and `colo secondary` on the other, which tell what happens in lines of JSON.

use super::{Checkpoints, DiskCopy, Mode, Plan, Promotion, Protection, fence};
use crate::control::{Done, Running};
use crate::disk::CONTROL;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// The first copy of a guest takes half a minute on a machine that does nothing else.
const COPY_LIMIT: Duration = Duration::from_secs(240);
/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(60);
/// What `colo secondary` takes as the word that the primary is dead.
const USER_1: u8 = 10;
const TERMINATE: u8 = 15;

pub(super) struct Colo<'a> {
    plan: Plan<'a>,
    primary: Events<'a>,
    secondary: Events<'a>,
    checkpoints: Checkpoints,
    disk_copy: DiskCopy,
}

impl<'a> Colo<'a> {
    pub(super) fn start(plan: Plan<'a>) -> Result<Colo<'a>> {
        let [primary, secondary] = commands(&plan);
        let mut secondary = Events::new("colo secondary", plan.to.spawn(&secondary, plan.limit)?);
        secondary.wait("listening", LIMIT, |_| Ok(()))?;
        let primary = Events::new("colo primary", plan.from.spawn(&primary, plan.limit)?);
        Ok(Colo { plan, primary, secondary, checkpoints: Checkpoints::default(), disk_copy: DiskCopy::default() })
    }
}

/// The commands for the primary and the secondary.
fn commands(plan: &Plan<'_>) -> [String; 2] {
    let peer = plan.to.link_address();
    let mut primary =
        format!("exec colo primary --json --domain {} --peer {peer} --mode {}", plan.guest, plan.mode.name());
    let mut secondary = format!("exec colo secondary --json --listen {peer}");
    if let Some(interval) = plan.interval {
        primary += &format!(" --interval {}", interval.as_millis());
    }
    if let Some(heartbeat) = plan.heartbeat {
        primary += &format!(" --heartbeat {}", heartbeat.as_millis());
    }
    if plan.mode == Mode::Colo {
        // In the folder that is shared with this machine: for `colo why`, and for Wireshark.
        let file = format!("/host/miscompares-{}.pcapng", plan.guest);
        primary = format!("rm -f {file}; {primary} --record-miscompares {file}");
    }
    if plan.verify {
        primary += " --verify";
        secondary += " --verify";
    }
    if plan.has_disk {
        primary += &format!(" --disk-control {CONTROL}");
        secondary += &format!(" --disk-control {CONTROL}");
    }
    match plan.promotion {
        Promotion::Unfenced => secondary += " --promote-unfenced",
        Promotion::Fenced => {
            // Each side, or the one without would serve on until it is shot.
            primary += &format!(" --fence-command '{}'", fence::COMMAND);
            secondary += &format!(" --fence-command '{}'", fence::COMMAND);
        }
        Promotion::Never => (),
    }
    // Each step, for whoever wonders; the testbed keeps what grows in this folder.
    let logged = |command: String, role| format!("{command} -v 2>>/var/log/xen/colo-{role}-{}.log", plan.guest);
    [logged(primary, "primary"), logged(secondary, "secondary")]
}

impl Protection for Colo<'_> {
    fn wait_protected(&mut self) -> Result<()> {
        let Colo { checkpoints, disk_copy, .. } = self;
        self.primary.wait("protected", COPY_LIMIT, |event| {
            disk_copy.see(event, Instant::now())?;
            count(checkpoints, event)
        })
    }

    fn disk_copy(&self) -> Option<&DiskCopy> {
        self.plan.has_disk.then_some(&self.disk_copy)
    }

    fn checkpoints(&mut self) -> Result<&Checkpoints> {
        let checkpoints = &mut self.checkpoints;
        self.primary.take(Instant::now(), |event| count(checkpoints, event).map(|()| false))?;
        self.primary.ensure_runs()?;
        self.secondary.take(Instant::now(), |event| {
            checkpoints.add_way(event);
            Ok(false)
        })?;
        self.secondary.ensure_runs()?;
        Ok(&self.checkpoints)
    }

    fn kill_primary(&mut self) -> Result<Instant> {
        self.plan.from.kill()
    }

    fn kill_secondary(&mut self) -> Result<Instant> {
        self.plan.to.kill()
    }

    fn wait_unprotected(&mut self) -> Result<()> {
        self.primary.wait("unprotected", LIMIT, |_| Ok(()))
    }

    fn wait_ended(&mut self) -> Result<String> {
        let mut outcome = String::new();
        self.primary.wait("ended", LIMIT, |event| {
            if let Some(ended) = event["outcome"].as_str() {
                outcome = ended.into();
            }
            Ok(())
        })?;
        Ok(outcome)
    }

    fn wait_held(&mut self) -> Result<()> {
        self.secondary.wait("held", LIMIT, |_| Ok(()))
    }

    fn promote(&mut self) -> Result<()> {
        self.secondary.running.signal(USER_1)
    }

    fn wait_taken_over(&mut self) -> Result<()> {
        self.secondary.wait("took-over", LIMIT, |_| Ok(()))
    }

    fn end(self: Box<Self>) -> Result<()> {
        let mut this = *self;
        this.primary.running.signal(TERMINATE)?;
        let ended = this.primary.running.wait()?;
        ensure!(ended.is_good(), "colo primary: {:?}", ended.outcome);
        // It knows by then, and waits for the next machine.
        this.secondary.wait("unprotected", LIMIT, |_| Ok(()))?;
        this.secondary.running.signal(TERMINATE)?;
        let ended = this.secondary.running.wait()?;
        ensure!(ended.is_good(), "colo secondary: {:?}", ended.outcome);
        Ok(())
    }

    fn leave(self: Box<Self>) -> Result<()> {
        self.primary.end()?;
        // Its host may be gone, or it may have ended in whatever way it thinks right: the guest is not with it.
        let _ = self.secondary.end();
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        let done = self.secondary.end()?;
        ensure!(done.is_good(), "colo secondary: {:?}: {}", done.outcome, done.stderr);
        Ok(())
    }
}

/// Counts what is a checkpoint. That the guest is not protected any more is an error: nobody has asked for it.
fn count(checkpoints: &mut Checkpoints, event: &Value) -> Result<()> {
    match event["event"].as_str() {
        Some("checkpoint") => checkpoints.add_event(event),
        Some("peer-lost" | "unprotected" | "fence-failed" | "ended") => bail!("colo primary: {}", event["text"]),
        _ => Ok(()),
    }
}

/// A command that tells what happens.
struct Events<'a> {
    name: &'static str,
    running: Running<'a>,
}

impl<'a> Events<'a> {
    fn new(name: &'static str, running: Running<'a>) -> Events<'a> {
        Events { name, running }
    }

    /// Waits for an event. `each` sees all of them, this one included.
    fn wait(&mut self, event: &str, limit: Duration, mut each: impl FnMut(&Value) -> Result<()>) -> Result<()> {
        let is_there = self.take(Instant::now() + limit, |told| {
            each(told)?;
            Ok(told["event"] == event)
        })?;
        if !is_there {
            self.ensure_runs()?;
            bail!("{}: nothing of {event:?} within {} s", self.name, limit.as_secs());
        }
        Ok(())
    }

    /// Takes events that come until this moment, or until one is the one that is looked for: whether it came.
    fn take(&mut self, until: Instant, mut is_it: impl FnMut(&Value) -> Result<bool>) -> Result<bool> {
        while let Some(line) = self.running.next_line(until)? {
            let event = serde_json::from_str(&line).with_context(|| format!("{}: {line:?} is no event", self.name))?;
            if is_it(&event)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends it, if it has not ended by itself.
    fn end(mut self) -> Result<Done> {
        self.take(Instant::now(), |_| Ok(false))?;
        if self.running.ended().is_none() {
            self.running.signal(TERMINATE)?;
        }
        self.running.wait()
    }

    fn ensure_runs(&self) -> Result<()> {
        match self.running.ended() {
            Some(outcome) => bail!("{} has ended: {outcome:?} (why is in its log)", self.name),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_counted_and_what_is_an_end() {
        let mut checkpoints = Checkpoints::default();
        let mut see = |event| count(&mut checkpoints, &event);
        see(json!({"event": "protected", "epoch": 1, "text": "protected"})).unwrap();
        see(json!({"event": "checkpoint", "trigger": "interval", "pause_ms": 1.5, "dirty_pages": 2, "stream_bytes": 9000}))
            .unwrap();
        let lost = see(json!({"event": "peer-lost", "how": "silence", "text": "the peer is silent"}));
        assert_eq!(lost.unwrap_err().to_string(), "colo primary: \"the peer is silent\"");
        assert_eq!(checkpoints.count(), 1);
    }
}
