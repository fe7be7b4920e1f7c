//! A guest of each type: it boots, counts, answers, has its memory right, and ends as it is told, with nothing of it left.

use super::Scenario;
use crate::context::Context;
use crate::guest::{GuestConfig, GuestType, POWEROFF, ensure_gone};
use crate::host::{Host, HostConfig};
use anyhow::Result;
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "guests",
    about: "one host: guests of each type boot, answer, and come to an end that they are told",
    limit: Duration::from_secs(600),
    needs_root: false,
    run,
};

/// Xen's numbers for why a guest shuts down otherwise.
const REBOOT: u32 = 1;
const CRASH: u32 = 3;

fn run(context: &Context) -> Result<()> {
    let host = Host::boot(context, HostConfig::alone())?;
    for kind in context.guest_types() {
        context.say(&format!("a {} guest", kind.name()));
        let (guest, times) = host.guest(&GuestConfig::new(kind))?;
        context.figure(&format!("{}: xl create", kind.name()), times.created);
        context.figure(&format!("{}: ready, since xl create's start", kind.name()), times.ready);
        guest.check(0)?;
        guest.wait_rounds(1)?;
        let id = guest.domain_id()?;
        // One way to end for each: they are the same for all.
        match kind {
            GuestType::Pv => {
                guest.order("poweroff")?;
                guest.wait_shut_down(POWEROFF)?;
            }
            GuestType::Pvh => {
                guest.order("crash")?;
                guest.wait_shut_down(CRASH)?;
                guest.destroy()?;
            }
            GuestType::Hvm => {
                guest.order("reboot")?;
                guest.wait_shut_down(REBOOT)?;
            }
        }
        ensure_gone(&host, kind.name(), id)?;
    }
    context.figure_of("memory of QEMU", host.peak_memory_mib()?, "MiB");
    Ok(())
}
