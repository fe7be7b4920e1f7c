//! `colo disk`.

use crate::args::DiskServeArgs;
use crate::output::print_json;
use crate::signals;
use anyhow::Result;
use colo_core::disk::nbd::{Server, ServerConfig};
use serde_json::json;
use std::process::ExitCode;

pub(crate) fn serve(args: &DiskServeArgs, json: bool) -> Result<ExitCode> {
    let stop = signals::stop_descriptor()?;
    let config = ServerConfig {
        backing: args.backing.clone(),
        socket: args.socket.clone(),
        tcp: args.tcp,
        name: args.name.clone(),
        is_read_only: args.read_only,
    };
    let server = Server::open(&config)?;
    let size = server.export().size;
    let places: Vec<String> = server.locations().iter().map(ToString::to_string).collect();
    if json {
        let socket = args.socket.as_ref().map(|path| path.display().to_string());
        print_json(&json!({
            "event": "listening", "socket": socket, "locations": places, "export": args.name, "size": size,
        }));
    } else {
        eprintln!("colo: {} ({size} bytes) is at {}", args.backing.display(), places.join(" and at "));
    }
    server.run(stop)?;
    Ok(ExitCode::SUCCESS)
}
