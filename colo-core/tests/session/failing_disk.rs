//! The disk of the primary fails: the other side goes on with its own, and nobody sees an error.

use crate::breakable::Breakable;
use crate::folder::Folder;
use crate::relay::Relay;
use crate::rig::{NEVER, Rig, Setup, answer, barrier, deadline};
use colo_core::disk::{
    Backend, DiskError, DiskEvent, OnDiskEvent, PrimaryDisks, Replica, ReplicaConfig, ReplicaDisk, StoreConfig, Tap,
    TapConfig, TapDisk,
};
use colo_core::domain::RunState;
use colo_core::ids::Epoch;
use colo_core::peer::{Mode, StateChannel};
use colo_core::session::{Event, Outcome};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::Duration;

const SIZE: u64 = 1 << 20;

/// Both hosts' disks, and what the test has of them.
struct Both {
    /// The primary's itself, and as its guest has it.
    disk: Arc<Breakable>,
    ours: TapDisk,
    theirs: ReplicaDisk,
    /// The failure was told.
    told: Receiver<()>,
    /// The primary is about to let go of its disk, and waits for leave.
    letting_go: Receiver<Sender<()>>,
    _folder: Folder,
}

impl Both {
    /// A machine with a disk that is full of ones.
    fn new(setup: Setup) -> (Setup, Both) {
        let folder = Folder::new();
        let (here, there) = (folder.0.join("primary"), folder.0.join("secondary"));
        std::fs::write(&here, [1; SIZE as usize]).unwrap();
        std::fs::write(&there, [0; SIZE as usize]).unwrap();
        let disk = Breakable::new(OpenOptions::new().read(true).write(true).open(here).unwrap());
        let tap = Tap::new(vec![(disk.clone(), SIZE)], TapConfig::default());
        let (store, journal) = (StoreConfig::default(), folder.0.join("journal"));
        let replica = Replica::open(ReplicaConfig { disks: vec![there], journal, store }).unwrap();
        let (ours, theirs) = (tap.disk(0), replica.disk(0));
        let ((tell, told), (let_go, letting_go)) = (unbounded(), unbounded());
        let watched = Watched { tap, tell, let_go };
        let setup = setup.with_primary_disk(watched, SIZE).with_secondary_disk(replica);
        (setup, Both { disk, ours, theirs, told, letting_go, _folder: folder })
    }

    /// The disk fails from here on, and the guest writes to it. What it is answered is to be heard there.
    fn fail(&self) -> Receiver<Result<(), DiskError>> {
        self.disk.fail(usize::MAX);
        let (sender, answered) = bounded(1);
        let ours = self.ours.clone();
        std::thread::spawn(move || sender.send(ours.write(0, b"too late")));
        answered
    }

    /// When the primary is about to let go of its disk, and with it of the guest's requests: gives it leave once that is looked at.
    fn at_the_end(&self, look: impl FnOnce()) {
        let leave = self.letting_go.recv_deadline(deadline()).expect("the primary lets go of its disk");
        look();
        leave.send(()).unwrap();
    }

    fn first_bytes_there(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        self.theirs.read(0, &mut bytes).unwrap();
        bytes
    }
}

/// Disks that tell what happens to them.
struct Watched {
    tap: Tap,
    tell: Sender<()>,
    let_go: Sender<Sender<()>>,
}

impl PrimaryDisks for Watched {
    fn attach(&mut self, channel: StateChannel, on_event: OnDiskEvent) -> Result<(), DiskError> {
        let tell = self.tell.clone();
        let on_event = move |event| {
            let is_failure = matches!(event, DiskEvent::Failed(_));
            on_event(event);
            if is_failure {
                let _ = tell.send(());
            }
        };
        self.tap.attach(channel, Box::new(on_event))
    }

    fn freeze(&mut self) {
        self.tap.freeze();
    }

    fn barrier(&mut self, epoch: Epoch) {
        self.tap.barrier(epoch);
    }

    fn thaw(&mut self) {
        self.tap.thaw();
    }

    fn committed(&mut self, epoch: Epoch) {
        self.tap.committed(epoch);
    }

    fn detach(&mut self) {
        let (leave, given) = bounded(1);
        // A test that does not look, or has failed, is not waited for.
        if self.let_go.send(leave).is_ok() {
            let _ = given.recv_deadline(deadline());
        }
        self.tap.detach();
    }
}

