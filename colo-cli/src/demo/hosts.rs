//! The demo's processes: a switch and two hosts, each this very program started again.

use super::client::Client;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, unbounded};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take for its next step.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that is ended with this value, and its events.
pub(crate) struct Process {
    child: Child,
    events: Receiver<Value>,
}

/// A switch, and behind it one protected machine.
pub(crate) struct Hosts {
    pub(crate) primary: Process,
    pub(crate) secondary: Process,
    switch: Process,
    /// Where the guest's port 80 is to be reached.
    pub(crate) guest: SocketAddr,
    directory: PathBuf,
}

impl Hosts {
    /// Starts all three, and waits until the machine is protected.
    pub(crate) fn start(mode: &str, memory_mib: u64) -> Result<Hosts> {
        let directory = std::env::temp_dir().join(format!("colo-demo-{}-{mode}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        let socket = directory.join("switch");
        let guest = free_address()?;
        let socket_text = socket.to_string_lossy().into_owned();
        let forward = format!("{guest}=10.77.0.10:80");
        let switch = Process::start(&["embedded", "switch", "--socket", &socket_text, "--forward", &forward])?;
        wait_for_file(&socket)?;
        let secondary = Process::start(&["secondary", "--json", "--listen", "127.0.0.1:0", "--switch", &socket_text])?;
        let address = secondary.wait_for("listening")?["address"].as_str().unwrap_or_default().to_owned();
        let memory = memory_mib.to_string();
        let primary = Process::start(&[
            "primary",
            "--json",
            "--domain",
            "demo",
            "--peer",
            &address,
            "--mode",
            mode,
            "--memory",
            &memory,
            "--switch",
            &socket_text,
        ])?;
        primary.wait_for("protected")?;
        wait_for_guest(guest)?;
        Ok(Hosts { primary, secondary, switch, guest, directory })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.primary.kill();
        self.secondary.kill();
        self.switch.kill();
        // What is left in a temporary directory is a nuisance, no failure.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Process {
    fn start(args: &[&str]) -> Result<Process> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting colo {}", args.join(" ")))?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, events) = unbounded();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::Null);
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Ok(Process { child, events })
    }

    /// The next event of that name.
    pub(crate) fn wait_for(&self, name: &str) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(event) = self.events.recv_deadline(deadline) {
            if event["event"] == name {
                return Ok(event);
            }
            if event["event"] == "ended" {
                bail!("a process ended before it was {name}: {}", event["text"]);
            }
        }
        bail!("waited in vain for a process to be {name}")
    }

    /// The events so far that nobody has taken.
    pub(crate) fn drain(&self) -> Vec<Value> {
        self.events.try_iter().collect()
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) -> Result<()> {
        let status = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status().context("kill")?;
        if status.success() { Ok(()) } else { bail!("kill: {status}") }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // Both fail only when the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens at just now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until the guest has booted so far that it answers.
fn wait_for_guest(guest: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Client::connect(guest).and_then(|mut client| client.get("/")) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.context("the guest does not answer")),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn wait_for_file(path: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        if Instant::now() > deadline {
            bail!("the switch does not come up at {}", path.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
