use alloc::{rc::Rc, vec::Vec};

use super::{
    BATCH_BYTES, Item,
    format::{Area, HEADER_BYTES, Header, Record},
    outcomes::Outcomes,
};
use crate::disk::{Disk, DiskFailed, Request};

/// The entries as they are, written into the other half; it counts with its header, which is written when all else is durable.
pub(super) struct Compaction {
    header: Header,
    items: Rc<Vec<Item>>,
    /// Of the items: how many are written.
    written: usize,
    /// The last change that is in them.
    ticket: u64,
    end: u64,
    stage: Stage,
    outcomes: Outcomes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Records,
    Flush,
    Header,
}

/// What a compaction leaves.
pub(super) struct Compacted {
    pub(super) header: Header,
    pub(super) ticket: u64,
    pub(super) end: u64,
    pub(super) next_sequence: u64,
}

impl Compaction {
    pub(super) fn new(header: Header, items: Rc<Vec<Item>>, ticket: u64) -> Self {
        Self {
            header,
            items,
            written: 0,
            ticket,
            end: 0,
            stage: Stage::Records,
            outcomes: Outcomes::default(),
        }
    }

    /// The first on a disk without a header: it may have anything else.
    pub(super) fn format(header: Header, ticket: u64, area: &Area, disk: &mut Disk) -> Self {
        let mut compaction = Self::new(header, Rc::new(Vec::new()), ticket);
        let start = area.half_offset(header.generation);
        let clear = disk.submit(Request::zeroes(start, HEADER_BYTES as u64));
        compaction.outcomes.push(clear);
        compaction
    }

    /// Goes on if what it waits for is done, and says so. `Some` at the end.
    pub(super) fn step(
        &mut self,
        area: &Area,
        disk: &mut Disk,
    ) -> Result<Option<Compacted>, Waiting> {
        match self.outcomes.poll() {
            None => return Err(Waiting::Disk),
            Some(Err(DiskFailed)) => return Err(Waiting::Nothing),
            Some(Ok(_)) => {}
        }
        match self.stage {
            Stage::Records if self.written < self.items.len() => self.write_records(area, disk),
            Stage::Records => {
                self.outcomes.push(disk.submit(Request::flush()));
                self.stage = Stage::Flush;
            }
            Stage::Flush => {
                let offset = area.header_offset(self.header.generation);
                self.outcomes
                    .push(disk.submit(Request::write(offset, self.header.encode())));
                self.outcomes.push(disk.submit(Request::flush()));
                self.stage = Stage::Header;
            }
            Stage::Header => {
                return Ok(Some(Compacted {
                    header: self.header,
                    ticket: self.ticket,
                    end: self.end,
                    next_sequence: self.header.first_sequence + self.items.len() as u64,
                }));
            }
        }
        Ok(None)
    }

    fn write_records(&mut self, area: &Area, disk: &mut Disk) {
        let mut batch = Vec::new();
        for (key, value) in &self.items[self.written..] {
            let record = Record {
                sequence: self.header.first_sequence + self.written as u64,
                epoch: self.header.epoch,
                key,
                value: Some(value),
            };
            if !batch.is_empty() && batch.len() + record.bytes() > BATCH_BYTES {
                break;
            }
            record.encode(self.header.generation, &mut batch);
            self.written += 1;
        }
        let offset = area.half_offset(self.header.generation) + self.end;
        self.end += batch.len() as u64;
        self.outcomes
            .push(disk.submit(Request::write(offset, batch)));
    }
}

/// Why there is nothing to do.
pub(super) enum Waiting {
    /// The disk is at work.
    Disk,
    /// It has failed.
    Nothing,
}
