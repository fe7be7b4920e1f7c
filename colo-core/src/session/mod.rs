//! The threads and sockets around everything else. Start here to protect a machine.
//!
//! [`PrimarySession`] protects a running machine towards a peer; [`SecondarySession`] takes one in and, when the primary is
//! lost, serves in its place. Each reports what happens as [`Event`]s.
//!
//! A session has two to four threads, and nothing else in the library starts any, but for a machine's disks ([`crate::disk`]):
//!
//! ```text
//! engine    the save loop, or the restore; the only one that touches the domain
//! net       one poll over the guest's cards, the clients' network and the net channel; the only one that touches packets
//! reader    (primary) the state channel's messages, handed to the engine
//! recorder  (primary, on request) miscompares, written to a file; nobody waits for it
//! ```
//!
//! The net thread's state is behind one mutex, taken by the engine for moments: to freeze, to begin an epoch, to thaw. The net
//! thread alone judges whether the peer is there; the engine acts on it.
//!
//! A panic in any thread of a primary destroys its guest before the connections close, so that the secondary can take over; on a
//! secondary it ends the session, and the primary goes on unprotected. A panic of the recorder ends the recording, and nothing else.
//!
//! `examples/` has a program of thirty lines that protects a machine and survives its loss.

mod accept;
mod disk_copy;
mod disks;
mod event;
mod inquiry;
mod line;
mod net_loop;
mod primary;
mod primary_engine;
mod primary_net;
mod recorder;
mod secondary;
mod secondary_engine;
mod secondary_net;
mod stopped;
mod wake;

#[cfg(test)]
mod tests;

pub use event::{Event, EventSender, Events, Outcome};
pub use inquiry::{PeerAnswer, inquire};
pub use primary::{NotStarted, PrimaryController, PrimarySession, PrimarySessionConfig, SaveLayer};
pub use recorder::RecordConfig;
pub use secondary::{RestoreLayer, SecondaryController, SecondarySession, SecondarySessionConfig};

use crate::domain::DomainError;
use crate::peer::PeerError;
use std::path::PathBuf;
use std::time::Duration;

/// Between two heartbeats, unless told otherwise; five missed are a death. See [`crate::failover::Detector`].
pub const HEARTBEAT: Duration = Duration::from_millis(100);

/// What becomes of a machine that runs on this side without protection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum WhenUnprotected {
    /// The session goes on, and carries the machine's packets, until it is told to stop or the machine ends. For machines that end with
    /// the session's process.
    #[default]
    Serve,
    /// The session ends, the machine runs on, and its cards go back to where they came from. For machines that outlive their handles, as
    /// Xen's domains do; one that does not would end.
    Leave,
}

/// How long connecting and greeting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a session could not begin.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer could not be reached, or does not speak our language.
    #[error("{peer}: {source}")]
    Peer {
        /// Where.
        peer: String,
        /// Why.
        source: PeerError,
    },
    /// The peer said no.
    #[error("{peer} refused: {reason}")]
    Refused {
        /// Where.
        peer: String,
        /// Its words.
        reason: String,
    },
    /// The peer does not keep to the protocol from the start.
    #[error("{peer} is no colo secondary: {what}")]
    Greeting {
        /// Where.
        peer: String,
        /// What it did.
        what: &'static str,
    },
    /// The file for miscompares cannot be used.
    #[error("{}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The domain, or the clients' network.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// A call into the system failed.
    #[error("{call}: {source}")]
    Sys {
        /// What was tried.
        call: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
