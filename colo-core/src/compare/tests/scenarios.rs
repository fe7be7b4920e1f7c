use super::*;
use crate::net::Offload;
use crate::net::testing::{CARRIERS, CLIENT, arp_request, carried, echo_reply, echo_reply6, fragments, tagged, udp};
use proptest::prelude::*;

const MSS: [u8; 4] = [2, 4, 5, 0xb4];
const NOTHING: [Frame; 0] = [];

fn data(seq: u32, payload: &[u8]) -> Frame {
    tcp().seq(seq).ack(500).payload(payload).frame()
}

fn ack(seq: u32, ack: u32) -> Frame {
    tcp().seq(seq).ack(ack).frame()
}

/// A bench on which the primary's handshake with number 1000 has left; the secondary chose 9000.
fn connected() -> Bench {
    let mut bench = Bench::new();
    let syn_ack = tcp().syn().seq(1000).ack(500).options(&MSS).frame();
    assert_eq!(bench.primary(&syn_ack), NOTHING);
    assert_eq!(bench.secondary(&tcp().syn().seq(9000).ack(500).options(&MSS).identification(7).frame()), [syn_ack]);
    assert_eq!(bench.consumed(), [0]);
    bench
}

#[test]
fn segmentation_is_no_difference() {
    let mut bench = connected();
    assert!(bench.secondary(&data(1001, b"ab")).is_empty());
    assert!(bench.primary(&data(1001, b"abcdef")).is_empty());
    assert!(bench.secondary(&data(1003, b"cde")).is_empty());
    assert_eq!(bench.secondary(&data(1006, b"fghi")), [data(1001, b"abcdef")]);
    assert_eq!(bench.consumed(), [1, 2]);
    assert_eq!(bench.primary(&data(1007, b"g")), [data(1007, b"g")]);
    assert_eq!(bench.primary(&data(1008, b"hi")), [data(1008, b"hi")]);
    assert_eq!(bench.consumed(), [3]);
    assert_eq!(bench.reason(), None);
}

#[test]
fn it_does_not_matter_what_carries_the_stream() {
    for way in 0..CARRIERS {
        let mut bench = Bench::new();
        let carried = |frame: Frame| carried(way, &frame);
        let syn_ack = |seq| carried(tcp().syn().seq(seq).ack(500).options(&MSS).frame());
        bench.primary(&syn_ack(1000));
        assert_eq!(bench.secondary(&syn_ack(9000)), [syn_ack(1000)]);
        bench.primary(&carried(data(1001, b"abcdef")));
        bench.secondary(&carried(data(1001, b"abc")));
        assert_eq!(bench.secondary(&carried(data(1004, b"def1"))), [carried(data(1001, b"abcdef"))]);
        bench.primary(&carried(data(1007, b"10:15")));
        bench.secondary(&carried(data(1008, b"0:16")));
        assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: 1011 }));
    }
}

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
fn different_bytes_diverge_at_once_and_never_leave() {
    let mut bench = connected();
    bench.primary(&data(1001, b"same"));
    bench.primary(&data(1005, b"10:15"));
    assert_eq!(bench.secondary(&data(1001, b"same10:16")), [data(1001, b"same")]);
    assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: 1009 }));
    assert!(bench.primary(&data(1005, b"10:15")).is_empty());
    assert_eq!(bench.reason(), None, "one divergence in an epoch");
    assert_eq!(bench.checkpoint(), [data(1005, b"10:15"), data(1005, b"10:15")]);
    assert_eq!(bench.primary(&data(1005, b"10:15")), [data(1005, b"10:15")], "a retransmission over the epoch");
}

#[test]
fn no_acknowledgement_leaves_before_the_secondary_gave_it() {
    let mut bench = connected();
    assert!(bench.primary(&ack(1001, 600)).is_empty());
    assert!(bench.primary(&data(1001, b"x")).is_empty());
    assert!(bench.secondary(&ack(1001, 599)).is_empty());
    assert!(bench.secondary(&data(1001, b"x")).is_empty(), "its acknowledgement does not go back");
    assert_eq!(bench.secondary(&ack(1002, 700)), [ack(1001, 600), data(1001, b"x")]);
    // The acknowledgement of 700 has not been heard yet, and is the only one worth keeping.
    assert_eq!(bench.consumed(), [1, 2]);
    assert_eq!(bench.primary(&ack(1002, 700)), [ack(1002, 700)]);
    assert_eq!(bench.consumed(), [3]);
}

