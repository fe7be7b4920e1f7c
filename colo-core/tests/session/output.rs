//! What clients see while the machine is protected: nothing that could be taken back.

use crate::rig::{Setup, answer, barrier};
use colo_core::net::Frame;
use colo_core::net::testing::Tcp;
use colo_core::peer::Mode;
use colo_core::save::Trigger;
use colo_core::session::Event;
use std::time::Duration;

fn question(text: &str) -> Frame {
    Tcp::new(4000, 80).inbound().seq(1).ack(1).payload(text.as_bytes()).frame()
}

fn is_checkpoint(event: &Event, trigger: Trigger) -> bool {
    matches!(event, Event::Checkpoint { stats, .. } if stats.trigger == trigger)
}

#[test]
fn in_lock_step_an_answer_leaves_when_both_have_given_it() {
    let mut rig = Setup::colo().protect();
    rig.pvm.say(&answer("first of the primary"));
    assert!(rig.client.is_silent(), "the secondary has not said it");
    rig.svm.say(&answer("first of the primary"));
    assert_eq!(rig.client.next(), answer("first of the primary"));

    rig.svm.say(&answer("first of the secondary"));
    assert!(rig.client.is_silent(), "the primary has not said it");
    rig.pvm.say(&answer("first of the secondary"));
    assert_eq!(rig.client.next(), answer("first of the secondary"));
    rig.stop();
}

#[test]
fn different_answers_cost_a_checkpoint_and_the_primary_is_right() {
    let mut rig = Setup::colo().protect();
    rig.svm.say(&answer("10:16"));
    rig.pvm.say(&answer("10:15"));
    let what = rig.primary_events.get(|event| match event {
        Event::Miscompare(what) => Some(what.clone()),
        _ => None,
    });
    assert_eq!(what, "UDP 10.0.0.1:53 > 10.0.0.2:4000 (nic 0): payload differs at 46");
    rig.primary_events.find(|event| is_checkpoint(event, Trigger::Miscompare));
    assert_eq!(rig.client.next(), answer("10:15"));
    rig.secondary_events.applied();
    assert!(rig.client.is_silent());
    // And on they go together.
    rig.pvm.say(&answer("both"));
    rig.svm.say(&answer("both"));
    assert_eq!(rig.client.next(), answer("both"));
    rig.stop();
}

#[test]
fn an_answer_of_one_machine_alone_costs_a_checkpoint() {
    let mut setup = Setup::colo();
    setup.primary.compare.timeout = Duration::from_millis(1);
    let mut rig = setup.protect();
    rig.pvm.say(&answer("of the primary alone"));
    rig.primary_events.find(|event| is_checkpoint(event, Trigger::Unmatched));
    assert_eq!(rig.client.next(), answer("of the primary alone"));
    rig.secondary_events.applied();
    rig.svm.say(&answer("of the secondary alone"));
    rig.primary_events.find(|event| is_checkpoint(event, Trigger::Unmatched));
    rig.secondary_events.applied();
    assert!(rig.client.is_silent());
    rig.stop();
}

#[test]
fn under_remus_output_leaves_with_the_acknowledgement() {
    let (wait, staging) = barrier();
    // The first page of the second checkpoint: the copy before it had one.
    let mut rig = Setup::remus().secondary_fault("get_page", 2, wait).protect();
    rig.pvm.say(&answer("held"));
    assert!(rig.client.is_silent(), "no checkpoint was taken");
    rig.pvm.store(9000, b"and dirty");
    rig.primary.controller().checkpoint();
    staging.reached();
    rig.primary_events.find(|event| is_checkpoint(event, Trigger::Requested));
    rig.pvm.say(&answer("of the next epoch"));
    assert!(rig.client.is_silent(), "the checkpoint is not acknowledged");
    staging.go_on();
    assert_eq!(rig.client.next(), answer("held"));
    rig.secondary_events.applied();
    assert!(rig.client.is_silent(), "this waits for its own checkpoint");
    rig.checkpoint();
    assert_eq!(rig.client.next(), answer("of the next epoch"));
    rig.stop();
}

#[test]
fn before_the_first_checkpoint_everything_leaves() {
    let (wait, copying) = barrier();
    let mut rig = Setup::remus().primary_fault("wait_checkpoint", 1, wait).start();
    copying.reached();
    rig.pvm.say(&answer("unprotected"));
    assert_eq!(rig.client.next(), answer("unprotected"));
    copying.go_on();
    rig.stop();
}

#[test]
fn clients_questions_reach_both_machines_in_lock_step() {
    let mut rig = Setup::colo().protect();
    rig.client.send(&question("who is there?"));
    assert_eq!(rig.pvm.nic.next(), question("who is there?"));
    assert_eq!(rig.svm.nic.next(), question("who is there?"));
    rig.stop();
}

#[test]
fn under_remus_only_the_primary_is_asked() {
    let mut rig = Setup::new(Mode::Remus).protect();
    rig.client.send(&question("who is there?"));
    assert_eq!(rig.pvm.nic.next(), question("who is there?"));
    // Whatever was mirrored would have been on its way before the checkpoint.
    rig.checkpoint();
    assert!(rig.svm.nic.is_silent());
    rig.stop();
}
