//! `colo secondary`.

use crate::args::{HypervisorArg, SecondaryArgs};
use crate::output::{Teller, exit_code, print_json};
use crate::xen::AnsweringHost;
use crate::{embedded, signals};
use anyhow::{Context, Result};
use colo_core::domain::Host;
use colo_core::peer::DEFAULT_PORT;
use colo_core::session::{Event, SecondarySession, SecondarySessionConfig};
use crossbeam_channel::select;
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn run(args: &SecondaryArgs, json: bool) -> Result<ExitCode> {
    let host: Box<dyn Host> = match embedded::hypervisor(args.hypervisor) {
        HypervisorArg::Embedded => embedded::host(&args.switch),
        HypervisorArg::Xen => {
            let host = AnsweringHost::open()?;
            eprintln!("colo: this build takes no Xen domains in yet, it only answers `colo check`");
            Box::new(host)
        }
    };
    let stop = signals::stop_signals()?;
    let config = SecondarySessionConfig { verify: args.verify, fence_command: args.fence_command.clone(), layer: None };
    let address = with_port(&args.listen);
    let session =
        SecondarySession::listen(address.as_str(), host, config).with_context(|| format!("--listen {address}"))?;
    if json {
        print_json(&json!({"event": "listening", "address": session.local_addr().to_string()}));
    } else {
        eprintln!("colo: listening on {}", session.local_addr());
        if args.fence_command.is_none() {
            eprintln!("colo: no --fence-command: if the link is cut, both hosts may serve");
        }
    }
    let controller = session.controller();
    let mut teller = Teller::new(json);
    loop {
        select! {
            recv(session.events()) -> event => match event {
                Ok(event) => {
                    teller.tell(&event);
                    if let Event::Ended(outcome) = event {
                        return Ok(exit_code(&outcome));
                    }
                }
                Err(_) => return Ok(exit_code(&session.wait())),
            },
            recv(stop) -> _ => controller.stop(),
        }
    }
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
