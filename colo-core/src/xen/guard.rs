//! Somebody to set things right when this process is killed.
//!
//! A domain that is being saved stands still for a moment. If its saver is killed just then, nobody would let it go on. A
//! [`Guard`] is a small process of its own that does nothing but wait for that.
//!
//! ```
//! use colo_core::xen::guard::Guard;
//!
//! let mut guard = Guard::start(|domid| { /* resume that domain */ })?;
//! guard.watch(3);
//! // ... the work that must not stay half done ...
//! guard.dismiss();
//! # Ok::<(), std::io::Error>(())
//! ```

use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// While it lives, the guard watches over this process. Dropping it counts as having died.
#[must_use]
pub struct Guard {
    /// The guard reads the other end: what to watch over, and that all is well; or its end, as this process has gone.
    alive: Option<UnixStream>,
    child: libc::pid_t,
}

impl Guard {
    /// Starts a guard that calls `on_death` with what it was last told to [watch](Guard::watch), if anything, when this process
    /// ends, in whatever way, without having dismissed it.
    ///
    /// It runs in a process of its own with a copy of this one's memory and without its other threads: it must take no lock that
    /// another thread may hold. Start it early: before there are other threads, and before there is much to copy.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn start(on_death: impl FnOnce(u32)) -> io::Result<Guard> {
        let (watched, alive) = UnixStream::pair()?;
        // SAFETY: the child runs on the same code and a copy of the same memory, and only this thread; it never returns from
        // `watch`, so nothing of the caller's is run or dropped twice.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(alive);
                watch(watched, on_death)
            }
            child => Ok(Guard { alive: Some(alive), child }),
        }
    }

    /// From here on `what` (a domain's number, say) must not be left as it is.
    ///
    /// # Errors
    /// When the guard has been killed: nobody watches.
    pub fn watch(&mut self, what: u32) -> io::Result<()> {
        match &mut self.alive {
            Some(alive) => alive.write_all(&what.to_le_bytes()),
            None => Ok(()),
        }
    }

    /// All is well: the guard ends.
    pub fn dismiss(mut self) {
        if let Some(mut alive) = self.alive.take() {
            // A guard that has been killed needs no word.
            let _ = alive.write_all(&DISMISSED.to_le_bytes());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.alive = None;
        let mut status = 0;
        // SAFETY: `status` is a place for one status; the child is this process's own and nobody else waits for it.
        while unsafe { libc::waitpid(self.child, &raw mut status, 0) } == -1
            && io::Error::last_os_error().raw_os_error() == Some(Errno::INTR.raw_os_error())
        {}
    }
}

/// What no domain has for its number.
const DISMISSED: u32 = u32::MAX;

/// What the guard does for a living.
fn watch(mut watched: UnixStream, on_death: impl FnOnce(u32)) -> ! {
    // What ends the other process from a terminal must not end this one: it has a session of its own.
    let _ = rustix::process::setsid();
    let (mut watches, mut word) = (DISMISSED, [0; 4]);
    while watched.read_exact(&mut word).is_ok() {
        watches = u32::from_le_bytes(word);
    }
    if watches != DISMISSED {
        // A panic would unwind into the copy of the caller.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| on_death(watches)));
    }
    // SAFETY: ends this process at once; nothing of the copied one shall run at its exit.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn trace(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("colo-guard-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_guard_acts_unless_it_is_dismissed_or_has_nothing_to_watch() {
        for (name, watches, dismissed) in [("dismissed", true, true), ("dropped", true, false), ("idle", false, false)]
        {
            let path = trace(name);
            let mut guard = Guard::start(|what| drop(std::fs::write(&path, what.to_string()))).unwrap();
            if watches {
                guard.watch(6).unwrap();
                guard.watch(7).unwrap();
            }
            // Either way the guard has ended on return.
            if dismissed {
                guard.dismiss();
            } else {
                drop(guard);
            }
            let acted = std::fs::read_to_string(&path).ok();
            let _ = std::fs::remove_file(&path);
            assert_eq!(acted.as_deref(), (watches && !dismissed).then_some("7"), "{name}");
        }
    }

    #[test]
    fn a_guard_acts_when_its_process_is_killed() {
        let path = trace("killed");
        let (mut told, mut tell) = UnixStream::pair().unwrap();
        // SAFETY: the child only starts a guard, says so, and waits to be killed.
        let process = unsafe { libc::fork() };
        if process == 0 {
            drop(told);
            let mut guard = Guard::start(|_| drop(std::fs::write(&path, "acted")));
            let watched = guard.as_mut().is_ok_and(|guard| guard.watch(1).is_ok());
            let _ = tell.write_all(&[u8::from(watched)]);
            loop {
                std::hint::black_box(&guard);
                std::thread::park();
            }
        }
        drop(tell);
        let mut started = [0];
        told.read_exact(&mut started).unwrap();
        assert_eq!(started, [1]);
        // SAFETY: a signal to a child of this test's own.
        assert_eq!(unsafe { libc::kill(process, libc::SIGKILL) }, 0);
        // SAFETY: that child is waited for.
        unsafe { libc::waitpid(process, std::ptr::null_mut(), 0) };
        // The guard has a copy of the other end: its end is the guard's.
        told.read_to_end(&mut Vec::new()).unwrap();
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
    }
}
