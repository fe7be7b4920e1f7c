//! Differences, and what the toolstack does about them.

use crate::frames::nothing_else_has_left;
use crate::rig::Rig;
use colo_core::net::Frame;
use colo_core::net::qemu::NotifyMessage;
use colo_core::net::testing::{Tcp, udp};
use std::time::Duration;

fn segment(number: u32, text: &[u8]) -> Frame {
    Tcp::new(80, 4000).seq(1000 + 10 * number).ack(1).payload(text).frame()
}

#[test]
fn a_difference_waits_for_a_checkpoint_and_all_leaves_in_order() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    // Of three flows; the first differs.
    let held = [
        segment(0, b"0123456789"),
        udp(53, 1, b"first"),
        segment(1, b"0123456789"),
        udp(53, 2, b"second"),
        udp(53, 1, b"third"),
    ];
    primary.send(&held);
    secondary.send(&[segment(0, b"01234xxxxx")]);
    assert_eq!(toolstack.hear(), NotifyMessage::DoCheckpoint);
    // In another flow the machines agree: that goes on.
    nothing_else_has_left(&mut primary, &mut secondary, &mut out, 1);
    toolstack.say(&NotifyMessage::Checkpoint);
    out.expect(&held);

    // Both go on from where the primary is.
    let next = [segment(2, b"0123456789"), udp(53, 1, b"fourth")];
    primary.send(&next);
    secondary.send(&next);
    out.expect(&next);
    // It was asked for once.
    toolstack.say(&NotifyMessage::ProxyInit);
    assert_eq!(toolstack.hear(), NotifyMessage::XenInit);
    let totals = rig.totals();
    assert_eq!((totals.divergences, totals.checkpoints, totals.counters.handed_back_frames), (1, 1, 5), "{totals}");
}

#[test]
fn what_the_secondary_said_before_a_checkpoint_says_nothing_after_it() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    let (old, new) = ([udp(53, 1, b"same"), udp(53, 2, b"same")], [udp(53, 2, b"same"), udp(53, 1, b"same")]);
    secondary.send(&old);
    rig.wait_for(|totals| totals.counters.secondary_frames == 2);
    toolstack.say(&NotifyMessage::Checkpoint);
    rig.wait_for(|totals| totals.checkpoints == 1);
    primary.send(&old);
    nothing_else_has_left(&mut primary, &mut secondary, &mut out, 1);
    secondary.send(&new);
    out.expect(&new);
}

/// Also what lies unread, because too much of it is held.
#[test]
fn nor_what_was_not_even_read() {
    let rig = Rig::start(|config| config.compare.max_flow_bytes = 64 << 10);
    let (mut primary, mut secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    let many: Vec<Frame> =
        (0..100u16).map(|number| udp(53, 2, &[&number.to_be_bytes()[..], &[7; 1000]].concat())).collect();
    let last = [udp(53, 1, b"same")];
    secondary.send(&many);
    secondary.send(&last);
    rig.wait_for(|totals| totals.counters.secondary_frames > 50);
    toolstack.say(&NotifyMessage::Checkpoint);
    let totals = rig.wait_for(|totals| totals.stale_frames + totals.counters.secondary_frames == 101);
    assert!(totals.counters.secondary_frames < 60, "{totals}");
    primary.send(&last);
    nothing_else_has_left(&mut primary, &mut secondary, &mut out, 1);
    secondary.send(&last);
    out.expect(&last);
}

#[test]
fn whoever_comes_later_is_asked_once_it_has_spoken() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let frame = [udp(53, 1, b"one")];
    primary.send(&frame);
    secondary.send(&[udp(53, 1, b"another")]);
    rig.wait_for(|totals| totals.divergences == 1);
    let mut toolstack = rig.toolstack();
    assert_eq!(toolstack.hear(), NotifyMessage::DoCheckpoint);
    // It goes away without having taken one: the next one is asked again.
    drop(toolstack);
    let mut toolstack = rig.toolstack();
    toolstack.take_checkpoint();
    out.expect(&frame);
    drop(toolstack);
    let mut toolstack = rig.toolstack();
    toolstack.say(&NotifyMessage::ProxyInit);
    assert_eq!(toolstack.hear(), NotifyMessage::XenInit, "nothing is asked for any more");
}

#[test]
fn a_checkpoint_that_nobody_asked_for_counts() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    let frames = [udp(53, 1, b"one"), udp(53, 1, b"two")];
    primary.send(&frames);
    rig.wait_for(|totals| totals.held_frames() == 2);
    toolstack.say(&NotifyMessage::Checkpoint);
    out.expect(&frames);
    nothing_else_has_left(&mut primary, &mut secondary, &mut out, 1);
    assert_eq!(rig.totals().divergences, 0);
}

#[test]
fn silence_is_a_difference() {
    let rig = Rig::start(|config| config.compare.timeout = Duration::from_millis(20));
    let (mut primary, mut secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    let frame = [udp(53, 1, b"one")];
    primary.send(&frame);
    toolstack.take_checkpoint();
    out.expect(&frame);
    secondary.send(&frame);
    toolstack.take_checkpoint();
}

#[test]
fn without_anybody_who_takes_checkpoints_all_leaves_at_a_difference() {
    let rig = Rig::start(|config| config.notify = None);
    let (mut primary, mut secondary, mut out) = rig.machines();
    let held = [segment(0, b"0123456789"), udp(53, 1, b"first"), segment(1, b"0123456789")];
    primary.send(&held);
    rig.wait_for(|totals| totals.held_frames() == 3);
    secondary.send(&[segment(0, b"01234xxxxx")]);
    out.expect(&held);
    nothing_else_has_left(&mut primary, &mut secondary, &mut out, 1);
    let totals = rig.totals();
    assert_eq!((totals.divergences, totals.checkpoints), (1, 0), "{totals}");
}
