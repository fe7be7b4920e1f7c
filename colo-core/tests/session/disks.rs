//! A machine with a disk: its epochs are the checkpoints', and what is on it after a takeover is what the memory thinks.

use crate::folder::Folder;
use crate::relay::Relay;
use crate::rig::{NEVER, Rig, Setup, deadline};
use colo_core::disk::{
    Backend, DiskError, FileBackend, Replica, ReplicaConfig, ReplicaDisk, SecondaryDisks, StoreConfig, Tap, TapConfig,
    TapDisk,
};
use colo_core::ids::Epoch;
use colo_core::peer::{Mode, StateChannel};
use colo_core::save::CallbackError;
use colo_core::session::{Event, Outcome};
use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SIZE: u64 = 1 << 20;

impl Folder {
    /// A disk of the primary's, full of ones, and one of the secondary's, full of zeroes.
    fn disks(&self, config: TapConfig) -> (Tap, Replica) {
        let (ours, theirs) = (self.0.join("primary"), self.0.join("secondary"));
        std::fs::write(&ours, [1; SIZE as usize]).unwrap();
        std::fs::write(&theirs, [0; SIZE as usize]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(ours).unwrap();
        let tap = Tap::new(vec![(Arc::new(FileBackend::new(file)), SIZE)], config);
        let store = StoreConfig::default();
        let config = ReplicaConfig { disks: vec![theirs], journal: self.0.join("journal"), store };
        (tap, Replica::open(config).unwrap())
    }
}

/// A protected machine, and its disk as each guest has it.
fn protect(folder: &Folder, setup: Setup, config: TapConfig) -> (Rig, TapDisk, ReplicaDisk) {
    let (tap, replica) = folder.disks(config);
    let (ours, theirs) = (tap.disk(0), replica.disk(0));
    (setup.with_primary_disk(tap, SIZE).with_secondary_disk(replica).protect(), ours, theirs)
}

pub(crate) fn first_bytes(disk: &dyn Backend) -> [u8; 8] {
    let mut bytes = [0; 8];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

pub(crate) fn die() -> Result<(), CallbackError> {
    panic!("the primary dies, as the test wants")
}

#[test]
fn what_is_written_counts_with_its_checkpoint() {
    for mode in [Mode::Colo, Mode::Remus] {
        let folder = Folder::new();
        let (mut rig, ours, theirs) = protect(&folder, Setup::new(mode), TapConfig::default());
        assert_eq!(first_bytes(&theirs), [1; 8], "the disk was copied");
        ours.write(0, b"of both ").unwrap();
        theirs.write(4, b"SVM").unwrap();
        assert_eq!(first_bytes(&theirs), *b"\x01\x01\x01\x01SVM\x01");
        rig.checkpoint();
        assert_eq!(first_bytes(&theirs), *b"of both ");
        assert_eq!(rig.stop(), (Outcome::Stopped, Outcome::Stopped));
        drop(theirs);
        assert_eq!(std::fs::read(folder.0.join("primary")).unwrap()[..8], *b"of both ");
    }
}

#[test]
fn at_a_takeover_disk_and_memory_are_of_one_epoch() {
    let folder = Folder::new();
    let setup = Setup::colo().primary_fault("suspend", 3, die);
    let (mut rig, ours, theirs) = protect(&folder, setup, TapConfig::default());
    ours.write(0, b"counts  ").unwrap();
    rig.pvm.store(9000, b"counts");
    rig.checkpoint();
    ours.write(0, b"too late").unwrap();
    rig.pvm.store(9000, b"too late");
    theirs.write(6, b"!!").unwrap();
    rig.primary.controller().checkpoint();
    rig.secondary_events.find(|event| matches!(event, Event::TookOver { .. }));
    assert_eq!(first_bytes(&theirs), *b"counts!!");
    assert_eq!(rig.svm.ram()[9000..9008], *b"counts\0\0");
    theirs.write(0, b"served").unwrap();
    theirs.flush().unwrap();
    assert_eq!(first_bytes(&theirs), *b"served!!");
    rig.stop();
}

#[test]
fn writes_that_wait_for_a_checkpoint_get_one() {
    let folder = Folder::new();
    let config = TapConfig { pending_bytes: 64 << 10, ..TapConfig::default() };
    let (mut rig, ours, theirs) = protect(&folder, Setup::remus(), config);
    for number in 0..64_u8 {
        ours.write(0, &[number; 8 << 10]).unwrap();
    }
    rig.checkpoint();
    while first_bytes(&theirs) != [63; 8] {
        rig.secondary_events.applied();
    }
    rig.stop();
}

/// Disks that do what they are told but for one thing.
struct Failing(Replica, Fails);

#[derive(PartialEq)]
enum Fails {
    /// The commit of epoch 2.
    Commit,
    FailOver,
}

impl SecondaryDisks for Failing {
    fn attach(&mut self, channel: StateChannel) -> Result<(), DiskError> {
        self.0.attach(channel)
    }

    fn wait_barrier(&mut self, epoch: Epoch, deadline: Instant) -> bool {
        self.0.wait_barrier(epoch, deadline)
    }

    fn release(&mut self) {
        self.0.release();
    }

    fn freeze(&mut self) {
        self.0.freeze();
    }

    fn thaw(&mut self) {
        self.0.thaw();
    }

    fn wants_checkpoint(&self) -> bool {
        self.0.wants_checkpoint()
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), DiskError> {
        if epoch == Epoch(2) && self.1 == Fails::Commit { Err(DiskError::NoSpace) } else { self.0.commit(epoch) }
    }

    fn fail_over(&mut self) -> Result<(), DiskError> {
        if self.1 == Fails::FailOver { Err(DiskError::Io) } else { self.0.fail_over() }
    }
}

#[test]
fn a_machine_whose_disks_do_not_take_over_does_not_serve() {
    let folder = Folder::new();
    let (tap, replica) = folder.disks(TapConfig::default());
    let setup = Setup::colo().primary_fault("suspend", 3, die).with_primary_disk(tap, SIZE);
    let mut rig = setup.with_secondary_disk(Failing(replica, Fails::FailOver)).protect();
    rig.checkpoint();
    rig.primary.controller().checkpoint();
    let ended = rig.secondary_events.find(|event| matches!(event, Event::TookOver { .. } | Event::Ended(_)));
    let Event::Ended(Outcome::Failed(why)) = ended else { panic!("{ended:?}") };
    assert!(why.contains("the disks: "), "{why}");
    assert!(rig.svm.is_destroyed());
    assert!(!rig.host.has_lan());
}

#[test]
fn a_secondary_whose_disks_fail_never_serves_and_its_primary_does() {
    let folder = Folder::new();
    let (tap, replica) = folder.disks(TapConfig::default());
    let ours = tap.disk(0);
    let setup = Setup::colo().with_primary_disk(tap, SIZE).with_secondary_disk(Failing(replica, Fails::Commit));
    let mut rig = setup.protect();
    rig.primary.controller().checkpoint();
    let why = rig.unprotected();
    assert!(why.contains("the disks, at epoch 2: there is no space"), "{why}");
    assert!(rig.svm.is_destroyed());
    ours.write(0, b"alone").unwrap();
    rig.stop();
}

/// A guest that writes while the link is cut waits for as long as the secondary is not known to be lost, and no longer.
#[test]
fn a_write_on_its_way_to_a_lost_secondary_ends() {
    let folder = Folder::new();
    let (tap, replica) = folder.disks(TapConfig { pending_bytes: u64::MAX, ..TapConfig::default() });
    let ours = tap.disk(0);
    let mut setup = Setup::remus().with_primary_disk(tap, SIZE).with_secondary_disk(replica);
    setup.primary.heartbeat = Duration::from_millis(400);
    // Else the connection would be given up by itself.
    setup.primary.checkpoints.ack_timeout = NEVER;
    let mut relay = None;
    let mut rig = setup.start_by_way_of(|address| relay.insert(Relay::to(address)).address()).protected();
    relay.unwrap().cut();
    let (done, is_done) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        // More than any socket keeps.
        for _ in 0..64 {
            ours.write(0, &[7; SIZE as usize]).unwrap();
        }
        done.send(()).unwrap();
    });
    is_done.recv_deadline(deadline()).expect("the guest's writes end");
    assert!(!rig.unprotected().is_empty());
    rig.stop();
}

#[test]
fn a_host_without_such_disks_is_no_secondary_for_them() {
    let folder = Folder::new();
    let (tap, replica) = folder.disks(TapConfig::default());
    drop(replica);
    let mut rig = Setup::colo().with_primary_disk(tap, SIZE).start();
    let why = rig.unprotected();
    assert!(why.contains("this host has no disks for that machine"), "{why}");
}
