//! The first copy, and each later one: what differs is found by hashes, so that after an interruption only that is sent again.

use super::Shared;
use super::course::Course;
use super::link::Flushes;
use crate::disk::DiskError;
use crate::disk::replica::{DiskEvent, OnDiskEvent, PART_BYTES, hash_of};
use crate::peer::{Message, PeerError, ShutdownHandle, StateReceiver};
use crate::random;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So much is asked for at once, and so many questions are under way: the other side reads while this one does.
const ASKED_BYTES: u64 = 4 << 20;
const ASKED_AT_ONCE: usize = 4;

/// How long a wait for a message lasts at a time; the connection's end is heard at once.
const WATCH: Duration = Duration::from_secs(3600);

/// The thread that hears the secondary, and copies.
pub(super) struct Copier {
    shutdown: ShutdownHandle,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    pub(super) fn start(
        shared: Arc<Shared>,
        receiver: StateReceiver,
        shutdown: ShutdownHandle,
        on_event: Arc<OnDiskEvent>,
    ) -> Result<Copier, DiskError> {
        let ends = shared.link().as_ref().map(|link| (link.flushes(), link.course().clone()));
        let (flushes, course) = ends.ok_or(DiskError::Io)?;
        let mut copy = Copy::new(shared, receiver, on_event, flushes, course);
        let thread = std::thread::Builder::new().name("disk copy".into()).spawn(move || copy.run());
        Ok(Copier { shutdown, thread: Some(thread.map_err(|_| DiskError::Io)?) })
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.shutdown.shutdown();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

pub(super) struct Copy {
    pub(super) shared: Arc<Shared>,
    pub(super) receiver: StateReceiver,
    pub(super) on_event: Arc<OnDiskEvent>,
    flushes: Arc<Flushes>,
    pub(super) course: Arc<Course>,
    /// So that nobody can write two things which have the same hash.
    pub(super) seed: u64,
    /// That the secondary has the same disks, with their sizes, if it has said so.
    pub(super) shares_there: Option<Vec<u64>>,
    /// What is to be asked for next.
    next: (u8, u64),
    /// What was asked for, oldest first: disk, offset, length.
    asked: VecDeque<(u8, u64, u32)>,
    done_bytes: u64,
    sent_bytes: u64,
    began: Instant,
    buffer: Vec<u8>,
}

/// What ends a copy.
pub(super) enum Stop {
    /// This side has let go.
    Detached,
    Failed(String),
}

impl Copy {
    fn new(
        shared: Arc<Shared>,
        receiver: StateReceiver,
        on_event: Arc<OnDiskEvent>,
        flushes: Arc<Flushes>,
        course: Arc<Course>,
    ) -> Copy {
        Copy {
            shared,
            receiver,
            on_event,
            flushes,
            course,
            seed: random::number(),
            shares_there: None,
            next: (0, 0),
            asked: VecDeque::new(),
            done_bytes: 0,
            sent_bytes: 0,
            began: Instant::now(),
            buffer: vec![0; PART_BYTES],
        }
    }

    fn run(&mut self) {
        let begun = if self.shared.before.is_some() { self.share() } else { self.copy() };
        match begun.and_then(|()| self.hear()) {
            Ok(()) | Err(Stop::Detached) => {}
            Err(Stop::Failed(why)) => self.shared.lose(why),
        }
    }

    /// Until both sides have the same.
    fn copy(&mut self) -> Result<(), Stop> {
        loop {
            while self.asked.len() < ASKED_AT_ONCE && self.ask()? {}
            if self.asked.is_empty() {
                self.course.in_step(self.receiver.peer_minor());
                (self.on_event)(DiskEvent::InStep);
                return Ok(());
            }
            self.hear_one()?;
        }
    }

    /// Until the connection ends.
    fn hear(&mut self) -> Result<(), Stop> {
        loop {
            self.hear_one()?;
        }
    }

    pub(super) fn hear_one(&mut self) -> Result<(), Stop> {
        let message = match self.receiver.recv(Instant::now() + WATCH) {
            Ok(None) => return Ok(()),
            Ok(Some(message)) => message,
            Err(error) => return Err(self.ended(&error)),
        };
        match message {
            Message::DiskFlushed { number } => self.flushes.done(number),
            Message::DiskHashes { disk, offset, hashes } => self.compare(disk, offset, &hashes)?,
            Message::DiskShared { sizes } => self.hear_shared(sizes)?,
            Message::Refused(why) => return Err(Stop::Failed(why)),
            _ => return Err(Stop::Failed("the secondary's disks sent a message of another channel".into())),
        }
        Ok(())
    }

    fn ended(&self, error: &PeerError) -> Stop {
        match self.shared.link().is_some() {
            true => Stop::Failed(format!("the secondary's disks: {error}")),
            false => Stop::Detached,
        }
    }

    /// Asks for the next hashes; false when all have been asked for.
    fn ask(&mut self) -> Result<bool, Stop> {
        let (disk, offset) = self.next;
        let Some(&(_, size)) = self.shared.disks.get(usize::from(disk)) else { return Ok(false) };
        if offset >= size {
            self.next = (disk + 1, 0);
            return self.ask();
        }
        let length = (size - offset).min(ASKED_BYTES) as u32;
        let seed = self.seed;
        self.shared.send(|link| link.ask_hashes(disk, offset, length, seed)).ok_or(Stop::Detached)?;
        self.asked.push_back((disk, offset, length));
        self.next = (disk, offset + u64::from(length));
        Ok(true)
    }

    /// Sends what the secondary has otherwise. Once both have the same, it is a comparison that has asked.
    fn compare(&mut self, disk: u8, offset: u64, hashes: &[u128]) -> Result<(), Stop> {
        let lied = || Stop::Failed("the secondary's disks answered what nobody asked".into());
        let Some((asked_disk, asked_offset, length)) = self.asked.pop_front() else {
            return self.course.answered(disk, offset, hashes).then_some(()).ok_or_else(lied);
        };
        let parts = (length as usize).div_ceil(PART_BYTES);
        if (disk, offset, hashes.len()) != (asked_disk, asked_offset, parts) {
            return Err(lied());
        }
        for (number, theirs) in hashes.iter().enumerate() {
            let from = offset + (number * PART_BYTES) as u64;
            let bytes = PART_BYTES.min((offset + u64::from(length) - from) as usize);
            self.put_right(disk, from, bytes, *theirs)?;
        }
        self.done_bytes += u64::from(length);
        let all_bytes = self.shared.disks.iter().map(|(_, size)| size).sum();
        self.course.copying(self.done_bytes, all_bytes, self.sent_bytes);
        (self.on_event)(DiskEvent::Copying { done_bytes: self.done_bytes, all_bytes, sent_bytes: self.sent_bytes });
        self.keep_pace();
        Ok(())
    }

    fn put_right(&mut self, disk: u8, offset: u64, bytes: usize, theirs: u128) -> Result<(), Stop> {
        let part = &mut self.buffer[..bytes];
        // What is read here and what is sent are one: the guest writes before it or after it.
        let _range = self.shared.ranges.enter(disk, offset..offset + bytes as u64);
        let read = self.shared.disks[usize::from(disk)].0.read(offset, part);
        read.map_err(|error| Stop::Failed(format!("disk {disk} cannot be read: {error}")))?;
        if hash_of(part, self.seed) == theirs {
            return Ok(());
        }
        let sent = match part.iter().all(|byte| *byte == 0) {
            true => self.shared.send(|link| link.zeroes(disk, offset, bytes as u64, true)),
            false => {
                self.sent_bytes += bytes as u64;
                self.shared.send(|link| link.write(disk, offset, part))
            }
        };
        sent.ok_or(Stop::Detached)
    }

    /// Not faster than told.
    fn keep_pace(&self) {
        let rate = self.shared.config.copy_bytes_per_second;
        if rate == 0 {
            return;
        }
        let due = self.began + Duration::from_secs_f64(self.sent_bytes as f64 / rate as f64);
        // Ended early when the copy is.
        self.shared.room.pause_until(due);
    }
}
