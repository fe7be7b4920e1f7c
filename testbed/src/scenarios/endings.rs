//! How a protection ends that nobody has ended: the guest shuts down, reboots, crashes, or is saved by an operator. And what does not end
//! it: a guest that gives memory back, and gets it again. And what is left when `colo` is killed, and when its guards are, too.

use super::Scenario;
use super::protect::{config, plan, types};
use crate::client::{Clients, Load};
use crate::context::Context;
use crate::examine::examined;
use crate::guest::{Guest, GuestType};
use crate::host::Host;
use crate::net::Network;
use crate::protect::Tool;
use crate::residue::Residue;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "endings",
    about: "two hosts: a protected guest shuts down, reboots, crashes, is saved, balloons; colo is killed; --mode, --type",
    limit: Duration::from_secs(3600),
    needs_root: true,
    run,
};

/// How long a guest is protected before something happens.
const WHILE: Duration = Duration::from_secs(3);

fn run(context: &Context) -> Result<()> {
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let endings: [(&str, Ending); 7] = [
        ("shuts down", |guest| guest.order("poweroff")),
        ("reboots", |guest| guest.order("reboot")),
        ("crashes", |guest| guest.order("crash")),
        ("is saved", |guest| guest.host().sh(&format!("xl save {} /tmp/image", guest.name())).map(drop)),
        ("balloons", balloon),
        ("loses colo", kill_colo),
        ("loses colo and its guards", kill_all_of_colo),
    ];
    for kind in types(context) {
        // A guest that does not know Xen does not tell it that it has crashed, and gives nothing of its memory back; and it is stopped by
        // force for a checkpoint as for `xl save`, which then finds that it runs (docs/protecting.md).
        let is_unaware = config(context, kind).is_unaware;
        let untold = |what: &str| is_unaware && ["crashes", "balloons", "is saved"].contains(&what);
        for (what, ending) in endings.into_iter().filter(|(what, _)| !untold(what)) {
            context.say(&format!("a {} guest that {what}", kind.name()));
            let tried = examined(&[&a, &b], one(context, &network, [&a, &b], kind, (what, ending)));
            tried.with_context(|| format!("a {} guest that {what}", kind.name()))?;
        }
    }
    Ok(())
}

type Ending = fn(&Guest<'_>) -> Result<()>;

fn one(
    context: &Context,
    network: &Network,
    [a, b]: [&Host; 2],
    kind: GuestType,
    (what, ending): (&str, Ending),
) -> Result<()> {
    ensure!(context.options().protector == Tool::Colo, "this is about colo");
    let before = [Residue::of(a)?, Residue::of(b)?];
    let config = config(context, kind);
    let (guest, _) = a.guest(&config)?;
    let mut clients = Clients::start(network, guest.address(), &Load::new(Duration::from_secs(60)))?;
    let mut protection = plan(context, [a, b], guest.name()).start(Tool::Colo)?;
    protection.wait_protected()?;
    clients.run_for(WHILE)?;
    let counted = guest.counter()?;
    match what {
        "balloons" => {
            ending(&guest)?;
            clients.run_for(2 * WHILE)?;
            println!("{}", protection.checkpoints()?);
            protection.end()?;
            clients.stop()?.ensure_good()?;
            guest.check(counted)?;
            guest.destroy()?;
        }
        "loses colo" | "loses colo and its guards" => {
            // Its clients lose it: what serves is with the second host by then.
            ending(&guest)?;
            protection.wait_taken_over()?;
            if what == "loses colo" {
                // The guards end what must not go on here. A card that had to stay out is known until somebody looks.
                a.sh("while grep -qsx colo /proc/[0-9]*/comm; do usleep 50000; done; colo cleanup")?;
            } else {
                cleaned_up(a, guest.name())?;
            }
            clients.run_for(2 * WHILE)?;
            clients.stop()?.ensure_good()?;
            let moved = Guest::came_to(b, &config.name, config.number)?;
            moved.check(counted)?;
            moved.destroy()?;
            protection.close()?;
        }
        _ => {
            // Not all of what its clients say is answered any more.
            let asked = ending(&guest);
            ensure!(what != "is saved" || asked.is_ok(), "xl save: {asked:?}");
            let outcome = protection.wait_ended()?;
            println!("{:<48} {outcome}", format!("{}: {what}", kind.name()));
            drop(clients);
            protection.leave()?;
            if what == "is saved" {
                a.sh("xl restore /tmp/image && rm /tmp/image")?;
                let restored = Guest::found(a, &config.name, config.number);
                restored.check(counted)?;
                restored.destroy()?;
            } else if what == "crashes" {
                // The testbed's guests are kept then.
                a.sh(&format!("xl destroy {}", config.name))?;
            }
        }
    }
    for (host, before) in [a, b].into_iter().zip(&before) {
        before.ensure_same(host).with_context(|| format!("host {}", host.name()))?;
    }
    Ok(())
}

/// Gives some of its memory back, and takes it again.
fn balloon(guest: &Guest<'_>) -> Result<()> {
    let name = guest.name();
    guest.host().sh(&format!("xl mem-set {name} 120"))?;
    guest.wait_counted(10)?;
    guest.host().sh(&format!("xl mem-set {name} 128"))?;
    guest.wait_counted(10)?;
    Ok(())
}

/// The guards are its children, and younger.
fn kill_colo(guest: &Guest<'_>) -> Result<()> {
    guest.host().sh("kill -KILL $(grep -lsx colo /proc/[0-9]*/comm | cut -d/ -f3 | sort -n | head -1)").map(drop)
}

/// All at once, so that nobody is left to put anything right.
fn kill_all_of_colo(guest: &Guest<'_>) -> Result<()> {
    // A program that is run by its number in /proc is called after that file.
    guest.host().sh("for process in $(grep -lsxE 'colo|exe' /proc/[0-9]*/comm); do kill -KILL $(basename ${process%/comm}); done").map(drop)
}

/// An operator finds out what is left, and ends it.
fn cleaned_up(a: &Host, guest: &str) -> Result<()> {
    let found = a.try_sh("colo cleanup", Duration::from_secs(60))?;
    ensure!(!found.is_good() && found.stderr.contains("is cut off from its network"), "colo cleanup: {}", found.stderr);
    a.sh(&format!("colo cleanup --end {guest}"))?;
    Ok(())
}
