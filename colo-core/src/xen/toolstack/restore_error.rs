use super::channel::ChannelError;
use super::handover::HandoverError;
use super::xl::XlError;
use std::io;

/// Why the toolstack did not restore a domain.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum RestoreToolstackError {
    /// `xl` failed or hung.
    #[error(transparent)]
    Xl(#[from] XlError),
    /// `xl` never came to hand the domain over.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// There is nobody to watch over the restore.
    #[error("the process that watches over this one: {0}")]
    Guard(io::Error),
    /// libxl could not be talked to.
    #[error("{error}; {command} said: {line}")]
    Channel {
        /// What went wrong.
        error: ChannelError,
        /// The command.
        command: String,
        /// The line of its output that tells most.
        line: String,
    },
    /// `xl` stopped reading what it was given.
    #[error("{command} does not read its image: {reason}; it said: {line}")]
    Feed {
        /// The command.
        command: String,
        /// Why.
        reason: String,
        /// The line of its output that tells most.
        line: String,
    },
    /// A failed restore has left a domain that could not be destroyed.
    #[error("domain {domid} of the failed restore could not be destroyed: {error}")]
    LeftBehind {
        /// The domain.
        domid: u32,
        /// Why.
        error: XlError,
    },
}
