//! A disk for tests: it works when it is told to, and loses, at a crash, any part of what was not flushed.

use std::{cell::RefCell, collections::VecDeque, rc::Rc, vec, vec::Vec};

use crate::{
    body,
    disk::{BlockDevice, DiskFailed, Operation, Outcome, Request},
};

/// Halves of 20 KiB.
pub(crate) const DISK_BYTES: usize = 96 << 10;
/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Default)]
pub(crate) struct Platter {
    /// What a read sees.
    pub(crate) now: Vec<u8>,
    /// What is left if nothing more is flushed, and writes since the last flush in their order.
    pub(crate) durable: Vec<u8>,
    pub(crate) cached: Vec<(usize, Vec<u8>)>,
    pub(crate) requests: VecDeque<Request>,
    done: VecDeque<Outcome>,
    pub(crate) fails: bool,
    pub(crate) flushes: usize,
}

/// The device of one start; the platter stays.
#[derive(Clone, Default)]
pub(crate) struct TestDisk(pub(crate) Rc<RefCell<Platter>>);

impl TestDisk {
    pub(crate) fn new() -> Self {
        let disk = Self::default();
        disk.0.borrow_mut().now = vec![0xAA; DISK_BYTES];
        disk.0.borrow_mut().durable = vec![0xAA; DISK_BYTES];
        disk
    }

    /// Does one request; whether there was one.
    pub(crate) fn work(&self) -> bool {
        let mut platter = self.0.borrow_mut();
        let Some(mut request) = platter.requests.pop_front() else {
            return false;
        };
        let range = request.offset as usize..(request.offset + request.bytes) as usize;
        if platter.fails {
            platter.done.push_back(Err(DiskFailed));
            return true;
        }
        match request.operation {
            Operation::Read => request.buffer.copy_from_slice(&platter.now[range]),
            Operation::Write => platter.write(range.start, request.buffer.clone()),
            Operation::Zeroes => platter.write(range.start, vec![0; range.len()]),
            Operation::Flush => {
                platter.flushes += 1;
                platter.durable = platter.now.clone();
                platter.cached.clear();
            }
        }
        platter.done.push_back(Ok(request.buffer));
        true
    }

    /// Loses requests that were not done, and what chance has of the writes that were not flushed: sector by sector.
    pub(crate) fn crash(&self, random: u64) {
        let mut platter = self.0.borrow_mut();
        let mut left = platter.durable.clone();
        let mut number = random;
        for (offset, bytes) in core::mem::take(&mut platter.cached) {
            number = body::word(number);
            // All of it, none of it, its start, or any sectors.
            let (kind, cut) = (number % 4, (number >> 8) as usize % (bytes.len() + 1));
            let (mut at, end) = (offset, offset + bytes.len());
            while at < end {
                let next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let part = at..next.min(end);
                number = body::word(number);
                let stays = match kind {
                    0 => true,
                    1 => false,
                    2 => part.end - offset <= cut,
                    _ => number % 2 == 0,
                };
                if stays {
                    left[part.clone()]
                        .copy_from_slice(&bytes[part.start - offset..part.end - offset]);
                }
                at = next;
            }
        }
        platter.requests.clear();
        platter.done.clear();
        platter.now = left.clone();
        platter.durable = left;
    }
}

impl Platter {
    fn write(&mut self, offset: usize, bytes: Vec<u8>) {
        self.now[offset..offset + bytes.len()].copy_from_slice(&bytes);
        self.cached.push((offset, bytes));
    }
}

impl BlockDevice for TestDisk {
    fn bytes(&self) -> u64 {
        DISK_BYTES as u64
    }

    fn has_room(&self) -> bool {
        self.0.borrow().requests.len() + self.0.borrow().done.len() < 4
    }

    fn submit(&mut self, request: Request) {
        self.0.borrow_mut().requests.push_back(request);
    }

    fn has_done(&self) -> bool {
        !self.0.borrow().done.is_empty()
    }

    fn take_done(&mut self) -> Option<Outcome> {
        self.0.borrow_mut().done.pop_front()
    }
}
