//! `colo info`.

use super::list::{state, type_name};
use super::{Found, find};
use crate::args::InfoArgs;
use crate::output::print_json;
use anyhow::Result;
use colo_core::ids::PAGE_SIZE;
use colo_core::xen::Xen;
use colo_core::xen::control::DomainInfo;
use colo_core::xen::toolstack::DomainUuid;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;

pub(crate) fn run(args: &InfoArgs, as_json: bool) -> Result<ExitCode> {
    let xen = Xen::open()?;
    let facts = facts(&find(xen, &args.domain)?)?;
    if as_json {
        print_json(&Value::Object(facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()));
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stdout().lock();
    for (key, value) in facts {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // Nobody who does not listen any more is bothered.
        let _ = writeln!(out, "{:<20} {value}", key.replace('_', " "));
    }
    Ok(ExitCode::SUCCESS)
}

/// In the order in which a person asks.
fn facts(found: &Found) -> Result<Vec<(&'static str, Value)>> {
    let Found { control, store, info, name } = found;
    let (major, minor) = control.version()?;
    let gfns = control.nr_gpfns(info.domid)?;
    let mib = |pages: u64| (pages * PAGE_SIZE as u64) >> 20;
    let devices = |kind: &str| {
        let path = format!("/local/domain/{}/device/{kind}", info.domid.0);
        store.directory(&path).map(|found| found.map_or(0, |found| found.len()))
    };
    Ok(vec![
        ("name", json!(name)),
        ("domid", json!(info.domid.0)),
        ("uuid", json!(DomainUuid(info.uuid).to_string())),
        ("type", json!(type_name(info))),
        ("state", json!(state(info))),
        ("vcpus_online", json!(info.online_vcpus)),
        ("cpu_seconds", json!(info.cpu_time_ns as f64 / 1e9)),
        ("memory_mib", json!(mib(info.total_pages))),
        ("memory_limit_mib", json!(mib(info.max_pages))),
        ("pages", json!(info.total_pages)),
        ("frame_numbers", json!(gfns)),
        ("dirty_pages_by", json!(dirty_pages_by(info))),
        ("network_cards", json!(devices("vif")?)),
        ("disks", json!(devices("vbd")?)),
        ("xen_version", json!(format!("{major}.{minor}"))),
    ])
}

/// How the domain's dirty pages will be found. Whether a hypervisor has a log for PV domains it says only when it is switched on.
fn dirty_pages_by(info: &DomainInfo) -> &'static str {
    if info.hvm { "log-dirty" } else { "log-dirty where the hypervisor has shadow paging, else comparing" }
}
