//! Somebody to set things right when this process is killed.
//!
//! A domain that is being saved stands still for a moment. If its saver is killed just then, nobody would let it go on. One that is
//! being restored is half made for a while, and would stay so. One whose network card has been taken over would be cut off. A [`Guard`]
//! is a small process of its own that does nothing but wait for that.
//!
//! Of several the last one that was started acts first. Of the descriptors that are open here it has the first three (it may have to say
//! something), and those that it is given to [keep](Guard::keep): what this process serves and holds ends with this process.
//!
//! ```
//! use colo_core::guard::Guard;
//!
//! let mut guard = Guard::start(|what, _| { /* resume that domain */ })?;
//! guard.watch(b"domain 3")?;
//! // ... the work that must not stay half done ...
//! guard.dismiss();
//! # Ok::<(), std::io::Error>(())
//! ```

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, shutdown, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most that a guard can be told of what it watches over.
pub const MAX_WATCHED_BYTES: usize = 8 << 10;

/// This process's ends of the connections to its guards. A guard has copies of those of the ones before it: they do not hear of our death
/// before it has done its work.
static ENDS: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

fn ends() -> MutexGuard<'static, Vec<RawFd>> {
    // No panic leaves a list half changed.
    ENDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, the guard watches over this process. Dropping it counts as having died.
#[derive(Debug)]
#[must_use]
pub struct Guard {
    /// The guard reads the other end: what to watch over, and that all is well; or its end, as this process has gone.
    alive: Option<OwnedFd>,
    /// Whether the guard is known to be out of the reach of what is sent to this process and its group.
    is_apart: bool,
    child: libc::pid_t,
}

impl Guard {
    /// Starts a guard that calls `on_death` with what it was last told to [watch](Guard::watch), if anything, and what it was given to
    /// [keep](Guard::keep), when this process ends, in whatever way, without having dismissed it.
    ///
    /// It runs in a process of its own with a copy of this one's memory and without its other threads: it must take no lock that
    /// another thread may hold, and use no descriptor that was opened here. Start it early: before there are other threads, and before
    /// there is much to copy.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn start(on_death: impl FnOnce(&[u8], Vec<OwnedFd>)) -> io::Result<Guard> {
        let (watched, alive) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Held by this thread, so that the child has it whole.
        let mut ends = ends();
        // SAFETY: the child runs on the same code and a copy of the same memory, and only this thread; it never returns from
        // `watch`, so nothing of the caller's is run or dropped twice.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let mut kept = std::mem::take(&mut *ends);
                drop(ends);
                kept.push(watched.as_raw_fd());
                close_all_but(&mut kept);
                watch(&watched, on_death)
            }
            child => {
                ends.push(alive.as_raw_fd());
                Ok(Guard { alive: Some(alive), is_apart: false, child })
            }
        }
    }

    /// From here on this (a domain's number, say) must not be left as it is. On return a signal to this process's group does not reach
    /// the guard any more.
    ///
    /// # Errors
    /// When the guard has been killed: nobody watches. `InvalidInput`: more than [`MAX_WATCHED_BYTES`].
    ///
    /// ```
    /// # use colo_core::guard::Guard;
    /// # let mut guard = Guard::start(|_, _| ())?;
    /// guard.watch(&3_u32.to_le_bytes())?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn watch(&mut self, what: &[u8]) -> io::Result<()> {
        if what.len() > MAX_WATCHED_BYTES {
            let why = format!("{} bytes are too much for a guard to watch over", what.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(self.say(WATCH, what, None)?)
    }

    /// Hands the guard a descriptor, which stays open until the guard has ended, or is to [forget](Guard::forget): a lock that belongs to
    /// it is held until then.
    ///
    /// # Errors
    /// When the guard has been killed.
    ///
    /// ```
    /// # use colo_core::guard::Guard;
    /// # let mut guard = Guard::start(|_, _| ())?;
    /// guard.keep(std::fs::File::open("/dev/null")?)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn keep(&mut self, descriptor: impl AsFd) -> io::Result<()> {
        Ok(self.say(KEEP, &[], Some(descriptor.as_fd()))?)
    }

    /// What it watches over is as it should be: the guard has nothing to do any more, closes what it was given to keep, and may be told of
    /// something else.
    ///
    /// # Errors
    /// When the guard has been killed.
    ///
    /// ```
    /// # use colo_core::guard::Guard;
    /// # let mut guard = Guard::start(|_, _| ())?;
    /// guard.watch(b"domain 3")?;
    /// guard.forget()?;
    /// guard.watch(b"domain 4")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn forget(&mut self) -> io::Result<()> {
        Ok(self.say(FORGET, &[], None)?)
    }

    /// All is well: the guard ends. On return it has ended.
    pub fn dismiss(mut self) {
        // A guard that has been killed needs no word.
        let _ = self.say(DISMISS, &[], None);
    }

    fn say(&mut self, word: u8, what: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let Some(alive) = &self.alive else { return Ok(()) };
        if !self.is_apart {
            if retry_on_intr(|| recv(alive, &mut [0; 1], RecvFlags::empty()))?.0 == 0 {
                return Err(Errno::PIPE);
            }
            self.is_apart = true;
        }
        let descriptors = descriptor.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let word = [word];
        let parts = [IoSlice::new(&word), IoSlice::new(what)];
        retry_on_intr(|| sendmsg(alive, &parts, &mut control, SendFlags::NOSIGNAL)).map(drop)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing it is not enough: a guard that was started later may have a copy.
        if let Some(alive) = self.alive.take() {
            ends().retain(|end| *end != alive.as_raw_fd());
            let _ = shutdown(&alive, Shutdown::Both);
        }
        let mut status = 0;
        // SAFETY: `status` is a place for one status; the child is this process's own and nobody else waits for it.
        while unsafe { libc::waitpid(self.child, &raw mut status, 0) } == -1
            && io::Error::last_os_error().raw_os_error() == Some(Errno::INTR.raw_os_error())
        {}
    }
}

