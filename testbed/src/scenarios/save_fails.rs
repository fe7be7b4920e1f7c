//! Saves that fail, in every way that they can: the guest runs on, and no file is left that could be taken for an image.

use super::Scenario;
use super::save_restore::DIRTY_PAGES;
use crate::context::Context;
use crate::control::Done;
use crate::guest::{Guest, GuestConfig, GuestType};
use crate::host::{COMMAND_LIMIT, Host, HostConfig};
use crate::interrupt::{FAIL_LIMIT, Interruption, When, interrupt};
use crate::random::Random;
use crate::transfer::{Tool, Way};
use anyhow::{Context as _, Result, bail, ensure};
use colo_testbed_inside::protocol::Outcome;
use std::time::{Duration, Instant};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "save-fails",
    about: "one host: saves that find no room, are killed, or whose guest does not suspend, leave the guest running",
    limit: Duration::from_secs(1500),
    needs_root: false,
    run,
};

/// SIGINT.
const INTERRUPT: u8 = 2;
/// Where images are, and nothing else.
const FOLDER: &str = "/tmp/saves";
/// Where savers keep each other out.
const LOCKS: &str = "/run/colo";

fn run(context: &Context) -> Result<()> {
    let mut random = context.random();
    let host = Host::boot(context, HostConfig::alone())?;
    for kind in context.guest_types() {
        context.say(&format!("a {} guest", kind.name()));
        let (guest, _) = host.guest(&GuestConfig { dirty_pages: DIRTY_PAGES, ..GuestConfig::new(kind) })?;
        let victim = Victim::new(&host, &guest, kind)?;
        for live in [false, true] {
            victim.full_disks(context, live)?;
        }
        victim.paused()?;
        victim.killed_with_its_watcher().with_context(|| format!("{}: killed with its watcher", guest.name()))?;
        let kills = if kind == GuestType::Hvm { 2 } else { 8 };
        let mut tally = Tally::default();
        for (live, times) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
            victim.killed_when_it_suspends(live, times)?;
        }
        victim.interrupted(Interruption::Kill, kills, &mut random, &mut tally)?;
        for by in [Interruption::KillAll, Interruption::Terminate, Interruption::Interrupt] {
            victim.interrupted(by, 2, &mut random, &mut tally)?;
        }
        tally.show(context, &guest);
        ensure!(tally.unsaved > 0, "no save was interrupted before its end");
        guest.wait_rounds(1)?;
        guest.destroy()?;
        // An HVM guest takes half a minute to boot, and would tell no more than a PVH guest.
        if kind != GuestType::Hvm {
            let (deaf, _) = host.guest(&GuestConfig::new(kind).deaf())?;
            let victim = Victim::new(&host, &deaf, kind)?;
            for live in [false, true] {
                victim.deaf(context, live)?;
                victim.given_up(context, live)?;
            }
            deaf.destroy()?;
        }
    }
    Ok(())
}

/// How interrupted saves have ended.
#[derive(Default)]
struct Tally {
    /// The guest ran on, and there was no image.
    unsaved: u64,
    /// The image was whole by then.
    saved: u64,
}

impl Tally {
    fn show(&self, context: &Context, guest: &Guest<'_>) {
        context.figure_of(&format!("{}: saves interrupted before their end", guest.name()), self.unsaved, "");
        context.figure_of(&format!("{}: saves whole by then", guest.name()), self.saved, "");
    }
}

/// A guest, on which saves are tried that fail.
pub(super) struct Victim<'a> {
    host: &'a Host,
    guest: &'a Guest<'a>,
    kind: GuestType,
}

