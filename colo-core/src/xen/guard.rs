//! Somebody to set things right when this process is killed.
//!
//! A domain that is being saved stands still for a moment. If its saver is killed just then, nobody would let it go on. A
//! [`Guard`] is a small process of its own that does nothing but wait for that.
//!
//! ```
//! use colo_core::xen::guard::Guard;
//!
//! let guard = Guard::start(|| { /* resume the domain */ })?;
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
    /// The guard reads the other end: a byte means that all is well, its end without one that this process has gone.
    alive: Option<UnixStream>,
    child: libc::pid_t,
}

impl Guard {
    /// Starts a guard that calls `on_death` when this process ends, in whatever way, without having dismissed it. It runs
    /// in a process of its own with a copy of this one's memory and without its other threads: it must take no lock that
    /// another thread may hold, so start the guard before there are other threads.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn start(on_death: impl FnOnce()) -> io::Result<Guard> {
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

    /// All is well: the guard ends.
    pub fn dismiss(mut self) {
        if let Some(mut alive) = self.alive.take() {
            // A guard that has been killed needs no word.
            let _ = alive.write_all(&[1]);
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

/// What the guard does for a living.
fn watch(mut watched: UnixStream, on_death: impl FnOnce()) -> ! {
    // What ends the other process from a terminal must not end this one: it has a session of its own.
    let _ = rustix::process::setsid();
    let mut word = [0];
    if !matches!(watched.read(&mut word), Ok(1)) {
        // A panic would unwind into the copy of the caller.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(on_death));
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
    fn a_guard_that_is_dismissed_does_nothing_and_one_that_is_not_acts() {
        for (name, dismissed) in [("dismissed", true), ("dropped", false)] {
            let path = trace(name);
            let guard = Guard::start(|| drop(std::fs::write(&path, "acted"))).unwrap();
            // Either way the guard has ended on return.
            if dismissed {
                guard.dismiss();
            } else {
                drop(guard);
            }
            assert_eq!(path.exists(), !dismissed, "{name}");
            let _ = std::fs::remove_file(&path);
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
            let guard = Guard::start(|| drop(std::fs::write(&path, "acted")));
            let _ = tell.write_all(&[u8::from(guard.is_ok())]);
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