#[test]
fn a_window_update_is_kept_until_it_was_said() {
    let mut bench = connected();
    let window = |window| tcp().seq(1001).ack(500).window(window).frame();
    assert_eq!(bench.primary(&window(0)), [window(0)]);
    bench.secondary(&window(0));
    assert_eq!(bench.consumed(), [1]);
    bench.secondary(&window(4096));
    assert_eq!(bench.consumed(), Vec::<u64>::new());
    assert_eq!(bench.primary(&window(4096)), [window(4096)]);
    assert_eq!(bench.consumed(), [2]);
}

#[test]
fn the_baseline_of_an_epoch_is_what_the_primary_acknowledged() {
    let mut bench = connected();
    bench.secondary(&ack(1001, 900));
    bench.primary(&ack(1001, 600));
    bench.primary(&data(1001, b"held"));
    bench.primary(&ack(1005, 950));
    assert_eq!(bench.checkpoint(), [data(1001, b"held"), ack(1005, 950)]);
    assert_eq!(bench.primary(&ack(1005, 950)), [ack(1005, 950)]);
    assert!(bench.primary(&ack(1005, 951)).is_empty());
    assert_eq!(bench.secondary(&ack(1005, 951)), [ack(1005, 951)]);
    // A secondary that was ahead is so no more.
    bench.secondary(&ack(1005, 2000));
    bench.checkpoint();
    assert!(bench.primary(&ack(1005, 1500)).is_empty());
}

#[test]
fn nothing_leaves_between_capture_and_the_secondarys_run() {
    let mut bench = connected();
    bench.secondary(&data(1001, b"abc"));
    bench.primary(&data(1001, b"abc"));
    bench.primary(&data(1004, b"held"));
    assert_eq!(bench.capture(), [data(1004, b"held")]);
    // A retransmission, a known acknowledgement, and what both have produced.
    for frame in [data(1001, b"abc"), ack(1008, 500), data(1008, b"new")] {
        assert!(bench.primary(&frame).is_empty());
    }
    assert!(bench.secondary(&data(1008, b"new")).is_empty());
    bench.pass(Duration::from_secs(5));
    assert_eq!((bench.reason(), bench.comparator.poll_timeout()), (None, None));
    bench.comparator.secondary_running(bench.now);
    assert_eq!(bench.released(), [data(1001, b"abc"), ack(1008, 500), data(1008, b"new")]);
}

#[test]
fn probes_and_keep_alives_leave() {
    let mut bench = connected();
    bench.primary(&data(1001, b"abc"));
    bench.secondary(&data(1001, b"abc"));
    for frame in [ack(1003, 500), data(1003, b"?"), ack(1004, 500)] {
        assert_eq!(bench.primary(&frame), [frame]);
    }
    bench.consumed();
    bench.secondary(&data(1003, b"!"));
    assert_eq!(bench.consumed(), [2], "what has left is not compared again");
    assert_eq!(bench.reason(), None);
}

#[test]
fn ends_must_agree() {
    let mut bench = connected();
    let fin = tcp().seq(1001).ack(500).payload(b"bye").fin().frame();
    assert!(bench.primary(&fin).is_empty());
    assert!(bench.secondary(&data(1001, b"bye")).is_empty());
    assert_eq!(bench.secondary(&tcp().seq(1004).ack(500).fin().frame()), std::slice::from_ref(&fin));
    assert_eq!(bench.consumed(), [1, 2]);
    assert_eq!(bench.primary(&fin), [fin], "repeated");

    let mut longer = connected();
    longer.primary(&tcp().seq(1001).ack(500).fin().frame());
    longer.secondary(&data(1001, b"more"));
    assert_eq!(longer.reason(), Some(Reason::FlagsDiffer));

    let mut later = connected();
    later.primary(&tcp().seq(1001).ack(500).fin().frame());
    later.secondary(&tcp().seq(1005).ack(500).fin().frame());
    assert_eq!(later.reason(), Some(Reason::FlagsDiffer));

    let mut shorter = connected();
    shorter.primary(&data(1001, b"more"));
    shorter.secondary(&tcp().seq(1001).ack(500).fin().frame());
    assert_eq!(shorter.reason(), Some(Reason::FlagsDiffer));
}

