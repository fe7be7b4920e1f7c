use super::pv::Frames;
use super::pv_twin::pin;
use super::{XenDomain, bad_state};
use crate::domain::{DomainError, StateRecord};
use crate::ids::{Mfn, PAGE_SIZE, Page};
use crate::stream::pv::shared_info as parse_shared_info;
use crate::stream::{PvInfo, TscInfo, VcpuBlob, VcpuPart, kind};
use crate::xen::control::MmuextOp;
use crate::xen::foreign::Access;
use crate::xen::pv::start_info::{self, HostPart, Rings};
use crate::xen::pv::{GuestWidth, PfnToFrame, Physmap, RestoredP2m, shared_info, vcpu};
use std::collections::BTreeMap;

/// The registers of one vCPU, by parts.
#[derive(Default)]
struct Vcpu<'a> {
    basic: Option<&'a [u8]>,
    extended: Option<&'a [u8]>,
    xsave: Option<&'a [u8]>,
    msrs: Option<&'a [u8]>,
}

/// What a restored PV guest's state is made of.
pub(super) struct PvState<'a> {
    tsc: Option<TscInfo>,
    shared_info: &'a Page,
    vcpus: BTreeMap<u32, Vcpu<'a>>,
}

impl<'a> PvState<'a> {
    /// Finds the parts among the records of a checkpoint.
    pub(super) fn parse(state: &'a [StateRecord], info: PvInfo) -> Result<Self, DomainError> {
        let body =
            |kind: u32| state.iter().rev().find(|record| record.kind == kind).map(|record| record.body.as_slice());
        let mut vcpus: BTreeMap<u32, Vcpu<'a>> = BTreeMap::new();
        for record in state.iter().filter(|record| VcpuPart::of_kind(record.kind).is_some()) {
            let blob = VcpuBlob::parse(record.kind, &record.body, info).map_err(bad_state)?;
            // Older toolstacks wrote empty ones by mistake.
            if blob.context.is_empty() {
                continue;
            }
            let vcpu = vcpus.entry(blob.vcpu).or_default();
            let part = match blob.part {
                VcpuPart::Basic => &mut vcpu.basic,
                VcpuPart::Extended => &mut vcpu.extended,
                VcpuPart::Xsave => &mut vcpu.xsave,
                VcpuPart::Msrs => &mut vcpu.msrs,
            };
            *part = Some(blob.context);
        }
        if vcpus.get(&0).is_none_or(|vcpu| vcpu.basic.is_none()) {
            return Err(bad_state("there are no registers of vCPU 0"));
        }
        let shared = body(kind::SHARED_INFO).ok_or_else(|| bad_state("no SHARED_INFO record"))?;
        Ok(PvState {
            tsc: body(kind::X86_TSC_INFO).map(TscInfo::parse).transpose().map_err(bad_state)?,
            shared_info: parse_shared_info(shared).map_err(bad_state)?,
            vcpus,
        })
    }
}

impl XenDomain {
    pub(super) fn save_pv_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        let mut records = vec![self.control.tsc_info(self.domid)?.to_record()];
        let info = self.info()?;
        let mut page = [0; PAGE_SIZE];
        self.foreign.map(self.domid, Access::Read, &[info.shared_info_frame.0])?.read_page(0, &mut page);
        records.push(StateRecord { kind: kind::SHARED_INFO, body: page.to_vec() });

