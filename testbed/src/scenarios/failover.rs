//! The host of a protected guest dies, again and again, at moments that are left to chance: the guest's clients have to wait a little,
//! and that is all that they see.

use super::Scenario;
use super::protect::{OUTAGE, load, plan, types};
use crate::client::Clients;
use crate::context::Context;
use crate::guest::{Guest, GuestConfig, GuestType};
use crate::host::Host;
use crate::net::Network;
use crate::protect::{Mode, Tool};
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
    let mut random = context.random();
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let mut first = Some(a);
    let times = context.options().times;
    let mut outages = Vec::new();
    for kind in types(context) {
        for (number, moment) in random.moments(times, WHOLE).into_iter().enumerate() {
            let a = match first.take() {
                Some(host) => host,
                None => network.start(context, 0)?.wait()?,
            };
            let name = format!(
                "{}, {} of {times}, {:.2} s after it is protected",
                kind.name(),
                number + 1,
                moment.as_secs_f64()
            );
            context.say(&name);
            let outage = once(context, &network, [&a, &b], kind, moment).with_context(|| name.clone())?;
            context.figure(&format!("outage: {name}"), outage);
            outages.push(outage);
        }
    }
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

/// Protects a guest, kills its host, and returns how long its clients had no answer.
fn once(
    context: &Context,
    network: &Network,
    [a, b]: [&Host; 2],
    kind: GuestType,
    moment: Duration,
) -> Result<Duration> {
    let config = GuestConfig::new(kind);
    let (guest, _) = a.guest(&config)?;
    // The one that was there is another one.
    b.logs().forget_all();
    let before = Residue::of(b)?;
    let mut clients = Clients::start(network, guest.address(), &load(context, WHOLE + OUTAGE))?;
    let mut protection = plan(context, [a, b], guest.name()).start(context.options().protector)?;
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

    let guest = Guest::came_to(b, &config.name, config.number)?;
    guest.check(counted)?;
    guest.destroy()?;
    protection.close()?;
    before.ensure_same(b).context("host B, after the guest's end")?;
    Ok(outage)
}
