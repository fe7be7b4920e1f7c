use super::frame::{MAJOR_VERSION, MINOR_VERSION, MessageKind};
use super::wire::PayloadError;
use std::io;
use std::time::Duration;

/// What goes wrong between the hosts. After any of these but [`PeerError::Payload`] on sending, the connection is good for
/// nothing: nothing of what the peer sent in the failed message has had any effect.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum PeerError {
    /// The peer has closed the connection, between two messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection ended within a message.
    #[error("the connection ended in the middle of a message ({got} of at least {needed} bytes)")]
    Truncated {
        /// Bytes of the message, as far as known.
        needed: usize,
        /// Bytes that came.
        got: usize,
    },
    /// What came is no message of this protocol.
    #[error("the peer does not speak colo's protocol (a message began with {0:#010x})")]
    NotOurs(u32),
    /// The peer speaks another version of the protocol.
    #[error(
        "the peer speaks version {major}.{minor} of the protocol, this host version {MAJOR_VERSION}.{MINOR_VERSION}: \
         run the same release of colo on both"
    )]
    Version {
        /// The peer's major version.
        major: u8,
        /// The peer's minor version.
        minor: u8,
    },
    /// A kind of message that does not exist in this version.
    #[error("message of unknown kind {0}")]
    UnknownKind(u8),
    /// A message longer than its kind may be.
    #[error("{kind:?} message of {length} bytes, but the limit is {limit}")]
    TooLong {
        /// The kind.
        kind: MessageKind,
        /// The length of its payload.
        length: usize,
        /// The limit of that.
        limit: usize,
    },
    /// A message came a second time.
    #[error("message {got} came again, message {expected} is due")]
    Repeated {
        /// The number due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// A message is missing.
    #[error("message {got} came, but message {expected} is due")]
    Missing {
        /// The number due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// A message was changed on its way.
    #[error("{0:?} message with a wrong checksum")]
    Checksum(MessageKind),
    /// The inside of a message is wrong; on sending: it cannot be sent.
    #[error("{kind:?} message: {error}")]
    Payload {
        /// The kind.
        kind: MessageKind,
        /// What is wrong.
        error: PayloadError,
    },
    /// A connection cannot be handed over in the midst of a message.
    #[error("{got} bytes of a message have come, and not the rest")]
    UnderWay {
        /// Bytes that came.
        got: usize,
    },
    /// No connection has carried so many messages.
    #[error("a connection that has carried {sent} messages one way and {received} the other cannot be")]
    Handover {
        /// Said to be sent.
        sent: u64,
        /// Said to have come.
        received: u64,
    },
    /// The decoder has failed before.
    #[error("the connection has failed before")]
    Failed,
    /// The peer took nothing for too long.
    #[error("the peer took no data for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// No connection could be made in time.
    #[error("cannot connect to {target}: {reason}")]
    Unreachable {
        /// As it was given.
        target: String,
        /// What was tried, and what came of it.
        reason: String,
    },
    /// The system refused.
    #[error("{call}: {source}")]
    Io {
        /// What was tried.
        call: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl PeerError {
    /// For `map_err`: wraps the system's word on `call`.
    pub(super) fn io(call: &'static str) -> impl Fn(io::Error) -> PeerError {
        move |source| PeerError::Io { call, source }
    }
}
