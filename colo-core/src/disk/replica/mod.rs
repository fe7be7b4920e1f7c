//! A machine's disks on both hosts: what its guest writes on the primary goes to the secondary, too, and counts there with the checkpoint
//! that covers it.
//!
//! A connection of its own carries it, which a session opens beside its other two for a machine that has disks:
//!
//! ```text
//!        primary                                              secondary
//!           | Hello, Welcome                                     |
//!           | DiskHashesWanted: disk 0, 0 to 4 MiB ------------> |  first copy: what differs is found by hashes,
//!           | <------------------- DiskHashes: one for each part |
//!           | DiskWrite, DiskZeroes: parts that differ --------> |  and goes straight to the disks,
//!           | DiskWrite, DiskZeroes: the guest's own ----------> |  in the order in which the guest made them
//!  suspend  | DiskBarrier 1 -----------------------------------> |  both are the same: from here on there are epochs
//!           | DiskWrite, DiskZeroes: the guest's own ----------> |  kept aside, in the journal
//!           | DiskFlush 7 -------------------------------------> |  where a flush must be safe here before it is done there
//!           | <-------------------------------------- DiskFlushed 7
//!  suspend  | DiskBarrier 2 -----------------------------------> |  epoch 2 is whole, and counts when checkpoint 2 is applied
//!           | DiskHashesWanted: disk 0, 0 to 64 KiB -----------> |  on request: a comparison, at any time,
//!           | <------------------- DiskHashes: what the primary has there by what it has said
//! ```
//!
//! [`PrimaryDisks`] and [`SecondaryDisks`] are what a session knows of it; [`Tap`] and [`Replica`] do it within one process.

mod primary;
mod secondary;
mod status;
mod verify;

pub use primary::{Durability, Tap, TapConfig, TapDisk, Verification};
pub use secondary::{Replica, ReplicaConfig, ReplicaDisk, ReplicaError};
pub use status::{CopyProgress, DiskState, DiskStatus};
pub use verify::{Compared, Difference, OnVerifyEvent, VerifyError, VerifyEvent};

use super::DiskError;
use crate::ids::Epoch;
use crate::peer::StateChannel;
use std::time::Instant;

/// What the disks of a machine that is being protected have to say, from a thread of their own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskEvent {
    /// Bytes that were looked at, of all that there are, while what differs is copied.
    Copying {
        /// So many are known to be the same.
        done_bytes: u64,
        /// Of so many.
        all_bytes: u64,
        /// So many were sent, since they differed.
        sent_bytes: u64,
    },
    /// The secondary has what the primary has: protection may begin.
    InStep,
    /// So much waits for a checkpoint that there should be one.
    WantsCheckpoint,
    /// A disk of this host's has failed, and the secondary's has not: so that the guest does not hear of it, the other side is to take over.
    /// What failed is answered when nothing is attached any more, and not before. Told once, by the thread of the request that has failed.
    Failed(String),
    /// The secondary's disks have failed, or the way to them: there will be no more checkpoints.
    Lost(String),
}

/// Takes [`DiskEvent`]s. Must not wait.
pub type OnDiskEvent = Box<dyn Fn(DiskEvent) + Send + Sync>;

/// The disks of a machine that serves. All of them together, since an epoch is one for all of them.
pub trait PrimaryDisks: Send {
    /// Begins to replicate over this connection, which has been greeted: the copy of what differs, and all that the guest writes from here
    /// on.
    ///
    /// # Errors
    /// [`DiskError`].
    fn attach(&mut self, channel: StateChannel, on_event: OnDiskEvent) -> Result<(), DiskError>;

    /// The machine is about to be suspended, and captured: until [`PrimaryDisks::thaw`] no request waits for a checkpoint. On return none
    /// touches the guest's memory, where that is in the hands of who has the disks; else whoever suspends the machine sees to that. A
    /// request that is under way then may be done in either epoch: the guest has not been told of it, and does it again where it goes on.
    fn freeze(&mut self);

    /// What was written before is of this epoch, and what is written later is not. While frozen.
    fn barrier(&mut self, epoch: Epoch);

    /// Goes on.
    fn thaw(&mut self);

    /// This epoch counts on the secondary: what belonged to it waits no more.
    fn committed(&mut self, epoch: Epoch);

    /// Replicates no more; the guest does not notice. Only where both hosts have the disks: what it writes may wait for
    /// [`PrimaryDisks::alone`] from here on.
    fn detach(&mut self);

    /// Whether the secondary's host has the same disks, and not a copy of them.
    fn is_shared(&self) -> bool {
        false
    }

    /// After a [`PrimaryDisks::detach`]: no other host goes on from an epoch of this machine's, now or later, and so nothing need stay on the
    /// disks as it was.
    fn alone(&mut self) {}
}

/// The disks of a machine that follows another.
pub trait SecondaryDisks: Send {
    /// Takes what comes over this connection, which has been greeted, for as long as it lasts.
    ///
    /// # Errors
    /// [`DiskError`].
    fn attach(&mut self, channel: StateChannel) -> Result<(), DiskError>;

    /// Waits until this epoch is here, as a whole, and there is room for it beside those that count and are not on the disks yet. Returns false
    /// when it will not come: the connection is gone, or the time is over.
    fn wait_barrier(&mut self, epoch: Epoch, deadline: Instant) -> bool;

    /// The machine is about to be stopped for a checkpoint: none of its requests waits for one any more, until [`SecondaryDisks::thaw`].
    fn release(&mut self);

    /// The machine stands still. On return no request of its is under way, until [`SecondaryDisks::thaw`]. Where that takes too long, the commit
    /// that follows fails.
    fn freeze(&mut self);

    /// The machine goes on.
    fn thaw(&mut self);

    /// Whether so much waits for a checkpoint that there should be one.
    fn wants_checkpoint(&self) -> bool;

    /// The machine's state has become that of this epoch, and it is frozen: what its guest had written since the last is forgotten.
    ///
    /// # Errors
    /// [`DiskError`]; the machine must not go on then.
    fn commit(&mut self, epoch: Epoch) -> Result<(), DiskError>;

    /// Whether the primary must be known to write no more before they take over, since both hosts have the same disks.
    fn needs_fence(&self) -> bool {
        false
    }

    /// That is known: the primary was fenced, or a person has said so.
    fn fenced(&mut self) {}

    /// The primary is gone, and the machine serves.
    ///
    /// # Errors
    /// [`DiskError`]; it must not. [`DiskError::NotPermitted`] when it [needs a fence](SecondaryDisks::needs_fence), and nothing was said of
    /// one since the connection.
    fn fail_over(&mut self) -> Result<(), DiskError>;
}

/// What is compared at a time, by a hash: small enough that little is sent for a change, large enough for few hashes.
const PART_BYTES: usize = crate::peer::HASHED_BYTES;

/// The hash that parts of disks are compared by: XXH3, of 128 bits, with a seed that is another for each copy.
fn hash_of(part: &[u8], seed: u64) -> u128 {
    xxhash_rust::xxh3::xxh3_128_with_seed(part, seed)
}
