//! A connection: requests in bulk off the socket, done at once where that is quick, and by a few threads where it is not.

mod answer;
mod awake;
mod buffer;
mod intake;
mod outbox;
#[cfg(test)]
mod tests;
mod workers;

use super::request::{Command, Request};
use super::{Export, Handshake, HandshakeError, MAX_REQUEST_BYTES, Progress, Session};
use crate::disk::Backend;
use answer::Desk;
use buffer::Buffer;
use intake::Intake;
use outbox::{Cost, Outbox};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SendFlags, send};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::Scope;
use std::time::{Duration, Instant};
use workers::{Job, Pace, Workers};

/// Replies of so many bytes are sent, even if more requests are here already: the client has something to do meanwhile.
const BATCH_BYTES: usize = 64 << 10;

/// So much data are moved by another thread if the next request is here: to copy them takes longer than to wake it.
const LONG_BYTES: u32 = 256 << 10;

/// What one client may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// So many requests are worked on at once; those behind them wait in the socket.
    pub in_flight: usize,
    /// So many bytes of data belong to them; one request that is longer is worked on alone.
    pub in_flight_bytes: usize,
    /// So many threads wait for a slow disk.
    pub threads: usize,
    /// A client that negotiates for longer, or does not take a byte of its replies for so long, is left.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { in_flight: 1024, in_flight_bytes: 64 << 20, threads: 16, patience: Duration::from_secs(60) }
    }
}

/// Why a connection ended otherwise than by the client's word.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The connection broke.
    #[error("the connection: {0}")]
    Connection(#[from] io::Error),
    /// The negotiation failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Something else than a request came.
    #[error("the client sends what is no request")]
    NoRequest,
    /// The client does not negotiate, or does not take what it has asked for.
    #[error("the client has done nothing for {} s, though it is its turn", .0.as_secs_f32())]
    Stalled(Duration),
}

/// Serves a disk over one connection (a blocking stream socket), until the client goes. Requests that are in flight together are done in
/// any order, and answered as they are done.
///
/// # Errors
/// [`ServeError`]; what was answered before is done.
///
/// # Panics
/// If the disk does; the connection is closed before.
pub fn serve(connection: impl Into<OwnedFd>, export: &Export, disk: &dyn Backend) -> Result<(), ServeError> {
    serve_within(connection, export, disk, &Limits::default())
}

/// [`serve`] with other limits.
///
/// # Errors
/// As for [`serve`].
///
/// # Panics
/// As for [`serve`].
pub fn serve_within(
    connection: impl Into<OwnedFd>,
    export: &Export,
    disk: &dyn Backend,
    limits: &Limits,
) -> Result<(), ServeError> {
    serve_one_of(connection, &[(export, disk)], limits)
}

/// [`serve_within`], the one of several disks that the client chooses; the first if it names none.
///
/// # Errors
/// As for [`serve`].
///
/// # Panics
/// As for [`serve`].
pub fn serve_one_of(
    connection: impl Into<OwnedFd>,
    disks: &[(&Export, &dyn Backend)],
    limits: &Limits,
) -> Result<(), ServeError> {
    let socket = connection.into();
    let socket = socket.as_fd();
    for side in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(socket, side, Some(limits.patience)).map_err(io::Error::from)?;
    }
    let exports = disks.iter().map(|(export, _)| (*export).clone()).collect();
    let Some((session, early)) = negotiate(socket, exports, limits.patience)? else { return Ok(()) };
    let (export, disk) = disks[session.export];
    // From here on a client may be silent for as long as it likes.
    set_socket_timeout(socket, Timeout::Recv, None).map_err(io::Error::from)?;

    let (desk, outbox, pace) = (Desk { export, session, disk }, Outbox::new(socket, limits), Pace::new());
    let workers = Workers::new(&desk, &outbox, &pace, limits.threads.max(1));
    let result = std::thread::scope(|scope| {
        // Not left by a panic of the disk without the threads being told.
        let closing = Closing { workers: &workers, outbox: &outbox };
        let mut counter = Counter { intake: Intake::new(socket, &early), desk: &desk, outbox: &outbox, pace: &pace };
        let result = counter.serve(&workers, scope);
        if result.is_err() {
            outbox.break_off(None);
        }
        drop(closing);
        result
    });
    // That a reply could not be sent is why no request could be received.
    outbox.take_failure().map_or(result, Err)
}

/// Where requests come in.
struct Counter<'a> {
    intake: Intake<'a>,
    desk: &'a Desk<'a>,
    outbox: &'a Outbox<'a>,
    pace: &'a Pace,
}

