use super::config::EmbeddedConfig;
use super::console::Console;
use super::dirty::DirtyTracker;
use super::disk::{DiskGate, DiskLine, DiskThread};
use super::loader;
use super::nic::{Nic, RingPort};
use super::ram::{GuestRam, SHARED_PFN};
use super::registers::{MachineState, RegisterLimits, Registers};
use super::vcpu::{EndReport, Started, Vcpu};
use colo_core::disk::Backend;
use colo_core::domain::{
    Control, DirtyBitmap, DirtyLog, DomainError, DomainSpec, MAX_BATCH_PAGES, Pages, RunState, State, StateRecord,
};
use colo_core::ids::{PAGE_SIZE, Pfn};
use colo_core::stream::DomainHeader;
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// A machine of the embedded hypervisor. Dropping it destroys it.
///
/// The guest's time is the host's `CLOCK_MONOTONIC` plus an offset in guest memory. It goes on while the guest is suspended; a
/// state that was loaded goes on from the time at which it was saved, once the domain is resumed. Until then nothing but the
/// engine's own writes changes memory: two domains with the same state have the same memory.
pub struct EmbeddedDomain {
    spec: DomainSpec,
    ram: Arc<GuestRam>,
    nic: Arc<Nic>,
    disk: Arc<DiskLine>,
    console: Arc<Console>,
    vcpu: Vcpu,
    disk_thread: Option<DiskThread>,
    limits: RegisterLimits,
    tracker: Box<dyn DirtyTracker>,
    dirty_log_enabled: bool,
    clock: Clock,
}

/// The guest program that [`EmbeddedDomain::boot`] loads: a static ELF file, made from `guest/` when this crate is built.
pub static GUEST_PROGRAM: &[u8] = include_bytes!(env!("COLO_GUEST_ELF"));

/// The suspended guest's time.
enum Clock {
    /// It goes on with the host's; this was it at suspension.
    Continuous(i64),
    /// It goes on from here when the domain does.
    Loaded(i64),
}

