//! The order in which a checkpoint is put into a PV secondary that has run meanwhile.
//!
//! Xen watches over the pages that are page tables: whoever maps such a page writable is refused, and a page is one as long as a
//! vCPU uses it, another table names it, or it is *pinned*. What makes a page a table is costly: Xen checks every entry. So the
//! tables that change must stop to be tables, be written, and become tables again, and those that do not change should stay what
//! they are. Tables of level 1 are by far the most; they are kept by a pin of our own. With *D* the pages that either guest has
//! dirtied since both were the same:
//!
//! ```text
//! 1. shield     pin  every table of level 1 outside D that the secondary has not pinned
//! 2. unpin           every pinned table of level 2 to 4, and those of level 1 in D
//! 3. write           every page of D that the primary has, and tell Xen its number (MMU_MACHPHYS_UPDATE) if its frame is new
//! 4. pin             what the primary has pinned, but for level 1 outside D
//! 5. unshield unpin  every table of level 1 outside D that the primary has not pinned
//! ```
//!
//! Before, the vCPUs must have let go of their page tables and GDTs (`XEN_DOMCTL_setvcpucontext` with no context), and get theirs
//! of the checkpoint after. This is the order of COLO's first implementation for Xen.
//!
//! ```
//! use colo_core::domain::DirtyBitmap;
//! use colo_core::ids::Pfn;
//! use colo_core::stream::PageType::{L1, L2Pinned, Normal};
//! use colo_core::xen::pv::flush::{Batch, FlushPlan};
//!
//! // An L2 that is to map two L1s; the secondary's does not map the second, which was data.
//! let (secondary, primary) = ([L2Pinned, L1, Normal], [L2Pinned, L1, L1]);
//! let mut dirty = DirtyBitmap::new(3);
//! dirty.set(Pfn(0));
//! dirty.set(Pfn(2));
//! let plan = FlushPlan::new(&secondary, &primary, &dirty)?;
//! let batches: Vec<_> = plan.batches().collect();
//! assert_eq!(
//!     batches,
//!     [
//!         Batch::Pin(&[(Pfn(1), 1)]),
//!         Batch::Unpin(&[Pfn(0)]),
//!         Batch::Write(&[Pfn(0), Pfn(2)]),
//!         Batch::Pin(&[(Pfn(0), 2)]),
//!         Batch::Unpin(&[Pfn(1)]),
//!     ]
//! );
//! # Ok::<(), colo_core::xen::pv::flush::FlushError>(())
//! ```

use crate::domain::{DirtyBitmap, MAX_BATCH_PAGES};
use crate::ids::Pfn;
use crate::stream::PageType;

#[cfg(test)]
mod tests;

/// Why a checkpoint cannot be put into a secondary that has run.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum FlushError {
    /// A page that nobody has dirtied is a table here and not there, or one of another level. Xen's dirty log has a page when it
    /// becomes a table and when it stops to be one, so the types or the dirty pages are not those of now. Where dirty pages are
    /// found without that log, [`type_changes`] must be added to them.
    #[error("{pfn} is {secondary:?} on the secondary and {primary:?} on the primary, but not dirty")]
    CleanButDifferent {
        /// The page.
        pfn: Pfn,
        /// What it is on the secondary.
        secondary: PageType,
        /// What it is on the primary.
        primary: PageType,
    },
}

/// The pages that are a table on one side and not on the other, or one of another level, lowest first: they have to be written
/// even if their bytes in the stream have not changed.
pub fn type_changes<'a>(secondary: &'a [PageType], primary: &'a [PageType]) -> impl Iterator<Item = Pfn> + 'a {
    let pages = secondary.len().max(primary.len());
    let differs =
        move |index: &usize| type_at(secondary, *index).table_level() != type_at(primary, *index).table_level();
    (0..pages).filter(differs).map(|index| Pfn(index as u64))
}

/// The steps of a flush, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlushPlan {
    shield: Vec<(Pfn, u8)>,
    unpin: Vec<Pfn>,
    write: Vec<Pfn>,
    pin: Vec<(Pfn, u8)>,
    unshield: Vec<Pfn>,
}

/// A part of a flush: 1 to [`MAX_BATCH_PAGES`] pages, for one hypercall or one mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Batch<'a> {
    /// Pin these tables, each of its level (`MMUEXT_PIN_L1_TABLE` and so on).
    Pin(&'a [(Pfn, u8)]),
    /// Unpin these tables (`MMUEXT_UNPIN_TABLE`).
    Unpin(&'a [Pfn]),
    /// Write these pages.
    Write(&'a [Pfn]),
}

impl FlushPlan {
    /// Plans the flush, from what the pages are on both sides, page 0 first, and the pages that either side has dirtied. A page
    /// beyond the end of a list is none. For the first flush, into a domain that has never run, all pages are dirty.
    ///
    /// # Errors
    /// [`FlushError`]: the secondary must not be touched then.
    pub fn new(secondary: &[PageType], primary: &[PageType], dirty: &DirtyBitmap) -> Result<FlushPlan, FlushError> {
        let mut plan = FlushPlan::default();
        for index in 0..secondary.len().max(primary.len()) {
            let (ours, theirs) = (type_at(secondary, index), type_at(primary, index));
            let pfn = Pfn(index as u64);
            let is_dirty = dirty.contains(pfn);
            if !is_dirty && ours.table_level() != theirs.table_level() {
                return Err(FlushError::CleanButDifferent { pfn, secondary: ours, primary: theirs });
            }
            plan.add(pfn, ours, theirs, is_dirty);
        }
        Ok(plan)
    }

    /// The pages that will be written, lowest first: those in *D* that the primary has.
    pub fn written(&self) -> &[Pfn] {
        &self.write
    }

    /// The steps, in order.
    pub fn batches(&self) -> impl Iterator<Item = Batch<'_>> {
        let shield = self.shield.chunks(MAX_BATCH_PAGES).map(Batch::Pin);
        let unpin = self.unpin.chunks(MAX_BATCH_PAGES).map(Batch::Unpin);
        let write = self.write.chunks(MAX_BATCH_PAGES).map(Batch::Write);
        let pin = self.pin.chunks(MAX_BATCH_PAGES).map(Batch::Pin);
        let unshield = self.unshield.chunks(MAX_BATCH_PAGES).map(Batch::Unpin);
        shield.chain(unpin).chain(write).chain(pin).chain(unshield)
    }

    fn add(&mut self, pfn: Pfn, ours: PageType, theirs: PageType, is_dirty: bool) {
        let keeps_its_type = !is_dirty && theirs.table_level() == Some(1);
        if keeps_its_type {
            if !ours.is_pinned() {
                self.shield.push((pfn, 1));
            }
            if !theirs.is_pinned() {
                self.unshield.push(pfn);
            }
            return;
        }
        if ours.is_pinned() {
            self.unpin.push(pfn);
        }
        if is_dirty && theirs.has_data() {
            self.write.push(pfn);
        }
        if let Some(level) = theirs.table_level().filter(|_| theirs.is_pinned()) {
            self.pin.push((pfn, level));
        }
    }
}

/// What a page is, or that there is none.
fn type_at(types: &[PageType], index: usize) -> PageType {
    types.get(index).copied().unwrap_or(PageType::Invalid)
}
