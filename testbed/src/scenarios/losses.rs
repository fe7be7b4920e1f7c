//! What else can be lost than the host of a protected guest: the second host, and the link between the two. And a guest that has lost
//! its host once is protected again, by a third one.

use super::Scenario;
use super::failover::fail_over;
use super::protect::{OUTAGE, config, load, plan, types};
use crate::client::Clients;
use crate::context::Context;
use crate::guest::Guest;
use crate::host::Host;
use crate::net::Network;
use crate::protect::{Fence, Plan, Promotion};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

pub(super) const SECONDARY: Scenario = Scenario {
    name: "secondary-dies",
    about: "two hosts: the second one is killed; the guest runs on, and is protected again by one in its place",
    limit: Duration::from_secs(3600),
    needs_root: true,
    run: secondary_dies,
};

pub(super) const LINK: Scenario = Scenario {
    name: "link-cut",
    about: "two hosts that live, and no link between them: with a fence one of them goes on, without one the first",
    limit: Duration::from_secs(3600),
    needs_root: true,
    run: link_cut,
};

pub(super) const HELD: Scenario = Scenario {
    name: "held",
    about: "two hosts: the first dies, and the second must not take over by itself; it holds the guest until it is told to",
    limit: Duration::from_secs(3600),
    needs_root: true,
    run: held,
};

pub(super) const AGAIN: Scenario = Scenario {
    name: "failover-twice",
    about: "three hosts: a guest that has lost its host is protected by the third one, and loses the second, too",
    limit: Duration::from_secs(3600),
    needs_root: true,
    run: failover_twice,
};

/// How long a guest is protected before something is lost, and after it is protected again.
const WHILE: Duration = Duration::from_secs(5);

fn secondary_dies(context: &Context) -> Result<()> {
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let mut second = Some(b);
    for kind in types(context) {
        let b = match second.take() {
            Some(host) => host,
            None => network.start(context, 1)?.wait()?,
        };
        let (guest, _) = a.guest(&config(context, kind))?;
        let mut clients = Clients::start(&network, guest.address(), &load(context, 2 * OUTAGE))?;
        let mut protection = plan(context, [&a, &b], guest.name()).start(context.options().protector)?;
        protection.wait_protected()?;
        clients.run_for(WHILE)?;
        let killed = protection.kill_secondary()?;
        protection.wait_unprotected()?;
        context.figure(&format!("{}: unprotected, after", kind.name()), killed.elapsed());
        clients.run_for(OUTAGE)?;
        protection.leave()?;
        drop(b);

        let b = network.start(context, 1)?.wait()?;
        let mut protection = plan(context, [&a, &b], guest.name()).start(context.options().protector)?;
        protection.wait_protected()?;
        clients.run_for(WHILE)?;
        protection.end()?;
        let seen = clients.stop()?;
        seen.print();
        seen.ensure_good()?;
        context.figure(&format!("{}: outage", kind.name()), seen.pings()?.outage_since(killed).length);
        guest.check(0)?;
        guest.destroy()?;
        second = Some(b);
    }
    Ok(())
}

fn link_cut(context: &Context) -> Result<()> {
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let mut first = Some(a);
    for kind in types(context) {
        let a = match first.take() {
            Some(host) => host,
            None => network.start(context, 0)?.wait()?,
        };
        let config = config(context, kind);
        context.say(&format!("a {} guest, no fence", kind.name()));
        let (guest, _) = a.guest(&config)?;
        let mut clients = Clients::start(&network, guest.address(), &load(context, 2 * OUTAGE))?;
        let plan = plan(context, [&a, &b], guest.name());
        let mut protection = Plan { promotion: Promotion::Never, ..plan.clone() }.start(context.options().protector)?;
        protection.wait_protected()?;
        clients.run_for(WHILE)?;
        network.cut_link(0, 1)?;
        protection.wait_unprotected()?;
        clients.run_for(OUTAGE)?;
        ensure_serves(&b, guest.name(), false)?;
        network.mend_link(0, 1)?;
        protection.leave()?;

        context.say(&format!("a {} guest, a fence", kind.name()));
        let fence = Fence::new(&b, SECONDARY.limit)?;
        // Asked for, too, and never answered: the other one is faster.
        let _slower = Fence::new(&a, SECONDARY.limit)?;
        let mut protection = Plan { promotion: Promotion::Fenced, ..plan }.start(context.options().protector)?;
        protection.wait_protected()?;
        clients.run_for(WHILE)?;
        network.cut_link(0, 1)?;
        fence.wait_and_kill(&a)?;
        protection.wait_taken_over()?;
        clients.run_for(OUTAGE)?;
        network.mend_link(0, 1)?;
        let seen = clients.stop()?;
        seen.print();
        seen.ensure_good()?;
        ensure_serves(&b, guest.name(), true)?;
        Guest::came_to(&b, &config.name, config.number)?.destroy()?;
        protection.close()?;
    }
    Ok(())
}

fn held(context: &Context) -> Result<()> {
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let mut first = Some(a);
    for kind in types(context) {
        let a = match first.take() {
            Some(host) => host,
            None => network.start(context, 0)?.wait()?,
        };
        let config = config(context, kind);
        let (guest, _) = a.guest(&config)?;
        b.logs().forget_all();
        let mut clients = Clients::start(&network, guest.address(), &load(context, 2 * OUTAGE))?;
        let plan = Plan { promotion: Promotion::Never, ..plan(context, [&a, &b], guest.name()) };
        let mut protection = plan.start(context.options().protector)?;
        protection.wait_protected()?;
        clients.run_for(WHILE)?;
        let counted = guest.counter()?;
        let killed = protection.kill_primary()?;
        protection.wait_held()?;
        ensure_serves(&b, guest.name(), false)?;
        context.figure(&format!("{}: held, after", kind.name()), killed.elapsed());
        protection.promote()?;
        protection.wait_taken_over()?;
        clients.run_for(OUTAGE)?;
        let seen = clients.stop()?;
        seen.print();
        seen.ensure_good()?;
        context.figure(&format!("{}: outage", kind.name()), seen.pings()?.outage_since(killed).length);
        let moved = Guest::came_to(&b, &config.name, config.number)?;
        moved.check(counted)?;
        moved.destroy()?;
        protection.close()?;
    }
    Ok(())
}

fn failover_twice(context: &Context) -> Result<()> {
    let mut random = context.random();
    let network = Network::new(context, 3)?;
    let [a, b, c] = network.boot(context)?;
    let kind = *types(context).first().context("no type of guest is left")?;
    let config = config(context, kind);
    let moments = random.moments(2, 2 * WHILE);
    let (guest, _) = a.guest(&config)?;
    let (protection, first) = fail_over(context, &network, [&a, &b], &guest, moments[0])?;
    protection.close()?;
    let guest = Guest::came_to(&b, &config.name, config.number)?;
    let (protection, second) = fail_over(context, &network, [&b, &c], &guest, moments[1])?;
    Guest::came_to(&c, &config.name, config.number)?.destroy()?;
    protection.close()?;
    context.figures("outage", &[("first", first), ("second", second)]);
    Ok(())
}

/// Whether a guest of this name runs on a host: not one that is paused, or another one by its name.
pub(super) fn ensure_serves(host: &Host, guest: &str, serves: bool) -> Result<()> {
    let list = host.sh("xl list")?.stdout;
    let runs = list.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first() == Some(&guest) && words.get(4).is_some_and(|state| !state.contains('p'))
    });
    ensure!(
        runs == serves,
        "host {} {} the guest: {list}",
        host.name(),
        if runs { "serves" } else { "does not serve" }
    );
    Ok(())
}
