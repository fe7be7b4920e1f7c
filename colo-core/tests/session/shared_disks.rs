//! A machine with a disk that both hosts have: who may write to it when one has lost the other.

use crate::disks::{die, first_bytes};
use crate::folder::Folder;
use crate::relay::Relay;
use crate::rig::{Rig, Setup};
use colo_core::disk::{Backend, Replica, ReplicaConfig, ReplicaDisk, SharedFile, StoreConfig, Tap, TapConfig, TapDisk};
use colo_core::failover::{Fence, FenceError};
use colo_core::session::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SIZE: u64 = 1 << 20;

/// A machine whose disk is full of ones, and the disk as each guest has it.
fn with_disk(folder: &Folder, setup: Setup) -> (Setup, TapDisk, ReplicaDisk) {
    let path = folder.0.join("disk");
    std::fs::write(&path, [1; SIZE as usize]).unwrap();
    let (disk, size) = SharedFile::open(&path).unwrap();
    let tap = Tap::new(vec![(Arc::new(disk), size)], TapConfig { is_shared: true, ..TapConfig::default() });
    let store = StoreConfig { is_shared: true, ..StoreConfig::default() };
    let replica = ReplicaConfig { disks: vec![path], journal: folder.0.join("journal"), store };
    let replica = Replica::open(replica).unwrap();
    let (ours, theirs) = (tap.disk(0), replica.disk(0));
    let mut setup = setup.with_primary_disk(tap, SIZE).with_secondary_disk(replica);
    setup.primary.fence = Some(Box::new(Scripted(Arc::new(AtomicBool::new(true)))));
    (setup, ours, theirs)
}

fn took_over(rig: &mut Rig) {
    rig.secondary_events.find(|event| matches!(event, Event::TookOver { .. }));
}

#[test]
fn it_is_taken_over_by_a_fence_or_by_a_persons_word_and_by_nothing_else() {
    for fence_command in [None, Some("true".to_owned()), Some("false".into())] {
        let folder = Folder::new();
        let (mut setup, ours, theirs) = with_disk(&folder, Setup::colo().primary_fault("suspend", 3, die));
        // Of another disk that would be enough.
        setup.secondary.accept_unfenced = true;
        setup.secondary.fence_command = fence_command.clone();
        let mut rig = setup.protect();
        ours.write(0, b"counts  ").unwrap();
        rig.checkpoint();
        ours.write(0, b"too late").unwrap();
        theirs.write(6, b"!!").unwrap();
        rig.primary.controller().checkpoint();
        match fence_command.as_deref() {
            None => {
                let held = rig.secondary_events.find(|event| matches!(event, Event::Held { .. }));
                assert!(held.to_string().contains("does not write to the disks, which are shared"), "{held}");
            }
            Some("false") => drop(rig.secondary_events.find(|event| matches!(event, Event::FenceFailed(_)))),
            Some(_) => {}
        }
        if fence_command.as_deref() != Some("true") {
            assert!(!rig.host.has_lan());
            assert_eq!(first_bytes(&theirs), *b"counts!!");
            assert_eq!(std::fs::read(folder.0.join("disk")).unwrap()[..8], *b"too late");
            rig.secondary.controller().promote();
        }
        took_over(&mut rig);
        assert_eq!(first_bytes(&theirs), *b"counts!!");
        theirs.publish().unwrap();
        assert_eq!(std::fs::read(folder.0.join("disk")).unwrap()[..8], *b"counts!!");
        rig.stop();
    }
}

/// A fence that succeeds when the test says so.
struct Scripted(Arc<AtomicBool>);

impl Fence for Scripted {
    fn fence(&mut self) -> Result<(), FenceError> {
        match self.0.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(FenceError::TimedOut { command: "scripted".into(), seconds: 0 }),
        }
    }
}

#[test]
fn who_has_lost_the_secondary_writes_when_that_is_dead() {
    let folder = Folder::new();
    let (mut setup, ours, _theirs) = with_disk(&folder, Setup::remus());
    let is_dead = Arc::new(AtomicBool::new(false));
    setup.primary.fence = Some(Box::new(Scripted(is_dead.clone())));
    setup.primary.heartbeat = Duration::from_millis(400);
    let mut relay = None;
    let mut rig = setup.start_by_way_of(|address| relay.insert(Relay::to(address)).address()).protected();
    ours.write(0, b"counts  ").unwrap();
    rig.checkpoint();
    relay.unwrap().cut();
    let writing = std::thread::spawn({
        let (ours, is_dead) = (ours.clone(), is_dead.clone());
        move || {
            ours.write(0, b"later   ").unwrap();
            assert!(is_dead.load(Ordering::SeqCst), "it has written while the other might have gone back");
        }
    });
    rig.primary_events.find(|event| matches!(event, Event::FenceFailed(_)));
    assert_eq!(std::fs::read(folder.0.join("disk")).unwrap()[..8], *b"counts  ");
    is_dead.store(true, Ordering::SeqCst);
    assert_eq!(rig.unprotected(), "no heartbeat");
    writing.join().unwrap();
    ours.write(SIZE - 5, b"alone").unwrap();
    rig.stop();
}

#[test]
fn who_ends_protection_writes_on() {
    let folder = Folder::new();
    let (setup, ours, _theirs) = with_disk(&folder, Setup::colo());
    let mut rig = setup.protect();
    ours.write(0, b"protects").unwrap();
    rig.primary.controller().end_protection();
    rig.unprotected();
    ours.write(100_000, b"no more").unwrap();
    assert_eq!(std::fs::read(folder.0.join("disk")).unwrap()[100_000..100_007], *b"no more");
    rig.stop();
}

#[test]
fn who_has_no_fence_does_not_begin() {
    let folder = Folder::new();
    let (mut setup, ours, _theirs) = with_disk(&folder, Setup::colo());
    setup.primary.fence = None;
    let mut rig = setup.start();
    let why = rig.unprotected();
    assert!(why.contains("the disks are shared with the other host, and there is no fence"), "{why}");
    ours.write(0, b"alone").unwrap();
    rig.stop();
}