#[test]
fn a_reset_needs_the_others() {
    let mut bench = connected();
    let reset = tcp().rst().seq(1001).frame();
    assert!(bench.primary(&reset).is_empty());
    assert_eq!(bench.secondary(&reset), std::slice::from_ref(&reset));
    assert_eq!(bench.consumed(), [1]);
    assert_eq!(bench.primary(&reset), std::slice::from_ref(&reset), "the same, said again");
    let other = tcp().rst().seq(2000).frame();
    assert!(bench.primary(&other).is_empty());
    bench.pass(Duration::from_millis(200));
    assert!(matches!(bench.reason(), Some(Reason::Unmatched { .. })));

    let mut only_secondary = connected();
    only_secondary.secondary(&reset);
    only_secondary.pass(Duration::from_millis(200));
    let reason = only_secondary.reason();
    assert_eq!(reason, Some(Reason::OnlySecondary { waited: Duration::from_millis(200) }));
}

#[test]
fn a_closed_port_refuses_each_attempt_on_both() {
    let mut bench = Bench::new();
    for attempt in [700, 100, 40_000] {
        let refusal = tcp().rst().seq(0).ack(attempt).frame();
        assert!(bench.primary(&refusal).is_empty(), "attempt {attempt}");
        assert_eq!(bench.secondary(&refusal), std::slice::from_ref(&refusal), "attempt {attempt}");
    }
    assert_eq!((bench.reason(), bench.consumed()), (None, vec![0, 1, 2]));
}

#[test]
fn handshakes_must_offer_the_same() {
    let syn = |isn| tcp().syn().seq(isn).ack(500);
    let clock = |value| [&[1, 1, 8, 10][..], &u32::to_be_bytes(value), &[0; 4]].concat();
    for (ours, theirs, agree) in [
        (syn(1).options(&MSS), syn(2).options(&MSS), true),
        (syn(1).options(&clock(5)), syn(2).options(&clock(6)), true),
        (syn(1).options(&MSS), syn(2).options(&[2, 4, 5, 0]), false),
        (syn(1).options(&MSS), syn(2), false),
        (syn(1), syn(2).ack(501), false),
        (tcp().syn().seq(1), syn(2), false),
    ] {
        let mut bench = Bench::new();
        bench.primary(&ours.clone().frame());
        let left = bench.secondary(&theirs.frame());
        assert_eq!(left, if agree { vec![ours.frame()] } else { vec![] });
        assert_eq!(bench.reason(), (!agree).then_some(Reason::HandshakeDiffers));
    }
}

/// The same ports again, the machines in turn ahead; the stream's new bytes lie where old ones had left.
#[test]
fn ports_used_again_begin_a_new_stream() {
    let mut bench = connected();
    bench.primary(&data(1001, b"old bytes"));
    bench.secondary(&data(1001, b"old bytes"));
    let syn = |isn| tcp().syn().seq(isn).ack(800).frame();
    let new = |payload: &[u8]| tcp().seq(1001).ack(800).payload(payload).frame();

    assert!(bench.primary(&syn(1000 - 1)).is_empty());
    assert!(bench.primary(&tcp().seq(1000).ack(800).payload(b"?new bytes").frame()).is_empty());
    assert!(bench.secondary(&data(1001, b"old ")).is_empty(), "lags behind, in the old connection");
    assert_eq!(bench.secondary(&syn(77)), [syn(999)]);
    assert_eq!(bench.secondary(&tcp().seq(1000).ack(800).payload(b"?new bytes").frame()).len(), 1);
    assert_eq!(bench.consumed(), [0, 1, 2, 3, 4][1..]);

    assert!(bench.secondary(&syn(78)).is_empty());
    assert!(bench.secondary(&new(b"third")).is_empty());
    assert!(
        bench.primary(&tcp().seq(1010).ack(800).fin().frame()).is_empty(),
        "the second's end, which only the primary sends"
    );
    assert!(bench.primary(&syn(1000)).is_empty());
    assert_eq!(bench.reason(), None);
    bench.pass(Duration::from_millis(200));
    assert!(bench.reason().is_some());
    assert_eq!(bench.checkpoint().len(), 2);
    assert!(bench.primary(&new(b"third")).is_empty(), "what left in the first connection was another's");
    assert_eq!(bench.secondary(&new(b"third")), [new(b"third")]);
}

