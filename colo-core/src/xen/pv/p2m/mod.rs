//! The p2m: a PV guest's table of the frames that its pages are in. The guest keeps it in its own memory; the number of entries
//! and the way to it are in its [shared info](super::shared_info). There are two ways, and both end at the same pages:
//!
//! ```text
//! three-level list   frame_list_list -> frames of lists -> frames of the p2m      (older guests)
//! linear             p2m_cr3 -> page tables, for the addresses from p2m_vaddr on -> frames of the p2m
//! ```
//!
//! * [`P2mReader`] finds and reads the table of a guest that is saved: a [`P2m`]. It can [read it again](P2mReader::refresh), as a
//!   guest that runs gives pages up, gets some, and may make its table longer.
//! * [`RestoredP2m`] is the table that grows while a guest is restored, and at the end is written over the guest's.

mod discover;
mod restored;
mod table;
#[cfg(test)]
mod tests;

pub use discover::P2mReader;
pub use restored::{P2mPage, RestoredP2m, RestoredP2mError};
pub use table::{P2m, P2mChange, P2mEntry};

use crate::ids::{Mfn, Page, Pfn};
use std::io;

/// Reads frames of a guest's memory.
pub trait ReadFrames {
    /// Copies these frames, in their order, into as many pages. When the guest runs, each aligned 8-byte word must be read at
    /// once: the guest writes entries atomically.
    ///
    /// # Errors
    /// When a frame is not the guest's, or cannot be read.
    fn read_frames(&mut self, frames: &[Mfn], pages: &mut [Page]) -> io::Result<()>;
}

/// How much of a guest's table is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct P2mLimits {
    /// The most entries that the table may have, without those at its end that cannot hold any page.
    pub entries: u64,
}

impl Default for P2mLimits {
    /// 2^28 entries: a guest of 1 TiB, for which this process holds 2 GiB.
    fn default() -> Self {
        P2mLimits { entries: 1 << 28 }
    }
}

/// The most entries that a guest may claim: as many as an X86_PV_P2M_FRAMES record can name. A guest whose memory may grow claims
/// many more than it has, and lets all those at the end share one page that says that there is nothing.
const MAX_CLAIMED_ENTRIES: u64 = 1 << 32;

/// Why a guest's p2m could not be read.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum P2mError {
    /// The guest has not said where its table is; it may not have booted so far.
    #[error("the guest has no p2m (yet)")]
    NotSetUp,
    /// The guest's table has more entries than can be.
    #[error("the guest's p2m has {entries} entries, but the limit is {limit}")]
    TooLong {
        /// Entries.
        entries: u64,
        /// The limit.
        limit: u64,
    },
    /// The guest maps its table where no such guest can map anything of its own.
    #[error("the guest's p2m of {entries} entries at address {vaddr:#x}")]
    BadAddress {
        /// The address of its beginning.
        vaddr: u64,
        /// Entries.
        entries: u64,
    },
    /// A step on the way to the table leads to no frame, or to a superpage.
    #[error("{what}[{index}] of the guest's p2m is {value:#x}, which is no frame")]
    BadFrame {
        /// Which list or level of page tables.
        what: &'static str,
        /// Where in it, counted from the first entry that is of use.
        index: u64,
        /// What stands there.
        value: u64,
    },
    /// The table is in frames that are not the guest's.
    #[error("frame {index} of the guest's p2m is {frame}, which is not the guest's")]
    NotInPhysmap {
        /// Which of the table's frames.
        index: usize,
        /// The frame.
        frame: Mfn,
    },
    /// The guest kept changing the mapping of its table while it was read.
    #[error("the guest is changing its p2m; try again later")]
    Changing,
    /// A frame could not be read.
    #[error("{what} of the guest's p2m cannot be read: {source}")]
    Read {
        /// Which list or level of page tables.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// The mark of an entry that has no frame: all ones, as both Xen's tools and guests write it.
const INVALID_ENTRY: u64 = u64::MAX;

fn pfn_index(pfn: Pfn) -> Option<usize> {
    usize::try_from(pfn.0).ok()
}