impl<'a> Victim<'a> {
    pub(super) fn new(host: &'a Host, guest: &'a Guest<'a>, kind: GuestType) -> Result<Victim<'a>> {
        host.sh(&format!("mkdir -p {FOLDER}"))?;
        Ok(Victim { host, guest, kind })
    }

    /// With no room at all, with room for a half, with room for nearly all.
    fn full_disks(&self, context: &Context, live: bool) -> Result<()> {
        let way = Way { live, ..Way::plain(Tool::Colo, Tool::Colo) };
        let file = format!("{FOLDER}/image");
        let options = if live { "--live --leave-running" } else { "--leave-running" };
        self.host.sh(&format!("colo save {options} {} {file}", self.guest.name()))?;
        // Less than its length: pages of zeroes take no room.
        let taken = self.host.sh(&format!("set -- $(du -k {file}); echo $1; rm {file}"))?.stdout;
        let taken_kib: u64 = taken.trim().parse()?;
        context.figure_of(&format!("{}: room that an image takes", self.guest.name()), taken_kib / 1024, "MiB");
        for (what, size) in [("no", 4096), ("half the", taken_kib << 9), ("nearly enough", (taken_kib - 4096) << 10)] {
            self.full_disk(&way, size).with_context(|| format!("{}: {what} room, live: {live}", self.guest.name()))?;
        }
        Ok(())
    }

    /// A disk of this size.
    pub(super) fn full_disk(&self, way: &Way<'_>, size: u64) -> Result<()> {
        let before = self.guest.counter()?;
        let disk = self.host.small_disk("small", size)?;
        let done = self.host.try_sh(&way.save(self.guest.name(), &format!("{}/image", disk.path())), FAIL_LIMIT)?;
        ensure_one_line(&done)?;
        ensure!(done.stderr.contains("No space left"), "it says {:?}", done.stderr);
        self.unharmed(before, disk.path())
    }

    fn paused(&self) -> Result<()> {
        let (name, before) = (self.guest.name(), self.guest.counter()?);
        self.host.sh(&format!("xl pause {name}"))?;
        let done = self.host.try_sh(&format!("colo save {name} {FOLDER}/image"), FAIL_LIMIT)?;
        let is_paused = self.guest.is_paused()?;
        self.host.sh(&format!("xl unpause {name}"))?;
        ensure_one_line(&done).with_context(|| format!("a save of {name}, which is paused"))?;
        ensure!(is_paused && done.stderr.contains("paused"), "{name} paused: {is_paused}; colo said {:?}", done.stderr);
        self.unharmed(before, FOLDER)
    }

    /// It has three seconds, and does not.
    fn deaf(&self, context: &Context, live: bool) -> Result<()> {
        let (name, before) = (self.guest.name(), self.guest.counter()?);
        let options = if live { "--live " } else { "" };
        let save = format!("colo save {options}--suspend-timeout 3 {name} {FOLDER}/image");
        let done = self.host.try_sh(&save, FAIL_LIMIT)?;
        ensure_one_line(&done).with_context(|| save.clone())?;
        ensure!(done.stderr.contains("suspend"), "{save}: it says {:?}", done.stderr);
        context.figure(&format!("{name}, deaf: colo save {options}--suspend-timeout 3"), done.elapsed);
        self.unharmed(before, FOLDER).with_context(|| save)
    }

    /// It has ten minutes, and whoever saves it not so much patience.
    fn given_up(&self, context: &Context, live: bool) -> Result<()> {
        let (name, before) = (self.guest.name(), self.guest.counter()?);
        let request = format!("/local/domain/{}/control/shutdown", self.guest.domain_id()?);
        let options = if live { "--live " } else { "" };
        let save = format!("colo save {options}--suspend-timeout 600 {name} {FOLDER}/image");
        // A watch is heard of when it is set, and then at each change.
        let mut watch = self.host.spawn(&format!("xenstore-watch -n 2 {request}"), COMMAND_LIMIT)?;
        watch.wait_said(&request)?;
        // It ends when it is told to, and not for want of time.
        let saving = self.host.spawn(&save, COMMAND_LIMIT)?;
        watch.wait().with_context(|| format!("{save}: the guest is not asked to suspend"))?;
        self.refused_beside_another(live)?;
        let given_up = Instant::now();
        saving.signal(INTERRUPT)?;
        let done = saving.wait()?;
        ensure_one_line(&done).with_context(|| save.clone())?;
        ensure!(done.stderr == format!("colo: {name} is not saved, and runs on: interrupted\n"), "{:?}", done.stderr);
        context.figure(format!("{name}, deaf: Ctrl-C to colo save {options}").trim_end(), given_up.elapsed());
        let asked = self.host.sh(&format!("xenstore-read {request}"))?.stdout;
        ensure!(asked.trim().is_empty(), "{save}: the guest is still asked to {}", asked.trim());
        self.unharmed(before, FOLDER).with_context(|| save)
    }

    /// There is another saver at work: this one touches nothing.
    fn refused_beside_another(&self, live: bool) -> Result<()> {
        let name = self.guest.name();
        let options = if live { "--live " } else { "" };
        let save = format!("colo save {options}{name} {FOLDER}/another");
        let done = self.host.try_sh(&save, FAIL_LIMIT)?;
        ensure_one_line(&done).with_context(|| save.clone())?;
        let start = format!("colo: {name} is being saved by another colo (process ");
        ensure!(done.stderr.starts_with(&start), "{save}: it says {:?}", done.stderr);
        let files = self.host.sh(&format!("ls -A {FOLDER}"))?.stdout;
        ensure!(!files.contains("another"), "{save}: it leaves {}", files.trim());
        Ok(())
    }

    /// At moments from a save's beginning to its end; every other save is a live one.
    fn interrupted(&self, by: Interruption, count: u32, random: &mut Random, tally: &mut Tally) -> Result<()> {
        for live in [false, true] {
            let way = Way { live, ..Way::plain(Tool::Colo, Tool::Xl) };
            let options = if live { "--live --leave-running" } else { "--leave-running" };
            let whole = self.host.sh(&format!("colo save {options} {} {FOLDER}/image", self.guest.name()))?.elapsed;
            self.host.sh(&format!("rm {FOLDER}/image"))?;
            // A save takes a little longer or shorter the next time, and one that is done is not interrupted.
            for moment in random.moments(count.div_ceil(2), whole.mul_f64(0.6)) {
                let what = || format!("{} to {way} after {moment:.3?} of {whole:.3?}", by.name());
                self.interrupted_when(&way, by, &When::After(moment), tally).with_context(what)?;
            }
        }
        Ok(())
    }

    /// Killed when the guest has just been asked to suspend itself (1), or when it has just answered (2): it will suspend itself in a
    /// moment.
    pub(super) fn killed_when_it_suspends(&self, live: bool, times: u32) -> Result<()> {
        let node = format!("/local/domain/{}/control/shutdown", self.guest.domain_id()?);
        let way = Way { live, ..Way::plain(Tool::Colo, Tool::Xl) };
        let when = When::Written { node, times };
        let what = || format!("kill -9 to {way} {when}");
        let mut tally = Tally::default();
        self.interrupted_when(&way, Interruption::Kill, &when, &mut tally).with_context(what)?;
        ensure!(tally.saved == 0, "{}: an image was whole before its guest had suspended itself", what());
        Ok(())
    }

    /// Killed with its watcher, when the guest has just answered: nobody is left who would let it go on, but `colo resume`.
    fn killed_with_its_watcher(&self) -> Result<()> {
        let (name, before) = (self.guest.name(), self.guest.counter()?);
        let node = format!("/local/domain/{}/control/shutdown", self.guest.domain_id()?);
        let mut watch = self.host.spawn(&format!("xenstore-watch -n 3 {node}"), COMMAND_LIMIT)?;
        watch.wait_said(&node)?;
        let saving = self.host.spawn(&format!("colo save {name} {FOLDER}/image"), COMMAND_LIMIT)?;
        watch.wait().with_context(|| format!("{name} does not answer"))?;
        // Stopped first, so that the one does not see the other's end.
        self.host.sh("pids=; for process in $(grep -lx colo /proc/[0-9]*/comm); do process=${process%/comm}; \
             pids+=\" ${process#/proc/}\"; done; kill -STOP $pids; kill -9 $pids")?;
        saving.wait()?;
        // Nothing tells of a domain's suspension but the hypervisor, when it is asked.
        let suspended =
            format!("until colo --json list | grep '\"name\":\"{name}\"' | grep suspended; do usleep 20000; done");
        self.host.try_sh(&suspended, FAIL_LIMIT)?;
        let refused = self.host.try_sh(&format!("colo save {name} {FOLDER}/image"), FAIL_LIMIT)?;
        ensure_one_line(&refused)?;
        ensure!(refused.stderr.contains("suspended by another"), "{:?}", refused.stderr);
        let resumed = self.host.sh(&format!("colo resume {name}"))?.stderr;
        ensure!(resumed == format!("colo: {name} runs\n"), "{resumed:?}");
        ensure!(!self.host.try_sh(&format!("colo resume {name}"), FAIL_LIMIT)?.is_good(), "{name} is resumed twice");
        self.unharmed(before, FOLDER)
    }

    fn interrupted_when(&self, way: &Way<'_>, by: Interruption, when: &When, tally: &mut Tally) -> Result<()> {
        let file = format!("{FOLDER}/image");
        let (name, before) = (self.guest.name(), self.guest.counter()?);
        let done = interrupt(self.host, &way.save(name, &file), when, by)?;
        let has_file = self.host.try_sh(&format!("[ -e {file} ]"), COMMAND_LIMIT)?.is_good();
        if !has_file {
            if done.outcome != by.death() {
                // Neither did it end by the signal before it could listen to it.
                ensure_one_line(&done)?;
            }
            tally.unsaved += 1;
            return self.unharmed(before, FOLDER);
        }
        tally.saved += 1;
        let state = self.host.sh(&format!("colo --json list | grep '\"name\":\"{name}\"' || true"))?.stdout;
        if !state.is_empty() && !state.contains("suspended") {
            // Killed before it could say that all is well.
            self.host.sh(&format!("colo inspect {file} && rm {file}"))?;
            return self.unharmed(before, FOLDER);
        }
        // The image is what counts from then on; what is left of the domain, if it was not yet gone, must not have run: it would
        // be seen to count back.
        self.host.sh(&format!("colo inspect {file}"))?;
        let counted = self.guest.counter()?;
        self.host.sh(&format!("if xl domid {name}; then xl destroy {name}; fi"))?;
        self.host.sh(&way.restore(&file))?;
        self.guest.check(counted).with_context(|| format!("its image was whole ({done:?})"))?;
        self.host.sh(&format!("rm {file}"))?;
        self.unharmed(before, FOLDER)
    }

    /// The guest runs, its device model too, nobody logs its writes any more, no file is there, and no lock.
    fn unharmed(&self, before: u64, folder: &str) -> Result<()> {
        self.guest.check(before)?;
        if self.kind == GuestType::Hvm {
            self.guest.ensure_device_model()?;
        }
        let files = self.host.sh(&format!("find {folder} {LOCKS} -mindepth 1"))?.stdout;
        ensure!(files.is_empty(), "left behind: {}", files.trim().replace('\n', ", "));
        ensure_log_is_off(self.host, self.guest)
    }
}

/// Whether a command has failed as commands do: with exit code 1 and one line.
pub(super) fn ensure_one_line(done: &Done) -> Result<()> {
    ensure!(done.outcome == Outcome::Code(1), "it does not fail: {done:?}");
    ensure!(done.stderr.lines().count() == 1 && done.stderr.starts_with("colo: "), "it says {:?}", done.stderr);
    ensure!(done.stdout.is_empty(), "it says {:?}", done.stdout);
    Ok(())
}

/// Whether the hypervisor does not log what the guest writes, as it says itself.
fn ensure_log_is_off(host: &Host, guest: &Guest<'_>) -> Result<()> {
    let id = guest.domain_id()?;
    let said = host.sh("xl dmesg -c >/dev/null; xl debug-keys q; xl dmesg")?.stdout;
    let begin = format!("General information for domain {id}:");
    let Some((_, of_domain)) = said.split_once(&begin) else { bail!("Xen says nothing of domain {id}: {said}") };
    let of_domain = of_domain.split("General information for domain").next().unwrap_or_default();
    ensure!(!of_domain.contains("log_dirty"), "the writes of {} are still logged", guest.name());
    ensure!(of_domain.contains("nr_pages"), "Xen says less than it did of domain {id}: {of_domain}");
    Ok(())
}
