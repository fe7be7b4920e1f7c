//! `colo primary`.

use crate::args::{HypervisorArg, ModeArg, PrimaryArgs};
use crate::output::{SENSELESS, Teller, exit_code};
use crate::{embedded, signals, xen};
use anyhow::{Context, Result, bail};
use colo_core::checkpoint::PrimaryConfig;
use colo_core::failover::CommandFence;
use colo_core::layers::Faults;
use colo_core::peer::Mode;
use colo_core::save::layers::Faulty;
use colo_core::session::{Event, Outcome, PrimaryController, PrimarySession, PrimarySessionConfig, RecordConfig};
use crossbeam_channel::{Receiver, select};
use signal_hook::consts::SIGINT;
use std::process::ExitCode;

pub(crate) fn run(args: &PrimaryArgs, json: bool) -> Result<ExitCode> {
    if args.mode == ModeArg::Remus && args.record_miscompares.is_some() {
        eprintln!("colo: --record-miscompares: under Remus there are no miscompares to record; use --mode colo");
        return Ok(ExitCode::from(SENSELESS));
    }
    if args.mode == ModeArg::Remus && args.compare_rules.is_some() {
        eprintln!("colo: --compare-rules: under Remus nothing is compared; use --mode colo");
        return Ok(ExitCode::from(SENSELESS));
    }
    let is_xen = embedded::hypervisor(args.hypervisor) == HypervisorArg::Xen;
    if is_xen && args.machine.disk.is_some() {
        eprintln!(
            "colo: --disk: a guest of Xen's has its disks by its configuration; name their disk server, --disk-control"
        );
        return Ok(ExitCode::from(SENSELESS));
    }
    if !is_xen && args.disk_control.is_some() {
        eprintln!("colo: --disk-control: only for Xen; an embedded machine gets its disk by --disk");
        return Ok(ExitCode::from(SENSELESS));
    }
    if let Some(why) = crate::disk::shared::unfenced(args.disk_control.as_deref(), args.fence_command.as_ref()) {
        eprintln!("colo: {why}");
        return Ok(ExitCode::from(SENSELESS));
    }
    if is_xen {
        return xen::primary(args, json);
    }
    let stop = signals::stop_signals()?;
    let (machine, lan) = embedded::boot(&args.domain, &args.machine)?;
    let session = match PrimarySession::start(machine, vec![lan], &args.peer, config(args)) {
        Ok(session) => session,
        Err(not_started) => bail!(not_started.error),
    };
    warn_unfenced(args, json);
    // The first Ctrl-C ends protection and leaves the guest running; the next, or SIGTERM, ends the guest.
    let mut interrupted = false;
    let on_signal = |signal, controller: &PrimaryController| {
        if signal == SIGINT && !std::mem::replace(&mut interrupted, true) {
            controller.end_protection();
            if !json {
                eprintln!("colo: ending protection; the guest runs on until the next Ctrl-C");
            }
        } else {
            controller.stop();
        }
    };
    Ok(exit_code(&follow(&session, &stop, json, |_| (), on_signal)?))
}

/// Tells what happens, until the session has ended.
pub(crate) fn follow(
    session: &PrimarySession,
    stop: &Receiver<i32>,
    json: bool,
    mut on_event: impl FnMut(&Event),
    mut on_signal: impl FnMut(i32, &PrimaryController),
) -> Result<Outcome> {
    let controller = session.controller();
    let mut teller = Teller::new(json);
    loop {
        select! {
            recv(session.events()) -> event => {
                let event = event.context("the session has ended without a word")?;
                on_event(&event);
                teller.tell(&event);
                if let Event::Ended(outcome) = event {
                    return Ok(outcome);
                }
            }
            recv(stop) -> signal => if let Ok(signal) = signal {
                on_signal(signal, &controller);
            },
        }
    }
}

pub(crate) fn warn_unfenced(args: &PrimaryArgs, json: bool) {
    if args.fence_command.is_none() && !json {
        eprintln!(
            "colo: no --fence-command: if the link is cut and the secondary takes over all the same, both hosts serve"
        );
    }
}

pub(crate) fn config(args: &PrimaryArgs) -> PrimarySessionConfig {
    let mode = match args.mode {
        ModeArg::Colo => Mode::Colo,
        ModeArg::Remus => Mode::Remus,
    };
    let mut config = PrimarySessionConfig::new(mode);
    let checkpoints = PrimaryConfig::new(mode);
    config.checkpoints = PrimaryConfig { interval: args.interval.unwrap_or(checkpoints.interval), ..checkpoints };
    config.heartbeat = args.heartbeat;
    if let Some(timeout) = args.compare_timeout {
        config.compare.timeout = timeout;
    }
    config.compare.rules = args.compare_rules.clone().unwrap_or_default();
    config.verify = args.verify;
    config.record = args.record_miscompares.as_ref().map(RecordConfig::new);
    if let Some(command) = &args.fence_command {
        config.fence = Some(Box::new(CommandFence::new(command, &args.domain, "primary", &args.peer)));
    }
    if let Some((callback, call)) = args.die_at.clone() {
        config.layer = Some(Box::new(move |inner| {
            let callback: &'static str = Box::leak(callback.into_boxed_str());
            Box::new(Faulty::new(inner, Faults::default().at(callback, call, embedded::die)))
        }));
    }
    config
}
