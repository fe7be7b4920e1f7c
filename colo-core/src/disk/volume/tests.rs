//! A volume whose threads are held.

use super::files::write_parts;
use super::*;
use crate::disk::Action;
use std::fs::OpenOptions;
use std::sync::atomic::{AtomicU64, Ordering};

const SIZE: u64 = 1 << 20;

/// A file of that length that nobody else sees.
fn file(bytes: u64) -> File {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("colo-volume-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.set_len(bytes).unwrap();
    file
}

/// A volume whose disk of 1 MiB does not get on before [`Slow::go_on`].
pub(in crate::disk) struct Slow(pub(in crate::disk) Arc<Volume>);

impl Slow {
    pub(in crate::disk) fn new(config: StoreConfig, epoch: Epoch) -> Slow {
        let store = EpochStore::new(config, &[SIZE], epoch, 7);
        Slow(Arc::new(Volume::idle(store, file(0), vec![file(SIZE)], config.is_shared).unwrap()))
    }

    pub(in crate::disk) fn go_on(&self) {
        // It ends with the volume.
        let _ = self.0.hire().unwrap();
    }
}

#[test]
fn a_guest_is_told_of_a_write_only_when_all_before_it_are_in_the_journal() {
    let (journal, disk) = (file(0), file(SIZE));
    let (config, disks) = (StoreConfig::default(), vec![disk.try_clone().unwrap()]);
    let volume = Volume::create(config, journal.try_clone().unwrap(), disks, Epoch::NONE).unwrap();
    assert!(volume.look(EpochStore::has_begun), "or there would be no journal after a loss of power");
    // A thread that has the takeover and a write to put into the journal, and gets no further.
    let mut state = volume.shared.lock();
    state.store.fail_over().unwrap();
    let _ = state.store.write(0, 0..5, b"first".to_vec().into()).unwrap();
    let held: Vec<_> = std::iter::from_fn(|| state.store.poll_action()).collect();
    drop(state);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| volume.write_guest(0, 5..11, b"second".to_vec().into()));
        while volume.shared.lock().waiting == 0 {
            assert!(!second.is_finished(), "the guest was told of what a dead process would not leave behind");
            std::thread::yield_now();
        }
        let mut state = volume.shared.lock();
        for (id, action) in held {
            let Action::Journal { at, parts } = action else { panic!("{action:?}") };
            write_parts(&volume.shared.journal, at, &parts).unwrap();
            state.store.done(id);
        }
        volume.shared.carry_out(state);
        second.join().unwrap().unwrap();
    });
    drop(volume);
    let volume = Volume::recover(StoreConfig::default(), journal, vec![disk]).unwrap();
    let mut bytes = [0; 11];
    volume.read(0, 0, &mut bytes).unwrap();
    assert_eq!((volume.serves(), &bytes), (true, b"firstsecond"));
}

#[test]
fn writers_wait_for_a_slow_disk_and_nothing_else_does() {
    let config = StoreConfig { behind_bytes: 64 << 10, ..StoreConfig::default() };
    let slow = Slow::new(config, Epoch::NONE);
    let volume = &slow.0;
    let (now, mut epoch) = (Instant::now(), Epoch::NONE);
    let write = |epoch: Epoch| {
        let at = epoch.0 * 8192 % SIZE;
        volume.write(0, at..at + 8192, vec![epoch.0 as u8; 8192].into())
    };
    while volume.wait_for_room(now).unwrap() {
        epoch = epoch.next();
        write(epoch).unwrap();
        volume.barrier(epoch).unwrap();
        volume.commit(epoch).unwrap();
    }
    assert_eq!(epoch, Epoch(8), "eight epochs of 8 KiB and some records");
    // What comes then is taken, and the guest's own; and neither a commit waits nor a takeover.
    write(epoch.next()).unwrap();
    volume.barrier(epoch.next()).unwrap();
    volume.commit(epoch.next()).unwrap();
    volume.write_guest(0, 0..3, b"own".to_vec().into()).unwrap();
    volume.fail_over().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| volume.write_guest(0, 3..7, b"more".to_vec().into()));
        while volume.shared.lock().waiting == 0 {
            assert!(!writer.is_finished(), "the guest writes faster than its disk");
            std::thread::yield_now();
        }
        let mut bytes = [9; 8];
        volume.read(0, 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"own\0\0\0\0\0", "it reads meanwhile");
        slow.go_on();
        writer.join().unwrap().unwrap();
        volume.flush_guest().unwrap();
    });
    volume.settle().unwrap();
    assert_eq!(volume.look(EpochStore::behind_bytes), 0);
    let mut bytes = [0; 8];
    volume.shared.disks[0].read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"ownmore\0");
}
