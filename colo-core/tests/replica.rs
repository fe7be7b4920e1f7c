//! A machine's disks on both hosts, over a real connection: what the guest writes on one is what the other has, epoch by epoch.

#[path = "support/breakable.rs"]
mod breakable;
#[path = "replica/failing.rs"]
mod failing;
#[path = "support/folder.rs"]
mod folder;
#[path = "replica/shared.rs"]
mod shared;

use breakable::Breakable;
use colo_core::disk::{
    Backend, DiskEvent, Durability, PrimaryDisks, Replica, ReplicaConfig, SecondaryDisks, StoreConfig, Tap, TapConfig,
};
use colo_core::ids::Epoch;
use colo_core::peer::{Message, StateChannel};
use crossbeam_channel::{Receiver, unbounded};
use folder::Folder;
use proptest::prelude::*;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Not a whole number of the parts that are compared.
const SIZE: u64 = (5 << 20) + 512 * 7;
const PATIENCE: Duration = Duration::from_secs(20);

/// Both hosts.
struct Rig {
    tap: Tap,
    /// The primary's disk.
    disk: Arc<Breakable>,
    replica: Option<Replica>,
    events: Receiver<DiskEvent>,
    epoch: Epoch,
    folder: Folder,
}

impl Rig {
    /// Two hosts whose disks have nothing in common.
    fn new(config: TapConfig) -> Rig {
        let folder = Folder::new();
        let disk = Breakable::new(new_disk(&folder.0.join("primary"), 1));
        new_disk(&folder.0.join("secondary"), 2);
        let tap = Tap::new(vec![(disk.clone(), SIZE)], config);
        let replica = Some(Replica::open(replica_config(&folder.0)).unwrap());
        Rig { tap, disk, replica, events: crossbeam_channel::never(), epoch: Epoch::NONE, folder }
    }

    /// Begins a session, and waits until both disks are the same and the first epoch has begun.
    fn protect(&mut self) {
        let (primary, secondary) = channels();
        self.replica().attach(secondary).unwrap();
        let (sender, events) = unbounded();
        self.events = events;
        self.tap.attach(primary, Box::new(move |event| drop(sender.send(event)))).unwrap();
        self.wait(|event| *event == DiskEvent::InStep);
        self.epoch = Epoch::NONE;
        self.checkpoint();
    }

    fn replica(&mut self) -> &mut Replica {
        self.replica.as_mut().unwrap()
    }

    fn wait(&self, is_awaited: impl Fn(&DiskEvent) -> bool) -> DiskEvent {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("an event");
            assert!(is_awaited(&event) || !matches!(event, DiskEvent::Lost(_)), "{event:?}");
            if is_awaited(&event) {
                return event;
            }
        }
    }

    fn checkpoint(&mut self) {
        self.stage();
        self.apply();
    }

    /// An epoch ends on the primary, and is whole on the secondary.
    fn stage(&mut self) {
        self.epoch = self.epoch.next();
        self.tap.freeze();
        self.tap.barrier(self.epoch);
        self.tap.thaw();
        let epoch = self.epoch;
        assert!(self.replica().wait_barrier(epoch, Instant::now() + PATIENCE));
    }

    /// It counts.
    fn apply(&mut self) {
        let epoch = self.epoch;
        let replica = self.replica();
        replica.release();
        replica.freeze();
        replica.commit(epoch).unwrap();
        replica.thaw();
        self.tap.committed(epoch);
    }

    fn write(&self, range: Range<u64>, fill: u8) {
        self.tap.disk(0).write(range.start, &vec![fill; (range.end - range.start) as usize]).unwrap();
    }

    fn primary_bytes(&self) -> Vec<u8> {
        std::fs::read(self.folder.0.join("primary")).unwrap()
    }

    /// What the secondary's guest sees.
    fn guest_bytes(&mut self) -> Vec<u8> {
        read_all(&self.replica().disk(0))
    }

    /// What is on the secondary's disk itself, with nothing over it.
    fn settled_bytes(&mut self) -> Vec<u8> {
        self.replica().settle().unwrap();
        std::fs::read(self.folder.0.join("secondary")).unwrap()
    }
}

fn replica_config(folder: &Path) -> ReplicaConfig {
    let store = StoreConfig { memory_bytes: 1 << 20, ..StoreConfig::default() };
    ReplicaConfig { disks: vec![folder.join("secondary")], journal: folder.join("journal"), store }
}