impl EmbeddedDomain {
    /// Makes a machine with the guest program of this crate, suspended at its first instruction, and the host's end of its
    /// network card.
    ///
    /// # Errors
    /// As for [`EmbeddedDomain::boot_program`].
    pub fn boot(config: &EmbeddedConfig) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        EmbeddedDomain::boot_with(config, None)
    }

    /// As [`EmbeddedDomain::boot`], with that disk.
    ///
    /// # Errors
    /// As for [`EmbeddedDomain::boot_program`].
    pub fn boot_with(
        config: &EmbeddedConfig,
        disk: Option<Arc<dyn Backend>>,
    ) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        EmbeddedDomain::boot_program_with(config, GUEST_PROGRAM, disk)
    }

    /// Makes a machine with that program (a static ELF file linked for [`crate::abi::IMAGE_BASE`]) in its memory, suspended at
    /// its first instruction, and the host's end of its network card.
    ///
    /// # Errors
    /// [`DomainError::BadSpec`] for a configuration or a program that cannot be, or when [`EmbeddedConfig::disk_bytes`] says that there
    /// is a disk and none is given, or the other way round; [`DomainError::Sys`] when the system refuses.
    pub fn boot_program(config: &EmbeddedConfig, elf: &[u8]) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        EmbeddedDomain::boot_program_with(config, elf, None)
    }

    /// As [`EmbeddedDomain::boot_program`], with that disk.
    ///
    /// # Errors
    /// As for [`EmbeddedDomain::boot_program`].
    pub fn boot_program_with(
        config: &EmbeddedConfig,
        elf: &[u8],
        disk: Option<Arc<dyn Backend>>,
    ) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        let (mut domain, port) = EmbeddedDomain::empty_with(config, disk)?;
        let general = loader::load_program(&domain.ram, elf, config)?;
        // The guest does not run yet: the first frame that it sends must ring.
        domain.ram.shared().tx_wake.store(1, SeqCst);
        let registers = Registers { general, ..domain.registers()? };
        domain.vcpu.load(registers).map_err(DomainError::sys("PTRACE_SETREGS"))?;
        Ok((domain, port))
    }

    /// Makes a suspended machine with empty memory, for a state to be loaded into.
    ///
    /// # Errors
    /// As for [`EmbeddedDomain::boot_program`].
    pub fn empty(config: &EmbeddedConfig) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        EmbeddedDomain::empty_with(config, None)
    }

    /// As [`EmbeddedDomain::empty`], with that disk. When the domain is resumed, requests that came with its state and are not done
    /// are done.
    ///
    /// # Errors
    /// As for [`EmbeddedDomain::boot_program`].
    pub fn empty_with(
        config: &EmbeddedConfig,
        disk: Option<Arc<dyn Backend>>,
    ) -> Result<(EmbeddedDomain, RingPort), DomainError> {
        let spec = config.to_spec()?;
        if disk.is_some() != (config.disk_bytes > 0) {
            let given = if disk.is_some() { "one is given" } else { "none is given" };
            return Err(DomainError::BadSpec(format!("its disk is to have {} bytes, and {given}", config.disk_bytes)));
        }
        let ram = Arc::new(GuestRam::new(config.ram_bytes)?);
        let nic = Arc::new(Nic::new(ram.clone())?);
        let line = Arc::new(DiskLine::new(ram.clone())?);
        let console = Arc::new(Console::default());
        let Started { vcpu, tracker, limits } =
            Vcpu::start(&config.name, ram.clone(), nic.clone(), line.clone(), console.clone(), config.dirty_log)?;
        let disk_thread =
            disk.map(|backend| DiskThread::start(line.clone(), backend, config.disk_bytes)).transpose()?;
        let port = RingPort::new(nic.clone());
        let clock = Clock::Continuous(monotonic_ns());
        let domain = EmbeddedDomain {
            spec,
            ram,
            nic,
            disk: line,
            console,
            vcpu,
            disk_thread,
            limits,
            tracker,
            dirty_log_enabled: false,
            clock,
        };
        Ok((domain, port))
    }

    /// What stops its disk; `None` for a machine without one.
    pub fn disk_gate(&self) -> Option<DiskGate> {
        self.spec.disks.first().map(|_| self.disk.clone().gate())
    }

    /// What the guest has written to its console, the last 256 lines.
    pub fn console(&self) -> Vec<String> {
        self.console.lines()
    }

    /// How the domain ended, once it has.
    pub fn end_report(&self) -> Option<EndReport> {
        self.vcpu.end_report()
    }

    /// Waits until the domain has ended or the time is over, and returns its state then.
    pub fn wait_until_ended(&self, timeout: Duration) -> RunState {
        self.vcpu.wait_until_ended(timeout)
    }

    /// The guest's process, for whoever wants to look at it with the system's own tools.
    pub fn pid(&self) -> i32 {
        self.vcpu.pid()
    }

    fn check_live(&self) -> Result<(), DomainError> {
        match self.vcpu.run_state() {
            RunState::Running | RunState::Suspended => Ok(()),
            RunState::ShutDown | RunState::Crashed => Err(DomainError::NotRunning(self.spec.name.clone())),
        }
    }

    fn check_suspended(&self) -> Result<(), DomainError> {
        self.check_live()?;
        match self.vcpu.run_state() {
            RunState::Suspended => Ok(()),
            _ => Err(DomainError::NotSuspended(self.spec.name.clone())),
        }
    }

    fn registers(&self) -> Result<Registers, DomainError> {
        self.vcpu.registers().ok_or_else(|| DomainError::NotSuspended(self.spec.name.clone()))
    }

    fn check_batch(&self, pfns: &[Pfn], bytes: usize) -> Result<(), DomainError> {
        if pfns.len() > MAX_BATCH_PAGES || bytes != pfns.len() * PAGE_SIZE {
            return Err(DomainError::BadBatch { pages: pfns.len(), bytes });
        }
        let pfn_limit = self.spec.pfn_limit;
        match pfns.iter().find(|pfn| pfn.0 >= pfn_limit) {
            Some(&pfn) => Err(DomainError::PfnOutOfRange { pfn, pfn_limit }),
            None => Ok(()),
        }
    }

    /// An empty bitmap of another machine's size is a caller's mistake that must not turn into a panic on page numbers.
    fn check_bitmap(&self, bitmap: &DirtyBitmap) -> Result<(), DomainError> {
        let pfn_limit = self.spec.pfn_limit;
        if bitmap.pfn_limit() == pfn_limit {
            return Ok(());
        }
        Err(DomainError::PfnOutOfRange { pfn: Pfn(bitmap.pfn_limit()), pfn_limit })
    }

    /// The guest's time now, by the offset that its memory says.
    fn guest_time_ns(&self) -> i64 {
        monotonic_ns().wrapping_add(self.ram.shared().clock_offset_ns.load(SeqCst))
    }

    /// Has the guest's time go on from `guest_time_ns`. The guest must not run.
    fn set_clock(&self, guest_time_ns: i64) {
        let shared = self.ram.shared();
        // Loaded memory may hold any version; an odd one would keep the guest waiting.
        let changing = shared.clock_version.load(SeqCst) | 1;
        shared.clock_version.store(changing, SeqCst);
        shared.clock_offset_ns.store(guest_time_ns.wrapping_sub(monotonic_ns()), SeqCst);
        shared.clock_version.store(changing.wrapping_add(1), SeqCst);
        self.ram.mark_device_dirty(SHARED_PFN);
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
        let was_running = self.vcpu.run_state() == RunState::Running;
        self.vcpu.stop()?;
        self.check_live()?;
        if was_running {
            self.nic.shut();
            let disk_shut = self.disk.shut();
            self.clock = Clock::Continuous(self.guest_time_ns());
            disk_shut?;
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DomainError> {
        self.check_live()?;
        if self.vcpu.run_state() == RunState::Suspended {
            if let Clock::Loaded(guest_time_ns) = self.clock {
                self.set_clock(guest_time_ns);
                self.clock = Clock::Continuous(guest_time_ns);
            }
            self.nic.open();
            self.disk.open();
            self.vcpu.resume();
        }
        Ok(())
    }

    fn destroy(&mut self) {
        self.nic.destroy();
        self.vcpu.destroy();
        // Waits for the request that is under way.
        self.disk_thread = None;
    }
}

impl DirtyLog for EmbeddedDomain {
    fn dirty_log_kind(&self) -> &'static str {
        self.tracker.kind()
    }

    fn enable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.check_live()?;
        // First, so that what a device writes meanwhile is rather reported once too often.
        self.ram.clear_device_dirty();
        self.tracker.enable(&self.ram)?;
        self.dirty_log_enabled = true;
        Ok(())
    }

    fn take_dirty(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        if !self.dirty_log_enabled {
            return Err(DomainError::DirtyLogOff);
        }
        self.check_live()?;
        self.check_bitmap(into)?;
        self.tracker.take(&self.ram, into)?;
        self.ram.take_device_dirty(into);
        Ok(())
    }

    fn disable_dirty_log(&mut self) -> Result<(), DomainError> {
        self.tracker.disable();
        self.dirty_log_enabled = false;
        Ok(())
    }
}

