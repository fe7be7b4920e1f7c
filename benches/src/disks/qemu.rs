use super::process::Running;
use super::{Contender, Folder};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};
use std::time::{Duration, Instant};

/// QEMU's replication: two processes without a machine, as its documentation (`docs/block-replication.txt`) sets them up; the overlays in
/// memory, as it advises.
pub struct QemuReplication {
    socket: PathBuf,
    primary: Running,
    secondary: Running,
    monitor: Monitor,
}

impl QemuReplication {
    /// Over this disk, with another for the secondary, which has the same content.
    ///
    /// # Errors
    /// When QEMU is not there, or refuses.
    pub fn start(folder: &Folder, disk: &Path, secondary: &Path) -> Result<QemuReplication> {
        // Not over TCP, as between two hosts, which is slower.
        let link = folder.path("qemu-link");
        let (running_secondary, mut second) = start_secondary(folder, secondary)?;
        second.ask("nbd-server-start", json!({"addr": {"type": "unix", "data": {"path": link}}}))?;
        second.ask("nbd-server-add", json!({"device": "parent0", "writable": true}))?;

        let quorum = format!(
            "driver=quorum,if=none,read-pattern=fifo,id=colo-disk0,vote-threshold=1,children.0.driver=raw,children.0.file.driver=file,children.0.file.filename={}",
            disk.display()
        );
        let (primary, mut monitor) = start_qemu(&["-drive", &quorum])?;
        monitor.ask(
            "blockdev-add",
            json!({"driver": "replication", "mode": "primary", "node-name": "replication0",
                "file": {"driver": "nbd", "server": {"type": "unix", "path": link}, "export": "parent0"}}),
        )?;
        monitor.ask("x-blockdev-change", json!({"parent": "colo-disk0", "node": "replication0"}))?;
        // Secondary first.
        second.ask("xen-set-replication", json!({"enable": true, "primary": false}))?;
        monitor.ask("xen-set-replication", json!({"enable": true, "primary": true}))?;
        let socket = folder.path("qemu-replication");
        monitor.ask("nbd-server-start", json!({"addr": {"type": "unix", "data": {"path": socket}}}))?;
        monitor.ask("nbd-server-add", json!({"device": "colo-disk0", "writable": true}))?;
        Ok(QemuReplication { socket, primary, secondary: running_secondary, monitor: second })
    }
}

impl Contender for QemuReplication {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn export(&self) -> &str {
        "colo-disk0"
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.primary.process(), self.secondary.process()]
    }

    fn cpu_time(&self) -> Result<Duration> {
        Ok(self.primary.cpu_time()? + self.secondary.cpu_time()?)
    }

    fn checkpoint(&mut self) -> Result<Option<Duration>> {
        let began = Instant::now();
        // Nothing is done on the primary.
        self.monitor.ask("xen-colo-do-checkpoint", json!({}))?;
        Ok(Some(began.elapsed()))
    }
}

fn start_secondary(folder: &Folder, disk: &Path) -> Result<(Running, Monitor)> {
    let bytes = std::fs::metadata(disk)?.len().to_string();
    for overlay in ["active", "hidden"] {
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2"]).arg(folder.path(overlay)).arg(&bytes);
        if !create.status().context("qemu-img is needed")?.success() {
            bail!("qemu-img makes no {overlay} disk");
        }
    }
    let parent = format!("if=none,id=parent0,driver=raw,file.driver=file,file.filename={}", disk.display());
    let child = format!(
        "if=none,id=childs0,driver=replication,mode=secondary,top-id=childs0,file.driver=qcow2,file.file.filename={},file.backing.driver=qcow2,file.backing.file.filename={},file.backing.backing=parent0",
        folder.path("active").display(),
        folder.path("hidden").display()
    );
    start_qemu(&["-drive", &parent, "-drive", &child])
}

fn start_qemu(arguments: &[&str]) -> Result<(Running, Monitor)> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]).args(arguments);
    let (running, input, output) = Running::talking(&mut command)?;
    let mut monitor = Monitor { input, output: BufReader::new(output) };
    monitor.output.read_line(&mut String::new())?;
    monitor.ask("qmp_capabilities", json!({}))?;
    Ok((running, monitor))
}

/// A conversation in QMP.
struct Monitor {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Monitor {
    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.input.write_all(line.as_bytes())?;
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                bail!("{command}: QEMU has ended");
            }
            let mut told: Value = serde_json::from_str(&line)?;
            if let Some(error) = told.get("error") {
                bail!("{command}: {error}");
            }
            if let Some(answer) = told.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }
}