fn new_disk(path: &PathBuf, fill: u8) -> File {
    std::fs::write(path, vec![fill; SIZE as usize]).unwrap();
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn channels() -> (StateChannel, StateChannel) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let primary = StateChannel::connect(&address, PATIENCE, Instant::now() + PATIENCE).unwrap();
    (primary, StateChannel::new(listener.accept().unwrap().0, PATIENCE).unwrap())
}

fn read_all(disk: &dyn Backend) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    disk.read(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn the_first_copy_makes_both_the_same_while_the_guest_writes() {
    let mut rig = Rig::new(TapConfig::default());
    let writer = std::thread::spawn({
        let disk = rig.tap.disk(0);
        move || {
            for number in 0..2000_u64 {
                let offset = number * 7919 % (SIZE - 3000);
                disk.write(offset, &[number as u8; 3000]).unwrap();
            }
        }
    });
    rig.protect();
    writer.join().unwrap();
    rig.checkpoint();
    assert!(rig.primary_bytes() == rig.guest_bytes());
    assert!(rig.primary_bytes() == rig.settled_bytes());
}

#[test]
fn what_is_the_same_already_is_not_copied() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.tap.detach();
    rig.write(100_000..100_001, 9);
    // A secondary of our own, which counts.
    let (primary, mut secondary) = channels();
    let sizes = std::thread::spawn({
        let bytes = rig.settled_bytes();
        move || count_written(&mut secondary, bytes)
    });
    let (sender, events) = unbounded();
    rig.events = events;
    rig.tap.attach(primary, Box::new(move |event| drop(sender.send(event)))).unwrap();
    rig.wait(|event| *event == DiskEvent::InStep);
    rig.tap.detach();
    assert_eq!(sizes.join().unwrap(), [64 << 10], "one part was changed");
}

/// Answers with the hashes of these bytes, and returns the lengths of what is written, until the connection ends.
fn count_written(channel: &mut StateChannel, bytes: Vec<u8>) -> Vec<usize> {
    let mut written = Vec::new();
    while let Ok(message) = channel.recv(Instant::now() + PATIENCE) {
        match message.expect("a message in time") {
            Message::DiskHashesWanted { disk, offset, length, seed } => {
                let asked = &bytes[offset as usize..][..length as usize];
                let hash = |part| xxhash_rust::xxh3::xxh3_128_with_seed(part, seed);
                let hashes = asked.chunks(64 << 10).map(hash).collect();
                channel.send(&Message::DiskHashes { disk, offset, hashes }).unwrap();
            }
            Message::DiskWrite { data, .. } => written.push(data.len()),
            other => panic!("{other:?}"),
        }
    }
    written
}

#[test]
fn nothing_counts_before_its_checkpoint() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    let before = rig.primary_bytes();
    rig.write(1000..5000, 3);
    rig.stage();
    assert!(rig.guest_bytes() == before, "the guest sees an epoch that does not count");
    rig.write(1000..5000, 4);
    rig.apply();
    let mut expected = before;
    expected[1000..5000].fill(3);
    assert!(rig.guest_bytes() == expected);
    assert!(rig.settled_bytes() == expected, "the disk is ahead of its epoch");
}

#[test]
fn at_failover_the_open_epoch_goes_and_the_guests_own_stays() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.write(0..4096, 3);
    rig.checkpoint();
    rig.write(4096..8192, 4);
    let own = rig.replica().disk(0);
    own.write(2048, &[5; 4096]).unwrap();
    let mut expected = rig.guest_bytes();
    assert_eq!((expected[0], expected[2048], expected[6143], expected[6144]), (3, 5, 5, 1));
    rig.tap.detach();
    rig.replica().fail_over().unwrap();
    assert!(rig.guest_bytes() == expected);
    own.write(0, b"serves").unwrap();
    own.flush().unwrap();
    expected[..6].copy_from_slice(b"serves");
    assert!(rig.settled_bytes() == expected);
}

#[test]
fn a_flush_waits_for_the_secondary_where_it_is_to() {
    for durability in [Durability::AsyncEpoch, Durability::Memory, Durability::Disk] {
        let mut rig = Rig::new(TapConfig { durability, ..TapConfig::default() });
        rig.tap.disk(0).flush().unwrap();
        let (primary, mut secondary) = channels();
        rig.tap.attach(primary, Box::new(|_| {})).unwrap();
        let flushing = std::thread::spawn({
            let disk = rig.tap.disk(0);
            move || disk.flush().unwrap()
        });
        if durability == Durability::AsyncEpoch {
            flushing.join().unwrap();
            continue;
        }
        let asked = loop {
            let message = secondary.recv(Instant::now() + PATIENCE).unwrap().expect("a message in time");
            if let Message::DiskFlush { number, is_durable } = message {
                break (number, is_durable);
            }
        };
        assert_eq!(asked, (1, durability == Durability::Disk));
        assert!(!flushing.is_finished());
        secondary.send(&Message::DiskFlushed { number: 1 }).unwrap();
        flushing.join().unwrap();
        // One that is never answered ends with the connection.
        let flushing = std::thread::spawn({
            let disk = rig.tap.disk(0);
            move || disk.flush().unwrap()
        });
        while !matches!(secondary.recv(Instant::now() + PATIENCE).unwrap(), Some(Message::DiskFlush { number: 2, .. }))
        {
        }
        drop(secondary);
        flushing.join().unwrap();
    }
}