impl Pages for EmbeddedDomain {
    fn populated(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.check_bitmap(into)?;
        self.ram.for_each_populated_run(|first, pages| into.set_range(first, pages))
    }

    fn read_pages(&self, pfns: &[Pfn], out: &mut [u8]) -> Result<(), DomainError> {
        self.check_batch(pfns, out.len())?;
        for (&pfn, out) in pfns.iter().zip(out.chunks_exact_mut(PAGE_SIZE)) {
            let Some(out) = out.first_chunk_mut::<PAGE_SIZE>() else {
                continue;
            };
            self.ram.read_page(pfn, out)?;
            if self.dirty_log_enabled {
                self.tracker.page_was_read(&self.ram, pfn, out);
            }
        }
        Ok(())
    }

    fn write_pages(&mut self, pfns: &[Pfn], data: &[u8]) -> Result<(), DomainError> {
        self.check_suspended()?;
        self.check_batch(pfns, data.len())?;
        for (&pfn, page) in pfns.iter().zip(data.chunks_exact(PAGE_SIZE)) {
            let Some(page) = page.first_chunk::<PAGE_SIZE>() else {
                continue;
            };
            if self.dirty_log_enabled {
                self.tracker.page_will_be_written(&self.ram, pfn, page);
            }
            self.ram.write_page(pfn, page)?;
        }
        Ok(())
    }
}

impl State for EmbeddedDomain {
    fn stream_header(&self) -> DomainHeader {
        DomainHeader::embedded()
    }

    fn save_state(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        self.check_suspended()?;
        let guest_time_ns = match self.clock {
            Clock::Continuous(time) | Clock::Loaded(time) => time,
        };
        Ok(MachineState { registers: self.registers()?, guest_time_ns }.to_records())
    }

    fn check_state(&self, state: &[StateRecord]) -> Result<(), DomainError> {
        MachineState::from_records(state, &self.limits).map(|_| ())
    }

    fn load_state(&mut self, state: &[StateRecord]) -> Result<(), DomainError> {
        let state = MachineState::from_records(state, &self.limits)?;
        self.check_suspended()?;
        self.vcpu
            .load(state.registers)
            .map_err(|error| DomainError::BadState(format!("the processor refuses these registers: {error}")))?;
        self.clock = Clock::Loaded(state.guest_time_ns);
        Ok(())
    }
}

fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec)
}
