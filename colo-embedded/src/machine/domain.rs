use super::config::EmbeddedConfig;
use super::console::Console;
use super::dirty::DirtyTracker;
use super::loader::load_program;
use super::nic::{Nic, RingPort};
use super::ram::{GuestRam, SHARED_PFN};
use super::registers::{MachineState, RegisterLimits, Registers};
use super::vcpu::{EndReport, Started, Vcpu};
use colo_core::domain::{
    Control, DirtyBitmap, DirtyLog, DomainError, DomainSpec, MAX_BATCH_PAGES, Pages, RunState, State, StateRecord,
};
use colo_core::ids::{PAGE_SIZE, Page, Pfn};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// The guest program that is built in.
static GUEST: &[u8] = include_bytes!(env!("COLO_GUEST_ELF"));

/// A machine that is a process. Dropping it ends the guest.
pub struct EmbeddedDomain {
    spec: DomainSpec,
    ram: Arc<GuestRam>,
    nic: Arc<Nic>,
    console: Arc<Console>,
    vcpu: Vcpu,
    tracker: Box<dyn DirtyTracker>,
    logging: bool,
    limits: RegisterLimits,
    /// The guest's time when it was last suspended: its state is of one moment, whenever it is asked for.
    suspended_at_ns: i64,
}

impl EmbeddedDomain {
    /// Makes a machine with the built-in guest program, suspended before its first instruction, and the host's end of its network
    /// card.
    ///
    /// # Errors
    /// [`DomainError::BadSpec`] for a configuration that cannot be; [`DomainError::Sys`].
    pub fn boot(config: &EmbeddedConfig) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        EmbeddedDomain::boot_program(config, GUEST)
    }

    /// Makes a machine with a program of the caller's: a static x86-64 ELF executable linked at [`super::abi::IMAGE_BASE`].
    ///
    /// # Errors
    /// As for [`EmbeddedDomain::boot`].
    pub fn boot_program(config: &EmbeddedConfig, elf: &[u8]) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        let mut domain = EmbeddedDomain::empty(config)?;
        let general = load_program(&domain.ram, elf, config)?;
        let fresh = domain.vcpu.registers().ok_or_else(|| domain.not_suspended())?;
        domain.vcpu.load(Registers { general, ..fresh }).map_err(DomainError::sys("the vCPU's first registers"))?;
        domain.set_time(0);
        let port = RingPort::new(domain.nic.clone());
        Ok((domain, port))
    }

    /// Makes an empty, suspended machine for a state to be loaded into, and the host's end of its network card.
    ///
    /// # Errors
    /// As for [`EmbeddedDomain::boot`].
    pub fn create(config: &EmbeddedConfig) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        let domain = EmbeddedDomain::empty(config)?;
        let port = RingPort::new(domain.nic.clone());
        Ok((domain, port))
    }

    /// The guest's process.
    pub fn pid(&self) -> i32 {
        self.vcpu.pid()
    }

    /// The last lines on the guest's console.
    pub fn console(&self) -> Vec<String> {
        self.console.lines()
    }

    /// How the guest ended, once it has.
    pub fn end_report(&self) -> Option<EndReport> {
        self.vcpu.end_report()
    }

    /// Waits until the guest has ended, at most so long.
    pub fn wait_until_ended(&self, timeout: Duration) -> RunState {
        self.vcpu.wait_until_ended(timeout)
    }

    fn empty(config: &EmbeddedConfig) -> Result<EmbeddedDomain, DomainError> {
        let spec = config.to_spec()?;
        let ram = Arc::new(GuestRam::new(config.ram_bytes)?);
        let nic = Arc::new(Nic::new(ram.clone())?);
        let console = Arc::new(Console::default());
        let Started { vcpu, tracker, limits } =
            Vcpu::start(&spec.name, ram.clone(), nic.clone(), console.clone(), config.dirty_log)?;
        Ok(EmbeddedDomain { spec, ram, nic, console, vcpu, tracker, logging: false, limits, suspended_at_ns: 0 })
    }

    /// Makes the guest's clock show this, from now on.
    fn set_time(&mut self, guest_time_ns: i64) {
        self.suspended_at_ns = guest_time_ns;
        let shared = self.ram.shared();
        // Odd while it changes; whatever the guest was doing with the clock, it sees another number and does it again.
        let version = shared.clock_version.load(SeqCst) | 1;
        shared.clock_version.store(version, SeqCst);
        shared.clock_offset_ns.store(guest_time_ns.wrapping_sub(host_clock_ns()), SeqCst);
        shared.clock_version.store(version.wrapping_add(1), SeqCst);
        self.ram.mark_device_dirty(SHARED_PFN);
    }

    fn guest_time_ns(&self) -> i64 {
        host_clock_ns().wrapping_add(self.ram.shared().clock_offset_ns.load(SeqCst))
    }

    fn check_batch(&self, pfns: &[Pfn], bytes: usize) -> Result<(), DomainError> {
        if pfns.len() > MAX_BATCH_PAGES || bytes != pfns.len() * PAGE_SIZE {
            return Err(DomainError::BadBatch { pages: pfns.len(), bytes });
        }
        let pfn_limit = self.ram.pfn_limit();
        match pfns.iter().find(|pfn| pfn.0 >= pfn_limit) {
            Some(&pfn) => Err(DomainError::PfnOutOfRange { pfn, pfn_limit }),
            None => Ok(()),
        }
    }

    fn not_running(&self) -> DomainError {
        DomainError::NotRunning(self.spec.name.clone())
    }

    fn not_suspended(&self) -> DomainError {
        DomainError::NotSuspended(self.spec.name.clone())
    }
}

