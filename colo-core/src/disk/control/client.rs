use super::ControlError;
use super::line::{Greeting, Line, next};
use super::packet;
use super::wire::{Answer, MAX_PACKET_BYTES, Request, Role, Said};
use crate::disk::{DiskEvent, OnDiskEvent};
use rustix::event::PollFlags;
use rustix::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connection to a disk server, and the thread that hears it.
pub(super) struct Client {
    shared: Arc<Shared>,
    greeting: Greeting,
    within: Duration,
    /// The number of the last request. Held while one is under way.
    asking: Mutex<u64>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    socket: OwnedFd,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The number of the last request that was sent.
    sent: u64,
    /// The last answer, and to what.
    answer: Option<(u64, Answer)>,
    /// Why there will be no more.
    ended: Option<String>,
    on_event: Option<Arc<OnDiskEvent>>,
}

impl Client {
    /// Connects to a server of disks for that part, which has so much time for each of its answers.
    pub(super) fn connect(path: &Path, wanted: Role, within: Duration) -> Result<Client, ControlError> {
        let (line, greeting) = Line::connect(path, within)?;
        if greeting.role != wanted {
            return Err(ControlError::Role { path: path.to_owned(), has: greeting.role, wanted });
        }
        line.ask(1, &Request::Drive)?;
        match line.hear(Some(within))? {
            Said::Answer(1, Answer::Done) => {}
            Said::Answer(1, Answer::No) => return Err(ControlError::InUse(path.to_owned())),
            _ => return Err(ControlError::Unexpected("a message before the first")),
        }
        let state = State { sent: 1, answer: Some((1, Answer::Done)), ..State::default() };
        let socket = line.into_socket();
        let shared = Arc::new(Shared { socket, state: Mutex::new(state), changed: Condvar::new() });
        let reader = std::thread::Builder::new().name("disk control".into()).spawn({
            let shared = shared.clone();
            move || {
                let error = shared.hear();
                shared.end(&error);
            }
        })?;
        Ok(Client { shared, greeting, within, asking: Mutex::new(1), reader: Some(reader) })
    }

    pub(super) fn sizes(&self) -> &[u64] {
        &self.greeting.sizes
    }

    pub(super) fn is_shared(&self) -> bool {
        self.greeting.is_shared
    }

    /// Who is told of events from here on.
    pub(super) fn set_on_event(&self, on_event: Option<OnDiskEvent>) {
        self.shared.lock().on_event = on_event.map(Arc::new);
    }

    /// Asks, and waits for the answer. One that does not come in time ends the connection.
    pub(super) fn ask(&self, request: &Request, with: Option<BorrowedFd<'_>>) -> Result<Answer, ControlError> {
        self.ask_within(self.within, request, with)
    }

    /// The same, with a time limit of its own.
    pub(super) fn ask_within(
        &self,
        within: Duration,
        request: &Request,
        with: Option<BorrowedFd<'_>>,
    ) -> Result<Answer, ControlError> {
        let mut number = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(&mut number, request, with)?;
        let deadline = Instant::now() + within;
        let mut state = self.shared.lock();
        loop {
            match state.answer {
                Some((answered, answer)) if answered == *number => return Ok(answer),
                _ if state.ended.is_some() => return Err(ControlError::Closed),
                _ => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                let error = ControlError::Silent(within);
                self.shared.end(&error);
                return Err(error);
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn expect_read(&self, disk: u8, offset: u64) -> Result<(), ControlError> {
        self.ask(&Request::ExpectRead { disk, offset }, None).map(drop)
    }

    pub(super) fn was_read(&self) -> Result<bool, ControlError> {
        Ok(self.ask(&Request::WasRead, None)? == Answer::Done)
    }

    /// Says what has no answer that matters.
    pub(super) fn tell(&self, request: &Request) -> Result<(), ControlError> {
        let mut number = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        self.send(&mut number, request, None)
    }

    fn send(&self, number: &mut u64, request: &Request, with: Option<BorrowedFd<'_>>) -> Result<(), ControlError> {
        *number += 1;
        {
            let mut state = self.shared.lock();
            if state.ended.is_some() {
                return Err(ControlError::Closed);
            }
            state.sent = *number;
        }
        let sent = packet::send(&self.shared.socket, &request.encode(*number), with, self.within);
        sent.inspect_err(|error| self.shared.end(error))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.set_on_event(None);
        self.shared.hang_up();
        if let Some(reader) = self.reader.take() {
            // One that panicked has said so.
            let _ = reader.join();
        }
    }
}

impl Shared {
    /// Until the connection ends. Returns why.
    fn hear(&self) -> ControlError {
        let mut buffer = [0; MAX_PACKET_BYTES];
        loop {
            let heard = match next(&self.socket, &mut buffer) {
                Ok(Some(said)) => self.take(said),
                Ok(None) => packet::wait(&self.socket, PollFlags::IN, None).map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = heard {
                return error;
            }
        }
    }

    fn take(&self, said: Said) -> Result<(), ControlError> {
        let mut state = self.lock();
        match said {
            Said::Answer(number, answer) => {
                let last = state.answer.map_or(0, |(number, _)| number);
                if number != last + 1 || number > state.sent {
                    return Err(ControlError::Unexpected("an answer that nobody asked for"));
                }
                state.answer = Some((number, answer));
                self.changed.notify_all();
            }
            Said::Event(event) => {
                let is_last = matches!(event, DiskEvent::Lost(_));
                let on_event = if is_last { state.on_event.take() } else { state.on_event.clone() };
                drop(state);
                if let Some(on_event) = on_event {
                    on_event(event);
                }
            }
            _ => return Err(ControlError::Unexpected("a message to somebody else")),
        }
        Ok(())
    }

    /// There is no connection any more; whoever hears events is told so, if that has not been said.
    fn end(&self, why: &ControlError) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = Some(format!("the disk server: {why}"));
        }
        let (on_event, why) = (state.on_event.take(), state.ended.clone().unwrap_or_default());
        drop(state);
        self.changed.notify_all();
        self.hang_up();
        if let Some(on_event) = on_event {
            on_event(DiskEvent::Lost(why));
        }
    }

    fn hang_up(&self) {
        // Fails only when it has ended.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
