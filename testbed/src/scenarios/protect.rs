//! A guest is protected for a while, and then no more: its clients must not see any of it but in their latencies.

use super::Scenario;
use crate::client::{Clients, Load};
use crate::context::Context;
use crate::examine::examined;
use crate::guest::{GuestConfig, GuestType};
use crate::host::Host;
use crate::net::Network;
use crate::protect::{Mode, Plan, Promotion, Tool};
use crate::residue::Residue;
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "protect",
    about: "two hosts: a guest with clients is protected for --seconds, and no more then; --mode, --protector, --type",
    limit: Duration::from_secs(3600),
    needs_root: true,
    run,
};

/// How long clients are watched after a host has died: longer than any outage may be.
pub(super) const OUTAGE: Duration = Duration::from_secs(15);
/// How long clients are at work after the protection has ended.
const AFTERWARDS: Duration = Duration::from_secs(5);

fn run(context: &Context) -> Result<()> {
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    for kind in types(context) {
        context.say(&format!("a {} guest", kind.name()));
        let tried = examined(&[&a, &b], guest(context, &network, [&a, &b], kind));
        tried.with_context(|| format!("a {} guest", kind.name()))?;
    }
    Ok(())
}

fn guest(context: &Context, network: &Network, [a, b]: [&Host; 2], kind: GuestType) -> Result<()> {
    let time = Duration::from_secs(context.options().seconds);
    let (guest, _) = a.guest(&config(context, kind))?;
    let before = [Residue::of(a)?, Residue::of(b)?];
    let mut load = load(context, time * 2);
    if kind == GuestType::Hvm && is_lock_step(context) {
        // Its card is emulated, and what is left of the download is waited for.
        load.download_bytes_per_s /= 10;
    }
    let mut clients = Clients::start(network, guest.address(), &load)?;
    let alone = Instant::now();
    clients.run_for(time / 3)?;

    let begun = Instant::now();
    let mut protection = plan(context, [a, b], guest.name()).start(context.options().protector)?;
    protection.wait_protected()?;
    let protected = Instant::now();
    context.figure(&format!("{}: until it is protected", kind.name()), protected - begun);
    let sent = a.sent_bytes(b)?;
    clients.run_for(time)?;
    println!("{}", protection.checkpoints()?);
    context.figure_of(&format!("{}: sent to the second host", kind.name()), a.sent_bytes(b)? - sent, "bytes");
    let ended = Instant::now();
    protection.end()?;
    let over = Instant::now();
    context.figure(&format!("{}: the protection's end", kind.name()), over - ended);
    clients.run_for(AFTERWARDS)?;

    let seen = clients.stop()?;
    let windows = [
        ("unprotected", alone, begun),
        ("first copy", begun, protected),
        ("protected", protected, ended),
        ("end", ended, over),
    ];
    for (what, from, to) in windows {
        seen.print_between(&format!("{}: {what}", kind.name()), from, to);
    }
    seen.print();
    seen.ensure_good()?;
    let requests = seen.requests()?;
    let median = |from, to| requests.between(from, to).percentile(50).context("no request was answered");
    let ratio = median(protected, ended)?.as_secs_f64() / median(alone, begun)?.as_secs_f64();
    println!("{}: median latency of requests, protected / unprotected: {ratio:.2}", kind.name());
    for (host, before) in [a, b].into_iter().zip(&before) {
        before.ensure_same(host).with_context(|| format!("host {}, after the protection's end", host.name()))?;
    }
    guest.check(0)?;
    guest.destroy()
}

/// What the options ask for. `xl` can protect no PV guests on Debian's Xen, which has no log-dirty mode for them.
pub(super) fn types(context: &Context) -> Vec<GuestType> {
    let mut types = context.guest_types();
    if context.options().protector == Tool::Xl {
        types.retain(|kind| *kind != GuestType::Pv);
    }
    types
}

/// A guest of this type that can be protected as the options ask for it.
pub(super) fn config(context: &Context, kind: GuestType) -> GuestConfig {
    let is_unaware = kind == GuestType::Hvm && is_lock_step(context);
    let config = if is_unaware { GuestConfig::unaware() } else { GuestConfig::new(kind) };
    GuestConfig { vcpus: context.options().vcpus, ..config }
}

fn is_lock_step(context: &Context) -> bool {
    context.options().protector == Tool::Colo && context.options().mode == Mode::Colo
}

/// A protection as the options ask for it, from the first host to the second.
pub(super) fn plan<'a>(context: &Context, [from, to]: [&'a Host; 2], guest: &'a str) -> Plan<'a> {
    let options = context.options();
    Plan {
        from,
        to,
        guest,
        mode: options.mode,
        interval: options.interval_ms.map(Duration::from_millis),
        heartbeat: options.heartbeat_ms.map(Duration::from_millis),
        verify: options.verify,
        has_disk: false,
        limit: SCENARIO.limit,
        promotion: Promotion::Unfenced,
    }
}

/// One of each client; and where two machines answer, one that has them differ.
pub(super) fn load(context: &Context, time: Duration) -> Load {
    Load { has_clock: is_lock_step(context), ..Load::new(time) }
}
