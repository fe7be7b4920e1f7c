use super::ServeError;
use super::awake::{AWAKE, Awake};
use super::buffer::Buffer;
use crate::disk::nbd::request::Request;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// What is taken from the socket at once: many small requests, or small writes with their data.
const AHEAD: usize = 256 << 10;
/// The same while data come in large pieces: what is read of the next one's here has to be copied.
const AHEAD_OF_DATA: usize = 4 << 10;
/// Data longer than this are received where they stay.
const SMALL_DATA: usize = 64 << 10;

/// To give the processor away and to look into the socket takes less than that, unless somebody else takes the processor.
const TURN: Duration = Duration::from_micros(4);

/// Requests as they come out of a socket.
pub(super) struct Intake<'a> {
    socket: Socket<'a>,
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
        let socket = Socket { socket, requests: Awake::default(), data: Awake::default() };
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
        let count = self.socket.receive(Next::Request, &mut [IoSliceMut::new(&mut self.buffer[self.end..limit])])?;
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
            let received = self.socket.receive(Next::Data, &mut [IoSliceMut::new(&mut self.buffer[self.end..])])?;
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
            // Slept for: a look would find but a part of so much.
            let received = wait(self.socket.socket, &mut [IoSliceMut::new(ours), IoSliceMut::new(next)])?;
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

/// What is looked for: a client that has begun to send data goes on, whenever it will ask for something else.
#[derive(Clone, Copy)]
enum Next {
    Request,
    Data,
}

/// A socket that is looked into for a while before it is slept at.
struct Socket<'a> {
    socket: BorrowedFd<'a>,
    requests: Awake,
    data: Awake,
}

impl Socket<'_> {
    fn receive(&mut self, next: Next, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let awake = match next {
            Next::Request => &mut self.requests,
            Next::Data => &mut self.data,
        };
        if awake.looks() {
            if let Some(count) = look_for_a_while(self.socket, awake, into)? {
                return Ok(count);
            }
        }
        wait(self.socket, into)
    }
}

/// What is there, or comes before it is time to sleep.
fn look_for_a_while(
    socket: BorrowedFd<'_>,
    awake: &mut Awake,
    into: &mut [IoSliceMut<'_>],
) -> io::Result<Option<usize>> {
    if let Some(count) = look(socket, into)? {
        return Ok(Some(count));
    }
    let (begin, mut took) = (Instant::now(), Duration::ZERO);
    loop {
        std::thread::yield_now();
        let (found, turn_began) = (look(socket, into)?, took);
        took = begin.elapsed();
        // Where somebody else wants the processor it is better slept.
        if found.is_some() || took > AWAKE || took - turn_began > TURN {
            awake.looked(found.is_some() && took <= AWAKE);
            return Ok(found);
        }
    }
}

/// What is there.
fn look(socket: BorrowedFd<'_>, into: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
    match receive(socket, into, RecvFlags::DONTWAIT) {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// What comes, however long that takes.
fn wait(socket: BorrowedFd<'_>, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    loop {
        match receive(socket, into, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

fn receive(socket: BorrowedFd<'_>, into: &mut [IoSliceMut<'_>], flags: RecvFlags) -> Result<usize, Errno> {
    Ok(recvmsg(socket, into, &mut RecvAncillaryBuffer::default(), flags)?.bytes)
}

fn gone() -> ServeError {
    ServeError::Connection(ErrorKind::UnexpectedEof.into())
}
