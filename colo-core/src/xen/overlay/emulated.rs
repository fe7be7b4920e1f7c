use super::Overlay;
use crate::domain::{DirtyBitmap, DomainError, StateRecord};
use crate::stream::EmulatorState;
use crate::xen::domain::XenDomain;
use crate::xen::suspend::Suspender;
use crate::xen::{DeviceModel, GuestType};
use std::time::Duration;
use xen_sys::ctrl;

/// How long the hypervisor may take to stop a guest: until the device model has answered what is in flight.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where a device writes to interrupt the processor with the local APIC 0; APIC identifiers are in bits 12 to 19.
const MSI_ADDRESS: u64 = 0xFEE0_0000;
/// Any vector that a processor takes: what becomes of it is thrown away.
const KICK_VECTOR: u32 = 0xF3;

/// For HVM guests without PV drivers: the hypervisor stops and resumes them without their knowing, and the device model that runs is
/// given the state of the primary's.
///
/// Nothing of the domain is taken down for that: the device model stays the process that it is, with its interfaces, its sockets and its
/// place in the hypervisor. The guest has no event channel and no grant, so there is nothing else that knows it.
pub struct Emulated {
    suspender: Suspender,
    model: DeviceModel,
}

impl Emulated {
    /// For a domain that was made from its primary's image, by the same configuration.
    ///
    /// # Errors
    /// When Xen refuses.
    pub fn open(domain: &XenDomain) -> Result<Emulated, DomainError> {
        let (xen, domid) = (domain.xen(), domain.domid());
        Ok(Emulated { suspender: Suspender::open(xen, domid)?, model: DeviceModel::open(xen)? })
    }

    /// Wakes each vCPU that has halted: to the hypervisor it would stay blocked, whatever its registers say.
    fn kick(&self, domain: &XenDomain) -> Result<(), DomainError> {
        let domid = domain.domid();
        for vcpu in 0..self.model.nr_vcpus(domid)? {
            // As the hypervisor numbers APICs.
            let address = MSI_ADDRESS | u64::from(2 * vcpu) << 12;
            let kicked = self.model.inject_msi(domid, address, KICK_VECTOR);
            // One that the guest has never started takes no interrupts.
            let _ = kicked.inspect_err(|error| tracing::debug!("vCPU {vcpu}: {error}"));
        }
        Ok(())
    }
}

impl Overlay for Emulated {
    fn stop(&mut self, domain: &mut XenDomain) -> Result<(), DomainError> {
        // By a shutdown, not by a pause: it waits for what the device model has in hand, which is in no saved state.
        self.suspender.force(STOP_LIMIT)?;
        let control = domain.control();
        // One that has never run may be paused already, and pauses are counted.
        if control.domain_info(domain.domid())?.is_some_and(|info| !info.paused) {
            control.pause(domain.domid())?;
        }
        self.kick(domain)?;
        domain.stop_device_model()
    }

    fn unlogged(&mut self, _: &mut XenDomain, _: &mut DirtyBitmap) -> Result<(), DomainError> {
        // What the device model writes is in the log: it has been told to see to that.
        Ok(())
    }

    fn load(&mut self, domain: &mut XenDomain, state: &[StateRecord]) -> Result<(), DomainError> {
        let emulator =
            EmulatorState::from_records(state).map_err(|error| DomainError::BadState(error.fault.to_string()))?;
        let emulator = emulator.ok_or_else(|| DomainError::BadState("there is no device model's state".into()))?;
        domain.load_emulator_state(&emulator)?;
        domain.overlay_hvm_state(state)
    }

    fn go(&mut self, domain: &mut XenDomain) -> Result<(), DomainError> {
        // The guest's first access must find somebody.
        domain.start_device_model()?;
        self.suspender.resume()?;
        Ok(domain.control().unpause(domain.domid())?)
    }
}

/// Whether an HVM guest does without Xen's event channels, so that a device of its own is never interrupted through one. (A guest that
/// gets its interrupts in another way than by this parameter sets it nonetheless, for toolstacks.)
///
/// # Errors
/// When the hypervisor refuses.
pub fn is_without_pv_drivers(domain: &XenDomain) -> Result<bool, DomainError> {
    let is_hvm = domain.guest_type() == GuestType::Hvm;
    Ok(is_hvm && domain.control().hvm_param(domain.domid(), ctrl::HVM_PARAM_CALLBACK_IRQ)? == 0)
}
