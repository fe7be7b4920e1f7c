//! Disks that a server has, driven over its control socket: as by `colo primary` and `colo secondary`, which come and go.

#[path = "support/breakable.rs"]
mod breakable;
#[path = "support/folder.rs"]
mod folder;

mod control {
    pub(crate) mod hostile;
    pub(crate) mod observing;
    pub(crate) mod rig;
}

use colo_core::disk::control::{ControlError, ControlledPrimary, ControlledSecondary, Observer, Role, Witness};
use colo_core::disk::{
    Backend, DiskError, DiskEvent, DiskState, PrimaryDisks, Replica, ReplicaConfig, SecondaryDisks, StoreConfig,
    TapConfig,
};
use colo_core::ids::Epoch;
use control::rig::{PATIENCE, Rig, SIZE, channels, read_all};
use crossbeam_channel::unbounded;
use std::time::Instant;

#[test]
fn a_whole_life_to_the_failover() {
    let mut rig = Rig::new(TapConfig::default());
    assert_eq!(rig.primary().sizes(), [SIZE]);
    assert_eq!(rig.secondary().sizes(), [SIZE]);
    // Before there are epochs the secondary's disk can be read, by whoever prepares its machine, and not be written.
    assert!(read_all(&rig.own) == vec![2; SIZE as usize]);
    assert_eq!(rig.own.write(0, &[1; 512]), Err(DiskError::NotPermitted));
    let writer = std::thread::spawn({
        let disk = rig.guest.clone();
        move || {
            for number in 0..500_u64 {
                disk.write(number * 7919 % (SIZE - 3000), &[number as u8; 3000]).unwrap();
            }
        }
    });
    rig.protect();
    writer.join().unwrap();
    rig.checkpoint();
    assert!(read_all(&rig.guest) == read_all(&rig.own));

    rig.guest.write(1000, &[3; 4000]).unwrap();
    let before = read_all(&rig.own);
    rig.stage();
    assert!(read_all(&rig.own) == before, "an epoch is seen that does not count");
    rig.guest.write(1000, &[4; 4000]).unwrap();
    rig.apply();
    rig.own.write(0, &[5; 2000]).unwrap();
    let mut expected = before;
    expected[1000..5000].fill(3);
    expected[..2000].fill(5);
    assert!(!rig.secondary().wants_checkpoint());
    assert!(read_all(&rig.own) == expected);

    rig.primary().detach();
    rig.secondary().fail_over().unwrap();
    rig.own.write(0, b"serves").unwrap();
    expected[..6].copy_from_slice(b"serves");
    assert!(rig.settled() == expected);
}

#[test]
fn a_checkpoint_is_asked_for_over_the_socket() {
    let mut rig = Rig::new(TapConfig { pending_bytes: 1 << 20, ..TapConfig::default() });
    rig.protect();
    rig.guest.write(0, &[3; 600_000]).unwrap();
    rig.wait(|event| *event == DiskEvent::WantsCheckpoint);
    rig.checkpoint();
    assert!(read_all(&rig.guest) == read_all(&rig.own));
}

#[test]
fn a_primarys_controller_that_is_killed_holds_up_nobody_and_another_begins_anew() {
    let mut rig = Rig::new(TapConfig { pending_bytes: 1 << 20, ..TapConfig::default() });
    rig.protect();
    rig.guest.write(0, &vec![3; 1 << 20]).unwrap();
    let (sender, done) = unbounded();
    let writing = std::thread::spawn({
        let disk = rig.guest.clone();
        move || {
            // There is no room for this one until there is a checkpoint, or nobody who takes any.
            disk.write(0, &[4; 1000]).unwrap();
            sender.send(()).unwrap();
        }
    });
    assert!(done.try_recv().is_err());
    rig.primary = None;
    done.recv_timeout(PATIENCE).unwrap();
    writing.join().unwrap();
    assert!(!rig.secondary().wait_barrier(Epoch(2), Instant::now() + PATIENCE), "the secondary does not hear of it");

    rig.connect_primary();
    rig.protect();
    rig.guest.write(7, &[5; 7]).unwrap();
    rig.checkpoint();
    assert!(read_all(&rig.guest) == read_all(&rig.own));
    assert!(read_all(&rig.guest) == rig.settled());
}

