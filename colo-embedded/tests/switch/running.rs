//! A switch that runs in a thread, in a directory of its own.

use colo_embedded::switch::{Counters, Forward, Switch, SwitchConfig, SwitchPort};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

pub(crate) struct Running {
    pub(crate) path: PathBuf,
    pub(crate) forwards: Vec<SocketAddr>,
    stopper: Option<UnixStream>,
    thread: Option<JoinHandle<Counters>>,
}

impl Running {
    /// A switch that forwards to each of these, from ports of the host's choice.
    pub(crate) fn start(targets: &[&str]) -> Self {
        Self::start_with(targets, |_| {})
    }

    pub(crate) fn start_with(targets: &[&str], change: impl FnOnce(&mut SwitchConfig)) -> Self {
        let path = directory().join("lan.sock");
        let mut config = SwitchConfig::new(&path);
        config.forwards = targets
            .iter()
            .map(|target| Forward { listen: "127.0.0.1:0".parse().unwrap(), target: target.parse().unwrap() })
            .collect();
        change(&mut config);
        let mut switch = Switch::new(&config).unwrap();
        let forwards = switch.forward_addrs().unwrap();
        let (stop, stopper) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || switch.run(&stop).unwrap());
        Self { path, forwards, stopper: Some(stopper), thread: Some(thread) }
    }

    pub(crate) fn plug_in(&self) -> SwitchPort {
        SwitchPort::connect(&self.path).unwrap()
    }

    pub(crate) fn stop(mut self) -> Counters {
        self.stopper = None;
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper = None;
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the switch panicked");
        }
        let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
    }
}

/// A new, empty directory.
pub(crate) fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("colo-switch-test-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).unwrap();
    path
}
