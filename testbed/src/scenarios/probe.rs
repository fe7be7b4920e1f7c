//! Every handle of `colo_core::xen` is tried: the example `xen_probe`, in dom0, on guests that must not notice.

use super::Scenario;
use crate::context::Context;
use crate::guest::GuestConfig;
use crate::host::{Host, HostConfig};
use crate::programs;
use anyhow::{Context as _, Result};
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "probe",
    about: "one host: every handle of colo-core is tried on guests of each type, which go on",
    limit: Duration::from_secs(900),
    needs_root: false,
    run,
};

const PROBE: &str = "xen_probe";

fn run(context: &Context) -> Result<()> {
    let probe = programs::build_example(PROBE, context.stopper())?;
    let host = Host::boot(context, HostConfig::alone())?;
    let probe = host.give(PROBE, &probe)?;
    host.sh(&format!("cp {probe} /tmp/{PROBE} && chmod +x /tmp/{PROBE}"))?;
    for kind in context.guest_types() {
        let (guest, _) = host.guest(&GuestConfig::new(kind))?;
        let before = guest.counter()?;
        let said = host.sh(&format!("/tmp/{PROBE} $(xl domid {})", guest.name()));
        context.figure("every handle", said.with_context(|| guest.name().to_owned())?.elapsed);
        guest.check(before)?;
        guest.wait_rounds(1)?;
        guest.destroy()?;
    }
    Ok(())
}
