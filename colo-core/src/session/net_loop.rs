//! What the net threads of both sides share.

use super::wake::Waker;
use crate::net::{Frame, MAX_BATCH_FRAMES, Port};
use crate::peer::{NetChannel, NetFrame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// A port that had no room is tried again after so long: a ring in guest memory does not tell when it has room.
pub(super) const RETRY: Duration = Duration::from_millis(1);

/// The longest sleep of a net thread: nothing depends on it, but a thread that never looks up is hard to diagnose.
pub(super) const IDLE: Duration = Duration::from_millis(500);

/// The most bytes of frames in one message between the hosts (half of what the protocol allows).
const MESSAGE_BYTES: usize = 1 << 20;

/// How many turns a net thread makes at most before it lets the engine have the lock.
const MAX_TURNS: u32 = 16;

/// So many frames are sent in one turn, to a guest or to clients. A guest on a busy host takes the processor for each that it is given:
/// with more of them the peer would not hear from this side in time.
pub(super) const PORTION: usize = 32;

/// A mutex of which one taker has right of way: the engine, which holds a guest suspended while it waits.
pub(super) struct Lane<T> {
    inner: Mutex<T>,
    waiting: AtomicU32,
}

/// The net thread panicked while it held its state.
#[derive(thiserror::Error, Debug)]
#[error("the net thread has panicked")]
pub(super) struct Panicked;

impl<T> Lane<T> {
    pub(super) fn new(inner: T) -> Self {
        Lane { inner: Mutex::new(inner), waiting: AtomicU32::new(0) }
    }

    /// For the engine.
    pub(super) fn first(&self) -> Result<MutexGuard<'_, T>, Panicked> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let guard = self.inner.lock();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        guard.map_err(|_| Panicked)
    }

    /// For the net thread.
    pub(super) fn after_others(&self) -> Result<MutexGuard<'_, T>, Panicked> {
        while self.is_wanted() {
            std::thread::yield_now();
        }
        self.inner.lock().map_err(|_| Panicked)
    }

    /// For the net thread, which has it: takes turns as long as something moves, but no more of them when the engine waits. Returns whether
    /// there may be more to move.
    pub(super) fn turns(&self, mut turn: impl FnMut() -> bool) -> bool {
        for _ in 0..MAX_TURNS {
            if !turn() {
                return false;
            }
            if self.is_wanted() {
                break;
            }
        }
        true
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }
}

/// One of the domain's cards: the guest's side, and the clients' while it serves.
pub(super) struct Nic {
    pub(super) guest: Box<dyn Port>,
    pub(super) lan: Option<Box<dyn Port>>,
    /// For the guest, which had no room.
    pub(super) input: Vec<Frame>,
    /// Whether they may have something. What has not is not asked: on an emulated or a busy host a call costs as much as a packet.
    guest_ready: bool,
    lan_ready: bool,
}

impl Nic {
    pub(super) fn new(guest: Box<dyn Port>, lan: Option<Box<dyn Port>>) -> Self {
        Nic { guest, lan, input: Vec::new(), guest_ready: true, lan_ready: true }
    }

    /// Whatever was found before, both may have something.
    pub(super) fn look_again(&mut self) {
        (self.guest_ready, self.lan_ready) = (true, true);
    }

    /// Takes what the guest has said, and returns how many frames that is.
    pub(super) fn read_guest(&mut self, frames: &mut Vec<Frame>) -> usize {
        if !self.guest_ready {
            return 0;
        }
        // A ring that is gone belongs to a guest that is gone; the engine sees that by itself.
        let count = self.guest.receive(frames).unwrap_or(0);
        self.guest_ready = count == MAX_BATCH_FRAMES;
        count
    }

    /// Gives the guest some of what waits for it, and returns what it took.
    pub(super) fn feed_guest(&mut self) -> Vec<Frame> {
        if self.input.is_empty() {
            return Vec::new();
        }
        // A ring that is gone belongs to a guest that is gone; the engine sees that by itself.
        let some = &self.input[..PORTION.min(self.input.len())];
        let taken = self.guest.send(some).unwrap_or(0).min(some.len());
        self.input.drain(..taken).collect()
    }

