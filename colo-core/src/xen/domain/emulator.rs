use super::{GuestType, XenDomain};
use crate::domain::DomainError;
use crate::stream::EmulatorState;
use crate::xen::qmp::{QmpClient, QmpError};
use crate::xen::snapshot;
use crate::xen::toolstack::emulator;
use std::time::Duration;

/// How long a device model may take to answer: it stops at once, and writes some hundred kilobytes.
const QMP_LIMIT: Duration = Duration::from_secs(30);

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

    /// Puts another's state into this domain's device model, which runs as a process and has been stopped
    /// ([`XenDomain::stop_device_model`]). The guest must be stopped, too; whether its memory is the other's already or will be makes no
    /// difference. The guest's disks are not touched.
    ///
    /// # Errors
    /// [`DomainError::BadState`] when the other's guest has moved its video memory to where this one has not: such a domain must be made
    /// anew. Else when the device model does not take the state; it is of no further use then.
    pub fn load_emulator_state(&self, state: &EmulatorState) -> Result<(), DomainError> {
        let own = emulator::physmap(self.domid, &self.store).map_err(device_model)?;
        if own != state.xenstore {
            return Err(DomainError::BadState(
                "the guest has moved its video memory since this domain was made".into(),
            ));
        }
        self.with_device_model(|qmp| snapshot::load_into(qmp, &state.context)).map(drop).map_err(device_model)
    }

    /// Lets the device model stand still, if there is one: it may write to its guest's memory, and change its own state, while the guest
    /// stands still.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn stop_device_model(&mut self) -> Result<(), DomainError> {
        self.with_device_model(QmpClient::stop).map(drop).map_err(device_model)
    }

    /// As [`XenDomain::stop_device_model`], and goes on speaking with it until it is started: to begin a conversation takes several times as
    /// long as a command. Nobody else can speak with it meanwhile, and `xl` waits for ten seconds at most: that is for a checkpoint, not for
    /// a save.
    ///
    /// # Errors
    /// When it does not answer.
    pub(in crate::xen) fn hold_device_model(&mut self) -> Result<(), DomainError> {
        if self.guest_type == GuestType::Hvm && self.monitor.get_mut().is_none() {
            let qmp = QmpClient::connect_domain(self.domid, self.uuid, QMP_LIMIT).map_err(device_model)?;
            *self.monitor.get_mut() = Some(qmp);
        }
        self.stop_device_model()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_device_model(&mut self) -> Result<(), DomainError> {
        let started = self.with_device_model(QmpClient::cont).map(drop).map_err(device_model);
        *self.monitor.get_mut() = None;
        started
    }

    pub(super) fn set_device_model_log(&mut self, on: bool) -> Result<(), DomainError> {
        self.with_device_model(|qmp| qmp.set_global_dirty_log(on)).map(drop).map_err(device_model)
    }

    /// One conversation with the device model, if there is one, or a part of the one that is held. It serves one client at a time: nobody
    /// keeps a connection for long.
    pub(super) fn with_device_model<T, E: From<QmpError>>(
        &self,
        talk: impl FnOnce(&mut QmpClient) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        if self.guest_type != GuestType::Hvm {
            return Ok(None);
        }
        let mut held = self.monitor.borrow_mut();
        let Some(qmp) = held.as_mut() else {
            return talk(&mut QmpClient::connect_domain(self.domid, self.uuid, QMP_LIMIT)?).map(Some);
        };
        let talked = talk(qmp);
        if talked.is_err() {
            // It may be good for nothing.
            *held = None;
        }
        talked.map(Some)
    }
}

fn device_model(error: impl std::error::Error + Send + Sync + 'static) -> DomainError {
    DomainError::Hypervisor(Box::new(error))
}
