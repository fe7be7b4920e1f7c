//! A protected guest whose disk is one that both hosts reach: nothing of it is copied, and whoever takes over makes it what it was at its
//! epoch. So only one may write to it at any time, and a fence says which.

use super::Scenario;
use super::deaths::{Death, each_death};
use super::disk::{ALONE, WHOLE, look_at, with_ledger};
use super::losses::ensure_serves;
use super::protect::{OUTAGE, config, plan, types};
use crate::client::Clients;
use crate::context::Context;
use crate::disk::{CONTROL, DEVICE, SIZE_BYTES, ServedDisk, Side, ensure_file_system_clean};
use crate::guest::{Guest, GuestType};
use crate::host::{COMMAND_LIMIT, Host};
use crate::lun::{LUN, Lun};
use crate::net::Network;
use crate::protect::{Fence, Plan, Promotion, Protection, Tool};
use crate::residue::Residue;
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-shared",
    about: "two hosts, one disk: a guest with a database on it loses its host; nothing acknowledged is lost; --mode, --type, --times",
    limit: Duration::from_secs(7200),
    needs_root: true,
    run,
};

pub(super) const CUT: Scenario = Scenario {
    name: "disk-shared-cut",
    about: "two hosts that live, one disk, and no link between them: one of them goes on with the disk, and the other does not",
    limit: Duration::from_secs(3600),
    needs_root: true,
    run: cut,
};

/// What a LUN's blocks may be.
const LUN_BLOCKS: [u32; 2] = [512, 4096];
/// How long before the host's death dom0 begins to write beside the guest.
const MARKING: Duration = Duration::from_secs(1);
/// Where it writes: to the last page, of which no file system knows.
const MARK: u64 = SIZE_BYTES / 4096 - 1;
/// How long a fence takes: whoever has asked for it must not touch anything meanwhile.
const FENCING: Duration = Duration::from_secs(2);

fn run(context: &Context) -> Result<()> {
    ensure!(context.options().protector == Tool::Colo, "this is about colo");
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    for block_bytes in LUN_BLOCKS {
        context.say(&format!("two caches over a LUN with blocks of {block_bytes}"));
        around_caches(context, &network, [&a, &b], block_bytes)
            .with_context(|| format!("a LUN with blocks of {block_bytes}"))?;
    }
    let mut luns = LUN_BLOCKS.iter().cycle();
    each_death(context, &network, [a, b], WHOLE, |hosts, death| {
        let lun = Lun::new(context, &network)?;
        let block_bytes = *luns.next().context("a circle has no end")?;
        hosts.into_iter().try_for_each(|host| lun.connect(host, block_bytes))?;
        once(context, &network, hosts, &lun, death)?;
        lun.disconnect(hosts[1])
    })
}

/// Each host's kernel has the LUN in its cache, as it was. Both servers must see what others have written, and others what they write.
fn around_caches(context: &Context, network: &Network, hosts: [&Host; 2], block_bytes: u32) -> Result<()> {
    const AT: u64 = 1 << 20;
    let lun = Lun::new(context, network)?;
    let bytes: Vec<u8> = (0..AT).map(|at| (at % 251) as u8).collect();
    let mut disks = Vec::new();
    for (host, side) in hosts.into_iter().zip([Side::Primary, Side::Secondary]) {
        lun.connect(host, block_bytes)?;
        let disk = ServedDisk::shared(host, side)?;
        // A guest may want to write less than a block of the LUN.
        disk.disconnect()?;
        disk.connect(1, 512)?;
        // The cache stays, because the server has the device open.
        host.sh(&format!("dd if={LUN} of=/dev/null bs=1M"))?;
        host.give("pattern", &bytes)?;
        disks.push(disk);
    }
    lun.write(AT, &bytes)?;
    for host in hosts {
        let reads = |from| format!("dd if={from} bs=1M skip=1 count=1 | cmp - /host/pattern");
        let cached = host.try_sh(&reads(LUN.to_owned()), COMMAND_LIMIT)?;
        ensure!(!cached.is_good(), "host {} has nothing of {LUN} in its cache: this shows nothing", host.name());
        let direct = host.sh(&reads(format!("{DEVICE} iflag=direct")));
        direct.with_context(|| format!("host {} does not read what is there", host.name()))?;
    }
    // Neither whole blocks nor at their beginnings, if those are of 4096; and nobody asks for a flush.
    hosts[0].sh(&format!("dd if=/host/pattern of={DEVICE} bs=512 skip=1 seek=2057 count=13 oflag=direct"))?;
    let mut expected = [vec![0; AT as usize], bytes.clone()].concat();
    expected[2057 * 512..][..13 * 512].copy_from_slice(&bytes[512..][..13 * 512]);
    ensure!(lun.read()?[..expected.len()] == expected, "what was written is not on the LUN");
    let read = format!("dd if={DEVICE} bs=512 skip=2057 count=13 iflag=direct");
    let same = format!("{read} > /tmp/part; dd if=/host/pattern bs=512 skip=1 count=13 | cmp - /tmp/part");
    hosts[1].sh(&same).context("host B does not read what host A has written")?;
    disks.into_iter().try_for_each(ServedDisk::stop)?;
    hosts.into_iter().try_for_each(|host| lun.disconnect(host))
}

