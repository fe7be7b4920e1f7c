use super::buffer::{Buffer, Spares};
use super::{Limits, ServeError};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};
use std::io::{ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How many replies go by one call: far below what the kernel takes.
const MAX_PARTS: usize = 64;

/// A connection's replies, from whichever thread. Who has one sends it, unless another is at it: that one takes it along.
pub(super) struct Outbox<'a> {
    socket: BorrowedFd<'a>,
    limits: Limits,
    state: Mutex<State>,
    /// Something was sent, or nothing ever will be.
    sent: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<(Buffer, Cost)>,
    waiting_bytes: usize,
    is_sending: bool,
    in_flight: Cost,
    failure: Option<ServeError>,
    is_broken: bool,
    waiters: usize,
    spares: Spares,
}

/// What requests take that are handed over, until their replies are sent.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

impl<'a> Outbox<'a> {
    pub(super) fn new(socket: BorrowedFd<'a>, limits: &Limits) -> Outbox<'a> {
        Outbox { socket, limits: limits.clone(), state: Mutex::default(), sent: Condvar::new() }
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Buffer {
        self.state().spares.take()
    }

    /// A buffer that is not needed any more.
    pub(super) fn give_back(&self, buffer: Buffer) {
        self.state().spares.give(buffer);
    }

    /// Whether requests are handed over, or replies wait.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.in_flight.requests == 0 && !state.is_sending
    }

    /// Waits until one more request may be handed over. False: nobody would hear the answer.
    pub(super) fn admit(&self, bytes: usize) -> bool {
        let limits = &self.limits;
        let fits = |cost: &Cost| cost.requests < limits.in_flight && cost.bytes + bytes <= limits.in_flight_bytes;
        let mut state = self.state();
        while !state.is_broken && state.in_flight.requests > 0 && !fits(&state.in_flight) {
            state = self.wait(state);
        }
        state.in_flight.requests += 1;
        state.in_flight.bytes += bytes;
        !state.is_broken
    }

    /// Sends replies of requests that were not handed over, and leaves an empty buffer.
    pub(super) fn send(&self, replies: &mut Buffer) {
        if replies.len() == 0 {
            return;
        }
        let mut state = self.state();
        // Another is sending to a client that takes nothing: whoever brings more waits.
        while state.is_sending && !state.is_broken && state.waiting_bytes > self.limits.in_flight_bytes {
            state = self.wait(state);
        }
        let empty = state.spares.take();
        self.push(state, std::mem::replace(replies, empty), Cost::default());
    }

    /// Sends the reply of a request that was handed over.
    pub(super) fn finish(&self, reply: Buffer, cost: Cost) {
        self.push(self.state(), reply, cost);
    }

    /// Nothing more is sent or received, since that has happened.
    pub(super) fn break_off(&self, failure: Option<ServeError>) {
        let mut state = self.state();
        state.is_broken = true;
        if state.failure.is_none() {
            state.failure = failure;
        }
        // Fails when it is not connected any more. Who waits for it hears of it.
        let _ = shutdown(self.socket, Shutdown::Both);
        self.sent.notify_all();
    }

    pub(super) fn is_broken(&self) -> bool {
        self.state().is_broken
    }

    /// Why nothing more could be sent, if so.
    pub(super) fn take_failure(&self) -> Option<ServeError> {
        self.state().failure.take()
    }

    fn push<'s>(&'s self, mut state: MutexGuard<'s, State>, reply: Buffer, cost: Cost) {
        state.waiting_bytes += reply.len();
        state.waiting.push((reply, cost));
        if state.is_sending {
            return;
        }
        state.is_sending = true;
        while !state.waiting.is_empty() {
            let batch = std::mem::take(&mut state.waiting);
            state.waiting_bytes = 0;
            let is_broken = state.is_broken;
            drop(state);
            let result = if is_broken { Ok(()) } else { self.send_batch(&batch) };
            if let Err(failure) = result {
                self.break_off(Some(failure));
            }
            state = self.state();
            for (buffer, cost) in batch {
                state.in_flight.requests -= cost.requests;
                state.in_flight.bytes -= cost.bytes;
                state.spares.give(buffer);
            }
            if state.waiters > 0 {
                // Not otherwise: it is a system call.
                self.sent.notify_all();
            }
        }
        state.is_sending = false;
    }

    fn send_batch(&self, batch: &[(Buffer, Cost)]) -> Result<(), ServeError> {
        for part in batch.chunks(MAX_PARTS) {
            if let Some((head, data)) = part[0].0.long().filter(|_| part.len() == 1) {
                self.send_parts(&mut [IoSlice::new(head)], SendFlags::MORE)?;
                self.send_parts(&mut [IoSlice::new(data)], SendFlags::empty())?;
                continue;
            }
            let mut slices: Vec<IoSlice<'_>> = part.iter().map(|(buffer, _)| IoSlice::new(buffer.as_slice())).collect();
            self.send_parts(&mut slices, SendFlags::empty())?;
        }
        Ok(())
    }

    fn send_parts(&self, mut left: &mut [IoSlice<'_>], flags: SendFlags) -> Result<(), ServeError> {
        // Empty ones are left out: a reply that nobody is to hear is one.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match sendmsg(self.socket, left, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL | flags) {
                Ok(0) => return Err(ServeError::Connection(ErrorKind::WriteZero.into())),
                Ok(count) => IoSlice::advance_slices(&mut left, count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(ServeError::Stalled(self.limits.patience)),
                Err(errno) => return Err(ServeError::Connection(errno.into())),
            }
        }
        Ok(())
    }

    /// Until something was sent.
    fn wait<'s>(&self, mut state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        state.waiters += 1;
        state = self.sent.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.waiters -= 1;
        state
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a thread that panicked has left is still counted rightly: it changes these by single steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
