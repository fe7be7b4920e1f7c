//! The real guest program in the machine: it boots, answers, and answers as well from a copy of it.

use colo_core::domain::{Control, DirtyBitmap, MAX_BATCH_PAGES, Pages, RunState, State};
use colo_core::ids::{PAGE_SIZE, Pfn};
use colo_core::net::{Frame, Port};
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, RingPort};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUR_IP: [u8; 4] = [10, 77, 0, 1];

/// Who has the guest's address? (RFC 826, over Ethernet.)
fn arp_request(config: &EmbeddedConfig) -> Frame {
    let parts: [&[u8]; 7] = [
        &[0xFF; 6],
        &OUR_MAC,
        // Type ARP; Ethernet and IPv4, with addresses of 6 and 4 bytes; request.
        &[0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1],
        &OUR_MAC,
        &OUR_IP,
        &[0; 6],
        &config.ipv4.octets(),
    ];
    Frame::from(parts.concat())
}

fn is_arp_reply(frame: &Frame, config: &EmbeddedConfig) -> bool {
    frame.len() >= 42
        && frame[12..14] == [0x08, 0x06]
        && frame[20..22] == [0, 2]
        && frame[22..28] == config.mac.0
        && frame[28..32] == config.ipv4.octets()
}

/// Asks for the guest's address until it answers, as a client would; it may not be up yet.
fn expect_arp_reply(domain: &EmbeddedDomain, port: &mut RingPort, config: &EmbeddedConfig) {
    let deadline = Instant::now() + DEADLINE;
    let mut frames = Vec::new();
    while !frames.iter().any(|frame| is_arp_reply(frame, config)) {
        assert!(Instant::now() < deadline, "no answer; console: {:#?}", domain.console());
        assert_eq!(domain.run_state(), RunState::Running, "{:?} {:#?}", domain.end_report(), domain.console());
        port.send(&[arp_request(config)]).unwrap();
        let fd = port.poll_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
        port.receive(&mut frames).unwrap();
    }
}

#[test]
fn the_guest_answers_and_so_does_its_copy() {
    let config = EmbeddedConfig::named("guest");
    let (mut original, mut port) = EmbeddedDomain::boot(&config).unwrap();
    original.resume().unwrap();
    expect_arp_reply(&original, &mut port, &config);
    original.suspend().unwrap();

    let (mut copy, mut copy_port) = EmbeddedDomain::empty(&config).unwrap();
    let mut populated = DirtyBitmap::new(original.spec().pfn_limit);
    original.populated(&mut populated).unwrap();
    let pfns: Vec<Pfn> = populated.iter().collect();
    for batch in pfns.chunks(MAX_BATCH_PAGES) {
        let mut data = vec![0; batch.len() * PAGE_SIZE];
        original.read_pages(batch, &mut data).unwrap();
        copy.write_pages(batch, &data).unwrap();
    }
    copy.load_state(&original.save_state().unwrap()).unwrap();
    original.destroy();
    copy.resume().unwrap();
    expect_arp_reply(&copy, &mut copy_port, &config);
}

#[test]
fn the_guest_runs_in_the_smallest_and_the_largest_machine() {
    for ram_bytes in [16 << 20, 4 << 30] {
        let config = EmbeddedConfig { ram_bytes, ..EmbeddedConfig::named("guest") };
        let (mut domain, mut port) = EmbeddedDomain::boot(&config).unwrap();
        domain.resume().unwrap();
        expect_arp_reply(&domain, &mut port, &config);
    }
}
