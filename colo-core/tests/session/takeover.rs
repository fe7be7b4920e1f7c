//! The primary is lost: the secondary serves in its place, and says so.

use crate::rig::{Rig, Setup, answer, barrier, unprotected};
use colo_core::domain::RunState;
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::net::announce::gratuitous_arp;
use colo_core::net::testing::{GUEST, GUEST_MAC, Tcp};
use colo_core::save::{CallbackError, Ready, SaveCallbacks};
use colo_core::session::{Event, Outcome};
use std::time::Instant;

fn announcement() -> Frame {
    gratuitous_arp(GUEST_MAC, GUEST)
}

fn die() -> Result<(), CallbackError> {
    panic!("the primary dies, as the test wants")
}

/// Waits until the secondary serves, and returns how many frames it sent again.
fn taken_over(rig: &mut Rig) -> usize {
    let resent = rig.secondary_events.get(|event| match event {
        Event::TookOver { resent_frames, .. } => Some(*resent_frames),
        _ => None,
    });
    assert!(rig.pvm.is_destroyed());
    assert_eq!(rig.svm.run_state(), RunState::Running);
    resent
}

#[test]
fn in_lock_step_the_secondary_goes_on_from_where_it_is() {
    let mut rig = Setup::colo().primary_fault("suspend", 2, die).protect();
    rig.pvm.say(&answer("seen"));
    rig.svm.say(&answer("seen"));
    assert_eq!(rig.client.next(), answer("seen"));
    rig.pvm.say(&answer("of the primary alone"));
    rig.svm.store(9000, b"ahead");
    rig.svm.say(&answer("of the secondary alone"));
    rig.primary.controller().checkpoint();
    rig.primary_events.find(|event| *event == Event::Ended(Outcome::Failed("the engine has panicked".into())));
    assert_eq!(rig.secondary_events.peer_lost(), "the connection broke");
    let resent = taken_over(&mut rig);
    let mut lan = rig.host.lan();
    assert_eq!(lan.next(), announcement());
    // What had left is not said again, unless the primary died before it could report it.
    let mut next = lan.next();
    if resent == 2 {
        assert_eq!(next, answer("seen"));
        next = lan.next();
    }
    assert_eq!(next, answer("of the secondary alone"));
    assert_eq!(&rig.svm.ram()[9000..9005], b"ahead");
    assert!(rig.client.is_silent(), "what the primary held died with it");

    // From here on the secondary is the machine.
    let question = Tcp::new(4000, 80).inbound().seq(1).ack(1).payload(b"still there?").frame();
    lan.send(&question);
    assert_eq!(rig.svm.nic.next(), question);
    rig.svm.say(&answer("still there"));
    assert_eq!(lan.next(), answer("still there"));
    rig.svm.shut_down();
    assert_eq!(rig.secondary.wait(), Outcome::GuestShutDown);
}

#[test]
fn what_was_released_is_not_said_again() {
    let mut rig = Setup::colo().primary_fault("suspend", 3, die).protect();
    rig.pvm.say(&answer("seen"));
    rig.svm.say(&answer("seen"));
    assert_eq!(rig.client.next(), answer("seen"));
    rig.checkpoint();
    rig.primary.controller().checkpoint();
    assert_eq!(taken_over(&mut rig), 0);
    let mut lan = rig.host.lan();
    assert_eq!(lan.next(), announcement());
    assert!(lan.is_silent());
    rig.stop();
}

/// The primary dies when it has sent the whole of its second checkpoint, and heard nothing of it.
struct DiesAfterSending(Box<dyn SaveCallbacks>);

impl SaveCallbacks for DiesAfterSending {
    colo_core::hand_on_save!(0: wait_checkpoint, suspend, capture, postcopy);

    fn checkpoint(&mut self, epoch: Epoch, now: Instant) -> Result<Ready<bool>, CallbackError> {
        if epoch == Epoch(2) {
            die()?;
        }
        self.0.checkpoint(epoch, now)
    }
}

