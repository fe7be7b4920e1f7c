use super::{CallbackError, Ready, SaveCallbacks, Trigger};
use crate::domain::{Domain, StateRecord};
use crate::ids::Epoch;
use std::time::Instant;

/// One checkpoint, and that is the image.
#[derive(Default, Debug)]
pub struct PlainSave {
    /// Whether the domain goes on running once its state is captured. Otherwise it stays suspended.
    pub leave_running: bool,
}

impl SaveCallbacks for PlainSave {
    fn is_checkpointed(&self) -> bool {
        false
    }

    fn wait_checkpoint(&mut self, _now: Instant) -> Result<Ready<Trigger>, CallbackError> {
        Ok(Ready::Now(Trigger::Requested))
    }

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        Ok(domain.suspend()?)
    }

    fn capture(&mut self, _domain: &mut dyn Domain, _epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        Ok(Vec::new())
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, _epoch: Epoch) -> Result<(), CallbackError> {
        if self.leave_running {
            domain.resume()?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, _epoch: Epoch, _now: Instant) -> Result<Ready<bool>, CallbackError> {
        Ok(Ready::Now(false))
    }
}
