//! TCP goes on: windows, parts, repetitions, and clients that go away.

use super::*;
use crate::net::Offload;

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

/// A client whose connection is over, or that has heard the primary's own window with a checkpoint, waits for nothing.
#[test]
fn a_closed_window_is_not_waited_for_when_the_primary_has_spoken_since() {
    let said = |window: u16| tcp().seq(1001).ack(600).window(window);
    let closed = || {
        let mut bench = connected();
        bench.secondary(&said(0).frame());
        assert_eq!(bench.primary(&said(5000).frame()), [said(0).frame()]);
        bench
    };
    // The same with an acknowledgement and without one.
    let resets = [said(0).rst().frame(), tcp().rst().seq(1001).frame()];
    for frame in resets.iter().chain(&[said(0).payload(b"x").frame()]) {
        let mut bench = closed();
        assert_eq!(bench.primary(frame), NOTHING);
        assert_eq!(bench.checkpoint(), std::slice::from_ref(frame));
        bench.pass(Duration::from_secs(1));
        assert_eq!((bench.reason(), bench.comparator.poll_timeout()), (None, None));
    }
    for reset in &resets {
        let mut bench = closed();
        bench.secondary(reset);
        assert_eq!(bench.primary(reset), std::slice::from_ref(reset));
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.reason(), None);
    }
    // A reset's own window is none.
    let mut bench = connected();
    bench.secondary(&said(0).frame());
    bench.secondary(&said(0).rst().frame());
    bench.primary(&said(5000).rst().frame());
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.reason(), None);
}

/// What overtakes others has been said after them, though the client hears it first.
#[test]
fn a_window_that_was_said_later_opens_after_a_checkpoint() {
    let mut bench = connected();
    let said = |window: u16, payload: &[u8]| tcp().seq(1001).ack(600).window(window).payload(payload).frame();
    bench.secondary(&said(0, b"lost"));
    bench.primary(&said(0, b"lost"));
    let waits = tcp().seq(1005).ack(600).window(0).payload(b"waits").frame();
    assert_eq!(bench.primary(&waits), NOTHING);
    assert_eq!(bench.primary(&said(5000, b"lost")), [said(0, b"lost")]);
    assert_eq!(bench.capture(), [waits]);
    bench.comparator.secondary_running(bench.now);
    assert_eq!(bench.released(), [said(5000, b"lost")]);
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

/// A client that comes anew from the same port does not wait for what it has reset.
#[test]
fn a_connection_after_a_reset_one_is_waited_for() {
    let mut bench = connected();
    bench.primary(&data(1001, b"abcdef"));
    bench.secondary(&data(1001, b"abc"));
    bench.comparator.handle_input(0, &Tcp::new(4000, 80).inbound().rst().seq(500).frame());
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.reason(), None);
    let syn_ack = |seq| tcp().syn().seq(seq).ack(800).options(&MSS).frame();
    bench.primary(&syn_ack(20_000));
    bench.secondary(&syn_ack(30_000));
    bench.pass(CompareConfig::default().timeout);
    assert!(matches!(bench.reason(), Some(Reason::Unmatched { .. })));
    assert_eq!(bench.checkpoint().last(), Some(&syn_ack(20_000)));
    let hello = tcp().seq(20_001).ack(800).payload(b"hello").frame();
    bench.primary(&hello);
    assert_eq!(bench.secondary(&hello), [hello]);
    assert_eq!(bench.reason(), None);
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
