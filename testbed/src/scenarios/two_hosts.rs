//! Two hosts, clients, and a guest that moves from the one to the other, whose host then dies. The clients see a pause, and nothing else.

use super::Scenario;
use crate::client::{Clients, Load};
use crate::context::Context;
use crate::guest::{Guest, GuestConfig, GuestType};
use crate::host::COMMAND_LIMIT;
use crate::net::Network;
use anyhow::{Result, ensure};
use std::net::Ipv4Addr;
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "two-hosts",
    about: "two hosts: a guest that has clients is migrated by xl, then the host that it came from dies",
    limit: Duration::from_secs(600),
    needs_root: true,
    run,
};

/// So many pages with each tick.
const DIRTY_PAGES: u32 = 40;
/// How long clients are at work before the guest moves, and after.
const LOAD: Duration = Duration::from_secs(5);

fn run(context: &Context) -> Result<()> {
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    context.figure("both hosts up, since QEMU's start", a.boot_times().0.max(b.boot_times().0));
    for number in [1, 2] {
        network.ping(Ipv4Addr::new(10, 9, 0, number))?;
    }
    a.sh("ping -c 3 10.8.0.2")?;

    let config = GuestConfig::new(GuestType::Pvh);
    let (guest, times) = a.guest(&config)?;
    context.figure("guest ready, since xl create's start", times.ready);
    guest.check(0)?;
    ensure!(network.echo(guest.address(), "on A?")? == "on A?");
    guest.order(&format!("dirty {DIRTY_PAGES}"))?;
    let mut clients = Clients::start(&network, guest.address(), &Load { has_clock: true, ..Load::new(LOAD) })?;
    clients.run_for(LOAD)?;

    let listen = "socat -d -d TCP-LISTEN:7000,reuseaddr EXEC:'xl migrate-receive',nofork";
    let mut receiver = b.spawn(listen, COMMAND_LIMIT)?;
    receiver.wait_said("listening on")?;
    let send = "xl migrate -s '' pvh 'socat -b 262144 - TCP:10.8.0.2:7000,nodelay'";
    context.figure("xl migrate", a.sh(send)?.elapsed);
    let counted = guest.counter()?;
    let received = receiver.wait()?;
    ensure!(received.is_good(), "xl migrate-receive: {}", received.stderr);

    let guest = Guest::found(&b, &config.name, config.number).with_console(&format!("{}--incoming", config.name));
    guest.check(counted)?;
    let killed = a.kill()?;
    clients.run_for(LOAD)?;
    let seen = clients.stop()?;
    seen.print();
    seen.ensure_good()?;
    context.figure("worst time without pings", seen.pings()?.whole().worst_gap().length);
    context.figure("the same after the other host's death", seen.pings()?.outage_since(killed).length);
    let counted = guest.counter()?;
    ensure!(network.echo(guest.address(), "still there?")? == "still there?");
    guest.check(counted)?;
    guest.destroy()
}
