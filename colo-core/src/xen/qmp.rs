//! A client of QMP, the monitor of QEMU, which is the device model of an HVM domain. The protocol is QEMU's
//! `docs/interop/qmp-spec`: one JSON object to a line; the server greets, the client negotiates, then each command has one reply with
//! the command's id; events come in between.
//!
//! **Beside `xl`.** QEMU serves one client of a socket at a time; a second one waits unanswered. libxl takes a lock of the domain
//! (`qmp-socket-lock`) for each conversation and disconnects after it. [`QmpClient::connect_domain`] does the same, so a client
//! should be dropped as soon as its few commands are through: as long as it lives, `xl` waits, and gives up after ten seconds.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::qmp::QmpClient;
//! use colo_core::xen::toolstack::DomainUuid;
//! use std::time::Duration;
//!
//! let uuid = DomainUuid::parse("c68e58a4-e8f9-11f1-9b12-2bf4439fb59e").unwrap();
//! let mut qmp = QmpClient::connect_domain(DomId(3), uuid, Duration::from_secs(10))?;
//! qmp.stop()?;
//! assert!(!qmp.query_status()?.running);
//! # Ok::<(), colo_core::xen::qmp::QmpError>(())
//! ```

mod error;
mod jobs;
#[cfg(test)]
pub(super) mod tests;

pub use error::QmpError;

use super::poll::ready_one;
use super::toolstack::{DomainLock, DomainUuid, LockKind};
use crate::ids::DomId;
use rustix::event::PollFlags;
use rustix::io::{Errno, read};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest line that is accepted: as in libxl. The longest known replies are some hundred kilobytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// Events that are kept for [`QmpClient::next_event`]; the oldest goes first.
pub const MAX_EVENTS: usize = 64;

/// Something that happened in QEMU.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// `STOP`, `RESUME`, `SHUTDOWN`, ...
    pub name: String,
    /// What QEMU says of it; `Null` when nothing.
    pub data: Value,
}

/// What QEMU does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Whether its virtual machine runs.
    pub running: bool,
    /// `running`, `paused`, `prelaunch`, `inmigrate`, ...
    pub status: String,
}

/// A connection to a QEMU.
#[derive(Debug)]
pub struct QmpClient {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are known to have no line's end.
    searched: usize,
    events: VecDeque<Event>,
    lost_events: u64,
    last_id: u64,
    limit: Duration,
    failed: bool,
    _lock: Option<DomainLock>,
}

