//! `colo compare`.

use crate::args::CompareArgs;
use crate::output::print_json;
use crate::signals;
use anyhow::{Context, Result};
use colo_core::compare::CompareConfig;
use colo_core::standalone::{Server, ServerConfig, Totals};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::io::Read;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

pub(crate) fn run(args: &CompareArgs, json: bool) -> Result<ExitCode> {
    let stop = signals::stop_flag()?;
    let mut signals = signals::descriptor(&[SIGINT, SIGTERM, SIGUSR1])?;
    let mut server = Server::bind(&config(args))?;
    tell_addresses(&server, json);
    while !stop.load(Ordering::SeqCst) {
        server.run(&signals)?;
        // Takes the signals that have come. One that comes now is met by the next run.
        let _ = signals.read(&mut [0; 64]).context("signals")?;
        tell_totals(&server.totals(), json);
    }
    Ok(ExitCode::SUCCESS)
}

fn config(args: &CompareArgs) -> ServerConfig {
    let rules = args.compare_rules.clone().unwrap_or_default();
    ServerConfig {
        notify: args.notify.clone(),
        vnet_header: args.vnet_hdr,
        compare: CompareConfig { timeout: args.compare_timeout, rules, ..CompareConfig::default() },
        ..ServerConfig::new(args.primary_in.clone(), args.secondary_in.clone(), args.out.clone())
    }
}

fn tell_addresses(server: &Server, json: bool) {
    if json {
        let mut event = json!({"event": "listening"});
        for (name, address) in server.addresses() {
            event[name.replace('-', "_")] = json!(address.to_string());
        }
        return print_json(&event);
    }
    for (name, address) in server.addresses() {
        eprintln!("colo: {name} is at {address}");
    }
}

fn tell_totals(totals: &Totals, json: bool) {
    if !json {
        return eprintln!("colo: {totals}");
    }
    let counters = &totals.counters;
    print_json(&json!({
        "event": "totals",
        "primary_frames": counters.primary_frames,
        "secondary_frames": counters.secondary_frames,
        "agreed_frames": counters.released_frames,
        "let_go_frames": counters.handed_back_frames,
        "held_frames": totals.held_frames(),
        "forgotten_frames": counters.forgotten_frames,
        "stale_frames": totals.stale_frames,
        "sent_frames": totals.sent_frames,
        "waiting_frames": totals.waiting_frames,
        "lost_primary_frames": totals.lost_primary_frames,
        "lost_out_frames": totals.lost_out_frames,
        "divergences": totals.divergences,
        "checkpoints": totals.checkpoints,
        "bad_framings": totals.bad_framings,
    }));
}
