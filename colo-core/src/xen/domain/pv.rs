use super::lent::Place;
use super::memory::GuestMemory;
use super::pv_twin::TwinFrames;
use super::{XenDomain, bad_state, grown, unmapped};
use crate::domain::{DirtyBitmap, DomainError, MAX_BATCH_PAGES, Pages as _, StateRecord};
use crate::ids::{DomId, Mfn, PAGE_SIZE, Page, Pfn};
use crate::stream::{P2mFrames, PageList, PageType, PvInfo};
use crate::xen::control::MachToPhys;
use crate::xen::foreign::Access;
use crate::xen::pv::p2m::P2mPage;
use crate::xen::pv::page_table::{Normalised, TableFormat, localise, normalise, unpopulated};
use crate::xen::pv::twin::wants_memory;
use crate::xen::pv::{
    GuestState, GuestWidth, MachineToPfn, P2m, P2mLimits, P2mReader, PfnToFrame, Physmap, ReadFrames, RestoredP2m,
};
use crate::xen::{Control, ForeignMemory};
use std::io;
use xen_sys::ctrl;

/// What is kept of a PV guest between two calls.
pub(super) struct Pv {
    pub(super) width: GuestWidth,
    pub(super) frames: Frames,
    /// Pages that could not be had when they were asked for; they count as dirty.
    deferred: Vec<Pfn>,
    /// Of a guest that stands at a whole checkpoint: what pages are to it in one that is not whole yet.
    staged_types: Option<Vec<(Pfn, PageType)>>,
}

/// Which frames the guest's pages are in.
pub(super) enum Frames {
    /// Not read yet.
    Unknown,
    /// As a guest that is saved has them itself.
    Saved {
        p2m: P2m,
        m2p: MachToPhys,
        /// By which the tables of a 32-bit guest that hold the hypervisor's entries are known.
        compat_m2p: Option<Mfn>,
    },
    /// As a guest that is restored gets them.
    Restored(RestoredP2m),
    /// As a guest has them that runs beside its primary.
    Twin(TwinFrames),
}

impl MachineToPfn for MachToPhys {
    fn entry(&self, frame: Mfn) -> Option<u64> {
        self.get(frame.0).map(|pfn| pfn.0)
    }
}

impl Pv {
    pub(super) fn open(control: &Control, domid: DomId, restores: bool) -> Result<Self, DomainError> {
        let width = match control.guest_width(domid)? {
            8 => GuestWidth::Bits64,
            4 => GuestWidth::Bits32Pae,
            bytes => return Err(DomainError::Other(format!("a PV guest of {bytes} bytes a word"))),
        };
        let frames =
            if restores { Frames::Restored(RestoredP2m::new(width, limits().entries)) } else { Frames::Unknown };
        Ok(Pv { width, frames, deferred: Vec::new(), staged_types: None })
    }

    pub(super) fn frame_of(&self, pfn: Pfn) -> Option<Mfn> {
        match &self.frames {
            Frames::Unknown => None,
            Frames::Saved { p2m, .. } => p2m.frame_of(pfn),
            Frames::Restored(p2m) | Frames::Twin(TwinFrames { p2m, .. }) => p2m.frame_of(pfn),
        }
    }

    fn restored(&mut self) -> Result<&mut RestoredP2m, DomainError> {
        match &mut self.frames {
            Frames::Restored(p2m) => Ok(p2m),
            Frames::Unknown | Frames::Saved { .. } | Frames::Twin(_) => Err(not_restored()),
        }
    }
}

/// What this process takes for each page of a PV guest: 8 bytes for its entry in the table, as many for a later reading of that, and 16
/// for where it is mapped.
const BYTES_A_PAGE: u64 = 32;

/// How long a guest's table may be: the guest, or the image, says what it likes, and this host has to have the memory for it.
pub(super) fn limits() -> P2mLimits {
    // SAFETY: it reads a number.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    limits_with(u64::try_from(pages).unwrap_or(0) * PAGE_SIZE as u64)
}

/// At most half of that much memory.
fn limits_with(memory_bytes: u64) -> P2mLimits {
    P2mLimits { entries: P2mLimits::default().entries.min(memory_bytes / 2 / BYTES_A_PAGE) }
}

