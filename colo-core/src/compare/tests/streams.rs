//! TCP's streams: what is the same, and what is not.

use super::*;
use crate::net::testing::{CARRIERS, carried, fragments};

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

/// Each segment that was under way to a closed socket is answered with the same.
#[test]
fn a_reset_that_the_secondary_repeats_first_is_done_with() {
    let mut bench = connected();
    let reset = tcp().rst().seq(1001).frame();
    let other = tcp().rst().seq(2000).frame();
    for said in [&reset, &reset, &reset, &other, &reset] {
        assert_eq!(bench.secondary(said), NOTHING);
    }
    for _ in 0..3 {
        assert_eq!(bench.primary(&reset), std::slice::from_ref(&reset));
        assert_eq!(bench.reason(), None);
    }
    assert_eq!(bench.consumed(), [1, 2, 3]);
    assert_eq!(bench.primary(&other), std::slice::from_ref(&other));
    assert_eq!(bench.primary(&reset), std::slice::from_ref(&reset));
    assert_eq!(bench.consumed(), [4, 5]);
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.reason(), None);
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
