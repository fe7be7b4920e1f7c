//! What the commands need of the embedded hypervisor, and `colo embedded switch`.

use crate::args::{HypervisorArg, MachineArgs, SwitchArgs};
use crate::signals;
use anyhow::{Context, Result, bail};
use colo_core::domain::{Host, Machine};
use colo_core::net::Port;
use colo_core::save::CallbackError;
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost, SwitchPort};
use colo_embedded::switch::{Forward, Switch, SwitchConfig};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The hypervisor that is meant.
pub(crate) fn hypervisor(given: Option<HypervisorArg>) -> HypervisorArg {
    let is_xen = || std::fs::read_to_string("/sys/hypervisor/type").is_ok_and(|kind| kind.trim() == "xen");
    given.unwrap_or_else(|| if is_xen() { HypervisorArg::Xen } else { HypervisorArg::Embedded })
}

/// A host whose machines are behind that switch.
pub(crate) fn host(switch: &Path) -> Box<dyn Host> {
    Box::new(EmbeddedHost::new(switch))
}

/// Boots a machine, suspended, and connects it to the switch.
pub(crate) fn boot(name: &str, args: &MachineArgs) -> Result<(Machine, Box<dyn Port>)> {
    let config = EmbeddedConfig { ram_bytes: args.memory << 20, ipv4: args.ip, ..EmbeddedConfig::named(name) };
    let lan = SwitchPort::connect(&args.switch)
        .with_context(|| format!("no switch at {} (start one with `colo embedded switch`)", args.switch.display()))?;
    let (domain, card) = EmbeddedDomain::boot(&config)?;
    Ok((Machine { domain: Box::new(domain), nics: vec![Box::new(card)] }, Box::new(lan)))
}

/// Dies as by `kill -9`, for tests.
pub(crate) fn die() -> Result<(), CallbackError> {
    signal_hook::low_level::raise(9)?;
    Ok(())
}

/// `colo embedded switch`.
pub(crate) fn switch(args: &SwitchArgs) -> Result<ExitCode> {
    let stop = signals::stop_signals()?;
    let forwards: Vec<Forward> = args.forward.iter().map(|&(from, to)| forward(from, to)).collect::<Result<_>>()?;
    let config = SwitchConfig { socket: args.socket.clone(), forwards, tap: args.tap.clone() };
    let mut switch =
        Switch::new(&config).with_context(|| format!("cannot open the switch at {}", args.socket.display()))?;
    eprintln!("colo: the switch is at {}", args.socket.display());
    for forward in &config.forwards {
        eprintln!("colo: {} is relayed to {}", forward.from, forward.to);
    }
    let stopped = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let stopped = stopped.clone();
        move || {
            // Also when the sender is gone: then nobody could ask again.
            let _ = stop.recv();
            stopped.store(true, Ordering::SeqCst);
        }
    });
    switch.run(&stopped)?;
    Ok(ExitCode::SUCCESS)
}

fn forward(from: SocketAddr, to: SocketAddr) -> Result<Forward> {
    match to {
        SocketAddr::V4(to) => Ok(Forward { from, to }),
        SocketAddr::V6(to) => bail!("{to}: guests of the embedded hypervisor have IPv4 addresses"),
    }
}