/// Reads a guest's frames, each time by a mapping of its own.
pub(super) struct Reader<'a> {
    pub(super) foreign: &'a ForeignMemory,
    pub(super) domid: DomId,
}

impl ReadFrames for Reader<'_> {
    fn read_frames(&mut self, frames: &[Mfn], pages: &mut [Page]) -> io::Result<()> {
        let frames: Vec<u64> = frames.iter().map(|frame| frame.0).collect();
        let mapping = self.foreign.map(self.domid, Access::Read, &frames).map_err(|error| error.source)?;
        for (index, page) in pages.iter_mut().enumerate() {
            mapping.read_page(index, page);
        }
        Ok(())
    }
}

impl XenDomain {
    pub(super) fn pv(&self) -> Result<&Pv, DomainError> {
        self.pv.as_deref().ok_or_else(not_pv)
    }

    pub(super) fn pv_mut(&mut self) -> Result<&mut Pv, DomainError> {
        self.pv.as_deref_mut().ok_or_else(not_pv)
    }

    pub(super) fn pv_info(&self) -> Result<StateRecord, DomainError> {
        Ok(self.pv()?.width.info().to_record())
    }

    /// The width that the stream tells; the domain is made ready for it.
    pub(super) fn load_pv_info(&mut self, body: &[u8]) -> Result<(), DomainError> {
        let width = GuestWidth::from(PvInfo::parse(body).map_err(|error| bad_state(error.fault))?);
        if width != self.pv()?.width {
            self.control.set_guest_width(self.domid, width.word_bytes() as u32)?;
            self.pv = Some(Box::new(Pv::open(&self.control, self.domid, true)?));
        }
        if width == self.pv()?.width { Ok(()) } else { Err(bad_state("the domain does not take the guest's width")) }
    }

    /// Reads the guest's table of frames: at first where it is, later what has become of it.
    pub(super) fn read_p2m(&mut self) -> Result<(), DomainError> {
        let info = self.info()?;
        let Some(pv) = self.pv.as_deref_mut() else {
            return Ok(());
        };
        let read = |m2p: &MachToPhys, refresh: Option<&mut P2m>| {
            let mut reader = P2mReader {
                width: pv.width,
                shared_info: info.shared_info_frame,
                limits: limits(),
                memory: &mut Reader { foreign: &self.foreign, domid: self.domid },
                m2p,
            };
            match refresh {
                None => reader.read().map(|p2m| (Some(p2m), None)),
                Some(p2m) => reader.refresh(p2m, None).map(|change| (None, Some(change))),
            }
        };
        let unreadable = |error| DomainError::Other(format!("{}: {error}", self.spec.name));
        match &mut pv.frames {
            Frames::Unknown => {
                let m2p = self.control.mach_to_phys(&self.foreign)?;
                let compat_m2p = compat_m2p(&self.control, pv.width)?;
                if let (Some(p2m), _) = read(&m2p, None).map_err(unreadable)? {
                    pv.frames = Frames::Saved { p2m, m2p, compat_m2p };
                }
            }
            Frames::Saved { p2m, m2p, .. } => {
                let (_, change) = read(m2p, Some(p2m)).map_err(unreadable)?;
                if let Some(change) = change {
                    if !change.record_holds() {
                        return Err(grown(&self.spec.name));
                    }
                    pv.deferred.extend(change.changed.iter());
                }
            }
            Frames::Restored(_) | Frames::Twin(_) => {}
        }
        Ok(())
    }

    pub(super) fn p2m_frames(&mut self) -> Result<StateRecord, DomainError> {
        self.read_p2m()?;
        match &self.pv()?.frames {
            // There would be no place for the pages beyond.
            Frames::Saved { p2m, .. } if p2m.pfn_limit() > self.spec.pfn_limit => Err(grown(&self.spec.name)),
            Frames::Saved { p2m, .. } => Ok(p2m.frames_record()),
            Frames::Unknown | Frames::Restored(_) | Frames::Twin(_) => Err(not_pv()),
        }
    }

