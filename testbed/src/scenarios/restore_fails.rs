//! Restores that fail, in every way that they can: nothing is left of the domain that was to be, and the image can be restored
//! afterwards as if nothing had been.

use super::Scenario;
use super::save_fails::ensure_one_line;
use crate::context::Context;
use crate::guest::{Guest, GuestConfig, GuestType};
use crate::host::{COMMAND_LIMIT, Host, HostConfig};
use crate::image::VMLINUX;
use crate::interrupt::{Interruption, When, interrupt};
use crate::random::Random;
use crate::records::Records;
use crate::residue::Residue;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "restore-fails",
    about: "one host: restores of damaged images, without memory, killed, or of a domain that is there, leave nothing behind",
    limit: Duration::from_secs(1500),
    needs_root: false,
    run,
};

/// An image that is good, and one that is made not to be.
const GOOD: &str = "/tmp/good.image";
const BAD: &str = "/tmp/bad.image";

fn run(context: &Context) -> Result<()> {
    let mut random = context.random();
    let host = Host::boot(context, HostConfig::alone())?;
    for kind in context.guest_types() {
        context.say(&format!("a {} guest", kind.name()));
        let (guest, _) = host.guest(&GuestConfig::new(kind))?;
        let counted = guest.counter()?;
        host.sh(&format!("colo save --leave-running {} {GOOD}", guest.name()))?;
        let image = Image { context, host: &host, guest: &guest, counted, kind };
        image.is_there()?;
        host.sh(&format!("xl destroy {}", guest.name()))?;
        // The first domain of a host leaves some folders.
        let clean = Residue::of(&host)?;
        image.no_images(&clean)?;
        image.name_of_another(&clean)?;
        image.damaged(&clean)?;
        image.no_memory(&clean)?;
        let whole = image.restored(&clean)?;
        let kills = if kind == GuestType::Hvm { 4 } else { 8 };
        let mut tally = Tally::default();
        image.interrupted(Interruption::Kill, kills, whole, &mut random, &clean, &mut tally)?;
        // With xl and its helper: nobody but the watcher is left.
        image.interrupted(Interruption::KillAll, kills, whole, &mut random, &clean, &mut tally)?;
        for by in [Interruption::Terminate, Interruption::Interrupt] {
            image.interrupted(by, kills / 2, whole, &mut random, &clean, &mut tally)?;
        }
        tally.show(context, kind);
        ensure!(tally.nothing > 0, "no restore was interrupted before its end");
        image.restored(&clean)?;
        host.sh(&format!("rm {GOOD}"))?;
    }
    Ok(())
}

/// How interrupted restores have ended.
#[derive(Default)]
struct Tally {
    /// Nothing was left.
    nothing: u64,
    /// The domain was there by then, whole.
    whole: u64,
}

impl Tally {
    fn show(&self, context: &Context, kind: GuestType) {
        context.figure_of(&format!("{}: restores interrupted before their end", kind.name()), self.nothing, "");
        context.figure_of(&format!("{}: restores done by then", kind.name()), self.whole, "");
    }
}

/// The good image, and what is known of the guest in it.
struct Image<'a> {
    context: &'a Context,
    host: &'a Host,
    guest: &'a Guest<'a>,
    /// What it had counted to when it was saved, at least.
    counted: u64,
    kind: GuestType,
}

