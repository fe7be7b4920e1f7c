//! Xen's logs of one dom0, as they grow: kept as files for whoever looks for a cause, and as consoles for whoever waits for a guest.

use crate::console::Console;
use anyhow::{Result, anyhow, bail};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// All logs of a host.
pub(crate) struct Logs {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    consoles: HashMap<String, Console>,
    is_closed: bool,
}

impl Logs {
    /// Logs that are kept in this folder.
    pub(crate) fn new(folder: &Path) -> Result<Logs> {
        fs::create_dir_all(folder)?;
        Ok(Logs { folder: folder.to_owned(), state: Mutex::default(), changed: Condvar::new() })
    }

    /// Takes what was added to a log.
    pub(crate) fn add(&self, name: &str, bytes: &[u8]) -> Result<()> {
        if name.starts_with('.') || name.contains('/') {
            bail!("{name:?} is no name of a log");
        }
        OpenOptions::new().create(true).append(true).open(self.folder.join(name))?.write_all(bytes)?;
        let mut state = self.state.lock().expect("no thread panics with the lock");
        state.consoles.entry(name.to_owned()).or_default().add(bytes);
        self.changed.notify_all();
        Ok(())
    }

    /// What speaks in this log from now on is another guest.
    pub(crate) fn forget(&self, name: &str) {
        self.state.lock().expect("no thread panics with the lock").consoles.remove(name);
    }

    /// Whoever speaks in any of them from now on is another guest.
    pub(crate) fn forget_all(&self) {
        self.state.lock().expect("no thread panics with the lock").consoles.clear();
    }

    /// Nothing is added from now on.
    pub(crate) fn close(&self) {
        self.state.lock().expect("no thread panics with the lock").is_closed = true;
        self.changed.notify_all();
    }

    /// Waits until `look` sees in a log what it waits for. An error if the guest that speaks there has a fault, or if it takes too
    /// long.
    pub(crate) fn wait<T>(
        &self,
        name: &str,
        limit: Duration,
        mut look: impl FnMut(&Console) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock().expect("no thread panics with the lock");
        loop {
            let console = state.consoles.entry(name.to_owned()).or_default();
            let end = || format!("; {name} ends with\n{}", console.last_lines(10).join("\n"));
            if let Some(fault) = console.fault() {
                return Err(anyhow!("the guest of {name}: {fault}{}", end()));
            }
            if let Some(found) = look(console) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(anyhow!("not seen within {} s{}", limit.as_secs(), end()));
            }
            if state.is_closed {
                bail!("the host is gone");
            }
            state = self.changed.wait_timeout(state, left).expect("no thread panics with the lock").0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_sees_what_comes() {
        let folder = std::env::temp_dir().join(format!("colo-testbed-logs-{}", std::process::id()));
        let logs = Logs::new(&folder).unwrap();
        let long = Duration::from_secs(60);
        std::thread::scope(|scope| {
            let tick =
                scope.spawn(|| logs.wait("guest-g.log", long, |console| console.tick().filter(|tick| *tick > 1)));
            logs.add("guest-g.log", b"TICK g 1\nTI").unwrap();
            logs.add("guest-h.log", b"TICK h 5\n").unwrap();
            logs.add("guest-g.log", b"CK g 2\n").unwrap();
            assert_eq!(tick.join().unwrap().unwrap(), 2);
        });
        assert_eq!(fs::read(folder.join("guest-g.log")).unwrap(), b"TICK g 1\nTICK g 2\n");

        let late = logs.wait("guest-g.log", Duration::ZERO, |console| console.is_ready().then_some(()));
        assert_eq!(late.unwrap_err().to_string(), "not seen within 0 s; guest-g.log ends with\nTICK g 1\nTICK g 2");
        logs.add("guest-g.log", b"SUM g BAD\n").unwrap();
        assert!(logs.wait("guest-g.log", long, |_| Some(())).unwrap_err().to_string().contains("memory wrong"));
        logs.forget("guest-g.log");
        logs.add("guest-g.log", b"TICK g 1\n").unwrap();
        assert_eq!(logs.wait("guest-g.log", long, Console::tick).unwrap(), 1);
        logs.close();
        assert_eq!(logs.wait("x.log", long, |_| None::<()>).unwrap_err().to_string(), "the host is gone");
        assert!(logs.add("../x.log", b"").is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
