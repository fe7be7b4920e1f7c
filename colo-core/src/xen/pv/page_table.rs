//! A page that is a page table: its mfns to pfns for the stream, and back to other mfns.
//!
//! An entry is 64 bits on both widths, all levels alike as far as this is concerned: bit 0 says that it is present, bit 7 in a
//! table of level 2 or 3 that it maps a superpage, bits 12 to 51 are the frame (Intel SDM volume 3A, sections "PAE Paging" and
//! "4-Level Paging"; AMD APM volume 2, "Long-Mode Page Translation"). All else is carried along: protection, what software keeps
//! in bits 9 to 11 and 52 to 58, protection keys, no-execute; and whole entries that are not present, where a guest keeps what it
//! likes, as where it swapped the page to.
//!
//! Some slots are Xen's own, in every guest's top table. They are left out of the stream; Xen of the other host fills in its own:
//!
//! | | slots |
//! | --- | --- |
//! | 64 bits, level 4 | 256 to 271 (addresses `0xFFFF_8000_0000_0000` to `0xFFFF_87FF_FFFF_FFFF`) |
//! | 32 bits, level 3 | 4 to 511: the guest has four, Xen uses the rest |
//! | 32 bits, level 2 | 428 to 511 (addresses from `0xF580_0000`) in the one that holds them, known by Xen's m2p in slot 428 |
//!
//! The module above has an example.

use super::{FrameToPfn, GuestState, GuestWidth, PfnToFrame};
use crate::ids::{Mfn, Page, Pfn};
use std::ops::RangeInclusive;
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{transmute_mut, transmute_ref};

/// Entries of a page table, of any level and width.
pub const TABLE_ENTRIES: usize = 512;

/// The entry maps something.
pub(super) const PRESENT: u64 = 1 << 0;
/// In a table of level 2 or 3: the entry maps a superpage. (At level 1 the bit is the PAT's.)
const PAGE_SIZE_BIT: u64 = 1 << 7;
/// Bits 12 to 51: the frame.
const FRAME_MASK: u64 = 0x000F_FFFF_FFFF_F000;
const FRAME_SHIFT: u32 = 12;

/// What of a guest decides how its tables are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableFormat {
    /// Its width.
    pub width: GuestWidth,
    /// The first frame of the m2p that Xen shows 32-bit guests (`XENMEM_machphys_compat_mfn_list`). Only a table that has it in
    /// the right place holds Xen's slots. Not looked at for 64-bit guests.
    pub compat_m2p: Option<Mfn>,
}

/// What became of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Normalised {
    /// It is ready for the stream.
    Done,
    /// The guest runs, and the table cannot be read right now: half of an update, a page that has stopped to be a table, or a
    /// mapping of another domain's page that may be gone when the guest is suspended. It must be sent later; what is in the
    /// buffer is of no use.
    Deferred(TableFault),
}

/// What is wrong with a page table.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum TableFault {
    /// The guest has no tables of that level.
    #[error("a page table of level {level} in a guest of {} levels", width.levels())]
    NoSuchLevel {
        /// The level.
        level: u8,
        /// The guest's width.
        width: GuestWidth,
    },
    /// An entry names a frame that is not the guest's: device memory, or another domain's page.
    #[error("L{level}[{index}] = {entry:#018x} maps {frame}, which is not the guest's")]
    NotInPhysmap {
        /// The table's level.
        level: u8,
        /// The entry's index.
        index: usize,
        /// The entry.
        entry: u64,
        /// The frame it names.
        frame: Mfn,
    },
    /// An entry maps a superpage. The frames of a superpage lie side by side, which no restore can promise.
    #[error("L{level}[{index}] = {entry:#018x} maps a superpage")]
    Superpage {
        /// The table's level.
        level: u8,
        /// The entry's index.
        index: usize,
        /// The entry.
        entry: u64,
    },
    /// An entry of the stream names a page that the guest does not have.
    #[error("L{level}[{index}] = {entry:#018x} names {pfn}, but the guest has {pfn_limit} pages")]
    PfnOutOfRange {
        /// The table's level.
        level: u8,
        /// The entry's index.
        index: usize,
        /// The entry.
        entry: u64,
        /// The page it names.
        pfn: Pfn,
        /// The first page number that the guest does not have.
        pfn_limit: u64,
    },
    /// An entry of the stream names a page that has no frame: [`unpopulated`] would have named it.
    #[error("L{level}[{index}] = {entry:#018x} names {pfn}, which has no frame")]
    NotPopulated {
        /// The table's level.
        level: u8,
        /// The entry's index.
        index: usize,
        /// The entry.
        entry: u64,
        /// The page it names.
        pfn: Pfn,
    },
}

/// Makes a copy of a page table of that level ready for the stream, in place: Xen's own slots zero, and pfns for mfns.
///
/// # Errors
/// A [`TableFault`], when the guest is suspended; when it runs only that there is no such level, as all else may be gone by the
/// time it is suspended. The page may then be half done.
pub fn normalise(
    format: TableFormat,
    level: u8,
    state: GuestState,
    page: &mut Page,
    frames: &(impl FrameToPfn + ?Sized),
) -> Result<Normalised, TableFault> {
    if !(1..=format.width.levels()).contains(&level) {
        return Err(TableFault::NoSuchLevel { level, width: format.width });
    }
    if let Some(slots) = xen_slots(format, level, page) {
        entries_mut(page)[slots].fill(U64::ZERO);
    }
    let translated = for_each_present(page, |index, entry| {
        if is_superpage(level, entry) {
            return Err(TableFault::Superpage { level, index, entry });
        }
        let frame = Mfn(frame_number(entry));
        let pfn = frames.pfn_of(frame).ok_or(TableFault::NotInPhysmap { level, index, entry, frame })?;
        Ok(with_frame_number(entry, pfn.0))
    });
    match translated {
        Ok(()) => Ok(Normalised::Done),
        Err(fault) if state == GuestState::Running => Ok(Normalised::Deferred(fault)),
        Err(fault) => Err(fault),
    }
}

