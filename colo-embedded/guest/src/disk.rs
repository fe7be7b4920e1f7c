//! The disk: requests that wait for their turn, and what becomes of them.
//!
//! Requests are done in the order in which they were made, so what is written is durable when a flush made after it is done.

use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};

use crate::receipt::{Promise, Receipt, promise};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To fill the buffer.
    Read,
    /// To write the buffer.
    Write,
    /// To make a part zeroes.
    Zeroes,
    /// To make durable what was written before.
    Flush,
}

/// A request. It owns its buffer, which stays where it is until the request is done.
#[derive(Debug)]
pub struct Request {
    /// What for.
    pub operation: Operation,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub bytes: u64,
    /// What is written, or room for what is read.
    pub buffer: Vec<u8>,
}

impl Request {
    /// Reads as many bytes as the buffer has.
    pub fn read(offset: u64, buffer: Vec<u8>) -> Self {
        Self {
            operation: Operation::Read,
            offset,
            bytes: buffer.len() as u64,
            buffer,
        }
    }

    /// Writes the buffer.
    pub fn write(offset: u64, buffer: Vec<u8>) -> Self {
        Self {
            operation: Operation::Write,
            ..Self::read(offset, buffer)
        }
    }

    /// Makes that part zeroes.
    pub fn zeroes(offset: u64, bytes: u64) -> Self {
        Self {
            operation: Operation::Zeroes,
            offset,
            bytes,
            buffer: vec![],
        }
    }

    /// Makes durable what was written before.
    pub fn flush() -> Self {
        Self {
            operation: Operation::Flush,
            ..Self::zeroes(0, 0)
        }
    }
}

/// The disk did not do a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFailed;

/// What became of a request: its buffer, filled if it was a read.
pub type Outcome = Result<Vec<u8>, DiskFailed>;

/// Does requests in order, and so many at a time.
pub trait BlockDevice {
    /// Its size.
    fn bytes(&self) -> u64;

    /// Whether it takes another request.
    fn has_room(&self) -> bool;

    /// Takes a request; only if it has room.
    fn submit(&mut self, request: Request);

    /// Whether a request is done that was not handed out yet.
    fn has_done(&self) -> bool;

    /// Hands out the next outcome, in the order of requests.
    fn take_done(&mut self) -> Option<Outcome>;
}

/// A disk.
pub struct Disk {
    device: Box<dyn BlockDevice>,
    /// Not given to the device yet. No longer than there are connections and jobs of the log, each of which waits for its own.
    waiting: VecDeque<(Request, Promise<Outcome>)>,
    under_way: VecDeque<Promise<Outcome>>,
}

impl Disk {
    /// Over a device that is used by nobody else.
    pub fn new(device: Box<dyn BlockDevice>) -> Self {
        Self {
            device,
            waiting: VecDeque::new(),
            under_way: VecDeque::new(),
        }
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.device.bytes()
    }

    /// Whether [`Disk::pump`] would find a request done.
    pub fn has_done(&self) -> bool {
        self.device.has_done()
    }

    /// Makes a request. It goes on its way with the next [`Disk::pump`].
    pub fn submit(&mut self, request: Request) -> Receipt<Outcome> {
        let (promise, receipt) = promise();
        self.waiting.push_back((request, promise));
        receipt
    }

    /// Hands out what is done, and sends what waits on its way. Whether anything was done.
    pub fn pump(&mut self) -> bool {
        let mut any = false;
        while let Some(outcome) = self.device.take_done() {
            any = true;
            if let Some(promise) = self.under_way.pop_front() {
                promise.keep(outcome);
            }
        }
        while self.device.has_room() {
            let Some((request, promise)) = self.waiting.pop_front() else {
                break;
            };
            self.under_way.push_back(promise);
            self.device.submit(request);
        }
        any
    }
}
