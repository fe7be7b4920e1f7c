//! Much that waits: nothing is lost, and memory is bounded.

use crate::rig::Rig;
use colo_core::compare::CompareConfig;
use colo_core::net::Frame;
use colo_core::net::testing::udp;
use std::time::Duration;

/// How far a limit may be passed: by one frame of each machine.
const SLACK_BYTES: usize = 4096;

/// Sends it all from the primary alone, takes each checkpoint that is asked for, and looks that all leaves in its order.
fn all_leaves_by_checkpoints(rig: &Rig, frames: &[Frame], limits: &CompareConfig) {
    let (mut primary, _secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    std::thread::scope(|scope| {
        scope.spawn(|| primary.send(frames));
        let mut left = 0;
        while left < frames.len() {
            toolstack.take_checkpoint();
            let totals = rig.totals();
            assert!(totals.counters.held_bytes < limits.max_held_bytes + SLACK_BYTES, "{totals}");
            let handed_back = rig.wait_for(|totals| totals.counters.handed_back_frames > left as u64);
            let now = handed_back.counters.handed_back_frames as usize;
            out.expect(&frames[left..now]);
            left = now;
        }
    });
    let totals = rig.totals();
    assert_eq!((totals.counters.primary_frames, totals.sent_frames), (frames.len() as u64, frames.len() as u64));
    assert_eq!((totals.held_frames(), totals.waiting_frames), (0, 0), "{totals}");
}

#[test]
fn the_primary_waits_when_too_much_is_held() {
    let limits = CompareConfig { max_held_bytes: 64 << 10, ..CompareConfig::default() };
    let rig = Rig::start(|config| {
        (config.compare.max_held_bytes, config.compare.timeout) = (limits.max_held_bytes, Duration::from_millis(50));
    });
    let frames: Vec<Frame> = (0..5000u16).map(|number| udp(53, number % 7, &number.to_be_bytes())).collect();
    all_leaves_by_checkpoints(&rig, &frames, &limits);
}

/// A secondary that is far ahead is held back, instead of forgetting what it says.
#[test]
fn the_secondary_waits_when_too_much_of_it_is_held() {
    let rig = Rig::start(|config| config.compare.max_flow_bytes = 64 << 10);
    let (mut primary, mut secondary, mut out) = rig.machines();
    // Some fifty times the limit, and more than a socket takes.
    let frames: Vec<Frame> =
        (0..5000u16).map(|number| udp(53, 4000, &[&number.to_be_bytes()[..], &[7; 500]].concat())).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| secondary.send(&frames));
        rig.wait_for(|totals| totals.counters.secondary_frames >= (64 << 10) / 800);
        scope.spawn(|| primary.send(&frames));
        out.expect(&frames);
    });
    let totals = rig.totals();
    assert_eq!((totals.counters.forgotten_frames, totals.checkpoints), (0, 0), "{totals}");
}

/// Nobody is held back for ever: whoever waits in a write cannot take the checkpoint that makes room.
#[test]
fn what_is_too_much_for_too_long_is_lost_and_counted() {
    let rig = Rig::start(|config| {
        config.hold_back = Duration::from_millis(20);
        (config.compare.max_held_bytes, config.compare.max_flow_bytes) = (64 << 10, 64 << 10);
    });
    let (mut primary, mut secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    // Far more than a socket takes.
    let frames: Vec<Frame> =
        (0..5000u16).map(|number| udp(53, 4000, &[&number.to_be_bytes()[..], &[7; 500]].concat())).collect();
    primary.send(&frames);
    let totals = rig.wait_for(|totals| totals.counters.primary_frames + totals.lost_primary_frames == 5000);
    let held = totals.held_frames() as usize;
    assert!((50..200).contains(&held) && totals.counters.held_bytes < (64 << 10) + SLACK_BYTES, "{totals}");
    secondary.send(&[udp(53, 1, b"other")]);
    secondary.send(&frames);
    rig.wait_for(|totals| totals.counters.secondary_frames == 5001);
    toolstack.take_checkpoint();
    rig.wait_for(|totals| totals.checkpoints == 1);
    out.expect(&frames[..held]);
    // Now there is room.
    primary.send(&frames[..1]);
    secondary.send(&frames[..1]);
    out.expect(&frames[..1]);
    assert_eq!(rig.totals().lost_primary_frames, 5000 - held as u64);
}

/// As a switch's port does when nobody reads there. Nobody is held back, for QEMU reads there in the thread in which it writes.
#[test]
fn what_is_too_much_for_out_is_lost_and_counted() {
    let rig = Rig::start(|config| config.compare.max_flow_bytes = config.compare.max_held_bytes);
    let (mut primary, mut secondary) = (rig.connect("primary-in"), rig.connect("secondary-in"));
    let frames: Vec<Frame> =
        (0..20_000u16).map(|number| udp(53, 4000, &[&number.to_be_bytes()[..], &[7; 1400]].concat())).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| primary.send(&frames));
        scope.spawn(|| secondary.send(&frames));
    });
    let totals = rig.wait_for(|totals| totals.counters.released_frames == 20_000);
    let kept = totals.waiting_frames as usize;
    assert!(totals.lost_out_frames == 20_000 - kept as u64 && (10_000..12_000).contains(&kept), "{totals}");
    let mut out = rig.connect("out");
    out.expect(&frames[..kept]);
    primary.send(&frames[..1]);
    secondary.send(&frames[..1]);
    out.expect(&frames[..1]);
}

/// QEMU loses packets beyond 1024 in a flow, and all that it holds beyond 16,384 flows.
#[test]
fn twenty_thousand_flows_and_a_quarter_of_a_million_held_frames() {
    let limits = CompareConfig::default();
    // What does not fill a limit leaves in the end, too.
    let rig = Rig::start(|config| config.compare.timeout = Duration::from_secs(1));
    let frames: Vec<Frame> =
        (0..250_000u32).map(|number| udp(1000 + (number % 20_000) as u16, 4000, &number.to_be_bytes())).collect();
    all_leaves_by_checkpoints(&rig, &frames, &limits);
}