        let pv = self.pv()?;
        let Frames::Saved { p2m, m2p, .. } = &pv.frames else {
            return Err(bad_state("the guest's table of frames was not read"));
        };
        let physmap = Physmap::new(p2m, m2p);
        for vcpu in 0..=info.max_vcpu_id.unwrap_or(0) {
            if !self.control.vcpu_info(self.domid, vcpu)?.online {
                continue;
            }
            let mut basic = self.control.vcpu_context(self.domid, vcpu, pv.width.word_bytes() as u32)?;
            vcpu::normalise(pv.width, vcpu, &mut basic, &physmap)
                .map_err(|error| DomainError::Other(format!("{}: {error}", self.spec.name)))?;
            let parts = [
                (VcpuPart::Basic, basic),
                (VcpuPart::Extended, self.control.vcpu_ext_context(self.domid, vcpu)?),
                (VcpuPart::Xsave, self.control.vcpu_xsave(self.domid, vcpu)?),
                (VcpuPart::Msrs, self.control.vcpu_msrs(self.domid, vcpu)?),
            ];
            let parts = parts.iter().filter(|(_, blob)| !blob.is_empty());
            records.extend(parts.map(|(part, blob)| VcpuBlob { part: *part, vcpu, context: blob }.to_record()));
        }
        Ok(records)
    }

    /// Gives up what is mapped of the guest: nothing may be, for writing, when it becomes a page table or a segment's page, now or when the
    /// guest runs. What is asked for is mapped again.
    pub(in crate::xen) fn unmap(&mut self) {
        self.memory.get_mut().forget();
    }

    pub(super) fn load_pv_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        self.unmap();
        let width = self.pv()?.width;
        let state = PvState::parse(state, width.info())?;
        let Frames::Restored(p2m) = &self.pv()?.frames else {
            return Err(bad_state("this domain is not being restored"));
        };
        self.pin_tables(p2m)?;
        let incoming = self.incoming.as_ref().ok_or_else(|| bad_state("this domain is not being restored"))?;
        let rings = self.put_pv_state(&state, p2m, (incoming.store_evtchn, incoming.console_evtchn))?;
        let incoming = self.incoming.as_mut().ok_or_else(|| bad_state("this domain is not being restored"))?;
        (incoming.store_gfn, incoming.console_gfn) = (rings.store.frame.0, rings.console.frame.0);
        Ok(incoming.seed_grants(&self.control, self.domid, false)?)
    }

    /// Registers, start info and shared info, into a guest whose memory is in place and whose vCPUs have none. `ports` are those to xenstore
    /// and to the console.
    pub(super) fn put_pv_state(
        &self,
        state: &PvState<'_>,
        p2m: &RestoredP2m,
        ports: (u32, u32),
    ) -> Result<Rings, DomainError> {
        let width = self.pv()?.width;
        let mut start_info = None;
        for (&id, vcpu) in &state.vcpus {
            let Some(basic) = vcpu.basic else {
                continue;
            };
            let mut basic = basic.to_vec();
            start_info = vcpu::localise(width, id, &mut basic, p2m).map_err(bad_state)?.or(start_info);
            self.control.set_vcpu_context(self.domid, id, Some(&basic))?;
            if let Some(extended) = vcpu.extended {
                self.control.set_vcpu_ext_context(self.domid, id, extended)?;
            }
            if let Some(xsave) = vcpu.xsave {
                self.control.set_vcpu_xsave(self.domid, id, xsave)?;
            }
            if let Some(msrs) = vcpu.msrs {
                self.control.set_vcpu_msrs(self.domid, id, msrs)?;
            }
        }
        let start_info = start_info.ok_or_else(|| bad_state("vCPU 0 names no start info"))?;
        let rings = self.restore_start_info(width, start_info, p2m, ports)?;
        self.restore_shared_info(width, state.shared_info)?;
        if let Some(tsc) = &state.tsc {
            self.control.set_tsc_info(self.domid, *tsc)?;
        }
        Ok(rings)
    }

    /// See [`XenDomain::introduce`].
    pub(super) fn introduce_pv(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        let width = self.pv()?.width;
        let state = PvState::parse(state, width.info())?;
        let Frames::Restored(p2m) = &self.pv()?.frames else {
            return Err(bad_state("this domain is not being restored"));
        };
        let basic = state.vcpus.get(&0).and_then(|vcpu| vcpu.basic);
        let mut basic = basic.ok_or_else(|| bad_state("there are no registers of vCPU 0"))?.to_vec();
        let start_info = vcpu::localise(width, 0, &mut basic, p2m).map_err(bad_state)?;
        let start_info = start_info.ok_or_else(|| bad_state("vCPU 0 names no start info"))?;
        let incoming = self.incoming.as_ref().ok_or_else(|| bad_state("this domain is not being restored"))?;
        let mut page = [0; PAGE_SIZE];
        self.foreign.map(self.domid, Access::Read, &[start_info.0])?.read_page(0, &mut page);
        let host = HostPart {
            shared_info: self.info()?.shared_info_frame,
            store_port: incoming.store_evtchn,
            console_port: incoming.console_evtchn,
        };
        // Only looked at: it is put right when the guest begins, whether its primary has sent it again by then or not.
        let rings = start_info::restore(width, &mut page, &host, p2m).map_err(bad_state)?;
        let incoming = self.incoming.as_mut().ok_or_else(|| bad_state("this domain is not being restored"))?;
        (incoming.store_gfn, incoming.console_gfn) = (rings.store.frame.0, rings.console.frame.0);
        Ok(incoming.seed_grants(&self.control, self.domid, false)?)
    }

    fn pin_tables(&self, p2m: &RestoredP2m) -> Result<(), DomainError> {
        let pins = p2m.pinned().map(|(pfn, level)| {
            let frame = p2m.frame_of(pfn).ok_or_else(|| bad_state(format!("the pinned {pfn} has no frame")))?;
            Ok(pin(level, frame))
        });
        let pins: Vec<MmuextOp> = pins.collect::<Result<_, DomainError>>()?;
        Ok(self.control.mmuext(self.domid, &pins)?)
    }

    fn restore_start_info(
        &self,
        width: GuestWidth,
        frame: Mfn,
        p2m: &RestoredP2m,
        (store_port, console_port): (u32, u32),
    ) -> Result<Rings, DomainError> {
        let host = HostPart { shared_info: self.info()?.shared_info_frame, store_port, console_port };
        let mut mapping = self.foreign.map(self.domid, Access::ReadWrite, &[frame.0])?;
        let mut page = [0; PAGE_SIZE];
        mapping.read_page(0, &mut page);
        let rings = start_info::restore(width, &mut page, &host, p2m).map_err(bad_state)?;
        mapping.write_page(0, &page);
        Ok(rings)
    }

    fn restore_shared_info(&self, width: GuestWidth, saved: &Page) -> Result<(), DomainError> {
        let frame = self.info()?.shared_info_frame;
        let mut mapping = self.foreign.map(self.domid, Access::ReadWrite, &[frame.0])?;
        let mut page = [0; PAGE_SIZE];
        mapping.read_page(0, &mut page);
        shared_info::restore(width, saved, &mut page);
        mapping.write_page(0, &page);
        Ok(())
    }
}