#[test]
fn a_writer_waits_for_a_checkpoint_when_too_much_waits_and_not_while_it_is_taken() {
    let mut rig = Rig::new(TapConfig { pending_bytes: 1 << 20, ..TapConfig::default() });
    rig.protect();
    rig.write(0..600_000, 3);
    rig.wait(|event| *event == DiskEvent::WantsCheckpoint);
    rig.write(0..600_000, 4);
    // This one finds no room: it is done once a checkpoint is being taken, or has counted.
    let (sender, done) = unbounded();
    let writing = std::thread::spawn({
        let disk = rig.tap.disk(0);
        move || {
            disk.write(0, &[5; 1000]).unwrap();
            sender.send(()).unwrap();
            disk.write(0, &[6; 1000]).unwrap();
        }
    });
    assert!(done.try_recv().is_err());
    rig.tap.freeze();
    done.recv_timeout(PATIENCE).unwrap();
    rig.tap.thaw();
    rig.checkpoint();
    writing.join().unwrap();
    rig.checkpoint();
    assert!(rig.primary_bytes() == rig.settled_bytes());
}

#[test]
fn a_secondary_that_lies_or_goes_is_left() {
    let mut rig = Rig::new(TapConfig::default());
    let lies: [fn(&mut StateChannel); 4] = [
        |secondary| secondary.send(&Message::DiskHashes { disk: 0, offset: 1, hashes: vec![0; 64] }).unwrap(),
        |secondary| secondary.send(&Message::DiskHashes { disk: 0, offset: 0, hashes: vec![0; 3] }).unwrap(),
        |secondary| secondary.send(&Message::CheckpointWanted).unwrap(),
        |_| {},
    ];
    for lie in lies {
        let (primary, mut secondary) = channels();
        let (sender, events) = unbounded();
        rig.events = events;
        rig.tap.attach(primary, Box::new(move |event| drop(sender.send(event)))).unwrap();
        lie(&mut secondary);
        drop(secondary);
        rig.wait(|event| matches!(event, DiskEvent::Lost(_)));
        // The guest does not notice.
        rig.write(0..512, 8);
    }
}

#[test]
fn a_primary_that_lies_is_left_and_changes_nothing() {
    let mut rig = Rig::new(TapConfig::default());
    let before = rig.settled_bytes();
    let data = colo_core::disk::Summed::from(vec![7; 512]);
    let lies = [
        Message::DiskWrite { disk: 0, offset: SIZE - 511, data: data.clone() },
        Message::DiskWrite { disk: 1, offset: 0, data: data.clone() },
        Message::DiskWrite { disk: 0, offset: u64::MAX, data },
        Message::DiskZeroes { disk: 0, offset: 1, length: u64::MAX, may_unmap: true },
        Message::DiskBarrier { epoch: Epoch(2), is_durable: false },
        Message::DiskHashesWanted { disk: 0, offset: SIZE, length: 1, seed: 0 },
        Message::DiskFlushed { number: 1 },
    ];
    for lie in lies {
        let (mut primary, secondary) = channels();
        rig.replica().attach(secondary).unwrap();
        primary.send(&lie).unwrap();
        // It hears nothing but the end.
        assert!(primary.recv(Instant::now() + PATIENCE).is_err(), "{lie:?}");
        assert!(!rig.replica().wait_barrier(Epoch(1), Instant::now() + PATIENCE));
        assert!(std::fs::read(rig.folder.0.join("secondary")).unwrap() == before, "{lie:?}");
    }
}

#[test]
fn disks_that_another_has_are_refused() {
    let mut rig = Rig::new(TapConfig::default());
    let why = Replica::open(replica_config(&rig.folder.0)).err().expect("two of them").to_string();
    assert!(why.ends_with("secondary: another process has locked it"), "{why}");
    rig.protect();
    rig.checkpoint();
    rig.replica = None;
    std::fs::write(rig.folder.0.join("other"), [0; 512]).unwrap();
    let other = ReplicaConfig { disks: vec![rig.folder.0.join("other")], ..replica_config(&rig.folder.0) };
    let why = Replica::open(other).err().expect("another disk").to_string();
    assert!(why.contains("journal: the journal is of disks of"), "{why}");
}

