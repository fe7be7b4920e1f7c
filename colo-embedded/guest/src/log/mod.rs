//! The log: what makes the key-value store outlive its machine.
//!
//! Each change is a record. Changes that come while the disk is at work are written together when it is through, and made durable by
//! one flush; only then do they *count*, and are acknowledged. A log that is full is begun anew in the other half of its area with the
//! entries as they are ([`format`] is what both look like). One thing is done at a time: a start is read back, changes are appended, the
//! log is begun anew, or checked.
//!
//! A change has a ticket, in the order in which changes were made; [`Log::settled`] tells whether it counts. Whatever is answered of a
//! key waits for the last change of that key that was made before the question, and answers with that: so answers depend on the order
//! of requests, and not on how fast the disk is.

mod check;
mod compaction;
pub mod format;
mod outcomes;
mod reading;
mod scan;
#[cfg(test)]
mod tests;

pub use check::CheckReport;

use alloc::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    vec::Vec,
};

use self::{
    check::{Check, Checking},
    compaction::{Compacted, Compaction, Waiting},
    format::{Area, HEADER_BYTES, Header, Record, record_bytes, room},
    outcomes::Outcomes,
    scan::Scan,
};
use crate::{
    disk::{Disk, DiskFailed, Outcome, Request},
    receipt::{Promise, Receipt, promise},
    store::{Store, Value},
};

/// The most that is written at once, if it is more than one record: what is gained beyond it is little, and memory is scarce.
const BATCH_BYTES: usize = 128 << 10;
/// The ticket of the record that begins the epoch: the store is ready when it counts.
const OPENING: u64 = 1;

/// An entry.
type Item = (Rc<[u8]>, Rc<Value>);

/// The log of a [`Store`], which it fills when it is read back.
pub struct Log {
    area: Area,
    header: Header,
    epoch: u32,
    next_sequence: u64,
    /// Where in the half the next record goes.
    end: u64,
    job: Job,
    /// Changes that are not on their way to the disk.
    queue: VecDeque<Change>,
    /// The last ticket of each key whose last change does not count yet.
    unsure: BTreeMap<Rc<[u8]>, u64>,
    /// The last ticket given.
    given: u64,
    /// The last ticket that counts.
    counts: u64,
    /// What all entries take as records, when all changes count.
    live_bytes: u64,
    /// A check that waits for the changes made before it. No later ones are written meanwhile.
    check: Option<WaitingCheck>,
}

struct Change {
    ticket: u64,
    key: Rc<[u8]>,
    value: Option<Rc<Value>>,
}

struct WaitingCheck {
    ticket: u64,
    items: Rc<Vec<Item>>,
    promise: Promise<CheckReport>,
}

enum Job {
    Idle,
    /// The disk has failed: nothing is done any more.
    Failed,
    Headers(Receipt<Outcome>),
    Reading(Scan, Receipt<Outcome>),
    Appending {
        ticket: u64,
        end: u64,
        outcomes: Outcomes,
    },
    Compacting(Compaction),
    Checking(Check),
}

/// What came of one step of a job.
enum Step {
    /// On to this.
    Next(Job),
    /// The disk must do something first.
    Wait(Job),
}

impl Log {
    /// The log of the first half of a disk. Reads it back, when it is pumped, into an empty store.
    pub fn new(disk: &mut Disk) -> Self {
        let headers = disk.submit(Request::read(0, room(2 * HEADER_BYTES)));
        let header = Header {
            generation: 0,
            first_sequence: 0,
            epoch: 0,
        };
        Self {
            area: Area::of(disk.bytes()),
            header,
            epoch: 0,
            next_sequence: 0,
            end: 0,
            job: Job::Headers(headers),
            queue: VecDeque::new(),
            unsure: BTreeMap::new(),
            given: OPENING,
            counts: 0,
            live_bytes: 0,
            check: None,
        }
    }

    /// Whether the log was read back, or never will be: before, the store is not to be asked.
    pub fn is_ready(&self) -> bool {
        self.settled(OPENING).is_some()
    }

