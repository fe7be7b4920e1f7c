use super::userdata::DomainUuid;
use crate::ids::DomId;
use crate::xen::poll::ready_one;
use rustix::event::PollFlags;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A file that stands for the standard input: of no help to who reads of it.
pub(super) const STDIN_PATH: &str = "/proc/self/fd/0";
/// The name, as `xl` prints it, of a domain that has none.
pub(super) const NO_NAME: &str = "(null)";
/// How much of a command's output is looked at.
const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// Xen's command line toolstack, `xl`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Xl {
    program: PathBuf,
}

/// Why `xl` did not do what it was to do.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum XlError {
    /// It is not installed.
    #[error("Xen's xl is not installed: neither in PATH nor in /usr/sbin, /usr/local/sbin or /usr/lib/xen-4.*/bin")]
    NotFound,
    /// It could not be started.
    #[error("{command} could not be started: {source}")]
    NotStarted {
        /// The command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// It failed.
    #[error("{command} failed ({status}): {line}")]
    Failed {
        /// The command.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// The first of its lines that speaks of an error, or else its last one.
        line: String,
    },
    /// It did not end in time, and was ended.
    #[error("{command} did not end within {} s; it last said: {line}", limit.as_secs())]
    TimedOut {
        /// The command.
        command: String,
        /// How long it had.
        limit: Duration,
        /// Its last line.
        line: String,
    },
    /// It said something that cannot be understood.
    #[error("{command} printed what is not understood: {line}")]
    Unreadable {
        /// The command.
        command: String,
        /// The line.
        line: String,
    },
    /// The system refused.
    #[error("{command}: {call}: {errno}")]
    Io {
        /// The command.
        command: String,
        /// What was tried.
        call: &'static str,
        /// What the system said.
        errno: Errno,
    },
}

/// A domain as `xl vm-list` knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedDomain {
    /// Its number.
    pub domid: DomId,
    /// Its UUID.
    pub uuid: DomainUuid,
    /// Its name; `(null)` for one that is half built or half destroyed.
    pub name: String,
}

impl Xl {
    /// How long a command of one step may take.
    pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

    /// Looks for `xl` in `PATH`, then where distributions put it.
    ///
    /// # Errors
    /// [`XlError::NotFound`].
    pub fn find() -> Result<Xl, XlError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let by_version = (0..100).rev().map(|minor| PathBuf::from(format!("/usr/lib/xen-4.{minor}/bin")));
        let program = folders.chain(by_version).map(|folder| folder.join("xl")).find(|path| is_program(path));
        program.map(Self::at).ok_or(XlError::NotFound)
    }

    /// This `xl`.
    pub fn at(program: impl Into<PathBuf>) -> Xl {
        Xl { program: program.into() }
    }

    /// Runs a command and returns what it prints on its standard output. What is sent to this process's group (by Ctrl-C) does not reach it:
    /// half of a `destroy` would leave a part of the domain for good.
    ///
    /// # Errors
    /// [`XlError`].
    pub fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        limit: Duration,
    ) -> Result<String, XlError> {
        let mut command = self.command(arguments);
        command.process_group(0);
        let mut running = Running::start(command)?;
        running.wait(Instant::now() + limit, limit)?;
        Ok(running.stdout.text())
    }

    /// All domains. One that is being built has no name yet, or its own.
    ///
    /// # Errors
    /// [`XlError`].
    pub fn domains(&self) -> Result<Vec<ListedDomain>, XlError> {
        ListedDomain::parse_list(&self.run(["vm-list"], Self::COMMAND_LIMIT)?)
    }

    /// Destroys a domain with all that libxl made for it.
    ///
    /// # Errors
    /// [`XlError`].
    pub fn destroy(&self, domain: DomId) -> Result<(), XlError> {
        self.run(["destroy", &domain.0.to_string()], Self::COMMAND_LIMIT).map(drop)
    }

    /// Gives a domain another name.
    ///
    /// # Errors
    /// [`XlError`].
    pub fn rename(&self, from: &str, to: &str) -> Result<(), XlError> {
        self.run(["rename", from, to], Self::COMMAND_LIMIT).map(drop)
    }

    /// Lets a domain run that was paused.
    ///
    /// # Errors
    /// [`XlError`].
    pub fn unpause(&self, domain: DomId) -> Result<(), XlError> {
        self.run(["unpause", &domain.0.to_string()], Self::COMMAND_LIMIT).map(drop)
    }

    /// The stored configuration of a domain as libxl gives it out, brought up to date: `xl list -l`.
    ///
    /// # Errors
    /// [`XlError`].
    pub fn configuration(&self, domain: DomId) -> Result<String, XlError> {
        self.run(["list", "-l", &domain.0.to_string()], Self::COMMAND_LIMIT)
    }

    pub(super) fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        command
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

