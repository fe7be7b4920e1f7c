use alloc::{collections::BTreeMap, format, rc::Rc, string::String, vec::Vec};

use super::{
    Item,
    scan::{Found, Scan},
};
use crate::{
    disk::{Disk, Outcome},
    receipt::{Promise, Receipt},
    sum::Sum,
};

/// How many keys there are, or what is wrong.
pub type CheckReport = Result<usize, String>;

/// What came of a step.
pub(super) enum Checking {
    GoesOn(Check),
    /// The disk must do something first.
    Waits(Check),
    /// Whoever asked has been told.
    HasSaid,
}

/// The log, read again, beside what is in memory.
pub(super) struct Check {
    scan: Scan,
    /// What is being read. `None` when all was.
    read: Option<Receipt<Outcome>>,
    items: Rc<Vec<Item>>,
    /// Where the log ends, and the sequence number that is next there.
    end: (u64, u64),
    /// A checksum of each key's value, as the disk has it.
    found: BTreeMap<Vec<u8>, u64>,
    promise: Promise<CheckReport>,
}

impl Check {
    /// Begins: `items` is what the log must come to, which ends at `end`.
    pub(super) fn new(
        scan: Scan,
        items: Rc<Vec<Item>>,
        end: (u64, u64),
        promise: Promise<CheckReport>,
        disk: &mut Disk,
    ) -> Self {
        let read = scan.fetch().map(|request| disk.submit(request));
        Self {
            scan,
            read,
            items,
            end,
            found: BTreeMap::new(),
            promise,
        }
    }

    /// Goes on if what it waits for is done.
    pub(super) fn step(mut self, disk: &mut Disk) -> Checking {
        if let Some(read) = &self.read {
            match read.take() {
                None => return Checking::Waits(self),
                Some(Ok(chunk)) => self.scan.feed(&chunk),
                Some(Err(_)) => {
                    self.promise.keep(Err("the log cannot be read".into()));
                    return Checking::HasSaid;
                }
            }
        }
        loop {
            match self.scan.next() {
                Found::Record(record) => match record.value {
                    // It begins an epoch.
                    None if record.key.is_empty() => {}
                    None => {
                        self.found.remove(record.key);
                    }
                    Some(value) => {
                        self.found.insert(record.key.to_vec(), sum_of(value));
                    }
                },
                Found::More => {
                    self.read = self.scan.fetch().map(|request| disk.submit(request));
                    if self.read.is_some() {
                        return Checking::GoesOn(self);
                    }
                }
                Found::End => break,
            }
        }
        let report = self.verdict();
        self.promise.keep(report);
        Checking::HasSaid
    }

    fn verdict(&self) -> CheckReport {
        let (at, sequence, _) = self.scan.end();
        if (at, sequence) != self.end {
            let (end, next) = self.end;
            return Err(format!(
                "the log ends at {at} with record {sequence}, and not at {end} with {next}"
            ));
        }
        for (key, value) in &*self.items {
            if self.found.get(&key[..]) != Some(&sum_of(value)) {
                let key = String::from_utf8_lossy(key);
                return Err(format!("the disk has another value for {key}"));
            }
        }
        if self.found.len() != self.items.len() {
            let (disk, memory) = (self.found.len(), self.items.len());
            return Err(format!("the disk has {disk} keys, and memory has {memory}"));
        }
        Ok(self.items.len())
    }
}

fn sum_of(value: &[u8]) -> u64 {
    let mut sum = Sum::default();
    sum.add_bytes(value);
    sum.value()
}
