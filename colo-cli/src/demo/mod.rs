//! `colo demo`: a machine without protection, under Remus, and under COLO, with the same load, one after the other; then its
//! host is killed.

mod client;
mod hosts;
mod load;
mod report;

use crate::args::DemoArgs;
use anyhow::Result;
use hosts::Hosts;
use load::Puts;
use report::{Checkpoints, Failover, Measured};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// For the throughput's figure.
const DOWNLOAD_BYTES: u64 = 64_000_000;
/// Long enough to be under way when the host dies.
const INTERRUPTED_BYTES: u64 = 300_000_000;
/// From the beginning of the download to the host's death.
const KILL_AFTER: Duration = Duration::from_millis(400);
/// How long PUTs go on after the download.
const PUTS_AFTER: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &DemoArgs, json: bool) -> Result<ExitCode> {
    let duration = Duration::from_secs(args.seconds);
    let mut columns = Vec::new();
    for mode in ["native", "remus", "colo"] {
        if !json {
            eprintln!("colo: {mode} ...");
        }
        columns.push(measure(mode, args.memory, duration)?);
    }
    if json {
        report::print_json(&columns);
    } else {
        report::print_table(&columns);
    }
    let good = columns.iter().all(Measured::is_good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(mode: &'static str, memory_mib: u64, duration: Duration) -> Result<Measured> {
    let native = mode == "native";
    let mut hosts = Hosts::start(if native { "colo" } else { mode }, memory_mib)?;
    if native {
        // A machine whose protection has ended is a machine without protection.
        hosts.primary.interrupt()?;
        hosts.primary.wait_for("unprotected")?;
    }
    hosts.primary.drain();
    let load = load::run(hosts.guest, duration);
    let checkpoints = (!native).then(|| Checkpoints::of(&hosts.primary.drain()));
    let throughput = load::throughput(hosts.guest, DOWNLOAD_BYTES)?;
    let failover = if native { None } else { Some(kill(&mut hosts)?) };
    Ok(Measured { mode, load, throughput, checkpoints, failover })
}

/// Kills the primary in the middle of a download and of a stream of PUTs.
fn kill(hosts: &mut Hosts) -> Result<Failover> {
    let guest = hosts.guest;
    let stop = AtomicBool::new(false);
    let (download, puts) = std::thread::scope(|scope| {
        let puts = scope.spawn(|| load::puts(guest, &stop));
        let download = scope.spawn(|| load::download_is_right(guest, INTERRUPTED_BYTES));
        std::thread::sleep(KILL_AFTER);
        hosts.primary.kill();
        let download = download.join();
        std::thread::sleep(PUTS_AFTER);
        stop.store(true, Ordering::SeqCst);
        (download, puts.join())
    });
    let puts = puts.unwrap_or_else(|_| Puts { error: Some("a panic".into()), ..Puts::default() });
    let took_over = hosts.secondary.wait_for("took-over")?;
    let download = download.unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")));
    Ok(Failover {
        outage: puts.longest,
        took_over_ms: took_over["took_ms"].as_f64().unwrap_or(f64::NAN),
        connections_lost: u64::from(puts.error.is_some()) + u64::from(download.is_err()),
        sha_right: download.unwrap_or(false),
        puts_acknowledged: puts.acknowledged,
        puts_lost: load::lost_puts(guest, puts.acknowledged)?,
    })
}
