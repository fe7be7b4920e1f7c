//! The memory of a PV guest that runs beside its primary, and is given the primary's at each checkpoint.

use super::log::DirtyLogState;
use super::memory::GuestMemory;
use super::pv::{Frames, Pv, Reader, compat_m2p, limits};
use super::pv_state::PvState;
use super::{XenDomain, bad_state, unmapped};
use crate::domain::{DirtyBitmap, DomainError, MAX_BATCH_PAGES, StateRecord};
use crate::ids::{DomId, Mfn, PAGE_SIZE, Page, Pfn};
use crate::stream::{P2mFrames, PageType};
use crate::xen::control::{MachToPhys, MmuextOp};
use crate::xen::foreign::Access;
use crate::xen::pv::flush::{Batch, FlushPlan, type_changes};
use crate::xen::pv::page_table::{Normalised, TableFormat, normalise};
use crate::xen::pv::start_info::Rings;
use crate::xen::pv::twin::{LocalPages, settle};
use crate::xen::pv::{FrameToPfn, GuestState, P2mEntry, P2mReader, PfnToFrame, Physmap, RestoredP2m, RestoredP2mError};
use crate::xen::tables::{GrantFrames, is_writable};
use crate::xen::{Control, ForeignMemory, XenError};
use std::collections::HashSet;
use std::time::Instant;
use xen_sys::ctrl;

/// Which frames a twin's pages are in, and what they are to the primary.
pub(super) struct TwinFrames {
    /// The frames are this guest's, the types the primary's.
    pub(super) p2m: RestoredP2m,
    m2p: MachToPhys,
    compat_m2p: Option<Mfn>,
    /// Whether it has been given the primary's memory before.
    is_flushed: bool,
}

impl Pv {
    /// The guest is one that will be given another's state.
    pub(super) fn become_twin(&mut self, control: &Control, foreign: &ForeignMemory) -> Result<(), DomainError> {
        self.frames = Frames::Twin(TwinFrames {
            p2m: RestoredP2m::new(self.width, limits().entries),
            m2p: control.mach_to_phys(foreign)?,
            compat_m2p: compat_m2p(control, self.width)?,
            is_flushed: false,
        });
        Ok(())
    }

    /// As [`Pv::become_twin`], of a guest that was restored: what its pages are to its primary is known.
    pub(super) fn become_restored_twin(
        &mut self,
        control: &Control,
        foreign: &ForeignMemory,
        restored: Pv,
    ) -> Result<(), DomainError> {
        self.become_twin(control, foreign)?;
        if let Frames::Restored(p2m) = restored.frames {
            let twin = self.twin()?;
            (twin.p2m, twin.is_flushed) = (p2m, true);
        }
        Ok(())
    }

    fn twin(&mut self) -> Result<&mut TwinFrames, DomainError> {
        match &mut self.frames {
            Frames::Twin(twin) => Ok(twin),
            Frames::Unknown | Frames::Saved { .. } | Frames::Restored(_) => Err(not_twin()),
        }
    }
}

impl TwinFrames {
    /// Takes where the primary has its table. A page of which the stream tells nothing is none.
    pub(super) fn handle_frames(&mut self, frames: &P2mFrames<'_>) -> Result<(), RestoredP2mError> {
        let known = self.p2m.pfn_limit();
        self.p2m.handle_frames(frames)?;
        (known..self.p2m.pfn_limit()).try_for_each(|pfn| self.p2m.set_type(Pfn(pfn), PageType::Invalid))
    }
}

