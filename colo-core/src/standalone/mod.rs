//! A comparator that stands alone, in QEMU's place: `colo compare`.
//!
//! ```text
//! primary's QEMU    (filter-redirector, outdev) --> primary-in   --\              /--> out --> (filter-redirector, indev) primary's QEMU
//!                                                                   comparator --<
//! secondary's QEMU  (filter-redirector, outdev) --> secondary-in --/              \--> notify <--> toolstack
//! ```
//!
//! It listens at all of these, with one connection at a time at each, in one thread that sleeps in one `poll`. What it speaks there:
//! [`net::qemu`](crate::net::qemu). How QEMU and Xen's toolstack are made to use it: `docs/compare.md`.
//!
//! **Checkpoints** are the toolstack's. When the machines differ it is asked for one, by `notify`, and what is held waits. When it says
//! that it has taken one, the primary's frames leave, in order, and the secondary's of before are forgotten, those too that lie unread
//! in the socket. Frames of the primary that lie unread may be older than the checkpoint or not, as the format has no epochs; they are
//! compared, for that can only cost another checkpoint.
//!
//! Without `notify` nobody takes checkpoints. Then a difference is logged, and all that is held leaves at once: the machines are
//! watched, and not protected.
//!
//! **When a connection is lost**, what it has carried stays what it was:
//!
//! * primary-in: what is held of the primary leaves as if it were there. The rest of a frame that was cut off never comes.
//! * secondary-in: nothing more agrees. After the time-out a checkpoint is asked for.
//! * out: what has not left waits for the next connection, first the frame that the old one did not get whole. What the old one had
//!   in its buffers is gone, as on a cable.
//! * notify: a checkpoint that was asked for, and not taken, is asked for again.
//!
//! **Limits.** Frames of both machines are held within [`CompareConfig`]'s. When those of the one are reached its socket is not read any
//! more, so that the machine waits; but only for [`HOLD_BACK`]. For QEMU waits inside of a write, with all that it does: also with what
//! `out` carries, and with its part of the checkpoint that would make room. After that the secondary's frames are forgotten, which only
//! a checkpoint mends, and the primary's are lost. `out` never holds anybody back: it may have 16 MiB waiting, besides what a
//! checkpoint lets go, and what is too much is lost. All that is lost is counted and told.
//!
//! ```
//! use colo_core::net::qemu::encode_frame;
//! use colo_core::net::testing::udp;
//! use colo_core::standalone::{Address, Server, ServerConfig};
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//!
//! let path = |name: &str| std::env::temp_dir().join(format!("colo-doc-{}-{name}", std::process::id()));
//! let at = |name: &str| Address::Unix(path(name));
//! let mut server = Server::bind(&ServerConfig::new(at("primary"), at("secondary"), at("out")))?;
//! let (stop, stopper) = UnixStream::pair()?;
//! let running = std::thread::spawn(move || server.run(&stop).map(|()| server.totals()));
//!
//! let mut wire = Vec::new();
//! encode_frame(&udp(53, 4000, b"an answer"), None, &mut wire);
//! let connect = |name: &str| UnixStream::connect(path(name));
//! let (mut primary, mut secondary, mut out) = (connect("primary")?, connect("secondary")?, connect("out")?);
//! primary.write_all(&wire)?;
//! secondary.write_all(&wire)?;
//! let mut left = vec![0; wire.len()];
//! out.read_exact(&mut left)?;
//! assert_eq!(left, wire);
//!
//! drop(stopper); // readable: end of file
//! let totals = running.join().unwrap()?;
//! assert_eq!((totals.counters.released_frames, totals.sent_frames), (1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod door;
mod inlet;
mod judge;
mod notifier;
mod outlet;
mod rarely;
mod server;
mod totals;

pub use address::{Address, AddressParseError};
pub use server::Server;
pub use totals::Totals;

use crate::compare::CompareConfig;
use std::io;
use std::time::Duration;

/// How long a frame of the one machine waits for the other's, unless told otherwise: as long as in QEMU.
pub const COMPARE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a machine is held back, unless told otherwise: longer than most checkpoints take, and far less than toolstacks wait for an
/// answer of QEMU's.
pub const HOLD_BACK: Duration = Duration::from_secs(1);

/// Where a server listens, and how it compares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// Where the primary's frames come in.
    pub primary_in: Address,
    /// Where the secondary's frames come in, in the primary's sequence numbers: QEMU's `filter-rewriter` has seen to that.
    pub secondary_in: Address,
    /// Where released frames go out.
    pub out: Address,
    /// Where the toolstack connects, if there is one.
    pub notify: Option<Address>,
    /// Whether frames have vnet headers (`vnet_hdr_support`).
    pub vnet_header: bool,
    /// How to compare, and how much to hold.
    pub compare: CompareConfig,
    /// How long a machine is held back when too much of it is held.
    pub hold_back: Duration,
}

impl ServerConfig {
    /// Without notify and vnet headers, and with QEMU's time-out.
    pub fn new(primary_in: Address, secondary_in: Address, out: Address) -> Self {
        let compare = CompareConfig { timeout: COMPARE_TIMEOUT, ..CompareConfig::default() };
        ServerConfig { primary_in, secondary_in, out, notify: None, vnet_header: false, compare, hold_back: HOLD_BACK }
    }
}

/// It cannot be listened at an address. `AddrInUse`: somebody else does.
#[derive(thiserror::Error, Debug)]
#[error("cannot listen at {address} for {name}")]
pub struct BindError {
    /// What for: the command's option, without its dashes.
    pub name: &'static str,
    /// Where.
    pub address: Address,
    /// Why.
    pub source: io::Error,
}