impl Image<'_> {
    /// The guest of the image runs, as the very domain that it was: that must not be taken for a part of what has failed, nor get a
    /// double under another name.
    fn is_there(&self) -> Result<()> {
        let before = self.guest.counter()?;
        let (uuid, residue) = (self.guest.uuid()?, Residue::of(self.host)?);
        for options in ["", "--name another "] {
            let restore = format!("colo restore {options}{GOOD}");
            self.refused_by(&restore, &[&uuid], &residue).context("a UUID that is taken")?;
        }
        self.guest.check(before)?;
        Ok(())
    }

    /// Another domain has the name of the guest, which is gone.
    fn name_of_another(&self, clean: &Residue) -> Result<()> {
        let name = self.guest.name();
        let config = format!("name = '{name}'\ntype = 'pv'\nmemory = 128\nkernel = '/tmp/kernels/{VMLINUX}'\n");
        let file = self.host.give("another.cfg", config.as_bytes())?;
        self.host.sh(&format!("xl create -p {file}"))?;
        let residue = Residue::of(self.host)?;
        let said =
            format!("colo: {GOOD}: there is a domain {name} already; --name gives the restored one another name\n");
        self.refused(GOOD, &[&said], &residue).context("a name that is taken")?;
        self.host.sh(&format!("xl destroy {name}"))?;
        clean.ensure_same(self.host)
    }

    fn no_images(&self, clean: &Residue) -> Result<()> {
        self.host.sh(&format!("echo no image > {BAD}"))?;
        self.refused(BAD, &["no Xen domain image"], clean)?;
        self.host.sh(&format!(": > {BAD}"))?;
        self.refused(BAD, &["empty"], clean)?;
        self.refused("/tmp", &["directory"], clean)?;
        self.refused("/tmp/nothing", &["No such file"], clean)?;
        self.refused("/dev/null", &["empty"], clean)?;
        Ok(())
    }

    fn damaged(&self, clean: &Residue) -> Result<()> {
        let said = self.host.sh(&format!("colo inspect --records --json {GOOD}"))?.stdout;
        let records = Records::parse(&said)?;
        let pages = records.middle("PAGE_DATA")?;
        let size: u64 = self.host.sh(&format!("stat -c %s {GOOD}"))?.stdout.trim().parse()?;
        self.host.sh(&format!("cp {GOOD} {BAD}"))?;
        for (what, length) in [
            ("without its last byte", size - 1),
            ("cut after libxc's END", records.last("libxc", "END")? + 8),
            ("cut before libxc's END", records.last("libxc", "END")?),
            ("cut in its tail", records.last("libxc", "END")? - 8),
            ("cut within pages", pages + 5000),
            ("cut between pages", pages),
            ("cut in its head", 100),
        ] {
            // The longest first: they become shorter.
            self.host.sh(&format!("truncate -s {length} {BAD}"))?;
            self.refused(BAD, &[], clean).context(what)?;
        }

        let state = if self.kind == GuestType::Pv { "X86_PV_VCPU_BASIC" } else { "HVM_CONTEXT" };
        let state = records.first("libxc", state)?;
        // A record begins with its type and its length, 4 bytes each.
        let mut patches: Vec<(&str, u64, Vec<u8>)> = vec![
            ("the length of a record of pages", pages + 4, vec![16]),
            ("the type of a record", state, vec![0x7f, 0, 0, 0]),
            ("the length of a record", state + 4, vec![8, 0, 0, 0]),
            ("what a record says of processors", state + 8, vec![0xa5; 512]),
        ];
        if self.kind == GuestType::Hvm {
            let emulator = records.first("libxl", "EMULATOR_CONTEXT")?;
            patches.push(("the device model's state", emulator + 16, vec![0xa5; 64]));
        }
        patches.push(self.other_type()?);
        for (what, offset, bytes) in patches {
            let patch = self.host.give("patch", &bytes)?;
            self.host.sh(&format!(
                "cp {GOOD} {BAD} && dd if={patch} of={BAD} bs=1 seek={offset} conv=notrunc status=none"
            ))?;
            self.refused(BAD, &[], clean).context(what)?;
        }
        self.host.sh(&format!("rm {BAD}"))?;
        Ok(())
    }

    /// A configuration that promises another type of guest than the one that follows.
    fn other_type(&self) -> Result<(&'static str, u64, Vec<u8>)> {
        self.host.sh(&format!("dd if={GOOD} of=/tmp/head bs=16k count=1"))?;
        let head = std::fs::read(self.host.fetch("/tmp/head")?)?;
        let (own, other) = match self.kind {
            GuestType::Pv => (r#""type":"pv""#, r#""type":"pw""#),
            GuestType::Pvh => (r#""type":"pvh""#, r#""type":"pv" "#),
            GuestType::Hvm => (r#""type":"hvm""#, r#""type":"pv" "#),
        };
        let at = head.windows(own.len()).position(|bytes| bytes == own.as_bytes());
        Ok(("the type of the guest", at.context("the configuration has no type")? as u64, other.into()))
    }

    /// Another domain has so much memory that too little is left.
    fn no_memory(&self, clean: &Residue) -> Result<()> {
        let free = self.host.sh("xl info | sed -n 's/^free_memory *: //p'")?.stdout;
        let memory = free.trim().parse::<u64>()?.saturating_sub(60);
        let config = format!("name = 'hog'\ntype = 'pv'\nmemory = {memory}\nkernel = '/tmp/kernels/{VMLINUX}'\n");
        let file = self.host.give("hog.cfg", config.as_bytes())?;
        self.host.sh(&format!("xl create -p {file}"))?;
        let residue = Residue::of(self.host)?;
        self.refused(GOOD, &["memory"], &residue).context("no memory")?;
        self.host.sh("xl destroy hog")?;
        clean.ensure_same(self.host)
    }

    /// It is refused, in one line and with exit code 1, and nothing is left.
    fn refused(&self, file: &str, words: &[&str], clean: &Residue) -> Result<()> {
        self.refused_by(&format!("colo restore {file}"), words, clean)
    }

    fn refused_by(&self, restore: &str, words: &[&str], clean: &Residue) -> Result<()> {
        let done = self.host.try_sh(restore, COMMAND_LIMIT)?;
        println!("{:4} {:<40} {:6.2} s", self.kind.name(), done.stderr.trim_end(), done.elapsed.as_secs_f64());
        ensure_one_line(&done).with_context(|| restore.to_owned())?;
        ensure!(!done.stderr.contains("/proc/"), "{restore}: it says {:?}", done.stderr);
        let has_said = words.is_empty() || words.iter().any(|word| done.stderr.contains(word));
        ensure!(has_said, "{restore}: it says {:?}", done.stderr);
        clean.ensure_same(self.host).with_context(|| format!("{restore}: {:?}", done.stderr))
    }

    /// It can be restored; says how long that takes.
    fn restored(&self, clean: &Residue) -> Result<Duration> {
        self.guest.forget_console();
        let whole = self.host.sh(&format!("colo restore {GOOD}"))?.elapsed;
        self.is_whole(clean)?;
        Ok(whole)
    }

    /// The guest is there, and goes on where it was saved. It is destroyed then.
    fn is_whole(&self, clean: &Residue) -> Result<()> {
        self.guest.check(self.counted)?;
        if self.kind == GuestType::Hvm {
            self.guest.ensure_device_model()?;
        }
        self.host.sh(&format!("xl destroy {}", self.guest.name()))?;
        clean.ensure_same(self.host)
    }

    /// At moments from a restore's beginning to its end.
    fn interrupted(
        &self,
        by: Interruption,
        count: u32,
        whole: Duration,
        random: &mut Random,
        clean: &Residue,
        tally: &mut Tally,
    ) -> Result<()> {
        for moment in random.moments(count, whole.mul_f64(0.95)) {
            let what = format!("{} to colo restore after {moment:.3?} of {whole:.3?}", by.name());
            self.context.say(&what);
            self.guest.forget_console();
            let done = interrupt(self.host, &format!("colo restore {GOOD}"), &When::After(moment), by)?;
            let is_there = self.host.try_sh(&format!("xl domid {}", self.guest.name()), COMMAND_LIMIT)?.is_good();
            if is_there {
                self.is_whole(clean).with_context(|| format!("{what}: the domain is there ({done:?})"))?;
                tally.whole += 1;
                continue;
            }
            if done.outcome != by.death() {
                ensure_one_line(&done).with_context(|| what.clone())?;
            }
            clean.ensure_same(self.host).with_context(|| format!("{what} ({done:?})"))?;
            tally.nothing += 1;
        }
        Ok(())
    }
}
