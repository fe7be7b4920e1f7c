//! This side of the way into a dom0: commands, and what comes of them.

use crate::logs::Logs;
use anyhow::{Context, Result, anyhow, bail};
use colo_testbed_inside::protocol::{Outcome, Report, Request, Stream, read_frame};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The agent ends a command that takes too long. Only if that is not heard of for so much longer, the host itself hangs.
const GRACE: Duration = Duration::from_secs(15);

/// A connection to an agent.
pub(crate) struct Control {
    stream: UnixStream,
    shared: Arc<Shared>,
    next: AtomicU32,
    ready: Receiver<Duration>,
}

struct Shared {
    /// Who waits for which command. `None` when the connection has ended.
    waiting: Mutex<Option<HashMap<u32, Sender<Event>>>>,
    logs: Arc<Logs>,
}

enum Event {
    Started(u32),
    Output(Stream, Vec<u8>),
    Exit(Outcome, Duration),
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Done {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What it wrote to its standard output.
    pub(crate) stdout: String,
    /// What it wrote to its standard error.
    pub(crate) stderr: String,
    /// From start to end, by dom0's monotonic clock.
    pub(crate) elapsed: Duration,
}

impl Done {
    /// Whether it ended with code 0.
    pub(crate) fn is_good(&self) -> bool {
        self.outcome == Outcome::Code(0)
    }
}

/// A command that runs.
pub(crate) struct Running<'a> {
    control: &'a Control,
    id: u32,
    command: String,
    limit: Duration,
    deadline: Instant,
    events: Receiver<Event>,
    pid: u32,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How much of the standard output has been asked for as lines.
    taken: usize,
    ended: Option<(Outcome, Duration)>,
}

impl Control {
    /// Begins to listen to an agent.
    pub(crate) fn new(stream: UnixStream, logs: Arc<Logs>) -> Result<Control> {
        let shared = Arc::new(Shared { waiting: Mutex::new(Some(HashMap::new())), logs });
        let (sender, ready) = unbounded();
        let (mut from, listener) = (BufReader::new(stream.try_clone()?), shared.clone());
        std::thread::spawn(move || {
            if let Err(error) = listener.listen(&mut from, &sender) {
                eprintln!("testbed: {error:#}");
            }
            listener.waiting.lock().expect("no thread panics with the lock").take();
            listener.logs.close();
        });
        Ok(Control { stream, shared, next: AtomicU32::new(1), ready })
    }

    /// Waits until the host is up, and says how long that took since dom0's kernel was started.
    pub(crate) fn wait_ready(&self, limit: Duration) -> Result<Duration> {
        self.ready.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("not up after {} s", limit.as_secs()),
            RecvTimeoutError::Disconnected => anyhow!("the host is gone"),
        })
    }

    /// Starts a command, which may run for so long.
    pub(crate) fn start(&self, command: &str, limit: Duration) -> Result<Running<'_>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = unbounded();
        match &mut *self.shared.waiting.lock().expect("no thread panics with the lock") {
            Some(waiting) => waiting.insert(id, sender),
            None => bail!("the host is gone"),
        };
        self.ask(&Request::Run { id, timeout_ms: limit.as_millis() as u64, command: command.to_owned() })?;
        let deadline = Instant::now() + limit + GRACE;
        let mut running = Running {
            control: self,
            id,
            command: command.to_owned(),
            limit,
            deadline,
            events,
            pid: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
            taken: 0,
            ended: None,
        };
        match running.next()? {
            Event::Started(pid) => running.pid = pid,
            Event::Exit(outcome, _) => bail!("{command}: {outcome:?}"),
            Event::Output(..) => bail!("{command}: output before its start"),
        }
        Ok(running)
    }

    /// Asks the host to switch itself off.
    pub(crate) fn stop(&self) -> Result<()> {
        self.ask(&Request::Stop)
    }

    fn ask(&self, request: &Request) -> Result<()> {
        (&self.stream).write_all(&request.encode()?).context("the host is gone")
    }
}

