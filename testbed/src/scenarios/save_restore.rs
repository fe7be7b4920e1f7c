//! Guests of each type go through files, one time after the other: `colo`'s into `xl`, `xl`'s into `colo`, `colo`'s into `colo`, in
//! all ways that `colo` has.

use super::Scenario;
use crate::context::Context;
use crate::guest::{Guest, GuestConfig};
use crate::host::{Host, HostConfig};
use crate::transfer::{Crossing, Tool, Way, cross, ensure_image_valid};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "save-restore",
    about: "one host: guests of each type are saved and restored by colo and xl, in all ways and options",
    limit: Duration::from_secs(1200),
    needs_root: false,
    run,
};

/// Five thousand pages in ten seconds: what is not copied in the right order is seen.
pub(super) const DIRTY_PAGES: u32 = 100;

fn run(context: &Context) -> Result<()> {
    let host = Host::boot(context, HostConfig::alone())?;
    for kind in context.guest_types() {
        context.say(&format!("a {} guest", kind.name()));
        let config = GuestConfig { dirty_pages: DIRTY_PAGES, ..GuestConfig::new(kind) };
        let (guest, _) = host.guest(&config)?;
        guest.check(0)?;
        let other_name = format!("{}-renamed", guest.name());
        let plain = Way::plain(Tool::Colo, Tool::Colo);
        for way in [
            Way::plain(Tool::Colo, Tool::Xl),
            Way::plain(Tool::Xl, Tool::Colo),
            plain,
            Way { live: true, ..plain },
            Way { live: true, ..Way::plain(Tool::Colo, Tool::Xl) },
            Way { paused: true, ..plain },
        ] {
            figures(context, &guest, &way, cross(context, &host, &guest, &way)?);
        }
        let way = Way { new_name: Some(&other_name), ..Way::plain(Tool::Xl, Tool::Colo) };
        figures(context, &guest, &way, cross(context, &host, &guest, &way)?);
        // Its image has the new name, and is restored under the old one.
        let guest = guest.renamed(&other_name);
        let way = Way { new_name: Some(kind.name()), ..plain };
        figures(context, &guest, &way, cross(context, &host, &guest, &way)?);
        let guest = guest.renamed(kind.name());
        for live in [false, true] {
            let way = Way { live, ..plain };
            run_on(context, &host, &guest, &way).with_context(|| format!("{}: {way}, running on", guest.name()))?;
        }
        guest.wait_rounds(1)?;
        guest.destroy()?;
    }
    Ok(())
}

/// Prints them.
pub(super) fn figures(context: &Context, guest: &Guest<'_>, way: &Way<'_>, crossing: Crossing) {
    let name = format!("{}: {way}", guest.name());
    context.figures(&name, &[("save", crossing.save), ("restore", crossing.restore)]);
}

/// The guest is saved and runs on; then it is destroyed, and restored as it was when it was saved.
fn run_on(context: &Context, host: &Host, guest: &Guest<'_>, way: &Way<'_>) -> Result<()> {
    let image = "/tmp/running-on.image";
    let live = if way.live { "--live " } else { "" };
    let before = guest.counter()?;
    let saved = host.sh(&format!("colo --json save {live}--leave-running {} {image}", guest.name()))?;
    let said: serde_json::Value = serde_json::from_str(&saved.stdout).context("colo's JSON")?;
    let pause = said["pause_ms"].as_f64().context("colo does not say how long the guest stood still")?;
    let saved_by = guest.check(before)?;
    ensure_image_valid(context, host, image)?;
    let uuid = guest.uuid()?;
    host.sh(&format!("xl destroy {}", guest.name()))?;
    guest.forget_console();
    let restored = host.sh(&way.restore(image))?;
    guest.check(before)?;
    let first = guest.first_count()?;
    ensure!(
        before <= first && first <= saved_by,
        "it counted from {first} on, and was saved from {before} to {saved_by}"
    );
    ensure!(guest.uuid()? == uuid, "it has another UUID");
    host.sh(&format!("rm {image}"))?;
    let name = format!("{}: colo save {live}--leave-running, colo restore", guest.name());
    let pause = Duration::from_secs_f64(pause / 1e3);
    context.figures(&name, &[("save", saved.elapsed), ("pause", pause), ("restore", restored.elapsed)]);
    Ok(())
}
