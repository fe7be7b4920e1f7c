//! A guest saved by one tool and restored by another, or by the same: what must hold for all of them.

use crate::context::Context;
use crate::guest::{Guest, ensure_gone};
use crate::host::{COMMAND_LIMIT, Host};
use crate::verify::verify_stream;
use anyhow::{Context as _, Result, ensure};
use colo_testbed_inside::protocol::Outcome;
use std::time::Duration;

/// SIGKILL.
const KILL: u8 = 9;

/// What saves and restores guests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Tool {
    /// Xen's own.
    Xl,
    /// Ours.
    Colo,
}

impl Tool {
    /// Its command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::Xl => "xl",
            Tool::Colo => "colo",
        }
    }

    /// Saves a domain; it is gone afterwards.
    pub(crate) fn save(self, domain: &str, file: &str) -> String {
        format!("{} save {domain} {file}", self.name())
    }

    /// Restores what is in a file.
    pub(crate) fn restore(self, file: &str) -> String {
        format!("{} restore {file}", self.name())
    }
}

/// What a guest's way through a file took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crossing {
    /// The saving command.
    pub(crate) save: Duration,
    /// The restoring command.
    pub(crate) restore: Duration,
    /// The file's size.
    pub(crate) image_bytes: u64,
}

/// Saves a guest with one tool, restores it with another, looks whether it goes on where it was, and lets Xen's verifier look at the
/// file.
///
/// The guest goes on to be one that can be saved: booting it again would take longer than all the rest.
pub(crate) fn cross(
    context: &Context,
    host: &Host,
    guest: &Guest<'_>,
    saver: Tool,
    restorer: Tool,
) -> Result<Crossing> {
    let what = format!("{} saved by {}, restored by {}", guest.name(), saver.name(), restorer.name());
    let image = format!("/tmp/{}.image", guest.name());
    let id = guest.domain_id()?;
    let save = host.sh(&saver.save(guest.name(), &image)).with_context(|| what.clone())?.elapsed;
    // What it had counted to by then: its console is silent from now on.
    let counted = guest.counter()?;
    ensure_gone(host, guest.name(), id).with_context(|| what.clone())?;
    let image_bytes: u64 = host.sh(&format!("stat -c %s {image}"))?.stdout.trim().parse()?;
    let restore = host.sh(&restorer.restore(&image)).with_context(|| what.clone())?.elapsed;
    guest.check(counted).with_context(|| what.clone())?;
    // Only now: bringing it here takes time, in which a guest would have to wait.
    let fetched = host.fetch(&image)?;
    host.sh(&format!("rm {image}"))?;
    verify_stream(context, &fetched).with_context(|| what.clone())?;
    std::fs::remove_file(fetched)?;
    Ok(Crossing { save, restore, image_bytes })
}

/// A save that has no room fails, and the guest goes on. Ours leaves no file, either, that one could take for a good one.
pub(crate) fn save_to_full_disk(host: &Host, guest: &Guest<'_>, saver: Tool) -> Result<()> {
    let what = format!("{} saves {} to a full disk", saver.name(), guest.name());
    let before = guest.counter()?;
    let disk = host.small_disk("small", 16 << 20)?;
    let file = format!("{}/image", disk.path());
    let done = host.try_sh(&saver.save(guest.name(), &file), COMMAND_LIMIT)?;
    ensure!(!done.is_good(), "{what}: with success");
    ensure!(!done.stderr.is_empty(), "{what}: without a word");
    guest.check(before).with_context(|| what.clone())?;
    if saver == Tool::Colo {
        host.sh(&format!("[ ! -e {file} ]")).with_context(|| format!("{what}: a file is left"))?;
    }
    Ok(())
}

/// A save that is killed while it waits for the guest to suspend leaves the guest running. The guest must be a deaf one: so there is
/// time to kill it.
pub(crate) fn save_killed(host: &Host, guest: &Guest<'_>, saver: Tool) -> Result<()> {
    let what = format!("{}, killed while it saves {}", saver.name(), guest.name());
    let before = guest.counter()?;
    let request = format!("/local/domain/{}/control/shutdown", guest.domain_id()?);
    let file = format!("/tmp/{}.image", guest.name());
    // A watch is heard of when it is set, and then at each change.
    let mut watch = host.spawn(&format!("xenstore-watch -n 2 {request}"), COMMAND_LIMIT)?;
    watch.wait_said(&request)?;
    let save = host.spawn(&saver.save(guest.name(), &file), COMMAND_LIMIT)?;
    watch.wait().with_context(|| format!("{what}: the guest is not asked to suspend"))?;
    save.signal(KILL)?;
    let done = save.wait()?;
    ensure!(done.outcome == Outcome::Signal(KILL), "{what}: {done:?}");
    guest.check(before).with_context(|| what.clone())?;
    if saver == Tool::Colo {
        host.sh(&format!("[ ! -e {file} ]")).with_context(|| format!("{what}: a file is left"))?;
    }
    host.sh(&format!("rm -f {file}"))?;
    Ok(())
}
