//! A guest of each type: it boots, counts, answers, has its memory right, and is gone when it is destroyed.

use super::Scenario;
use crate::context::Context;
use crate::guest::GuestConfig;
use crate::host::{Host, HostConfig};
use anyhow::Result;
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "guests",
    about: "one host: guests of each type boot, answer, and are destroyed",
    limit: Duration::from_secs(600),
    needs_root: false,
    run,
};

fn run(context: &Context) -> Result<()> {
    let host = Host::boot(context, HostConfig::alone())?;
    for kind in context.guest_types() {
        context.say(&format!("a {} guest", kind.name()));
        let (guest, times) = host.guest(&GuestConfig::new(kind))?;
        context.figure(&format!("{}: xl create", kind.name()), times.created);
        context.figure(&format!("{}: ready, since xl create's start", kind.name()), times.ready);
        guest.check(0)?;
        guest.wait_rounds(1)?;
        guest.destroy()?;
    }
    context.figure_of("memory of QEMU", host.peak_memory_mib()?, "MiB");
    Ok(())
}
