//! `colo primary`, for a domain of Xen.

use super::{Found, find};
use crate::args::{CheckArgs, PrimaryArgs};
use crate::output::{exit_code, print_json};
use crate::primary::{config, follow, warn_unfenced};
use crate::signals;
use anyhow::{Context, Result, bail};
use colo_core::disk::control::ControlledPrimary;
use colo_core::ids::{DomId, Epoch};
use colo_core::session::{Event, Outcome, PrimaryController, PrimarySession, WhenUnprotected};
use colo_core::xen::check::Verdict;
use colo_core::xen::control::DomainInfo;
use colo_core::xen::disks::{Replicated, replicated};
use colo_core::xen::domain::XenDomain;
use colo_core::xen::primary::{Parts, PrimaryGuard, Protected};
use colo_core::xen::save_lock::SaveLock;
use colo_core::xen::toolstack::{DomainConfig, Xl};
use colo_core::xen::{Control, ShutdownReason, Xen, XenStore};
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn run(args: &PrimaryArgs, json: bool) -> Result<ExitCode> {
    let suspend_limit = Duration::from_secs(args.suspend_timeout);
    // Before there is a second thread, and while there is little to copy.
    let guard = PrimaryGuard::start(suspend_limit).context("a process to watch over this one")?;
    let xen = Xen::open()?;
    let Found { control, store, info, name } = find(xen, &args.domain)?;
    if info.domid == DomId(0) {
        bail!("{name} is this host's own domain");
    }
    let lock = SaveLock::take(info.domid, &name)?;
    let xl = Xl::find()?;
    // Before anything is touched.
    if !args.force {
        check(args, xen, &control, &store, &info)?;
    }
    let domain = XenDomain::with_handles(xen, control, store, &info, suspend_limit)?;
    let domain_config = domain.config(&xl)?;
    let disks = disks(args, &domain_config)?;
    let domid = info.domid;
    let mut config = config(args);
    let store = XenStore::open(xen)?;
    let (protected, parts) = Protected::new(domain, config.checkpoints.mode, &xl, disks, store, lock, guard)?;
    // The toolstack on the other host, and the guest's own resume path there, take seconds.
    config.checkpoints.rehearse = true;
    config.when_unprotected = WhenUnprotected::Leave;
    config.on_unprotected = Some(protected.on_unprotected());
    config.layer = Some(protected.layer(Epoch::first_protected(true)));
    let stop = signals::stop_signals()?;
    let Parts { machine, lans } = parts;
    let session = match PrimarySession::start(machine, lans, &args.peer, config) {
        Ok(session) => session,
        Err(not_started) => {
            let error = not_started.error;
            drop((not_started.machine, not_started.lans));
            protected.end(&Outcome::Left)?;
            bail!(error);
        }
    };
    warn_unfenced(args, json);
    let on_event = |event: &Event| {
        let told = if let Event::Protected(_) = event { protected.set_protected() } else { Ok(()) };
        // A guard that is gone is no reason to give the guest up.
        if let Err(error) = told {
            tracing::error!("nobody will see to {name} if this process dies: {error}");
        }
    };
    // The first ends protection. While the secondary cannot be fenced the guest stands still, and only the next one ends that.
    let mut told = false;
    let on_signal = |_, controller: &PrimaryController| {
        if std::mem::replace(&mut told, true) { controller.stop() } else { controller.end_protection() }
    };
    let outcome = follow(&session, &stop, json, on_event, on_signal)?;
    session.wait();
    protected.end(&outcome)?;
    if matches!(outcome, Outcome::GuestShutDown | Outcome::GuestCrashed) {
        let told = see_off(&Control::open(xen)?, &xl, domid, &domain_config)?;
        if json {
            print_json(&json!({ "event": "guest-ended", "domain": name, "text": told }));
        } else {
            eprintln!("colo: {name} {told}");
        }
    }
    Ok(exit_code(&outcome))
}

/// What its configuration wants to be done with a guest that has ended: the `xl` that looked after it has left when it was suspended for
/// the first time. Returns what happened.
fn see_off(control: &Control, xl: &Xl, domid: DomId, config: &DomainConfig) -> Result<String> {
    let Some(reason) = control.domain_info(domid)?.and_then(|info| info.shutdown) else {
        return Ok("is gone".into());
    };
    let what = match reason {
        ShutdownReason::POWEROFF => "has shut down",
        ShutdownReason::REBOOT => "has rebooted",
        ShutdownReason::CRASH => "has crashed",
        _ => "has stopped",
    };
    match config.action_on(reason) {
        Some(kept) if kept.contains("preserve") || kept.starts_with("rename") => {
            Ok(format!("{what}; its domain is kept as it is ({kept})"))
        }
        action => {
            xl.destroy(domid)?;
            let again = action.is_some_and(|action| action.contains("restart"));
            let again =
                if again { "; start it again with `xl create`: nobody does that after a checkpoint" } else { "" };
            Ok(format!("{what}, and its domain is gone{again}"))
        }
    }
}

/// Says what is in the way, and that is the end then.
fn check(args: &PrimaryArgs, xen: Xen, control: &Control, store: &XenStore, info: &DomainInfo) -> Result<()> {
    let check = CheckArgs {
        domain: args.domain.clone(),
        peer: args.peer.clone(),
        mode: Some(args.mode),
        disk_control: args.disk_control.clone(),
        unsafe_disk: args.unsafe_disk,
    };
    let findings = super::check::findings(&check, xen, control, store, info)?;
    let mut failures = findings.iter().filter(|finding| finding.verdict == Verdict::Failure).peekable();
    if failures.peek().is_none() {
        return Ok(());
    }
    let failures: Vec<String> = failures.map(super::check::text).collect();
    bail!("{} cannot be protected: {} (--force begins all the same)", args.domain, failures.join("; "))
}

/// The disks that are replicated, and who has them. Whatever the guest may write to must be.
fn disks(args: &PrimaryArgs, config: &DomainConfig) -> Result<Option<Replicated>> {
    let Some(path) = &args.disk_control else {
        return match config.disks().into_iter().find(|disk| disk.read_write) {
            Some(disk) if !args.unsafe_disk => bail!(
                "{} of {} is writable: let a disk server have it, and say --disk-control (docs/disks.md); or make it read-only, or say \
                 --unsafe-disk if losing what is written to it is no loss",
                disk.vdev,
                config.name(),
            ),
            _ => Ok(None),
        };
    };
    let server = ControlledPrimary::connect(path)?;
    let disks = replicated(config, server.sizes(), &server)?;
    Ok(Some(Replicated { disks, server: Box::new(server) }))
}
