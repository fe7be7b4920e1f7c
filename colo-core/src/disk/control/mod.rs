//! The way by which `colo primary` and `colo secondary` drive disks that another process serves: one that lives as long as the guest does,
//! while they come and go.
//!
//! A Unix socket of packets (`SOCK_SEQPACKET`), one message in each. A disk server has a [`ControlServer`] around its [`Tap`](super::Tap) or its
//! [`Replica`](super::Replica); [`ControlledPrimary`] and [`ControlledSecondary`] are that to a session, which drives the disks: one at a time. An
//! [`Observer`] only asks, and there may be several.
//!
//! ```text
//!        colo primary                        the primary's disk server       ... and likewise on the other host
//!           | <------ Hello: role, shared, sizes |
//!           | 1 Drive -------------------------> |
//!           | <-------------------------- Done 1 |  or No 1: another does
//!           | 2 Attach, and the disk channel --> |  the descriptor of a connection that has been greeted, and its numbers
//!           | <-------------------------- Done 2 |
//!           | <------------------ Event: copying |  at any time
//!           | <------------------ Event: in step |
//!           | 3 Freeze ------------------------> |
//!           | <-------------------------- Done 3 |
//!           | 4 Barrier: epoch 1 --------------> |
//!           | <-------------------------- Done 4 |
//!           | 5 Thaw --------------------------> |  its answer is not waited for
//!           | <-------------------------- Done 5 |
//!
//!        an observer
//!           | <------ Hello: role, shared, sizes |
//!           | 1 Status ------------------------> |
//!           | <------------------------ Status 1 |
//!           | 2 Verify ------------------------> |  its end ends it
//!           | <--------------------- Comparing 2 |  now and then
//!           | <---------------------- Compared 2 |  or NotCompared 2, with the reason
//! ```
//!
//! When a controller goes without a word, because its process was killed, nothing waits for it: what was frozen goes on, and the replication
//! ends. A guest on the primary's disks does not notice; the secondary's stay at the epoch that they are at, or serve on if they do.
//!
//! A packet is the version (`u8`), the kind (`u8`), the request's number (`u64`, from 1; 0 in what is no answer), and what the kind says;
//! numbers are little-endian. Anything else ends the connection.
//!
//! ```
//! use colo_core::disk::control::{ControlServer, ControlledPrimary, ServedDisks};
//! use colo_core::disk::{FileBackend, PrimaryDisks, Tap, TapConfig};
//! # let folder = std::env::temp_dir().join(format!("colo-doc-control-{}", std::process::id()));
//! # std::fs::create_dir(&folder)?;
//! # let path = folder.join("disk");
//! # let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
//! file.set_len(1 << 20)?;
//! let tap = Tap::new(vec![(std::sync::Arc::new(FileBackend::new(file)), 1 << 20)], TapConfig::default());
//! let server = ControlServer::start(&folder.join("control"), ServedDisks::Primary(tap))?;
//!
//! // In another process:
//! let mut disks = ControlledPrimary::connect(&folder.join("control"))?;
//! assert_eq!(disks.sizes(), [1 << 20]);
//! disks.freeze();
//! disks.thaw();
//! # drop((disks, server));
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod client;
mod connection;
mod controlled;
mod line;
mod observer;
mod packet;
mod served;
mod server;
mod wire;

pub use controlled::{ControlledPrimary, ControlledSecondary, Witness};
pub use observer::{Comparing, Observer};
pub use served::ServedDisks;
pub use server::ControlServer;
pub use wire::{Answer, MAX_PACKET_BYTES, Reported, Request, Role, Said};

use crate::peer::PayloadError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long a disk server may take for an answer before it is given up.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long it may take to take over: what has come since the last epoch that counts goes to the journal first, and that may be much, to a
/// device that is busy. Without its disks the only machine that is left would be given up.
pub const FAIL_OVER_WITHIN: Duration = Duration::from_secs(5 * 60);

/// Why there is no way to a disk server, or no more.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody is there.
    #[error("{}: {source}", path.display())]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process drives these disks.
    #[error("{}: another process drives this disk", .0.display())]
    InUse(PathBuf),
    /// The disks are there for the other part.
    #[error("{}: it serves the disk of a {has}, and that of a {wanted} is wanted", path.display())]
    Role {
        /// Where.
        path: PathBuf,
        /// What it is.
        has: Role,
        /// What it should be.
        wanted: Role,
    },
    /// The other side is of another release.
    #[error(
        "the other side speaks version {0} of the control protocol, this one version {VERSION}: restart both with one release"
    )]
    Version(u8),
    /// What comes is no message of this protocol.
    #[error("what comes makes no sense: {0}")]
    Malformed(#[from] PayloadError),
    /// There is no secondary, or none any more.
    #[error("{0}")]
    NotProtected(String),
    /// Disks are not compared, or not to their end.
    #[error("{0}")]
    NotCompared(String),
    /// A message that does not belong there.
    #[error("{0} does not belong there")]
    Unexpected(&'static str),
    /// It does not answer.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection is gone.
    #[error("the connection has ended")]
    Closed,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The version of the protocol.
pub const VERSION: u8 = 3;

impl From<rustix::io::Errno> for ControlError {
    fn from(errno: rustix::io::Errno) -> Self {
        ControlError::Io(errno.into())
    }
}