    /// Whether a change counts; `None` as long as that is not known.
    pub fn settled(&self, ticket: u64) -> Option<Result<(), DiskFailed>> {
        if ticket <= self.counts {
            Some(Ok(()))
        } else if self.has_failed() {
            Some(Err(DiskFailed))
        } else {
            None
        }
    }

    /// Whether the disk has failed: no change will count any more.
    pub fn has_failed(&self) -> bool {
        matches!(self.job, Job::Failed)
    }

    /// The ticket of the last change of a key.
    pub fn ticket_of(&self, key: &[u8]) -> u64 {
        self.unsure.get(key).copied().unwrap_or(OPENING)
    }

    /// Whether there is room for such a value in the place of the one that the key has.
    pub fn has_room(&self, key: &[u8], old: Option<&Value>, value_bytes: usize) -> bool {
        let old = old.map_or(0, |old| record_bytes(key.len(), old.len()) as u64);
        let new = record_bytes(key.len(), value_bytes) as u64;
        self.live_bytes - old + new <= self.area.live_limit_bytes()
    }

    /// A change was made in the store, where the key had `old`. Its ticket.
    pub fn change(&mut self, key: Rc<[u8]>, old: Option<&Value>, value: Option<Rc<Value>>) -> u64 {
        self.account(
            &key,
            old.map(|old| old.len()),
            value.as_ref().map(|value| value.len()),
        );
        self.given += 1;
        self.unsure.insert(key.clone(), self.given);
        self.queue.push_back(Change {
            ticket: self.given,
            key,
            value,
        });
        self.given
    }

    /// Has the log read again, and compared with the store as it is now. `None` while another check is under way.
    pub fn begin_check(&mut self, store: &Store) -> Option<Receipt<CheckReport>> {
        if self.check.is_some() || matches!(self.job, Job::Checking(_)) {
            return None;
        }
        let (promise, receipt) = promise();
        if self.has_failed() {
            promise.keep(Err("the disk has failed".into()));
            return Some(receipt);
        }
        self.check = Some(WaitingCheck {
            ticket: self.given,
            items: Rc::new(store.snapshot()),
            promise,
        });
        Some(receipt)
    }

    /// Goes on as far as the disk has come. Whether there is something new for the disk, or for those who wait.
    pub fn pump(&mut self, disk: &mut Disk, store: &mut Store) -> bool {
        let mut any = false;
        loop {
            let job = core::mem::replace(&mut self.job, Job::Idle);
            match self.step(job, disk, store) {
                Step::Next(job) => self.job = job,
                Step::Wait(job) => {
                    self.job = job;
                    return any;
                }
            }
            any = true;
        }
    }

    fn step(&mut self, job: Job, disk: &mut Disk, store: &mut Store) -> Step {
        match job {
            Job::Idle => match self.next_job(disk, store) {
                Some(job) => Step::Next(job),
                None => Step::Wait(Job::Idle),
            },
            Job::Failed => Step::Wait(Job::Failed),
            Job::Headers(receipt) => match receipt.take() {
                None => Step::Wait(Job::Headers(receipt)),
                Some(Ok(bytes)) => Step::Next(self.open(&bytes, disk)),
                Some(Err(DiskFailed)) => self.fail(),
            },
            Job::Reading(scan, receipt) => match receipt.take() {
                None => Step::Wait(Job::Reading(scan, receipt)),
                Some(Ok(chunk)) => self.read(scan, &chunk, disk, store),
                Some(Err(DiskFailed)) => self.fail(),
            },
            Job::Appending {
                ticket,
                end,
                mut outcomes,
            } => match outcomes.poll() {
                None => Step::Wait(Job::Appending {
                    ticket,
                    end,
                    outcomes,
                }),
                Some(Ok(_)) => {
                    self.end = end;
                    self.count(ticket);
                    Step::Next(Job::Idle)
                }
                Some(Err(DiskFailed)) => self.fail(),
            },
            Job::Compacting(mut compaction) => match compaction.step(&self.area, disk) {
                Ok(None) => Step::Next(Job::Compacting(compaction)),
                Ok(Some(done)) => Step::Next(self.begin_anew(&done)),
                Err(Waiting::Disk) => Step::Wait(Job::Compacting(compaction)),
                Err(Waiting::Nothing) => self.fail(),
            },
            Job::Checking(check) => match check.step(disk) {
                Checking::GoesOn(check) => Step::Next(Job::Checking(check)),
                Checking::HasSaid => Step::Next(Job::Idle),
                Checking::Waits(check) => Step::Wait(Job::Checking(check)),
            },
        }
    }