#[test]
fn a_disk_that_fails_is_told_to_its_controller_and_to_the_guest_when_that_has_gone() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.disk.fail(1);
    let (sender, done) = unbounded();
    let writing = std::thread::spawn({
        let disk = rig.guest.clone();
        move || sender.send(disk.write(0, &[4; 1000])).unwrap()
    });
    let why = "a write to disk 0 failed on this host: the disk has failed";
    rig.wait(|event| *event == DiskEvent::Failed(why.into()));
    // The disk is driven as before meanwhile.
    rig.checkpoint();
    assert!(done.try_recv().is_err());
    rig.primary = None;
    assert_eq!(done.recv_timeout(PATIENCE).unwrap(), Err(DiskError::Io));
    writing.join().unwrap();
    assert!(read_all(&rig.own) == vec![1; SIZE as usize], "what failed was sent");
    let status = Observer::connect(&rig.path("primary.control")).unwrap().status().unwrap();
    assert_eq!(status.disks.state, DiskState::Alone(Some(why.into())));
}

#[test]
fn a_secondarys_controller_that_is_killed_in_a_checkpoint_leaves_what_another_takes_over() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.guest.write(0, &[3; 4096]).unwrap();
    rig.checkpoint();
    rig.guest.write(0, &[4; 4096]).unwrap();
    rig.stage();
    rig.own.write(4096, &[5; 4096]).unwrap();
    rig.secondary().release();
    rig.secondary().freeze();
    rig.secondary = None;
    rig.wait(|event| matches!(event, DiskEvent::Lost(_)));
    // It does not stand still any more.
    let mut expected = vec![1; SIZE as usize];
    expected[..4096].fill(3);
    expected[4096..8192].fill(5);
    assert!(read_all(&rig.own) == expected);
    // But nobody's guest may write: the next session would forget that.
    assert_eq!(rig.own.write(0, &[9; 512]), Err(DiskError::NotPermitted));
    rig.guest.write(0, &[6; 512]).unwrap();

    rig.connect_secondary();
    rig.secondary().fail_over().unwrap();
    rig.own.write(8192, &[7; 512]).unwrap();
    expected[8192..8704].fill(7);
    // It serves on, whoever goes, and is nobody's secondary any more.
    assert_eq!(rig.secondary().attach(channels().1), Err(DiskError::NotPermitted));
    rig.secondary = None;
    let error = ControlledSecondary::connect(&rig.path("secondary.control")).err().unwrap();
    assert!(matches!(error, ControlError::Role { has: Role::Primary, wanted: Role::Secondary, .. }), "{error}");
    assert!(read_all(&rig.own) == expected);
    assert!(rig.settled() == expected);
}

#[test]
fn disks_that_have_taken_over_are_protected_towards_a_third_host() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.guest.write(0, &[4; 4096]).unwrap();
    rig.checkpoint();
    rig.primary().detach();
    rig.secondary().fail_over().unwrap();
    rig.own.write(4096, &[5; 4096]).unwrap();
    // Whether its process lives on, or another has what it has left.
    for fill in [6, 7] {
        let path = rig.path("third");
        std::fs::write(&path, vec![0; SIZE as usize]).unwrap();
        let journal = rig.path("third.journal");
        let config = ReplicaConfig { disks: vec![path], journal, store: StoreConfig::default() };
        let mut third = Replica::open(config).unwrap();
        rig.secondary = None;
        let mut serving = ControlledPrimary::connect(&rig.path("secondary.control")).unwrap();
        let (here, there) = channels();
        third.attach(there).unwrap();
        let (sender, events) = unbounded();
        serving.attach(here, Box::new(move |event| drop(sender.send(event)))).unwrap();
        while events.recv_timeout(PATIENCE).unwrap() != DiskEvent::InStep {}
        for epoch in [Epoch(1), Epoch(2)] {
            rig.own.write(epoch.0 * 8192, &[fill; 512]).unwrap();
            serving.freeze();
            serving.barrier(epoch);
            serving.thaw();
            assert!(third.wait_barrier(epoch, Instant::now() + PATIENCE));
            third.commit(epoch).unwrap();
            serving.committed(epoch);
        }
        assert!(read_all(&third.disk(0)) == read_all(&rig.own));
        rig.own.flush().unwrap();
        drop((serving, third));
        std::fs::remove_file(rig.path("third.journal")).unwrap();
        let before = read_all(&rig.own);
        rig.restart_secondary();
        assert!(read_all(&rig.own) == before);
    }
}