impl XenDomain {
    /// Gives the guest, which stands still and whose vCPUs have let go of everything, the primary's memory.
    pub(super) fn flush_twin<'a>(
        &mut self,
        changed: &DirtyBitmap,
        page: &dyn Fn(Pfn) -> &'a Page,
    ) -> Result<u64, DomainError> {
        let began = Instant::now();
        let mut types = self.find_frames()?;
        let settled = settle(&mut self.twin()?.p2m, &mut types);
        self.populate_twin(&settled.missing, &mut types)?;
        let found = Instant::now();

        let by_log = matches!(self.log, DirtyLogState::Hypervisor { .. });
        let (domid, access) = (self.domid, self.access);
        let XenDomain { pv, memory, control, foreign, spec, .. } = self;
        let twin = pv.as_deref_mut().ok_or_else(not_twin)?.twin()?;
        let local = LocalPages::new(&twin.p2m, page).map_err(bad_state)?;
        let localised = Instant::now();

        let mut dirty = DirtyBitmap::new(twin.p2m.pfn_limit());
        type_changes(&types, twin.p2m.types()).for_each(|pfn| dirty.set(pfn));
        settled.surplus.iter().for_each(|pfn| dirty.set(*pfn));
        if by_log && twin.is_flushed {
            let limit = dirty.pfn_limit();
            let changed = changed.iter().filter(|pfn| pfn.0 < limit);
            let new = settled.moved.iter().chain(&settled.missing).copied();
            changed.chain(new).chain(local.changed()).for_each(|pfn| dirty.set(pfn));
        } else {
            let mut comparison = Comparison { foreign, access, memory: memory.get_mut(), name: &spec.name };
            comparison.find_different(&twin.p2m, &local, &mut dirty)?;
        }
        let plan = FlushPlan::new(&types, twin.p2m.types(), &dirty).map_err(bad_state)?;
        let compared = Instant::now();

        let flush = Flush { control, foreign, domid, p2m: &twin.p2m };
        flush.number_frames(&twin.m2p)?;
        plan.batches().try_for_each(|batch| flush.carry_out(batch, &local))?;
        if !settled.surplus.is_empty() {
            give_back(control, domid, &mut twin.p2m, &settled.surplus)?;
            memory.get_mut().forget();
        }
        twin.is_flushed = true;
        let written = plan.written().len() as u64;
        tracing::debug!(
            "{}: frames {:?}, localised {:?}, compared {:?}, {written} pages written {:?}",
            spec.name,
            found - began,
            localised - found,
            compared - localised,
            compared.elapsed()
        );
        Ok(written)
    }

    /// Puts the primary's registers, start info and shared info into the guest. `ports` are those to xenstore and to the console.
    pub(in crate::xen) fn load_twin(&mut self, state: &[StateRecord], ports: (u32, u32)) -> Result<Rings, DomainError> {
        let pv = self.pv()?;
        let Frames::Twin(twin) = &pv.frames else {
            return Err(not_twin());
        };
        let state = PvState::parse(state, pv.width.info())?;
        self.put_pv_state(&state, &twin.p2m, ports)
    }

    /// Puts the page tables among pages that were read into terms of the guest's own numbers, and leaves out its table of frames.
    pub(super) fn normalise_read(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        let Some(pv) = self.pv.as_deref() else {
            return Ok(());
        };
        let format = |compat_m2p: &Option<Mfn>| TableFormat { width: pv.width, compat_m2p: *compat_m2p };
        let pages = out.chunks_exact_mut(PAGE_SIZE).zip(pfns);
        match &pv.frames {
            Frames::Unknown => Ok(()),
            Frames::Saved { p2m, m2p, compat_m2p } => {
                let table = p2m.table_frames().iter().map(|(_, pfn)| *pfn).collect();
                let pages = pages.zip(self.types_now(pv, pfns)?);
                self.normalise_each(pages, &table, format(compat_m2p), &Physmap::new(p2m, m2p))
            }
            Frames::Twin(TwinFrames { p2m, m2p, compat_m2p, .. }) => {
                let pages = pages.zip(self.types_now(pv, pfns)?);
                self.normalise_each(pages, &p2m.table_pfns().collect(), format(compat_m2p), &Physmap::new(p2m, m2p))
            }
            // Its tables are not pinned yet, so that they are tables only to the stream.
            Frames::Restored(p2m) => {
                let (m2p, compat_m2p) =
                    (self.control.mach_to_phys(&self.foreign)?, compat_m2p(&self.control, pv.width)?);
                let pages = pages.zip(pfns.iter().map(|pfn| p2m.type_of(*pfn)));
                self.normalise_each(pages, &p2m.table_pfns().collect(), format(&compat_m2p), &Physmap::new(p2m, &m2p))
            }
        }
    }

    /// What pages of the guest are to the hypervisor.
    fn types_now(&self, pv: &Pv, pfns: &[Pfn]) -> Result<Vec<PageType>, DomainError> {
        let frames: Vec<u64> = pfns.iter().map(|pfn| pv.frame_of(*pfn).map_or(u64::MAX, |frame| frame.0)).collect();
        page_types(&self.control, self.domid, &frames)
    }

    /// Of a guest that is saved: what it has granted to be written, the rings to xenstore and to the console among them, and where the
    /// hypervisor notes its events.
    pub(super) fn shared_pages_pv(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        let Frames::Saved { p2m, m2p, .. } = &self.pv()?.frames else {
            return Ok(());
        };
        let (physmap, limit) = (Physmap::new(p2m, m2p), into.pfn_limit());
        let grants = GrantFrames::new(self.domid).read(&self.control, &self.foreign)?.entries;
        let written = grants.into_iter().filter(|entry| is_writable(*entry));
        let pfns = written.filter_map(|entry| physmap.pfn_of(Mfn(entry.frame.into())));
        pfns.chain(self.event_array()?).filter(|pfn| pfn.0 < limit).for_each(|pfn| into.set(pfn));
        Ok(())
    }

    fn normalise_each<'a>(
        &self,
        pages: impl Iterator<Item = ((&'a mut [u8], &'a Pfn), PageType)>,
        table: &HashSet<Pfn>,
        format: TableFormat,
        physmap: &Physmap<'_, impl PfnToFrame, MachToPhys>,
    ) -> Result<(), DomainError> {
        for ((page, pfn), page_type) in pages {
            let page: &mut Page = page.try_into().expect("chunks are pages");
            if table.contains(pfn) || !page_type.has_data() {
                page.fill(0);
            } else if let Some(level) = page_type.table_level() {
                match normalise(format, level, GuestState::Suspended, page, physmap) {
                    Ok(Normalised::Done) => {}
                    Ok(Normalised::Deferred(fault)) | Err(fault) => {
                        return Err(DomainError::Other(format!("{pfn} of {}: {fault}", self.spec.name)));
                    }
                }
            }
        }
        Ok(())
    }

    fn twin(&mut self) -> Result<&mut TwinFrames, DomainError> {
        self.pv_mut()?.twin()
    }

    /// Finds the guest's frames, as it has them itself, and what they are. It may have given some back since, or taken some.
    fn find_frames(&mut self) -> Result<Vec<PageType>, DomainError> {
        let info = self.info()?;
        let XenDomain { pv, memory, control, foreign, domid, spec, .. } = self;
        let pv = pv.as_deref_mut().ok_or_else(not_twin)?;
        let width = pv.width;
        let TwinFrames { p2m, m2p, is_flushed, .. } = pv.twin()?;
        let read = P2mReader {
            width,
            shared_info: info.shared_info_frame,
            limits: limits(),
            memory: &mut Reader { foreign, domid: *domid },
            m2p,
        }
        .read();
        match read {
            Ok(own) => {
                // Frames that it has given back stay its own for as long as they are mapped.
                if follow(p2m, |pfn| match own.entry(pfn) {
                    P2mEntry::Frame(frame) if m2p.get(frame.0) == Some(pfn) => Some(frame),
                    _ => None,
                })? {
                    memory.get_mut().forget();
                }
            }
            // It was stopped before it had told where its table is now: then it has what it was given.
            Err(error) if *is_flushed => tracing::debug!("{}: {error}", spec.name),
            Err(error) => return Err(DomainError::Other(format!("{}: {error}", spec.name))),
        }
        let frames: Vec<u64> =
            (0..p2m.pfn_limit()).map(|pfn| p2m.frame_of(Pfn(pfn)).map_or(u64::MAX, |frame| frame.0)).collect();
        let types = page_types(control, *domid, &frames)?;
        for (pfn, _) in types.iter().enumerate().filter(|(_, page_type)| **page_type == PageType::Invalid) {
            p2m.take_frame(Pfn(pfn as u64)).map_err(bad_state)?;
        }
        Ok(types)
    }

    fn populate_twin(&mut self, missing: &[Pfn], types: &mut [PageType]) -> Result<(), DomainError> {
        let missing: Vec<u64> = missing.iter().map(|pfn| pfn.0).collect();
        let mut frames = Vec::with_capacity(missing.len());
        self.populate_pfns(&missing, |pfn, frame| frames.push((pfn, Mfn(frame))))?;
        let p2m = &mut self.twin()?.p2m;
        for (pfn, frame) in frames {
            p2m.set_frame(Pfn(pfn), frame).map_err(bad_state)?;
            types[pfn as usize] = PageType::Normal;
        }
        Ok(())
    }
}

