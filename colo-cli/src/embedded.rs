//! What the commands need of the embedded hypervisor, and `colo embedded switch`.

use crate::args::{HypervisorArg, MachineArgs, SwitchArgs};
use crate::signals;
use anyhow::{Context, Result};
use colo_core::domain::{Disks, Host, Machine};
use colo_core::net::Port;
use colo_core::save::CallbackError;
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost};
use colo_embedded::switch::{Switch, SwitchConfig, SwitchPort};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

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
    Ok((Machine { domain: Box::new(domain), nics: vec![Box::new(card)], disks: Disks::None }, Box::new(lan)))
}

/// Dies as by `kill -9`, for tests.
pub(crate) fn die() -> Result<(), CallbackError> {
    signal_hook::low_level::raise(9)?;
    Ok(())
}

/// `colo embedded switch`.
pub(crate) fn switch(args: &SwitchArgs) -> Result<ExitCode> {
    let signals = signals::stop_signals()?;
    let config =
        SwitchConfig { forwards: args.forward.clone(), tap: args.tap.clone(), ..SwitchConfig::new(&args.socket) };
    let mut switch = Switch::new(&config)?;
    eprintln!("colo: the switch is at {}", args.socket.display());
    for forward in &config.forwards {
        eprintln!("colo: {} is relayed to {}", forward.listen, forward.target);
    }
    let (stop, stopper) = UnixStream::pair()?;
    std::thread::spawn(move || {
        // Also when the sender is gone: then nobody could ask again. What is dropped makes its other end readable.
        let _ = signals.recv();
        drop(stopper);
    });
    switch.run(stop)?;
    Ok(ExitCode::SUCCESS)
}
