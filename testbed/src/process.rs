//! Processes of this machine, none of which outlives the testbed: not when a run takes too long, not when it is interrupted, not when
//! the testbed itself is killed.

use anyhow::{Context, Result, anyhow, bail, ensure};
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the kernel may take to clear a process away that was killed.
const KILL_LIMIT: Duration = Duration::from_secs(60);

/// Ends everything when it is time, or when somebody presses Ctrl-C: kills all processes, so that whoever waits for one fails.
#[derive(Clone, Default)]
pub(crate) struct Stopper(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    reason: Option<Reason>,
    /// Processes, by handles and not by numbers: a number may belong to another process by now.
    running: Vec<(u32, OwnedFd)>,
}

/// Why everything was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// Somebody wanted it, by this signal.
    Signal(i32),
    /// It took longer than this.
    Late(Duration),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Signal(signal) => write!(f, "interrupted by signal {signal}"),
            Reason::Late(limit) => write!(f, "not done after {} s", limit.as_secs()),
        }
    }
}

/// While it lives, a [`Stopper`] listens to signals and looks at the clock.
pub(crate) struct Watchdog {
    _until_dropped: Sender<()>,
}

impl Stopper {
    /// Listens to signals from now on, and stops when `limit` is over.
    pub(crate) fn watch(&self, limit: Option<Duration>) -> Result<Watchdog> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals")?;
        let handle = signals.handle();
        let (sender, received) = bounded(1);
        std::thread::spawn(move || {
            for signal in signals.forever() {
                // A second one says the same.
                let _ = sender.try_send(signal);
            }
        });
        let (until_dropped, dropped): (_, Receiver<()>) = bounded(0);
        let stopper = self.clone();
        std::thread::spawn(move || {
            let late = limit.map_or_else(never, after);
            select! {
                recv(received) -> signal => stopper.stop(Reason::Signal(signal.unwrap_or(SIGTERM))),
                recv(late) -> _ => stopper.stop(Reason::Late(limit.unwrap_or_default())),
                recv(dropped) -> _ => (),
            }
            handle.close();
        });
        Ok(Watchdog { _until_dropped: until_dropped })
    }

    /// Kills all processes. None can be started afterwards.
    pub(crate) fn stop(&self, reason: Reason) {
        let mut state = self.0.lock().expect("no thread panics with the lock");
        state.reason.get_or_insert(reason);
        for (_, process) in &state.running {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    /// Why it stopped, if it has.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.0.lock().expect("no thread panics with the lock").reason
    }

    /// Starts a process, which must be a [`tied`] one.
    pub(crate) fn start(&self, mut command: Command, name: &str) -> Result<Process> {
        // The lock is held until the process is known: a stop in between would miss it.
        let mut state = self.0.lock().expect("no thread panics with the lock");
        if let Some(reason) = state.reason {
            bail!("{name} is not started: {reason}");
        }
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        state.running.push((child.id(), ended.try_clone()?));
        Ok(Process { name: name.to_owned(), child, ended, stopper: self.clone() })
    }

    /// Runs a program to its end, which must be a good one, and returns what it wrote to its standard output.
    pub(crate) fn run(&self, command: Command, name: &str, limit: Duration) -> Result<String> {
        let Ended { status, stdout, stderr } = self.try_run(command, name, limit)?;
        ensure!(status.success(), "{name} failed ({status}): {}", last_lines(&stderr, 20));
        Ok(stdout)
    }

    /// Runs a program to its end, however it ends.
    pub(crate) fn try_run(&self, mut command: Command, name: &str, limit: Duration) -> Result<Ended> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = self.start(command, name)?;
        let stdout = collect(process.child.stdout.take());
        let stderr = collect(process.child.stderr.take());
        let status = process.wait(limit)?;
        drop(process);
        let text =
            |collected: Receiver<Vec<u8>>| String::from_utf8_lossy(&collected.recv().unwrap_or_default()).into_owned();
        let (stdout, stderr) = (text(stdout), text(stderr));
        let status = status
            .ok_or_else(|| anyhow!("{name} did not end within {} s: {}", limit.as_secs(), last_lines(&stderr, 5)));
        Ok(Ended { status: status?, stdout, stderr })
    }
}

