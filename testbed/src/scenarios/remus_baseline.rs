//! What `xl remus` does for a guest, as its clients see it: what `colo` is measured by. It promises no consistency, so connections that
//! are lost, numbers that come twice and bytes that are wrong are told, and are no failure of the run.

use super::Scenario;
use super::protect::{OUTAGE, config, plan};
use crate::client::{Clients, Load};
use crate::context::Context;
use crate::guest::{Guest, GuestConfig, GuestType};
use crate::net::Network;
use crate::protect::{Mode, Plan, Tool};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "remus-baseline",
    about: "two hosts: xl remus -F -n -d, clients, and the death of the host; what the clients saw",
    limit: Duration::from_secs(1500),
    needs_root: true,
    run,
};

fn run(context: &Context) -> Result<()> {
    let time = Duration::from_secs(context.options().seconds);
    let kind = match context.options().types[..] {
        [] => GuestType::Pvh,
        [GuestType::Pv] => bail!("Debian's Xen has no log-dirty mode for PV guests, so xl remus cannot protect them"),
        [kind] => kind,
        _ => bail!("one type at a time: the first host dies"),
    };
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let (guest, _) = a.guest(&config(context, kind))?;
    let mut clients = Clients::start(&network, guest.address(), &Load::new(time * 2))?;
    let alone = Instant::now();
    clients.run_for(time / 3)?;

    context.say("xl remus");
    let begun = Instant::now();
    let plan = Plan { mode: Mode::Remus, verify: false, ..plan(context, [&a, &b], guest.name()) };
    let mut protection = plan.start(Tool::Xl)?;
    protection.wait_protected()?;
    let protected = Instant::now();
    context.figure("until the guest is protected", protected - begun);
    let (sent, counted) = (a.sent_bytes(&b)?, guest.counter()?);
    clients.suffer_for(time)?;
    let killed_after = Instant::now();
    println!("{}", protection.checkpoints()?);
    context.figure_of("bytes over the link", a.sent_bytes(&b)? - sent, "bytes");

    context.say("the host dies");
    let killed = protection.kill_primary()?;
    protection.wait_taken_over()?;
    context.figure("xl says that it has taken over, after", killed.elapsed());
    clients.suffer_for(OUTAGE)?;
    let seen = clients.stop()?;
    seen.print_between("unprotected", alone, begun);
    seen.print_between("first copy", begun, protected);
    seen.print_between("protected", protected, killed_after);
    seen.print();
    for failure in seen.failures() {
        println!("lost: {failure}");
    }
    context.figure("outage", seen.pings()?.outage_since(killed).length);

    let moved = Guest::came_to(&b, kind.name(), GuestConfig::new(kind).number)?;
    moved.check(counted)?;
    ensure!(seen.pings()?.outage_since(killed).length < OUTAGE, "no ping is answered by the second host");
    moved.destroy()?;
    protection.close()
}
