//! Commands, each with a thread that waits for it.

use super::Reports;
use colo_testbed_inside::protocol::{Outcome, ProtocolError, Report, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Output is sent in pieces of at most so many bytes.
const PIECE_BYTES: usize = 16 << 10;

/// The commands that run. A command's process group is the process of its shell.
#[derive(Clone, Default)]
pub(crate) struct Commands(Arc<Mutex<HashMap<u32, Pid>>>);

impl Commands {
    /// Starts a command, and reports about it until its end.
    pub(crate) fn run(&self, id: u32, timeout_ms: u64, command: &str, reports: &Reports) {
        let begun = Instant::now();
        let child = Command::new("/bin/bash")
            .args(["-c", command])
            .current_dir("/tmp")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        match child {
            Err(error) => {
                let outcome = Outcome::NotRun(error.to_string());
                let _ = reports.say(&Report::Exit { id, outcome, elapsed_us: 0 });
            }
            Ok(child) => {
                self.0.lock().expect("no thread panics with the lock").insert(id, Pid::from_child(&child));
                let (commands, reports) = (self.clone(), reports.clone());
                std::thread::spawn(move || {
                    // Without the testbed nobody is left to tell about the error.
                    let _ = commands.follow(id, child, begun, Duration::from_millis(timeout_ms), &reports);
                });
            }
        }
    }

    /// Sends a signal to a command's process group.
    pub(crate) fn signal(&self, id: u32, signal: u8) {
        // The lock is held meanwhile: the process is not waited for, so that its number cannot be given to another one.
        let running = self.0.lock().expect("no thread panics with the lock");
        if let (Some(group), Some(signal)) = (running.get(&id), Signal::from_named_raw(i32::from(signal))) {
            let _ = kill_process_group(*group, signal);
        }
    }

    fn follow(
        &self,
        id: u32,
        mut child: Child,
        begun: Instant,
        timeout: Duration,
        reports: &Reports,
    ) -> Result<(), ProtocolError> {
        reports.say(&Report::Started { id, pid: child.id() })?;
        let is_late = follow_output(id, &mut child, begun.checked_add(timeout), reports)?;
        let mut running = self.0.lock().expect("no thread panics with the lock");
        running.remove(&id);
        let status = child.wait()?;
        let elapsed_us = begun.elapsed().as_micros() as u64;
        drop(running);
        let outcome = if is_late { Outcome::TimedOut } else { outcome(status) };
        reports.say(&Report::Exit { id, outcome, elapsed_us })
    }
}

/// Sends on what a command writes until it ends; kills it at the deadline, and says whether that was needed.
///
/// What it left in the background may hold the pipes for ever. Its own end counts, and what is in the pipes by then.
fn follow_output(
    id: u32,
    child: &mut Child,
    deadline: Option<Instant>,
    reports: &Reports,
) -> Result<bool, ProtocolError> {
    let group = Pid::from_child(child);
    let ended = pidfd_open(group, PidfdFlags::empty()).map_err(io::Error::from)?;
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    let mut is_late = false;
    loop {
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        fds.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let left = match deadline {
            Some(deadline) if !is_late => Some(timespec(deadline.saturating_duration_since(Instant::now()))),
            _ => None,
        };
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => {
                is_late = true;
                let _ = kill_process_group(group, Signal::KILL);
                continue;
            }
            Ok(_) => (),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let has_ended = !fds[0].revents().is_empty();
        let ready: Vec<bool> = fds[1..].iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        let (has_stdout, has_stderr) =
            (stdout.is_some() && ready.next() == Some(true), stderr.is_some() && ready.next() == Some(true));
        if has_ended {
            drain(id, Stream::Stdout, &mut stdout, reports)?;
            drain(id, Stream::Stderr, &mut stderr, reports)?;
            return Ok(is_late);
        }
        if has_stdout {
            send_piece(id, Stream::Stdout, &mut stdout, reports)?;
        }
        if has_stderr {
            send_piece(id, Stream::Stderr, &mut stderr, reports)?;
        }
    }
}

/// Sends what a pipe has, at most one piece, and closes it at its end. `false` if there was nothing.
fn send_piece(id: u32, stream: Stream, pipe: &mut Option<impl Read>, reports: &Reports) -> Result<bool, ProtocolError> {
    let Some(open) = pipe else { return Ok(false) };
    let mut bytes = vec![0; PIECE_BYTES];
    match open.read(&mut bytes) {
        Ok(0) => {
            *pipe = None;
            Ok(false)
        }
        Ok(count) => {
            bytes.truncate(count);
            reports.say(&Report::Output { id, stream, bytes })?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn drain(id: u32, stream: Stream, pipe: &mut Option<impl Read + AsFd>, reports: &Reports) -> Result<(), ProtocolError> {
    if let Some(open) = pipe {
        fcntl_setfl(open.as_fd(), OFlags::NONBLOCK).map_err(io::Error::from)?;
    }
    while send_piece(id, stream, pipe, reports)? {}
    Ok(())
}

fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Code(code as u8),
        (None, Some(signal)) => Outcome::Signal(signal as u8),
        (None, None) => Outcome::NotRun(format!("ended strangely: {status}")),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use colo_testbed_inside::protocol::read_frame;
    use std::os::unix::net::UnixStream;

    const LONG_MS: u64 = 60_000;

    struct Testbed {
        port: UnixStream,
        commands: Commands,
        reports: Reports,
    }

    impl Testbed {
        fn new() -> Testbed {
            let (port, other) = UnixStream::pair().unwrap();
            Testbed { port, commands: Commands::default(), reports: Reports::to(other) }
        }

        fn hear(&mut self) -> Report {
            Report::decode(&read_frame(&mut self.port).unwrap().unwrap()).unwrap()
        }

        /// What a command writes to its standard output and error, and how it ends.
        fn rest(&mut self) -> (String, String, Outcome) {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            loop {
                match self.hear() {
                    Report::Output { stream: Stream::Stdout, bytes, .. } => stdout.extend(bytes),
                    Report::Output { stream: Stream::Stderr, bytes, .. } => stderr.extend(bytes),
                    Report::Exit { outcome, .. } => {
                        let text = |bytes| String::from_utf8(bytes).unwrap();
                        return (text(stdout), text(stderr), outcome);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }

        fn run(&mut self, timeout_ms: u64, command: &str) -> (String, String, Outcome) {
            self.commands.run(1, timeout_ms, command, &self.reports);
            assert!(matches!(self.hear(), Report::Started { id: 1, .. }));
            self.rest()
        }
    }

    #[test]
    fn output_and_code() {
        let done = Testbed::new().run(LONG_MS, "echo out; echo err >&2; exit 3");
        assert_eq!(done, ("out\n".into(), "err\n".into(), Outcome::Code(3)));
        let (stdout, _, outcome) = Testbed::new().run(LONG_MS, "head -c 1000000 /dev/zero");
        assert_eq!((stdout.len(), outcome), (1_000_000, Outcome::Code(0)));
    }

    #[test]
    fn its_end_counts_and_not_that_of_what_it_left_behind() {
        let mut testbed = Testbed::new();
        let (stdout, _, outcome) = testbed.run(LONG_MS, "sleep 1000 & echo $!");
        assert_eq!(outcome, Outcome::Code(0));
        let left: i32 = stdout.trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn too_late() {
        assert_eq!(Testbed::new().run(50, "sleep 1000").2, Outcome::TimedOut);
    }

    #[test]
    fn a_signal_reaches_the_whole_group() {
        let mut testbed = Testbed::new();
        testbed.commands.run(1, LONG_MS, "sleep 1000; true", &testbed.reports);
        assert!(matches!(testbed.hear(), Report::Started { id: 1, .. }));
        // Of another command: nothing happens.
        testbed.commands.signal(2, 9);
        testbed.commands.signal(1, 9);
        assert_eq!(testbed.rest().2, Outcome::Signal(9));
        testbed.commands.signal(1, 9);
    }
}
