//! A guest saved by one tool and restored by another, or by the same: what must hold for all of them.

use crate::context::Context;
use crate::guest::{Guest, GuestConfig, ensure_gone};
use crate::host::{COMMAND_LIMIT, Host};
use crate::verify::verify_stream;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

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

/// Makes a guest, saves it with one tool, lets Xen's verifier look at the file, restores it with another, and looks whether it goes
/// on where it was.
pub(crate) fn crossed(
    context: &Context,
    host: &Host,
    config: &GuestConfig,
    saver: Tool,
    restorer: Tool,
) -> Result<Crossing> {
    let (guest, _) = host.guest(config)?;
    guest.check(0)?;
    let crossing = cross(context, host, &guest, config, saver, restorer)?;
    guest.destroy()?;
    Ok(crossing)
}

/// The same with a guest that runs already, and goes on to.
pub(crate) fn cross(
    context: &Context,
    host: &Host,
    guest: &Guest<'_>,
    config: &GuestConfig,
    saver: Tool,
    restorer: Tool,
) -> Result<Crossing> {
    let what = format!("{} saved by {}, restored by {}", config.name, saver.name(), restorer.name());
    let image = format!("/tmp/{}.image", config.name);
    let id = guest.domain_id()?;
    let save = host.sh(&saver.save(&config.name, &image)).with_context(|| what.clone())?.elapsed;
    // What it had counted to by then: its console is silent from now on.
    let counted = guest.counter()?;
    ensure_gone(host, &config.name, id).with_context(|| what.clone())?;
    let image_bytes: u64 = host.sh(&format!("stat -c %s {image}"))?.stdout.trim().parse()?;
    let restore = host.sh(&restorer.restore(&image)).with_context(|| what.clone())?.elapsed;
    guest.check(counted).with_context(|| what.clone())?;
    guest.wait_rounds(1).with_context(|| what.clone())?;
    // Only now: bringing it here takes time, in which a guest would have to wait.
    let fetched = host.fetch(&image)?;
    host.sh(&format!("rm {image}"))?;
    verify_stream(context, &fetched).with_context(|| what.clone())?;
    std::fs::remove_file(fetched)?;
    Ok(Crossing { save, restore, image_bytes })
}

/// A save that has no room fails, the guest goes on, and no file is left that one could take for a good one.
pub(crate) fn save_to_full_disk(host: &Host, guest: &Guest<'_>, saver: Tool) -> Result<()> {
    let before = guest.counter()?;
    let disk = host.small_disk("full", 16 << 20)?;
    let file = format!("{}/image", disk.path());
    let done = host.try_sh(&saver.save(guest.name(), &file), COMMAND_LIMIT)?;
    ensure!(!done.is_good(), "{} saved 128 MiB to a disk of 16 MiB", saver.name());
    guest.check(before).with_context(|| format!("after {} failed to save it", saver.name()))?;
    Ok(())
}
