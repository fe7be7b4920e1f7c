//! A machine that outlives its session: it is left to run by itself.

use crate::machine::{End, Stall};
use crate::rig::{Rig, Setup, answer, barrier, deadline};
use colo_core::domain::RunState;
use colo_core::failover::{Fence, FenceError};
use colo_core::net::Frame;
use colo_core::net::announce::gratuitous_arp;
use colo_core::net::testing::{GUEST, GUEST_MAC, Tcp};
use colo_core::peer::Mode;
use colo_core::save::CallbackError;
use colo_core::session::{Event, Outcome, WhenUnprotected};
use std::time::{Duration, Instant};

fn die() -> Result<(), CallbackError> {
    panic!("somebody dies, as the test wants")
}

fn leaving(mode: Mode) -> Setup {
    let mut setup = Setup::new(mode);
    setup.primary.when_unprotected = WhenUnprotected::Leave;
    setup.secondary.when_unprotected = WhenUnprotected::Leave;
    setup
}

fn protect(setup: Setup) -> Rig {
    let rig = setup.protect();
    rig.pvm.outlives_its_session();
    rig.svm.outlives_its_session();
    rig
}

/// The guest runs by itself.
fn is_left(guest: &crate::machine::Guest) -> bool {
    !guest.is_destroyed() && guest.run_state() == RunState::Running && !guest.is_logged()
}

#[test]
fn a_primary_that_loses_its_secondary_leaves_its_machine_and_what_was_held() {
    for mode in [Mode::Colo, Mode::Remus] {
        let mut rig = protect(leaving(mode).secondary_fault("get_page", 2, die));
        rig.pvm.say(&answer("held"));
        assert!(rig.client.is_silent());
        assert!(rig.pvm.is_logged());
        rig.pvm.store(9000, b"dirty");
        rig.primary.controller().checkpoint();
        let Outcome::Unprotected(why) = rig.primary.wait() else { panic!("the machine is left") };
        assert_eq!(why, "the connection broke");
        assert!(is_left(&rig.pvm));
        assert_eq!(rig.client.next(), answer("held"));
        // Its card is free.
        rig.pvm.nic.closed();
    }
}

#[test]
fn a_network_that_is_gone_holds_nobody_up() {
    let mut rig = protect(leaving(Mode::Remus).secondary_fault("get_page", 2, die));
    rig.pvm.say(&answer("held"));
    drop(rig.client);
    rig.pvm.store(9000, b"dirty");
    rig.primary.controller().checkpoint();
    assert!(matches!(rig.primary.wait(), Outcome::Unprotected(_)));
    assert!(is_left(&rig.pvm));
}

#[test]
fn an_operator_who_ends_protection_leaves_the_machine() {
    for stops in [false, true] {
        let mut rig = protect(leaving(Mode::Remus));
        rig.pvm.say(&answer("held"));
        if stops {
            rig.primary.controller().stop();
        } else {
            rig.primary.controller().end_protection();
        }
        assert_eq!(rig.primary.wait(), Outcome::Left);
        assert!(is_left(&rig.pvm));
        assert_eq!(rig.client.next(), answer("held"));
        assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
    }
}

#[test]
fn a_primary_that_fails_does_not_leave_its_machine() {
    let rig = protect(leaving(Mode::Colo).primary_fault("suspend", 2, die));
    rig.primary.controller().checkpoint();
    assert!(matches!(rig.primary.wait(), Outcome::Failed(_)));
    assert!(rig.pvm.is_destroyed(), "the secondary takes over");
}

#[test]
fn a_primary_that_fails_before_anybody_could_take_over_leaves_its_machine() {
    for (mode, checkpoint) in [(Mode::Colo, 1), (Mode::Colo, 2), (Mode::Remus, 3)] {
        let (mut wait, before) = barrier();
        let dies = move || wait().and_then(|()| die());
        let mut rig = leaving(mode).rehearsed().primary_fault("suspend", checkpoint, dies).start();
        rig.pvm.outlives_its_session();
        before.reached();
        before.go_on();
        assert_eq!(rig.primary.wait(), Outcome::Unprotected("the engine has panicked".into()));
        assert!(is_left(&rig.pvm));
        rig.pvm.nic.closed();
        rig.secondary_events.find(|event| matches!(event, Event::Unprotected(_)));
        assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
    }
}

#[test]
fn a_machine_that_protection_has_brought_to_a_stop_goes_on_if_it_can() {
    for stall in [Stall::UntilResumed, Stall::ForGood] {
        let (wait, becoming) = barrier();
        let rig = leaving(Mode::Colo).rehearsed().secondary_fault("finish_restore", 1, wait).start();
        rig.pvm.outlives_its_session();
        becoming.reached();
        rig.pvm.stalls(stall);
        becoming.go_on();
        let why = "the guest cannot become like its twin: it stalls";
        match rig.primary.wait() {
            Outcome::Unprotected(told) if stall == Stall::UntilResumed => assert_eq!(told, why),
            Outcome::LeftSuspended(told) => assert_eq!(told, format!("{why}; and it cannot be resumed: it stalls")),
            outcome => panic!("{outcome}"),
        }
        assert_eq!(is_left(&rig.pvm), stall == Stall::UntilResumed);
        assert!(!rig.pvm.is_destroyed());
    }
}

