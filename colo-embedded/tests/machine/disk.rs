//! The disk.

use crate::programs::{CONTROL, DATA, caller, disk_user, echo, scribbler};
use crate::support::{TestVm, pfn_of, small_config};
use colo_core::disk::{Backend, DiskError};
use colo_core::domain::{Control, DirtyBitmap, DirtyLog, DomainError, RunState};
use colo_core::ids::PAGE_SIZE;
use colo_embedded::abi::{
    DISK_FLUSH, DISK_OK, DISK_READ, DISK_RING_OFFSET, DISK_SLOT_BYTES, DISK_SLOTS, DISK_WRITE, DISK_ZEROES,
    MAX_DISK_TRANSFER_BYTES, RAM_BASE,
};
use colo_embedded::machine::{DirtyLogChoice, EmbeddedConfig, EmbeddedDomain};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

pub(crate) const DISK_BYTES: u64 = 1 << 20;
const SHARED: u64 = RAM_BASE + 0x1000;
const POSITIONS: u64 = SHARED + 48;
const RING: u64 = RAM_BASE + DISK_RING_OFFSET;

/// A disk in memory that keeps account, and can be made to wait or to panic.
#[derive(Default)]
pub(crate) struct TestDisk {
    bytes: Mutex<Vec<u8>>,
    events: Mutex<Vec<&'static str>>,
    /// Each write says that it has begun, and waits for leave.
    turnstile: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    panics: bool,
    /// Writes fail, and are counted.
    pub(crate) fails: AtomicBool,
    pub(crate) failures: AtomicUsize,
}

impl TestDisk {
    pub(crate) fn new() -> Arc<TestDisk> {
        Arc::new(TestDisk { bytes: Mutex::new(vec![0; DISK_BYTES as usize]), ..TestDisk::default() })
    }

    /// Its ends of the turnstile: what tells that a write has begun, and what lets it go on.
    fn with_turnstile() -> (Arc<TestDisk>, Receiver<()>, Sender<()>) {
        let disk = TestDisk::new();
        let ((begun, has_begun), (go, may_go)) = (mpsc::channel(), mpsc::channel());
        *disk.turnstile.lock().unwrap() = Some((begun, may_go));
        (disk, has_begun, go)
    }

    fn note(&self, event: &'static str) {
        self.events.lock().unwrap().push(event);
    }

    fn at(&self, offset: u64, bytes: usize) -> Vec<u8> {
        self.bytes.lock().unwrap()[offset as usize..][..bytes].to_vec()
    }
}

impl Backend for TestDisk {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.note("read");
        bytes.copy_from_slice(&self.at(offset, bytes.len()));
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        assert!(!self.panics, "a disk that panics, for a test");
        if self.fails.load(SeqCst) {
            self.failures.fetch_add(1, SeqCst);
            return Err(DiskError::Io);
        }
        if let Some((begun, may_go)) = &*self.turnstile.lock().unwrap() {
            begun.send(()).unwrap();
            // Nobody to wait for: the test is over.
            let _ = may_go.recv();
        }
        self.bytes.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        self.note("write");
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> Result<(), DiskError> {
        self.bytes.lock().unwrap()[offset as usize..][..length as usize].fill(0);
        self.note("zeroes");
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.note("flush");
        Ok(())
    }
}

fn boot(program: &[u8], disk: &Arc<TestDisk>) -> TestVm {
    TestVm::boot_with_disk(program, DISK_BYTES, disk.clone(), DirtyLogChoice::Auto)
}

