use super::{INVALID_ENTRY, pfn_index};
use crate::domain::{DirtyBitmap, StateRecord};
use crate::ids::{Mfn, Pfn};
use crate::stream::pv::p2m_frames_record;
use crate::xen::pv::shared_info::ArchInfo;
use crate::xen::pv::{GuestWidth, PfnToFrame};

/// What a guest's table says of one of its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum P2mEntry {
    /// It is in that frame.
    Frame(Mfn),
    /// It is in none: never populated, or given back by the balloon driver.
    Missing,
    /// Another domain's frame, mapped by grant (Linux's `FOREIGN_FRAME_BIT`, the word's highest). It is not the guest's.
    Foreign(Mfn),
    /// Device memory, where page number and frame number are the same (Linux's `IDENTITY_FRAME_BIT`, the one below).
    Identity(Mfn),
}

impl P2mEntry {
    /// `raw` is a word of the guest's, but all ones for a missing page whatever the width.
    fn decode(width: GuestWidth, raw: u64) -> P2mEntry {
        let foreign = 1 << (8 * width.word_bytes() - 1);
        let identity = foreign >> 1;
        match raw {
            INVALID_ENTRY => P2mEntry::Missing,
            raw if raw & foreign != 0 => P2mEntry::Foreign(Mfn(raw & !foreign)),
            raw if raw & identity != 0 => P2mEntry::Identity(Mfn(raw & !identity)),
            raw => P2mEntry::Frame(Mfn(raw)),
        }
    }
}

/// A copy of a guest's p2m, and where it was found. It is as old as the last [read](super::P2mReader).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct P2m {
    pub(super) width: GuestWidth,
    /// By what it was found: when that changes, it must be found anew.
    pub(super) info: ArchInfo,
    /// The frames it is in, each with its page number.
    pub(super) frames: Vec<(Mfn, Pfn)>,
    /// The entries, widened to 64 bits.
    pub(super) entries: Vec<u64>,
}

impl P2m {
    /// What the table says of a page. Beyond its end every page is missing.
    pub fn entry(&self, pfn: Pfn) -> P2mEntry {
        let raw = pfn_index(pfn).and_then(|index| self.entries.get(index)).copied();
        P2mEntry::decode(self.width, raw.unwrap_or(INVALID_ENTRY))
    }

    /// The guest's width.
    pub fn width(&self) -> GuestWidth {
        self.width
    }

    /// The frames that hold the table, and which pages of the guest they are, in the order of the table. A guest may let several
    /// parts of the table that have no page share one frame.
    pub fn table_frames(&self) -> &[(Mfn, Pfn)] {
        &self.frames
    }

    /// The X86_PV_P2M_FRAMES record that tells a restorer where the table is.
    pub fn frames_record(&self) -> StateRecord {
        // The reader holds at least one entry and no more than a record can name, and as many frames as hold them.
        let last_pfn = (self.pfn_limit() - 1) as u32;
        p2m_frames_record(self.width.info(), 0, last_pfn, self.frames.iter().map(|(_, pfn)| *pfn))
    }

    /// What is different in `new`, a later read of the same guest's table.
    pub(super) fn change_to(&self, new: &P2m) -> P2mChange {
        let mut changed = DirtyBitmap::new(self.pfn_limit().max(new.pfn_limit()));
        let common = self.entries.len().min(new.entries.len());
        for (index, (before, after)) in self.entries.iter().zip(&new.entries).enumerate() {
            if before != after {
                changed.set(Pfn(index as u64));
            }
        }
        let longer = if self.entries.len() > common { &self.entries } else { &new.entries };
        for (index, entry) in longer.iter().enumerate().skip(common) {
            if *entry != INVALID_ENTRY {
                changed.set(Pfn(index as u64));
            }
        }
        P2mChange {
            old_pfn_limit: self.pfn_limit(),
            new_pfn_limit: new.pfn_limit(),
            moved: self.frames.iter().map(|(_, pfn)| pfn).ne(new.frames.iter().map(|(_, pfn)| pfn)),
            changed,
        }
    }
}

impl PfnToFrame for P2m {
    fn frame_of(&self, pfn: Pfn) -> Option<Mfn> {
        match self.entry(pfn) {
            P2mEntry::Frame(frame) => Some(frame),
            P2mEntry::Missing | P2mEntry::Foreign(_) | P2mEntry::Identity(_) => None,
        }
    }

    fn pfn_limit(&self) -> u64 {
        self.entries.len() as u64
    }
}

/// How a guest's p2m differs from what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct P2mChange {
    /// Entries before.
    pub old_pfn_limit: u64,
    /// Entries now. When there are more, the restorer has to learn of it before it gets any page beyond the old end.
    pub new_pfn_limit: u64,
    /// The table is in other pages of the guest, or in more of them: what X86_PV_P2M_FRAMES said does not hold any more.
    pub moved: bool,
    /// The pages whose entry is another: all of them must be looked at again. Below the greater of both limits.
    pub changed: DirtyBitmap,
}

impl P2mChange {
    /// Whether the table has more entries than before.
    pub fn has_grown(&self) -> bool {
        self.new_pfn_limit > self.old_pfn_limit
    }

    /// Whether what the restorer was told of the table, by an X86_PV_P2M_FRAMES record, still holds.
    pub fn record_holds(&self) -> bool {
        !self.moved && self.new_pfn_limit == self.old_pfn_limit
    }
}