/// A fence that never succeeds.
struct Failing;

impl Fence for Failing {
    fn fence(&mut self) -> Result<(), FenceError> {
        Err(FenceError::TimedOut { command: "failing".into(), seconds: 0 })
    }
}

#[test]
fn a_machine_whose_secondary_may_serve_is_left_suspended() {
    let mut setup = leaving(Mode::Remus).secondary_fault("get_page", 2, die);
    setup.primary.fence = Some(Box::new(Failing));
    let mut rig = protect(setup);
    rig.pvm.say(&answer("held"));
    rig.pvm.store(9000, b"dirty");
    rig.primary.controller().checkpoint();
    rig.primary_events.find(|event| matches!(event, Event::FenceFailed(_)));
    rig.primary.controller().stop();
    assert!(matches!(rig.primary.wait(), Outcome::LeftSuspended(_)));
    assert!(!rig.pvm.is_destroyed());
    assert_eq!(rig.pvm.run_state(), RunState::Suspended);
    assert!(rig.client.is_silent());
}

/// The primary dies, and the secondary serves: its clients' network.
fn taken_over(rig: &mut Rig) -> End {
    rig.primary.controller().checkpoint();
    rig.secondary_events.find(|event| matches!(event, Event::TookOver { .. }));
    let mut lan = rig.host.lan();
    assert_eq!(lan.next(), gratuitous_arp(GUEST_MAC, GUEST));
    lan
}

#[test]
fn a_machine_that_was_taken_over_is_left() {
    for mode in [Mode::Colo, Mode::Remus] {
        let mut rig = protect(leaving(mode).primary_fault("suspend", 2, die));
        let mut lan = taken_over(&mut rig);
        rig.svm.say(&answer("alone"));
        rig.secondary.controller().stop();
        assert_eq!(rig.secondary.wait(), Outcome::Left);
        assert!(is_left(&rig.svm));
        assert_eq!(lan.next(), answer("alone"));
        lan.closed();
    }
}

#[test]
fn a_secondary_leaves_by_itself_when_no_connection_needs_it() {
    let mut setup = leaving(Mode::Remus).primary_fault("suspend", 2, die);
    setup.secondary.leave_when_idle = Some(Duration::ZERO);
    let rig = protect(setup);
    rig.primary.controller().checkpoint();
    assert_eq!(rig.secondary.wait(), Outcome::Left);
    assert!(is_left(&rig.svm));
}

#[test]
fn a_secondary_stays_for_a_connection_that_needs_it() {
    let mut setup = leaving(Mode::Colo).primary_fault("suspend", 2, die);
    setup.secondary.leave_when_idle = Some(Duration::ZERO);
    let mut rig = protect(setup);
    assert_eq!(rig.secondary.controller().flows_to_rewrite(), None, "it does not serve");
    // Each machine has its own number; the client hears the primary's.
    let of_client = |seq, ack| Tcp::new(4000, 80).inbound().seq(seq).ack(ack);
    let hears = |rig: &mut Rig, frame: &Frame| {
        rig.client.send(frame);
        (rig.pvm.nic.next(), rig.svm.nic.next())
    };
    hears(&mut rig, &Tcp::new(4000, 80).inbound().syn().seq(1).frame());
    rig.svm.say(&Tcp::new(80, 4000).syn().seq(7000).ack(2).frame());
    rig.pvm.say(&Tcp::new(80, 4000).syn().seq(500).ack(2).frame());
    assert_eq!(rig.client.next(), Tcp::new(80, 4000).syn().seq(500).ack(2).frame());
    let (to_primary, to_secondary) = hears(&mut rig, &of_client(2, 501).frame());
    assert_eq!((to_primary, to_secondary), (of_client(2, 501).frame(), of_client(2, 7001).frame()));

    let mut lan = taken_over(&mut rig);
    let controller = rig.secondary.controller();
    let deadline = deadline();
    while controller.flows_to_rewrite().is_none() {
        assert!(Instant::now() < deadline, "the connections are counted");
        std::thread::yield_now();
    }
    assert_eq!(controller.flows_to_rewrite(), Some(1));
    lan.send(&of_client(2, 501).rst().frame());
    assert_eq!(rig.svm.nic.next(), of_client(2, 7001).rst().frame());
    assert_eq!(rig.secondary.wait(), Outcome::Left);
    assert!(is_left(&rig.svm));
}
