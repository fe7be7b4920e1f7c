use super::connection::{Connection, locked};
use super::kept::{Change, Kept};
use super::location::Location;
use super::replies::{Answer, Answered, Replies};
use super::{ClientConfig, ClientError, Offer};
use crate::disk::DiskError;
use crate::disk::nbd::request::{Command, Request};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long to wait before a connection that could not be made is tried again: twice as long each time, from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Requests of several threads over one connection, and over the next when it breaks.
#[derive(Debug)]
pub(super) struct Line {
    location: Location,
    config: ClientConfig,
    offer: Offer,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    link: Link,
    /// By cookie, and so in the order in which they were asked.
    pending: BTreeMap<u64, Pending>,
    next_cookie: u64,
    connections: u64,
    kept: Kept,
    /// A server that cannot flush promises nothing, and nothing is kept for it.
    keeps: bool,
    /// One of the threads that wait receives for all, or connects.
    is_driven: bool,
}

#[derive(Debug)]
enum Link {
    Up(Arc<Connection>, Replies),
    Down { pause: Duration, not_before: Instant },
    Failed(Arc<ClientError>),
}

/// A request that somebody waits for.
#[derive(Debug)]
struct Pending {
    change: Change,
    thread: Thread,
    /// Over which connection it was sent last.
    sent_over: Option<u64>,
    /// Its thread may be held up by the socket.
    is_sending: bool,
    /// What a flush covers.
    covers: u64,
    answer: Option<Result<Answered, DiskError>>,
}

/// What a thread that waits for its answer is to do.
enum Step {
    Done(Result<Answered, DiskError>),
    Send(Arc<Connection>, Change),
    Receive(Arc<Connection>),
    Connect,
    Wait,
}

impl Line {
    pub(super) fn connect(location: &Location, config: ClientConfig) -> Result<(Line, Offer), ClientError> {
        let deadline = config.deadline();
        let (connection, replies) = Connection::open(location, &config, 1, deadline)?;
        let offer = connection.offer.clone();
        let state = State {
            link: Link::Up(Arc::new(connection), replies),
            pending: BTreeMap::new(),
            next_cookie: 1,
            connections: 1,
            kept: Kept::default(),
            keeps: offer.can_flush(),
            is_driven: false,
        };
        let line = Line { location: location.clone(), config, offer: offer.clone(), state: Mutex::new(state) };
        Ok((line, offer))
    }

    pub(super) fn failure(&self) -> Option<Arc<ClientError>> {
        match &self.state().link {
            Link::Failed(error) => Some(error.clone()),
            Link::Up(..) | Link::Down { .. } => None,
        }
    }

    /// Flushes if much is kept.
    pub(super) fn make_room(&self) -> Result<(), DiskError> {
        if self.state().kept.bytes() < self.config.kept_bytes {
            return Ok(());
        }
        self.run(Request::new(Command::Flush, 0, 0, 0), None).map(|_| ())
    }

    /// Has a request done, under a cookie of its own.
    pub(super) fn run(&self, request: Request, data: Option<Arc<[u8]>>) -> Result<Answered, DiskError> {
        let deadline = self.config.deadline();
        let cookie = self.state().ask(request, data);
        loop {
            let step = self.state().step(cookie, deadline);
            match step {
                Step::Done(result) => return result,
                Step::Send(connection, Change { request, data }) => {
                    if let Err(error) = connection.send(&request, data.as_deref().unwrap_or_default(), deadline) {
                        self.state().lose(connection.number, error);
                    }
                }
                Step::Receive(connection) => self.receive(&connection, cookie, deadline),
                Step::Connect => self.reconnect(deadline),
                Step::Wait => thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
            }
        }
    }

