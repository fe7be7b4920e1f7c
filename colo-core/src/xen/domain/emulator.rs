use super::{GuestType, XenDomain};
use crate::domain::DomainError;
use crate::xen::qmp::QmpClient;
use crate::xen::toolstack::{DomainUuid, emulator};
use std::time::Duration;

/// How long a device model may take to answer: it stops at once, and writes some hundred kilobytes.
const QMP_LIMIT: Duration = Duration::from_secs(30);

/// What a device model knows, at the moment at which its guest was suspended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmulatorState {
    /// What it keeps in xenstore, as the stream has it.
    pub xenstore: Vec<u8>,
    /// Its devices, which only it reads.
    pub context: Vec<u8>,
}

impl XenDomain {
    /// The device model's state at the last checkpoint, if there is a device model.
    pub fn take_emulator_state(&mut self) -> Option<EmulatorState> {
        self.emulator.take()
    }

    pub(super) fn emulator_state(&mut self) -> Result<EmulatorState, DomainError> {
        let xenstore = emulator::xenstore_data(&mut self.store, self.domid).map_err(device_model)?;
        let context = self.with_device_model(|qmp| emulator::devices_state(qmp).map_err(device_model))?;
        Ok(EmulatorState { xenstore, context: context.unwrap_or_default() })
    }

    /// A device model may write to its guest's memory, and change its own state, while the guest stands still.
    pub(super) fn stop_device_model(&mut self) -> Result<(), DomainError> {
        self.with_device_model(|qmp| qmp.stop().map_err(device_model)).map(drop)
    }

    pub(super) fn start_device_model(&mut self) -> Result<(), DomainError> {
        self.with_device_model(|qmp| qmp.cont().map_err(device_model)).map(drop)
    }

    pub(super) fn set_device_model_log(&mut self, on: bool) -> Result<(), DomainError> {
        self.with_device_model(|qmp| qmp.set_global_dirty_log(on).map_err(device_model)).map(drop)
    }

    /// One conversation with the device model, if there is one. It serves one client at a time: nobody keeps a connection.
    fn with_device_model<T>(
        &self,
        talk: impl FnOnce(&mut QmpClient) -> Result<T, DomainError>,
    ) -> Result<Option<T>, DomainError> {
        if self.guest_type != GuestType::Hvm {
            return Ok(None);
        }
        let uuid = DomainUuid(self.uuid);
        let mut qmp = QmpClient::connect_domain(self.domid, uuid, QMP_LIMIT).map_err(device_model)?;
        talk(&mut qmp).map(Some)
    }
}

fn device_model(error: impl std::error::Error + Send + Sync + 'static) -> DomainError {
    DomainError::Hypervisor(Box::new(error))
}
