//! Hosts as processes: the running program itself, started again with a role for its arguments. A program that uses this calls
//! [`play_role`] first of all.

use crate::Wire;
use anyhow::{Context, Result, bail};
use colo_core::domain::{Control, Disks, Machine};
use colo_core::peer::Mode;
use colo_core::session::{Event, PrimarySession, PrimarySessionConfig, SecondarySession, SecondarySessionConfig};
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost, RingPort};
use colo_embedded::switch::SwitchPort;
use colo_examples::{Lan, PATIENCE};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// How a machine is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Not at all.
    Native,
    /// With the defaults of that mode.
    By(Mode),
}

impl Protection {
    /// All of them, in the order of a table.
    pub const ALL: [Protection; 3] = [Protection::Native, Protection::By(Mode::Colo), Protection::By(Mode::Remus)];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Protection::Native => "native",
            Protection::By(Mode::Colo) => "COLO",
            Protection::By(Mode::Remus) => "Remus, 20 ms",
        }
    }

    fn role(self) -> &'static str {
        match self {
            Protection::Native => "native",
            Protection::By(Mode::Colo) => "colo",
            Protection::By(Mode::Remus) => "remus",
        }
    }
}

/// What the secondary says when a checkpoint has become its guest's state.
const APPLIED: &str = "applied";
/// What it says when it serves.
const TOOK_OVER: &str = "took over";

/// If the program was started for a role, plays it until it is killed; otherwise returns `false` at once.
///
/// # Errors
/// When the role cannot be played.
pub fn play_role() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["host", "native", switch, ram] => native(Path::new(switch), ram.parse()?)?,
        ["host", "secondary", switch] => secondary(switch)?,
        ["host", "colo", switch, ram, peer] => primary(Mode::Colo, Path::new(switch), ram.parse()?, peer)?,
        ["host", "remus", switch, ram, peer] => primary(Mode::Remus, Path::new(switch), ram.parse()?, peer)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn boot(ram_bytes: u64) -> Result<(EmbeddedDomain, RingPort)> {
    Ok(EmbeddedDomain::boot(&EmbeddedConfig { ram_bytes, ..EmbeddedConfig::named("bench") })?)
}

fn native(switch: &Path, ram_bytes: u64) -> Result<()> {
    let (mut domain, card) = boot(ram_bytes)?;
    let _wire = Wire::between(Box::new(card), Box::new(SwitchPort::connect(switch)?));
    domain.resume()?;
    loop {
        std::thread::park();
    }
}

fn primary(mode: Mode, switch: &Path, ram_bytes: u64, peer: &str) -> Result<()> {
    let (domain, card) = boot(ram_bytes)?;
    let machine = Machine { domain: Box::new(domain), nics: vec![Box::new(card)], disks: Disks::None };
    let lan = SwitchPort::connect(switch)?;
    match PrimarySession::start(machine, vec![Box::new(lan)], peer, PrimarySessionConfig::new(mode)) {
        Ok(session) => bail!("the primary ended: {}", session.wait()),
        Err(not_started) => bail!(not_started.error),
    }
}

/// Says where it listens, and then what happens.
fn secondary(switch: &str) -> Result<()> {
    let host = Box::new(EmbeddedHost::new(switch));
    let session = SecondarySession::listen("127.0.0.1:0", host, SecondarySessionConfig::default())?;
    println!("{}", session.local_addr());
    for event in session.events() {
        match event {
            Event::Applied { .. } => println!("{APPLIED}"),
            Event::TookOver { .. } => println!("{TOOK_OVER}"),
            _ => (),
        }
    }
    bail!("the secondary ended: {}", session.wait())
}

/// A process that plays a role. Killed when dropped.
struct Host {
    child: Child,
    lines: Receiver<String>,
}

impl Host {
    fn start(arguments: &[&str]) -> Result<Host> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("host").args(arguments).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("no output of the host")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Until the host has died, or nobody listens.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Host { child, lines })
    }

    fn next_line(&self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("the host says nothing")
    }

    /// As by `kill -9`. On return it is dead.
    fn kill(&mut self) {
        // Fails when it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A machine, protected or not, and the LAN that its clients reach it by; the latter in this process.
pub struct Lab {
    primary: Host,
    secondary: Option<Host>,
    /// The clients' network.
    pub lan: Lan,
}

impl Lab {
    /// Starts it all, and waits until the machine is protected.
    ///
    /// # Errors
    /// When a process does not start, or says nothing for too long.
    pub fn start(protection: Protection, ram_bytes: u64) -> Result<Lab> {
        let lan = Lan::start()?;
        let switch = lan.switch().to_str().context("a path that is no text")?.to_owned();
        let ram = ram_bytes.to_string();
        if protection == Protection::Native {
            return Ok(Lab { primary: Host::start(&["native", &switch, &ram])?, secondary: None, lan });
        }
        let secondary = Host::start(&["secondary", &switch])?;
        let peer = secondary.next_line()?;
        let primary = Host::start(&[protection.role(), &switch, &ram, &peer])?;
        let lab = Lab { primary, secondary: Some(secondary), lan };
        lab.wait_for_checkpoints(1)?;
        Ok(lab)
    }

    /// The primary's process.
    pub fn primary_pid(&self) -> u32 {
        self.primary.child.id()
    }

    /// The secondary's process, if there is one.
    pub fn secondary_pid(&self) -> Option<u32> {
        self.secondary.as_ref().map(|host| host.child.id())
    }

    /// Kills the primary's process.
    pub fn kill_primary(&mut self) {
        self.primary.kill();
    }

    /// Waits until the secondary has applied so many checkpoints more than it was known to have.
    ///
    /// # Errors
    /// When there is no secondary, or it says nothing for too long.
    pub fn wait_for_checkpoints(&self, count: usize) -> Result<()> {
        (0..count).try_for_each(|_| self.wait_for(APPLIED))
    }

    /// Forgets what the secondary has said, and waits until it has applied so many checkpoints from here on.
    ///
    /// # Errors
    /// As for [`Lab::wait_for_checkpoints`].
    pub fn wait_for_new_checkpoints(&self, count: usize) -> Result<()> {
        if let Some(secondary) = &self.secondary {
            while secondary.lines.try_recv().is_ok() {}
        }
        self.wait_for_checkpoints(count)
    }

    /// Waits until the secondary serves.
    ///
    /// # Errors
    /// As for [`Lab::wait_for_checkpoints`].
    pub fn wait_for_takeover(&self) -> Result<()> {
        self.wait_for(TOOK_OVER)
    }

    fn wait_for(&self, wanted: &str) -> Result<()> {
        let secondary = self.secondary.as_ref().context("there is no secondary")?;
        while secondary.next_line()? != wanted {}
        Ok(())
    }
}