#[test]
fn a_checkpoint_that_was_sent_whole_counts_though_the_primary_died() {
    for setup in [Setup::colo(), Setup::remus()] {
        let (wait, staging) = barrier();
        let mut setup = setup.secondary_fault("get_page", 2, wait);
        setup.primary.layer = Some(Box::new(|inner| Box::new(DiesAfterSending(inner))));
        let mut rig = setup.protect();
        rig.pvm.store(9000, b"second");
        rig.pvm.set_registers(b"second");
        rig.pvm.say(&answer("held"));
        rig.primary.controller().checkpoint();
        staging.reached();
        rig.primary_events.find(|event| matches!(event, Event::Ended(Outcome::Failed(_))));
        staging.go_on();
        assert_eq!(taken_over(&mut rig), 1);
        let mut lan = rig.host.lan();
        assert_eq!((lan.next(), lan.next()), (announcement(), answer("held")));
        assert!(rig.client.is_silent());
        assert!(rig.pvm.ram() == rig.svm.ram());
        assert_eq!(rig.svm.registers(), b"second");
        rig.stop();
    }
}

#[test]
fn an_incomplete_checkpoint_never_happened() {
    for setup in [Setup::colo(), Setup::remus()] {
        // Everything before the end of the second checkpoint: its pages are in hand, and not sent.
        let mut rig = setup.primary_fault("postcopy", 2, die).protect();
        rig.pvm.store(9000, b"lost");
        rig.pvm.say(&answer("lost"));
        rig.primary.controller().checkpoint();
        assert_eq!(taken_over(&mut rig), 0);
        assert_eq!(&rig.svm.ram()[9000..9004], [0; 4]);
        assert_eq!(&rig.svm.ram()[5000..5005], b"hello");
        assert_eq!(rig.svm.registers(), b"at the start");
        assert!(rig.client.is_silent());
        rig.stop();
    }
}

#[test]
fn a_machine_that_never_spoke_is_announced() {
    let mut rig = Setup::remus().primary_fault("suspend", 2, die).protect();
    rig.primary.controller().checkpoint();
    taken_over(&mut rig);
    assert_eq!(rig.host.lan().next(), announcement());
    rig.stop();
}

/// Once, when it has served for a moment, or before it ends.
#[test]
fn a_takeover_leaves_nothing_undone() {
    for serves_on in [true, false] {
        let mut rig = Setup::remus().primary_fault("suspend", 2, die).protect();
        rig.primary.controller().checkpoint();
        taken_over(&mut rig);
        let host = rig.host.clone();
        if serves_on {
            host.wait_settled();
        }
        rig.stop();
        assert_eq!(host.settled(), usize::from(!serves_on));
    }
}

#[test]
fn before_the_first_checkpoint_there_is_nothing_to_take_over() {
    let mut rig = Setup::colo().primary_fault("capture", 1, die).start();
    let why = unprotected(&mut rig.secondary_events);
    assert!(why.contains("before the machine was protected"), "{why}");
    assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
    assert_eq!(rig.stop().1, Outcome::Stopped);
}

#[test]
fn until_the_fence_holds_the_secondary_does_not_serve() {
    let flag = std::env::temp_dir().join(format!("colo-session-fence-{}", std::process::id()));
    let mut setup = Setup::colo().primary_fault("suspend", 2, die);
    setup.secondary.fence_command =
        Some(format!("test \"$COLO_ROLE\" = secondary && test \"$COLO_DOMAIN\" = web && test -e '{}'", flag.display()));
    let mut rig = setup.protect();
    rig.svm.say(&answer("waiting"));
    rig.primary.controller().checkpoint();
    rig.secondary_events.find(|event| matches!(event, Event::FenceFailed(_)));
    assert!(!rig.host.has_lan(), "the primary may serve");
    std::fs::write(&flag, b"").unwrap();
    let resent = taken_over(&mut rig);
    std::fs::remove_file(&flag).unwrap();
    assert_eq!(resent, 1);
    let mut lan = rig.host.lan();
    assert_eq!((lan.next(), lan.next()), (announcement(), answer("waiting")));
    rig.stop();
}