/// What frames are, in batches; [`PageType::Invalid`] where there is none, or it is not the domain's.
fn page_types(control: &Control, domid: DomId, frames: &[u64]) -> Result<Vec<PageType>, DomainError> {
    let mut words = vec![0; frames.len()];
    control.page_types(domid, frames, &mut words)?;
    let page_type =
        |(word, frame): (&u32, &u64)| match PageType::from_number((word >> ctrl::XEN_DOMCTL_PFINFO_LTAB_SHIFT) as u8) {
            _ if *frame == u64::MAX => Ok(PageType::Invalid),
            Ok(page_type) => Ok(page_type),
            Err(fault) => Err(DomainError::Other(fault.to_string())),
        };
    words.iter().zip(frames).map(page_type).collect()
}

/// Sets all frames to what `own` says; whether that changed any that was there.
fn follow(p2m: &mut RestoredP2m, own: impl Fn(Pfn) -> Option<Mfn>) -> Result<bool, DomainError> {
    let mut is_changed = false;
    for pfn in (0..p2m.pfn_limit()).map(Pfn) {
        let (had, has) = (p2m.frame_of(pfn), own(pfn));
        if had != has {
            is_changed |= had.is_some();
            match has {
                Some(frame) => p2m.set_frame(pfn, frame).map_err(bad_state)?,
                None => _ = p2m.take_frame(pfn).map_err(bad_state)?,
            }
        }
    }
    Ok(is_changed)
}

