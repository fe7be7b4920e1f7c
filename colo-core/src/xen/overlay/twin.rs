use super::prepare::likeness;
use super::{Overlay, OverlayStats};
use crate::domain::{Control, DirtyBitmap, DirtyLog, DomainError, DomainSpec, Pages, RunState, State, StateRecord};
use crate::ids::{Page, Pfn};
use crate::layers::Timings;
use crate::stream::{DomainHeader, PageList, PageType};
use crate::xen::domain::XenDomain;

/// A domain that runs beside another host's, and is given its state at each checkpoint.
pub struct Twin {
    domain: XenDomain,
    overlay: Box<dyn Overlay>,
    /// Stopped by [`Overlay::stop`], and not gone on since.
    is_stopped: bool,
    /// Paused, and nothing else.
    is_held: bool,
    /// By which way the last state was loaded.
    way: Option<String>,
}

impl Twin {
    /// For a domain that runs, or is paused and has never run.
    pub fn new(domain: XenDomain, overlay: Box<dyn Overlay>) -> Twin {
        Twin { domain, overlay, is_stopped: false, is_held: false, way: None }
    }

    /// The domain.
    pub fn domain(&mut self) -> &mut XenDomain {
        &mut self.domain
    }

    /// How its checkpoints were loaded.
    pub fn stats(&self) -> OverlayStats {
        self.overlay.stats()
    }

    /// How long each step of that took.
    pub fn timings(&self) -> Timings {
        self.overlay.timings()
    }
}

impl Control for Twin {
    fn spec(&self) -> &DomainSpec {
        self.domain.spec()
    }

    fn run_state(&self) -> RunState {
        match self.domain.run_state() {
            // A way that resets the domain clears that it is suspended, and holds it by a pause.
            RunState::Running if self.is_stopped || self.is_held => RunState::Suspended,
            state => state,
        }
    }

    fn suspend(&mut self) -> Result<(), DomainError> {
        if self.is_stopped {
            return Ok(());
        }
        self.overlay.stop(&mut self.domain)?;
        self.is_stopped = true;
        Ok(())
    }

    fn hold(&mut self) -> Result<(), DomainError> {
        // Not by [`Overlay::stop`]: what that takes away only another's state gives back.
        if !self.is_stopped && !self.is_held {
            self.domain.handles().0.pause(self.domain.domid())?;
            self.is_held = true;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        if std::mem::take(&mut self.is_held) {
            self.domain.handles().0.unpause(self.domain.domid())?;
        }
        if self.is_stopped {
            self.overlay.go(&mut self.domain)?;
            self.is_stopped = false;
        }
        Ok(())
    }

    fn load_way(&self) -> Option<String> {
        self.way.clone()
    }

    fn destroy(&mut self) {
        self.domain.destroy();
    }
}

impl DirtyLog for Twin {
    fn dirty_log_kind(&self) -> &'static str {
        self.domain.dirty_log_kind()
    }

    fn enable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.domain.enable_dirty_log()
    }

    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.domain.take_dirty(into)?;
        self.overlay.unlogged(&mut self.domain, into)
    }

    fn disable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.domain.disable_dirty_log()
    }
}

impl Pages for Twin {
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.domain.populated(into)
    }

    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.domain.read_pages(pfns, out)
    }

    fn read_normalised(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.domain.read_normalised(pfns, out)
    }

    fn flushes_whole(&self) -> bool {
        self.domain.flushes_whole()
    }

    fn flush_whole<'a>(&mut self, changed: &DirtyBitmap, page: &dyn Fn(Pfn) -> &'a Page) -> Result<u64, DomainError> {
        self.domain.flush_whole(changed, page)
    }

    fn shared_pages(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.domain.shared_pages(into)
    }

    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        self.domain.write_pages(pfns, data)
    }

    fn populate(&mut self, pages: &PageList<'_>) -> Result<(), DomainError> {
        self.domain.populate(pages)
    }

    fn localise(&mut self, page_type: PageType, page: &mut Page) -> Result<(), DomainError> {
        self.domain.localise(page_type, page)
    }

    fn update_p2m(&mut self) -> Result<(), DomainError> {
        self.domain.update_p2m()
    }
}

impl State for Twin {
    fn stream_header(&self) -> DomainHeader {
        self.domain.stream_header()
    }

    fn load_static(&mut self, _: &[StateRecord]) -> Result<(), DomainError> {
        // It was made with the same: the hypervisor takes no other of a domain that has run.
        Ok(())
    }

    fn load_layout(&mut self, record: &StateRecord) -> Result<(), DomainError> {
        self.domain.load_layout(record)
    }

    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        self.domain.save_state()
    }

    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        self.domain.check_state(state)?;
        self.overlay.check(&self.domain, state)
    }

    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        if !self.is_stopped {
            return Err(DomainError::NotSuspended(self.spec().name.clone()));
        }
        let before = self.overlay.stats().resets;
        self.overlay.load(&mut self.domain, state)?;
        let stats = self.overlay.stats();
        self.way = Some(match stats.last_reset {
            _ if stats.resets == before => "transparent".into(),
            Some(why) => format!("reset: {why}"),
            None => "reset".into(),
        });
        Ok(())
    }

    fn likeness(&mut self) -> Result<Vec<u8>, DomainError> {
        likeness(&self.domain)
    }
}