/// Appends the pages that a table of the stream names but that have no frame yet, each once. They must be populated before the
/// table can be [localised](localise): a table may come before the pages it maps.
///
/// # Errors
/// [`TableFault::PfnOutOfRange`]; nothing is appended.
pub fn unpopulated(
    level: u8,
    page: &Page,
    frames: &(impl PfnToFrame + ?Sized),
    out: &mut Vec<Pfn>,
) -> Result<(), TableFault> {
    let start = out.len();
    let pfn_limit = frames.pfn_limit();
    for (index, entry) in present(page) {
        let pfn = Pfn(frame_number(entry));
        if pfn.0 >= pfn_limit {
            out.truncate(start);
            return Err(TableFault::PfnOutOfRange { level, index, entry, pfn, pfn_limit });
        }
        if frames.frame_of(pfn).is_none() {
            out.push(pfn);
        }
    }
    out[start..].sort_unstable();
    // `Vec::dedup` looks at all of it; what was there before has nothing to do with this table.
    let mut named = out.split_off(start);
    named.dedup();
    out.append(&mut named);
    Ok(())
}

/// Makes a table of that level from the stream usable on this host, in place: mfns for pfns. Other pages than tables need none
/// of this. (That Xen refuses a table that maps what it must not is left to Xen.)
///
/// # Errors
/// A [`TableFault`]. The page may then be half done.
pub fn localise(level: u8, page: &mut Page, frames: &(impl PfnToFrame + ?Sized)) -> Result<(), TableFault> {
    let pfn_limit = frames.pfn_limit();
    for_each_present(page, |index, entry| {
        if is_superpage(level, entry) {
            return Err(TableFault::Superpage { level, index, entry });
        }
        let pfn = Pfn(frame_number(entry));
        match frames.frame_of(pfn) {
            Some(frame) => Ok(with_frame_number(entry, frame.0)),
            None if pfn.0 >= pfn_limit => Err(TableFault::PfnOutOfRange { level, index, entry, pfn, pfn_limit }),
            None => Err(TableFault::NotPopulated { level, index, entry, pfn }),
        }
    })
}

/// The slots that are Xen's in a table of this level.
fn xen_slots(format: TableFormat, level: u8, page: &Page) -> Option<RangeInclusive<usize>> {
    /// Where Xen begins in a 32-bit guest's address space, 0xF580_0000, in the last of its level 2 tables.
    const XEN_L2_SLOT: usize = (0xF580_0000 >> 21) & 511;
    match (format.width, level) {
        (GuestWidth::Bits64, 4) => Some(256..=271),
        (GuestWidth::Bits32Pae, 3) => Some(4..=511),
        (GuestWidth::Bits32Pae, 2) => {
            let holds_m2p = format.compat_m2p == Some(Mfn(frame_number(entries(page)[XEN_L2_SLOT].get())));
            holds_m2p.then_some(XEN_L2_SLOT..=511)
        }
        _ => None,
    }
}

/// The entries of a table.
pub(super) fn entries(page: &Page) -> &[U64; TABLE_ENTRIES] {
    transmute_ref!(page)
}

pub(super) fn entries_mut(page: &mut Page) -> &mut [U64; TABLE_ENTRIES] {
    transmute_mut!(page)
}

/// The frame number that an entry names: an mfn, or in the stream a pfn.
pub(super) fn frame_number(entry: u64) -> u64 {
    (entry & FRAME_MASK) >> FRAME_SHIFT
}

/// The entry with another frame number, which must have no more than 40 bits.
fn with_frame_number(entry: u64, number: u64) -> u64 {
    (entry & !FRAME_MASK) | ((number << FRAME_SHIFT) & FRAME_MASK)
}

pub(super) fn is_superpage(level: u8, entry: u64) -> bool {
    level > 1 && entry & PAGE_SIZE_BIT != 0
}

/// Most tables are nearly empty: eight entries at a time are looked at, one by one only where one of them is present.
const GROUP: usize = 8;

fn present(page: &Page) -> impl Iterator<Item = (usize, u64)> + '_ {
    entries(page).chunks_exact(GROUP).enumerate().filter(|(_, group)| any_present(group)).flat_map(
        |(group_index, group)| {
            group
                .iter()
                .enumerate()
                .map(move |(offset, entry)| (group_index * GROUP + offset, entry.get()))
                .filter(|(_, entry)| entry & PRESENT != 0)
        },
    )
}

fn for_each_present(
    page: &mut Page,
    mut translate: impl FnMut(usize, u64) -> Result<u64, TableFault>,
) -> Result<(), TableFault> {
    for (group_index, group) in entries_mut(page).chunks_exact_mut(GROUP).enumerate() {
        if !any_present(group) {
            continue;
        }
        for (offset, entry) in group.iter_mut().enumerate() {
            if entry.get() & PRESENT != 0 {
                entry.set(translate(group_index * GROUP + offset, entry.get())?);
            }
        }
    }
    Ok(())
}

fn any_present(group: &[U64]) -> bool {
    group.iter().fold(0, |all, entry| all | entry.get()) & PRESENT != 0
}
