//! Protection from its beginning to its end when nothing breaks.

use crate::rig::{NEVER, Setup, start_primary, unprotected};
use colo_core::domain::RunState;
use colo_core::peer::Mode;
use colo_core::save::Trigger;
use colo_core::session::{Event, Outcome};
use std::time::Duration;

#[test]
fn a_machine_is_protected_and_stopped() {
    for mode in [Mode::Colo, Mode::Remus] {
        let mut rig = Setup::new(mode).verified().start();
        let connected = rig.primary_events.find(|event| matches!(event, Event::Connected { .. }));
        assert!(matches!(connected, Event::Connected { domain, dirty_log: "model", .. } if domain == "web"));
        rig.primary_events.find(|event| matches!(event, Event::Copying(_)));
        let first = rig.primary_events.get(|event| match event {
            Event::Checkpoint { stats, .. } => Some(*stats),
            _ => None,
        });
        assert_eq!(first.trigger, Trigger::First);
        rig.primary_events.find(|event| *event == Event::Protected(first.epoch));
        rig.secondary_events.find(|event| *event == Event::Staged(first.epoch));
        rig.secondary_events.applied();
        assert_eq!(&rig.svm.ram()[5000..5005], b"hello");
        assert_eq!(rig.svm.registers(), b"at the start");
        // In lock-step both run; under Remus the secondary stands still.
        let secondary = if mode == Mode::Colo { RunState::Running } else { RunState::Suspended };
        assert_eq!((rig.pvm.run_state(), rig.svm.run_state()), (RunState::Running, secondary));

        rig.primary.controller().stop();
        assert_eq!(unprotected(&mut rig.secondary_events), "the guest has ended");
        assert!(rig.svm.is_destroyed());
        let pvm = rig.pvm.is_destroyed();
        assert_eq!(rig.stop(), (Outcome::Stopped, Outcome::Stopped));
        assert!(pvm);
    }
}

#[test]
fn a_checkpoint_on_request_makes_the_secondary_what_the_primary_is() {
    for mode in [Mode::Colo, Mode::Remus] {
        let mut rig = Setup::new(mode).verified().protect();
        rig.pvm.store(9000, b"of the primary");
        rig.pvm.set_registers(b"further on");
        if mode == Mode::Colo {
            rig.svm.store(20_000, b"of the secondary");
        }
        rig.checkpoint();
        rig.primary_events.find(|event| {
            matches!(event, Event::Checkpoint { stats, .. } if stats.trigger == Trigger::Requested && stats.epoch.0 == 2)
        });
        assert!(rig.pvm.ram() == rig.svm.ram());
        assert_eq!(rig.svm.registers(), b"further on");
        assert_eq!(rig.stop(), (Outcome::Stopped, Outcome::Stopped));
    }
}

#[test]
fn checkpoints_come_with_the_interval() {
    let mut setup = Setup::remus();
    setup.primary.checkpoints.interval = Duration::from_millis(1);
    let mut rig = setup.start();
    for number in 2..10 {
        rig.primary_events.find(|event| {
            matches!(event, Event::Checkpoint { stats, .. } if stats.trigger == Trigger::Interval && stats.epoch.0 == number)
        });
    }
    rig.stop();
}

#[test]
fn protection_ends_on_request_and_begins_anew() {
    let mut rig = Setup::colo().protect();
    rig.primary.controller().end_protection();
    assert_eq!(rig.unprotected(), "protection was ended");
    assert_eq!(unprotected(&mut rig.secondary_events), "the peer ended protection");
    assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
    assert_eq!(rig.pvm.run_state(), RunState::Running);

    // The secondary is free for the next.
    let address = rig.secondary.local_addr().to_string();
    let (next, _pvm, _client) = start_primary(&address, Setup::remus().primary).map_err(|e| e.error).unwrap();
    let _svm = rig.host.guest();
    rig.secondary_events.applied();
    next.controller().stop();
    assert_eq!(next.wait(), Outcome::Stopped);
    rig.stop();
}

#[test]
fn a_guest_that_ends_ends_the_session() {
    for (crashes, outcome) in [(false, Outcome::GuestShutDown), (true, Outcome::GuestCrashed)] {
        let mut rig = Setup::colo().protect();
        if crashes {
            rig.pvm.crash();
        } else {
            rig.pvm.shut_down();
        }
        rig.primary_events.find(|event| *event == Event::Ended(outcome.clone()));
        assert_eq!(unprotected(&mut rig.secondary_events), "the guest has ended");
        assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
        assert_eq!(rig.stop(), (outcome, Outcome::Stopped));
    }
}

#[test]
fn a_guest_that_ends_unprotected_ends_the_session() {
    let mut rig = Setup::colo().protect();
    rig.primary.controller().end_protection();
    rig.unprotected();
    rig.pvm.shut_down();
    rig.primary_events.find(|event| *event == Event::Ended(Outcome::GuestShutDown));
}

#[test]
fn a_secondary_that_is_stopped_leaves_the_primary_unprotected() {
    let mut rig = Setup::colo().protect();
    rig.secondary.controller().stop();
    assert_eq!(rig.primary_events.peer_lost(), "the peer ended protection");
    rig.unprotected();
    assert_eq!(rig.pvm.run_state(), RunState::Running);
    assert_eq!(rig.secondary.wait(), Outcome::Stopped);
    assert!(rig.svm.is_destroyed());
}

#[test]
fn without_acknowledgements_nothing_passes_for_protected() {
    let (wait, barrier) = crate::rig::barrier();
    // Never: the secondary does not get to the end of the first checkpoint.
    let mut setup = Setup::colo().secondary_fault("get_page", 1, wait);
    setup.primary.checkpoints.interval = NEVER;
    let mut rig = setup.start();
    barrier.reached();
    rig.primary_events.find(|event| matches!(event, Event::Checkpoint { .. }));
    assert!(rig.primary.events().is_empty(), "written, and no more");
    barrier.go_on();
    rig.primary_events.find(|event| matches!(event, Event::Protected(_)));
    rig.stop();
}
