use super::steps::Steps;
use super::{Overlay, OverlayStats};
use crate::domain::{DirtyBitmap, DomainError, StateRecord};
use crate::layers::Timings;
use crate::stream::EmulatorState;
use crate::xen::domain::XenDomain;
use crate::xen::suspend::Suspender;
use crate::xen::{DeviceModel, GuestType};
use std::time::Duration;
use xen_sys::ctrl;

/// How long the hypervisor may take to stop a guest: until the device model has answered what is in flight.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where a device writes to interrupt the processor with the local APIC 0, and where in that address its number is.
const MSI_ADDRESS: u64 = 0xfee0_0000;
const MSI_APIC_SHIFT: u32 = 12;
/// Any vector that a processor takes: what becomes of it is thrown away.
const KICK_VECTOR: u32 = 0xf3;

/// An HVM guest without PV drivers: the hypervisor stops and resumes it without its knowing, and the device model that runs is given the
/// state of the primary's.
///
/// Nothing of the domain is taken down for that: the device model stays the process that it is, with its interfaces, its sockets and its
/// place in the hypervisor. The guest has no event channel and no grant, so there is nothing else that knows it.
pub(super) struct Emulated {
    suspender: Suspender,
    model: DeviceModel,
    stats: OverlayStats,
    timings: Timings,
}

impl Emulated {
    /// For a domain that was made from its primary's image, by the same configuration.
    pub(super) fn open(domain: &XenDomain) -> Result<Emulated, DomainError> {
        let (xen, domid) = (domain.xen(), domain.domid());
        Ok(Emulated {
            suspender: Suspender::open(xen, domid)?,
            model: DeviceModel::open(xen)?,
            stats: OverlayStats::default(),
            timings: Timings::default(),
        })
    }

    /// Wakes each vCPU that has halted: to the hypervisor it would stay blocked, whatever its registers say.
    fn kick(&self, domain: &XenDomain) -> Result<(), DomainError> {
        let domid = domain.domid();
        for vcpu in 0..self.model.nr_vcpus(domid)? {
            // As the hypervisor numbers APICs.
            let apic_id = u64::from(vcpu * 2);
            let kicked = self.model.inject_msi(domid, MSI_ADDRESS | apic_id << MSI_APIC_SHIFT, KICK_VECTOR);
            // One that the guest has never started takes no interrupts.
            let _ = kicked.inspect_err(|error| tracing::debug!("vCPU {vcpu}: {error}"));
        }
        Ok(())
    }
}

impl Overlay for Emulated {
    fn check(&self, _: &XenDomain, state: &[StateRecord]) -> Result<(), DomainError> {
        emulator_state(state).map(drop)
    }

    fn stop(&mut self, domain: &mut XenDomain) -> Result<(), DomainError> {
        let mut steps = Steps::new("stop", &self.timings);
        // By a shutdown, not by a pause: it waits for what the device model has in hand, which is in no saved state.
        self.suspender.force(STOP_LIMIT)?;
        steps.step("force");
        let (control, ..) = domain.handles();
        // One that has never run may be paused already, and pauses are counted.
        if control.domain_info(domain.domid())?.is_some_and(|info| !info.paused) {
            control.pause(domain.domid())?;
        }
        self.kick(domain)?;
        steps.step("pause, kick");
        if self.stats.transparent > 0 {
            domain.hold_device_model()?;
        } else {
            // All of the primary's memory is still to come: others may want to speak with it until then.
            domain.stop_device_model()?;
        }
        steps.step("stop device model");
        Ok(())
    }

    fn unlogged(&mut self, _: &mut XenDomain, _: &mut DirtyBitmap) -> Result<(), DomainError> {
        // What the device model writes is in the log: it has been told to see to that.
        Ok(())
    }

    fn load(&mut self, domain: &mut XenDomain, state: &[StateRecord]) -> Result<(), DomainError> {
        let mut steps = Steps::new("load", &self.timings);
        domain.load_emulator_state(&emulator_state(state)?)?;
        steps.step("device model's state");
        domain.overlay_hvm_state(state)?;
        steps.step("context");
        self.stats.transparent += 1;
        Ok(())
    }

    fn go(&mut self, domain: &mut XenDomain) -> Result<(), DomainError> {
        let mut steps = Steps::new("go", &self.timings);
        // The guest's first access must find somebody.
        domain.start_device_model()?;
        steps.step("start device model");
        self.suspender.resume()?;
        let (control, ..) = domain.handles();
        control.unpause(domain.domid())?;
        steps.step("resume");
        Ok(())
    }

    fn stats(&self) -> OverlayStats {
        self.stats.clone()
    }

    fn timings(&self) -> Timings {
        self.timings.clone()
    }
}

/// The device model's state among a checkpoint's records: without it there is no such guest.
fn emulator_state(state: &[StateRecord]) -> Result<EmulatorState, DomainError> {
    let emulator =
        EmulatorState::from_records(state).map_err(|error| DomainError::BadState(error.fault.to_string()))?;
    emulator.ok_or_else(|| DomainError::BadState("there is no device model's state".into()))
}

/// Whether this is an HVM guest that does without Xen's event channels, so that no device interrupts it through one. (A guest that gets
/// its events in another way than by this parameter sets it nonetheless, for toolstacks.)
///
/// # Errors
/// When the hypervisor refuses.
pub fn is_without_pv_drivers(domain: &XenDomain) -> Result<bool, DomainError> {
    if domain.guest_type() != GuestType::Hvm {
        return Ok(false);
    }
    let (control, ..) = domain.handles();
    Ok(control.hvm_param(domain.domid(), ctrl::HVM_PARAM_CALLBACK_IRQ)? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::kind;

    #[test]
    fn a_checkpoint_without_a_device_model_is_refused() {
        let state = EmulatorState { xenstore: Vec::new(), context: b"QEVM\0".to_vec() };
        let mut records = state.to_records().unwrap();
        assert_eq!(emulator_state(&records).unwrap(), state);
        records[0].body.pop();
        for bad in [&records[..], &[], &[StateRecord { kind: kind::HVM_CONTEXT, body: Vec::new() }]] {
            assert!(matches!(emulator_state(bad), Err(DomainError::BadState(_))));
        }
    }
}
