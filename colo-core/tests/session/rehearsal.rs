//! The first epochs as a rehearsal: the secondary's machine gets to run, and clients notice nothing of it.

use crate::rig::{Setup, answer, barrier, unprotected};
use colo_core::domain::RunState;
use colo_core::ids::Epoch;
use colo_core::net::testing::Tcp;
use colo_core::peer::Mode;
use colo_core::save::{CallbackError, Trigger};
use colo_core::session::{Event, Outcome};

fn die() -> Result<(), CallbackError> {
    panic!("the primary dies, as the test wants")
}

#[test]
fn while_the_secondarys_machine_is_made_to_run_nothing_is_held() {
    for mode in [Mode::Colo, Mode::Remus] {
        let (wait, resuming) = barrier();
        let mut rig = Setup::new(mode).rehearsed().verified().secondary_fault("finish_restore", 1, wait).start();
        resuming.reached();
        rig.pvm.say(&answer("at once"));
        assert_eq!(rig.client.next(), answer("at once"));
        resuming.go_on();
        // The other checkpoints follow without being asked for, and nothing counts as protected before the third.
        let told: [String; 3] = std::array::from_fn(|_| {
            rig.primary_events.get(|event| match event {
                Event::Checkpoint { stats, .. } if stats.trigger == Trigger::First && stats.epoch > Epoch::FIRST => {
                    Some(stats.epoch.to_string())
                }
                Event::Rehearsed => Some("rehearsed".into()),
                Event::Protected(epoch) => Some(format!("protected from {epoch}")),
                _ => None,
            })
        });
        assert_eq!(told, ["epoch 2", "rehearsed", "epoch 3"]);
        let mut rig = rig.protected();
        rig.pvm.say(&answer("of the primary alone"));
        assert!(rig.client.is_silent());
        assert_eq!(rig.stop(), (Outcome::Stopped, Outcome::Stopped));
    }
}

#[test]
fn in_a_rehearsal_both_machines_hear_clients_and_only_the_primary_is_heard() {
    let (wait, before_the_second) = barrier();
    let mut rig = Setup::colo().rehearsed().primary_fault("suspend", 2, wait).start();
    before_the_second.reached();
    rig.secondary_events.applied();
    assert_eq!(rig.svm.run_state(), RunState::Running);
    let question = Tcp::new(4000, 80).inbound().seq(1).ack(1).payload(b"who is there?").frame();
    rig.client.send(&question);
    assert_eq!((rig.pvm.nic.next(), rig.svm.nic.next()), (question.clone(), question));
    rig.svm.say(&answer("of the secondary"));
    rig.pvm.say(&answer("of the primary"));
    assert_eq!(rig.client.next(), answer("of the primary"));
    before_the_second.go_on();
    let mut rig = rig.protected();
    // What was said in the rehearsal counts for nothing now.
    rig.pvm.say(&answer("of the secondary"));
    assert!(rig.client.is_silent());
    rig.svm.say(&answer("of the secondary"));
    assert_eq!(rig.client.next(), answer("of the secondary"));
    rig.stop();
}

#[test]
fn the_first_time_that_a_running_machine_is_loaded_is_a_part_of_the_rehearsal() {
    let (wait, loading) = barrier();
    let mut rig = Setup::colo().rehearsed().secondary_fault("finish_restore", 2, wait).start();
    loading.reached();
    rig.pvm.say(&answer("at once"));
    assert_eq!(rig.client.next(), answer("at once"));
    loading.go_on();
    rig.protected().stop();
}

#[test]
fn before_protection_begins_the_primary_becomes_like_the_secondary() {
    for mode in [Mode::Colo, Mode::Remus] {
        let (wait, before_the_second) = barrier();
        let rig = Setup::new(mode).rehearsed().primary_fault("suspend", 2, wait).start();
        before_the_second.reached();
        assert_eq!(rig.pvm.became().as_deref(), (mode == Mode::Colo).then_some(&b"as it was made here"[..]));
        before_the_second.go_on();
        let rig = rig.protected();
        assert_eq!(rig.svm.became(), None);
        rig.stop();

        let rig = Setup::new(mode).start().protected();
        assert_eq!(rig.pvm.became(), None, "clients would wait for that");
        rig.stop();
    }
}

#[test]
fn a_primary_that_is_lost_in_its_rehearsal_is_not_taken_over_from() {
    for (mode, checkpoint) in [(Mode::Colo, 2), (Mode::Colo, 3), (Mode::Remus, 2), (Mode::Remus, 3)] {
        let mut rig = Setup::new(mode).rehearsed().primary_fault("suspend", checkpoint, die).start();
        rig.secondary_events.applied();
        let why = unprotected(&mut rig.secondary_events);
        assert!(why.contains("nothing to go on from yet"), "{why}");
        assert!(rig.svm.is_destroyed() && !rig.host.has_lan());
        assert_eq!(rig.stop().1, Outcome::Stopped);
    }
}

#[test]
fn after_the_rehearsal_the_secondary_can_take_over() {
    for mode in [Mode::Colo, Mode::Remus] {
        let mut rig = Setup::new(mode).rehearsed().primary_fault("suspend", 4, die).start().protected();
        rig.primary.controller().checkpoint();
        let epoch = rig.secondary_events.get(|event| match event {
            Event::TookOver { epoch, .. } => Some(*epoch),
            _ => None,
        });
        assert_eq!(epoch, Epoch(3));
        assert_eq!(rig.svm.run_state(), RunState::Running);
        rig.stop();
    }
}