/// What a message to the guard begins with. What it shall watch over follows.
const WATCH: u8 = 1;
/// A descriptor comes with it.
const KEEP: u8 = 2;
/// Nothing needs to be watched over any more.
const DISMISS: u8 = 3;
/// Nothing needs to be watched over for now.
const FORGET: u8 = 4;

/// Closes all descriptors but these and the first three. A kernel that cannot (Linux has it since 5.9) leaves them open.
fn close_all_but(kept: &mut [RawFd]) {
    kept.sort_unstable();
    let mut from = 3;
    for end in kept.iter().filter_map(|kept| u32::try_from(*kept).ok()).chain([u32::MAX]) {
        if from < end {
            // SAFETY: in a guard, where nothing that has a descriptor is used, or dropped, but what is kept.
            unsafe { libc::close_range(from, end - 1, 0) };
        }
        from = from.max(end.saturating_add(1));
    }
}

/// What the guard does for a living.
fn watch(watched: &OwnedFd, on_death: impl FnOnce(&[u8], Vec<OwnedFd>)) -> ! {
    // What ends the other process from a terminal, or with its group, must not end this one: it has a session of its own. Only when it
    // has said so it is told of what to watch over.
    let _ = rustix::process::setsid();
    let _ = send(watched, &[0], SendFlags::NOSIGNAL);
    let (mut watches, mut kept, mut message) = (None, Vec::new(), vec![0; 1 + MAX_WATCHED_BYTES]);
    while let Some(bytes) = hear(watched, &mut message, &mut kept) {
        match message[0] {
            WATCH => watches = Some(message[1..bytes].to_vec()),
            FORGET => {
                watches = None;
                // A guard may outlive a thousand things that it was told of.
                kept.clear();
            }
            DISMISS => {
                watches = None;
                // A guard that was started later may have a copy of the other end, so that there is no end to be heard.
                break;
            }
            _ => {}
        }
    }
    if let Some(what) = watches {
        // A panic would unwind into the copy of the caller.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| on_death(&what, kept)));
    }
    // SAFETY: ends this process at once; nothing of the copied one shall run at its exit.
    unsafe { libc::_exit(0) }
}

