use super::XenDomain;
use crate::domain::{Control, DomainError, DomainSpec, RunState};
use crate::xen::ShutdownReason;
use crate::xen::suspend::{SuspendError, Suspender, Timeouts};
use crate::xen::toolstack::Xl;
use std::time::{Duration, Instant};

/// How long a guest takes, at most, from hearing that it shall suspend itself until it has.
const HEARD_LIMIT: Duration = Duration::from_secs(10);

impl XenDomain {
    /// Lets the guest run that another was about to save, and does not save any more: with `is_logged`, it had the guest's writes
    /// logged; with `is_asked`, it had perhaps asked the guest to suspend itself.
    ///
    /// # Errors
    /// When Xen refuses. Whatever can be done is done.
    pub fn let_go(&mut self, is_logged: bool, is_asked: bool) -> Result<(), DomainError> {
        let unlogged = if is_logged { self.disable_left_log() } else { Ok(()) };
        if is_asked {
            let limit = HEARD_LIMIT.min(self.suspend_limit);
            self.suspender()?.take_back_of_another(limit)?;
        }
        if self.run_state() == RunState::Suspended {
            self.resume()?;
        }
        unlogged
    }

    fn tell_suspend(&mut self, begins: bool) {
        if let Some(hook) = &mut self.suspend_hook {
            hook(begins);
        }
    }

    fn suspender(&mut self) -> Result<&mut Suspender, DomainError> {
        match &mut self.suspender {
            Some(suspender) => Ok(suspender),
            none => Ok(none.insert(Suspender::open(self.xen, self.domid)?)),
        }
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
        let timeouts = Timeouts { acknowledge: self.suspend_limit, suspend: self.suspend_limit };
        self.tell_suspend(true);
        let suspended = self.suspender()?.suspend(timeouts);
        if let Err(SuspendError::NotAcknowledged(_)) = suspended {
            self.tell_suspend(false);
        }
        let way = suspended?;
        tracing::debug!("{} is suspended: {way}", self.spec.name);
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
        self.suspender()?.resume()?;
        self.tell_suspend(false);
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