/// A program that has ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// To its standard output.
    pub(crate) stdout: String,
    /// To its standard error.
    pub(crate) stderr: String,
}

/// A command that dies with the testbed, even if that is killed.
///
/// The kernel ties it to the thread that starts it: that must be one that lives on.
pub(crate) fn tied(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The end of a text, for an error message.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A process that was started here. Dropped, it is killed.
pub(crate) struct Process {
    name: String,
    child: Child,
    ended: OwnedFd,
    stopper: Stopper,
}

impl Process {
    /// Waits until it ends; `None` if it does not in time.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        if !wait_readable(&[self.ended.as_fd()], limit)?[0] {
            return Ok(None);
        }
        let status = self.child.wait().with_context(|| self.name.clone())?;
        Ok(Some(status))
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        pidfd_send_signal(&self.ended, Signal::KILL).with_context(|| self.name.clone())?;
        ensure!(wait_readable(&[self.ended.as_fd()], KILL_LIMIT)?[0], "{} does not die", self.name);
        Ok(())
    }

    /// What it writes to its standard output, if that is a pipe that nobody has yet.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Readable when it has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.ended, Signal::KILL);
        let _ = self.child.wait();
        if let Ok(mut state) = self.stopper.0.lock() {
            state.running.retain(|(pid, _)| *pid != self.child.id());
        }
    }
}

/// Waits until one of them can be read, or for so long, and says which can.
pub(crate) fn wait_readable(what: &[BorrowedFd<'_>], limit: Duration) -> Result<Vec<bool>> {
    let deadline = Instant::now() + limit;
    let mut fds: Vec<PollFd<'_>> = what.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&left)) {
            Ok(_) => return Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads to the end, in a thread of its own: a program that writes to two pipes must not wait for one of them.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = bounded(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = tied("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_program_wrote_and_how_it_ended() {
        let stopper = Stopper::default();
        assert_eq!(stopper.run(shell("echo out; echo err >&2"), "it", SOON).unwrap(), "out\n");
        let error = stopper.run(shell("echo why >&2; exit 3"), "it", SOON).unwrap_err();
        assert_eq!(error.to_string(), "it failed (exit status: 3): why");
        let error = stopper.run(shell("exec sleep 100"), "it", Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "it did not end within 0 s: ");
        assert!(stopper.0.lock().unwrap().running.is_empty());
    }

    #[test]
    fn a_stop_kills_what_runs_and_keeps_more_from_starting() {
        let stopper = Stopper::default();
        let mut process = stopper.start(shell("exec sleep 100"), "it").unwrap();
        assert!(process.wait(Duration::ZERO).unwrap().is_none());
        stopper.stop(Reason::Signal(2));
        stopper.stop(Reason::Signal(15));
        assert!(!process.wait(SOON).unwrap().expect("it was killed").success());
        assert_eq!(stopper.reason(), Some(Reason::Signal(2)));
        let error = stopper.start(shell("true"), "more").err().unwrap();
        assert_eq!(error.to_string(), "more is not started: interrupted by signal 2");
    }

    #[test]
    fn the_clock_stops_it() {
        let stopper = Stopper::default();
        let mut process = stopper.start(shell("exec sleep 100"), "it").unwrap();
        let _watchdog = stopper.watch(Some(Duration::ZERO)).unwrap();
        assert!(process.wait(SOON).unwrap().is_some());
        assert_eq!(stopper.reason().unwrap().to_string(), "not done after 0 s");
    }

    #[test]
    fn killed_it_is_gone() {
        let stopper = Stopper::default();
        let mut process = stopper.start(shell("exec sleep 100"), "it").unwrap();
        process.kill().unwrap();
        assert!(!process.wait(Duration::ZERO).unwrap().expect("it is gone").success());
        assert!(process.kill().is_err());
    }

    #[test]
    fn dropped_it_is_killed() {
        let stopper = Stopper::default();
        let process = stopper.start(shell("exec sleep 100"), "it").unwrap();
        let ended = process.ended.try_clone().unwrap();
        drop(process);
        assert!(wait_readable(&[ended.as_fd()], SOON).unwrap()[0]);
    }

    #[test]
    fn the_last_lines() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("", 2), "");
    }
}