impl QmpClient {
    /// Connects to the device model of a domain, politely (see above): waits for libxl's lock, and holds it while the client lives.
    /// Each reply has `limit`; 10 s is what libxl allows.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn connect_domain(domain: DomId, uuid: DomainUuid, limit: Duration) -> Result<QmpClient, QmpError> {
        let lock = DomainLock::acquire(LockKind::Qmp, domain, uuid, Instant::now() + limit)?;
        let path = format!("/var/run/xen/qmp-libxl-{}", domain.0);
        let mut client = Self::connect(Path::new(&path), limit)?;
        client._lock = Some(lock);
        Ok(client)
    }

    /// Connects to a socket, and negotiates. Each reply has `limit`, the greeting, too: QEMU does not greet while it serves another.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn connect(path: &Path, limit: Duration) -> Result<QmpClient, QmpError> {
        let unreachable = |errno| QmpError::Unreachable { path: path.to_owned(), errno };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| QmpError::Io { call: "socket", errno })?;
        let address = SocketAddrUnix::new(path).map_err(unreachable)?;
        connect(&socket, &address).map_err(unreachable)?;
        Self::over(socket, limit)
    }

    fn over(socket: OwnedFd, limit: Duration) -> Result<QmpClient, QmpError> {
        let (buffer, events) = (Vec::new(), VecDeque::new());
        let mut client = QmpClient {
            socket,
            buffer,
            searched: 0,
            events,
            lost_events: 0,
            last_id: 0,
            limit,
            failed: false,
            _lock: None,
        };
        let doing = "its greeting";
        let greeting = client.next_object(doing, Instant::now() + limit)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Protocol { doing: doing.into(), what: "no greeting" });
        }
        client.execute("qmp_capabilities", None)?;
        Ok(client)
    }

    /// Runs a command and returns what it returns. `arguments` is an object.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn execute(&mut self, command: &str, arguments: Option<Value>) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None)
    }

    /// Lets the virtual machine's devices stand still; Xen's vCPUs are another matter.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn stop(&mut self) -> Result<(), QmpError> {
        self.execute("stop", None).map(drop)
    }

    /// Lets the devices go on.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn cont(&mut self) -> Result<(), QmpError> {
        self.execute("cont", None).map(drop)
    }

    /// Ends QEMU.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn quit(&mut self) -> Result<(), QmpError> {
        match self.execute("quit", None) {
            // It may be gone before its reply.
            Ok(_) | Err(QmpError::Closed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What QEMU does.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn query_status(&mut self) -> Result<Status, QmpError> {
        let command = "query-status";
        let reply = self.execute(command, None)?;
        match (reply["running"].as_bool(), reply["status"].as_str()) {
            (Some(running), Some(status)) => Ok(Status { running, status: status.to_owned() }),
            _ => Err(self.protocol(command, "no status in the reply")),
        }
    }

    /// The numbers of the processors that QEMU knows, which are those that are plugged in. libxl keeps them with a saved domain:
    /// another QEMU must have the same to take this one's state.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn query_cpus(&mut self) -> Result<Vec<u32>, QmpError> {
        let command = "query-cpus-fast";
        let reply = self.execute(command, None)?;
        let number = |cpu: &Value| cpu["cpu-index"].as_u64().and_then(|index| u32::try_from(index).ok());
        let numbers = reply.as_array().and_then(|cpus| cpus.iter().map(number).collect());
        numbers.ok_or_else(|| self.protocol(command, "no processors in the reply"))
    }

    /// Makes QEMU mark the pages that it writes in Xen's dirty log, or ends that. Without it, what emulated devices write is missed.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn set_global_dirty_log(&mut self, enable: bool) -> Result<(), QmpError> {
        self.execute("xen-set-global-dirty-log", Some(json!({ "enable": enable }))).map(drop)
    }

    /// Makes QEMU write the state of its devices, without the guest's memory, into a file that QEMU can open. `live` as `false`
    /// leaves QEMU stopped, as a save wants it.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn save_devices_state(&mut self, file: &Path, live: bool) -> Result<(), QmpError> {
        let arguments = json!({ "filename": file.to_string_lossy(), "live": live });
        self.execute("xen-save-devices-state", Some(arguments)).map(drop)
    }

    /// Gives QEMU an open file, to be named `/dev/fdset/SET` in a command. The mode in which it was opened must be the one that the
    /// command opens with. [`Self::remove_fd`] takes it back.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn add_fd(&mut self, set: u32, file: BorrowedFd<'_>) -> Result<(), QmpError> {
        self.execute_with("add-fd", Some(json!({ "fdset-id": set })), Some(file)).map(drop)
    }

    /// Makes QEMU close what [`Self::add_fd`] gave it.
    ///
    /// # Errors
    /// [`QmpError`].
    pub fn remove_fd(&mut self, set: u32) -> Result<(), QmpError> {
        self.execute("remove-fd", Some(json!({ "fdset-id": set }))).map(drop)
    }

    /// The oldest event that has come while commands ran.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How many events have gone unread because more than [`MAX_EVENTS`] came.
    pub fn lost_events(&self) -> u64 {
        self.lost_events
    }

    fn execute_with(
        &mut self,
        command: &str,
        arguments: Option<Value>,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        if self.failed {
            return Err(QmpError::Failed);
        }
        // Until its reply has come.
        self.failed = true;
        self.last_id += 1;
        let mut request = json!({ "execute": command, "id": self.last_id });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let deadline = Instant::now() + self.limit;
        self.send(command, format!("{request}\n").as_bytes(), file, deadline)?;
        let reply = self.next_object(command, deadline)?;
        if reply.get("id").and_then(Value::as_u64) != Some(self.last_id) {
            return Err(self.protocol(command, "a reply to something else"));
        }
        match (reply.get("return"), reply.get("error")) {
            (Some(value), None) => {
                self.failed = false;
                Ok(value.clone())
            }
            (None, Some(error)) => {
                self.failed = false;
                let text = |key| error[key].as_str().unwrap_or("?").to_owned();
                Err(QmpError::Command { command: command.into(), class: text("class"), description: text("desc") })
            }
            _ => Err(self.protocol(command, "a reply without a result")),
        }
    }

    /// The next object that is no event.
    fn next_object(&mut self, doing: &str, deadline: Instant) -> Result<Value, QmpError> {
        loop {
            if let Some(object) = self.next_unless_event(doing, deadline)? {
                return Ok(object);
            }
            // Also for a peer whose events never end.
            if Instant::now() >= deadline {
                return Err(self.timed_out(doing));
            }
        }
    }

    /// The next event that is one of those; it is taken out of what has come, the others are kept.
    fn wait_event(&mut self, doing: &str, is_it: impl Fn(&Event) -> bool) -> Result<Event, QmpError> {
        if self.failed {
            return Err(QmpError::Failed);
        }
        let deadline = Instant::now() + self.limit;
        loop {
            let at = self.events.iter().position(&is_it);
            if let Some(event) = at.and_then(|at| self.events.remove(at)) {
                return Ok(event);
            }
            // Until something has come that may be it.
            self.failed = true;
            if Instant::now() >= deadline {
                return Err(self.timed_out(doing));
            }
            if self.next_unless_event(doing, deadline)?.is_some() {
                return Err(self.protocol(doing, "a reply to nothing"));
            }
            self.failed = false;
        }
    }

    /// The next object, unless it is an event: that is kept.
    fn next_unless_event(&mut self, doing: &str, deadline: Instant) -> Result<Option<Value>, QmpError> {
        let line = self.next_line(doing, deadline)?;
        let object: Value =
            serde_json::from_slice(&line).map_err(|_| self.protocol(doing, "a line that is no JSON"))?;
        match object.get("event").map(Value::as_str) {
            None if object.is_object() => return Ok(Some(object)),
            Some(Some(name)) => {
                let data = object.get("data").cloned().unwrap_or(Value::Null);
                if self.events.len() == MAX_EVENTS {
                    self.events.pop_front();
                    self.lost_events += 1;
                }
                self.events.push_back(Event { name: name.to_owned(), data });
            }
            _ => return Err(self.protocol(doing, "an object of no known kind")),
        }
        Ok(None)
    }

    fn next_line(&mut self, doing: &str, deadline: Instant) -> Result<Vec<u8>, QmpError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + at + 1);
                self.searched = 0;
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(self.protocol(doing, "a line that is too long"));
            }
            if !ready_one(&self.socket, PollFlags::IN, deadline)
                .map_err(|errno| QmpError::Io { call: "poll", errno })?
            {
                return Err(self.timed_out(doing));
            }
            let mut part = [0; 16 * 1024];
            match read(&self.socket, &mut part) {
                Ok(0) | Err(Errno::CONNRESET) => return Err(QmpError::Closed { doing: doing.into() }),
                Ok(bytes) => self.buffer.extend_from_slice(&part[..bytes]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(QmpError::Io { call: "read", errno }),
            }
        }
    }

    fn send(
        &self,
        doing: &str,
        bytes: &[u8],
        mut file: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(), QmpError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let fds = file.map(|file| [file]);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if let Some(fds) = &fds {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            match sendmsg(&self.socket, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    file = None;
                }
                Err(Errno::AGAIN | Errno::INTR) => {
                    if !ready_one(&self.socket, PollFlags::OUT, deadline)
                        .map_err(|errno| QmpError::Io { call: "poll", errno })?
                    {
                        return Err(self.timed_out(doing));
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(QmpError::Closed { doing: doing.into() }),
                Err(errno) => return Err(QmpError::Io { call: "sendmsg", errno }),
            }
        }
        Ok(())
    }

    fn timed_out(&self, doing: &str) -> QmpError {
        QmpError::TimedOut { doing: doing.into(), limit: self.limit }
    }

    fn protocol(&self, doing: &str, what: &'static str) -> QmpError {
        QmpError::Protocol { doing: doing.into(), what }
    }
}