impl Running<'_> {
    /// Its process, and its process group, in dom0.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to its process group.
    pub(crate) fn signal(&self, signal: u8) -> Result<()> {
        self.control.ask(&Request::Signal { id: self.id, signal })
    }

    /// Waits until it has written this, to its standard output or error.
    pub(crate) fn wait_said(&mut self, text: &str) -> Result<()> {
        while ![&self.stdout, &self.stderr].into_iter().any(|said| String::from_utf8_lossy(said).contains(text)) {
            if let Some((outcome, _)) = &self.ended {
                bail!("{}: {outcome:?} before it said {text:?}", self.command);
            }
            self.step()?;
        }
        Ok(())
    }

    /// Waits for its end, however that is.
    pub(crate) fn wait(mut self) -> Result<Done> {
        loop {
            let Some((outcome, elapsed)) = self.ended.take() else {
                self.step()?;
                continue;
            };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let done = Done { outcome, stdout: text(&self.stdout), stderr: text(&self.stderr), elapsed };
            if done.outcome == Outcome::TimedOut {
                bail!("{} was killed after {} s: {}", self.command, self.limit.as_secs(), done.stderr);
            }
            return Ok(done);
        }
    }

    /// The next line that it writes to its standard output. `None` if there is none until this moment, or none any more.
    pub(crate) fn next_line(&mut self, until: Instant) -> Result<Option<String>> {
        loop {
            let rest = &self.stdout[self.taken..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&rest[..end]).into_owned();
                self.taken += end + 1;
                return Ok(Some(line));
            }
            if self.ended.is_some() {
                return Ok(None);
            }
            match self.events.recv_deadline(until.min(self.deadline)) {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) if until <= self.deadline => return Ok(None),
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    /// How it has ended, if that is known already.
    pub(crate) fn ended(&self) -> Option<&Outcome> {
        self.ended.as_ref().map(|(outcome, _)| outcome)
    }

    /// Takes the next thing that happens: its end, perhaps.
    fn step(&mut self) -> Result<()> {
        let event = self.next()?;
        self.take(event);
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started(_) => (),
            Event::Output(Stream::Stdout, bytes) => self.stdout.extend_from_slice(&bytes),
            Event::Output(Stream::Stderr, bytes) => self.stderr.extend_from_slice(&bytes),
            Event::Exit(outcome, elapsed) => self.ended = Some((outcome, elapsed)),
        }
    }

    fn next(&self) -> Result<Event> {
        self.events.recv_deadline(self.deadline).map_err(|error| self.explain(error))
    }

    fn explain(&self, error: RecvTimeoutError) -> anyhow::Error {
        match error {
            RecvTimeoutError::Timeout => anyhow!("{}: nothing is heard of the host any more", self.command),
            RecvTimeoutError::Disconnected => anyhow!("{}: the host is gone", self.command),
        }
    }
}

impl Shared {
    fn listen(&self, from: &mut BufReader<UnixStream>, ready: &Sender<Duration>) -> Result<()> {
        while let Some(frame) = read_frame(from)? {
            match Report::decode(&frame)? {
                Report::Ready { uptime_ms } => {
                    let _ = ready.send(Duration::from_millis(uptime_ms));
                }
                Report::Started { id, pid } => self.tell(id, Event::Started(pid)),
                Report::Output { id, stream, bytes } => self.tell(id, Event::Output(stream, bytes)),
                Report::Exit { id, outcome, elapsed_us } => {
                    self.tell(id, Event::Exit(outcome, Duration::from_micros(elapsed_us)));
                    if let Some(waiting) = &mut *self.waiting.lock().expect("no thread panics with the lock") {
                        waiting.remove(&id);
                    }
                }
                Report::Log { name, bytes } => self.logs.add(&name, &bytes)?,
            }
        }
        Ok(())
    }

