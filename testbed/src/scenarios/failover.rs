//! The host of a protected guest dies, again and again, at moments that are left to chance: the guest's clients have to wait a little,
//! and that is all that they see.

use super::Scenario;
use super::deaths::{Death, each_death};
use super::protect::{OUTAGE, config, load, plan};
use crate::client::Clients;
use crate::context::Context;
use crate::guest::Guest;
use crate::host::Host;
use crate::net::Network;
use crate::protect::{Mode, Protection, Tool};
use crate::residue::Residue;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "failover",
    about: "two hosts: the host of a protected guest is killed, --times for each type; --mode, --protector, --type, --seed",
    limit: Duration::from_secs(7200),
    needs_root: true,
    run,
};

/// The host dies within so long after the guest is protected.
const WHOLE: Duration = Duration::from_secs(10);

fn run(context: &Context) -> Result<()> {
    let network = Network::new(context, 2)?;
    let hosts = network.boot(context)?;
    let mut outages = Vec::new();
    each_death(context, &network, hosts, WHOLE, |hosts, death| {
        let outage = once(context, &network, hosts, death)?;
        context.figure(&format!("outage: {}", death.name), outage);
        outages.push(outage);
        Ok(())
    })?;
    outages.sort_unstable();
    let (Some(worst), goal) = (outages.last().copied(), goal(context)) else { return Ok(()) };
    context.figure("median outage", outages[outages.len() / 2]);
    context.figure("worst outage", worst);
    let verdict = if worst <= goal { "reached" } else { "not reached" };
    println!("goal {:.1} s: {verdict}", goal.as_secs_f64());
    Ok(())
}

/// What the outage is to be, at most, under emulation.
fn goal(context: &Context) -> Duration {
    match (context.options().protector, context.options().mode) {
        (Tool::Colo, Mode::Colo) => Duration::from_secs(1),
        _ => Duration::from_millis(1500),
    }
}

/// A new guest, whose host dies; and then it ends, too.
fn once(context: &Context, network: &Network, [a, b]: [&Host; 2], death: &Death) -> Result<Duration> {
    let config = config(context, death.kind);
    let (guest, _) = a.guest(&config)?;
    let before = Residue::of(b)?;
    let (protection, outage) = fail_over(context, network, [a, b], &guest, death.moment)?;
    Guest::came_to(b, &config.name, config.number)?.destroy()?;
    protection.close()?;
    before.ensure_same(b).context("host B, after the guest's end")?;
    Ok(outage)
}

/// Protects a guest and kills its host. Returns what is left of the protection, and how long the guest's clients had no answer.
pub(super) fn fail_over<'a>(
    context: &Context,
    network: &Network,
    [from, to]: [&'a Host; 2],
    guest: &'a Guest<'_>,
    moment: Duration,
) -> Result<(Box<dyn Protection + 'a>, Duration)> {
    // The one that was there is another one.
    to.logs().forget_all();
    let mut clients = Clients::start(network, guest.address(), &load(context, WHOLE + OUTAGE))?;
    let mut protection = plan(context, [from, to], guest.name()).start(context.options().protector)?;
    protection.wait_protected()?;
    let counted = guest.counter()?;
    clients.run_for(moment)?;

    let killed = protection.kill_primary()?;
    protection.wait_taken_over()?;
    let told = killed.elapsed();
    clients.run_for(OUTAGE)?;
    let seen = clients.stop()?;
    seen.print();
    seen.ensure_good()?;
    let outage = seen.pings()?.outage_since(killed).length;
    ensure!(outage < OUTAGE, "no ping is answered by the second host");
    context.figure("the second host says that it has taken over, after", told);
    Guest::came_to(to, guest.name(), guest.number())?.check(counted)?;
    Ok((protection, outage))
}
