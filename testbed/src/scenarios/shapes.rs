//! Guests of another shape than the others' have: several vCPUs, and less memory than they may have, so that their balloon has taken
//! pages away, which an image must not hold and a restore not miss.

use super::Scenario;
use super::save_restore::{DIRTY_PAGES, figures};
use crate::context::Context;
use crate::guest::GuestConfig;
use crate::host::{Host, HostConfig};
use crate::transfer::{Tool, Way, cross};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "shapes",
    about: "one host: guests of each type with two vCPUs and a balloon that has taken pages are saved and restored",
    limit: Duration::from_secs(1200),
    needs_root: false,
    run,
};

/// More than they get.
const MOST_MIB: u32 = 192;

fn run(context: &Context) -> Result<()> {
    let host = Host::boot(context, HostConfig::alone())?;
    for kind in context.guest_types() {
        context.say(&format!("a {} guest", kind.name()));
        let lines = format!("vcpus = 2\nmaxmem = {MOST_MIB}\n");
        let config = GuestConfig { dirty_pages: DIRTY_PAGES, lines, ..GuestConfig::new(kind) };
        let memory_mib = config.memory_mib;
        let (guest, _) = host.guest(&config)?;
        guest.check(0)?;
        for way in [
            Way { live: true, ..Way::plain(Tool::Colo, Tool::Colo) },
            Way::plain(Tool::Colo, Tool::Xl),
            Way::plain(Tool::Xl, Tool::Colo),
        ] {
            figures(context, &guest, &way, cross(context, &host, &guest, &way)?);
            let listed = host.sh(&format!("xl list {}", guest.name()))?.stdout;
            let words: Vec<&str> = listed.lines().last().context("an empty list")?.split_whitespace().collect();
            let has = words[2].parse::<u32>()?;
            ensure!(has <= memory_mib + 4 && words[3] == "2", "{way}: it comes to have {}", words[2..].join(" "));
        }
        guest.wait_rounds(1)?;
        guest.destroy()?;
    }
    Ok(())
}