/// What happens in the life of two hosts.
#[derive(Clone, Debug)]
enum Happens {
    Write(Range<u64>, u8),
    Zeroes(Range<u64>),
    Own(Range<u64>, u8),
    Stage,
    Apply,
    /// The session ends, and the next begins.
    Again,
    /// The secondary's process ends, and another takes its disks up.
    Restart,
}

fn happens() -> impl Strategy<Value = Happens> {
    let range = || (0..SIZE, 1_u64..200_000).prop_map(|(from, length)| from..SIZE.min(from + length));
    prop_oneof![
        6 => (range(), any::<u8>()).prop_map(|(range, fill)| Happens::Write(range, fill)),
        2 => range().prop_map(Happens::Zeroes),
        3 => (range(), any::<u8>()).prop_map(|(range, fill)| Happens::Own(range, fill)),
        3 => Just(Happens::Stage),
        3 => Just(Happens::Apply),
        1 => Just(Happens::Again),
        1 => Just(Happens::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_secondarys_guest_sees_the_last_epoch_that_counts_and_its_own(life in prop::collection::vec(happens(), 1..40)) {
        let mut rig = Rig::new(TapConfig { pending_bytes: u64::MAX, ..TapConfig::default() });
        rig.protect();
        let mut now = rig.primary_bytes();
        let (mut staged, mut seen) = (None, now.clone());
        let mut counts = now.clone();
        for event in life {
            match event {
                Happens::Write(range, fill) => {
                    rig.write(range.clone(), fill);
                    now[range.start as usize..range.end as usize].fill(fill);
                }
                Happens::Zeroes(range) => {
                    rig.tap.disk(0).write_zeroes(range.start, range.end - range.start, true).unwrap();
                    now[range.start as usize..range.end as usize].fill(0);
                }
                Happens::Own(range, fill) => {
                    let bytes = vec![fill; (range.end - range.start) as usize];
                    rig.replica().disk(0).write(range.start, &bytes).unwrap();
                    seen[range.start as usize..range.end as usize].fill(fill);
                }
                Happens::Stage if staged.is_none() => {
                    rig.stage();
                    staged = Some(now.clone());
                }
                Happens::Apply => {
                    if let Some(bytes) = staged.take() {
                        rig.apply();
                        (counts, seen) = (bytes.clone(), bytes);
                    }
                }
                Happens::Stage => {}
                Happens::Again | Happens::Restart => {
                    rig.tap.detach();
                    if matches!(event, Happens::Restart) {
                        rig.replica = None;
                        rig.replica = Some(Replica::open(replica_config(&rig.folder.0)).unwrap());
                    }
                    prop_assert!(rig.settled_bytes() == counts, "the disk is not at the last epoch that counts");
                    rig.protect();
                    (staged, seen, counts) = (None, now.clone(), now.clone());
                }
            }
            prop_assert!(rig.guest_bytes() == seen);
        }
        prop_assert!(rig.primary_bytes() == now);
        rig.tap.detach();
        rig.replica().fail_over().unwrap();
        prop_assert!(rig.guest_bytes() == seen);
        prop_assert!(rig.settled_bytes() == seen);
    }
}

#[test]
fn a_journal_that_was_being_begun_when_the_power_went_is_a_new_one() {
    let mut rig = Rig::new(TapConfig::default());
    let journal = rig.folder.0.join("journal");
    // Only its length was durable, or some of its superblock.
    let torn = [vec![0; 4096], b"COLODISK\x02\0\0\0".to_vec(), vec![0; 192]].concat();
    for left in [vec![0; 4300], torn] {
        rig.replica = None;
        std::fs::write(&journal, left).unwrap();
        rig.replica = Some(Replica::open(replica_config(&rig.folder.0)).unwrap());
        assert_eq!(rig.replica().epoch(), None);
    }
    rig.protect();
    rig.write(0..5000, 3);
    rig.checkpoint();
    rig.tap.detach();
    rig.replica = None;
    // But one that is damaged may have had something in it.
    let mut damaged = std::fs::read(&journal).unwrap();
    damaged[..8192].fill(0);
    std::fs::write(&journal, &damaged).unwrap();
    let error = Replica::open(replica_config(&rig.folder.0)).err().unwrap().to_string();
    assert!(error.contains("its beginning is damaged") && error.contains("remove it"), "{error}");
    assert!(std::fs::read(&journal).unwrap() == damaged);
}
