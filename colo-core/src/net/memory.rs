//! A pair of ports in memory, for tests and for those who embed a guest and its network in one process.
//!
//! ```
//! use colo_core::net::{Frame, Port, memory};
//!
//! let (mut guest, mut host) = memory::pair(8)?;
//! assert_eq!(guest.send(&[Frame::from_static(b"a frame")])?, 1);
//! let mut frames = Vec::new();
//! assert_eq!(host.receive(&mut frames)?, 1);
//! assert_eq!(frames, [&b"a frame"[..]]);
//! # Ok::<(), std::io::Error>(())
//! ```

use super::{Frame, MAX_BATCH_FRAMES, Port};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One end of a pair. Dropping it closes the pair: the other end still gets what is under way, then an error.
#[derive(Debug)]
pub struct MemoryPort {
    incoming: Arc<Queue>,
    outgoing: Arc<Queue>,
}

/// Two ports, each of which receives what the other sends; in each direction at most `capacity` frames are under way.
///
/// # Errors
/// When the system has no more file descriptors.
pub fn pair(capacity: usize) -> io::Result<(MemoryPort, MemoryPort)> {
    let (there, back) = (Arc::new(Queue::new(capacity)?), Arc::new(Queue::new(capacity)?));
    let one = MemoryPort { incoming: Arc::clone(&back), outgoing: Arc::clone(&there) };
    let other = MemoryPort { incoming: there, outgoing: back };
    Ok((one, other))
}

impl Port for MemoryPort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.incoming.signal.as_fd()
    }

    /// # Errors
    /// `UnexpectedEof` when the other end is gone and all that it had sent was received.
    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let mut state = self.incoming.lock();
        let count = state.frames.len().min(MAX_BATCH_FRAMES);
        if count == 0 && state.closed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frames.extend(state.frames.drain(..count));
        if state.frames.is_empty() && !state.closed {
            self.incoming.lower()?;
        }
        Ok(count)
    }

    /// # Errors
    /// `BrokenPipe` when the other end is gone.
    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        let mut state = self.outgoing.lock();
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = frames.len().min(self.outgoing.capacity - state.frames.len());
        state.frames.extend(frames[..count].iter().cloned());
        if count > 0 {
            self.outgoing.raise()?;
        }
        Ok(count)
    }
}

impl Drop for MemoryPort {
    fn drop(&mut self) {
        for queue in [&self.incoming, &self.outgoing] {
            queue.lock().closed = true;
            // Fails only when the descriptor is readable as it is.
            let _ = queue.raise();
        }
    }
}

/// One direction. The signal is readable exactly while there are frames, or the queue is closed.
#[derive(Debug)]
struct Queue {
    capacity: usize,
    state: Mutex<State>,
    signal: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    closed: bool,
}

impl Queue {
    fn new(capacity: usize) -> io::Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Queue { capacity, state: Mutex::default(), signal })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self) -> io::Result<()> {
        match rustix::io::write(&self.signal, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn lower(&self) -> io::Result<()> {
        match rustix::io::read(&self.signal, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(port: &MemoryPort) -> bool {
        let fd = port.poll_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    fn frames(count: usize) -> Vec<Frame> {
        (0..count).map(|n| Frame::from(n.to_string())).collect()
    }

    #[test]
    fn readable_exactly_while_there_is_something() {
        let (mut one, mut other) = pair(1000).unwrap();
        assert!(!is_readable(&one) && !is_readable(&other));
        assert_eq!(one.send(&frames(MAX_BATCH_FRAMES + 1)).unwrap(), MAX_BATCH_FRAMES + 1);
        assert!(!is_readable(&one) && is_readable(&other));
        let mut received = Vec::new();
        assert_eq!(other.receive(&mut received).unwrap(), MAX_BATCH_FRAMES);
        assert!(is_readable(&other));
        assert_eq!(other.receive(&mut received).unwrap(), 1);
        assert!(!is_readable(&other));
        assert_eq!(other.receive(&mut received).unwrap(), 0);
        assert_eq!(received, frames(MAX_BATCH_FRAMES + 1));
    }

    #[test]
    fn takes_no_more_than_the_capacity() {
        let (mut one, mut other) = pair(3).unwrap();
        assert_eq!(one.send(&frames(5)).unwrap(), 3);
        assert_eq!(one.send(&frames(5)).unwrap(), 0);
        assert_eq!(other.receive(&mut Vec::new()).unwrap(), 3);
        assert_eq!(one.send(&frames(1)).unwrap(), 1);
    }

    #[test]
    fn the_end_comes_after_what_was_sent() {
        let (mut one, mut other) = pair(3).unwrap();
        one.send(&frames(2)).unwrap();
        drop(one);
        assert!(is_readable(&other));
        let mut received = Vec::new();
        assert_eq!(other.receive(&mut received).unwrap(), 2);
        assert!(is_readable(&other));
        assert_eq!(other.receive(&mut received).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(other.send(&received).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let (mut one, mut other) = pair(3).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || one.send(&frames(1)).unwrap());
            let fd = other.poll_fd();
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).unwrap();
        });
        assert_eq!(other.receive(&mut Vec::new()).unwrap(), 1);
    }
}
