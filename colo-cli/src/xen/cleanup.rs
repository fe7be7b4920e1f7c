//! `colo cleanup`.

use super::find;
use crate::args::CleanupArgs;
use crate::net;
use crate::output::{FAILED, print_json};
use anyhow::{Context, Result};
use colo_core::net::takeover::{STATE_FOLDER, repair, repair_kept_out};
use colo_core::xen::Xen;
use colo_core::xen::cleanup::{Found, FoundState, clean_up, end, keep};
use colo_core::xen::host::is_tap_of;
use colo_core::xen::toolstack::Xl;
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(args: &CleanupArgs, json: bool) -> Result<ExitCode> {
    let xen = Xen::open()?;
    let xl = Xl::find()?;
    if let Some(domain) = &args.end {
        let found = find(xen, domain)?;
        end(xen, &xl, found.info.domid, &found.name)?;
    }
    let mut kept = None;
    if let Some(domain) = &args.keep {
        let found = find(xen, domain)?;
        keep(xen, found.info.domid, &found.name)?;
        kept = Some(found.info.domid);
    }
    let mut is_done = true;
    for found in clean_up(xen, &xl)? {
        is_done &= matches!(found.state, FoundState::InUse | FoundState::Destroyed);
        tell(&found, json);
    }
    let folder = Path::new(STATE_FOLDER);
    let cards = match kept {
        Some(domid) => repair_kept_out(folder, |tap| is_tap_of(domid, tap)),
        None => repair(folder),
    };
    let code = net::tell(&cards.context("network cards")?, json);
    Ok(if is_done { code } else { ExitCode::from(FAILED) })
}

fn tell(found: &Found, json: bool) {
    let Found { domid, name, state } = found;
    let (event, text) = match state {
        FoundState::InUse => ("in-use", "in use by another colo: left alone".to_owned()),
        FoundState::Destroyed => ("destroyed", "a secondary that nobody held: destroyed".to_owned()),
        FoundState::CutOff => ("cut-off", cut_off(name)),
        FoundState::Failed(error) => ("failed", error.to_string()),
    };
    if json {
        print_json(&json!({ "event": event, "domain": name, "domid": domid.0, "text": text }));
    } else {
        eprintln!("colo: {name} (domain {}): {text}", domid.0);
    }
}

fn cut_off(name: &str) -> String {
    format!(
        "it was protected when its colo died, and is cut off from its network. If the other host serves it: colo cleanup --end {name}; \
         if no host does: colo cleanup --keep {name}"
    )
}