/// A request's words.
pub(crate) fn request(operation: u32, offset: u64, bytes: u64, buffer: u64) -> [u64; 4] {
    [u64::from(operation) | 0xAAAA_AAAA << 32, offset, bytes, buffer]
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Puts requests into the suspended guest's ring, as if it had.
pub(crate) fn poke_requests(vm: &mut TestVm, requests: &[[u64; 4]]) {
    let consumed = (vm.peek(POSITIONS) >> 32) as u32;
    for (index, words) in requests.iter().enumerate() {
        let slot = (consumed + index as u32) % DISK_SLOTS;
        vm.poke(RING + u64::from(slot) * DISK_SLOT_BYTES, words);
    }
    vm.poke(POSITIONS, &[pair(consumed + requests.len() as u32, consumed)]);
}

pub(crate) fn all_done(vm: &TestVm) -> bool {
    let positions = vm.peek(POSITIONS);
    positions as u32 == (positions >> 32) as u32
}

pub(crate) fn status(vm: &TestVm, slot: u64) -> u32 {
    (vm.peek(RING + slot * DISK_SLOT_BYTES) >> 32) as u32
}

#[test]
fn what_is_written_is_read_back() {
    let disk = TestDisk::new();
    let mut vm = boot(&disk_user(), &disk);
    vm.poke(DATA, &[0x0123_4567_89AB_CDEF, 42]);
    for words in [
        request(DISK_WRITE, 777, 16, DATA),
        request(DISK_FLUSH, 0, 0, 0),
        request(DISK_READ, 777, 12, DATA + 0x1FFC),
        request(DISK_ZEROES, 778, 2, 0),
        request(DISK_READ, 776, MAX_DISK_TRANSFER_BYTES - 776, DATA + 0x3000),
    ] {
        vm.run_once(1, &words);
        assert_eq!(vm.peek(CONTROL + 40), u64::from(words[0] as u32) | u64::from(DISK_OK) << 32);
    }
    assert_eq!(*disk.events.lock().unwrap(), ["write", "flush", "read", "zeroes", "read"]);
    assert_eq!(disk.at(777, 16), [0xEF, 0, 0, 0x89, 0x67, 0x45, 0x23, 0x01, 42, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((vm.peek(DATA + 0x1FF8), vm.peek(DATA + 0x2000)), (0x89AB_CDEF << 32, 0x0000_002A_0123_4567));
    assert_eq!(vm.peek(DATA + 0x3000), 0x2345_6789_0000_EF00);
    assert_eq!(vm.peek(DATA + 0x3000 + MAX_DISK_TRANSFER_BYTES - 776), 0);
}

#[test]
fn a_running_guest_rings_when_it_is_asked_to() {
    let disk = TestDisk::new();
    let mut vm = boot(&disk_user(), &disk);
    vm.domain.resume().unwrap();
    // The disk's thread has found nothing, and asks.
    vm.wait_until(|vm| vm.peek(SHARED + 32) >> 32 == 1);
    vm.domain.suspend().unwrap();
    for count in 1..=100 {
        vm.run_once(1, &request(DISK_FLUSH, 0, 0, 0));
        assert_eq!(disk.events.lock().unwrap().len(), count);
    }
}

#[test]
fn a_sleeping_guest_is_woken_when_a_request_is_done() {
    let (disk, begun, go) = TestDisk::with_turnstile();
    let mut vm = boot(&echo(), &disk);
    poke_requests(&mut vm, &[request(DISK_WRITE, 0, 1, DATA)]);
    vm.domain.resume().unwrap();
    begun.recv().unwrap();
    vm.wait_until_asleep();
    let sleeps = vm.peek(CONTROL + 24);
    go.send(()).unwrap();
    vm.wait_until(|vm| vm.peek(CONTROL + 24) > sleeps);
    assert!(all_done(&vm));
}

#[test]
fn positions_wrap_and_a_full_ring_is_done_in_order() {
    let disk = TestDisk::new();
    let mut vm = boot(&caller(), &disk);
    vm.poke(POSITIONS, &[pair(u32::MAX - 9, u32::MAX - 9)]);
    for slot in 0..DISK_SLOTS {
        let at = (u32::MAX - 9).wrapping_add(slot) % DISK_SLOTS;
        let words = if slot % 2 == 0 { request(DISK_WRITE, 5, 1, DATA) } else { request(DISK_FLUSH, 0, 0, 0) };
        vm.poke(RING + u64::from(at) * DISK_SLOT_BYTES, &words);
    }
    vm.poke(POSITIONS, &[pair((u32::MAX - 9).wrapping_add(DISK_SLOTS), u32::MAX - 9)]);
    vm.domain.resume().unwrap();
    vm.wait_until(all_done);
    assert_eq!(*disk.events.lock().unwrap(), ["write", "flush"].repeat(DISK_SLOTS as usize / 2));
}

#[test]
fn requests_of_nonsense_fail_and_harm_nothing() {
    let disk = TestDisk::new();
    let mut vm = boot(&caller(), &disk);
    let end = RAM_BASE + (16 << 20);
    let requests = [
        request(0, 0, 1, DATA),
        request(u32::MAX, 0, 1, DATA),
        request(DISK_READ, 0, 0, DATA),
        request(DISK_READ, DISK_BYTES, 1, DATA),
        request(DISK_WRITE, u64::MAX, 2, DATA),
        request(DISK_WRITE, 0, u64::MAX, DATA),
        request(DISK_WRITE, 1, MAX_DISK_TRANSFER_BYTES, DATA),
        request(DISK_ZEROES, 1, u64::MAX, DATA),
        request(DISK_READ, 0, 2, end - 1),
        request(DISK_READ, 0, 1, u64::MAX),
        request(DISK_READ, 0, 8, SHARED),
        request(DISK_READ, 0, 32, RING),
        request(DISK_WRITE, 0, 8, 0),
    ];
    poke_requests(&mut vm, &requests);
    vm.domain.resume().unwrap();
    vm.wait_until(all_done);
    assert_eq!(*disk.events.lock().unwrap(), [""; 0]);
    for slot in 0..requests.len() as u64 {
        assert!(![DISK_OK, 0xAAAA_AAAA].contains(&status(&vm, slot)), "{:x?}", requests[slot as usize]);
    }
}

#[test]
fn positions_of_nonsense_are_dropped() {
    let disk = TestDisk::new();
    let mut vm = boot(&caller(), &disk);
    vm.poke(RING, &request(DISK_FLUSH, 0, 0, 0));
    for (produced, consumed) in [(DISK_SLOTS + 1, 0), (0, 1), (5, 1 << 31), (u32::MAX, DISK_SLOTS)] {
        vm.poke(POSITIONS, &[pair(produced, consumed)]);
        vm.domain.resume().unwrap();
        vm.wait_until(|vm| vm.peek(POSITIONS) == pair(produced, produced));
        vm.domain.suspend().unwrap();
    }
    assert_eq!(*disk.events.lock().unwrap(), [""; 0]);
}

#[test]
fn a_guest_that_scribbles_harms_nobody() {
    let disk = TestDisk::new();
    let mut vm = boot(&scribbler(), &disk);
    let kinds = [DISK_READ, DISK_WRITE, DISK_ZEROES, DISK_FLUSH, 9];
    let requests: Vec<[u64; 4]> = (0..u64::from(DISK_SLOTS))
        .map(|n| request(kinds[n as usize % kinds.len()], n << (n % 30), 1 << (n % 25), DATA + (n << 17)))
        .collect();
    poke_requests(&mut vm, &requests);
    let gate = vm.domain.disk_gate().unwrap();
    let mut rounds = 0;
    vm.domain.resume().unwrap();
    while vm.peek(CONTROL + 16) < 1_000_000 || rounds < 500 {
        gate.freeze();
        gate.thaw();
        if rounds % 8 == 0 {
            vm.domain.suspend().unwrap();
            vm.domain.resume().unwrap();
        }
        rounds += 1;
    }
    assert_eq!(vm.domain.run_state(), RunState::Running);
}

#[test]
fn frozen_it_does_nothing_until_it_is_thawed() {
    let (disk, begun, go) = TestDisk::with_turnstile();
    let mut vm = boot(&caller(), &disk);
    let gate = vm.domain.disk_gate().unwrap();
    poke_requests(&mut vm, &[request(DISK_WRITE, 0, 1, DATA), request(DISK_FLUSH, 0, 0, 0)]);
    vm.domain.resume().unwrap();
    begun.recv().unwrap();
    // Freezing waits for the request that is under way, and for no other.
    let (freezer, frozen_disk) = (gate.clone(), disk.clone());
    let freezing = std::thread::spawn(move || {
        freezer.freeze();
        frozen_disk.note("frozen");
    });
    go.send(()).unwrap();
    freezing.join().unwrap();
    // It runs, and rings, in vain; so does a suspension in between.
    for _ in 0..100 {
        vm.domain.suspend().unwrap();
        vm.poke(DATA, &[1]);
        vm.run_once(1, &[1, 4, DATA, 8]);
        assert_eq!(vm.peek(CONTROL + 48), 8, "the doorbell");
    }
    vm.domain.resume().unwrap();
    let before = disk.events.lock().unwrap().clone();
    assert_eq!(before.iter().filter(|&&event| event == "frozen").count(), 1);
    let flushed_after = before.last() == Some(&"frozen");
    // The flush may have been begun before the gate was shut, but not after.
    assert!(flushed_after || before == ["write", "flush", "frozen"], "{before:?}");
    gate.thaw();
    vm.wait_until(all_done);
    assert_eq!(disk.events.lock().unwrap().iter().filter(|&&event| event == "flush").count(), 1);
}

#[test]
fn a_suspended_machine_leaves_its_disk_alone() {
    let disk = TestDisk::new();
    let mut vm = boot(&caller(), &disk);
    let gate = vm.domain.disk_gate().unwrap();
    poke_requests(&mut vm, &[request(DISK_FLUSH, 0, 0, 0)]);
    for _ in 0..100 {
        gate.freeze();
        gate.thaw();
    }
    assert!(disk.events.lock().unwrap().is_empty() && !all_done(&vm));
    vm.domain.resume().unwrap();
    vm.wait_until(all_done);
}

#[test]
fn a_request_that_was_not_done_is_done_by_the_copy() {
    let (disk, other) = (TestDisk::new(), TestDisk::new());
    let mut original = boot(&disk_user(), &disk);
    let gate = original.domain.disk_gate().unwrap();
    gate.freeze();
    original.poke(DATA, &[99]);
    original.poke(CONTROL, &[1]);
    original.poke(CONTROL + 8, &request(DISK_WRITE, 3, 1, DATA));
    original.domain.resume().unwrap();
    // The guest waits for it.
    original.wait_until(|vm| !all_done(vm));
    original.domain.suspend().unwrap();
    // As a secondary's, it has run before. (An empty one crashes when it runs, sooner or later.)
    let mut copy = boot(&disk_user(), &other);
    copy.domain.resume().unwrap();
    copy.domain.suspend().unwrap();
    copy.become_copy_of(&mut original);
    copy.domain.resume().unwrap();
    copy.wait_until(|vm| vm.peek(CONTROL) == 0);
    assert_eq!((copy.peek(CONTROL + 40) >> 32, other.at(3, 1)), (u64::from(DISK_OK), vec![99]));
    assert_eq!(disk.at(3, 1), [0], "the original's was not touched");
    // And the original has lost nothing by being copied.
    gate.thaw();
    original.domain.resume().unwrap();
    original.wait_until(|vm| vm.peek(CONTROL) == 0);
    assert_eq!(disk.at(3, 1), [99]);
}

#[test]
fn what_the_disk_writes_is_dirty() {
    for choice in [DirtyLogChoice::Auto, DirtyLogChoice::Shadow] {
        let disk = TestDisk::new();
        disk.bytes.lock().unwrap().fill(7);
        let mut vm = TestVm::boot_with_disk(&caller(), DISK_BYTES, disk, choice);
        poke_requests(&mut vm, &[request(DISK_READ, 0, 2 * PAGE_SIZE as u64, DATA + 0x5800)]);
        vm.domain.enable_dirty_log().unwrap();
        vm.domain.resume().unwrap();
        vm.wait_until(all_done);
        vm.domain.suspend().unwrap();
        let mut dirty = DirtyBitmap::new(vm.domain.spec().pfn_limit);
        vm.domain.take_dirty(&mut dirty).unwrap();
        let dirty: Vec<u64> = dirty.iter().map(|pfn| pfn.0).collect();
        let buffer = pfn_of(DATA + 0x5000).0;
        assert_eq!(dirty, [pfn_of(SHARED).0, pfn_of(RING).0, buffer, buffer + 1, buffer + 2]);
        assert_eq!((vm.peek(DATA + 0x57F8), vm.peek(DATA + 0x5800)), (0, 0x0707_0707_0707_0707));
    }
}

#[test]
fn a_disk_whose_thread_is_gone_is_told_at_the_next_suspension() {
    let disk = Arc::new(TestDisk { panics: true, ..TestDisk::default() });
    let mut vm = boot(&caller(), &disk);
    poke_requests(&mut vm, &[request(DISK_WRITE, 0, 1, DATA)]);
    vm.domain.resume().unwrap();
    // The thread holds one of the two until it is gone.
    vm.wait_until(|_| Arc::strong_count(&disk) == 1);
    vm.domain.disk_gate().unwrap().freeze();
    assert!(matches!(vm.domain.suspend(), Err(DomainError::Other(_))));
    vm.domain.destroy();
}

#[test]
fn the_disk_and_the_configuration_belong_together() {
    let without = small_config();
    let with = EmbeddedConfig { disk_bytes: DISK_BYTES, ..small_config() };
    assert!(matches!(EmbeddedDomain::empty(&with), Err(DomainError::BadSpec(_))));
    assert!(matches!(EmbeddedDomain::empty_with(&without, Some(TestDisk::new())), Err(DomainError::BadSpec(_))));
    let (domain, _) = EmbeddedDomain::empty(&without).unwrap();
    assert!(domain.disk_gate().is_none());
}