#[test]
fn a_syn_repeated_by_either_is_the_same_connection() {
    let mut bench = Bench::new();
    let syn = |isn| tcp().syn().seq(isn).ack(500).frame();
    bench.primary(&syn(1000));
    bench.primary(&syn(1000));
    bench.secondary(&syn(9000));
    assert_eq!(bench.secondary(&syn(9000)), NOTHING);
    assert_eq!(bench.secondary(&syn(1000)), NOTHING, "already rewritten");
    assert_eq!(bench.consumed(), [0, 1, 2]);
    bench.primary(&data(1001, b"x"));
    assert_eq!(bench.secondary(&data(1001, b"x")), [data(1001, b"x")]);
    assert_eq!(bench.checkpoint(), NOTHING);
    assert_eq!(bench.secondary(&syn(1000)), NOTHING);
    assert_eq!((bench.consumed(), bench.reason()), (vec![0], None));
}

/// Where a connection older than protection begins is not known: a hole in what has left is not taken for left.
#[test]
fn an_older_connection_has_no_known_beginning() {
    let mut bench = Bench::new();
    bench.primary(&data(2000, b"late"));
    assert_eq!(bench.secondary(&data(2000, b"late")), [data(2000, b"late")]);
    let earlier = data(1996, b"1015");
    assert!(bench.primary(&earlier).is_empty());
    bench.secondary(&data(1996, b"1016"));
    assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: 1999 }));
    assert_eq!(bench.checkpoint(), std::slice::from_ref(&earlier));
    assert_eq!(bench.primary(&earlier), [earlier]);
}

#[test]
fn a_number_out_of_every_window_is_refused() {
    let mut bench = connected();
    bench.primary(&data(1001, b"x"));
    bench.secondary(&data(1001, b"x"));
    bench.secondary(&data(0x5000_0000, b"x"));
    assert_eq!(bench.reason(), Some(Reason::OutOfWindow));
}

#[test]
fn urgent_data_leave_when_the_secondary_marked_them() {
    let mut bench = connected();
    let urgent = tcp().seq(1001).ack(500).payload(b"abc").urgent(2).frame();
    bench.primary(&urgent);
    assert!(bench.secondary(&data(1001, b"abc")).is_empty());
    assert_eq!(bench.secondary(&urgent), [urgent]);
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
fn a_stream_may_come_in_fragments() {
    let mut bench = connected();
    let ours = fragments(&data(1001, &[b'x'; 60]), 24, 1);
    for frame in &ours {
        bench.primary(frame);
    }
    bench.secondary(&data(1001, &[b'x'; 20]));
    assert_eq!(bench.secondary(&data(1021, &[b'x'; 40])), ours);
    assert_eq!((bench.consumed(), bench.reason()), (vec![1, 2], None));
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

/// The edge of what the client may send is that of the machine that has less room.
#[test]
fn no_window_leaves_that_only_one_has_open() {
    let mut bench = connected();
    let said = |ack: u32, window: u16| tcp().seq(1001).ack(ack).window(window).frame();
    bench.secondary(&said(600, 1000));
    assert_eq!(bench.primary(&said(600, 5000)), [said(600, 1000)]);
    assert_eq!(bench.primary(&said(500, 5000)), [said(500, 1100)]);
    assert_eq!(bench.primary(&said(600, 900)), [said(600, 900)]);
    assert_eq!(bench.comparator.counters().clamped_windows, 2);
    // The checksum of what has a card to complete it is the card's affair.
    let offload = Offload { flags: 1, checksum_start: 34, checksum_offset: 16, ..Offload::default() };
    let left = bench.primary(&said(600, 5000).with_offload(offload));
    assert_eq!(left[0][..50], said(600, 1000)[..50]);
    assert_eq!((&left[0][50..52], left[0].offload), (&said(600, 5000)[50..52], offload));
}

#[test]
fn windows_are_shifted_as_the_handshake_says() {
    let mut bench = Bench::new();
    let syn_ack = |isn, window| tcp().syn().seq(isn).ack(500).window(window).options(&[3, 3, 7, 0]).frame();
    bench.primary(&syn_ack(1000, 64_000));
    assert_eq!(bench.secondary(&syn_ack(9000, 60_000)), [syn_ack(1000, 60_000)], "that of a SYN is not shifted");
    let said = |ack: u32, window: u16| tcp().seq(1001).ack(ack).window(window).frame();
    assert_eq!(bench.primary(&said(500, 500)), [said(500, 60_000 >> 7)]);
    bench.secondary(&said(500 + 1280, 400));
    assert_eq!(bench.primary(&said(500, 500)), [said(500, 410)]);
}

/// A client that was told of a closed window hears of its opening, even if the primary never knew that it was closed.
#[test]
fn a_closed_window_opens_again() {
    let mut bench = connected();
    let said = |ack: u32, window: u16| tcp().seq(1001).ack(ack).window(window).frame();
    bench.secondary(&said(600, 0));
    assert_eq!(bench.primary(&said(600, 5000)), [said(600, 0)]);
    assert_eq!(bench.secondary(&said(600, 700)), [said(600, 700)]);
    assert_eq!(bench.secondary(&said(600, 900)), NOTHING, "not for every byte");
    assert_eq!(bench.secondary(&said(600, 1400)), [said(600, 1400)]);
    assert_eq!(bench.secondary(&said(600, 5001)), [said(600, 5000)]);
    assert_eq!(bench.secondary(&said(600, 9000)), NOTHING);
    bench.secondary(&said(600, 0));
    assert_eq!(bench.primary(&said(600, 5000)), [said(600, 0)]);
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.reason(), Some(Reason::WindowClosed { waited: Duration::from_millis(200) }));
    assert_eq!(bench.capture(), NOTHING);
    assert_eq!(bench.released(), NOTHING);
    bench.comparator.secondary_running(bench.now);
    assert_eq!(bench.released(), [said(600, 5000)], "the secondary has what the primary has");
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.reason(), None);
}

