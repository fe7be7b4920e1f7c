use super::{GuestType, XenDomain};
use crate::domain::DomainError;
use crate::xen::qmp::{QmpClient, QmpError};
use crate::xen::toolstack::emulator;
use std::time::Duration;

/// How long a device model may take to answer: it stops at once, and writes some hundred kilobytes.
const QMP_LIMIT: Duration = Duration::from_secs(30);

/// What a device model knows, at the moment at which its guest was suspended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmulatorState {
    /// What it keeps in xenstore: keys, relative to its own folder, and values.
    pub xenstore: Vec<(String, String)>,
    /// Its devices, which only it reads.
    pub context: Vec<u8>,
}

impl XenDomain {
    /// The device model's state at the last checkpoint, if there is a device model.
    pub fn take_emulator_state(&mut self) -> Option<EmulatorState> {
        self.emulator.take()
    }

    pub(super) fn emulator_state(&mut self) -> Result<EmulatorState, DomainError> {
        let xenstore = emulator::physmap(self.domid, &self.store).map_err(device_model)?;
        let context = self.with_device_model(emulator::device_state).map_err(device_model)?;
        Ok(EmulatorState { xenstore, context: context.unwrap_or_default() })
    }

    /// A device model may write to its guest's memory, and change its own state, while the guest stands still.
    pub(super) fn stop_device_model(&mut self) -> Result<(), DomainError> {
        self.with_device_model(QmpClient::stop).map(drop).map_err(device_model)
    }

    pub(super) fn start_device_model(&mut self) -> Result<(), DomainError> {
        self.with_device_model(QmpClient::cont).map(drop).map_err(device_model)
    }

    pub(super) fn set_device_model_log(&mut self, on: bool) -> Result<(), DomainError> {
        self.with_device_model(|qmp| qmp.set_global_dirty_log(on)).map(drop).map_err(device_model)
    }

    /// One conversation with the device model, if there is one. It serves one client at a time: nobody keeps a connection.
    pub(super) fn with_device_model<T, E: From<QmpError>>(
        &self,
        talk: impl FnOnce(&mut QmpClient) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        if self.guest_type != GuestType::Hvm {
            return Ok(None);
        }
        let mut qmp = QmpClient::connect_domain(self.domid, self.uuid, QMP_LIMIT)?;
        talk(&mut qmp).map(Some)
    }
}

fn device_model(error: impl std::error::Error + Send + Sync + 'static) -> DomainError {
    DomainError::Hypervisor(Box::new(error))
}
