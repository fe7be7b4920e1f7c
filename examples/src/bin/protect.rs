//! A machine is protected, its host dies, and it serves on.
//!
//! `cargo run -p colo-examples --bin protect`
//!
//! Three things run here: a switch, the secondary's host, and the primary's host. The last is this same program in a process of
//! its own, so that it can die as hosts do.

use anyhow::{Context, Result, bail};
use colo_core::domain::{Disks, Machine};
use colo_core::peer::Mode;
use colo_core::session::{Event, PrimarySession, PrimarySessionConfig, SecondarySession, SecondarySessionConfig};
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost};
use colo_embedded::switch::SwitchPort;
use colo_examples::{Lan, PATIENCE, http};
use std::path::Path;
use std::process::Command;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [switch, peer] => primary(Path::new(switch), peer),
        _ => secondary(),
    }
}

/// Boots a machine, and protects it for as long as it lives.
fn primary(switch: &Path, peer: &str) -> Result<()> {
    let (domain, card) = EmbeddedDomain::boot(&EmbeddedConfig::named("web"))?;
    let machine = Machine { domain: Box::new(domain), nics: vec![Box::new(card)], disks: Disks::None };
    let lan = SwitchPort::connect(switch)?;
    match PrimarySession::start(machine, vec![Box::new(lan)], peer, PrimarySessionConfig::new(Mode::Colo)) {
        Ok(session) => bail!("the primary ended: {}", session.wait()),
        Err(not_started) => bail!(not_started.error),
    }
}

/// Takes the machine in, kills its primary, and asks it for what the primary was told.
fn secondary() -> Result<()> {
    let lan = Lan::start()?;
    let host = Box::new(EmbeddedHost::new(lan.switch()));
    let session = SecondarySession::listen("127.0.0.1:0", host, SecondarySessionConfig::default())?;
    let peer = session.local_addr().to_string();
    let mut primary = Command::new(std::env::current_exe()?).arg(lan.switch()).arg(&peer).spawn()?;

    wait_for(&session, |event| matches!(event, Event::Applied { .. }))?;
    let mut client = lan.connect()?;
    http(&mut client, "PUT", "/kv/name", "colo")?;
    println!("the machine keeps a value; now its host dies");
    primary.kill()?;
    primary.wait()?;
    wait_for(&session, |event| matches!(event, Event::TookOver { .. }))?;

    // The same connection: the client has noticed nothing.
    let value = http(&mut client, "GET", "/kv/name", "")?;
    println!("the survivor says: {value}");
    anyhow::ensure!(value == "colo", "the survivor has forgotten");
    session.controller().stop();
    session.wait();
    Ok(())
}

fn wait_for(session: &SecondarySession, wanted: impl Fn(&Event) -> bool) -> Result<()> {
    loop {
        let event = session.events().recv_timeout(PATIENCE).context("the session says nothing")?;
        println!("{event}");
        if wanted(&event) {
            return Ok(());
        }
    }
}
