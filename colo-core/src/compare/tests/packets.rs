//! All that is compared packet by packet, and what tells flows apart.

use super::*;
use crate::domain::MacAddr;
use crate::net::announce::gratuitous_arp;
use crate::net::testing::{
    CLIENT, GUEST, GUEST_MAC, arp_request, echo_reply, echo_reply6, fragments, tagged, udp, udp6,
};

#[test]
fn pings_of_ipv6_do_not_wait_for_each_other() {
    let mut bench = Bench::new();
    let (one, other) = (echo_reply6(1, 1, b"x"), echo_reply6(2, 1, b"x"));
    bench.primary(&one);
    bench.primary(&other);
    assert_eq!(bench.secondary(&other), [other]);
    bench.secondary(&echo_reply6(1, 2, b"x"));
    let said = bench.comparator.poll_divergence().unwrap().to_string();
    assert_eq!(said, "ICMP echo reply ::1 > ::2 id 1 (nic 0): payload differs at 61");
}

#[test]
fn the_same_ports_in_another_vlan_are_another_flow() {
    let mut bench = Bench::new();
    let frame = udp(53, 4000, b"answer");
    let (one, other) = (tagged(&frame, &[(0x8100, 5)]), tagged(&frame, &[(0x8100, 6)]));
    for frame in [&frame, &one, &other] {
        assert_eq!(bench.primary(frame), NOTHING);
    }
    assert_eq!(bench.secondary(&other), [other]);
    assert_eq!(bench.secondary(&one), [one]);
    assert_eq!(bench.secondary(&frame), [frame]);
    bench.primary(&tagged(&udp(53, 4000, b"10:15"), &[(0x88A8, 7), (0x8100, 5)]));
    bench.secondary(&tagged(&udp(53, 4000, b"10:16"), &[(0x88A8, 7), (0x8100, 5)]));
    let said = bench.comparator.poll_divergence().unwrap().to_string();
    assert_eq!(said, "UDP 10.0.0.1:53 > 10.0.0.2:4000 (nic 0, VLAN 7.5): payload differs at 54");
}

#[test]
fn datagrams_keep_their_order() {
    let mut bench = Bench::new();
    let frames = [udp(7, 9, b"one"), udp(7, 9, b"two"), udp(7, 9, b"three")];
    for frame in &frames {
        assert!(bench.primary(frame).is_empty());
    }
    for frame in &frames {
        assert_eq!(bench.secondary(frame), std::slice::from_ref(frame));
    }
    bench.secondary(&udp(7, 9, b"four"));
    bench.primary(&udp(7, 9, b"five"));
    assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: 43 }));
    assert_eq!(bench.consumed(), [0, 1, 2]);
}

/// Every kind of frame is compared, and none of them waits for another kind.
#[test]
fn every_kind_is_a_flow() {
    let mut ipv6 = udp(1, 2, b"x").to_vec();
    ipv6[12..14].copy_from_slice(&[0x86, 0xdd]);
    let mut vlan = udp(1, 2, b"x").to_vec();
    vlan[12..14].copy_from_slice(&[0x81, 0]);
    let mut malformed = udp(1, 2, b"x").to_vec();
    malformed[16] = 0xff;
    let frames = [
        Frame::new(),
        Frame::from_static(&[2; 13]),
        arp_request(CLIENT),
        echo_reply(1, 1, b"x"),
        udp(1, 2, b"x"),
        data(5, b"x"),
        ipv6.into(),
        vlan.into(),
        malformed.into(),
    ];
    let mut bench = Bench::new();
    for frame in &frames {
        assert!(bench.primary(frame).is_empty());
    }
    for frame in frames.iter().rev() {
        // The first two are of one kind.
        if frame.len() >= 14 {
            assert_eq!(bench.secondary(frame), std::slice::from_ref(frame));
        }
    }
    for frame in &frames[..2] {
        assert_eq!(bench.secondary(frame), std::slice::from_ref(frame));
    }
    assert_eq!((bench.consumed().len(), bench.reason()), (frames.len(), None));
}