/// The secondary serves with what counts, and its primary is gone.
fn is_taken_over(mut rig: Rig, both: &Both, answered: &Receiver<Result<(), DiskError>>) {
    both.at_the_end(|| {
        assert_eq!(rig.pvm.run_state(), RunState::Suspended, "it would hear of it");
        assert!(answered.try_recv().is_err(), "it was told while the secondary could take over");
    });
    let mut lan = rig.host.lan();
    rig.secondary_events.find(|event| matches!(event, Event::TookOver { .. }));
    assert_eq!(both.first_bytes_there(), *b"counts  ");
    assert_eq!(rig.svm.ram()[9000..9008], *b"counts\0\0");
    both.theirs.write(0, b"served").unwrap();
    both.theirs.flush().unwrap();
    rig.svm.say(&answer("served"));
    // Behind what tells where it is now.
    while lan.next() != answer("served") {}
    assert!(rig.pvm.is_destroyed());
    let (primary, secondary) = rig.stop();
    let why = "a write to disk 0 failed on this host: the disk has failed, and the secondary is to take over";
    assert_eq!((primary, secondary), (Outcome::Failed(why.into()), Outcome::Stopped));
    assert_eq!(answered.recv_deadline(deadline()).unwrap(), Err(DiskError::Io));
}

/// The primary goes on alone, and its guest has heard what its disk says.
fn goes_on(mut rig: Rig, both: &Both, answered: &Receiver<Result<(), DiskError>>) -> (Rig, String) {
    both.at_the_end(|| assert_eq!(rig.pvm.run_state(), RunState::Running));
    let why = rig.unprotected();
    assert_eq!(answered.recv_deadline(deadline()).unwrap(), Err(DiskError::Io));
    assert_eq!((rig.pvm.run_state(), rig.pvm.is_destroyed()), (RunState::Running, false));
    rig.pvm.say(&answer("alone"));
    assert_eq!(rig.client.next(), answer("alone"));
    assert!(!rig.host.has_lan(), "the secondary serves, too");
    (rig, why)
}

/// Until there is something that counts, and something that does not.
fn write_some(rig: &mut Rig, both: &Both) {
    both.ours.write(0, b"counts  ").unwrap();
    rig.pvm.store(9000, b"counts");
    rig.checkpoint();
    both.ours.write(0, b"does not").unwrap();
    rig.pvm.store(9000, b"does not");
}

#[test]
fn the_secondary_takes_over_and_nobody_sees_an_error() {
    for mode in [Mode::Colo, Mode::Remus] {
        let (setup, both) = Both::new(Setup::new(mode));
        let mut rig = setup.protect();
        write_some(&mut rig, &both);
        let answered = both.fail();
        is_taken_over(rig, &both, &answered);
    }
}

#[test]
fn a_checkpoint_that_fails_because_of_it_is_no_reason_to_go_on_without_the_secondary() {
    let (mut action, told_to_fail) = barrier();
    // As on Xen, where a guest is captured only when its disk has answered.
    let fails = move || {
        action()?;
        Err("a disk has not answered".into())
    };
    let (setup, both) = Both::new(Setup::colo().primary_fault("suspend", 3, fails));
    let mut rig = setup.protect();
    write_some(&mut rig, &both);
    rig.primary.controller().checkpoint();
    told_to_fail.reached();
    let answered = both.fail();
    both.told.recv_deadline(deadline()).expect("it is told");
    told_to_fail.go_on();
    is_taken_over(rig, &both, &answered);
}

#[test]
fn a_guest_whose_secondary_has_gone_as_well_goes_on_and_hears_of_it() {
    let mut setup = Setup::remus();
    setup.primary.heartbeat = Duration::from_millis(400);
    setup.primary.checkpoints.ack_timeout = NEVER;
    let (setup, both) = Both::new(setup);
    let mut relay = None;
    let mut rig = setup.start_by_way_of(|address| relay.insert(Relay::to(address)).address()).protected();
    write_some(&mut rig, &both);
    // Neither side is told that the other is out of reach.
    relay.unwrap().cut();
    let answered = both.fail();
    let (rig, why) = goes_on(rig, &both, &answered);
    assert_eq!(why, "no heartbeat");
    rig.stop();
}

#[test]
fn before_there_is_a_checkpoint_to_take_over_from_the_guest_hears_of_it() {
    let (wait, resuming) = barrier();
    let (setup, both) = Both::new(Setup::colo().rehearsed().secondary_fault("finish_restore", 1, wait));
    let rig = setup.start();
    resuming.reached();
    let answered = both.fail();
    both.told.recv_deadline(deadline()).expect("it is told");
    let (rig, why) = goes_on(rig, &both, &answered);
    assert_eq!(why, "a write to disk 0 failed on this host: the disk has failed");
    resuming.go_on();
    rig.stop();
}

#[test]
fn a_primary_that_panics_does_not_wait_for_what_its_guest_waits_for() {
    let die = || panic!("the primary dies, as the test wants");
    let (setup, both) = Both::new(Setup::colo().primary_fault("suspend", 3, die));
    let mut rig = setup.protect();
    write_some(&mut rig, &both);
    rig.primary.controller().checkpoint();
    // A machine's end may wait for a request that is under way.
    both.at_the_end(|| assert!(!rig.pvm.is_destroyed(), "it ends before its disk is let go of"));
    rig.secondary_events.find(|event| matches!(event, Event::TookOver { .. }));
    assert!(rig.pvm.is_destroyed());
    rig.stop();
}
