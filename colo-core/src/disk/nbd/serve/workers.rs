use super::answer::Desk;
use super::buffer::Buffer;
use super::outbox::{Cost, Outbox};
use crate::disk::nbd::request::{Command, Request};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// A request that does not hold up those behind it.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) payload: Buffer,
    pub(super) cost: Cost,
}

/// A few threads of one connection, made when there is work for them.
pub(super) struct Workers<'a> {
    desk: &'a Desk<'a>,
    outbox: &'a Outbox<'a>,
    pace: &'a Pace,
    most: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

impl<'a> Workers<'a> {
    pub(super) fn new(desk: &'a Desk<'a>, outbox: &'a Outbox<'a>, pace: &'a Pace, most: usize) -> Workers<'a> {
        Workers { desk, outbox, pace, most, queue: Mutex::default(), wake: Condvar::new() }
    }

    /// Leaves that to a thread, or does it here if there is none and none can be made.
    pub(super) fn hand_over<'s>(&'s self, job: Job, scope: &'s Scope<'s, '_>) {
        let mut queue = self.queue();
        queue.jobs.push_back(job);
        if queue.idle >= queue.jobs.len() || queue.threads == self.most {
            drop(queue);
            self.wake.notify_one();
            return;
        }
        let made = std::thread::Builder::new().name("nbd-disk".into()).spawn_scoped(scope, || self.work());
        match made {
            Ok(_) => queue.threads += 1,
            Err(error) => {
                tracing::warn!("a thread for a disk's requests: {error}");
                let job = if queue.threads == 0 { queue.jobs.pop_back() } else { None };
                drop(queue);
                if let Some(job) = job {
                    self.done(job);
                }
            }
        }
    }

    /// Nothing more comes; what is queued is done, unless nobody hears the answers.
    pub(super) fn close(&self) {
        self.queue().is_closed = true;
        self.wake.notify_all();
    }

    fn work(&self) {
        // A disk that panics leaves a request without an answer: its client must not wait for it.
        let _broken = BrokenByPanic(self.outbox);
        while let Some(job) = self.next() {
            self.done(job);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.is_closed {
                return None;
            }
            queue.idle += 1;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn done(&self, job: Job) {
        let mut reply = self.outbox.buffer();
        if !self.outbox.is_broken() {
            let begin = Instant::now();
            self.desk.answer(&job.request, job.payload.as_slice(), &mut reply);
            self.pace.note(&job.request, begin.elapsed());
        }
        self.outbox.give_back(job.payload);
        self.outbox.finish(reply, job.cost);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct BrokenByPanic<'a>(&'a Outbox<'a>);

impl Drop for BrokenByPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.break_off(None);
        }
    }
}

/// What takes longer is not quick: another thread costs a tenth of that.
const QUICK: Duration = Duration::from_micros(100);
/// One held-up request tells little, however long it was.
const MOST: Duration = Duration::from_millis(1);
/// So many bytes of data in a nanosecond are taken to be copied, which another thread would not do faster.
const BYTES_PER_NANOSECOND: u64 = 2;
/// How many requests the mean is of, about.
const MEMORY: u64 = 8;

/// How long the disk takes, lately: for data, and for what is thought to be slow (flushes, and what frees or makes space).
pub(super) struct Pace {
    data: AtomicU64,
    others: AtomicU64,
}

impl Pace {
    /// Flushes are slow until they are found to be quick, and data the other way round.
    pub(super) fn new() -> Pace {
        Pace { data: AtomicU64::new(0), others: AtomicU64::new(MOST.as_nanos() as u64) }
    }

    pub(super) fn is_quick(&self, request: &Request) -> bool {
        self.mean(request).load(Ordering::Relaxed) <= QUICK.as_nanos() as u64
    }

    pub(super) fn note(&self, request: &Request, took: Duration) {
        let copied = if Pace::is_data(request) { u64::from(request.length) / BYTES_PER_NANOSECOND } else { 0 };
        let took =
            (took.min(Duration::from_secs(1)).as_nanos() as u64).saturating_sub(copied).min(MOST.as_nanos() as u64);
        let mean = self.mean(request);
        // Two threads at once: one of their numbers is lost, and nothing else.
        let old = mean.load(Ordering::Relaxed);
        mean.store((old * (MEMORY - 1) + took) / MEMORY, Ordering::Relaxed);
    }

    /// Whether it is only data that it asks for.
    pub(super) fn is_data(request: &Request) -> bool {
        matches!(request.command, Command::Read | Command::Write | Command::Cache) && !request.is_durable()
    }

    fn mean(&self, request: &Request) -> &AtomicU64 {
        if Pace::is_data(request) { &self.data } else { &self.others }
    }
}
