//! Time, room, and what is handed back.

use super::*;
use crate::net::testing::udp;
use proptest::prelude::*;

#[test]
fn idle_flows_are_forgotten_in_time() {
    let mut bench = Bench::new();
    for port in 0..100 {
        bench.primary(&udp(port, 2, b"x"));
        bench.secondary(&udp(port, 2, b"x"));
    }
    bench.pass(Duration::from_secs(200));
    bench.primary(&udp(0, 2, b"x"));
    bench.secondary(&udp(0, 2, b"x"));
    bench.pass(Duration::from_secs(100));
    bench.pass(Duration::ZERO);
    bench.pass(Duration::ZERO);
    let counters = bench.comparator.counters();
    assert_eq!((counters.flows, counters.aged_flows, counters.evicted_flows), (1, 99, 0));
}

#[test]
fn waiting_is_limited_and_counted_from_when_the_secondary_may_have_caught_up() {
    let mut bench = Bench::new();
    let after = |bench: &Bench, ms| Some(bench.now + Duration::from_millis(ms));
    bench.capture();
    // The primary stands still for a while, and goes on a second before the secondary.
    bench.pass(Duration::from_secs(3));
    bench.primary(&udp(1, 2, b"x"));
    bench.pass(Duration::from_secs(1));
    bench.comparator.secondary_running(bench.now);
    assert_eq!(bench.comparator.poll_timeout(), after(&bench, 1200));
    bench.pass(Duration::from_millis(1199));
    assert_eq!(bench.reason(), None);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.reason(), Some(Reason::Unmatched { waited: Duration::from_millis(2200) }));
    assert_eq!(bench.comparator.poll_timeout(), None);
    assert_eq!(bench.checkpoint(), [udp(1, 2, b"x")]);
    assert_eq!(bench.comparator.poll_timeout(), None);

    // It was not behind in this epoch.
    bench.primary(&udp(1, 2, b"y"));
    assert_eq!(bench.comparator.poll_timeout(), after(&bench, 200));

    // What is said when it has caught up waits no longer than ever.
    bench.capture();
    bench.primary(&udp(1, 2, b"x"));
    bench.pass(Duration::from_secs(1));
    bench.comparator.secondary_running(bench.now);
    assert_eq!(bench.secondary(&udp(1, 2, b"x")), [udp(1, 2, b"x")]);
    bench.pass(Duration::from_secs(1));
    bench.primary(&udp(1, 2, b"z"));
    assert_eq!(bench.comparator.poll_timeout(), after(&bench, 200));
}

#[test]
fn a_match_in_time_is_not_late() {
    let mut bench = Bench::new();
    for round in 0..10 {
        bench.primary(&udp(1, 2, &[round]));
        bench.pass(Duration::from_millis(150));
        assert_eq!(bench.secondary(&udp(1, 2, &[round])).len(), 1);
    }
    assert_eq!(bench.reason(), None);
    bench.pass(Duration::from_secs(1));
    assert_eq!((bench.reason(), bench.comparator.poll_timeout()), (None, None));
}

#[test]
fn what_is_held_is_handed_back_in_the_order_of_all_flows() {
    let mut bench = Bench::new();
    let frames: Vec<Frame> = (0..100u16).map(|n| udp(n * 7 % 13, n % 5, &n.to_be_bytes())).collect();
    for frame in &frames {
        bench.primary(frame);
    }
    assert_eq!(bench.checkpoint(), frames);
    assert_eq!(bench.comparator.counters().held_bytes, 0);
}

#[test]
fn full_queues_lose_nothing() {
    let config = CompareConfig { max_held_bytes: 20_000, max_flow_bytes: 10_000, ..CompareConfig::default() };
    let mut bench = Bench::with(config);
    let mut sent = Vec::new();
    while !bench.comparator.is_full() {
        let port = 2 + u16::from(sent.len() > 40);
        sent.push(udp(1, port, &[sent.len() as u8; 100]));
        bench.primary(sent.last().unwrap());
    }
    assert_eq!(bench.reason(), Some(Reason::QueueFull(Limit::FlowBytes)));
    // Those that still match leave, and make room.
    assert_eq!(bench.secondary(&sent[0]), &sent[..1]);
    assert!(!bench.comparator.is_full());
    assert_eq!(bench.checkpoint(), &sent[1..]);
    assert!(!bench.comparator.is_full());
}

/// While the secondary does not run, no checkpoint would make room.
#[test]
fn a_full_queue_before_the_secondary_runs_is_no_divergence() {
    let config = CompareConfig { max_held_bytes: 2000, ..CompareConfig::default() };
    let mut bench = Bench::with(config);
    bench.capture();
    let mut sent = 0;
    while !bench.comparator.is_full() {
        bench.primary(&udp(1, 2, b"x"));
        sent += 1;
    }
    assert_eq!(bench.reason(), None);
    bench.comparator.secondary_running(bench.now);
    for _ in 0..sent {
        assert_eq!(bench.secondary(&udp(1, 2, b"x")).len(), 1);
    }
    assert_eq!(bench.reason(), None);
}

