//! A Xen host: a QEMU with Xen and a dom0 in it, and the way to run commands there.

use crate::context::Context;
use crate::control::{Control, Done, Running};
use crate::logs::Logs;
use crate::process::{Process, last_lines, wait_readable};
use crate::qemu::{Card, Machine, command};
use anyhow::{Context as _, Result, anyhow, bail};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a host may take until it is up. Ten seconds are usual on a machine that does nothing else.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long a command may take in dom0, if nothing else is said.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What kind of host is wanted.
pub(crate) struct HostConfig {
    /// `A`, `B` or `C`.
    pub(crate) name: &'static str,
    /// Its number, from 1: the last byte of its addresses.
    pub(crate) number: u8,
    /// Memory of the whole machine.
    pub(crate) memory_mib: u32,
    /// Memory of dom0, in which the images of saved guests lie, too.
    pub(crate) dom0_mib: u32,
    /// Its cards, eth0 and so on. All but the first are links to other hosts.
    pub(crate) cards: Vec<Card>,
    /// The numbers of the hosts to which the links lead.
    pub(crate) linked: Vec<u8>,
    /// What QEMU is run with: `ip netns exec NAME`.
    pub(crate) within: Vec<OsString>,
    /// A shell on this terminal.
    pub(crate) has_shell: bool,
}

impl HostConfig {
    /// A host of its own, without a network: dom0 and its guests have one between them.
    pub(crate) fn alone() -> HostConfig {
        HostConfig {
            name: "A",
            number: 1,
            memory_mib: 1280,
            dom0_mib: 640,
            cards: Vec::new(),
            linked: Vec::new(),
            within: Vec::new(),
            has_shell: false,
        }
    }
}

/// A host that runs. Dropped, it is gone.
pub(crate) struct Host {
    name: &'static str,
    number: u8,
    linked: Vec<u8>,
    folder: PathBuf,
    qemu: Process,
    control: Control,
    logs: Arc<Logs>,
    /// How long it took from QEMU's start until it was up, and until then since dom0's kernel began.
    boot_times: (Duration, Duration),
}

impl Host {
    /// Starts a host, and waits until it is up.
    pub(crate) fn boot(context: &Context, config: HostConfig) -> Result<Host> {
        Starting::start(context, config)?.wait()
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// From QEMU's start until it was up; from the start of dom0's kernel until it was up.
    pub(crate) fn boot_times(&self) -> (Duration, Duration) {
        self.boot_times
    }

    /// Its address on the links to the other hosts.
    pub(crate) fn link_address(&self) -> Ipv4Addr {
        link_address(self.number)
    }

    /// Runs a command in dom0, which must succeed.
    pub(crate) fn sh(&self, command: &str) -> Result<Done> {
        self.sh_within(command, COMMAND_LIMIT)
    }

    /// Runs a command in dom0, which must succeed, within so much time.
    pub(crate) fn sh_within(&self, command: &str, limit: Duration) -> Result<Done> {
        let done = self.try_sh(command, limit)?;
        if !done.is_good() {
            let said = last_lines(&format!("{}{}", done.stdout, done.stderr), 20);
            bail!("dom0 {}: {command}: {:?}: {said}", self.name, done.outcome);
        }
        Ok(done)
    }

    /// Runs a command in dom0, however it ends.
    pub(crate) fn try_sh(&self, command: &str, limit: Duration) -> Result<Done> {
        let done = self.spawn(command, limit)?.wait().map_err(|error| self.explain(error))?;
        self.note(&format!("{:?} after {:?}: {command}", done.outcome, done.elapsed));
        Ok(done)
    }

    /// Runs a command in dom0 as a user without privileges, however it ends.
    pub(crate) fn try_sh_unprivileged(&self, command: &str) -> Result<Done> {
        self.try_sh(&format!("su nobody -s /bin/bash -c '{}'", command.replace('\'', r"'\''")), COMMAND_LIMIT)
    }

    /// Starts a command in dom0, which may run for so long.
    pub(crate) fn spawn(&self, command: &str, limit: Duration) -> Result<Running<'_>> {
        self.control.start(command, limit).map_err(|error| self.explain(error))
    }

