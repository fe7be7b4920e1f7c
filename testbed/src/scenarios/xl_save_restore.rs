//! Guests of each type are saved and restored: by `xl`, unless other tools are asked for. What `colo` must do as well.

use super::Scenario;
use crate::context::Context;
use crate::guest::{GuestConfig, GuestType};
use crate::host::{Host, HostConfig};
use crate::transfer::{Way, cross, save_killed, save_to_full_disk};
use anyhow::Result;
use std::time::Duration;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "xl-save-restore",
    about: "one host: guests of each type are saved, verified and restored (by xl, or --saver and --restorer)",
    limit: Duration::from_secs(900),
    needs_root: false,
    run,
};

fn run(context: &Context) -> Result<()> {
    let (saver, restorer) = (context.options().saver, context.options().restorer);
    let host = Host::boot(context, HostConfig::alone())?;
    for kind in context.guest_types() {
        context.say(&format!("a {} guest", kind.name()));
        let (guest, _) = host.guest(&GuestConfig::new(kind))?;
        guest.check(0)?;
        save_to_full_disk(&host, &guest, saver)?;
        let crossing = cross(context, &host, &guest, &Way::plain(saver, restorer))?;
        guest.destroy()?;
        // An HVM guest takes half a minute to boot, and would tell no more than a PVH guest.
        if kind != GuestType::Hvm {
            let (deaf, _) = host.guest(&GuestConfig::new(kind).deaf())?;
            save_killed(&host, &deaf, saver)?;
            deaf.destroy()?;
        }
        context.figure(&format!("{}: {} save", kind.name(), saver.name()), crossing.save);
        context.figure(&format!("{}: {} restore", kind.name(), restorer.name()), crossing.restore);
        context.figure_of(&format!("{}: image", kind.name()), crossing.image_bytes >> 20, "MiB");
    }
    Ok(())
}
