//! `colo disk serve`, and beside it what asks such a server.

pub(crate) mod shared;
pub(crate) mod status;
pub(crate) mod verify;

use crate::args::{DiskServeArgs, DurabilityArg};
use crate::output::print_json;
use crate::signals;
use anyhow::{Context, Result, bail};
use colo_core::disk::control::{ControlServer, ServedDisks};
use colo_core::disk::nbd::{DiskConfig, Export, Server, ServerConfig};
use colo_core::disk::{Backend, Durability, MAX_DISKS, Replica, ReplicaConfig, StoreConfig, Tap, TapConfig};
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

pub(crate) fn serve(args: &DiskServeArgs, json: bool) -> Result<ExitCode> {
    let stop = signals::stop_descriptor()?;
    let config =
        ServerConfig { disks: disks(args)?, socket: args.socket.clone(), tcp: args.tcp, is_read_only: args.read_only };
    let (server, control) = open(args, &config)?;
    let places: Vec<String> = server.locations().iter().map(ToString::to_string).collect();
    let driven = args.control.as_ref().map(|path| path.display().to_string());
    if json {
        let socket = args.socket.as_ref().map(|path| path.display().to_string());
        let export = |export: &Export| json!({ "name": export.name, "size": export.size });
        let exports: Vec<_> = server.exports().map(export).collect();
        print_json(&json!({
            "event": "listening", "socket": socket, "locations": places, "exports": exports, "control": driven,
            "is_shared": args.shared,
        }));
    } else {
        let export =
            |(export, disk): (&Export, &DiskConfig)| format!("{} ({} bytes)", disk.backing.display(), export.size);
        let disks: Vec<String> = server.exports().zip(&config.disks).map(export).collect();
        let driven = driven.map_or(String::new(), |path| format!(", and driven at {path}"));
        let are = if disks.len() == 1 { "is" } else { "are" };
        let shared = if args.shared { "shared with another host, " } else { "" };
        eprintln!("colo: {} {are} {shared}at {}{driven}", disks.join(", "), places.join(" and at "));
    }
    server.run(stop)?;
    settle(control)?;
    Ok(ExitCode::SUCCESS)
}

/// What is served, by name.
fn disks(args: &DiskServeArgs) -> Result<Vec<DiskConfig>> {
    let count = args.backing.len();
    if count > MAX_DISKS {
        bail!("{count} disks: the limit is {MAX_DISKS}");
    }
    let names = match (&args.name[..], count) {
        ([], 1) => vec!["disk".into()],
        ([], _) => (0..count).map(|number| format!("disk{number}")).collect(),
        (names, _) if names.len() == count => names.to_vec(),
        (names, _) => bail!("{} names for {count} disks: give one --name for each --backing, or none", names.len()),
    };
    Ok(args.backing.iter().cloned().zip(names).map(|(backing, name)| DiskConfig { backing, name }).collect())
}

/// The disks, and what drives them if anything does.
fn open(args: &DiskServeArgs, config: &ServerConfig) -> Result<(Server, Option<ControlServer>)> {
    let Some(path) = &args.control else { return Ok((Server::open(config)?, None)) };
    let (server, disks) = match &args.journal {
        None => {
            let disks = match args.shared {
                true => backends(Server::open_shared_disks(config)?),
                false => backends(Server::open_disks(config)?),
            };
            let tap = tap(args, disks);
            (over(&tap, config)?, ServedDisks::Primary(tap))
        }
        Some(journal) if args.backing.contains(journal) => {
            bail!("{}: the journal is a file of its own", journal.display())
        }
        Some(journal) => {
            let (disks, journal) = (args.backing.clone(), journal.clone());
            let store = StoreConfig { is_shared: args.shared, ..StoreConfig::default() };
            let replica = Replica::open(ReplicaConfig { disks, journal, store })?;
            let sizes = (0..).zip(replica.sizes());
            let disks =
                sizes.map(|(number, size)| (Arc::new(replica.disk(number)) as Arc<dyn Backend>, *size)).collect();
            let tap = tap(args, disks);
            (over(&tap, config)?, ServedDisks::Secondary(replica, tap))
        }
    };
    let control = ControlServer::start(path, disks).with_context(|| path.display().to_string())?;
    Ok((server, Some(control)))
}

fn backends(disks: Vec<(impl Backend + 'static, u64)>) -> Vec<(Arc<dyn Backend>, u64)> {
    disks.into_iter().map(|(disk, size)| (Arc::new(disk) as Arc<dyn Backend>, size)).collect()
}

/// What stands between a guest and these disks.
fn tap(args: &DiskServeArgs, disks: Vec<(Arc<dyn Backend>, u64)>) -> Tap {
    let durability = args.durability.map_or(Durability::default(), Durability::from);
    let copy_bytes_per_second = args.copy_limit.unwrap_or(0);
    let is_shared = args.shared;
    Tap::new(disks, TapConfig { durability, copy_bytes_per_second, is_shared, ..TapConfig::default() })
}

fn over(tap: &Tap, config: &ServerConfig) -> Result<Server> {
    let disk = |(number, size)| (Arc::new(tap.disk(number)) as Arc<dyn Backend>, size);
    Ok(Server::over((0..).zip(tap.sizes()).map(disk).collect(), config)?)
}

/// What counts is put where it belongs, so that the journal need not be read by the next.
fn settle(control: Option<ControlServer>) -> Result<()> {
    if let Some(ServedDisks::Secondary(replica, _)) = control.and_then(ControlServer::stop) {
        replica.settle().context("what counts is in the journal, and not all of it on the disk")?;
    }
    Ok(())
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::AsyncEpoch => Durability::AsyncEpoch,
            DurabilityArg::Memory => Durability::Memory,
            DurabilityArg::Disk => Durability::Disk,
        }
    }
}
