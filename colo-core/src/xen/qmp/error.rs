use crate::xen::toolstack::LockError;
use rustix::io::Errno;
use std::path::PathBuf;
use std::time::Duration;

/// Why QEMU could not be told something. After any of these but [`QmpError::Command`] and [`QmpError::Job`] the connection is good for
/// nothing.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum QmpError {
    /// There is no such socket, or nobody listens.
    #[error("no device model at {path}: {errno}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
    },
    /// Another toolstack talks to the device model.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No reply in time.
    #[error("the device model did not answer within {} ms ({doing})", limit.as_millis())]
    TimedOut {
        /// What was tried.
        doing: String,
        /// How long it had.
        limit: Duration,
    },
    /// QEMU has ended.
    #[error("the device model closed its monitor ({doing})")]
    Closed {
        /// What was tried.
        doing: String,
    },
    /// The command failed.
    #[error("the device model refused {command}: {description} ({class})")]
    Command {
        /// The command.
        command: String,
        /// QEMU's class of errors: `GenericError`, `CommandNotFound`, ...
        class: String,
        /// QEMU's words.
        description: String,
    },
    /// What the command began has not succeeded.
    #[error("the device model could not do {job}: {description}")]
    Job {
        /// What was begun.
        job: String,
        /// QEMU's words.
        description: String,
    },
    /// What came is no QMP.
    #[error("the device model does not speak QMP: {what} ({doing})")]
    Protocol {
        /// What was tried.
        doing: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The connection has failed before.
    #[error("the connection to the device model has failed before")]
    Failed,
    /// The system refused.
    #[error("{call}: {errno}")]
    Io {
        /// What was tried.
        call: &'static str,
        /// What the system said.
        errno: Errno,
    },
}
