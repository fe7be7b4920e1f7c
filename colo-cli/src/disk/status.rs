//! `colo disk status`.

use crate::args::DiskControlArgs;
use crate::output::print_json;
use anyhow::{Context, Result};
use colo_core::disk::control::{Observer, Reported, Role};
use colo_core::disk::{CopyProgress, DiskState};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::process::ExitCode;

pub(crate) fn run(args: &DiskControlArgs, as_json: bool) -> Result<ExitCode> {
    let mut observer = Observer::connect(&args.control)?;
    let reported = observer.status().with_context(|| args.control.display().to_string())?;
    if as_json {
        print_json(&status_json(&observer, &reported));
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stdout().lock();
    for (key, value) in lines(&observer, &reported) {
        // Nobody who does not listen any more is bothered.
        let _ = writeln!(out, "{key:<12} {value}");
    }
    Ok(ExitCode::SUCCESS)
}

/// In the order in which a person asks.
fn lines(observer: &Observer, reported: &Reported) -> Vec<(&'static str, String)> {
    let Reported { is_driven, disks } = reported;
    let role = observer.role();
    let sizes: Vec<_> = observer.sizes().iter().map(u64::to_string).collect();
    let mut lines = vec![
        ("role", role.to_string()),
        ("state", state(role, &disks.state)),
        ("driven", if *is_driven { "by another process" } else { "by nobody" }.to_owned()),
        ("bytes", sizes.join(", ")),
        ("epoch", format!("{} counts, {} is whole", disks.epoch.0, disks.whole_epoch.0)),
        ("waiting", format!("{} of at most {} bytes", disks.waiting_bytes, disks.limit_bytes)),
    ];
    if observer.is_shared() {
        lines.insert(1, ("disk", "shared with the other host".to_owned()));
    }
    if role == Role::Secondary || disks.journal_bytes > 0 {
        lines.push(("journal", format!("{} bytes", disks.journal_bytes)));
    }
    lines
}

fn state(role: Role, state: &DiskState) -> String {
    match state {
        DiskState::Alone(why) => {
            let alone = match role {
                Role::Primary => "not protected",
                Role::Secondary => "follows nobody",
            };
            why.as_ref().map_or(alone.to_owned(), |why| format!("{alone}: {why}"))
        }
        DiskState::Copying(progress) => {
            let CopyProgress { done_bytes, all_bytes, sent_bytes, .. } = *progress;
            let [done, all, sent] = [done_bytes, all_bytes, sent_bytes].map(|bytes| bytes >> 20);
            let pace = progress.pace().map_or(String::new(), |pace| format!("; {pace}"));
            format!("first copy: {done} of {all} MiB are the same, {sent} MiB were sent{pace}")
        }
        DiskState::Held(why) => {
            let held =
                "not protected, and the guest's writes wait until it is known that the other host does not serve";
            why.as_ref().map_or(held.to_owned(), |why| format!("{held}: {why}"))
        }
        DiskState::Receiving => "first copy".to_owned(),
        DiskState::InStep => "in step".to_owned(),
        DiskState::Serving => "has taken over, not protected".to_owned(),
    }
}

fn status_json(observer: &Observer, reported: &Reported) -> Value {
    let (role, sizes, is_shared) = (observer.role(), observer.sizes(), observer.is_shared());
    let Reported { is_driven, disks } = reported;
    let name = match &disks.state {
        DiskState::Alone(_) => "alone",
        DiskState::Copying(_) | DiskState::Receiving => "copying",
        DiskState::InStep => "in-step",
        DiskState::Serving => "serving",
        DiskState::Held(_) => "held",
    };
    let mut value = json!({"role": role.to_string(), "is_shared": is_shared, "sizes": sizes, "is_driven": is_driven, "state": name,
        "epoch": disks.epoch.0, "whole_epoch": disks.whole_epoch.0, "waiting_bytes": disks.waiting_bytes,
        "limit_bytes": disks.limit_bytes, "journal_bytes": disks.journal_bytes, "text": state(role, &disks.state)});
    match &disks.state {
        DiskState::Alone(why) | DiskState::Held(why) => value["why"] = json!(why),
        DiskState::Copying(progress) => {
            let pace = progress.pace();
            value["copy"] = json!({"done_bytes": progress.done_bytes, "all_bytes": progress.all_bytes,
                "sent_bytes": progress.sent_bytes, "bytes_per_second": pace.map(|pace| pace.bytes_per_second),
                "left_s": pace.and_then(|pace| pace.left).map(|left| left.as_secs())});
        }
        DiskState::Receiving | DiskState::InStep | DiskState::Serving => {}
    }
    value
}