impl ListedDomain {
    /// Reads what `xl vm-list` prints: a heading, then lines of UUID, number, name. `xl` may warn of something before.
    ///
    /// # Errors
    /// [`XlError::Unreadable`].
    pub fn parse_list(output: &str) -> Result<Vec<ListedDomain>, XlError> {
        let domain = |line: &str| {
            let (uuid, rest) = line.split_once(' ')?;
            let (domid, name) = rest.trim().split_once(' ')?;
            let (domid, name) = (DomId(domid.parse().ok()?), name.trim().to_owned());
            Some(ListedDomain { domid, uuid: DomainUuid::parse(uuid)?, name })
        };
        let unreadable = |line: &str| XlError::Unreadable { command: "xl vm-list".into(), line: line.into() };
        let lines = output.lines().skip_while(|line| !line.starts_with("UUID ")).skip(1);
        lines.map(|line| domain(line).ok_or_else(|| unreadable(line))).collect()
    }
}

/// A command at work. What it prints goes into memory, which is never full, so that nobody must read along for it to go on.
/// Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    child: Child,
    ended: OwnedFd,
    status: Option<ExitStatus>,
    stdout: Captured,
    /// Warnings and errors, and at some commands everything.
    stderr: Captured,
}

/// What goes into one output.
#[derive(Debug)]
struct Captured {
    file: File,
    /// How much of it has been given to the log, in bytes.
    logged: usize,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Result<Running, XlError> {
        let arguments = command.get_args().filter(|argument| *argument != STDIN_PATH).map(OsStr::to_owned);
        let words = std::iter::once(OsString::from("xl")).chain(arguments);
        let name = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        let not_started = |source| XlError::NotStarted { command: name.clone(), source };
        let (stdout, for_stdout) = Captured::new().map_err(not_started)?;
        let (stderr, for_stderr) = Captured::new().map_err(not_started)?;
        command.stdout(for_stdout).stderr(for_stderr);
        let mut child = command.spawn().map_err(not_started)?;
        let ended = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(ended) => ended,
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(XlError::Io { command: name, call: "pidfd_open", errno });
            }
        };
        Ok(Running { name, child, ended, status: None, stdout, stderr })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Becomes readable when the command has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    pub(super) fn take_stdin(&mut self) -> Option<OwnedFd> {
        self.child.stdin.take().map(OwnedFd::from)
    }

    /// Kills the command if it does not end by itself within `limit`. [`Self::wait`] must follow.
    pub(super) fn give_up_on(&mut self, limit: Duration) {
        if !matches!(ready_one(&self.ended, PollFlags::IN, Instant::now() + limit), Ok(true)) {
            // Fails only if it has ended by now.
            let _ = self.child.kill();
        }
    }

    /// Lets the command end, if it does within `limit`, so that all is there that it has to say.
    pub(super) fn wait_for_words(&self, limit: Duration) {
        // How it ends is for [`Self::wait`] to tell.
        let _ = ready_one(&self.ended, PollFlags::IN, Instant::now() + limit);
    }

    /// Waits for the end, and kills at the deadline; `limit` is for the error.
    pub(super) fn wait(&mut self, deadline: Instant, limit: Duration) -> Result<(), XlError> {
        let io = |call, errno| XlError::Io { command: self.name.clone(), call, errno };
        let in_time = ready_one(&self.ended, PollFlags::IN, deadline).map_err(|errno| io("poll", errno))?;
        if !in_time {
            // Fails only if it has ended by now.
            let _ = self.child.kill();
        }
        let status =
            self.child.wait().map_err(|error| io("wait", Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        self.status = Some(status);
        self.log();
        let command = self.name.clone();
        match in_time {
            true if status.success() => Ok(()),
            true => Err(XlError::Failed { command, status, line: self.telling_line() }),
            false => Err(XlError::TimedOut { command, limit, line: self.last_line() }),
        }
    }

    /// Gives what is new to the log.
    pub(super) fn log(&mut self) {
        for output in [&mut self.stdout, &mut self.stderr] {
            let text = output.text();
            for line in lines(text.get(output.logged..).unwrap_or_default()) {
                tracing::debug!(target: "colo::xl", command = self.name, "{line}");
            }
            output.logged = text.len();
        }
    }

    /// The first line that speaks of an error, or else the last one.
    pub(super) fn telling_line(&self) -> String {
        let errors = self.stderr.text();
        match lines(&errors).find(|line| line.contains("error:") || line.contains("cannot execute")) {
            Some(line) => readable(line),
            None => self.last_line(),
        }
    }

    fn last_line(&self) -> String {
        let (errors, text) = (self.stderr.text(), self.stdout.text());
        readable(lines(&text).chain(lines(&errors)).last().unwrap_or("(nothing)"))
    }
}

impl Captured {
    /// It, and the same to write into.
    fn new() -> io::Result<(Captured, File)> {
        let file = File::from(memfd_create("xl", MemfdFlags::CLOEXEC)?);
        let for_writing = file.try_clone()?;
        Ok((Captured { file, logged: 0 }, for_writing))
    }

    /// All that was printed so far.
    fn text(&self) -> String {
        let mut bytes = vec![0; self.file.metadata().map_or(0, |file| file.len() as usize).min(MAX_OUTPUT_BYTES)];
        let mut got = 0;
        while got < bytes.len() {
            match self.file.read_at(&mut bytes[got..], got as u64) {
                Ok(0) | Err(_) => break,
                Ok(more) => got += more,
            }
        }
        String::from_utf8_lossy(&bytes[..got]).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Progress is printed over and over into one line.
fn lines(output: &str) -> impl Iterator<Item = &str> {
    output.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty())
}

fn readable(line: &str) -> String {
    line.replace(STDIN_PATH, "its input")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell in the place of `xl`.
    fn sh(script: &str, limit: Duration) -> Result<String, XlError> {
        Xl::at("/bin/sh").run(["-c", script], limit)
    }

    #[test]
    fn what_is_printed_and_how_it_ends() {
        let limit = Duration::from_secs(20);
        assert_eq!(sh("echo a; echo b >&2; echo c", limit).unwrap(), "a\nc\n", "warnings are not in it");
        let failed = |script| match sh(script, limit) {
            Err(XlError::Failed { line, status, .. }) => (line, status.code()),
            other => panic!("{other:?}"),
        };
        let many = "echo x; echo 'libxl: error: cause' >&2; echo 'libxl: error: more' >&2; echo y; exit 3";
        assert_eq!(failed(many), ("libxl: error: cause".into(), Some(3)));
        assert_eq!(failed("echo x; printf 'Frames 1\\rFrames 2\\r' >&2; exit 1"), ("Frames 2".into(), Some(1)));
        assert_eq!(failed("exit 1"), ("(nothing)".into(), Some(1)));
        // More than any pipe would take.
        assert_eq!(sh("head -c 1000000 /dev/zero", limit).unwrap().len(), 1_000_000);
        let error = Xl::at("/bin/sh").run(["-c", "echo reading $0; false", STDIN_PATH], limit).unwrap_err();
        assert_eq!(error.to_string(), "xl -c echo reading $0; false failed (exit status: 1): reading its input");
        assert!(matches!(Xl::at("/nonexistent/xl").run(["list"], limit), Err(XlError::NotStarted { .. })));
    }

    #[test]
    fn what_is_sent_to_our_group_does_not_reach_a_command() {
        // The first and the fifth word are the process and its group.
        let said = sh("set -- $(cat /proc/$$/stat); echo $1; echo $5", Duration::from_secs(20)).unwrap();
        let [process, group] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
        assert_eq!(process, group);
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error = sh("echo begun; exec sleep 100", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, XlError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn the_list_of_domains() {
        let list = "WARNING: x\n\
            UUID                                  ID    name\n\
            00000000-0000-0000-0000-000000000000  0    Domain-0                      \n\
            c68e58a4-e8f9-11f1-9b12-2bf4439fb59e  12    a guest                       \n\
            c68e58a4-e8f9-11f1-9b12-2bf4439fb59f  13    (null)                        \n";
        let domains = ListedDomain::parse_list(list).unwrap();
        let short: Vec<(u32, &str)> = domains.iter().map(|domain| (domain.domid.0, &*domain.name)).collect();
        assert_eq!(short, [(0, "Domain-0"), (12, "a guest"), (13, "(null)")]);
        assert_eq!(domains[1].uuid.to_string(), "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e");
        assert_eq!(ListedDomain::parse_list("").unwrap(), []);
        for line in ["x", "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e  twelve  x", "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e 1"] {
            let error = ListedDomain::parse_list(&format!("UUID ID name\n{line}\n")).unwrap_err();
            assert!(matches!(error, XlError::Unreadable { .. }), "{line}");
        }
    }
}