    pub(super) fn load_p2m_frames(&mut self, record: &StateRecord) -> Result<(), DomainError> {
        let pv = self.pv_mut()?;
        let frames = P2mFrames::parse(&record.body, pv.width.info()).map_err(|error| bad_state(error.fault))?;
        match &mut pv.frames {
            Frames::Twin(twin) => twin.handle_frames(&frames).map_err(bad_state),
            _ => pv.restored()?.handle_frames(&frames).map_err(bad_state),
        }
    }

    pub(super) fn populated_pv(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        let pv = self.pv()?;
        let limit = match &pv.frames {
            Frames::Saved { p2m, .. } => p2m.pfn_limit(),
            Frames::Restored(p2m) | Frames::Twin(TwinFrames { p2m, .. }) => p2m.pfn_limit(),
            Frames::Unknown => {
                return Err(DomainError::Other(format!("the table of frames of {} was not read", self.spec.name)));
            }
        };
        let pfns = (0..limit.min(into.pfn_limit())).map(Pfn);
        pfns.filter(|pfn| pv.frame_of(*pfn).is_some()).for_each(|pfn| into.set(pfn));
        Ok(())
    }

    /// Adds the pages that could not be had before.
    pub(super) fn take_deferred(&mut self, into: &mut DirtyBitmap) {
        if let Some(pv) = &mut self.pv {
            let limit = into.pfn_limit();
            pv.deferred.drain(..).filter(|pfn| pfn.0 < limit).for_each(|pfn| into.set(pfn));
        }
    }

    /// Finds out what pages are, and maps those that have content.
    fn map_pv(&mut self, pfns: &[Pfn], types: &mut Vec<PageType>) -> Result<(), DomainError> {
        let pv = self.pv.as_deref_mut().ok_or_else(not_pv)?;
        let frames: Vec<u64> = pfns.iter().map(|pfn| pv.frame_of(*pfn).map_or(u64::MAX, |frame| frame.0)).collect();
        let mut words = vec![0; frames.len()];
        self.control.page_types(self.domid, &frames, &mut words)?;
        types.clear();
        for (word, frame) in words.iter().zip(&frames) {
            let known = PageType::from_number((word >> ctrl::XEN_DOMCTL_PFINFO_LTAB_SHIFT) as u8);
            let known = known.map_err(|fault| DomainError::Other(format!("{}: {fault}", self.spec.name)))?;
            types.push(if *frame == u64::MAX { PageType::Invalid } else { known });
        }
        let with_data = pfns.iter().zip(&frames).zip(types.iter()).filter(|(_, page_type)| page_type.has_data());
        let pages = with_data.map(|((pfn, frame), _)| (*pfn, *frame));
        Ok(self.memory.get_mut().map(&self.foreign, self.access, pages)?)
    }

    /// Where the pages of a guest that stands still are, the page tables among them as copies in terms of its own numbers.
    pub(super) fn places_pv(&mut self, pfns: &[Pfn], types: &mut Vec<PageType>) -> Result<Vec<Place>, DomainError> {
        self.map_pv(pfns, types)?;
        let mut places = Vec::with_capacity(pfns.len());
        for (pfn, page_type) in pfns.iter().zip(types.iter_mut()) {
            if !page_type.has_data() {
                continue;
            }
            let pointer = self.memory.get_mut().pointer(*pfn).ok_or_else(|| unmapped(*pfn, &self.spec.name))?;
            let mut place = Place::Guest(pointer);
            if page_type.table_level().is_some() {
                let mut page = Box::new([0; PAGE_SIZE]);
                self.memory.get_mut().read(*pfn, &mut page);
                self.normalise_pv(&[*pfn], std::slice::from_mut(page_type), &mut page[..])?;
                place = Place::Own(page);
            }
            places.push(place);
        }
        Ok(places)
    }

    pub(super) fn capture_pv(
        &mut self,
        pfns: &[Pfn],
        types: &mut Vec<PageType>,
        out: &mut [u8],
    ) -> Result<usize, DomainError> {
        let mut count = 0;
        self.look_pv(pfns, types, |memory, pfn, _| {
            let page = (&mut out[count * PAGE_SIZE..][..PAGE_SIZE]).try_into();
            let is_there = page.is_ok_and(|page: &mut Page| memory.read(pfn, page));
            count += usize::from(is_there);
            is_there
        })?;
        Ok(count)
    }

