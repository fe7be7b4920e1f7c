//! One guest, unprotected, under `xl remus`, under colo's Remus and under COLO, in turn, with the same clients: what they notice of it
//! while nothing dies.

use super::Scenario;
use super::protect::{config, plan};
use crate::client::{Clients, Load, Seen};
use crate::context::Context;
use crate::guest::GuestType;
use crate::host::{COMMAND_LIMIT, Host};
use crate::net::Network;
use crate::protect::{Mode, Plan, Promotion, Tool};
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "side-by-side",
    about: "two hosts: a guest unprotected, under xl remus, under colo's Remus and under COLO, in turn; --seconds for each",
    limit: Duration::from_secs(1800),
    needs_root: true,
    run,
};

/// What `xl remus` is told, and colo's Remus, too.
const INTERVAL: Duration = Duration::from_millis(200);
/// Between two of them.
const REST: Duration = Duration::from_secs(3);

/// A row of the table.
struct Row {
    what: &'static str,
    from: Instant,
    to: Instant,
    sent_bytes: u64,
    checkpoints: String,
}

fn run(context: &Context) -> Result<()> {
    let time = Duration::from_secs(context.options().seconds);
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let (guest, _) = a.guest(&config(context, GuestType::Pvh))?;
    let mut clients = Clients::start(&network, guest.address(), &Load { is_light: true, ..Load::new(time * 8) })?;
    let mut rows = Vec::new();
    let from = Instant::now();
    clients.run_for(time)?;
    rows.push(Row { what: "unprotected", from, to: Instant::now(), sent_bytes: 0, checkpoints: String::new() });
    let link = link_trip(&a, &b)?;
    for (what, tool, mode, interval) in [
        ("xl remus -F -n -d -i 200", Tool::Xl, Mode::Remus, Some(INTERVAL)),
        ("colo, Remus every 200 ms", Tool::Colo, Mode::Remus, Some(INTERVAL)),
        ("colo, Remus", Tool::Colo, Mode::Remus, None),
        ("colo, COLO", Tool::Colo, Mode::Colo, None),
    ] {
        context.say(what);
        let plan = plan(context, [&a, &b], guest.name());
        let plan = Plan { mode, interval, verify: false, promotion: Promotion::Unfenced, ..plan };
        let mut protection = plan.start(tool)?;
        protection.wait_protected()?;
        // The first checkpoints are larger than the others.
        clients.run_for(REST)?;
        let (from, sent) = (Instant::now(), a.sent_bytes(&b)?);
        clients.run_for(time)?;
        let (to, sent_bytes) = (Instant::now(), a.sent_bytes(&b)? - sent);
        let checkpoints = protection.checkpoints()?.to_string();
        protection.end()?;
        clients.run_for(REST)?;
        rows.push(Row { what, from, to, sent_bytes, checkpoints });
    }
    let seen = clients.stop()?;
    seen.ensure_good()?;
    table(&seen, &rows)?;
    context.figure_of("the link, there and back, p50", link.as_micros() as u64, "µs");
    guest.destroy()
}

/// How long two programs need over the link, there and back, beside the same clients: each answer that is compared has to.
fn link_trip(from: &Host, to: &Host) -> Result<Duration> {
    let mut answering = to.spawn("dom0-agent answer", COMMAND_LIMIT)?;
    answering.wait_said("ready\n")?;
    let median = from.sh(&format!("dom0-agent trips {}", to.link_address()))?.stdout;
    answering.wait()?;
    Ok(Duration::from_micros(median.trim().parse()?))
}

fn table(seen: &Seen, rows: &[Row]) -> Result<()> {
    println!(
        "{:<26} {:>12} {:>12} {:>14} {:>12} {:>10}",
        "", "request p50", "request p99", "worst gap", "ping p50", "MB/s sent"
    );
    for row in rows {
        let (requests, pings) = (seen.requests()?.between(row.from, row.to), seen.pings()?.between(row.from, row.to));
        let ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3).context("nothing was answered");
        let sent = row.sent_bytes as f64 / 1e6 / (row.to - row.from).as_secs_f64();
        println!(
            "{:<26} {:>9.1} ms {:>9.1} ms {:>11.1} ms {:>9.1} ms {sent:>10.1}",
            row.what,
            ms(requests.percentile(50))?,
            ms(requests.percentile(99))?,
            ms(Some(pings.worst_gap().length))?,
            ms(pings.percentile(50))?,
        );
    }
    for row in rows.iter().filter(|row| !row.checkpoints.is_empty()) {
        println!("{}: {}", row.what, row.checkpoints);
    }
    Ok(())
}
