//! The `colo` command: arguments in, library calls, output out.
//!
//! Exit codes: 0 as asked; 1 something failed; 2 the command line makes no sense; 3 the guest here was destroyed because the other
//! side serves; 4 the guest crashed; 5 the guest runs on, unprotected. `colo --help` tells them too.

mod args;
mod compare;
mod demo;
mod disk;
mod embedded;
mod inspect;
mod net;
mod output;
mod primary;
mod progress;
mod secondary;
mod signals;
mod source;
mod why;
mod xen;

use args::{Cli, Command, DiskCommand, EmbeddedCommand, NetCommand};
use clap::Parser;
use colo_core::xen::toolstack::HelperRole;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Started by libxl in its save helper's place?
    if let Some(helper) = HelperRole::detect() {
        return helper.run();
    }
    let cli = Cli::parse();
    output::start_log(cli.verbose);
    let result = match &cli.command {
        Command::Primary(args) => primary::run(args, cli.json),
        Command::Secondary(args) => secondary::run(args, cli.json),
        Command::Check(args) => xen::check(args, cli.json),
        Command::Save(args) => xen::save(args, cli.json),
        Command::Restore(args) => xen::restore(args, cli.json),
        Command::Resume(args) => xen::resume(args, cli.json),
        Command::List => xen::list(cli.json),
        Command::Info(args) => xen::info(args, cli.json),
        Command::Inspect(args) => inspect::run(args, cli.json),
        Command::Why(args) => why::run(args, cli.json),
        Command::Compare(args) => compare::run(args, cli.json),
        Command::Cleanup(args) => xen::cleanup(args, cli.json),
        Command::Disk(DiskCommand::Serve(args)) => disk::serve(args, cli.json),
        Command::Disk(DiskCommand::Status(args)) => disk::status::run(args, cli.json),
        Command::Disk(DiskCommand::Verify(args)) => disk::verify::run(args, cli.json),
        Command::Disk(DiskCommand::Release(args)) => disk::shared::release(args),
        Command::Net(NetCommand::Repair(args)) => net::repair_cards(args, cli.json),
        Command::Demo(args) => demo::run(args, cli.json),
        Command::Embedded(EmbeddedCommand::Switch(args)) => embedded::switch(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("colo: {}", output::one_line(&error));
        ExitCode::from(output::FAILED)
    })
}