    /// Receives for all, until that one is answered or nothing can be received.
    fn receive(&self, connection: &Connection, cookie: u64, deadline: Instant) {
        let driving = Driving(self);
        loop {
            let mut is_over = false;
            let received = connection.receive(|bytes| is_over = self.state().take(connection.number, bytes, cookie));
            if let Err(error) = received {
                self.state().lose(connection.number, error);
                is_over = true;
            }
            if is_over || Instant::now() >= deadline {
                break;
            }
        }
        drop(driving);
    }

    /// Tries once to connect, when it is time.
    fn reconnect(&self, deadline: Instant) {
        let _driving = Driving(self);
        loop {
            let not_before = match &self.state().link {
                Link::Down { not_before, .. } => *not_before,
                Link::Up(..) | Link::Failed(_) => return,
            };
            let now = Instant::now();
            if now >= deadline {
                return;
            }
            if now >= not_before {
                break;
            }
            thread::park_timeout(not_before.min(deadline) - now);
        }
        let (number, changes) = {
            let mut state = self.state();
            state.connections += 1;
            (state.connections, state.kept_again())
        };
        let result = self.open_again(number, &changes, deadline);
        let mut state = self.state();
        match result {
            Ok((connection, replies)) => {
                tracing::info!("connected to {} again; {} changes were written again", self.location, changes.len());
                state.link = Link::Up(Arc::new(connection), replies);
            }
            Err(error) if error.is_final() => state.fail(error),
            Err(error) => state.pause(&error),
        }
        // Each sends its own again.
        state.wake_all();
    }

    fn open_again(
        &self,
        number: u64,
        changes: &[Change],
        deadline: Instant,
    ) -> Result<(Connection, Replies), ClientError> {
        let (connection, mut replies) = Connection::open(&self.location, &self.config, number, deadline)?;
        let (was, is) = (&self.offer, &connection.offer);
        if !is.can_stand_in_for(was) {
            return Err(ClientError::Changed { was: was.export.clone().into(), is: is.export.clone().into() });
        }
        connection.rewrite(&mut replies, changes, deadline)?;
        Ok((connection, replies))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let state = self.state();
        if let Link::Up(connection, _) = &state.link {
            // Politeness: nobody waits for anything, so that it does not matter whether it arrives.
            let _ = connection.send(&Request::new(Command::Disconnect, 0, 0, 0), &[], Instant::now());
            connection.close();
        }
    }
}

/// Held by the thread that receives or connects; another takes over when it has what it waited for.
struct Driving<'a>(&'a Line);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_driven = false;
        state.wake_one();
    }
}

impl State {
    fn ask(&mut self, request: Request, data: Option<Arc<[u8]>>) -> u64 {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let change = Change { request: request.under(cookie), data };
        let thread = thread::current();
        let pending = Pending { change, thread, sent_over: None, is_sending: false, covers: 0, answer: None };
        self.pending.insert(cookie, pending);
        cookie
    }

    fn step(&mut self, cookie: u64, deadline: Instant) -> Step {
        let end = self.kept.end();
        let Some(pending) = self.pending.get_mut(&cookie) else { return Step::Done(Err(DiskError::Io)) };
        pending.is_sending = false;
        if let Some(answer) = pending.answer.take() {
            self.pending.remove(&cookie);
            return Step::Done(answer);
        }
        let is_late = Instant::now() >= deadline;
        let result = match &mut self.link {
            Link::Failed(_) => Step::Done(Err(DiskError::Io)),
            Link::Up(..) | Link::Down { .. } if is_late => Step::Done(Err(DiskError::Io)),
            Link::Up(connection, replies) if pending.sent_over != Some(connection.number) => {
                pending.sent_over = Some(connection.number);
                pending.is_sending = true;
                pending.covers = end;
                replies.ask(&pending.change.request);
                return Step::Send(connection.clone(), pending.change.clone());
            }
            Link::Up(connection, _) if !self.is_driven => Step::Receive(connection.clone()),
            Link::Down { .. } if !self.is_driven => Step::Connect,
            Link::Up(..) | Link::Down { .. } => Step::Wait,
        };
        match result {
            Step::Done(_) => self.give_up(cookie),
            Step::Receive(_) | Step::Connect => self.is_driven = true,
            Step::Send(..) | Step::Wait => {}
        }
        result
    }

