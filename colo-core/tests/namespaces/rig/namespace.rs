//! Network namespaces: a host's network each, of which nothing remains when the last descriptor of it is closed, however its owner
//! ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A network of its own.
pub(crate) struct Namespace(File);

/// Whether there can be namespaces here. Says why not; where it must be so (`COLO_NAMESPACES`, as `.ci/run` sets it), that is a
/// failure.
pub(crate) fn possible() -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if !Path::new("/dev/net/tun").exists() {
        "needs /dev/net/tun"
    } else if let Some(tool) = ["unshare", "ip"].iter().find(|tool| !has(tool)) {
        tool
    } else {
        return true;
    };
    assert!(std::env::var_os("COLO_NAMESPACES").is_none(), "left out: {why}");
    eprintln!("left out: {why}");
    false
}

/// Whether a command is there.
pub(crate) fn has(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

impl Namespace {
    /// A network with nothing but a loopback device, which is up.
    pub(crate) fn new() -> Namespace {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let namespace = Namespace(File::open(format!("/proc/{}/ns/net", holder.id())).unwrap());
        drop(holder.stdin.take());
        assert!(holder.wait().unwrap().success());
        namespace.run("ip link set lo up");
        namespace
    }

    /// Where other programs find it, as long as this is there.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Does something on a thread in this network.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            rustix::thread::move_into_link_name_space(self.0.as_fd(), None).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command, given in words, and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) fn run(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        self.output(&mut command)
    }

    /// Runs a command, and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) fn output(&self, command: &mut Command) -> String {
        let output = self.enter(|| command.output().unwrap());
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command:?}: {}\n{said}\n{printed}", output.status);
        printed
    }

    /// Starts a command that is ended at the latest when it is dropped.
    pub(crate) fn spawn(&self, command: &mut Command) -> Running {
        Running(self.enter(|| command.spawn().unwrap()))
    }

    /// Sets a value under `/proc/sys/net`.
    pub(crate) fn set(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.enter(|| {
            let mut file = File::options().write(true).open(&path).unwrap();
            file.write_all(value.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
        });
    }
}

/// A process, until it is dropped.
pub(crate) struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