    /// Calls `look` with each page that has data, which says whether it is mapped.
    pub(super) fn look_pv(
        &mut self,
        pfns: &[Pfn],
        types: &mut Vec<PageType>,
        mut look: impl FnMut(&GuestMemory, Pfn, PageType) -> bool,
    ) -> Result<(), DomainError> {
        self.map_pv(pfns, types)?;
        let pv = self.pv.as_deref_mut().ok_or_else(not_pv)?;
        let (memory, stands_still) = (self.memory.get_mut(), self.suspended_at.is_some());
        for (&pfn, page_type) in pfns.iter().zip(types.iter_mut()) {
            if page_type.has_data() && !look(memory, pfn, *page_type) {
                if stands_still {
                    return Err(unmapped(pfn, &self.spec.name));
                }
                // Given back since its type was asked for.
                *page_type = PageType::Invalid;
            }
            if *page_type == PageType::Invalid {
                pv.deferred.push(pfn);
            }
        }
        Ok(())
    }

    /// Puts the page tables among captured pages into terms of the guest's own numbers. Returns how many pages are left.
    pub(super) fn normalise_pv(
        &mut self,
        pfns: &[Pfn],
        types: &mut [PageType],
        data: &mut [u8],
    ) -> Result<usize, DomainError> {
        let state = if self.suspended_at.is_some() { GuestState::Suspended } else { GuestState::Running };
        let name = &self.spec.name;
        let pv = self.pv.as_deref_mut().ok_or_else(not_pv)?;
        let Frames::Saved { p2m, m2p, compat_m2p } = &pv.frames else {
            return Err(not_pv());
        };
        let physmap = Physmap::new(p2m, m2p);
        let format = TableFormat { width: pv.width, compat_m2p: *compat_m2p };
        let (mut from, mut to) = (0, 0);
        for (&pfn, page_type) in pfns.iter().zip(types) {
            if !page_type.has_data() {
                continue;
            }
            let page: &mut Page = (&mut data[from..from + PAGE_SIZE]).try_into().expect("a page");
            from += PAGE_SIZE;
            if let Some(level) = page_type.table_level() {
                let normalised = normalise(format, level, state, page, &physmap)
                    .map_err(|fault| DomainError::Other(format!("{pfn} of {name}: {fault}")))?;
                if let Normalised::Deferred(fault) = normalised {
                    tracing::trace!("{pfn} of {name}, for now: {fault}");
                    *page_type = PageType::Invalid;
                    pv.deferred.push(pfn);
                    continue;
                }
            }
            data.copy_within(from - PAGE_SIZE..from, to);
            to += PAGE_SIZE;
        }
        Ok(to / PAGE_SIZE)
    }

    /// Makes memory for the pages of a record that have none, and notes what they are.
    pub(super) fn populate_pv(&mut self, pages: &PageList<'_>) -> Result<(), DomainError> {
        if let Frames::Twin(twin) = &mut self.pv_mut()?.frames {
            // The guest's memory is its own until all of the checkpoint is here.
            let mut pages = pages.pages();
            return pages.try_for_each(|(pfn, page_type)| twin.p2m.set_type(pfn, page_type).map_err(bad_state));
        }
        let mut staged = self.pv_mut()?.staged_types.take();
        let p2m = self.pv_mut()?.restored()?;
        let mut missing = Vec::new();
        for (pfn, page_type) in pages.pages() {
            match &mut staged {
                Some(staged) => staged.push((pfn, page_type)),
                None => p2m.set_type(pfn, page_type).map_err(bad_state)?,
            }
            if wants_memory(page_type) && p2m.frame_of(pfn).is_none() {
                missing.push(pfn);
            }
        }
        self.pv_mut()?.staged_types = staged;
        self.populate_frames(missing)
    }

    /// What pages are to the guest is from here on only staged, until it is committed by this again.
    pub(in crate::xen) fn commit_types(&mut self) -> Result<(), DomainError> {
        let staged = self.pv_mut()?.staged_types.replace(Vec::new()).unwrap_or_default();
        let p2m = self.pv_mut()?.restored()?;
        staged.into_iter().try_for_each(|(pfn, page_type)| p2m.set_type(pfn, page_type).map_err(bad_state))
    }

