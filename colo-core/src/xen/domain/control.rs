use super::{GuestType, XenDomain, grown};
use crate::domain::{Control, DomainError, DomainSpec, RunState};
use crate::xen::ShutdownReason;
use crate::xen::suspend::{Suspender, Timeouts};
use crate::xen::toolstack::Xl;
use std::time::Instant;

impl XenDomain {
    pub(super) fn suspender(&mut self) -> Result<&mut Suspender, DomainError> {
        match &mut self.suspender {
            Some(suspender) => Ok(suspender),
            none => {
                let suspender = none.insert(Suspender::open(self.xen, self.domid)?);
                if let Some(stop) = self.stop.take() {
                    suspender.stop_by(stop);
                }
                Ok(suspender)
            }
        }
    }

    /// Sets right what a saver of this domain has left that died: the dirty logs are switched off. With `asked` the guest may have been
    /// asked to suspend itself, and may not have come to it yet: it runs then. Without, a guest that stands still does so for another.
    ///
    /// # Errors
    /// When it cannot be resumed, or does not suspend in time after it has said that it will. The logs are off, if they can be.
    pub fn rescue(&mut self, asked: bool) -> Result<(), DomainError> {
        let resumed = if asked { self.let_go_on() } else { Ok(()) };
        let _ = self.stop_left_logging();
        resumed
    }

    fn let_go_on(&mut self) -> Result<(), DomainError> {
        let limit = self.suspend_limit;
        if self.run_state() == RunState::Running && !self.suspender()?.call_off(limit)? {
            self.is_asked = false;
            return Ok(());
        }
        match self.run_state() {
            RunState::Suspended => self.go_on(),
            RunState::Running | RunState::ShutDown | RunState::Crashed => Ok(()),
        }
    }

    /// Resumes the guest, also if its device model does not: what is left then is told.
    fn go_on(&mut self) -> Result<(), DomainError> {
        let device_model = self.start_device_model();
        self.suspender()?.resume()?;
        self.is_asked = false;
        self.last_pause = self.suspended_at.take().map(|since| since.elapsed());
        device_model
    }

    /// Forgets the mappings if the guest has got memory since they were made: it may have other frames under the same numbers. (A page
    /// that it gives back while that is mapped is still counted, so a page in its place is one more. That holds as long as every page is
    /// mapped; after they have been forgotten once, they are forgotten each time.)
    pub(super) fn follow_memory(&mut self) -> Result<(), DomainError> {
        let info = self.info()?;
        if self.mapped_total != Some(info.total_pages) {
            self.memory.get_mut().forget();
            self.mapped_total = None;
        }
        Ok(())
    }

    fn suspend_once(&mut self) -> Result<(), DomainError> {
        let timeouts = Timeouts { acknowledge: self.suspend_limit, suspend: self.suspend_limit };
        self.is_asked = true;
        let began = Instant::now();
        let way = match self.suspender()?.suspend(timeouts) {
            Ok(way) => way,
            Err(error) => {
                self.is_asked = !error.is_taken_back();
                return Err(error.into());
            }
        };
        tracing::debug!("{} is suspended: {way}, {:?}", self.spec.name, began.elapsed());
        self.suspended_at = Some(Instant::now());
        if self.has_twin { self.hold_device_model() } else { self.stop_device_model() }?;
        self.check_limit()?;
        if self.log.is_off() {
            self.memory.get_mut().forget();
        }
        self.follow_memory()?;
        self.read_p2m()
    }

    /// A page beyond what was looked at when this was opened would be missing.
    fn check_limit(&self) -> Result<(), DomainError> {
        match self.guest_type {
            // That is looked at when its own table is read.
            GuestType::Pv => Ok(()),
            GuestType::Pvh | GuestType::Hvm if self.control.nr_gpfns(self.domid)? <= self.spec.pfn_limit => Ok(()),
            GuestType::Pvh | GuestType::Hvm => Err(grown(&self.spec.name)),
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
            RunState::Suspended if self.incoming.is_some() || self.suspended_at.is_some() => return Ok(()),
            RunState::Suspended => return Err(DomainError::SuspendedByAnother(self.spec.name.clone())),
            RunState::Running if self.info()?.paused => {
                return Err(DomainError::Other(format!("{} is paused: unpause it first", self.spec.name)));
            }
            RunState::Running => {}
            RunState::ShutDown | RunState::Crashed => return Err(DomainError::NotRunning(self.spec.name.clone())),
        }
        let mut retries = 0;
        loop {
            self.suspend_once()?;
            self.settle_disks()?;
            if !self.must_retry(retries)? {
                return Ok(());
            }
            self.go_on()?;
            retries += 1;
        }
    }

    /// Without its help, which may take longer: a guest is held when nobody will go on from where it stands.
    fn hold(&mut self) -> Result<(), DomainError> {
        if !self.is_held {
            self.control.pause(self.domid)?;
            self.is_held = true;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        if std::mem::take(&mut self.is_held) {
            self.control.unpause(self.domid)?;
        }
        match self.run_state() {
            // It may suspend itself yet.
            RunState::Running if self.is_asked => self.let_go_on(),
            RunState::Running => Ok(()),
            RunState::Suspended if self.is_asked => self.go_on(),
            RunState::Suspended => Err(DomainError::SuspendedByAnother(self.spec.name.clone())),
            RunState::ShutDown | RunState::Crashed => Err(DomainError::NotRunning(self.spec.name.clone())),
        }
    }

    fn destroy(&mut self) {
        // From here on it does nothing; what is around it goes by the toolstack's own way.
        let _ = self.control.pause(self.domid);
        self.memory.get_mut().forget();
        *self.monitor.get_mut() = None;
        let by_toolstack = Xl::find().and_then(|xl| xl.destroy(self.domid));
        if let Err(error) = by_toolstack {
            tracing::warn!("{error}");
            let _ = self.control.destroy(self.domid);
        }
    }
}