    /// A file system of this size in dom0's memory, in a folder of this name: for disks that are full.
    pub(crate) fn small_disk(&self, name: &str, size_bytes: u64) -> Result<SmallDisk<'_>> {
        let path = format!("/mnt/{name}");
        self.sh(&format!("mkdir -p {path} && mount -t tmpfs -o size={size_bytes} tmpfs {path}"))?;
        Ok(SmallDisk { host: self, path })
    }

    /// Gives dom0 a file, and says where it is there.
    pub(crate) fn give(&self, name: &str, bytes: &[u8]) -> Result<String> {
        fs::write(self.folder.join("host").join(name), bytes)?;
        Ok(format!("/host/{name}"))
    }

    /// Brings a file from dom0 to this machine.
    pub(crate) fn fetch(&self, path: &str) -> Result<PathBuf> {
        let name = path.rsplit('/').next().filter(|name| !name.is_empty()).context("a path without a name")?;
        self.sh(&format!("dd if={path} of=/host/{name} bs=1M"))?;
        Ok(self.folder.join("host").join(name))
    }

    /// Xen's logs in dom0.
    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    /// What it has sent to another host over the link between them so far.
    pub(crate) fn sent_bytes(&self, to: &Host) -> Result<u64> {
        let index = self.linked.iter().position(|number| *number == to.number).context("no link between the hosts")?;
        let counter = format!("cat /sys/class/net/eth{}/statistics/tx_bytes", index + 1);
        Ok(self.sh(&counter)?.stdout.trim().parse()?)
    }

    /// Switches the host off in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.control.stop()?;
        self.wait_end(STOP_LIMIT)
    }

    /// Waits until it has been switched off from within.
    pub(crate) fn wait_end(&mut self, limit: Duration) -> Result<()> {
        match self.qemu.wait(limit)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("QEMU of host {} ended with {status}", self.name),
            None => bail!("host {} did not switch itself off", self.name),
        }
    }

    /// Kills the host, as a loss of power would, and says when that was.
    pub(crate) fn kill(&self) -> Result<Instant> {
        let now = Instant::now();
        self.qemu.kill()?;
        Ok(now)
    }

    /// How much of this machine's memory it takes, at most so far.
    pub(crate) fn peak_memory_mib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.qemu.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?.parse()?;
        Ok(kib / 1024)
    }

    /// An error, with what the host said last if it is gone.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        explain(error, self.name, &self.folder)
    }

    /// Keeps what was done, for whoever looks for a cause.
    fn note(&self, line: &str) {
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join("commands.log"));
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}

/// A host whose QEMU has been started. It is started by one thread, one host after the other, and waited for later: so two take as
/// long as one.
pub(crate) struct Starting {
    name: &'static str,
    number: u8,
    linked: Vec<u8>,
    folder: PathBuf,
    qemu: Process,
    listener: UnixListener,
    begun: Instant,
}

impl Starting {
    /// Starts a host.
    pub(crate) fn start(context: &Context, config: HostConfig) -> Result<Starting> {
        let folder = context.run_folder().join(config.name);
        let share = folder.join("host");
        fs::create_dir_all(&share)?;
        let control = context.socket(&format!("{}.control", config.name));
        // There may have been a host of this name, which was killed.
        let _ = fs::remove_file(&control);
        let listener = UnixListener::bind(&control).with_context(|| control.display().to_string())?;
        let mut dom0_words = vec![format!("testbed.ip=10.9.0.{}/24", config.number)];
        for (index, other) in config.linked.iter().enumerate() {
            dom0_words.push(format!(
                "testbed.link=eth{}:{}:{}",
                index + 1,
                link_address(config.number),
                link_address(*other)
            ));
        }
        if config.has_shell {
            dom0_words.push("testbed.shell".into());
        }
        let machine = Machine {
            name: config.name,
            images: &context.images(),
            share: &share,
            control: &control,
            serial: &folder.join("serial.log"),
            memory_mib: config.memory_mib,
            dom0_mib: config.dom0_mib,
            dom0_words,
            cards: config.cards,
            is_on_terminal: config.has_shell,
        };
        let mut command = command(&machine, &config.within)?;
        if !config.has_shell {
            command.stdin(std::process::Stdio::null());
        }
        let begun = Instant::now();
        let qemu = context.stopper().start(command, "QEMU")?;
        Ok(Starting { name: config.name, number: config.number, linked: config.linked, folder, qemu, listener, begun })
    }

    /// Waits until it is up.
    pub(crate) fn wait(self) -> Result<Host> {
        self.connect().map_err(|error| explain(error, self.name, &self.folder)).and_then(|stream| {
            let logs = Arc::new(Logs::new(&self.folder.join("log"))?);
            let control = Control::new(stream, logs.clone())?;
            let ready = control.wait_ready(BOOT_LIMIT);
            let uptime = ready.map_err(|error| explain(error, self.name, &self.folder))?;
            let boot_times = (self.begun.elapsed(), uptime);
            Ok(Host {
                name: self.name,
                number: self.number,
                linked: self.linked,
                folder: self.folder,
                qemu: self.qemu,
                control,
                logs,
                boot_times,
            })
        })
    }

    /// QEMU connects before the machine does anything.
    fn connect(&self) -> Result<UnixStream> {
        let ready = wait_readable(&[self.listener.as_fd(), self.qemu.ended()], BOOT_LIMIT)?;
        match ready[..] {
            [true, _] => Ok(self.listener.accept()?.0),
            [_, true] => bail!("QEMU has ended"),
            _ => bail!("QEMU does not start"),
        }
    }
}

/// A small file system in a dom0, until it is dropped.
pub(crate) struct SmallDisk<'a> {
    host: &'a Host,
    path: String,
}

impl SmallDisk<'_> {
    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = self.host.try_sh(&format!("umount -l {}", self.path), COMMAND_LIMIT);
    }
}

/// A host's address on its links, of which each leads to one other host.
fn link_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 0, number)
}

fn explain(error: anyhow::Error, name: &str, folder: &Path) -> anyhow::Error {
    let serial = fs::read(folder.join("serial.log")).unwrap_or_default();
    let serial = String::from_utf8_lossy(&serial).replace('\r', "");
    anyhow!("host {name}: {error:#}\n--- the end of its console:\n{}", last_lines(&serial, 25))
}