impl Counter<'_> {
    fn serve<'s>(&mut self, workers: &'s Workers<'_>, scope: &'s Scope<'s, '_>) -> Result<(), ServeError> {
        let mut replies = Buffer::default();
        loop {
            if !self.intake.has_request() {
                // Nobody waits for an answer while we wait for a request.
                self.outbox.send(&mut replies);
                if !self.intake.fill()? {
                    return Ok(());
                }
                continue;
            }
            let request = self.intake.request()?;
            if request.command == Command::Disconnect {
                self.outbox.send(&mut replies);
                return Ok(());
            }
            if request.data_bytes() > MAX_REQUEST_BYTES {
                // It would have to be read to its end before the next request is found.
                return Err(ServeError::NoRequest);
            }
            if !self.intake.has_data(request.data_bytes() as usize) {
                self.outbox.send(&mut replies);
            }
            self.take(request, &mut replies, workers, scope)?;
            if replies.len() >= BATCH_BYTES {
                self.outbox.send(&mut replies);
            }
        }
    }

    fn take<'s>(
        &mut self,
        request: Request,
        replies: &mut Buffer,
        workers: &'s Workers<'_>,
        scope: &'s Scope<'s, '_>,
    ) -> Result<(), ServeError> {
        let data_bytes = request.data_bytes() as usize;
        if Intake::is_large(data_bytes) {
            let mut payload = self.outbox.buffer();
            self.intake.take_data(data_bytes, &mut payload)?;
            if self.is_done_here(&request) {
                self.answer(&request, payload.as_slice(), replies);
                self.outbox.give_back(payload);
                return Ok(());
            }
            return self.hand_over(Job { request, payload, cost: Cost::default() }, replies, workers, scope);
        }
        // Whether it is alone is seen when its data are here, too.
        self.intake.await_data(data_bytes)?;
        if self.is_done_here(&request) {
            self.answer(&request, self.intake.last_data(data_bytes), replies);
            return Ok(());
        }
        let mut payload = self.outbox.buffer();
        payload.append(self.intake.last_data(data_bytes));
        self.hand_over(Job { request, payload, cost: Cost::default() }, replies, workers, scope)
    }

    /// Whether it is done before the next request is looked at: a disk that is quick costs less than another thread, and where nothing
    /// else is there to be done nobody waits for it but who asked. (A flush may take so long that something comes meanwhile.)
    fn is_done_here(&self, request: &Request) -> bool {
        let is_alone = || Pace::is_data(request) && !self.intake.has_request() && self.outbox.is_idle();
        let is_long = Pace::is_data(request) && request.length >= LONG_BYTES;
        let holds_up = is_long && self.intake.has_request();
        (self.pace.is_quick(request) && !holds_up) || is_alone()
    }

    fn answer(&self, request: &Request, payload: &[u8], replies: &mut Buffer) {
        let begin = Instant::now();
        self.desk.answer(request, payload, replies);
        self.pace.note(request, begin.elapsed());
    }

    fn hand_over<'s>(
        &self,
        mut job: Job,
        replies: &mut Buffer,
        workers: &'s Workers<'_>,
        scope: &'s Scope<'s, '_>,
    ) -> Result<(), ServeError> {
        let reads = if job.request.command == Command::Read { job.request.length.min(MAX_REQUEST_BYTES) } else { 0 };
        job.cost = Cost { requests: 1, bytes: job.payload.len() + reads as usize };
        // The limit may have to be waited for.
        self.outbox.send(replies);
        if !self.outbox.admit(job.cost.bytes) {
            // Why, the outbox knows.
            return Err(ServeError::Connection(ErrorKind::BrokenPipe.into()));
        }
        workers.hand_over(job, scope);
        Ok(())
    }
}

/// Lets the threads go.
struct Closing<'a> {
    workers: &'a Workers<'a>,
    outbox: &'a Outbox<'a>,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outbox.break_off(None);
        }
        self.workers.close();
    }
}

/// Negotiates. Returns what was agreed upon and what has come behind it, or nothing if the client has gone.
fn negotiate(
    socket: BorrowedFd<'_>,
    exports: Vec<Export>,
    patience: Duration,
) -> Result<Option<(Session, Vec<u8>)>, ServeError> {
    let begin = Instant::now();
    let mut handshake = Handshake::new(exports);
    let mut bytes = [0; 4096];
    loop {
        send_all(socket, &handshake.take_output(), patience)?;
        let count = match rustix::io::read(socket, &mut bytes) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Err(ServeError::Stalled(patience)),
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        if begin.elapsed() > patience {
            return Err(ServeError::Stalled(patience));
        }
        let progress = handshake.feed(&bytes[..count]);
        match progress {
            Progress::More => {}
            Progress::Chosen(session) => {
                send_all(socket, &handshake.take_output(), patience)?;
                return Ok(Some((session, handshake.into_rest())));
            }
            Progress::Aborted => {
                send_all(socket, &handshake.take_output(), patience)?;
                return Ok(None);
            }
            Progress::Broken(error) => return Err(error.into()),
        }
    }
}

fn send_all(socket: BorrowedFd<'_>, mut bytes: &[u8], patience: Duration) -> Result<(), ServeError> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(ServeError::Stalled(patience)),
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Ok(())
}