#[test]
fn a_read_that_is_expected_is_seen_where_it_arrives() {
    let mut rig = Rig::new(TapConfig::default());
    let mut bytes = [0; 512];
    rig.primary().expect_read(0, 8192).unwrap();
    rig.guest.read(4096, &mut bytes).unwrap();
    rig.own.read(8192, &mut bytes).unwrap();
    assert!(!rig.primary().was_read().unwrap());
    rig.guest.read(8192, &mut bytes).unwrap();
    assert!(rig.primary().was_read().unwrap());
    // What was seen is of that question alone.
    rig.primary().expect_read(0, 0).unwrap();
    assert!(!rig.primary().was_read().unwrap());
    rig.secondary().expect_read(0, 512).unwrap();
    rig.own.read(512, &mut bytes).unwrap();
    assert!(rig.secondary().was_read().unwrap());
}

#[test]
fn a_secondarys_controller_that_is_killed_is_followed_by_one_that_begins_anew() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.secondary = None;
    rig.wait(|event| matches!(event, DiskEvent::Lost(_)));
    rig.guest.write(0, &[4; 4096]).unwrap();
    rig.connect_secondary();
    rig.protect();
    rig.checkpoint();
    assert!(read_all(&rig.guest) == rig.settled());
}

#[test]
fn a_second_controller_and_one_of_the_other_part_are_told() {
    let rig = Rig::new(TapConfig::default());
    let (primary, secondary) = (rig.path("primary.control"), rig.path("secondary.control"));
    let why = ControlledPrimary::connect(&primary).err().expect("two of them").to_string();
    assert_eq!(why, format!("{}: another process drives this disk", primary.display()));
    assert!(matches!(ControlledSecondary::connect(&secondary), Err(ControlError::InUse(_))));
    drop(rig);
    assert!(matches!(ControlledSecondary::connect(&secondary), Err(ControlError::Connect { .. })));

    let mut rig = Rig::new(TapConfig::default());
    rig.primary = None;
    let why = ControlledSecondary::connect(&rig.path("primary.control")).err().expect("another part").to_string();
    assert!(why.ends_with("it serves the disk of a primary, and that of a secondary is wanted"), "{why}");
    rig.connect_primary();
}

#[test]
fn a_server_that_ends_is_the_loss_of_the_secondarys_disks() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    drop(rig.primary_server.take());
    let lost = rig.wait(|event| matches!(event, DiskEvent::Lost(_)));
    assert_eq!(lost, DiskEvent::Lost("the disk server: the connection has ended".into()));
    // Nothing waits for it.
    rig.primary().freeze();
    rig.primary().barrier(Epoch(2));
    assert!(rig.primary().attach(channels().0, Box::new(|_| {})).is_err());
    drop(rig.secondary_server.take());
    assert!(!rig.secondary().wait_barrier(Epoch(2), Instant::now() + PATIENCE));
    assert_eq!(rig.secondary().commit(Epoch(2)), Err(DiskError::Io));
    assert_eq!(rig.secondary().fail_over(), Err(DiskError::Io));
    assert!(!rig.secondary().wants_checkpoint());
}
