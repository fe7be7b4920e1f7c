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
        name: args.name.clone(),
        is_read_only: args.read_only,
    };
    let server = Server::open(&config)?;
    let (size, socket) = (server.export().size, args.socket.display().to_string());
    if json {
        print_json(&json!({"event": "listening", "socket": socket, "export": args.name, "size": size}));
    } else {
        eprintln!("colo: {} ({size} bytes) is at nbd+unix:///{}?socket={socket}", args.backing.display(), args.name);
    }
    server.run(stop)?;
    Ok(ExitCode::SUCCESS)
}
