//! The secondary is lost: the primary serves on, without protection.

use crate::machine::corrupt;
use crate::rig::{Rig, Setup, answer, unprotected};
use colo_core::domain::{Domain, RunState};
use colo_core::failover::{Fence, FenceError};
use colo_core::ids::Pfn;
use colo_core::restore::{Flushed, RestoreCallbacks};
use colo_core::save::CallbackError;
use colo_core::session::{Event, Outcome};
use crossbeam_channel::{Receiver, unbounded};
use std::sync::Arc;

/// A frame that the primary has said and the secondary has not: held in both modes.
fn hold_output(rig: &mut Rig) {
    rig.pvm.say(&answer("held"));
    assert!(rig.client.is_silent());
}

/// The primary serves, and the frame of [`hold_output`] was not lost.
fn serves_on(rig: &mut Rig) {
    assert_eq!(rig.client.next(), answer("held"));
    assert_eq!(rig.pvm.run_state(), RunState::Running);
    rig.pvm.say(&answer("alone"));
    assert_eq!(rig.client.next(), answer("alone"));
}

#[test]
fn a_secondary_that_dies_leaves_the_primary_serving() {
    for setup in [Setup::colo(), Setup::remus()] {
        let mut rig =
            setup.secondary_fault("flush_memory", 2, || panic!("the secondary dies, as the test wants")).protect();
        hold_output(&mut rig);
        rig.primary.controller().checkpoint();
        rig.primary_events.peer_lost();
        rig.unprotected();
        serves_on(&mut rig);
        // All that the dead session had is gone.
        rig.svm.nic.closed();
        assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
        let (primary, secondary) = rig.stop();
        assert_eq!((primary, secondary), (Outcome::Stopped, Outcome::Failed("the engine has panicked".into())));
    }
}

#[test]
fn a_flush_that_fails_destroys_the_secondarys_guest() {
    for callback in ["flush_memory", "update_p2m", "finish_restore"] {
        let mut rig = Setup::colo().secondary_fault(callback, 2, || Err("no room".into())).protect();
        hold_output(&mut rig);
        rig.primary.controller().checkpoint();
        let why = unprotected(&mut rig.secondary_events);
        assert_eq!(why, format!("{callback} failed with the guest half-written: no room"));
        assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
        assert_eq!(rig.primary_events.peer_lost(), format!("the peer failed: {why}"));
        rig.unprotected();
        serves_on(&mut rig);
        assert_eq!(rig.stop(), (Outcome::Stopped, Outcome::Stopped));
    }
}

#[test]
fn a_page_that_cannot_be_staged_ends_protection() {
    let mut rig = Setup::remus().secondary_fault("get_page", 2, || Err("no room".into())).protect();
    hold_output(&mut rig);
    rig.pvm.store(9000, b"dirty");
    rig.primary.controller().checkpoint();
    assert_eq!(unprotected(&mut rig.secondary_events), "get_page: no room");
    assert_eq!(rig.primary_events.peer_lost(), "the peer failed: get_page: no room");
    rig.unprotected();
    serves_on(&mut rig);
    rig.stop();
}

/// Flips a byte of the guest just before a flush that does not write it.
struct Corrupting {
    inner: Box<dyn RestoreCallbacks>,
    flushes: u64,
}

impl RestoreCallbacks for Corrupting {
    colo_core::hand_on_restore!(inner: init, get_page, record, update_p2m, finish_restore);

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        self.flushes += 1;
        if self.flushes == 3 {
            corrupt(domain, Pfn(7))?;
        }
        self.inner.flush_memory(domain)
    }
}

#[test]
fn a_corrupted_page_is_found_by_verification() {
    for mut setup in [Setup::colo().verified(), Setup::remus().verified()] {
        setup.secondary.layer = Some(Arc::new(|inner| Box::new(Corrupting { inner, flushes: 0 })));
        let mut rig = setup.protect();
        hold_output(&mut rig);
        rig.checkpoint();
        assert_eq!(rig.client.next(), answer("held"));
        hold_output(&mut rig);
        rig.primary.controller().checkpoint();
        let why = unprotected(&mut rig.secondary_events);
        assert!(why.ends_with("the guest's memory differs from the primary's"), "{why}");
        assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
        rig.unprotected();
        serves_on(&mut rig);
        rig.stop();
    }
}

/// A fence that answers what the test says.
struct Scripted(Receiver<bool>);

impl Fence for Scripted {
    fn fence(&mut self) -> Result<(), FenceError> {
        match self.0.recv() {
            Ok(true) => Ok(()),
            _ => Err(FenceError::TimedOut { command: "scripted".into(), seconds: 0 }),
        }
    }
}

#[test]
fn until_the_fence_holds_the_primary_says_nothing() {
    let (answers, scripted) = unbounded();
    let mut setup = Setup::colo().secondary_fault("get_page", 2, || panic!("the secondary dies, as the test wants"));
    setup.primary.fence = Some(Box::new(Scripted(scripted)));
    let mut rig = setup.protect();
    hold_output(&mut rig);
    // It dies before it can acknowledge, which would release the output.
    rig.pvm.store(9000, b"dirty");
    rig.primary.controller().checkpoint();
    rig.primary_events.peer_lost();
    answers.send(false).unwrap();
    rig.primary_events.find(|event| matches!(event, Event::FenceFailed(_)));
    rig.pvm.say(&answer("alone"));
    assert!(rig.client.is_silent(), "the secondary may serve");
    answers.send(true).unwrap();
    rig.unprotected();
    assert_eq!(rig.client.next(), answer("held"));
    assert_eq!(rig.client.next(), answer("alone"));
    rig.stop();
}

#[test]
fn a_primary_can_be_stopped_while_its_fence_fails() {
    let (answers, scripted) = unbounded();
    let mut setup =
        Setup::colo().secondary_fault("flush_memory", 1, || panic!("the secondary dies, as the test wants"));
    setup.primary.fence = Some(Box::new(Scripted(scripted)));
    let mut rig = setup.start();
    rig.primary_events.peer_lost();
    answers.send(false).unwrap();
    rig.primary_events.find(|event| matches!(event, Event::FenceFailed(_)));
    drop(answers);
    rig.primary.controller().stop();
    let pvm = rig.pvm;
    assert_eq!(rig.primary.wait(), Outcome::Stopped);
    assert!(pvm.is_destroyed());
}