#[test]
fn rules_hold_for_their_flows() {
    let rules = "bypass udp from :1\nignore udp from :2\nmask udp from :3 bytes 4..6\nignore tcp to :4000\nmask tcp to :4001 after \"Date: \" until \"\\n\"";
    let config = CompareConfig { rules: rules.parse().unwrap(), ..CompareConfig::default() };
    let mut bench = Bench::with(config.clone());
    bench.comparator.begin_epoch(Epoch(2));
    assert_eq!(bench.primary(&udp(1, 9, b"at once")), [udp(1, 9, b"at once")], "even while nothing else leaves");
    bench.comparator.secondary_running(bench.now);
    bench.secondary(&udp(1, 9, b"no matter"));
    assert_eq!(bench.consumed(), [0]);
    assert_eq!(bench.primary(&udp(2, 9, b"10:15")), NOTHING);
    assert_eq!(bench.secondary(&udp(2, 9, b"different")), [udp(2, 9, b"10:15")]);
    bench.primary(&udp(3, 9, b"now:15."));
    assert_eq!(bench.secondary(&udp(3, 9, b"now:16.")), [udp(3, 9, b"now:15.")]);
    assert_eq!((bench.consumed(), bench.reason()), (vec![1, 2], None));
    bench.primary(&udp(3, 9, b"now:15."));
    bench.secondary(&udp(3, 9, b"now:15!"));
    assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: 48 }));

    let mut bench = Bench::with(config.clone());
    bench.primary(&data(1001, b"10:15, 10:16"));
    assert_eq!(bench.secondary(&data(1001, b"10:17, ")), NOTHING);
    assert_eq!(bench.secondary(&data(1004, b"contradicts")), [data(1001, b"10:15, 10:16")]);
    assert_eq!((bench.consumed(), bench.reason()), (vec![0], None), "the other goes on behind what has left");

    let mut bench = Bench::with(config);
    let http = |clock: &str, body: &str| format!("HTTP/1.1 200 OK\r\nDate: {clock}\r\n\r\n{body}");
    let to = |seq: u32, text: &str| Tcp::new(80, 4001).seq(seq).ack(500).payload(text.as_bytes()).frame();
    let (ours, theirs) = (http("10:15", "hello"), http("11:26", "hello"));
    bench.primary(&to(1001, &ours));
    bench.secondary(&to(1001, &theirs[..19]));
    assert_eq!(bench.secondary(&to(1020, &theirs[19..])), [to(1001, &ours)]);
    let next = 1001 + ours.len() as u32;
    bench.primary(&to(next, &http("10:16", "hello")));
    bench.secondary(&to(next, &http("10:17", "jello")));
    let first_of_body = next + ours.len() as u32 - 5;
    assert_eq!(bench.reason(), Some(Reason::PayloadDiffers { offset: first_of_body.into() }));
}