/// The length of the next message, whose descriptors are kept; none at the end.
fn hear(watched: &OwnedFd, message: &mut [u8], kept: &mut Vec<OwnedFd>) -> Option<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(message)];
    let got = retry_on_intr(|| recvmsg(watched, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC));
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            kept.extend(descriptors);
        }
    }
    got.ok().map(|got| got.bytes).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    /// Longer than anything takes that is not broken.
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

    fn trace(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("colo-guard-{name}-{}", std::process::id()))
    }

    fn append(path: &Path, what: &str) -> io::Result<()> {
        File::options().append(true).create(true).open(path)?.write_all(what.as_bytes())
    }

    #[test]
    fn a_guard_acts_unless_it_is_dismissed_or_has_nothing_to_watch() {
        for (name, watches, forgets, dismissed) in [
            ("dismissed", true, false, true),
            ("dropped", true, false, false),
            ("forgotten", true, true, false),
            ("idle", false, false, false),
        ] {
            let path = trace(name);
            let mut guard = Guard::start(|what, _| drop(std::fs::write(&path, what))).unwrap();
            if watches {
                guard.watch(b"6").unwrap();
                guard.watch(b"7").unwrap();
                assert!(guard.watch(&[0; MAX_WATCHED_BYTES + 1]).is_err());
            }
            if forgets {
                guard.forget().unwrap();
            }
            // Either way the guard has ended on return.
            if dismissed {
                guard.dismiss();
            } else {
                drop(guard);
            }
            let acted = std::fs::read_to_string(&path).ok();
            let _ = std::fs::remove_file(&path);
            assert_eq!(acted.as_deref(), (watches && !forgets && !dismissed).then_some("7"), "{name}");
        }
    }

    #[test]
    fn guards_end_in_whatever_order_they_were_started() {
        let traces = ["first", "second", "third"].map(trace);
        let [first, second, third] = traces.each_ref().map(|path| {
            let mut guard = Guard::start(|what, _| drop(std::fs::write(path, what))).unwrap();
            guard.watch(b"it").unwrap();
            guard
        });
        // The later ones have copies of what these hear by.
        first.dismiss();
        assert!(!traces[0].exists());
        drop(second);
        assert_eq!(std::fs::read(&traces[1]).unwrap(), b"it");
        third.dismiss();
        assert!(!traces[2].exists());
        std::fs::remove_file(&traces[1]).unwrap();
    }

    #[test]
    fn a_guard_keeps_what_it_is_given_until_it_ends() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut guard = Guard::start(|what, kept| {
            for descriptor in kept {
                let _ = File::from(descriptor).write_all(what);
            }
        })
        .unwrap();
        guard.keep(&theirs).unwrap();
        guard.watch(&[b'x'; MAX_WATCHED_BYTES]).unwrap();
        drop(theirs);
        ours.set_nonblocking(true).unwrap();
        let error = (&ours).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "it is still open");
        drop(guard);
        ours.set_nonblocking(false).unwrap();
        let mut said = Vec::new();
        (&ours).read_to_end(&mut said).unwrap();
        assert_eq!(said, [b'x'; MAX_WATCHED_BYTES]);
    }

    #[test]
    fn a_guard_that_is_to_forget_has_nothing_left_and_watches_over_the_next() {
        let [(mut first, firsts), (mut second, seconds)] = [(); 2].map(|()| UnixStream::pair().unwrap());
        let mut guard = Guard::start(|what, kept| {
            for descriptor in kept {
                let _ = File::from(descriptor).write_all(what);
            }
        })
        .unwrap();
        guard.keep(&firsts).and_then(|()| guard.watch(b"first")).unwrap();
        drop(firsts);
        guard.forget().unwrap();
        first.set_read_timeout(PATIENCE).unwrap();
        assert_eq!(first.read(&mut [0]).unwrap(), 0, "it has an end, though the guard lives");
        guard.keep(&seconds).and_then(|()| guard.watch(b"second")).unwrap();
        drop((seconds, guard));
        let mut said = String::new();
        second.read_to_string(&mut said).unwrap();
        assert_eq!(said, "second");
    }

    #[test]
    fn a_guard_has_nothing_that_it_was_not_given() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(PATIENCE).unwrap();
        let first = Guard::start(|_, _| ()).unwrap();
        let second = Guard::start(|_, _| ()).unwrap();
        drop(theirs);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0, "it has an end, though both guards live");
        first.dismiss();
        second.dismiss();
    }

    #[test]
    fn guards_act_when_their_process_is_killed_with_all_its_group_and_the_last_one_first() {
        let path = trace("killed");
        let (mut told, mut tell) = UnixStream::pair().unwrap();
        // No other test's thread may have it just then.
        let ends = ends();
        // SAFETY: the child only starts guards, says so, and waits to be killed.
        let process = unsafe { libc::fork() };
        drop(ends);
        if process == 0 {
            drop(told);
            let _ = rustix::process::setpgid(None, None);
            let guards = ["first ", "second "].map(|name| {
                let mut guard = Guard::start(|_, _kept| drop(append(&path, name))).ok()?;
                guard.keep(&tell).and_then(|()| guard.watch(&[])).ok().map(|()| guard)
            });
            let _ = tell.write_all(&[u8::from(guards.iter().all(Option::is_some))]);
            loop {
                std::hint::black_box(&guards);
                std::thread::park();
            }
        }
        drop(tell);
        told.set_read_timeout(PATIENCE).unwrap();
        let mut started = [0];
        told.read_exact(&mut started).unwrap();
        assert_eq!(started, [1]);
        // SAFETY: a signal to the group of a child of this test's own.
        assert_eq!(unsafe { libc::kill(-process, libc::SIGKILL) }, 0);
        // SAFETY: that child is waited for.
        unsafe { libc::waitpid(process, std::ptr::null_mut(), 0) };
        // They have been given the other end: its end is theirs.
        told.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second first ");
        std::fs::remove_file(&path).unwrap();
    }
}
