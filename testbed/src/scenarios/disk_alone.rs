//! A served disk without protection: dom0's kernel as its client, with plain tools; and then guests of each type with a database on it.

use super::Scenario;
use crate::client::{Clients, Load};
use crate::context::Context;
use crate::disk::{BACKING, BLOCK_BYTES, DEVICE, ServedDisk, Side, ensure_file_system_clean};
use crate::guest::{GuestConfig, GuestType, POWEROFF, ensure_gone};
use crate::host::Host;
use crate::net::Network;
use anyhow::{Context as _, Result, bail, ensure};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-alone",
    about: "one host: a served disk under dom0's kernel, and under guests with a database; --type",
    limit: Duration::from_secs(1800),
    needs_root: true,
    run,
};

/// How long a guest's clients are at work.
const WHILE: Duration = Duration::from_secs(10);

fn run(context: &Context) -> Result<()> {
    let network = Network::new(context, 1)?;
    let [host] = network.boot(context)?;
    kernel(context, &host).context("dom0's kernel as a client")?;
    for kind in context.guest_types() {
        guest(context, &network, &host, GuestConfig::new(kind)).with_context(|| format!("a {} guest", kind.name()))?;
        if kind == GuestType::Hvm {
            let unaware = GuestConfig { name: "unaware".into(), ..GuestConfig::unaware() };
            guest(context, &network, &host, unaware).context("a guest that does not know Xen")?;
        }
    }
    Ok(())
}

/// What dom0's kernel makes of the disk, and whether all that it is told is in the file behind it.
fn kernel(context: &Context, host: &Host) -> Result<()> {
    let disk = ServedDisk::new(host, Side::Primary)?;
    ensure_features(host, BLOCK_BYTES)?;
    host.sh("dd if=/dev/urandom of=/tmp/pattern bs=1M count=8 2>/dev/null")?;
    // Past the page cache in large requests and in small ones, and through it.
    written(context, host, ("1M", 5, 8, "oflag=direct"))?;
    written(context, host, ("4k", 3, 500, "oflag=direct"))?;
    written(context, host, ("64k", 320, 128, "conv=fsync"))?;

    let blocks = || anyhow::Ok(host.sh(&format!("stat -c %b {BACKING}"))?.stdout.trim().parse::<u64>()?);
    let before = blocks()?;
    host.sh(&format!("blkdiscard -o {} -l {} {DEVICE}", 6 << 20, 4 << 20))?;
    host.sh("dd if=/dev/zero of=/tmp/part bs=1M count=4")?;
    for from in [DEVICE, BACKING] {
        let read = format!("dd if={from} bs=1M skip=6 count=4 2>/dev/null | cmp - /tmp/part");
        host.sh(&read).with_context(|| format!("what was discarded, in {from}"))?;
    }
    let after = blocks()?;
    ensure!(after < before, "what was discarded takes no less room: {after} blocks, after {before}");
    same(host)?;

    disk.disconnect()?;
    disk.connect(4, 512)?;
    same(host).context("connected again")?;
    ensure_features(host, 512)?;
    written(context, host, ("512", 4097, 500, "oflag=direct"))?;
    let writer = |number: u32| format!("dd if=/tmp/pattern of={DEVICE} bs=256k seek={} oflag=direct & ", number * 32);
    let writers: String = (4..8).map(writer).collect();
    context.figure("four at once, by four connections", host.sh(&format!("{writers} wait; sync {DEVICE}"))?.elapsed);
    let pattern =
        |number: u32| format!("dd if={BACKING} bs=1M skip={} count=8 2>/dev/null | cmp - /tmp/pattern && ", number * 8);
    host.sh(&format!("{} true", (4..8).map(pattern).collect::<String>())).context("four at once")?;
    same(host).context("four connections")?;
    disk.stop()
}

/// Whether the kernel knows what the server can do.
fn ensure_features(host: &Host, block_bytes: u32) -> Result<()> {
    let files = "write_cache fua logical_block_size discard_max_bytes";
    let queue = host.sh(&format!("cd /sys/block/$(basename {DEVICE})/queue && cat {files}"))?.stdout;
    match queue.lines().collect::<Vec<_>>()[..] {
        ["write back", "1", block, discard] if block == block_bytes.to_string() && discard != "0" => Ok(()),
        _ => bail!("the kernel knows other features of the disk: {queue:?}"),
    }
}

/// Writes the pattern in so many blocks of this size from this one on. It must be there then, and in the file.
fn written(context: &Context, host: &Host, (block, seek, count, how): (&str, u32, u32, &str)) -> Result<()> {
    let write = format!("dd if=/tmp/pattern of={DEVICE} bs={block} seek={seek} count={count} {how}");
    context.figure(&format!("{count} times {block}, {how}"), host.sh(&write)?.elapsed);
    host.sh(&format!("dd if=/tmp/pattern of=/tmp/part bs={block} count={count}"))?;
    for (from, how) in [(DEVICE, "iflag=direct"), (BACKING, "")] {
        let read = format!("dd if={from} bs={block} skip={seek} count={count} {how} 2>/dev/null | cmp - /tmp/part");
        host.sh(&read).with_context(|| format!("{count} times {block} in {from}"))?;
    }
    same(host)
}

/// Whether the block device and the file behind it are the same.
fn same(host: &Host) -> Result<()> {
    host.sh(&format!("blockdev --flushbufs {DEVICE} && cmp {DEVICE} {BACKING}")).map(drop)
}

/// A guest with a database on the disk.
fn guest(context: &Context, network: &Network, host: &Host, config: GuestConfig) -> Result<()> {
    let name = config.name.clone();
    context.say(&format!("a guest with a disk: {name}"));
    let disk = ServedDisk::new(host, Side::Primary)?;
    disk.make_file_system()?;
    let (guest, times) = host.guest(&config.with_disk())?;
    context.figure(&format!("{name}: ready, since xl create's start"), times.ready);
    let load = Load { is_light: true, has_ledger: true, ..Load::new(WHILE) };
    let mut clients = Clients::start(network, guest.address(), &load)?;
    clients.run_for(WHILE)?;
    let seen = clients.stop()?;
    seen.print();
    seen.ensure_good()?;
    let entries = seen.ledger()?.whole().answers();
    ensure!(entries > 0, "there is no transaction");
    let id = guest.domain_id()?;
    guest.power_off()?;
    guest.wait_shut_down(POWEROFF)?;
    ensure_gone(host, &name, id)?;
    ensure_file_system_clean(host, DEVICE)?;
    disk.ensure_ledger(entries)?;
    disk.stop()?;
    ensure_file_system_clean(host, BACKING)?;
    Ok(())
}