    /// The frame of a page that may be mapped for writing: of any but a table, which could not become one then.
    pub(super) fn plain_frame_of(&self, pfn: Pfn) -> Option<u64> {
        let is_table = self.pv.as_deref().is_some_and(|pv| match &pv.frames {
            Frames::Restored(p2m) => p2m.type_of(pfn).table_level().is_some(),
            Frames::Twin(_) => true,
            Frames::Unknown | Frames::Saved { .. } => false,
        });
        if is_table { None } else { self.frame_of(pfn) }
    }

    fn populate_frames(&mut self, pfns: Vec<Pfn>) -> Result<(), DomainError> {
        let mut pfns: Vec<u64> = pfns.into_iter().map(|pfn| pfn.0).collect();
        // A page may stand twice in a record.
        pfns.sort_unstable();
        pfns.dedup();
        let mut frames = Vec::with_capacity(pfns.len());
        self.populate_pfns(&pfns, |pfn, frame| frames.push((Pfn(pfn), Mfn(frame))))?;
        let p2m = self.pv_mut()?.restored()?;
        frames.into_iter().try_for_each(|(pfn, frame)| p2m.set_frame(pfn, frame).map_err(bad_state))
    }

    pub(super) fn localise_pv(&mut self, page_type: PageType, page: &mut Page) -> Result<(), DomainError> {
        let Some(level) = page_type.table_level().filter(|_| !self.flushes_whole()) else {
            return Ok(());
        };
        let mut missing = Vec::new();
        unpopulated(level, page, self.pv_mut()?.restored()?, &mut missing).map_err(bad_state)?;
        self.populate_frames(missing)?;
        localise(level, page, self.pv_mut()?.restored()?).map_err(bad_state)
    }

    /// Writes pages as they travel into a guest that has never run; returns how many.
    pub(in crate::xen) fn put_travelled<'a>(
        &mut self,
        pfns: &DirtyBitmap,
        page: &dyn Fn(Pfn) -> &'a Page,
    ) -> Result<u64, DomainError> {
        let mut written = 0;
        let mut rest = pfns.iter().peekable();
        while rest.peek().is_some() {
            let (mut batch, mut data) = (Vec::new(), Vec::new());
            for pfn in rest.by_ref().take(MAX_BATCH_PAGES) {
                let page_type = self.pv_mut()?.restored()?.type_of(pfn);
                if page_type.has_data() {
                    let mut page = *page(pfn);
                    self.localise_pv(page_type, &mut page)?;
                    batch.push(pfn);
                    data.extend_from_slice(&page);
                }
            }
            crate::domain::Pages::write_pages(self, &batch, &data)?;
            written += batch.len() as u64;
        }
        Ok(written)
    }

    /// Writes the table of frames over the guest's own.
    pub(super) fn write_p2m(&mut self) -> Result<(), DomainError> {
        if self.flushes_whole() {
            return Ok(());
        }
        let Frames::Restored(p2m) = &self.pv()?.frames else {
            return Err(not_restored());
        };
        let pages: Vec<P2mPage> = p2m.table_pages().map_err(bad_state)?.collect();
        for pages in pages.chunks(MAX_BATCH_PAGES) {
            let frames: Vec<u64> = pages.iter().map(|page| page.frame.0).collect();
            let mut mapping = self.foreign.map(self.domid, Access::ReadWrite, &frames)?;
            for (index, page) in pages.iter().enumerate() {
                mapping.write_bytes(index, 0, page.bytes());
            }
        }
        Ok(())
    }
}

/// The first frame of the m2p that 32-bit guests see.
pub(super) fn compat_m2p(control: &Control, width: GuestWidth) -> Result<Option<Mfn>, DomainError> {
    Ok(match width {
        GuestWidth::Bits32Pae => Some(control.compat_machphys_frame()?),
        GuestWidth::Bits64 => None,
    })
}

fn not_pv() -> DomainError {
    bad_state("this is no PV domain")
}

fn not_restored() -> DomainError {
    bad_state("this domain is not being restored")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_no_more_than_half_of_the_memory() {
        // A guest of 64 GiB takes 512 MiB.
        assert_eq!(limits_with(1 << 30).entries, 64 << 30 >> 12);
        assert_eq!(limits_with(1 << 50).entries, P2mLimits::default().entries);
        assert!(limits().entries > 0);
    }
}
