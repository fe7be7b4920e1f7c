//! What saving and restoring a paravirtualised (PV) guest asks for beyond copying pages. A PV guest knows which machine frames it
//! runs in: its page tables, its vCPUs and some of its data name them by their machine frame number (mfn). On another host the
//! frames are others. So a saver *normalises*: it replaces each mfn by the guest's own number of the page (pfn). A restorer
//! *localises*: the other way round, with the frames that it has allocated.
//!
//! * [`GuestWidth`]: guests are of 32 bits (PAE, 3 levels of page tables) or 64 bits (4 levels).
//! * [`page_table`]: a page that is a page table.
//! * [`p2m`]: the guest's table of its frames: found and read on one host, built and written on the other.
//! * [`vcpu`]: a vCPU's registers. [`start_info`], [`shared_info`]: the pages by which the guest and the host know each other.
//! * [`flush`]: the order in which a checkpoint is put into a guest that has run since the last. [`twin`]: into which frames, and what.
//!
//! All of it takes bytes and gives bytes; whatever comes from the guest or the stream is taken for hostile. What Xen must be
//! asked for comes by small traits: [`FrameToPfn`], [`PfnToFrame`], [`MachineToPfn`], [`ReadFrames`].
//!
//! ```
//! use colo_core::ids::{Mfn, PAGE_SIZE, Pfn};
//! use colo_core::xen::pv::page_table::{Normalised, TableFormat, localise, normalise};
//! use colo_core::xen::pv::{FrameToPfn, GuestState, GuestWidth, PfnToFrame};
//!
//! // A guest of 8 pages, in the frames from 0x100 on; restored into the frames from 0x200 on.
//! struct From(u64);
//! impl FrameToPfn for From {
//!     fn pfn_of(&self, frame: Mfn) -> Option<Pfn> {
//!         frame.0.checked_sub(self.0).filter(|pfn| *pfn < 8).map(Pfn)
//!     }
//! }
//! impl PfnToFrame for From {
//!     fn frame_of(&self, pfn: Pfn) -> Option<Mfn> {
//!         (pfn.0 < 8).then_some(Mfn(self.0 + pfn.0))
//!     }
//!     fn pfn_limit(&self) -> u64 {
//!         8
//!     }
//! }
//!
//! let mut table = [0; PAGE_SIZE];
//! table[8..16].copy_from_slice(&0x8000_0000_0010_3067_u64.to_le_bytes()); // frame 0x103
//! let format = TableFormat { width: GuestWidth::Bits64, compat_m2p: None };
//! assert_eq!(normalise(format, 1, GuestState::Suspended, &mut table, &From(0x100))?, Normalised::Done);
//! assert_eq!(table[8..16], 0x8000_0000_0000_3067_u64.to_le_bytes());
//! localise(1, &mut table, &From(0x200))?;
//! assert_eq!(table[8..16], 0x8000_0000_0020_3067_u64.to_le_bytes());
//! # Ok::<(), colo_core::xen::pv::page_table::TableFault>(())
//! ```

mod field;
pub mod flush;
pub mod p2m;
pub mod page_table;
mod physmap;
pub mod shared_info;
pub mod start_info;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod twin;
pub mod vcpu;
mod width;

pub use p2m::{P2m, P2mChange, P2mEntry, P2mError, P2mLimits, P2mReader, ReadFrames, RestoredP2m, RestoredP2mError};
pub use physmap::{FrameToPfn, MachineToPfn, PfnToFrame, Physmap};
pub use width::GuestWidth;

/// Whether the guest can change what is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestState {
    /// It runs: what is read may be half of an update, and will be looked at again.
    Running,
    /// It is suspended: what is wrong now is wrong.
    Suspended,
}