/// How much each machine had said when its client went away is a matter of time.
#[test]
fn what_a_client_has_reset_is_not_waited_for() {
    let reset = Tcp::new(4000, 80).inbound().rst().seq(500).frame();
    for (ours, theirs) in [("abcdef", "abc"), ("abc", "abcdef")] {
        let mut bench = connected();
        bench.primary(&data(1001, ours.as_bytes()));
        bench.secondary(&data(1001, theirs.as_bytes()));
        bench.comparator.handle_input(1, &reset);
        bench.comparator.handle_input(0, &Tcp::new(4000, 80).inbound().seq(500).ack(1001).frame());
        bench.comparator.handle_input(0, &reset);
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.reason(), None);
        // What was under way.
        bench.primary(&data(1007, b"more"));
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.reason(), None);
        assert_eq!(bench.checkpoint().last(), Some(&data(1007, b"more")));
        // The reset was not the client's: they go on.
        bench.primary(&data(1011, b"yet more"));
        bench.pass(Duration::from_secs(1));
        assert!(matches!(bench.reason(), Some(Reason::Unmatched { .. })));
    }
    // All that a connection had held is handed back at the next checkpoint.
    let mut bench = connected();
    bench.primary(&data(1001, b"abc"));
    bench.comparator.handle_input(0, &reset);
    bench.pass(Duration::from_secs(1));
    bench.pass(Duration::from_secs(1));
    assert_eq!((bench.checkpoint(), bench.reason()), (vec![data(1001, b"abc")], None));
    assert_eq!(bench.comparator.counters().held_bytes, 0);
}

/// What differed is handed out with the reason, on request.
#[test]
fn a_divergence_has_its_evidence() {
    let config = CompareConfig { keep_evidence: true, ..CompareConfig::default() };
    let evidence = |bench: &mut Bench| {
        let evidence = bench.comparator.poll_divergence().unwrap().evidence.unwrap();
        (evidence.primary, evidence.secondary)
    };
    let mut bench = Bench::with(config.clone());
    bench.primary(&udp(1, 2, b"10:15"));
    bench.secondary(&udp(1, 2, b"10:16"));
    assert_eq!(evidence(&mut bench), (vec![udp(1, 2, b"10:15")], vec![udp(1, 2, b"10:16")]));
    bench.checkpoint();
    bench.primary(&data(1001, b"same"));
    bench.primary(&data(1005, b"10:15"));
    bench.secondary(&data(1001, b"same"));
    bench.secondary(&data(1005, b"10:"));
    bench.secondary(&data(1008, b"16"));
    assert_eq!(evidence(&mut bench), (vec![data(1005, b"10:15")], vec![data(1005, b"10:"), data(1008, b"16")]));
    bench.checkpoint();
    bench.secondary(&udp(1, 2, b"alone"));
    bench.pass(Duration::from_millis(200));
    assert_eq!(evidence(&mut bench), (vec![], vec![udp(1, 2, b"alone")]));
    bench.checkpoint();
    bench.secondary(&data(0x5000_0000, b"far"));
    assert_eq!(evidence(&mut bench), (vec![], vec![data(0x5000_0000, b"far")]));
}

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
fn cards_are_separate() {
    let mut bench = Bench::new();
    bench.comparator.handle_primary(0, udp(1, 2, b"x"), bench.now);
    bench.comparator.handle_secondary(1, 0, udp(1, 2, b"x"), bench.now);
    assert_eq!(bench.comparator.poll_release(), None);
    bench.comparator.handle_primary(1, udp(1, 2, b"x"), bench.now);
    assert_eq!(bench.comparator.poll_release().unwrap().nic, 1);
}