fn once(
    context: &Context,
    network: &Network,
    [a, b]: [&Host; 2],
    lun: &Lun<'_>,
    &Death { kind, moment, .. }: &Death,
) -> Result<()> {
    let [disk, others] = [ServedDisk::shared(a, Side::Primary)?, ServedDisk::shared(b, Side::Secondary)?];
    disk.make_file_system()?;
    let config = config(context, kind).with_disk();
    let (guest, _) = a.guest(&config)?;
    let before = Residue::of(b)?;
    // The one that was there is another one.
    b.logs().forget_all();
    let fence = Fence::new(b, SCENARIO.limit)?;
    // It is never asked.
    let _first = Fence::new(a, SCENARIO.limit)?;

    let mut clients = Clients::start(network, guest.address(), &with_ledger(context))?;
    let alone = Instant::now();
    clients.run_for(ALONE)?;
    let begun = Instant::now();
    let mut protection = fenced(context, [a, b], &guest)?;
    protection.wait_protected()?;
    let (protected, counted) = (Instant::now(), guest.counter()?);
    clients.run_for(moment)?;
    println!("{}", protection.checkpoints()?);
    // A guest that does again what it has done writes the same, and so would not notice that it was there. This is done once.
    let _marks = a.spawn(&marks(), SCENARIO.limit)?;
    clients.run_for(MARKING)?;

    let killed = protection.kill_primary()?;
    let fencing = fence.wait_asked()?;
    let left = lun.read()?;
    clients.run_for(FENCING)?;
    ensure!(lun.read()? == left, "the second host writes before it knows that the first is dead");
    // What its guest sees is of its epoch.
    let read = format!("dd if={DEVICE} bs=4096 skip={MARK} count=1 iflag=direct 2>/dev/null");
    let counts = mark(b.sh(&read)?.stdout.as_bytes())?;
    println!("{}: {} marks are on the disk, of which {counts} count", guest.name(), mark(last_page(&left))?);
    let fenced = Instant::now();
    fencing.answer()?;
    protection.wait_taken_over()?;
    let over = Instant::now();
    clients.run_for(OUTAGE)?;
    let ended = Instant::now();
    let seen = clients.stop()?;
    let windows = [
        ("unprotected", alone, begun),
        ("being protected", begun, protected),
        ("protected", protected, killed),
        ("after the host's death", killed, ended),
    ];
    let ledger = look_at(context, guest.name(), &seen, &windows)?;
    // What the client had asked for by then, at least: an HVM guest is slow.
    ensure!(ledger.between(over, Instant::now()).answers() > 0, "there is no transaction on the second host");
    context.figure(&format!("{}: taken over, after the fence", guest.name()), over - fenced);
    context
        .figure(&format!("{}: outage, with a fence of {FENCING:?}", guest.name()), ledger.outage_since(killed).length);

    let moved = Guest::came_to(b, guest.name(), guest.number())?;
    moved.check(counted)?;
    moved.shut_down()?;
    protection.close()?;
    before.ensure_same(b).context("host B, after the guest's end")?;
    ensure_whole(b, others, lun, ledger.whole().answers())?;
    let back = mark(last_page(&lun.read()?))?;
    ensure!(back == counts, "the disk was not put back to its epoch: {back} marks are there instead of {counts}");
    Ok(())
}

/// A command that writes numbers beside the guest's file system for as long as its host lives, each over the last.
fn marks() -> String {
    let write = format!("dd of={DEVICE} bs=4096 seek={MARK} iflag=fullblock oflag=direct 2>/dev/null");
    format!("number=0; while number=$((number + 1)); do printf %4096d $number | {write} || exit; done")
}

fn last_page(disk: &[u8]) -> &[u8] {
    disk.get(MARK as usize * 4096..).unwrap_or_default()
}

