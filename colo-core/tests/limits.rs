//! What the comparator costs in memory: nothing for a packet in the steady state, little for a flow in which nobody waits, and what
//! the limits say for what waits.

use allocation_counter::measure;
use colo_core::compare::{Comparator, CompareConfig};
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::net::testing::{Tcp, udp};
use std::collections::HashMap;
use std::time::Instant;

fn running(config: CompareConfig) -> (Comparator, Instant) {
    let (mut comparator, now) = (Comparator::new(config), Instant::now());
    comparator.begin_epoch(Epoch::FIRST);
    comparator.secondary_running(now);
    (comparator, now)
}

/// The ports of one of very many flows.
fn ports(flow: usize) -> (u16, u16) {
    (1 + (flow / 60_000) as u16, 1 + (flow % 60_000) as u16)
}

fn segment(flow: usize, turn: usize, payload: &[u8]) -> Frame {
    let (source, destination) = ports(flow);
    Tcp::new(source, destination).seq((turn * payload.len()) as u32).ack(1).payload(payload).frame()
}

/// Puts the frames of both machines through, so many at once, and returns how many left.
fn compare(comparator: &mut Comparator, frames: Vec<[Frame; 2]>, batch: usize, now: Instant) -> usize {
    let (mut left, mut number) = (0, 0);
    let mut theirs = Vec::with_capacity(batch);
    for [ours, other] in frames {
        comparator.handle_primary(0, ours, now);
        theirs.push(other);
        if theirs.len() == batch {
            for frame in theirs.drain(..) {
                comparator.handle_secondary(0, number, frame, now);
                number += 1;
            }
            while comparator.poll_release().is_some() {
                left += 1;
            }
            while comparator.poll_consumed().is_some() {}
            comparator.handle_timeout(now);
        }
    }
    left
}

#[test]
fn no_packet_is_an_allocation_in_the_steady_state() {
    const FLOWS: usize = 100;
    let twin = |frame: Frame| [frame.clone(), Frame::copy_from_slice(&frame)];
    let round = |turn: usize| -> Vec<[Frame; 2]> {
        let streams = (0..FLOWS).map(|flow| twin(segment(flow, turn, &[7; 200])));
        let datagrams = (0..FLOWS as u16).map(|flow| twin(udp(53, flow, &[7; 200])));
        // Cut otherwise by the other machine: bytes wait for their segment.
        let cut = (0..FLOWS).map(|flow| {
            let [whole, half] = [&[7; 200][..], &[7; 100][..]];
            [segment(FLOWS + flow, turn, whole), segment(FLOWS + flow, 2 * turn, half)]
        });
        let rest = (0..FLOWS).map(|flow| {
            let acknowledgement = Tcp::new(1, 1 + (FLOWS + flow) as u16).seq(0).ack(1).frame();
            [acknowledgement, segment(FLOWS + flow, 2 * turn + 1, &[7; 100])]
        });
        streams.chain(datagrams).chain(cut).chain(rest).collect()
    };
    let (mut comparator, now) = running(CompareConfig::default());
    let mut left = 0;
    for turn in 0..20 {
        left += compare(&mut comparator, round(turn), 2 * FLOWS, now);
    }
    let rounds: Vec<_> = (20..40).map(round).collect();
    let mut rounds = rounds.into_iter();
    let mut put_through = || {
        for round in rounds.by_ref() {
            left += compare(&mut comparator, round, 2 * FLOWS, now);
        }
    };
    // The test's own vector for each round.
    let allocations = measure(&mut put_through);
    assert_eq!((left, comparator.poll_divergence()), (40 * 4 * FLOWS, None));
    assert_eq!(allocations.count_total, 20, "{allocations:?}");
}