impl Control for EmbeddedDomain {
    fn spec(&self) -> &DomainSpec {
        &self.spec
    }

    fn run_state(&self) -> RunState {
        self.vcpu.run_state()
    }

    fn suspend(&mut self) -> Result<(), DomainError> {
        if self.vcpu.run_state() == RunState::Suspended {
            return Ok(());
        }
        self.vcpu.stop()?;
        match self.vcpu.run_state() {
            RunState::Suspended => {
                self.nic.shut();
                self.suspended_at_ns = self.guest_time_ns();
                Ok(())
            }
            _ => Err(self.not_running()),
        }
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        match self.vcpu.run_state() {
            RunState::Running => Ok(()),
            RunState::Suspended => {
                // Rings in either direction may have been lost with the state; both sides look again.
                self.nic.open();
                self.vcpu.resume();
                Ok(())
            }
            RunState::ShutDown | RunState::Crashed => Err(self.not_running()),
        }
    }

    fn destroy(&mut self) {
        self.nic.destroy();
        self.vcpu.destroy();
    }
}

impl DirtyLog for EmbeddedDomain {
    fn dirty_log_kind(&self) -> &'static str {
        self.tracker.kind()
    }

    fn enable_dirty_log(&mut self) -> Result<(), DomainError> {
        // The marks first: what a device writes in between is then logged, rather than forgotten.
        self.ram.clear_device_dirty();
        self.tracker.enable(&self.ram)?;
        self.logging = true;
        Ok(())
    }

    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        if !self.logging {
            return Err(DomainError::DirtyLogOff);
        }
        self.tracker.take(&self.ram, into)?;
        self.ram.take_device_dirty(into);
        Ok(())
    }

    fn disable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.tracker.disable();
        self.logging = false;
        Ok(())
    }
}

impl Pages for EmbeddedDomain {
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.ram.for_each_populated_run(|first, pages| into.set_range(first, pages))
    }

    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.check_batch(pfns, out.len())?;
        let running = self.run_state() == RunState::Running;
        for (&pfn, page) in pfns.iter().zip(pages_of_mut(out)) {
            self.ram.read_page(pfn, page)?;
            if running && self.logging {
                self.tracker.page_was_read(&self.ram, pfn, page);
            }
        }
        Ok(())
    }

    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        self.check_batch(pfns, data.len())?;
        if self.run_state() == RunState::Running {
            return Err(self.not_suspended());
        }
        for (&pfn, page) in pfns.iter().zip(pages_of(data)) {
            self.tracker.page_will_be_written(&self.ram, pfn, page);
            self.ram.write_page(pfn, page)?;
        }
        Ok(())
    }
}

impl State for EmbeddedDomain {
    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        let registers = self.vcpu.registers().ok_or_else(|| self.not_suspended())?;
        Ok(MachineState { registers, guest_time_ns: self.suspended_at_ns }.to_records())
    }

    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        MachineState::from_records(state, &self.limits).map(drop)
    }

    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        let state = MachineState::from_records(state, &self.limits)?;
        if self.run_state() != RunState::Suspended {
            return Err(self.not_suspended());
        }
        self.vcpu.load(state.registers).map_err(|error| DomainError::BadState(error.to_string()))?;
        self.set_time(state.guest_time_ns);
        Ok(())
    }
}

fn pages_of(bytes: &[u8]) -> impl Iterator<Item = &Page> {
    bytes.chunks_exact(PAGE_SIZE).filter_map(|page| page.try_into().ok())
}

fn pages_of_mut(bytes: &mut [u8]) -> impl Iterator<Item = &mut Page> {
    bytes.chunks_exact_mut(PAGE_SIZE).filter_map(|page| page.try_into().ok())
}

fn host_clock_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
