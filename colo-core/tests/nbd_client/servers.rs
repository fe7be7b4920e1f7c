//! Other projects' servers.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that runs; killed when this is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Waits until somebody can connect. Nothing where it is not installed, except where everything must be.
    pub(crate) fn start(command: &str, arguments: &[String], socket: &Path) -> Option<Running> {
        let mut child = match Command::new(command).args(arguments).stdin(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{command}: {error}");
                eprintln!("SKIPPED: {command}: {error}");
                return None;
            }
        };
        // It says to nobody when it is ready.
        while UnixStream::connect(socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "{command} has ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Running(child))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
