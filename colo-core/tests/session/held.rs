//! Silence is no proof of death: a secondary that has nothing else to go by holds its machine until it is told who serves.

use crate::relay::Relay;
use crate::rig::{Rig, Setup, answer, start_primary, unprotected};
use colo_core::domain::RunState;
use colo_core::ids::Epoch;
use colo_core::peer::Mode;
use colo_core::session::{Event, Outcome};
use std::time::Duration;

/// Both sides, protected, with a link that was cut just now.
fn with_a_cut_link(mut setup: Setup) -> Rig {
    // Short enough to wait for five of them, long enough for a busy machine.
    setup.primary.heartbeat = Duration::from_millis(400);
    let mut relay = None;
    let rig = setup.start_by_way_of(|address| relay.insert(Relay::to(address)).address()).protected();
    relay.unwrap().cut();
    rig
}

/// Waits until the machine is held.
fn held(rig: &mut Rig) {
    assert_eq!(rig.secondary_events.peer_lost(), "no heartbeat");
    let (domain, epoch) = rig.secondary_events.get(|event| match event {
        Event::Held { domain, epoch, .. } => Some((domain.clone(), *epoch)),
        _ => None,
    });
    assert_eq!((domain.as_str(), epoch), ("web", Epoch(1)));
    assert_eq!(rig.svm.run_state(), RunState::Suspended);
    assert!(!rig.host.has_lan());
}

fn took_over(rig: &mut Rig) -> Epoch {
    rig.secondary_events.get(|event| match event {
        Event::TookOver { epoch, .. } => Some(*epoch),
        _ => None,
    })
}

#[test]
fn a_cut_link_leaves_one_server_and_the_operator_decides() {
    for mode in [Mode::Colo, Mode::Remus] {
        let mut rig = with_a_cut_link(Setup::new(mode));
        held(&mut rig);
        // The primary lives, and serves.
        rig.unprotected();
        rig.pvm.say(&answer("alone"));
        assert_eq!(rig.client.next(), answer("alone"));
        assert!(!rig.host.has_lan());
        rig.primary.controller().stop();
        assert_eq!(rig.primary.wait(), Outcome::Stopped);

        rig.secondary.controller().promote();
        rig.secondary_events.find(|event| matches!(event, Event::TookOver { epoch: Epoch(1), .. }));
        assert_eq!(rig.svm.run_state(), RunState::Running);
        let mut lan = rig.host.lan();
        lan.next();
        rig.svm.say(&answer("in its place"));
        assert_eq!(lan.next(), answer("in its place"));
        rig.secondary.controller().stop();
        assert_eq!(rig.secondary.wait(), Outcome::Stopped);
    }
}

#[test]
fn a_machine_is_ready_to_go_on_before_its_primary_is_known_to_be_lost() {
    let mut rig = with_a_cut_link(Setup::remus());
    held(&mut rig);
    assert!(rig.svm.is_ready());
    rig.secondary.controller().stop();
    assert_eq!(rig.secondary.wait(), Outcome::Stopped);
}

#[test]
fn a_machine_that_is_held_ends_when_the_session_is_stopped() {
    let mut rig = with_a_cut_link(Setup::colo());
    held(&mut rig);
    rig.secondary.controller().stop();
    assert_eq!(rig.secondary.wait(), Outcome::Stopped);
    assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
}

#[test]
fn a_machine_that_is_held_ends_when_a_primary_greets() {
    let mut rig = with_a_cut_link(Setup::remus());
    held(&mut rig);
    let address = rig.secondary.local_addr().to_string();
    let (next, _pvm, _client) = start_primary(&address, Setup::remus().primary).map_err(|e| e.error).unwrap();
    assert_eq!(unprotected(&mut rig.secondary_events), "another session has begun");
    assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
    let _svm = rig.host.guest();
    rig.secondary_events.applied();
    next.controller().stop();
    assert_eq!(next.wait(), Outcome::Stopped);
    rig.stop();
}

#[test]
fn who_accepts_the_risk_takes_over_from_silence() {
    let mut setup = Setup::colo();
    setup.secondary.accept_unfenced = true;
    let mut rig = with_a_cut_link(setup);
    assert_eq!(took_over(&mut rig), Epoch(1));
    assert_eq!(rig.svm.run_state(), RunState::Running);
    rig.stop();
}

#[test]
fn who_has_a_fence_takes_over_from_silence() {
    let mut setup = Setup::colo();
    setup.secondary.fence_command = Some("true".into());
    let mut rig = with_a_cut_link(setup);
    assert_eq!(took_over(&mut rig), Epoch(1));
    rig.stop();
}

#[test]
fn an_operator_may_take_the_place_of_a_fence_that_fails() {
    let mut setup = Setup::colo().primary_fault("suspend", 2, || panic!("the primary dies, as the test wants"));
    setup.secondary.fence_command = Some("false".into());
    let mut rig = setup.protect();
    rig.primary.controller().checkpoint();
    rig.secondary_events.find(|event| matches!(event, Event::FenceFailed(_)));
    assert!(!rig.host.has_lan());
    rig.secondary.controller().promote();
    assert_eq!(took_over(&mut rig), Epoch(1));
    rig.stop();
}

#[test]
fn there_is_nothing_to_be_promoted_to_while_the_primary_is_there() {
    let mut rig = Setup::colo().protect();
    rig.secondary.controller().promote();
    rig.checkpoint();
    assert!(!rig.host.has_lan());
    assert_eq!(rig.svm.run_state(), RunState::Running);
    assert_eq!(rig.stop(), (Outcome::Stopped, Outcome::Stopped));
}
