//! `colo resume`.

use super::{Found, find};
use crate::args::ResumeArgs;
use crate::output::print_json;
use anyhow::{Result, bail};
use colo_core::xen::Xen;
use colo_core::xen::domain::XenDomain;
use colo_core::xen::save_lock::SaveLock;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// For a guest that was asked to suspend itself and has not done so yet.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(args: &ResumeArgs, json: bool) -> Result<ExitCode> {
    let xen = Xen::open()?;
    let Found { control, store, info, name } = find(xen, &args.domain)?;
    let domid = info.domid;
    // A saver that is at work, or its watcher, lets it go on by itself.
    let _lock = SaveLock::take(domid, &name)?;
    if !info.is_suspended() {
        bail!("{name} is not suspended");
    }
    XenDomain::with_handles(xen, control, store, &info, LIMIT)?.rescue(true)?;
    if json {
        print_json(&json!({ "event": "resumed", "domain": name, "domid": domid.0 }));
    } else {
        eprintln!("colo: {name} runs");
    }
    Ok(ExitCode::SUCCESS)
}