#[test]
fn a_forgotten_frame_of_the_secondary_closes_the_epoch() {
    let config = CompareConfig { max_flow_bytes: 1000, ..CompareConfig::default() };
    let mut bench = Bench::with(config);
    for number in 0..6 {
        bench.secondary(&udp(1, 2, &[number]));
    }
    assert_eq!(bench.reason(), Some(Reason::QueueFull(Limit::FlowBytes)));
    assert!(bench.comparator.counters().forgotten_frames >= 1);
    assert!(bench.primary(&udp(1, 2, &[0])).is_empty());
    assert_eq!(bench.checkpoint(), [udp(1, 2, &[0])]);
    bench.secondary(&udp(1, 2, &[1]));
    assert_eq!(bench.primary(&udp(1, 2, &[1])), [udp(1, 2, &[1])]);
}

#[test]
fn idle_flows_make_room_and_busy_ones_do_not() {
    let config = CompareConfig { max_flows: 4, ..CompareConfig::default() };
    let mut bench = Bench::with(config);
    for port in 0..100 {
        bench.primary(&udp(port, 2, b"x"));
        assert_eq!(bench.secondary(&udp(port, 2, b"x")).len(), 1);
    }
    assert_eq!((bench.comparator.counters().flows, bench.comparator.counters().evicted_flows), (4, 96));
    let frames: Vec<Frame> = (200..205).map(|port| udp(port, 2, b"x")).collect();
    for frame in &frames {
        assert!(!bench.comparator.is_full());
        bench.primary(frame);
    }
    assert!(bench.comparator.is_full());
    assert_eq!(bench.reason(), Some(Reason::QueueFull(Limit::Flows)));
    assert_eq!(bench.secondary(&frames[0]).len(), 1);
    assert_eq!(bench.checkpoint(), &frames[1..]);
    assert!(!bench.comparator.is_full());
}

/// A client opens and resets connections from one port, faster than the machines come to agree.
#[test]
fn connections_between_the_same_ports_are_limited() {
    let syn_ack = |n: u32| tcp().syn().seq(n * 100_000).ack(500).frame();
    let mut bench = connected();
    let mut sent = vec![data(1001, b"x")];
    sent.extend((1..=16).map(syn_ack));
    sent.push(data(1_600_001, b"old"));
    for frame in &sent {
        assert_eq!(bench.primary(frame), NOTHING);
        assert_eq!((bench.reason(), bench.comparator.is_full()), (None, false));
    }
    // The next one's bytes come to lie where those of the one before have left.
    let more = [tcp().syn().seq(1_600_000 - 1).ack(500).frame(), data(1_600_000, b"n")];
    for frame in &more {
        assert_eq!(bench.primary(frame), NOTHING);
    }
    assert!(bench.comparator.is_full());
    assert_eq!(bench.reason(), Some(Reason::QueueFull(Limit::Connections)));
    sent.extend(more);
    assert_eq!(bench.checkpoint(), sent);
    assert_eq!((bench.comparator.is_full(), bench.comparator.counters().held_bytes), (false, 0));
    assert_eq!(bench.primary(&data(1_600_001, b"new")), NOTHING, "what has left was another's");
    assert_eq!(bench.secondary(&data(1_600_001, b"new")), [data(1_600_001, b"new")]);
    assert_eq!(bench.reason(), None);

    for n in 1..=16 {
        bench.secondary(&syn_ack(n));
        assert_eq!(bench.reason(), None);
    }
    bench.secondary(&syn_ack(17));
    assert_eq!(bench.reason(), Some(Reason::QueueFull(Limit::Connections)));
    assert_eq!(bench.comparator.counters().forgotten_frames, 1);
}

#[test]
fn a_refused_frame_of_an_ended_epoch_does_not_come_again() {
    let mut bench = Bench::new();
    bench.primary(&udp(1, 2, b"x"));
    bench.comparator.handle_secondary(0, 0, udp(1, 2, b"x"), bench.now);
    // Decided, but not fetched.
    assert_eq!(bench.checkpoint(), [udp(1, 2, b"x")]);
    assert_eq!((bench.released(), bench.consumed()), (vec![], vec![]));
}

proptest! {
    #[test]
    fn arbitrary_frames_lose_nothing(data in proptest::collection::vec(any::<u8>(), 0..4000)) {
        fuzz(&data);
    }

    /// Well-formed segments with arbitrary fields of one connection reach the code behind the parser.
    #[test]
    fn arbitrary_segments_lose_nothing(
        segments in proptest::collection::vec(
            (any::<u8>(), 0..64u8, 0..40u32, prop_oneof![Just(0u32), Just(1 << 30), Just(1 << 31)], 0..6usize, 0..3u16, 0..12u8),
            0..200,
        )
    ) {
        let mut data = Vec::new();
        for (side, flags, near, far, bytes, window, fragment) in segments {
            let tcp = Tcp::new(80, 4000 + near as u16 % 3).window(window);
            let mut frame = tcp.seq(near.wrapping_add(far).wrapping_sub(20)).ack(near).payload(&[side & 1; 6][..bytes]).frame().to_vec();
            frame[47] = flags;
            // A fragment as often as not, of one of two packets.
            if fragment < 6 {
                frame[19] = fragment & 1;
                frame[20..22].copy_from_slice(&[[0x20, 0], [0x20, 3], [0, 6]][usize::from(fragment) / 2]);
            }
            data.extend_from_slice(&[side, frame.len() as u8]);
            data.extend_from_slice(&frame);
        }
        fuzz(&data);
    }
}
