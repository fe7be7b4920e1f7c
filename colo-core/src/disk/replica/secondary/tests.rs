//! A replica whose disk is held.

use super::*;
use crate::disk::volume::tests::Slow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;

/// A secondary whose disk does not get on before it is told to, and which may be behind by 10 kB.
fn slow_replica() -> (Replica, Slow) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("colo-replica-{}-{number}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("disk"), [0; 512]).unwrap();
    let store = StoreConfig { behind_bytes: 10_000, ..StoreConfig::default() };
    let config = ReplicaConfig { disks: vec![folder.join("disk")], journal: folder.join("journal"), store };
    let replica = Replica::open(config).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    let slow = Slow::new(store, Epoch(1));
    let mut state = replica.shared.lock();
    (state.phase, state.is_attached, state.has_session) = (Phase::Epochs(slow.0.clone()), true, true);
    drop(state);
    (replica, slow)
}

#[test]
fn an_epoch_is_acknowledged_when_the_disks_have_room_for_it() {
    let (mut replica, slow) = slow_replica();
    // As the thread does that receives.
    let shared = replica.shared.clone();
    let come = |epoch| {
        slow.0.write(0, 0..8192, vec![1; 8192].into()).unwrap();
        slow.0.barrier(epoch).unwrap();
        shared.lock().barrier = epoch;
    };
    let now = Instant::now();
    come(Epoch(2));
    assert!(replica.wait_barrier(Epoch(2), now), "there is room");
    replica.commit(Epoch(2)).unwrap();
    come(Epoch(3));
    assert!(replica.wait_barrier(Epoch(3), now), "there is still");
    replica.commit(Epoch(3)).unwrap();
    come(Epoch(4));
    assert!(!replica.wait_barrier(Epoch(4), now), "16 KiB are behind");
    slow.go_on();
    assert!(replica.wait_barrier(Epoch(4), now + Duration::from_secs(60)));
    replica.commit(Epoch(4)).unwrap();
}

#[test]
fn a_disk_that_hangs_ends_the_session_and_not_its_threads() {
    let (mut replica, slow) = slow_replica();
    slow.0.barrier(Epoch(2)).unwrap();
    let (disk, (begun, has_begun), (end, ends)) = (replica.disk(0), channel(), channel());
    let hanging = std::thread::spawn(move || {
        disk.with(|_| {
            begun.send(()).unwrap();
            ends.recv().map_err(|_| DiskError::Io)
        })
    });
    has_begun.recv().unwrap();
    replica.freeze_until(Instant::now());
    assert_eq!(replica.commit(Epoch(2)), Err(DiskError::Io));
    assert_eq!(slow.0.epoch(), Epoch(1), "nothing has changed");
    end.send(()).unwrap();
    hanging.join().unwrap().unwrap();
    replica.freeze();
    replica.commit(Epoch(2)).unwrap();
}
