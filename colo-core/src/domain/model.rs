//! A domain in plain memory, exact and without surprises: for tests, and for trying the engine without a hypervisor.

use super::{
    Control, DirtyBitmap, DirtyLog, DomainError, DomainSpec, MacAddr, NicSpec, Pages, RunState, State, StateRecord,
    check_batch,
};
use crate::ids::{PAGE_SIZE, Page, Pfn};
use crate::stream::DomainHeader;
use std::net::Ipv4Addr;
use zerocopy::FromBytes;

/// The type of the one state record that a [`ModelDomain`] has: its registers.
pub const MODEL_STATE: u32 = 0x8000_C00F;

/// A domain whose memory is a vector and whose vCPU is a few bytes; it does nothing by itself.
pub struct ModelDomain {
    spec: DomainSpec,
    run_state: RunState,
    ram: Vec<u8>,
    dirty: Option<DirtyBitmap>,
    /// What stands for the vCPU: any bytes.
    pub registers: Vec<u8>,
    /// Pages that count as mapped in the host.
    pub mapped: Vec<Pfn>,
    /// Pages that count as in others' hands, too.
    pub shared: Vec<Pfn>,
}

impl ModelDomain {
    /// A suspended domain of that many pages, all zero.
    pub fn new(name: &str, pages: u64) -> Self {
        let nic = NicSpec { mac: MacAddr([2, 0, 0, 0, 0, 1]), ipv4: Some(Ipv4Addr::new(10, 0, 0, 1)) };
        ModelDomain::from_spec(DomainSpec {
            name: name.into(),
            hypervisor: "model".into(),
            pfn_limit: pages,
            nics: vec![nic],
            disks: Vec::new(),
            config: Vec::new(),
        })
    }

    /// A suspended domain to that specification, all zero.
    pub fn from_spec(spec: DomainSpec) -> Self {
        let ram = vec![0; spec.ram_bytes() as usize];
        ModelDomain {
            spec,
            run_state: RunState::Suspended,
            ram,
            dirty: None,
            registers: Vec::new(),
            mapped: Vec::new(),
            shared: Vec::new(),
        }
    }

    /// Its whole memory.
    pub fn ram(&self) -> &[u8] {
        &self.ram
    }

    /// What a guest's store instruction does: writes `data` at byte `offset` of memory, and logs the pages as dirty.
    ///
    /// # Panics
    /// When that is beyond the end of memory.
    pub fn store(&mut self, offset: usize, data: &[u8]) {
        self.ram[offset..offset + data.len()].copy_from_slice(data);
        if let Some(dirty) = &mut self.dirty {
            for pfn in offset / PAGE_SIZE..(offset + data.len()).div_ceil(PAGE_SIZE) {
                dirty.set(Pfn(pfn as u64));
            }
        }
    }

    fn range(&self, pfn: Pfn) -> Result<std::ops::Range<usize>, DomainError> {
        if pfn.0 >= self.spec.pfn_limit {
            return Err(DomainError::PfnOutOfRange { pfn, pfn_limit: self.spec.pfn_limit });
        }
        let start = pfn.byte_offset() as usize;
        Ok(start..start + PAGE_SIZE)
    }
}

impl Control for ModelDomain {
    fn spec(&self) -> &DomainSpec {
        &self.spec
    }

    fn run_state(&self) -> RunState {
        self.run_state
    }

    fn suspend(&mut self) -> Result<(), DomainError> {
        match self.run_state {
            RunState::Running | RunState::Suspended => self.run_state = RunState::Suspended,
            RunState::ShutDown | RunState::Crashed => {
                return Err(DomainError::NotRunning(self.spec.name.clone()));
            }
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        match self.run_state {
            RunState::Running | RunState::Suspended => self.run_state = RunState::Running,
            RunState::ShutDown | RunState::Crashed => {
                return Err(DomainError::NotRunning(self.spec.name.clone()));
            }
        }
        Ok(())
    }

    fn destroy(&mut self) {
        self.run_state = RunState::ShutDown;
    }
}

impl DirtyLog for ModelDomain {
    fn dirty_log_kind(&self) -> &'static str {
        "model"
    }

    fn enable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.dirty = Some(DirtyBitmap::new(self.spec.pfn_limit));
        Ok(())
    }

    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        let dirty = self.dirty.as_mut().ok_or(DomainError::DirtyLogOff)?;
        into.union(dirty);
        dirty.clear();
        Ok(())
    }

    fn disable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.dirty = None;
        Ok(())
    }
}

impl Pages for ModelDomain {
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        for (pfn, page) in self.ram.chunks(PAGE_SIZE).enumerate() {
            if page.iter().any(|&byte| byte != 0) {
                into.set(Pfn(pfn as u64));
            }
        }
        Ok(())
    }

    fn shared_pages(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.shared.iter().for_each(|pfn| into.set(*pfn));
        Ok(())
    }

    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        check_batch(pfns, out.len())?;
        for (&pfn, page) in pfns.iter().zip(out.chunks_mut(PAGE_SIZE)) {
            page.copy_from_slice(&self.ram[self.range(pfn)?]);
        }
        Ok(())
    }

    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        check_batch(pfns, data.len())?;
        for (&pfn, page) in pfns.iter().zip(data.chunks(PAGE_SIZE)) {
            let range = self.range(pfn)?;
            self.ram[range].copy_from_slice(page);
        }
        Ok(())
    }

    fn pages_mut(&mut self, pfns: &[Pfn]) -> Result<Option<&mut [Page]>, DomainError> {
        let follows = |(pfn, at): &(&Pfn, u64)| pfn.0 == pfns[0].0 + at && self.mapped.contains(pfn);
        let count = pfns.iter().zip(0..).take_while(follows).count();
        if count == 0 {
            return Ok(None);
        }
        let range = self.range(pfns[0])?.start..self.range(pfns[count - 1])?.end;
        Ok(<[Page]>::mut_from_bytes(&mut self.ram[range]).ok())
    }
}

impl State for ModelDomain {
    fn stream_header(&self) -> DomainHeader {
        DomainHeader::embedded()
    }

    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        if self.run_state != RunState::Suspended {
            return Err(DomainError::NotSuspended(self.spec.name.clone()));
        }
        Ok(vec![StateRecord { kind: MODEL_STATE, body: self.registers.clone() }])
    }

    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        match state {
            [StateRecord { kind: MODEL_STATE, .. }] => Ok(()),
            _ => Err(DomainError::BadState("a model domain has exactly one state record".into())),
        }
    }

    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        self.check_state(state)?;
        if self.run_state != RunState::Suspended {
            return Err(DomainError::NotSuspended(self.spec.name.clone()));
        }
        self.registers.clone_from(&state[0].body);
        Ok(())
    }
}
