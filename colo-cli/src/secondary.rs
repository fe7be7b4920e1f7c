//! `colo secondary`.

use crate::args::{HypervisorArg, SecondaryArgs};
use crate::output::{SENSELESS, Teller, exit_code, print_json};
use crate::{embedded, signals};
use anyhow::{Context, Result};
use colo_core::disk::control::ControlledSecondary;
use colo_core::domain::Host;
use colo_core::peer::DEFAULT_PORT;
use colo_core::session::{Event, SecondarySession, SecondarySessionConfig, WhenUnprotected};
use colo_core::xen::Xen;
use colo_core::xen::host::XenHost;
use crossbeam_channel::select;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::process::ExitCode;
use std::time::Duration;

/// How long this side stays in its machine's way after it has taken over, though no connection needs it: leaving loses what is under
/// way, and clients are busy enough for now.
const SETTLE_TIME: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &SecondaryArgs, json: bool) -> Result<ExitCode> {
    let is_xen = embedded::hypervisor(args.hypervisor) == HypervisorArg::Xen;
    if is_xen && args.disk.is_some() {
        eprintln!(
            "colo: --disk: on Xen a guest has its disks by its configuration; name their disk server, --disk-control"
        );
        return Ok(ExitCode::from(SENSELESS));
    }
    if !is_xen && args.disk_control.is_some() {
        eprintln!("colo: --disk-control: only for Xen; an embedded machine gets its disk by --disk and --journal");
        return Ok(ExitCode::from(SENSELESS));
    }
    if let Some(why) = crate::disk::shared::unfenced(args.disk_control.as_deref(), args.fence_command.as_ref()) {
        eprintln!("colo: {why}{}", if args.promote_unfenced { " instead of --promote-unfenced" } else { "" });
        return Ok(ExitCode::from(SENSELESS));
    }
    // Before there are other threads: a host may start processes that watch over this one.
    let (host, when_unprotected): (Box<dyn Host>, _) = match embedded::hypervisor(args.hypervisor) {
        HypervisorArg::Xen => {
            let host = XenHost::open(Xen::open()?).context("a process to watch over this one")?;
            let host = match &args.disk_control {
                None => host,
                Some(path) => {
                    // For a machine with a disk it is there, or this is said now. Nobody keeps it until one comes.
                    ControlledSecondary::connect(path).context("--disk-control")?;
                    host.with_disk_control(path.clone())
                }
            };
            (Box::new(host), WhenUnprotected::Leave)
        }
        HypervisorArg::Embedded => (embedded::host(args), WhenUnprotected::Serve),
    };
    let signals = signals::signals(&[SIGINT, SIGTERM, SIGUSR1])?;
    let config = SecondarySessionConfig {
        verify: args.verify,
        fence_command: args.fence_command.clone(),
        accept_unfenced: args.promote_unfenced,
        when_unprotected,
        leave_when_idle: (when_unprotected == WhenUnprotected::Leave).then_some(SETTLE_TIME),
        ..SecondarySessionConfig::default()
    };
    let address = with_port(&args.listen);
    let session =
        SecondarySession::listen(address.as_str(), host, config).with_context(|| format!("--listen {address}"))?;
    if json {
        print_json(&json!({"event": "listening", "address": session.local_addr().to_string()}));
    } else {
        eprintln!("colo: listening on {}", session.local_addr());
        match (&args.fence_command, args.promote_unfenced) {
            (Some(_), _) => {}
            (None, true) => eprintln!("colo: --promote-unfenced: if the link is cut, both hosts serve"),
            (None, false) => eprintln!("colo: no --fence-command: a machine whose primary falls silent will be held"),
        }
    }
    let controller = session.controller();
    let mut teller = Teller::new(json);
    loop {
        select! {
            recv(session.events()) -> event => match event {
                Ok(event) => {
                    teller.tell(&event);
                    if matches!(event, Event::Held { .. }) && !json {
                        tell_what_to_do();
                    }
                    if let Event::Ended(outcome) = event {
                        return Ok(exit_code(&outcome));
                    }
                }
                Err(_) => return Ok(exit_code(&session.wait())),
            },
            recv(signals) -> signal => if signal == Ok(SIGUSR1) { controller.promote() } else { controller.stop() },
        }
    }
}

/// For an operator whose machine is held.
fn tell_what_to_do() {
    let pid = std::process::id();
    eprintln!("colo: if the primary is dead, let the machine serve here: kill -USR1 {pid}");
    eprintln!("colo: if it lives, protect its machine again from there, or give this one up: kill {pid}");
}

/// The address with the usual port, if it has none.
fn with_port(address: &str) -> String {
    let has_port = address.parse::<std::net::SocketAddr>().is_ok()
        || (!address.contains("::") && address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()));
    if has_port { address.to_owned() } else { format!("{address}:{DEFAULT_PORT}") }
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn a_port_is_added_where_there_is_none() {
        assert_eq!(with_port("0.0.0.0:99"), "0.0.0.0:99");
        assert_eq!(with_port("localhost"), "localhost:8002");
        assert_eq!(with_port("[::1]"), "[::1]:8002");
        assert_eq!(with_port("[::1]:99"), "[::1]:99");
    }
}