    /// Takes what the clients have sent, unless the guest has not even taken what came before.
    pub(super) fn read_lan(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let Some(lan) = self.lan.as_mut().filter(|_| self.lan_ready && self.input.is_empty()) else { return Ok(0) };
        let count = lan.receive(frames);
        self.lan_ready = matches!(count, Ok(MAX_BATCH_FRAMES));
        count
    }
}

/// Numbers frames for the card.
pub(super) fn tag(nic: usize, frames: Vec<Frame>) -> Vec<NetFrame> {
    let nic = nic as u8;
    frames.into_iter().map(|frame| NetFrame { nic, frame }).collect()
}

/// Cuts frames into messages that are not too long.
pub(super) fn messages(frames: Vec<NetFrame>, mut send: impl FnMut(Vec<NetFrame>)) {
    let mut batch = Vec::new();
    let mut bytes = 0;
    for frame in frames {
        if !batch.is_empty() && (bytes + frame.frame.len() > MESSAGE_BYTES || batch.len() == MAX_BATCH_FRAMES) {
            send(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += frame.frame.len();
        batch.push(frame);
    }
    if !batch.is_empty() {
        send(batch);
    }
}

/// The descriptors that a net thread sleeps on: of the cards, and of the peer. Duplicates: they are polled without the lock.
pub(super) struct PollSet {
    guests: Vec<OwnedFd>,
    lans: Vec<Option<OwnedFd>>,
    peer: Option<OwnedFd>,
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A card's side of the guest, by the card's number.
    Guest(usize),
    /// Its side of the clients.
    Lan(usize),
    Peer,
}

impl PollSet {
    pub(super) fn new(nics: &[Nic], peer: Option<&NetChannel>) -> io::Result<Self> {
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
        Ok(PollSet {
            guests: nics.iter().map(|nic| own(nic.guest.poll_fd())).collect::<Result<_, _>>()?,
            lans: nics
                .iter()
                .map(|nic| nic.lan.as_ref().map(|lan| own(lan.poll_fd())).transpose())
                .collect::<Result<_, _>>()?,
            peer: peer.map(|peer| own(peer.poll_fd())).transpose()?,
        })
    }

    /// Sleeps until one of those that are wanted is ready, the waker wakes, or the time has passed. Returns which are.
    pub(super) fn sleep(
        &self,
        waker: &Waker,
        wanted: &[(Source, PollFlags)],
        timeout: Duration,
    ) -> io::Result<Vec<Source>> {
        let fd_of = |source| match source {
            Source::Guest(nic) => self.guests.get(nic),
            Source::Lan(nic) => self.lans.get(nic)?.as_ref(),
            Source::Peer => self.peer.as_ref(),
        };
        let (mut sources, mut fds) = (Vec::new(), vec![PollFd::new(waker, PollFlags::IN)]);
        for (source, flags) in wanted {
            if let Some(fd) = fd_of(*source) {
                sources.push(*source);
                fds.push(PollFd::from_borrowed_fd(fd.as_fd(), *flags));
            }
        }
        match poll(&mut fds, Some(&timespec(timeout))) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            waker.clear();
        }
        let is_ready = fds[1..].iter().map(|fd| !fd.revents().is_empty());
        Ok(sources.into_iter().zip(is_ready).filter(|(_, is_ready)| *is_ready).map(|(source, _)| source).collect())
    }
}

/// Notes which cards have something, and returns whether the peer has.
pub(super) fn note_ready(ready: &[Source], nics: &mut [Nic]) -> bool {
    for source in ready {
        match *source {
            Source::Guest(nic) => nics[nic].guest_ready = true,
            Source::Lan(nic) => nics[nic].lan_ready = true,
            Source::Peer => {}
        }
    }
    ready.contains(&Source::Peer)
}

/// For [`poll`].
pub(super) fn timespec(duration: Duration) -> Timespec {
    // Rounded up to the next microsecond, so that a deadline is not met by spinning towards it.
    let duration = duration + Duration::from_micros(1);
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