/// However the two machines cut a packet: it is compared whole, and the primary's fragments leave.
#[test]
fn fragments_are_compared_as_their_packet() {
    let mut bench = Bench::new();
    let whole = udp(1, 2, &[7; 100]);
    let (ours, theirs) = (fragments(&whole, 48, 1), fragments(&whole, 64, 9));
    for frame in &ours {
        assert_eq!(bench.primary(frame), NOTHING);
    }
    assert_eq!(bench.secondary(&theirs[1]), NOTHING);
    assert_eq!(bench.secondary(&theirs[0]), ours);
    assert_eq!(bench.consumed(), [0, 1]);
    assert_eq!((bench.comparator.counters().held_bytes, bench.comparator.counters().reassembled_packets), (0, 1));
    for frame in fragments(&udp(1, 2, &[7; 100]), 48, 2) {
        bench.primary(&frame);
    }
    let mut changed = [7; 100];
    changed[99] = 8;
    for frame in fragments(&udp(1, 2, &changed), 48, 2) {
        bench.secondary(&frame);
    }
    assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: 14 + 20 + 8 + 99 }));
}

#[test]
fn an_incomplete_packet_asks_for_a_checkpoint_and_ends_after_it() {
    let mut bench = Bench::new();
    let parts = fragments(&udp(1, 2, &[7; 100]), 48, 1);
    bench.primary(&parts[0]);
    assert_eq!(bench.comparator.poll_timeout(), Some(bench.now + Duration::from_millis(200)));
    bench.pass(Duration::from_millis(200));
    let divergence = bench.comparator.poll_divergence().unwrap().to_string();
    assert_eq!(divergence, "IP 10.0.0.1 > 10.0.0.2 protocol 17 (nic 0): the primary's frame unmatched for 200 ms");
    assert_eq!(bench.checkpoint(), &parts[..1]);
    for frame in &parts[1..] {
        bench.primary(frame);
    }
    bench.secondary(&parts[1]);
    assert_eq!(bench.secondary(&parts[2]), &parts[1..]);
    assert_eq!(bench.consumed(), [0, 1]);
    bench.secondary(&parts[0]);
    bench.pass(Duration::from_millis(200));
    assert!(matches!(bench.reason(), Some(Reason::OnlySecondary { .. })));
}

#[test]
fn fragments_that_make_no_packet_are_compared_for_themselves() {
    let mut bench = Bench::new();
    let parts = fragments(&udp(1, 2, &[7; 100]), 48, 1);
    let mut other = parts[0].to_vec();
    *other.last_mut().unwrap() ^= 1;
    let other = Frame::from(other);
    bench.primary(&parts[0]);
    bench.primary(&other);
    assert_eq!(bench.secondary(&parts[0]), NOTHING);
    assert_eq!(bench.secondary(&other), [parts[0].clone(), other]);
    assert_eq!((bench.consumed(), bench.reason()), (vec![0, 1], None));
}

/// A fragment that both repeat leaves as often as they said it.
#[test]
fn a_repeated_fragment_is_compared_for_itself() {
    let mut bench = Bench::new();
    let parts = fragments(&udp(1, 2, &[7; 100]), 48, 1);
    let said = [&parts[0], &parts[0], &parts[1], &parts[2]];
    for frame in said {
        assert_eq!(bench.primary(frame), NOTHING);
    }
    let left: Vec<Frame> = said.into_iter().flat_map(|frame| bench.secondary(frame)).collect();
    assert_eq!(left, said.map(Clone::clone));
    assert_eq!((bench.consumed(), bench.comparator.counters().held_bytes), (vec![0, 1, 2, 3], 0));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.reason(), None);
}

#[test]
fn cards_are_separate() {
    let mut bench = Bench::new();
    bench.comparator.handle_primary(0, udp(1, 2, b"x"), bench.now);
    bench.comparator.handle_secondary(1, 0, udp(1, 2, b"x"), bench.now);
    assert_eq!(bench.comparator.poll_release(), None);
    bench.comparator.handle_primary(1, udp(1, 2, b"x"), bench.now);
    assert_eq!(bench.comparator.poll_release().unwrap().nic, 1);
}

/// ICMPv6 of one type, or IGMP, instead of UDP.
fn notice(frame: &[u8], header: usize, protocol_at: usize, protocol: u8, kind: u8, more: u8) -> Frame {
    let mut frame = frame.to_vec();
    frame[protocol_at] = protocol;
    frame[header] = kind;
    *frame.last_mut().unwrap() = more;
    frame.into()
}