    fn next_job(&mut self, disk: &mut Disk, store: &Store) -> Option<Job> {
        if let Some(check) = self.check.take_if(|check| check.ticket <= self.counts) {
            let scan = Scan::new(&self.area, &self.header, self.end);
            let end = (self.end, self.next_sequence);
            return Some(Job::Checking(Check::new(
                scan,
                check.items,
                end,
                check.promise,
                disk,
            )));
        }
        let first = self.queue.front()?;
        if self.end + first.bytes() as u64 > self.area.half_bytes {
            let (items, ticket) = match &self.check {
                Some(check) => (check.items.clone(), check.ticket),
                None => (Rc::new(store.snapshot()), self.given),
            };
            let compaction = Compaction::new(self.next_header(), items, ticket);
            return Some(Job::Compacting(compaction));
        }
        self.append(disk)
    }

    /// Writes as many changes as there are, fit into the half, and are not too many for one request.
    fn append(&mut self, disk: &mut Disk) -> Option<Job> {
        let last = self.check.as_ref().map_or(u64::MAX, |check| check.ticket);
        let mut batch = Vec::new();
        let mut ticket = 0;
        while let Some(change) = self.queue.front().filter(|change| change.ticket <= last) {
            let bytes = batch.len() + change.bytes();
            if self.end + bytes as u64 > self.area.half_bytes
                || (bytes > BATCH_BYTES && !batch.is_empty())
            {
                break;
            }
            let record = Record {
                sequence: self.next_sequence,
                epoch: self.epoch,
                key: &change.key,
                value: change.value.as_ref().map(|value| &value[..]),
            };
            record.encode(self.header.generation, &mut batch);
            self.next_sequence += 1;
            ticket = change.ticket;
            self.queue.pop_front();
        }
        if batch.is_empty() {
            return None;
        }
        let end = self.end + batch.len() as u64;
        let offset = self.area.half_offset(self.header.generation) + self.end;
        let mut outcomes = Outcomes::default();
        outcomes.push(disk.submit(Request::write(offset, batch)));
        outcomes.push(disk.submit(Request::flush()));
        Some(Job::Appending {
            ticket,
            end,
            outcomes,
        })
    }

    fn next_header(&self) -> Header {
        Header {
            generation: self.header.generation + 1,
            first_sequence: self.next_sequence,
            epoch: self.epoch,
        }
    }

    fn begin_anew(&mut self, done: &Compacted) -> Job {
        self.header = done.header;
        self.end = done.end;
        self.next_sequence = done.next_sequence;
        while self
            .queue
            .front()
            .is_some_and(|change| change.ticket <= done.ticket)
        {
            self.queue.pop_front();
        }
        self.count(done.ticket);
        Job::Idle
    }

    /// Changes up to this one count.
    fn count(&mut self, ticket: u64) {
        self.counts = ticket;
        self.unsure.retain(|_, last| *last > ticket);
    }

    fn fail(&mut self) -> Step {
        self.queue.clear();
        if let Some(check) = self.check.take() {
            check.promise.keep(Err("the disk has failed".into()));
        }
        Step::Next(Job::Failed)
    }

    /// A key's value has another length, if it has one.
    fn account(&mut self, key: &[u8], old: Option<usize>, new: Option<usize>) {
        let bytes = |value: Option<usize>| {
            value.map_or(0, |value_bytes| record_bytes(key.len(), value_bytes) as u64)
        };
        self.live_bytes = self.live_bytes - bytes(old) + bytes(new);
    }
}

impl Change {
    fn bytes(&self) -> usize {
        record_bytes(
            self.key.len(),
            self.value.as_ref().map_or(0, |value| value.len()),
        )
    }
}
