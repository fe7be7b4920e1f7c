//! A protected guest with a disk loses its host: a database on an ext4 file system, with a client whose every transaction is acknowledged when
//! it is durable. The second host's disk is empty at first. In the end all that was acknowledged must be there, for the guest, and for whoever
//! looks at the disk from without.

use super::Scenario;
use super::deaths::{Death, each_death};
use super::protect::{OUTAGE, config, load, plan, types};
use crate::client::{Clients, Load, Record, Seen};
use crate::context::Context;
use crate::disk::{BACKING, CONTROL, DEVICE, ServedDisk, Side, ensure_file_system_clean};
use crate::guest::Guest;
use crate::host::Host;
use crate::net::Network;
use crate::protect::{Plan, Tool};
use crate::residue::Residue;
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk",
    about: "two hosts: a protected guest with a database loses its host; nothing acknowledged is lost; --mode, --type, --times",
    limit: Duration::from_secs(7200),
    needs_root: true,
    run,
};

pub(super) const TWICE: Scenario = Scenario {
    name: "disk-twice",
    about: "three hosts: a guest with a database loses its host, is protected by the third one without a stop, and loses the second, too",
    limit: Duration::from_secs(3600),
    needs_root: true,
    run: twice,
};

/// How long clients are at work before the guest is protected.
pub(super) const ALONE: Duration = Duration::from_secs(5);
/// The host dies at most so long after the guest is protected.
pub(super) const WHOLE: Duration = Duration::from_secs(15);

fn run(context: &Context) -> Result<()> {
    ensure!(context.options().protector == Tool::Colo, "this is about colo");
    let network = Network::new(context, 2)?;
    let hosts = network.boot(context)?;
    each_death(context, &network, hosts, WHOLE, |hosts, death| once(context, &network, hosts, death))
}

fn twice(context: &Context) -> Result<()> {
    ensure!(context.options().protector == Tool::Colo, "this is about colo");
    let moments = context.random().moments(2, WHOLE);
    let network = Network::new(context, 3)?;
    let [a, b, c] = network.boot(context)?;
    let kind = *types(context).first().context("no type of guest is left")?;
    let disks = [(&a, Side::Primary), (&b, Side::Secondary), (&c, Side::Secondary)];
    let [first, second, third] = disks.map(|(host, side)| ServedDisk::new(host, side));
    // That of a host that is killed goes with it.
    let (first, _second, third) = (first?, second?, third?);
    first.make_file_system()?;
    let config = config(context, kind).with_disk();
    a.guest(&config)?;
    let mut entries = 0;
    for ([from, to], moment) in [[&a, &b], [&b, &c]].into_iter().zip(moments) {
        to.logs().forget_all();
        let guest = if entries == 0 {
            Guest::found(from, &config.name, config.number)
        } else {
            Guest::came_to(from, &config.name, config.number)?
        };
        let mut clients = Clients::start(&network, guest.address(), &with_ledger(context))?;
        let plan = Plan { has_disk: true, ..plan(context, [from, to], guest.name()) };
        let mut protection = plan.start(Tool::Colo)?;
        protection.wait_protected()?;
        clients.run_for(moment)?;
        let killed = protection.kill_primary()?;
        protection.wait_taken_over()?;
        clients.run_for(OUTAGE)?;
        let seen = clients.stop()?;
        seen.print();
        seen.ensure_good()?;
        entries += seen.ledger()?.whole().answers();
        context.figure(&format!("{}: outage, transactions", guest.name()), seen.ledger()?.outage_since(killed).length);
        protection.close()?;
    }
    let moved = Guest::came_to(&c, &config.name, config.number)?;
    moved.power_off()?;
    moved.destroy()?;
    ensure_file_system_clean(&c, DEVICE)?;
    third.ensure_ledger(entries)?;
    third.stop()
}

