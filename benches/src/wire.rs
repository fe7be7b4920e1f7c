use colo_core::net::{Frame, Port};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How soon the end of the wire is noticed, and the longest sleep.
const WATCH: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How soon a port that had no room is tried again.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// A thread that carries frames between a machine's card and its clients' network, as a machine without protection needs it. It
/// ends when this is dropped.
pub struct Wire {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Wire {
    /// Connects the two.
    pub fn between(mut card: Box<dyn Port>, mut lan: Box<dyn Port>) -> Wire {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut inward, mut outward) = (Vec::new(), Vec::new());
            while !stopped.load(Ordering::SeqCst) {
                carry(&mut *lan, &mut *card, &mut inward)?;
                carry(&mut *card, &mut *lan, &mut outward)?;
                let timeout = if inward.is_empty() && outward.is_empty() { &WATCH } else { &RETRY };
                let mut ends = [&*card, &*lan].map(|port| PollFd::from_borrowed_fd(port.poll_fd(), PollFlags::IN));
                poll(&mut ends, Some(timeout))?;
            }
            Ok(())
        });
        Wire { stop, thread: Some(thread) }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // A wire that broke has been missed by whoever needed it.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Takes what `from` has, unless some of what it had still waits, and gives `to` what it takes.
fn carry(from: &mut dyn Port, to: &mut dyn Port, frames: &mut Vec<Frame>) -> io::Result<()> {
    if frames.is_empty() {
        from.receive(frames)?;
    }
    let taken = to.send(frames)?;
    frames.drain(..taken);
    Ok(())
}
