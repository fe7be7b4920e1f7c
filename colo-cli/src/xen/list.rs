//! `colo list`.

use super::name;
use crate::output::print_json;
use anyhow::Result;
use colo_core::ids::{DomId, PAGE_SIZE};
use colo_core::xen::control::DomainInfo;
use colo_core::xen::{Control, Xen, XenStore};
use serde_json::json;
use std::io::{self, Write};
use std::process::ExitCode;

pub(crate) fn run(as_json: bool) -> Result<ExitCode> {
    let xen = Xen::open()?;
    let control = Control::open(xen)?;
    let store = XenStore::open(xen)?;
    let mut out = io::stdout().lock();
    if !as_json {
        line(&mut out, ["name", "id", "type", "MiB", "vcpus", "state", "seconds"]);
    }
    for info in control.domains()? {
        let name = name(&store, info.domid)?;
        let mib = (info.total_pages * PAGE_SIZE as u64) >> 20;
        let seconds = info.cpu_time_ns as f64 / 1e9;
        if as_json {
            print_json(&json!({
                "name": name, "domid": info.domid.0, "type": type_name(&info), "memory_mib": mib,
                "vcpus": info.online_vcpus, "state": state(&info), "cpu_seconds": seconds,
            }));
        } else {
            let [id, mib, vcpus] = [u64::from(info.domid.0), mib, info.online_vcpus.into()].map(|n| n.to_string());
            line(&mut out, [&name, &id, type_name(&info), &mib, &vcpus, state(&info), &format!("{seconds:.1}")]);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Nobody who does not listen any more is bothered.
fn line(out: &mut impl Write, [name, id, kind, mib, vcpus, state, seconds]: [&str; 7]) {
    let _ = writeln!(out, "{name:<24} {id:>5} {kind:<5} {mib:>8} {vcpus:>5} {state:<10} {seconds:>10}");
}

/// dom0 is a machine of its own kind, whatever the hypervisor makes of it.
pub(super) fn type_name(info: &DomainInfo) -> &'static str {
    if info.domid == DomId(0) { "dom0" } else { info.guest_type().name() }
}

/// One word.
pub(super) fn state(info: &DomainInfo) -> &'static str {
    match info.shutdown {
        _ if info.dying => "dying",
        Some(_) if info.is_suspended() => "suspended",
        Some(colo_core::xen::control::ShutdownReason::CRASH) => "crashed",
        Some(_) => "shut-down",
        None if info.paused => "paused",
        None if info.running => "running",
        None => "blocked",
    }
}