fn once(context: &Context, network: &Network, [a, b]: [&Host; 2], death: &Death) -> Result<()> {
    let disks = [ServedDisk::new(a, Side::Primary)?, ServedDisk::new(b, Side::Secondary)?];
    disks[0].make_file_system()?;
    let config = config(context, death.kind).with_disk();
    let (guest, _) = a.guest(&config)?;
    let before = Residue::of(b)?;
    // The one that was there is another one.
    b.logs().forget_all();
    let entries = fail_over(context, network, [a, b], &guest, death.moment)?;

    let [_, disk] = disks;
    before.ensure_same(b).context("host B, after the guest's end")?;
    context.figure(&format!("{}: fsck.ext4, which finds nothing", guest.name()), ensure_file_system_clean(b, DEVICE)?);
    disk.ensure_ledger(entries)?;
    disk.stop()?;
    // Nothing is left in the journal.
    ensure_file_system_clean(b, BACKING)?;
    Ok(())
}

/// Protects the guest, kills its host, and ends the guest. Returns how many transactions were acknowledged.
fn fail_over(
    context: &Context,
    network: &Network,
    [a, b]: [&Host; 2],
    guest: &Guest<'_>,
    moment: Duration,
) -> Result<usize> {
    let mut clients = Clients::start(network, guest.address(), &with_ledger(context))?;
    let alone = Instant::now();
    clients.run_for(ALONE)?;
    let begun = Instant::now();
    let plan = Plan { has_disk: true, ..plan(context, [a, b], guest.name()) };
    let mut protection = plan.start(Tool::Colo)?;
    protection.wait_protected()?;
    let protected = Instant::now();
    let counted = guest.counter()?;
    let verified = a.sh(&format!("colo disk verify --control {CONTROL}"))?;
    context.figure(&format!("{}: colo disk verify, which finds no difference", guest.name()), verified.elapsed);
    clients.run_for(moment)?;
    println!("{}", protection.checkpoints()?);

    let killed = protection.kill_primary()?;
    protection.wait_taken_over()?;
    clients.run_for(OUTAGE)?;
    let ended = Instant::now();
    // It is now that the client looks at what is there.
    let seen = clients.stop()?;
    let windows = [
        ("unprotected", alone, begun),
        ("first copy", begun, protected),
        ("protected", protected, killed),
        ("after the host's death", killed, ended),
    ];
    let ledger = look_at(context, guest.name(), &seen, &windows)?;
    let copy = protection.disk_copy().context("no disk was copied")?;
    println!("{}: first copy of the disk: {copy}", guest.name());
    ensure!(copy.sent_bytes() > 0, "the second host's disk is empty, and nothing is sent to it");
    ensure!(ledger.between(killed + OUTAGE / 2, ended).answers() > 0, "there is no transaction on the second host");
    context.figure(&format!("{}: outage, pings", guest.name()), seen.pings()?.outage_since(killed).length);
    context.figure(&format!("{}: outage, transactions", guest.name()), ledger.outage_since(killed).length);

    let moved = Guest::came_to(b, guest.name(), guest.number())?;
    moved.check(counted)?;
    moved.shut_down()?;
    protection.close()?;
    Ok(ledger.whole().answers())
}

/// Clients that leave the guest time for its database, of which one is a client.
pub(super) fn with_ledger(context: &Context) -> Load {
    Load { is_light: true, has_ledger: true, ..load(context, OUTAGE) }
}

/// Prints what clients have seen in each of these times, and how many transactions there were. Returns what the ledger's client has seen; an
/// error if something went wrong.
pub(super) fn look_at<'a>(
    context: &Context,
    name: &str,
    seen: &'a Seen,
    windows: &[(&str, Instant, Instant)],
) -> Result<&'a Record> {
    for (what, from, to) in windows {
        seen.print_between(&format!("{name}: {what}"), *from, *to);
    }
    seen.print();
    seen.ensure_good()?;
    let ledger = seen.ledger()?;
    for (what, from, to) in windows {
        let transactions = ledger.between(*from, *to).answers() as u64;
        context.figure_of(&format!("{name}: transactions, {what}"), transactions, "");
    }
    Ok(ledger)
}
