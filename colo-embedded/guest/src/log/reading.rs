//! How a start finds what the starts before it have left.

use alloc::rc::Rc;

use super::{
    Change, Job, Log, OPENING, Step,
    compaction::Compaction,
    format::{HEADER_BYTES, Header},
    scan::{Found, Scan},
};
use crate::{disk::Disk, store::Store};

impl Log {
    /// Chooses the half that counts, or makes one.
    pub(super) fn open(&mut self, headers: &[u8], disk: &mut Disk) -> Job {
        let (even, odd) = headers.split_at(HEADER_BYTES);
        let valid = [Header::decode(even), Header::decode(odd)];
        match valid.into_iter().flatten().max_by_key(|h| h.generation) {
            Some(header) => {
                self.header = header;
                self.fetch(Scan::new(&self.area, &header, self.area.half_bytes), disk)
            }
            None => {
                self.epoch = 1;
                let header = self.next_header();
                Job::Compacting(Compaction::format(header, OPENING, &self.area, disk))
            }
        }
    }

    fn fetch(&mut self, scan: Scan, disk: &mut Disk) -> Job {
        match scan.fetch() {
            Some(request) => {
                let receipt = disk.submit(request);
                Job::Reading(scan, receipt)
            }
            None => self.end_reading(&scan),
        }
    }

    /// Takes records into the store.
    pub(super) fn read(
        &mut self,
        mut scan: Scan,
        chunk: &[u8],
        disk: &mut Disk,
        store: &mut Store,
    ) -> Step {
        scan.feed(chunk);
        loop {
            match scan.next() {
                Found::Record(record) => {
                    let old = store.get(record.key);
                    self.account(
                        record.key,
                        old.map(|old| old.len()),
                        record.value.map(<[u8]>::len),
                    );
                    // A machine with less memory than the one that wrote this cannot have it.
                    if store.restore(record.key, record.value).is_err() {
                        return self.fail();
                    }
                }
                Found::More => return Step::Next(self.fetch(scan, disk)),
                Found::End => return Step::Next(self.end_reading(&scan)),
            }
        }
    }

    fn end_reading(&mut self, scan: &Scan) -> Job {
        let (end, next_sequence, epoch) = scan.end();
        (self.end, self.next_sequence, self.epoch) = (end, next_sequence, epoch + 1);
        self.queue.push_front(Change {
            ticket: OPENING,
            key: Rc::new([]),
            value: None,
        });
        Job::Idle
    }
}