#[test]
fn a_million_idle_flows_are_known() {
    const FLOWS: usize = 1 << 20;
    /// What a flow may cost, the table's growth by doubling included.
    const FLOW_BYTES: u64 = 1024;
    let (mut comparator, now) = running(CompareConfig { max_flows: FLOWS, ..CompareConfig::default() });
    let allocations = measure(|| {
        for flow in 0..FLOWS {
            let frame = segment(flow, 0, b"hello");
            comparator.handle_primary(0, frame.clone(), now);
            comparator.handle_secondary(0, flow as u64, frame, now);
            assert!(comparator.poll_release().is_some() && comparator.poll_consumed().is_some());
        }
    });
    println!("{FLOWS} idle flows: {} bytes each", allocations.bytes_current / FLOWS as i64);
    assert!(allocations.bytes_max < FLOWS as u64 * FLOW_BYTES, "{allocations:?}");
    assert_eq!((comparator.counters().flows, comparator.counters().evicted_flows), (FLOWS, 0));
    // What has left is known of every one of them.
    for flow in (0..FLOWS).step_by(1009) {
        comparator.handle_primary(0, segment(flow, 0, b"hello"), now);
        assert!(comparator.poll_release().is_some(), "flow {flow}");
    }
    // One more has the place of the one that was not used for the longest time.
    comparator.handle_primary(0, segment(FLOWS, 0, b"hello"), now);
    assert_eq!((comparator.counters().flows, comparator.counters().evicted_flows), (FLOWS, 1));
}

#[test]
fn a_quarter_of_a_million_packets_wait_and_none_is_lost() {
    const FLOWS: usize = 20_000;
    const PACKETS: usize = 250_000;
    let config = CompareConfig::default();
    let (mut comparator, now) = running(config.clone());
    // A buffer of its own for each, as long as it is.
    let packet = |index: usize| Frame::copy_from_slice(&segment(index % FLOWS, 1 + index / FLOWS, &[index as u8; 10]));
    for flow in 0..FLOWS {
        let first = segment(flow, 0, &[7; 10]);
        comparator.handle_primary(0, first.clone(), now);
        comparator.handle_secondary(0, flow as u64, first, now);
        assert!(comparator.poll_release().is_some());
    }
    let allocations = measure(|| {
        for index in 0..PACKETS {
            assert!(!comparator.is_full(), "{index} packets wait");
            comparator.handle_primary(0, packet(index), now);
        }
    });
    let counters = comparator.counters();
    let (held, measured) = (counters.held_bytes, allocations.bytes_current as usize);
    println!("{PACKETS} packets wait in {} flows: {held} bytes by account, {measured} measured", counters.flows);
    assert_eq!((comparator.poll_release(), comparator.poll_divergence()), (None, None));
    assert!(measured <= held && held <= config.max_held_bytes, "{allocations:?}");
    let mut next: HashMap<usize, usize> = HashMap::new();
    for index in 0..PACKETS {
        comparator.handle_secondary(0, (FLOWS + index) as u64, packet(index), now);
        while let Some(release) = comparator.poll_release() {
            let turn = next.entry(index % FLOWS).or_default();
            assert_eq!(release.frame, packet(index % FLOWS + *turn * FLOWS), "in order");
            *turn += 1;
        }
    }
    assert_eq!(next.values().sum::<usize>(), PACKETS);
    assert_eq!((comparator.counters().held_bytes, comparator.poll_divergence()), (0, None));
}

/// At the limit the primary is held back, and every packet that was taken leaves in the end.
#[test]
fn beyond_the_limit_nothing_is_taken_and_nothing_lost() {
    const FLOWS: usize = 1000;
    let config = CompareConfig { max_held_bytes: 1 << 20, ..CompareConfig::default() };
    let (mut comparator, now) = running(config.clone());
    let packet = |index: usize| segment(index % FLOWS, index / FLOWS, &[index as u8; 10]);
    let mut taken = 0;
    while !comparator.is_full() {
        comparator.handle_primary(0, packet(taken), now);
        taken += 1;
    }
    assert!(comparator.poll_divergence().is_some(), "a checkpoint is asked for");
    assert!(comparator.counters().held_bytes < config.max_held_bytes + 1000);
    let handed_back = comparator.begin_epoch(Epoch(2));
    assert_eq!(handed_back.len(), taken);
    assert!(handed_back.iter().enumerate().all(|(index, release)| release.frame == packet(index)));
    assert!(!comparator.is_full());
}
