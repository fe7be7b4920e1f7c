//! Machines, from the outside: what the engine relies on.

use bytes::Bytes;
use colo_core::domain::{Control, DirtyBitmap, DirtyLog, DomainError, Pages, RunState, State};
use colo_core::ids::{PAGE_SIZE, Pfn};
use colo_core::net::{Frame, Port};
use colo_embedded::machine::{DirtyLogChoice, EmbeddedConfig, EmbeddedDomain, RingPort};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn config() -> EmbeddedConfig {
    EmbeddedConfig { ram_bytes: 16 << 20, ..EmbeddedConfig::named("test") }
}

/// "Who has the guest's address?"
fn arp_request() -> Frame {
    let mut frame = Vec::new();
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&CLIENT_MAC);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&CLIENT_MAC);
    frame.extend_from_slice(&CLIENT.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&config().ipv4.octets());
    Bytes::from(frame)
}

/// Waits for the guest's next frame.
fn next_frame(port: &mut RingPort) -> Frame {
    let deadline = Instant::now() + PATIENCE;
    let mut frames = Vec::new();
    while port.receive(&mut frames).unwrap() == 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "the guest says nothing");
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        poll(&mut [PollFd::from_borrowed_fd(port.poll_fd(), PollFlags::IN)], Some(&timeout)).unwrap();
    }
    frames.remove(0)
}

/// Asks the guest for its Ethernet address, and checks the answer.
fn ask(port: &mut RingPort) {
    assert_eq!(port.send(&[arp_request()]).unwrap(), 1);
    let answer = next_frame(port);
    assert_eq!(answer[..6], CLIENT_MAC);
    assert_eq!(answer[6..12], config().mac.0);
    assert_eq!(answer[12..14], [8, 6]);
}

/// Copies the suspended domain's memory and state into another.
fn copy(from: &mut EmbeddedDomain, to: &mut EmbeddedDomain) {
    let mut page = [0; PAGE_SIZE];
    for pfn in (0..from.spec().pfn_limit).map(Pfn) {
        from.read_pages(&[pfn], &mut page).unwrap();
        to.write_pages(&[pfn], &page).unwrap();
    }
    to.load_state(&from.save_state().unwrap()).unwrap();
}

#[test]
fn the_guest_answers() {
    let (mut domain, mut port) = EmbeddedDomain::boot(&config()).unwrap();
    domain.resume().unwrap();
    ask(&mut port);
    assert_eq!(domain.run_state(), RunState::Running);
}

#[test]
fn a_guest_goes_on_in_another_process() {
    let (mut domain, mut port) = EmbeddedDomain::boot(&config()).unwrap();
    domain.resume().unwrap();
    ask(&mut port);
    let (mut other, mut other_port) = EmbeddedDomain::create(&config()).unwrap();
    for _ in 0..5 {
        domain.suspend().unwrap();
        copy(&mut domain, &mut other);
        other.resume().unwrap();
        ask(&mut other_port);
        other.suspend().unwrap();
        domain.resume().unwrap();
        ask(&mut port);
    }
}

#[test]
fn dirty_pages_are_exactly_those_that_changed() {
    for choice in [DirtyLogChoice::Userfaultfd, DirtyLogChoice::Shadow] {
        let (mut domain, mut port) = match EmbeddedDomain::boot(&EmbeddedConfig { dirty_log: choice, ..config() }) {
            Ok(machine) => machine,
            Err(error) if choice == DirtyLogChoice::Userfaultfd => {
                eprintln!("this kernel has no userfaultfd-wp: {error}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        domain.resume().unwrap();
        ask(&mut port);
        domain.suspend().unwrap();
        domain.enable_dirty_log().unwrap();
        let mut before = memory(&domain);
        for round in 0..5 {
            domain.resume().unwrap();
            ask(&mut port);
            domain.suspend().unwrap();
            let mut dirty = DirtyBitmap::new(domain.spec().pfn_limit);
            domain.take_dirty(&mut dirty).unwrap();
            let after = memory(&domain);
            for (pfn, (old, new)) in before.chunks(PAGE_SIZE).zip(after.chunks(PAGE_SIZE)).enumerate() {
                assert!(
                    old == new || dirty.contains(Pfn(pfn as u64)),
                    "{choice:?}, round {round}: page {pfn} is missing"
                );
            }
            assert!(dirty.count() > 0 && dirty.count() < 200, "{choice:?}: {} pages", dirty.count());
            before = after;
        }
    }
}

fn memory(domain: &EmbeddedDomain) -> Vec<u8> {
    let pages = domain.spec().pfn_limit;
    let mut all = vec![0; domain.spec().ram_bytes() as usize];
    let pfns: Vec<Pfn> = (0..pages).map(Pfn).collect();
    for (pfns, out) in pfns.chunks(1024).zip(all.chunks_mut(1024 * PAGE_SIZE)) {
        domain.read_pages(pfns, out).unwrap();
    }
    all
}

#[test]
fn sizes_from_the_smallest_to_the_largest() {
    for ram_bytes in [16 << 20, 4 << 30] {
        let (mut domain, mut port) = EmbeddedDomain::boot(&EmbeddedConfig { ram_bytes, ..config() }).unwrap();
        domain.resume().unwrap();
        ask(&mut port);
    }
    for ram_bytes in [8 << 20, 5 << 30] {
        let result = EmbeddedDomain::boot(&EmbeddedConfig { ram_bytes, ..config() });
        assert!(matches!(result, Err(DomainError::BadSpec(_))));
    }
}

#[test]
fn batches_that_cannot_be_are_refused() {
    let (mut domain, _port) = EmbeddedDomain::boot(&config()).unwrap();
    let mut page = [0; PAGE_SIZE];
    assert!(matches!(domain.read_pages(&[Pfn(4096)], &mut page), Err(DomainError::PfnOutOfRange { .. })));
    assert!(matches!(domain.write_pages(&[Pfn(1), Pfn(2)], &page), Err(DomainError::BadBatch { .. })));
    domain.resume().unwrap();
    assert!(matches!(domain.write_pages(&[Pfn(1)], &page), Err(DomainError::NotSuspended(_))));
    assert!(matches!(domain.save_state(), Err(DomainError::NotSuspended(_))));
}

#[test]
fn a_destroyed_guest_is_gone() {
    let (mut domain, mut port) = EmbeddedDomain::boot(&config()).unwrap();
    domain.resume().unwrap();
    let pid = domain.pid();
    domain.destroy();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(port.receive(&mut Vec::new()).is_err());
    assert!(matches!(domain.resume(), Err(DomainError::NotRunning(_))));
}
