//! A PV guest that takes over another's state, again and again, in the frames that it has: which frame each page is in
//! ([`settle`]), and what must be in them ([`LocalPages`]).
//!
//! A [`RestoredP2m`] holds both sides: the frames are the secondary's, the types the primary's. Either guest's balloon may have given pages
//! back, or taken some, since both were last the same.
//!
//! ```
//! use colo_core::ids::{Mfn, PAGE_SIZE, Pfn};
//! use colo_core::stream::PageType;
//! use colo_core::xen::pv::twin::{Settled, settle};
//! use colo_core::xen::pv::{GuestWidth, PfnToFrame, RestoredP2m};
//!
//! // The secondary has pages 0 and 2, the primary 0 and 1.
//! let mut p2m = RestoredP2m::new(GuestWidth::Bits64, 3);
//! p2m.grow(3)?;
//! p2m.set_frame(Pfn(0), Mfn(0x70))?;
//! p2m.set_frame(Pfn(2), Mfn(0x72))?;
//! p2m.set_type(Pfn(2), PageType::Invalid)?;
//! let mut types = vec![PageType::Normal, PageType::Invalid, PageType::L1];
//! assert_eq!(settle(&mut p2m, &mut types), Settled { moved: vec![Pfn(1)], ..Settled::default() });
//! assert_eq!((p2m.frame_of(Pfn(1)), types[1]), (Some(Mfn(0x72)), PageType::L1));
//! # Ok::<(), colo_core::xen::pv::RestoredP2mError>(())
//! ```

use super::PfnToFrame;
use super::p2m::{RestoredP2m, RestoredP2mError};
use super::page_table::{TableFault, localise};
use crate::ids::{Page, Pfn};
use crate::stream::PageType;
use std::collections::HashMap;

#[cfg(test)]
mod tests;

/// What has become of the secondary's frames.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Settled {
    /// Pages that have got the frame of one that the primary does not have. What is in it is of no use.
    pub moved: Vec<Pfn>,
    /// Pages that the primary has, and for which there is no frame: they need memory.
    pub missing: Vec<Pfn>,
    /// Pages that the primary does not have: their frames are to be given back, once nothing uses them any more.
    pub surplus: Vec<Pfn>,
}

/// Whether a page of that type is one that the guest has.
pub fn wants_memory(page_type: PageType) -> bool {
    !matches!(page_type, PageType::Invalid | PageType::Broken)
}

/// Gives the frames of pages that only the secondary has to pages that only the primary has. `types` says what the frames are to the secondary,
/// page 0 first; it follows them.
///
/// # Panics
/// When there are fewer `types` than pages in the table.
pub fn settle(p2m: &mut RestoredP2m, types: &mut [PageType]) -> Settled {
    let mut settled = Settled::default();
    for pfn in (0..p2m.pfn_limit()).map(Pfn) {
        match (p2m.frame_of(pfn).is_some(), wants_memory(p2m.type_of(pfn))) {
            (true, false) => settled.surplus.push(pfn),
            (false, true) => settled.missing.push(pfn),
            _ => {}
        }
    }
    while let (Some(to), Some(from)) = (settled.missing.last().copied(), settled.surplus.last().copied()) {
        // All of them are below the table's end, and a frame that it had it can hold.
        let moved = p2m.take_frame(from).ok().flatten().is_some_and(|frame| p2m.set_frame(to, frame).is_ok());
        assert!(moved, "a frame of the table fits the table");
        types[to.0 as usize] = std::mem::replace(&mut types[from.0 as usize], PageType::Invalid);
        settled.missing.pop();
        settled.surplus.pop();
        settled.moved.push(to);
    }
    settled
}

/// Why the primary's memory cannot be had here.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum LocalError {
    /// Its table of frames.
    #[error(transparent)]
    P2m(#[from] RestoredP2mError),
    /// One of its page tables.
    #[error("{pfn}: {fault}")]
    Table {
        /// The page.
        pfn: Pfn,
        /// What is wrong with it.
        fault: TableFault,
    },
}

/// The primary's memory as it must be in this host's frames: page tables and the guest's own table of frames name those.
pub struct LocalPages<'a, 'p> {
    received: &'a dyn Fn(Pfn) -> &'p Page,
    own: HashMap<Pfn, Box<Page>>,
}

impl<'a, 'p> LocalPages<'a, 'p> {
    /// Of the primary's memory in the stream's terms: what is in each page that has content.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn new(p2m: &RestoredP2m, received: &'a dyn Fn(Pfn) -> &'p Page) -> Result<Self, LocalError> {
        let mut pages = LocalPages { received, own: HashMap::new() };
        for (pfn, page_type) in (0..).map(Pfn).zip(p2m.types()) {
            if let Some(level) = page_type.table_level() {
                let fault = |fault| LocalError::Table { pfn, fault };
                localise(level, pages.own(pfn), p2m).map_err(fault)?;
            }
        }
        for part in p2m.table_pages()? {
            pages.own(part.pfn)[..part.bytes().len()].copy_from_slice(part.bytes());
        }
        Ok(pages)
    }

    /// What must be in a page.
    pub fn page(&self, pfn: Pfn) -> &Page {
        match self.own.get(&pfn) {
            Some(page) => page,
            None => (self.received)(pfn),
        }
    }

    /// The pages that are not as they were received, in no order.
    pub fn changed(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.own.keys().copied()
    }

    /// A copy of a page, to be changed.
    fn own(&mut self, pfn: Pfn) -> &mut Page {
        let received = self.received;
        self.own.entry(pfn).or_insert_with(|| Box::new(*received(pfn)))
    }
}
