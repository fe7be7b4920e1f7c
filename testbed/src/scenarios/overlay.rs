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
    limit: Duration::from_secs(1800),
    needs_root: false,
    run,
};

const EXAMPLE: &str = "xen_overlay";
const ROUNDS: u32 = 20;
const LOG: &str = "/host/overlay";
/// How long all rounds may take: each hashes both guests' memory, too.
const OVERLAY_LIMIT: Duration = Duration::from_secs(600);
const BRIDGE: &str = "twinbr0";

fn run(context: &Context) -> Result<()> {
    let example = programs::build_example(EXAMPLE, context.stopper())?;
    let host = Host::boot(context, HostConfig::alone())?;
    let example = host.give(EXAMPLE, &example)?;
    host.sh(&format!("cp {example} /tmp/{EXAMPLE} && chmod +x /tmp/{EXAMPLE}"))?;
    host.sh(&format!("/sbin/ip link add {BRIDGE} type bridge && /sbin/ip link set {BRIDGE} up"))?;
    context
        .guest_types()
        .into_iter()
        .try_for_each(|kind| cases(kind).iter().try_for_each(|case| overlay(context, &host, case)))
}

/// What is tried, and how.
struct Case {
    config: GuestConfig,
    what: &'static str,
    /// Every so many rounds the twin's tables are made to differ from the guest's.
    differ: Option<u32>,
}

fn cases(kind: GuestType) -> Vec<Case> {
    let plain = if kind == GuestType::Hvm { GuestConfig::unaware() } else { GuestConfig::new(kind) };
    let case = |what, config: GuestConfig| Case { config, what, differ: None };
    let mut cases = vec![case("", plain.clone())];
    if kind == GuestType::Hvm {
        cases.push(case(" with 2 vCPUs", GuestConfig { vcpus: 2, name: "hvm-2".into(), ..plain.clone() }));
    } else {
        cases.push(case(" with 2 vCPUs", GuestConfig { vcpus: 2, ..plain.clone() }));
    }
    if kind == GuestType::Pvh {
        cases.push(case(" that writes much", GuestConfig { dirty_pages: 500, ..plain.clone() }));
        cases.push(Case { differ: Some(4), ..case(" with tables that differ now and then", plain) });
    }
    cases
}

fn overlay(context: &Context, host: &Host, case: &Case) -> Result<()> {
    let Case { config, what, differ } = case;
    let (guest, _) = host.guest(config)?;
    let twin = GuestConfig { name: format!("{}-twin", config.name), bridge: BRIDGE.into(), ..config.clone() };
    let file = host.give(&format!("{}.cfg", twin.name), twin.text().as_bytes())?;
    host.sh(&format!("xl save -c {} /tmp/image && xl restore {file} /tmp/image && rm /tmp/image", config.name))?;
    let counted = guest.counter()?;
    let differ = differ.map(|differ| differ.to_string()).unwrap_or_default();
    let overlaid = format!("/tmp/{EXAMPLE} $(xl domid {}) $(xl domid {}) {ROUNDS} {differ}", config.name, twin.name);
    let kind = config.kind.name();
    // What it tells of each step is much.
    let log = format!("{LOG}-{kind}{}.log", what.replace(' ', "-"));
    let kept = format!("grep -v 'DEBUG xen:' /tmp/log > {log}");
    let overlaid = format!("{overlaid} 2>/tmp/log; code=$?; {kept}; tail -n 1 /tmp/log >&2; exit $code");
    let overlaid = host.sh_within(&overlaid, OVERLAY_LIMIT);
    let overlaid = overlaid.with_context(|| format!("{kind}{what}"))?;
    context.figure(&format!("{kind}{what}: {ROUNDS} rounds"), overlaid.elapsed);
    print!("{}", overlaid.stdout);
    let counted = guest.check(counted)?;
    guest.destroy()?;
    // The twin says what the guest said, under the guest's name.
    host.sh(&format!(
        "for vif in /sys/class/net/{BRIDGE}/brif/vif*; do /sbin/ip link set ${{vif##*/}} master xenbr0; done"
    ))?;
    let twin = crate::guest::Guest::found(host, &twin.name, twin.number);
    // Each time it was overlaid it was put back to what the guest had counted to.
    twin.forget_console();
    twin.check(counted)?;
    twin.destroy()
}
