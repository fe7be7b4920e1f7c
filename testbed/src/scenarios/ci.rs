//! The short version of it all, for every change: guests of each type go from one tool to the other, and saves that fail leave them
//! running. HVM guests, which take long to boot, have a host of their own, beside the other.

use super::Scenario;
use super::save_fails::Victim;
use super::save_restore::{DIRTY_PAGES, figures};
use crate::context::Context;
use crate::guest::{GuestConfig, GuestType};
use crate::host::{Host, HostConfig, Starting};
use crate::transfer::{Tool, Way, cross};
use anyhow::{Context as _, Result, anyhow};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ci",
    about: "two hosts side by side: each type of guest from colo to xl and back, a full disk, a kill; two minutes",
    limit: Duration::from_secs(900),
    needs_root: false,
    run,
};

/// Less than any image takes.
const SMALL_BYTES: u64 = 16 << 20;

fn run(context: &Context) -> Result<()> {
    let (with_devices, without): (Vec<_>, Vec<_>) =
        context.guest_types().into_iter().partition(|kind| *kind == GuestType::Hvm);
    // One after the other, by this thread: a process is tied to the thread that starts it.
    let mut hosts = Vec::new();
    for (name, types) in [("A", without), ("B", with_devices)] {
        if !types.is_empty() {
            let starting = Starting::start(context, HostConfig { name, ..HostConfig::alone() })?;
            hosts.push((starting, types));
        }
    }
    std::thread::scope(|scope| {
        let on_host = |(starting, types): (Starting, Vec<GuestType>)| {
            scope.spawn(move || {
                let host = starting.wait()?;
                types.into_iter().try_for_each(|kind| guest(context, &host, kind))
            })
        };
        let running: Vec<_> = hosts.into_iter().map(on_host).collect();
        // All of them come to their ends, also if one fails.
        let ended: Vec<Result<()>> = running
            .into_iter()
            .map(|running| running.join().unwrap_or_else(|_| Err(anyhow!("a thread has panicked"))))
            .collect();
        ended.into_iter().collect()
    })
}

fn guest(context: &Context, host: &Host, kind: GuestType) -> Result<()> {
    let config = GuestConfig { dirty_pages: DIRTY_PAGES, ..GuestConfig::new(kind) };
    let (guest, times) = host.guest(&config)?;
    context.figure(&format!("{}: ready, since xl create's start", kind.name()), times.ready);
    for way in [
        Way::plain(Tool::Colo, Tool::Xl),
        Way::plain(Tool::Xl, Tool::Colo),
        Way { live: true, ..Way::plain(Tool::Colo, Tool::Colo) },
    ] {
        figures(context, &guest, &way, cross(context, host, &guest, &way)?);
    }
    let victim = Victim::new(host, &guest, kind)?;
    let way = Way::plain(Tool::Colo, Tool::Colo);
    victim.full_disk(&way, SMALL_BYTES).with_context(|| format!("{}: a full disk", kind.name()))?;
    victim.killed_when_it_suspends(true, 2)?;
    guest.destroy()
}