    fn tell(&self, id: u32, event: Event) {
        if let Some(waiting) = &*self.waiting.lock().expect("no thread panics with the lock") {
            // Nobody may wait for it any more.
            let _ = waiting.get(&id).map(|sender| sender.send(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// An agent that has one answer.
    fn agent(answer: impl FnOnce(&mut UnixStream) + Send + 'static) -> (Control, std::path::PathBuf) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("colo-testbed-control-{}-{number}", std::process::id()));
        let (here, mut there) = UnixStream::pair().unwrap();
        std::thread::spawn(move || answer(&mut there));
        (Control::new(here, Arc::new(Logs::new(&folder).unwrap())).unwrap(), folder)
    }

    fn say(to: &mut UnixStream, report: &Report) {
        to.write_all(&report.encode().unwrap()).unwrap();
    }

    fn hear(from: &mut UnixStream) -> Request {
        Request::decode(&read_frame(from).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn a_command_and_its_output() {
        let (control, folder) = agent(|port| {
            say(port, &Report::Ready { uptime_ms: 5000 });
            let Request::Run { id, timeout_ms: 60_000, command } = hear(port) else { panic!("no command") };
            say(port, &Report::Started { id, pid: 77 });
            assert_eq!(hear(port), Request::Signal { id, signal: 9 });
            for (stream, bytes) in [(Stream::Stdout, "a"), (Stream::Stderr, "b"), (Stream::Stdout, "c")] {
                say(port, &Report::Output { id, stream, bytes: bytes.into() });
            }
            say(port, &Report::Output { id: id + 1, stream: Stream::Stdout, bytes: b"of nobody".to_vec() });
            let outcome = if command == "it" { Outcome::Code(0) } else { Outcome::Code(1) };
            say(port, &Report::Exit { id, outcome, elapsed_us: 1500 });
        });
        assert_eq!(control.wait_ready(LONG).unwrap(), Duration::from_secs(5));
        let mut running = control.start("it", LONG).unwrap();
        assert_eq!(running.pid(), 77);
        running.signal(9).unwrap();
        running.wait_said("b").unwrap();
        let done = running.wait().unwrap();
        assert!(done.is_good());
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("ac", "b"));
        assert_eq!(done.elapsed, Duration::from_micros(1500));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_command_line_by_line() {
        let (control, folder) = agent(|port| {
            let Request::Run { id, .. } = hear(port) else { panic!("no command") };
            say(port, &Report::Started { id, pid: 77 });
            for (stream, bytes) in [(Stream::Stdout, "a\nb"), (Stream::Stderr, "x"), (Stream::Stdout, "c\nd")] {
                say(port, &Report::Output { id, stream, bytes: bytes.into() });
            }
            hear(port);
            say(port, &Report::Exit { id, outcome: Outcome::Code(3), elapsed_us: 1500 });
        });
        let mut running = control.start("it", LONG).unwrap();
        let soon = || Instant::now() + LONG;
        assert_eq!(running.next_line(soon()).unwrap().as_deref(), Some("a"));
        assert_eq!(running.next_line(soon()).unwrap().as_deref(), Some("bc"));
        assert_eq!(running.next_line(Instant::now()).unwrap(), None);
        assert_eq!(running.ended(), None);
        running.signal(15).unwrap();
        assert_eq!(running.next_line(soon()).unwrap(), None);
        assert_eq!(running.ended(), Some(&Outcome::Code(3)));
        let done = running.wait().unwrap();
        assert_eq!(done.stderr, "x");
        assert_eq!((done.stdout.as_str(), done.outcome), ("a\nbc\nd", Outcome::Code(3)));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_host_that_goes_away() {
        let (control, folder) = agent(|port| {
            let Request::Run { id, .. } = hear(port) else { panic!("no command") };
            say(port, &Report::Started { id, pid: 77 });
        });
        let mut running = control.start("it", LONG).unwrap();
        assert_eq!(running.wait_said("x").unwrap_err().to_string(), "it: the host is gone");
        assert_eq!(running.wait().unwrap_err().to_string(), "it: the host is gone");
        assert!(control.wait_ready(LONG).unwrap_err().to_string().contains("gone"));
        assert!(control.start("more", LONG).err().unwrap().to_string().contains("gone"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_command_that_took_too_long_is_an_error() {
        let (control, folder) = agent(|port| {
            let Request::Run { id, .. } = hear(port) else { panic!("no command") };
            say(port, &Report::Started { id, pid: 77 });
            say(port, &Report::Exit { id, outcome: Outcome::TimedOut, elapsed_us: 1500 });
        });
        let error = control.start("it", LONG).unwrap().wait().unwrap_err();
        assert!(error.to_string().starts_with("it was killed after 60 s"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
