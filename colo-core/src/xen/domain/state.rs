use super::hvm::{self, HvmState};
use super::pv_state::PvState;
use super::{GuestType, XenDomain, bad_state};
use crate::domain::{Control as _, DomainError, RunState, State, StateRecord};
use crate::stream::{CpuidPolicy, DomainHeader, EmulatorState, MsrPolicy, StreamError, kind};
use crate::xen::control::policy::CpuPolicy;
use crate::xen::overlay::{become_like, twin_state};
use crate::xen::toolstack::messages::{MISSING_CPUID, MISSING_MSR};

impl State for XenDomain {
    fn stream_header(&self) -> DomainHeader {
        self.header
    }

    fn save_static(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        let mut records = Vec::new();
        if self.guest_type == GuestType::Pv {
            records.push(self.pv_info()?);
        }
        let CpuPolicy { cpuid, msrs } = self.control.cpu_policy(self.domid)?;
        // A stream has none rather than an empty one.
        let policies = [CpuidPolicy::record(&cpuid), MsrPolicy::record(&msrs)];
        records.extend(policies.into_iter().filter(|record| !record.body.is_empty()));
        Ok(records)
    }

    fn load_static(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        let body = |kind: u32| state.iter().find(|record| record.kind == kind).map(|record| record.body.as_slice());
        if let Some(info) = body(kind::X86_PV_INFO) {
            self.load_pv_info(info)?;
        }
        let cpuid = body(kind::X86_CPUID_POLICY).map(CpuidPolicy::parse).transpose();
        let msrs = body(kind::X86_MSR_POLICY).map(MsrPolicy::parse).transpose();
        let bad = |error: StreamError| bad_state(error.fault);
        let (cpuid, msrs) = (cpuid.map_err(bad)?, msrs.map_err(bad)?);
        if cpuid.is_some() || msrs.is_some() {
            let policy = CpuPolicy {
                cpuid: cpuid.iter().flat_map(CpuidPolicy::leaves).collect(),
                msrs: msrs.iter().flat_map(MsrPolicy::entries).collect(),
            };
            self.control.set_cpu_policy(self.domid, &policy)?;
        }
        let missing = [(cpuid.is_none(), MISSING_CPUID), (msrs.is_none(), MISSING_MSR)];
        let missing =
            missing.into_iter().filter(|(is_missing, _)| *is_missing).fold(0, |flags, (_, flag)| flags | flag);
        if let Some(incoming) = &mut self.incoming {
            incoming.missing_policies = Some(missing);
        }
        Ok(())
    }

    fn save_layout(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        match self.guest_type {
            GuestType::Pv => Ok(vec![self.p2m_frames()?]),
            GuestType::Pvh | GuestType::Hvm => Ok(Vec::new()),
        }
    }

    fn load_layout(&mut self, record: &StateRecord) -> Result<(), DomainError> {
        self.load_p2m_frames(record)
    }

    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        if self.run_state() != RunState::Suspended {
            return Err(DomainError::NotSuspended(self.spec.name.clone()));
        }
        let mut state = match self.guest_type {
            GuestType::Pv => self.save_pv_state()?,
            GuestType::Pvh => hvm::save_state(&self.control, self.domid)?,
            GuestType::Hvm => {
                self.emulator = Some(self.emulator_state()?);
                hvm::save_state(&self.control, self.domid)?
            }
        };
        if self.has_twin {
            state.extend(twin_state(self)?);
        }
        Ok(state)
    }

    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        match self.guest_type {
            GuestType::Pv => PvState::parse(state, self.pv()?.width.info()).map(drop),
            GuestType::Pvh => HvmState::parse(state).map(drop),
            GuestType::Hvm => {
                HvmState::parse(state)?;
                EmulatorState::from_records(state).map(drop).map_err(|error| bad_state(error.fault))
            }
        }
    }

    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        match self.guest_type {
            GuestType::Pv => self.load_pv_state(state),
            GuestType::Pvh | GuestType::Hvm => {
                let state = HvmState::parse(state)?;
                let incoming =
                    self.incoming.as_mut().ok_or_else(|| DomainError::NotSuspended(self.spec.name.clone()))?;
                Ok(state.load(&self.control, self.domid, incoming)?)
            }
        }
    }

    fn become_like(&mut self, likeness: &[u8]) -> Result<Option<String>, DomainError> {
        become_like(self, likeness)
    }
}