#[test]
fn waiting_is_limited_and_counted_from_the_secondarys_run() {
    let mut bench = Bench::new();
    bench.capture();
    bench.primary(&udp(1, 2, b"x"));
    bench.pass(Duration::from_secs(1));
    bench.comparator.secondary_running(bench.now);
    assert_eq!(bench.comparator.poll_timeout(), Some(bench.now + Duration::from_millis(200)));
    bench.pass(Duration::from_millis(199));
    assert_eq!(bench.reason(), None);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.reason(), Some(Reason::Unmatched { waited: Duration::from_millis(1200) }));
    assert_eq!(bench.comparator.poll_timeout(), None);
    assert_eq!(bench.checkpoint(), [udp(1, 2, b"x")]);
    assert_eq!(bench.comparator.poll_timeout(), None);
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

/// The secondary may be waiting for the client to acknowledge the part: its window, or Nagle's rule, lets it say no more.
#[test]
fn the_part_that_both_have_said_does_not_wait_for_the_rest() {
    let mut bench = connected();
    bench.primary(&data(1001, b"abcdefgh"));
    bench.secondary(&data(1001, b"abc"));
    let due = bench.comparator.poll_timeout().unwrap();
    assert!(due < bench.now + CompareConfig::default().timeout);
    bench.pass(due - bench.now);
    assert_eq!(bench.released(), [data(1001, b"abc")]);
    assert_eq!(bench.consumed(), [1]);
    bench.secondary(&data(1004, b"de"));
    bench.pass(CompareConfig::default().timeout / 2);
    assert_eq!(bench.released(), [data(1004, b"de")]);
    assert_eq!(bench.secondary(&data(1006, b"fgh")), [data(1006, b"fgh")]);
    assert_eq!(bench.consumed(), [2, 3]);
    // What is said again is whole.
    assert_eq!(bench.primary(&data(1001, b"abcdefgh")), [data(1001, b"abcdefgh")]);
    bench.pass(CompareConfig::default().timeout);
    assert_eq!(bench.reason(), None);
}

#[test]
fn no_part_leaves_that_says_more_than_the_secondary_has() {
    let mut bench = connected();
    bench.primary(&tcp().seq(1001).ack(501).payload(b"abcd").fin().frame());
    bench.secondary(&data(1001, b"ab"));
    bench.pass(CompareConfig::default().timeout / 2);
    assert_eq!(bench.released(), NOTHING, "the acknowledgement is the primary's alone");
    bench.secondary(&ack(1003, 501));
    bench.pass(CompareConfig::default().timeout / 4);
    let part = |seq, payload| tcp().seq(seq).ack(501).payload(payload).frame();
    assert_eq!(bench.released(), [part(1001, b"ab")]);
    bench.secondary(&data(1003, b"cd"));
    bench.pass(CompareConfig::default().timeout / 8);
    assert_eq!(bench.released(), [part(1003, b"cd")], "without the end of the stream");
    assert_eq!(bench.secondary(&tcp().seq(1005).ack(500).fin().frame()), [tcp().seq(1005).ack(501).fin().frame()]);
    assert_eq!(bench.reason(), None);
}

/// The client has lost a segment, and the secondary will say no more before it is there.
#[test]
fn what_has_left_is_said_again_before_what_waits() {
    let mut bench = connected();
    bench.primary(&data(1001, b"lost"));
    assert_eq!(bench.secondary(&data(1001, b"lost")), [data(1001, b"lost")]);
    assert_eq!(bench.primary(&data(1005, b"waits")), NOTHING);
    assert_eq!(bench.primary(&data(1001, b"lost")), [data(1001, b"lost")]);
    assert_eq!(bench.primary(&data(1001, b"lostwaits")), [data(1001, b"lost")], "as far as it has left");
    assert_eq!(bench.primary(&tcp().seq(1001).ack(501).payload(b"lost").frame()), NOTHING);
    let rest = [data(1005, b"waits"), data(1005, b"waits")];
    assert_eq!(bench.secondary(&data(1005, b"waits")), rest);
    assert_eq!(bench.secondary(&ack(1010, 501)), [tcp().seq(1001).ack(501).payload(b"lost").frame()]);
    assert_eq!(bench.reason(), None);
}
