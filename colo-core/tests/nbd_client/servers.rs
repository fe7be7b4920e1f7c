//! Other projects' servers.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that runs; killed when this is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Listens there. Nothing where it is not installed, except where everything must be.
    pub(crate) fn start(command: &str, arguments: &[String], socket: &Path) -> Option<Running> {
        // The server gets a socket that listens already (systemd's way, which both know), so that nobody has to wait for it.
        let listener = UnixListener::bind(socket).unwrap();
        let activated = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\"";
        if Command::new(command).arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "{command} is missing");
            eprintln!("SKIPPED: {command} is missing");
            return None;
        }
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", activated, command]).args(arguments).stdin(OwnedFd::from(listener));
        let child = shell.spawn().unwrap();
        Some(Running(child))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
