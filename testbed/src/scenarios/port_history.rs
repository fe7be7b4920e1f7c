//! A guest whose event channels are not those of one that was made anew from its image: before it is protected it becomes like its twin,
//! so that its state is put there without its noticing.

use super::Scenario;
use super::protect::plan;
use crate::client::{Clients, Load};
use crate::context::Context;
use crate::guest::{GuestConfig, GuestType};
use crate::net::Network;
use crate::programs;
use crate::protect::{Mode, Plan, Tool};
use anyhow::{Result, ensure};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "port-history",
    about: "two hosts: a PVH guest with other event channels than a new one has is protected in lock-step, and notices no checkpoint",
    limit: Duration::from_secs(600),
    needs_root: true,
    run,
};

const CHANNEL: &str = "xen_channel";
/// Often enough for a few checkpoints.
const INTERVAL: Duration = Duration::from_secs(2);
const TIME: Duration = Duration::from_secs(12);

fn run(context: &Context) -> Result<()> {
    let channel = programs::build_example(CHANNEL, context.stopper())?;
    let network = Network::new(context, 2)?;
    let [a, b] = network.boot(context)?;
    let (guest, _) = a.guest(&GuestConfig::new(GuestType::Pvh))?;
    let channel = a.give(CHANNEL, &channel)?;
    a.sh(&format!("cp {channel} /tmp/{CHANNEL} && chmod +x /tmp/{CHANNEL} && /tmp/{CHANNEL} {}", guest.domain_id()?))?;

    let mut clients = Clients::start(&network, guest.address(), &Load::new(TIME * 2))?;
    let plan = plan(context, [&a, &b], guest.name());
    let mut protection = Plan { mode: Mode::Colo, interval: Some(INTERVAL), verify: true, ..plan }.start(Tool::Colo)?;
    protection.wait_protected()?;
    clients.run_for(TIME)?;
    let checkpoints = protection.checkpoints()?;
    println!("{checkpoints}");
    let resets = checkpoints.loads().filter(|(way, _)| *way != "transparent").map(|(_, count)| count).sum::<u64>();
    ensure!(checkpoints.loads().next().is_some() && resets == 0, "the guest noticed {resets} checkpoints");
    protection.end()?;
    let seen = clients.stop()?;
    seen.print();
    seen.ensure_good()?;
    guest.check(0)?;
    guest.destroy()
}
