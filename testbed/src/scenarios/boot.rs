//! A host comes up, has what tests need, and switches itself off.

use super::Scenario;
use crate::context::Context;
use crate::host::{COMMAND_LIMIT, Host, HostConfig};
use anyhow::{Result, ensure};
use colo_testbed_inside::protocol::Outcome;
use std::time::{Duration, Instant};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "boot",
    about: "one host: boot, xl list, what dom0 has, an orderly end",
    limit: Duration::from_secs(300),
    needs_root: false,
    run,
};

/// SIGTERM.
const TERMINATE: u8 = 15;

fn run(context: &Context) -> Result<()> {
    let host = Host::boot(context, HostConfig::alone())?;
    let (whole, kernel) = host.boot_times();
    context.figure("host up, since QEMU's start", whole);
    context.figure("host up, since dom0's kernel started", kernel);

    let list = host.sh("xl list")?;
    ensure!(list.stdout.contains("Domain-0"), "xl list says {:?}", list.stdout);
    context.figure("xl list", list.elapsed);
    let info = host.sh("xl info")?.stdout;
    ensure!(info.lines().any(|line| line.starts_with("xen_version") && line.contains("4.17")), "xl info says {info:?}");
    ensure!(host.sh("colo --version")?.stdout.starts_with("colo "), "dom0's colo is not ours");
    // All that colo will load.
    host.sh("for f in xenctrl.so.4.17 xenguest.so.4.17 xenstore.so.4; do [ -e /usr/lib/x86_64-linux-gnu/lib$f ] || exit 1; done")?;

    let done = host.try_sh("echo out; echo err >&2; kill -9 $$", COMMAND_LIMIT)?;
    ensure!(done.outcome == Outcome::Signal(9) && done.stdout == "out\n" && done.stderr == "err\n", "{done:?}");
    let running = host.spawn("sleep 1000", COMMAND_LIMIT)?;
    host.sh(&format!("kill -0 {}", running.pid()))?;
    running.signal(TERMINATE)?;
    ensure!(running.wait()?.outcome == Outcome::Signal(TERMINATE), "a command outlived its end");
    let late = host.try_sh("sleep 1000", Duration::from_millis(100));
    ensure!(late.is_err(), "a command was not ended in time");
    let unprivileged = host.try_sh_unprivileged("id -u; xl list")?;
    ensure!(unprivileged.stdout.starts_with("65534\n") && !unprivileged.is_good(), "{unprivileged:?}");

    context.figure_of("memory of QEMU", host.peak_memory_mib()?, "MiB");
    let begun = Instant::now();
    host.stop()?;
    context.figure("host off", begun.elapsed());
    Ok(())
}
