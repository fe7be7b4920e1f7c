//! A guest saved by one tool and restored by another, or by the same: what must hold for all of them.

use crate::context::Context;
use crate::guest::{Guest, ensure_gone};
use crate::host::Host;
use crate::verify::ensure_valid;
use anyhow::{Context as _, Result, ensure};
use std::fmt;
use std::time::Duration;

/// What saves and restores guests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
}

/// How a guest goes through a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    /// What saves it.
    pub(crate) saver: Tool,
    /// Its memory is copied while it runs. (`colo` only.)
    pub(crate) live: bool,
    /// What restores it.
    pub(crate) restorer: Tool,
    /// It is restored paused, and unpaused by `xl`.
    pub(crate) paused: bool,
    /// It is restored under another name. (`colo` only.)
    pub(crate) new_name: Option<&'a str>,
}

impl<'a> Way<'a> {
    /// Saved by one, restored by another, or by the same.
    pub(crate) fn plain(saver: Tool, restorer: Tool) -> Way<'a> {
        Way { saver, live: false, restorer, paused: false, new_name: None }
    }

    /// The saving command.
    pub(crate) fn save(&self, domain: &str, file: &str) -> String {
        let live = if self.live { " --live" } else { "" };
        format!("{} save{live} {domain} {file}", self.saver.name())
    }

    /// The restoring command.
    pub(crate) fn restore(&self, file: &str) -> String {
        let paused = match self.restorer {
            _ if !self.paused => "",
            Tool::Xl => " -p",
            Tool::Colo => " --paused",
        };
        let name = self.new_name.map_or(String::new(), |name| format!(" --name {name}"));
        format!("{} restore{paused}{name} {file}", self.restorer.name())
    }
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.save("", "").trim_end(), self.restore("").trim_end())
    }
}

/// What a guest's way through a file took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crossing {
    /// The saving command.
    pub(crate) save: Duration,
    /// The restoring command.
    pub(crate) restore: Duration,
}

/// Saves a guest with one tool, restores it with another, looks whether it goes on where it was, and lets Xen's verifier and `colo
/// inspect` look at the file.
///
/// The guest goes on to be one that can be saved: booting it again would take longer than all the rest.
pub(crate) fn cross(context: &Context, host: &Host, guest: &Guest<'_>, way: &Way<'_>) -> Result<Crossing> {
    cross_inner(context, host, guest, way).with_context(|| format!("{}: {way}", guest.name()))
}

fn cross_inner(context: &Context, host: &Host, guest: &Guest<'_>, way: &Way<'_>) -> Result<Crossing> {
    let image = format!("/tmp/{}.image", guest.name());
    let (id, uuid) = (guest.domain_id()?, guest.uuid()?);
    let save = host.sh(&way.save(guest.name(), &image))?.elapsed;
    // What it had counted to by then: its console is silent from now on.
    let counted = guest.counter()?;
    ensure_gone(host, guest.name(), id)?;
    let renamed = way.new_name.map(|name| guest.renamed(name));
    let guest = renamed.as_ref().unwrap_or(guest);
    if renamed.is_some() {
        guest.forget_console();
    }
    let restore = host.sh(&way.restore(&image))?.elapsed;
    if way.paused {
        ensure!(guest.is_paused()?, "it is not paused");
        host.sh(&format!("xl unpause {}", guest.name()))?;
    }
    ensure!(guest.uuid()? == uuid, "it has another UUID");
    guest.check(counted)?;
    if renamed.is_some() {
        // On a console of its own.
        ensure!(guest.first_count()? >= counted, "it counted from {} on, after {counted}", guest.first_count()?);
    }
    // Only now: bringing it here takes time, in which a guest would have to wait.
    ensure_image_valid(context, host, &image)?;
    host.sh(&format!("rm {image}"))?;
    Ok(Crossing { save, restore })
}

/// Looks whether Xen's verifier and `colo inspect` accept an image that lies in dom0.
pub(crate) fn ensure_image_valid(context: &Context, host: &Host, image: &str) -> Result<()> {
    let fetched = host.fetch(image)?;
    ensure_valid(context, &fetched)?;
    std::fs::remove_file(fetched)?;
    Ok(())
}