    /// Its time is over. A server that still has it may not answer over the same connection what nobody waits for.
    fn give_up(&mut self, cookie: u64) {
        let Some(pending) = self.pending.remove(&cookie) else { return };
        if let (Link::Up(connection, _), Some(number)) = (&self.link, pending.sent_over) {
            if connection.number == number {
                self.lose(number, io::Error::new(ErrorKind::TimedOut, "no answer for too long"));
            }
        }
        // It may have been its turn to receive.
        if !self.is_driven {
            self.wake_one();
        }
    }

    /// Takes what was received. Returns whether that one is answered, or the connection is not the one any more.
    fn take(&mut self, number: u64, bytes: &[u8], cookie: u64) -> bool {
        let mut answers = Vec::new();
        match &mut self.link {
            Link::Up(connection, replies) if connection.number == number => {
                let fed = replies.feed(bytes);
                answers.extend(std::iter::from_fn(|| replies.poll()));
                if let Err(lie) = fed {
                    self.fail(lie.into());
                }
            }
            Link::Up(..) | Link::Down { .. } | Link::Failed(_) => return true,
        }
        let mut is_answered = false;
        for answer in answers {
            is_answered |= answer.cookie == cookie;
            self.answered(answer, number, cookie);
        }
        is_answered || !matches!(self.link, Link::Up(..))
    }

    fn answered(&mut self, answer: Answer, number: u64, driver: u64) {
        let Some(pending) = self.pending.get_mut(&answer.cookie) else { return };
        let (change, covers) = (pending.change.clone(), pending.covers);
        let is_ok = answer.result.is_ok();
        pending.answer = Some(answer.result);
        if answer.cookie != driver {
            pending.thread.unpark();
        }
        match change.request.command {
            Command::Write | Command::WriteZeroes | Command::Trim if is_ok && self.keeps => self.kept.push(change),
            Command::Flush if is_ok => self.kept.forget_before(covers),
            Command::Flush => self.lose(number, io::Error::other("a flush has failed")),
            _ => {}
        }
    }

    /// What is to be written again, under new cookies.
    fn kept_again(&mut self) -> Vec<Change> {
        let mut changes = self.kept.changes();
        for change in &mut changes {
            change.request.cookie = self.next_cookie;
            self.next_cookie += 1;
        }
        changes
    }

    /// That connection is no good any more.
    fn lose(&mut self, number: u64, error: io::Error) {
        let Link::Up(connection, _) = &self.link else { return };
        if connection.number == number {
            connection.close();
            tracing::warn!("connection lost: {error}");
            self.link = Link::Down { pause: FIRST_PAUSE, not_before: Instant::now() };
            self.wake_all();
        }
    }

    fn pause(&mut self, error: &ClientError) {
        if let Link::Down { pause, not_before } = &mut self.link {
            tracing::debug!("not connected again yet: {error}");
            *not_before = Instant::now() + *pause;
            *pause = LAST_PAUSE.min(*pause * 2);
        }
    }

    /// There will be no other connection.
    fn fail(&mut self, error: ClientError) {
        if let Link::Up(connection, _) = &self.link {
            connection.close();
        }
        tracing::error!("{error}; nothing more is asked of this server");
        self.link = Link::Failed(Arc::new(error));
        self.wake_all();
    }

    fn wake_all(&self) {
        self.pending.values().for_each(|pending| pending.thread.unpark());
    }

    /// Wakes somebody who can receive. One that sends will by and by look for itself; until then no answer is due to it.
    fn wake_one(&self) {
        if let Some(pending) = self.pending.values().find(|pending| !pending.is_sending && pending.answer.is_none()) {
            pending.thread.unpark();
        }
    }
}
