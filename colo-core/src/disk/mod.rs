//! The secondary's disks: what the primary's guest writes arrives here epoch by epoch, and counts only when the checkpoint that covers it
//! does; what the secondary's own guest writes is kept apart, until it serves or is thrown away.
//!
//! ```text
//!   the secondary's guest reads from the top, and writes the overlay
//!
//!   overlay      its own writes since the last commit    commit: forgotten          failover: an epoch of its own
//!   -------
//!   open         what the primary has written since      barrier: closed            failover: forgotten
//!   closed       whole epochs that do not count yet      commit: counts             failover: forgotten
//!   -------
//!   committed    epochs that count                       by and by: folded
//!   folding      epochs on their way to the disks
//!   disks        at one epoch, or behind it
//! ```
//!
//! (The guest does not see `open` and `closed`.) Everything that is the primary's is written to a journal first, and a commit is a record in
//! it. The disks themselves are written only from epochs whose commit is durable there: so after a crash at any moment they are brought to
//! exactly one epoch, all of them to the same, by doing once more what the journal says. A commit moves a pointer, whatever waits.
//!
//! [`EpochStore`] does no input or output: it says what is to be done ([`Action`]), and is told when that is done. [`Volume`] does it, on files.
//!
//! ```
//! use colo_core::disk::{EpochStore, Source, StoreConfig};
//! use colo_core::ids::Epoch;
//!
//! let mut store = EpochStore::new(StoreConfig::default(), &[1 << 20], Epoch(7), 0x5eed);
//! let _ = store.write(0, 0..512, vec![1; 512].into())?;
//! store.write_overlay(0, 256..768, vec![2; 512].into())?;
//! store.barrier(Epoch(8))?;
//! let (_, pieces) = store.read(0, 0..1024)?;
//! assert_eq!((pieces[0].clone(), pieces[1].0.clone()), ((0..256, Source::Disk), 256..768));
//! store.commit(Epoch(8))?;
//! let (_, pieces) = store.read(0, 0..1024)?;
//! assert_eq!((pieces[0].0.clone(), pieces[1].clone()), (0..512, (512..1024, Source::Disk)));
//! # Ok::<(), colo_core::disk::StoreError>(())
//! ```

mod backend;
mod content;
pub mod control;
mod extents;
pub mod journal;
mod layer;
pub mod nbd;
mod rate;
mod replica;
mod segments;
mod shared_file;
mod store;
mod summed;
mod target;
#[cfg(test)]
mod tests;
mod volume;

pub use backend::{Allocation, Backend, DiskError, FileBackend};
pub use content::{Change, Content};
pub use extents::{Cut, ExtentMap};
pub use rate::{Pace, Rate};
pub use replica::{
    Compared, CopyProgress, Difference, DiskEvent, DiskState, DiskStatus, Durability, OnDiskEvent, OnVerifyEvent,
    PrimaryDisks, Replica, ReplicaConfig, ReplicaDisk, ReplicaError, SecondaryDisks, Tap, TapConfig, TapDisk,
    Verification, VerifyError, VerifyEvent,
};
pub use shared_file::SharedFile;
pub use store::{
    Action, ActionId, EpochStore, Garbage, Piece, ReadId, RecoverError, Source, StoreConfig, StoreError, Taken,
};
pub use summed::Summed;
pub use volume::{Volume, VolumeDisk, VolumeError};

/// The most disks of one machine.
pub const MAX_DISKS: usize = 16;
