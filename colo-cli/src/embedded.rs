//! What the commands need of the embedded hypervisor, and `colo embedded switch`.

use crate::args::{DurabilityArg, HypervisorArg, MachineArgs, SecondaryArgs, SwitchArgs};
use crate::signals;
use anyhow::{Context, Result};
use colo_core::disk::{Backend, Durability, FileBackend, ReplicaConfig, StoreConfig, Tap, TapConfig};
use colo_core::domain::{Disks, Host, Machine};
use colo_core::net::Port;
use colo_core::save::CallbackError;
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost, GatedTap};
use colo_embedded::switch::{Switch, SwitchConfig, SwitchPort};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// The hypervisor that is meant.
pub(crate) fn hypervisor(given: Option<HypervisorArg>) -> HypervisorArg {
    let is_xen = || std::fs::read_to_string("/sys/hypervisor/type").is_ok_and(|kind| kind.trim() == "xen");
    given.unwrap_or_else(|| if is_xen() { HypervisorArg::Xen } else { HypervisorArg::Embedded })
}

/// A host whose machines are behind that switch, and have that disk.
pub(crate) fn host(args: &SecondaryArgs) -> Box<dyn Host> {
    let host = EmbeddedHost::new(&args.switch);
    let disk = args.disk.clone().zip(args.journal.clone());
    Box::new(match disk {
        Some((disk, journal)) => {
            host.with_disk(ReplicaConfig { disks: vec![disk], journal, store: StoreConfig::default() })
        }
        None => host,
    })
}

/// Boots a machine, suspended, and connects it to the switch.
pub(crate) fn boot(name: &str, args: &MachineArgs) -> Result<(Machine, Box<dyn Port>)> {
    let tap = args.disk.as_ref().map(|path| tap(path, args.durability)).transpose()?;
    let config = EmbeddedConfig {
        ram_bytes: args.memory << 20,
        disk_bytes: tap.as_ref().map_or(0, |(_, bytes)| *bytes),
        ipv4: args.ip,
        ..EmbeddedConfig::named(name)
    };
    let lan = SwitchPort::connect(&args.switch)
        .with_context(|| format!("no switch at {} (start one with `colo embedded switch`)", args.switch.display()))?;
    let disk = tap.as_ref().map(|(tap, _)| Arc::new(tap.disk(0)) as Arc<dyn Backend>);
    let (domain, card) = EmbeddedDomain::boot_with(&config, disk)?;
    let disks = match (tap, domain.disk_gate()) {
        (Some((tap, _)), Some(gate)) => Disks::Primary(Box::new(GatedTap::new(gate, tap))),
        _ => Disks::None,
    };
    Ok((Machine { domain: Box::new(domain), nics: vec![Box::new(card)], disks }, Box::new(lan)))
}

/// A guest's disk, and its size in bytes.
fn tap(path: &Path, durability: DurabilityArg) -> Result<(Tap, u64)> {
    let (file, bytes) = FileBackend::open(path).with_context(|| format!("--disk {}", path.display()))?;
    let durability = Durability::from(durability);
    Ok((Tap::new(vec![(Arc::new(file), bytes)], TapConfig { durability, ..TapConfig::default() }), bytes))
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