fn icmp6(kind: u8, more: u8) -> Frame {
    notice(&udp6(1, 2, &[0; 20]), 54, 20, 58, kind, more)
}

fn igmp(kind: u8, more: u8) -> Frame {
    notice(&udp(1, 2, &[0; 20]), 34, 23, 2, kind, more)
}

#[test]
fn a_notice_that_has_left_is_said_again_by_either_alone() {
    let other = MacAddr([2, 0, 0, 0, 0, 9]);
    let arp = [gratuitous_arp(GUEST_MAC, GUEST), gratuitous_arp(other, GUEST)];
    for [one, another] in
        [arp, [icmp6(136, 1), icmp6(136, 2)], [icmp6(143, 1), icmp6(143, 2)], [igmp(0x22, 1), igmp(0x22, 2)]]
    {
        let mut bench = Bench::new();
        // The first time it is news.
        assert_eq!(bench.primary(&one), NOTHING);
        assert_eq!(bench.secondary(&one), std::slice::from_ref(&one));
        for _ in 0..2 {
            assert_eq!(bench.primary(&one), std::slice::from_ref(&one));
        }
        assert_eq!(bench.secondary(&one), NOTHING);
        assert_eq!(bench.consumed(), [0, 1]);
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.reason(), None);

        // What is said otherwise is news, and what holds then is that.
        assert_eq!(bench.secondary(&another), NOTHING);
        assert_eq!(bench.primary(&one), std::slice::from_ref(&one), "the secondary's is not for the clients to know");
        assert_eq!(bench.primary(&another), std::slice::from_ref(&another));
        assert_eq!(bench.primary(&one), NOTHING);
        bench.pass(Duration::from_millis(200));
        assert!(matches!(bench.reason(), Some(Reason::Unmatched { .. })));
    }
}

#[test]
fn a_notice_leaves_with_a_checkpoint_and_is_known_from_then_on() {
    let mut bench = Bench::new();
    let arp = gratuitous_arp(GUEST_MAC, GUEST);
    bench.primary(&arp);
    assert_eq!(bench.capture(), std::slice::from_ref(&arp));
    // Not before the checkpoint is: what this machine says is not that of the clients yet.
    assert_eq!(bench.primary(&arp), NOTHING);
    bench.comparator.secondary_running(bench.now);
    assert_eq!(bench.released(), std::slice::from_ref(&arp));
    bench.secondary(&arp);
    assert_eq!((bench.consumed(), bench.reason()), (vec![0], None));
}

#[test]
fn a_notice_of_the_secondary_alone_is_no_reason_for_a_checkpoint() {
    let mut bench = Bench::new();
    let arp = gratuitous_arp(GUEST_MAC, GUEST);
    bench.secondary(&arp);
    assert_eq!(bench.comparator.poll_timeout(), Some(bench.now + Duration::from_millis(200)));
    bench.pass(Duration::from_millis(199));
    assert!(bench.consumed().is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!((bench.consumed(), bench.reason(), bench.comparator.poll_timeout()), (vec![0], None, None));
    // It was not heard by anybody.
    assert_eq!(bench.primary(&arp), NOTHING);
    bench.pass(Duration::from_millis(200));
    assert!(matches!(bench.reason(), Some(Reason::Unmatched { .. })));
}

#[test]
fn a_notice_does_not_overtake_another() {
    let mut bench = Bench::new();
    let arp = gratuitous_arp(GUEST_MAC, GUEST);
    let moved = gratuitous_arp(MacAddr([2, 0, 0, 0, 0, 9]), GUEST);
    bench.primary(&arp);
    bench.secondary(&arp);
    assert_eq!(bench.primary(&moved), NOTHING);
    assert_eq!(bench.primary(&arp), NOTHING);
    assert_eq!(bench.secondary(&moved), [moved]);
    assert_eq!(bench.secondary(&arp), [arp]);
}

#[test]
fn what_is_no_notice_is_never_said_by_one_alone() {
    // A redirect, an answer to a query for listeners, a name's answer.
    for frame in [icmp6(137, 1), igmp(0x11, 1), udp(53, 4000, b"again")] {
        let mut bench = Bench::new();
        bench.primary(&frame);
        assert_eq!(bench.secondary(&frame), std::slice::from_ref(&frame));
        assert_eq!(bench.primary(&frame), NOTHING);
    }
}