/// The number in a page: 0 if there is none yet.
fn mark(page: &[u8]) -> Result<u64> {
    let page = std::str::from_utf8(page)?.trim_matches(['\0', ' ']);
    if page.is_empty() { Ok(0) } else { Ok(page.parse()?) }
}

fn cut(context: &Context) -> Result<()> {
    ensure!(context.options().protector == Tool::Colo, "this is about colo");
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let kind = *types(context).first().context("no type of guest is left")?;
    context.say("the first host goes on");
    one_of_two(context, &network, [&a, &b], kind, Side::Primary).context("the first host goes on")?;
    drop(b);
    let b = network.start(context, 1)?.wait()?;
    context.say("the second host goes on");
    one_of_two(context, &network, [&a, &b], kind, Side::Secondary).context("the second host goes on")
}

/// The link is cut, and both hosts have the other one fenced: this one is faster.
fn one_of_two(context: &Context, network: &Network, [a, b]: [&Host; 2], kind: GuestType, faster: Side) -> Result<()> {
    let lun = Lun::new(context, network)?;
    [a, b].into_iter().try_for_each(|host| lun.connect(host, LUN_BLOCKS[0]))?;
    let [ours, theirs] = [ServedDisk::shared(a, Side::Primary)?, ServedDisk::shared(b, Side::Secondary)?];
    ours.make_file_system()?;
    let config = config(context, kind).with_disk();
    let (guest, _) = a.guest(&config)?;
    b.logs().forget_all();
    let [ours_asked, theirs_asked] = [Fence::new(a, CUT.limit)?, Fence::new(b, CUT.limit)?];
    let mut clients = Clients::start(network, guest.address(), &with_ledger(context))?;
    let mut protection = fenced(context, [a, b], &guest)?;
    protection.wait_protected()?;
    clients.run_for(ALONE)?;
    let counted = guest.counter()?;

    network.cut_link(0, 1)?;
    let cut = Instant::now();
    let [ours_asked, theirs_asked] = [ours_asked.wait_asked()?, theirs_asked.wait_asked()?];
    let asked = Instant::now();
    clients.run_for(FENCING)?;
    let held = a.sh(&format!("colo --json disk status --control {CONTROL}"))?.stdout;
    ensure!(held.contains("\"state\":\"held\""), "what the guest writes on the first host does not wait: {held}");
    ensure_serves(b, guest.name(), false)?;
    let answered = Instant::now();
    let (host, disk) = match faster {
        Side::Primary => {
            b.kill()?;
            ours_asked.answer()?;
            protection.wait_unprotected()?;
            (a, ours)
        }
        Side::Secondary => {
            a.kill()?;
            theirs_asked.answer()?;
            protection.wait_taken_over()?;
            (b, theirs)
        }
    };
    clients.run_for(OUTAGE)?;
    network.mend_link(0, 1)?;
    let ended = Instant::now();
    let seen = clients.stop()?;
    let name = format!("{}, host {} goes on", guest.name(), host.name());
    let ledger = look_at(context, &name, &seen, &[("both asked", asked, answered), ("one", answered, ended)])?;
    ensure!(ledger.between(asked, answered).answers() == 0, "a transaction was acknowledged while nobody may serve");
    ensure!(ledger.between(answered, Instant::now()).answers() > 0, "there is no transaction afterwards");
    context.figure(&format!("{name}: outage, with a fence of {FENCING:?}"), ledger.outage_since(cut).length);

    let there = match faster {
        Side::Primary => Guest::found(a, guest.name(), guest.number()),
        Side::Secondary => Guest::came_to(b, guest.name(), guest.number())?,
    };
    there.check(counted)?;
    there.shut_down()?;
    match faster {
        Side::Primary => protection.leave()?,
        Side::Secondary => protection.close()?,
    }
    ensure_whole(host, disk, &lun, ledger.whole().answers())?;
    lun.disconnect(host)
}

fn fenced<'a>(context: &Context, hosts: [&'a Host; 2], guest: &'a Guest<'_>) -> Result<Box<dyn Protection + 'a>> {
    let plan = Plan { has_disk: true, promotion: Promotion::Fenced, ..plan(context, hosts, guest.name()) };
    plan.start(Tool::Colo)
}

/// Whether all is there and well: for the host that has gone on, and on the LUN itself.
fn ensure_whole(host: &Host, disk: ServedDisk<'_>, lun: &Lun<'_>, entries: usize) -> Result<()> {
    ensure_file_system_clean(host, DEVICE)?;
    disk.ensure_ledger(entries)?;
    disk.stop()?;
    lun.ensure_ledger(entries)
}