/// Gives back the memory of pages that the primary does not have.
fn give_back(control: &Control, domid: DomId, p2m: &mut RestoredP2m, surplus: &[Pfn]) -> Result<(), DomainError> {
    let frames = surplus.iter().filter_map(|pfn| p2m.take_frame(*pfn).transpose());
    let frames: Vec<u64> =
        frames.map(|frame| frame.map(|frame| frame.0)).collect::<Result<_, _>>().map_err(bad_state)?;
    let done = control.decrease_reservation(domid, 0, &frames)?;
    if done == frames.len() { Ok(()) } else { Err(bad_state(format!("{done} of {} pages given back", frames.len()))) }
}

/// A look at all of the guest's pages.
struct Comparison<'a> {
    foreign: &'a ForeignMemory,
    access: Access,
    memory: &'a mut GuestMemory,
    name: &'a str,
}

impl Comparison<'_> {
    /// Adds the pages that are not what they must be.
    fn find_different(
        &mut self,
        p2m: &RestoredP2m,
        local: &LocalPages<'_, '_>,
        into: &mut DirtyBitmap,
    ) -> Result<(), DomainError> {
        let with_data = (0..).map(Pfn).zip(p2m.types()).filter(|(_, page_type)| page_type.has_data());
        let pfns: Vec<Pfn> = with_data.map(|(pfn, _)| pfn).collect();
        for batch in pfns.chunks(MAX_BATCH_PAGES) {
            let frames = batch.iter().filter_map(|pfn| Some((*pfn, p2m.frame_of(*pfn)?.0)));
            self.memory.map(self.foreign, self.access, frames)?;
            for &pfn in batch {
                let is_same = self.memory.is_same(pfn, local.page(pfn));
                if !is_same.ok_or_else(|| unmapped(pfn, self.name))? {
                    into.set(pfn);
                }
            }
        }
        Ok(())
    }
}

/// The hypervisor's part of a flush.
struct Flush<'a> {
    control: &'a Control,
    foreign: &'a ForeignMemory,
    domid: DomId,
    p2m: &'a RestoredP2m,
}

impl Flush<'_> {
    /// Tells the hypervisor the numbers of frames that have others with it.
    fn number_frames(&self, m2p: &MachToPhys) -> Result<(), XenError> {
        let pages = (0..self.p2m.pfn_limit()).map(Pfn).filter_map(|pfn| Some((self.p2m.frame_of(pfn)?, pfn)));
        let wrong: Vec<(Mfn, Pfn)> = pages.filter(|(frame, pfn)| m2p.get(frame.0) != Some(*pfn)).collect();
        self.control.update_machphys(self.domid, &wrong)
    }

    fn carry_out(&self, batch: Batch<'_>, local: &LocalPages<'_, '_>) -> Result<(), DomainError> {
        match batch {
            Batch::Pin(tables) => {
                let pins = tables.iter().map(|(pfn, level)| self.frame(*pfn).map(|frame| pin(*level, frame)));
                Ok(self.control.mmuext(self.domid, &pins.collect::<Result<Vec<_>, _>>()?)?)
            }
            Batch::Unpin(tables) => {
                let unpins = tables.iter().map(|pfn| self.frame(*pfn).map(MmuextOp::Unpin));
                Ok(self.control.mmuext(self.domid, &unpins.collect::<Result<Vec<_>, _>>()?)?)
            }
            Batch::Write(pages) => {
                let frames = pages.iter().map(|pfn| self.frame(*pfn).map(|frame| frame.0));
                let frames: Vec<u64> = frames.collect::<Result<_, _>>()?;
                // For these pages alone: one that becomes a table must not be mapped for writing any more.
                let mut mapping = self.foreign.map(self.domid, Access::ReadWrite, &frames)?;
                pages.iter().enumerate().for_each(|(index, pfn)| mapping.write_page(index, local.page(*pfn)));
                Ok(())
            }
        }
    }

    fn frame(&self, pfn: Pfn) -> Result<Mfn, DomainError> {
        self.p2m.frame_of(pfn).ok_or_else(|| bad_state(format!("{pfn} has no frame")))
    }
}

/// The operation that pins a table of this level.
pub(super) fn pin(level: u8, frame: Mfn) -> MmuextOp {
    match level {
        1 => MmuextOp::PinL1(frame),
        2 => MmuextOp::PinL2(frame),
        3 => MmuextOp::PinL3(frame),
        _ => MmuextOp::PinL4(frame),
    }
}

fn not_twin() -> DomainError {
    bad_state("this domain does not run beside another")
}
