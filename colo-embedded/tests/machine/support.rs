//! A machine under test: a domain, its port, and what a test does with them.

use crate::programs::CONTROL;
use colo_core::disk::Backend;
use colo_core::domain::{Control, DirtyBitmap, MAX_BATCH_PAGES, Pages, RunState, State};
use colo_core::ids::{PAGE_SIZE, Page, Pfn};
use colo_core::net::{Frame, Port};
use colo_embedded::abi::RAM_BASE;
use colo_embedded::machine::{DirtyLogChoice, EmbeddedConfig, EmbeddedDomain, RingPort};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Far more than anything here takes; only a hang comes near it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Page of an address of the guest.
pub(crate) fn pfn_of(address: u64) -> Pfn {
    Pfn((address - RAM_BASE) / PAGE_SIZE as u64)
}

pub(crate) fn small_config() -> EmbeddedConfig {
    EmbeddedConfig { ram_bytes: 16 << 20, seed: 1, ..EmbeddedConfig::named("test") }
}

pub(crate) struct TestVm {
    pub(crate) domain: EmbeddedDomain,
    pub(crate) port: RingPort,
}

impl TestVm {
    pub(crate) fn boot(program: &[u8]) -> TestVm {
        TestVm::boot_with(program, DirtyLogChoice::Auto)
    }

    pub(crate) fn boot_with(program: &[u8], dirty_log: DirtyLogChoice) -> TestVm {
        let config = EmbeddedConfig { dirty_log, ..small_config() };
        let (domain, port) = EmbeddedDomain::boot_program(&config, program).unwrap();
        TestVm { domain, port }
    }

    pub(crate) fn boot_with_disk(
        program: &[u8],
        disk_bytes: u64,
        disk: Arc<dyn Backend>,
        dirty_log: DirtyLogChoice,
    ) -> TestVm {
        let config = EmbeddedConfig { disk_bytes, dirty_log, ..small_config() };
        let (domain, port) = EmbeddedDomain::boot_program_with(&config, program, Some(disk)).unwrap();
        TestVm { domain, port }
    }

    pub(crate) fn empty() -> TestVm {
        let (domain, port) = EmbeddedDomain::empty(&small_config()).unwrap();
        TestVm { domain, port }
    }

    pub(crate) fn page(&self, pfn: Pfn) -> Page {
        let mut page = [0; PAGE_SIZE];
        self.domain.read_pages(&[pfn], &mut page).unwrap();
        page
    }

    /// The word at an address of the guest.
    pub(crate) fn peek(&self, address: u64) -> u64 {
        let at = (address % PAGE_SIZE as u64) as usize;
        u64::from_le_bytes(*self.page(pfn_of(address))[at..].first_chunk().unwrap())
    }

    /// Writes words into the suspended guest's memory, within a page.
    pub(crate) fn poke(&mut self, address: u64, words: &[u64]) {
        let pfn = pfn_of(address);
        let mut page = self.page(pfn);
        let at = (address % PAGE_SIZE as u64) as usize;
        for (index, word) in words.iter().enumerate() {
            page[at + index * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        self.domain.write_pages(&[pfn], &page).unwrap();
    }

    /// Gives the program its "go" with these words after it, waits until it is done, and suspends it.
    pub(crate) fn run_once(&mut self, go: u64, words: &[u64]) {
        self.poke(CONTROL + 8, words);
        self.poke(CONTROL, &[go]);
        self.domain.resume().unwrap();
        self.wait_until(|vm| vm.peek(CONTROL) == 0);
        self.domain.suspend().unwrap();
    }

    /// Waits until the guest's memory is as wanted.
    pub(crate) fn wait_until(&self, done: impl Fn(&TestVm) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(self) {
            assert!(Instant::now() < deadline, "nothing happened; the domain is {:?}", self.domain.run_state());
            std::thread::yield_now();
        }
    }

    /// Waits until the guest sleeps in its futex.
    pub(crate) fn wait_until_asleep(&self) {
        let path = format!("/proc/{}/syscall", self.domain.pid());
        self.wait_until(|_| std::fs::read_to_string(&path).is_ok_and(|call| call.starts_with("202 ")));
    }

    pub(crate) fn wait_until_ended(&self) -> RunState {
        let state = self.domain.wait_until_ended(DEADLINE);
        assert!(matches!(state, RunState::ShutDown | RunState::Crashed), "{state:?}");
        state
    }

    /// Waits until the port has something, and takes it.
    pub(crate) fn receive(&mut self) -> std::io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            if self.port.receive(&mut frames)? > 0 {
                return Ok(frames);
            }
            assert!(self.is_readable(DEADLINE), "the doorbell does not ring");
        }
    }

    pub(crate) fn is_readable(&self, timeout: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let fd = self.port.poll_fd();
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }

    pub(crate) fn populated(&self) -> DirtyBitmap {
        let mut populated = DirtyBitmap::new(self.domain.spec().pfn_limit);
        self.domain.populated(&mut populated).unwrap();
        populated
    }

    /// A checkpoint without an engine: this suspended machine becomes the same as that one.
    pub(crate) fn become_copy_of(&mut self, other: &mut TestVm) {
        let mut pages = other.populated();
        // What only we have must become zero again.
        pages.union(&self.populated());
        let pfns: Vec<Pfn> = pages.iter().collect();
        for batch in pfns.chunks(MAX_BATCH_PAGES) {
            let mut data = vec![0; batch.len() * PAGE_SIZE];
            other.domain.read_pages(batch, &mut data).unwrap();
            self.domain.write_pages(batch, &data).unwrap();
        }
        let state = other.domain.save_state().unwrap();
        self.domain.check_state(&state).unwrap();
        self.domain.load_state(&state).unwrap();
        assert_eq!(self.differing_pages(other), []);
    }

    /// The pages that are not the same in both.
    pub(crate) fn differing_pages(&self, other: &TestVm) -> Vec<Pfn> {
        let mut pages = self.populated();
        pages.union(&other.populated());
        pages.iter().filter(|&pfn| self.page(pfn) != other.page(pfn)).collect()
    }
}
