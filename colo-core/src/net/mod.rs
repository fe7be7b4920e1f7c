//! Where packets come from and go to.
//!
//! Everything that carries Ethernet frames is a [`Port`]: the host's end of a guest's network card, the way to the clients'
//! network, a pair of queues in memory ([`memory`]). The session polls ports by their file descriptors, takes what they have
//! in batches, and never waits inside one.
//!
//! * [`sys`]: Linux' own devices, TAPs and packet sockets.
//! * [`takeover`]: a guest's card taken out of its bridge, and put back, whatever happens.
//! * [`gate`]: what the primary's guest says is held here until it may be said.
//! * [`rewrite`]: the secondary's sequence numbers, made to agree with what the client has seen.
//! * [`qemu`]: frames in the sockets of QEMU's network filters.
//! * [`socket_file`]: Unix sockets in the file system.
//! * [`late`]: a port whose device comes later.
//! * [`announce`]: whose addresses a machine has, and the gratuitous ARP that tells a switch where it went.

pub mod announce;
pub(crate) mod checksum;
mod frame;
pub mod gate;
pub(crate) mod ip;
pub mod late;
mod lru;
pub mod memory;
pub mod qemu;
pub mod rewrite;
mod seq;
pub mod socket_file;
pub mod standby;
pub mod sys;
pub mod takeover;
#[doc(hidden)]
pub mod testing;
pub(crate) mod wire;

pub use frame::{Frame, Offload};
pub use ip::Vlans;
pub(crate) use lru::{LruTable, SlotId};
pub use seq::Seq;

use std::io;
use std::os::fd::BorrowedFd;

/// The longest Ethernet frame that a [`Port`] carries: the longest IP packet behind two VLAN tags, for cards that segment by themselves.
pub const MAX_FRAME_BYTES: usize = 65_535 + 14 + 2 * 4;

/// The most frames taken from a port at once: enough to spread the cost of a poll, few enough to stay in the cache.
pub const MAX_BATCH_FRAMES: usize = 256;

/// Something that carries Ethernet frames. No call waits.
pub trait Port: Send {
    /// Readable when [`Port::receive`] may have something.
    fn poll_fd(&self) -> BorrowedFd<'_>;

    /// Appends what has arrived to `frames`, at most [`MAX_BATCH_FRAMES`], and returns how many; 0 when there is nothing. More may be
    /// waiting even though `poll_fd` is not readable only if the full number was returned.
    ///
    /// # Errors
    /// When the port is gone for good, such as `UnexpectedEof` when the other end closed.
    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize>;

    /// Whether what is received here has left the guest's memory for good: a copy of that memory does not have it any more. A ring in guest
    /// memory, on the other hand, has what was not received from it, in each copy.
    fn has_left_guest(&self) -> bool {
        false
    }

    /// Sends the frames in order and returns how many were taken: fewer than given when the other side has no room now.
    ///
    /// # Errors
    /// When the port is gone for good.
    fn send(&mut self, frames: &[Frame]) -> io::Result<usize>;

    /// Takes back what was sent and is still on its way to the guest, in order, and returns how many frames that is: its memory does not
    /// have them. Called while the guest stands still. A port has none where nothing is on its way, or where nobody can tell.
    ///
    /// # Errors
    /// When the port is gone for good.
    fn take_back(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let _ = frames;
        Ok(0)
    }
}
