//! The comparison of both hosts' disks while the guest writes and checkpoints are taken.
//!
//! A part is read, and the secondary asked for its hash, while nobody writes to that part: what was written to it before has been sent, and
//! what is written to it later is sent later. So what the secondary has at that place of what it is told, whichever epoch that is, must be
//! what was read here. Nothing waits for the answer.

use super::Shared;
use super::course::{Asked, Course};
use crate::disk::replica::{PART_BYTES, hash_of};
use crate::disk::{Compared, OnVerifyEvent, VerifyError, VerifyEvent};
use crate::random;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Progress is told so often.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// A comparison that goes on, in a thread of its own. Dropped, it stops.
pub struct Verification {
    course: Arc<Course>,
    run: u64,
    thread: Option<JoinHandle<()>>,
}

impl Verification {
    pub(super) fn start(shared: Arc<Shared>, on_event: OnVerifyEvent) -> Result<Verification, VerifyError> {
        let course = shared.course();
        let run = course.begin()?;
        let comparison = Comparison { shared, course: course.clone(), run, seed: random::number() };
        let spawned = std::thread::Builder::new().name("disk comparison".into()).spawn(move || {
            let compared = comparison.compare(&on_event);
            comparison.course.stop(run);
            on_event(VerifyEvent::Ended(compared));
        });
        let thread = spawned.map_err(|error| {
            course.stop(run);
            VerifyError::Thread(error.to_string())
        })?;
        Ok(Verification { course, run, thread: Some(thread) })
    }

    /// It is to end, without being waited for.
    pub fn stop(&self) {
        self.course.stop(self.run);
    }

    /// Whether it has ended, and said so.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

struct Comparison {
    shared: Arc<Shared>,
    course: Arc<Course>,
    run: u64,
    /// So that nobody can write two things which have the same hash.
    seed: u64,
}

impl Comparison {
    fn compare(&self, on_event: &OnVerifyEvent) -> Result<Compared, VerifyError> {
        let (began, mut told) = (Instant::now(), None);
        let (mut buffer, mut asked_bytes) = (vec![0; PART_BYTES], 0);
        let all_bytes = self.shared.disks.iter().map(|(_, size)| size).sum();
        for (disk, (_, size)) in (0..).zip(&self.shared.disks) {
            for offset in (0..*size).step_by(PART_BYTES) {
                let (done_bytes, differing_parts) = self.course.wait_for_room(self.run)?;
                if told.is_none_or(|told: Instant| told.elapsed() >= TOLD_EVERY) {
                    told = Some(Instant::now());
                    on_event(VerifyEvent::Progress { done_bytes, all_bytes, differing_parts });
                }
                let part = &mut buffer[..(size - offset).min(PART_BYTES as u64) as usize];
                self.ask(disk, offset, part)?;
                asked_bytes += part.len() as u64;
                self.keep_pace(began, asked_bytes)?;
            }
        }
        self.course.wait_for_all(self.run)
    }

    /// Reads a part here, and asks for it there.
    fn ask(&self, disk: u8, offset: u64, part: &mut [u8]) -> Result<(), VerifyError> {
        let range = offset..offset + part.len() as u64;
        // Until it is asked for, nobody writes there.
        let _range = self.shared.ranges.enter(disk, range.clone());
        let read = self.shared.disks[usize::from(disk)].0.read(offset, part);
        read.map_err(|source| VerifyError::Unreadable { disk, offset, source })?;
        let (length, seed) = (part.len() as u32, self.seed);
        let asked = Asked { run: self.run, disk, range, ours: hash_of(part, seed) };
        let sent = self.shared.send(|link| {
            // Another secondary, by now?
            let is_ours = Arc::ptr_eq(&self.course, link.course());
            if is_ours {
                self.course.ask(asked);
                link.ask_hashes(disk, offset, length, seed)?;
            }
            Ok(is_ours)
        });
        sent.filter(|is_ours| *is_ours).map(drop).ok_or(VerifyError::Lost)
    }

    /// Not faster than told.
    fn keep_pace(&self, began: Instant, asked_bytes: u64) -> Result<(), VerifyError> {
        match self.shared.config.copy_bytes_per_second {
            0 => Ok(()),
            rate => {
                let due = began + Duration::from_secs_f64(asked_bytes as f64 / rate as f64);
                self.course.pause_until(self.run, due)
            }
        }
    }
}
