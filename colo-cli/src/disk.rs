//! `colo disk serve`, and beside it what asks such a server.

pub(crate) mod status;
pub(crate) mod verify;

use crate::args::{DiskServeArgs, DurabilityArg};
use crate::output::print_json;
use crate::signals;
use anyhow::{Context, Result, bail};
use colo_core::disk::control::{ControlServer, ServedDisks};
use colo_core::disk::nbd::{Server, ServerConfig};
use colo_core::disk::{Durability, Replica, ReplicaConfig, StoreConfig, Tap, TapConfig};
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

pub(crate) fn serve(args: &DiskServeArgs, json: bool) -> Result<ExitCode> {
    let stop = signals::stop_descriptor()?;
    let config = ServerConfig {
        backing: args.backing.clone(),
        socket: args.socket.clone(),
        tcp: args.tcp,
        name: args.name.clone(),
        is_read_only: args.read_only,
    };
    let (server, control) = open(args, &config)?;
    let size = server.export().size;
    let places: Vec<String> = server.locations().iter().map(ToString::to_string).collect();
    let driven = args.control.as_ref().map(|path| path.display().to_string());
    if json {
        let socket = args.socket.as_ref().map(|path| path.display().to_string());
        print_json(&json!({
            "event": "listening", "socket": socket, "locations": places, "export": args.name, "size": size,
            "control": driven,
        }));
    } else {
        let driven = driven.map_or(String::new(), |path| format!(", and driven at {path}"));
        eprintln!("colo: {} ({size} bytes) is at {}{driven}", args.backing.display(), places.join(" and at "));
    }
    server.run(stop)?;
    settle(control)?;
    Ok(ExitCode::SUCCESS)
}

/// The disk, and what drives it if anything does.
fn open(args: &DiskServeArgs, config: &ServerConfig) -> Result<(Server, Option<ControlServer>)> {
    let Some(path) = &args.control else { return Ok((Server::open(config)?, None)) };
    let (server, disks) = match &args.journal {
        None => {
            let (disk, size) = Server::open_disk(config)?;
            let durability = args.durability.map_or(Durability::default(), Durability::from);
            let copy_bytes_per_second = args.copy_limit.unwrap_or(0);
            let limits = TapConfig { durability, copy_bytes_per_second, ..TapConfig::default() };
            let tap = Tap::new(vec![(Arc::new(disk), size)], limits);
            (Server::over(Arc::new(tap.disk(0)), size, config)?, ServedDisks::Primary(tap))
        }
        Some(journal) if *journal == args.backing => bail!("{}: the journal is a file of its own", journal.display()),
        Some(journal) => {
            let disks = vec![args.backing.clone()];
            let replica =
                Replica::open(ReplicaConfig { disks, journal: journal.clone(), store: StoreConfig::default() })?;
            let size = replica.sizes().first().copied().unwrap_or(0);
            (Server::over(Arc::new(replica.disk(0)), size, config)?, ServedDisks::Secondary(replica))
        }
    };
    let control = ControlServer::start(path, disks).with_context(|| path.display().to_string())?;
    Ok((server, Some(control)))
}

/// What counts is put where it belongs, so that the journal need not be read by the next.
fn settle(control: Option<ControlServer>) -> Result<()> {
    if let Some(ServedDisks::Secondary(replica)) = control.and_then(ControlServer::stop) {
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
