//! One host, two domains from one image: the one's state is put over the other's again and again, by the example `xen_overlay`. Then the
//! first is destroyed, and the second is the guest.

use super::Scenario;
use crate::context::Context;
use crate::guest::{GuestConfig, GuestType};
use crate::host::{Host, HostConfig};
use crate::programs;
use anyhow::{Context as _, Result};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "overlay",
    about: "one host: a guest's state over its twin's, twenty times; then the guest dies and the twin goes on",
    limit: Duration::from_secs(1200),
    needs_root: false,
    run,
};

const EXAMPLE: &str = "xen_overlay";
const ROUNDS: u32 = 20;
const BRIDGE: &str = "twinbr0";

fn run(context: &Context) -> Result<()> {
    let example = programs::build_example(EXAMPLE, context.stopper())?;
    let host = Host::boot(context, HostConfig::alone())?;
    let example = host.give(EXAMPLE, &example)?;
    host.sh(&format!("cp {example} /tmp/{EXAMPLE} && chmod +x /tmp/{EXAMPLE}"))?;
    host.sh(&format!("/sbin/ip link add {BRIDGE} type bridge && /sbin/ip link set {BRIDGE} up"))?;
    context.guest_types().into_iter().try_for_each(|kind| overlay(context, &host, kind))
}

fn overlay(context: &Context, host: &Host, kind: GuestType) -> Result<()> {
    let config = GuestConfig::new(kind);
    let (guest, _) = host.guest(&config)?;
    let twin = GuestConfig { name: format!("{}-twin", config.name), bridge: BRIDGE.into(), ..config.clone() };
    let file = host.give(&format!("{}.cfg", twin.name), twin.text().as_bytes())?;
    host.sh(&format!("xl save -c {} /tmp/image && xl restore {file} /tmp/image && rm /tmp/image", config.name))?;
    let counted = guest.counter()?;
    let overlaid = format!("/tmp/{EXAMPLE} $(xl domid {}) $(xl domid {}) {ROUNDS}", config.name, twin.name);
    let overlaid = host.sh(&overlaid).with_context(|| kind.name())?;
    context.figure(&format!("{}: {ROUNDS} rounds", kind.name()), overlaid.elapsed);
    print!("{}", overlaid.stdout);
    let counted = guest.check(counted)?;
    guest.destroy()?;
    // The twin says what the guest said, under the guest's name.
    host.sh(&format!(
        "for vif in /sys/class/net/{BRIDGE}/brif/vif*; do /sbin/ip link set ${{vif##*/}} master xenbr0; done"
    ))?;
    let twin = crate::guest::Guest::found(host, &twin.name, twin.number);
    twin.check(counted)?;
    twin.destroy()
}
