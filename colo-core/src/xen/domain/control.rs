use super::{GuestType, XenDomain};
use crate::domain::{Control, DomainError, DomainSpec, RunState};
use crate::xen::control::ShutdownReason;
use crate::xen::suspend;
use crate::xen::toolstack::Xl;
use std::time::Instant;
use xen_sys::ctrl;

impl XenDomain {
    /// Whether the guest can suspend itself. A PV or PVH guest always can; an HVM guest when it has PV drivers, which it tells by asking
    /// for a callback.
    fn can_suspend_itself(&self) -> Result<bool, DomainError> {
        match self.guest_type {
            GuestType::Pv | GuestType::Pvh => Ok(true),
            GuestType::Hvm => Ok(self.control.hvm_param(self.domid, ctrl::HVM_PARAM_CALLBACK_IRQ)? != 0),
        }
    }

    fn suspend_vcpus(&mut self) -> Result<(), DomainError> {
        let deadline = Instant::now() + self.suspend_limit;
        if self.can_suspend_itself()? {
            suspend::ask(&self.control, &self.store, self.domid, deadline)?;
        } else {
            suspend::force(&self.control, &self.store, self.domid, deadline)?;
        }
        Ok(())
    }
}

impl Control for XenDomain {
    fn spec(&self) -> &DomainSpec {
        &self.spec
    }

    fn run_state(&self) -> RunState {
        let Ok(Some(info)) = self.control.domain_info(self.domid) else {
            return RunState::ShutDown;
        };
        match info.shutdown {
            _ if info.dying => RunState::ShutDown,
            Some(ShutdownReason::SUSPEND) => RunState::Suspended,
            Some(ShutdownReason::CRASH) => RunState::Crashed,
            Some(_) => RunState::ShutDown,
            None if self.incoming.is_some() => RunState::Suspended,
            None => RunState::Running,
        }
    }

    fn suspend(&mut self) -> Result<(), DomainError> {
        match self.run_state() {
            RunState::Suspended => return Ok(()),
            RunState::Running => {}
            RunState::ShutDown | RunState::Crashed => return Err(DomainError::NotRunning(self.spec.name.clone())),
        }
        if self.info()?.paused {
            return Err(DomainError::Other(format!("{} is paused: unpause it first", self.spec.name)));
        }
        let pages = self.info()?.total_pages;
        self.suspend_vcpus()?;
        self.suspended_at = Some(Instant::now());
        self.stop_device_model()?;
        // A guest that has given memory back, or got some, may have other frames under the same numbers.
        if self.log.is_off() || pages != self.mapped_total {
            self.memory.get_mut().forget();
        }
        self.mapped_total = self.info()?.total_pages;
        self.read_p2m()
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        match self.run_state() {
            RunState::Running => return Ok(()),
            RunState::Suspended => {}
            RunState::ShutDown | RunState::Crashed => return Err(DomainError::NotRunning(self.spec.name.clone())),
        }
        self.start_device_model()?;
        // To a guest that was suspended without its help, the call's result would be a register changed behind its back.
        self.control.resume(self.domid, self.can_suspend_itself()?)?;
        // Xenstore has seen the domain shut down, and would not tell of the next time otherwise.
        self.store.resume_domain(self.domid)?;
        self.last_pause = self.suspended_at.take().map(|since| since.elapsed());
        Ok(())
    }

    fn destroy(&mut self) {
        // From here on it does nothing; what is around it goes by the toolstack's own way.
        let _ = self.control.pause(self.domid);
        self.memory.get_mut().forget();
        let by_toolstack = Xl::find().and_then(|xl| xl.destroy(self.domid));
        if let Err(error) = by_toolstack {
            tracing::warn!("{error}");
            let _ = self.control.destroy(self.domid);
        }
    }
}
