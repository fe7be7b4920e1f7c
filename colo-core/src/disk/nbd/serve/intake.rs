use super::ServeError;
use super::buffer::Buffer;
use crate::disk::nbd::request::Request;
use rustix::io::Errno;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::BorrowedFd;

/// What is taken from the socket at once: many small requests, or small writes with their data.
const AHEAD: usize = 256 << 10;
/// The same while data come in large pieces: what is read of the next one's here has to be copied.
const AHEAD_OF_DATA: usize = 4 << 10;
/// Data longer than this are received where they stay.
const SMALL_DATA: usize = 64 << 10;

/// Requests as they come out of a socket.
pub(super) struct Intake<'a> {
    socket: BorrowedFd<'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ahead: usize,
}

impl<'a> Intake<'a> {
    /// Of a blocking socket, and of what has come before.
    pub(super) fn new(socket: BorrowedFd<'a>, early: &[u8]) -> Intake<'a> {
        let mut buffer = vec![0; AHEAD.max(early.len())];
        buffer[..early.len()].copy_from_slice(early);
        Intake { socket, buffer, start: 0, end: early.len(), ahead: AHEAD }
    }

    /// Whether the next request is here, if not its data.
    pub(super) fn has_request(&self) -> bool {
        self.end - self.start >= Request::BYTES
    }

    /// Waits for more. False: the client has gone, and between two requests.
    pub(super) fn fill(&mut self) -> Result<bool, ServeError> {
        self.make_room(Request::BYTES);
        let limit = self.buffer.len().min(self.end + self.ahead);
        self.ahead = AHEAD;
        let count = receive(self.socket, &mut [IoSliceMut::new(&mut self.buffer[self.end..limit])])?;
        self.end += count;
        match count {
            0 if self.start == self.end => Ok(false),
            0 => Err(gone()),
            _ => Ok(true),
        }
    }

    /// The next request, which is here.
    pub(super) fn request(&mut self) -> Result<Request, ServeError> {
        let head = self.buffer[self.start..self.end].first_chunk().ok_or(ServeError::NoRequest)?;
        let request = Request::decode(head).ok_or(ServeError::NoRequest)?;
        self.start += Request::BYTES;
        Ok(request)
    }

    /// Whether so many bytes of data are here.
    pub(super) fn has_data(&self, count: usize) -> bool {
        self.end - self.start >= count
    }

    /// Whether so many bytes of data are best received by [`Intake::take_data`].
    pub(super) fn is_large(count: usize) -> bool {
        count > SMALL_DATA
    }

    /// Waits for that many bytes of data; for those that are not large.
    pub(super) fn await_data(&mut self, count: usize) -> Result<(), ServeError> {
        self.make_room(count);
        while !self.has_data(count) {
            let received = receive(self.socket, &mut [IoSliceMut::new(&mut self.buffer[self.end..])])?;
            if received == 0 {
                return Err(gone());
            }
            self.end += received;
        }
        self.start += count;
        Ok(())
    }

    /// The data that were waited for.
    pub(super) fn last_data(&self, count: usize) -> &[u8] {
        &self.buffer[self.start - count..self.start]
    }

    /// That many bytes of data into a buffer of their own, and what comes behind them by the same call.
    pub(super) fn take_data(&mut self, count: usize, into: &mut Buffer) -> Result<(), ServeError> {
        let data = into.grow(count);
        let here = count.min(self.end - self.start);
        data[..here].copy_from_slice(&self.buffer[self.start..self.start + here]);
        self.start += here;
        self.ahead = AHEAD_OF_DATA;
        let mut at = here;
        while at < count {
            (self.start, self.end) = (0, 0);
            let (ours, next) = (&mut data[at..], &mut self.buffer[..AHEAD_OF_DATA]);
            let received = receive(self.socket, &mut [IoSliceMut::new(ours), IoSliceMut::new(next)])?;
            if received == 0 {
                return Err(gone());
            }
            self.end = received.saturating_sub(count - at);
            at = count.min(at + received);
        }
        Ok(())
    }

    /// Sees to it that so many bytes can stand in the buffer from where it starts.
    fn make_room(&mut self, count: usize) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start < count {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

fn receive(socket: BorrowedFd<'_>, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    loop {
        match rustix::io::readv(socket, into) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

fn gone() -> ServeError {
    ServeError::Connection(ErrorKind::UnexpectedEof.into())
}
