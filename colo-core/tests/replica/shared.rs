//! Both hosts over one disk.

use super::*;
use colo_core::disk::{DiskError, DiskState, FileBackend, SharedFile, Summed, VerifyError};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Both hosts, and the disk that they have.
struct Shared {
    tap: Tap,
    replica: Option<Replica>,
    events: Receiver<DiskEvent>,
    epoch: Epoch,
    folder: Folder,
}

impl Shared {
    fn new() -> Shared {
        let folder = Folder::new();
        new_disk(&folder.0.join("disk"), 1);
        let (disk, size) = SharedFile::open(&folder.0.join("disk")).unwrap();
        let tap = TapConfig { is_shared: true, pending_bytes: u64::MAX, ..TapConfig::default() };
        let tap = Tap::new(vec![(Arc::new(disk), size)], tap);
        let replica = Some(Replica::open(config(&folder.0, "disk")).unwrap());
        Shared { tap, replica, events: unbounded().1, epoch: Epoch::NONE, folder }
    }

    fn protected() -> Shared {
        let mut shared = Shared::new();
        shared.protect();
        shared
    }

    /// A session, up to its first epoch.
    fn protect(&mut self) {
        let (primary, secondary) = channels();
        self.replica().attach(secondary).unwrap();
        self.attach(primary);
        self.wait(|event| *event == DiskEvent::InStep);
        self.epoch = Epoch::NONE;
        self.stage();
        self.apply();
    }

    fn attach(&mut self, primary: StateChannel) {
        let (sender, events) = unbounded();
        self.events = events;
        self.tap.attach(primary, Box::new(move |event| drop(sender.send(event)))).unwrap();
    }

    fn wait(&self, is_awaited: impl Fn(&DiskEvent) -> bool) -> DiskEvent {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("an event");
            if is_awaited(&event) {
                return event;
            }
            assert!(!matches!(event, DiskEvent::Lost(_)), "{event:?}");
        }
    }

    /// Why protection ends.
    fn why_lost(&self) -> String {
        match self.wait(|event| matches!(event, DiskEvent::Lost(_))) {
            DiskEvent::Lost(why) => why,
            other => panic!("{other:?}"),
        }
    }

    fn replica(&mut self) -> &mut Replica {
        self.replica.as_mut().unwrap()
    }

    fn stage(&mut self) {
        self.epoch = self.epoch.next();
        let epoch = self.epoch;
        self.tap.freeze();
        self.tap.barrier(epoch);
        self.tap.thaw();
        assert!(self.replica().wait_barrier(epoch, Instant::now() + PATIENCE));
    }

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

    /// In a thread of its own, for it may have to wait.
    fn begin_write(&self, range: Range<u64>, fill: u8) -> JoinHandle<()> {
        let disk = self.tap.disk(0);
        std::thread::spawn(move || disk.write(range.start, &vec![fill; (range.end - range.start) as usize]).unwrap())
    }

    /// What is on the disk.
    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.folder.0.join("disk")).unwrap()
    }

    /// What the secondary's guest sees.
    fn guest_bytes(&mut self) -> Vec<u8> {
        read_all(&self.replica().disk(0))
    }

    fn take_over(&mut self) {
        let replica = self.replica();
        replica.fenced();
        replica.fail_over().unwrap();
    }
}

fn config(folder: &Path, disk: &str) -> ReplicaConfig {
    let own = replica_config(folder);
    ReplicaConfig { disks: vec![folder.join(disk)], store: StoreConfig { is_shared: true, ..own.store }, ..own }
}

fn next(secondary: &mut StateChannel) -> Message {
    secondary.recv(Instant::now() + PATIENCE).unwrap().expect("a message in time")
}

/// Says what a secondary says that has the same disk, until its first epoch is whole.
fn follow(secondary: &mut StateChannel) {
    loop {
        match next(secondary) {
            Message::DiskFlush { number, .. } => secondary.send(&Message::DiskFlushed { number }).unwrap(),
            Message::DiskShared { sizes } => secondary.send(&Message::DiskShared { sizes }).unwrap(),
            Message::DiskSame { .. } => {}
            Message::DiskBarrier { epoch: Epoch::FIRST, .. } => return,
            other => panic!("{other:?}"),
        }
    }
}

/// A disk that is written to only when it may be.
struct Guarded {
    disk: SharedFile,
    may_be_written: Arc<AtomicBool>,
}

impl Backend for Guarded {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read(offset, bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        assert!(self.may_be_written.load(Ordering::SeqCst), "{} bytes at {offset} are written too early", bytes.len());
        self.disk.write(offset, bytes)
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        assert!(self.may_be_written.load(Ordering::SeqCst), "{length} zeroes at {offset} are written too early");
        self.disk.write_zeroes(offset, length, may_unmap)
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.disk.flush()
    }
}

/// A primary whose secondary is in our hands, in its first epoch.
struct InHand {
    shared: Shared,
    secondary: StateChannel,
    may_be_written: Arc<AtomicBool>,
}

impl InHand {
    fn new() -> InHand {
        let mut shared = Shared::new();
        let (disk, size) = SharedFile::open(&shared.folder.0.join("disk")).unwrap();
        let may_be_written = Arc::new(AtomicBool::new(false));
        let guarded = Guarded { disk, may_be_written: may_be_written.clone() };
        let config = TapConfig { is_shared: true, ..TapConfig::default() };
        shared.tap = Tap::new(vec![(Arc::new(guarded), size)], config);
        let (primary, mut secondary) = channels();
        shared.attach(primary);
        let following = std::thread::spawn(move || {
            follow(&mut secondary);
            secondary
        });
        shared.wait(|event| *event == DiskEvent::InStep);
        shared.tap.barrier(Epoch::FIRST);
        InHand { shared, secondary: following.join().unwrap(), may_be_written }
    }

    /// What stood there, by the primary's word: from where on.
    fn before(&mut self) -> (u64, Summed) {
        match next(&mut self.secondary) {
            Message::DiskBefore { disk: 0, offset, data } => (offset, data),
            other => panic!("{other:?}"),
        }
    }

    fn asked(&mut self) -> u64 {
        match next(&mut self.secondary) {
            Message::DiskFlush { number, is_durable: false } => number,
            other => panic!("{other:?}"),
        }
    }

    /// The secondary has what was said, or never will.
    fn allow(&mut self, answer: Option<u64>) {
        self.may_be_written.store(true, Ordering::SeqCst);
        if let Some(number) = answer {
            self.secondary.send(&Message::DiskFlushed { number }).unwrap();
        }
    }

    fn forbid(&self) {
        self.may_be_written.store(false, Ordering::SeqCst);
    }
}

#[test]
fn nothing_is_changed_before_the_other_host_has_what_stood_there() {
    let mut rig = InHand::new();
    let writing = rig.shared.begin_write(4000..5000, 7);
    let (offset, data) = rig.before();
    assert!((offset, data.len()) == (0, 8192) && data.iter().all(|byte| *byte == 1), "what stood in both blocks");
    let number = rig.asked();
    // Whoever writes to the same block waits for that, too, and does not ask again.
    let behind = rig.shared.begin_write(0..10, 8);
    rig.allow(Some(number));
    writing.join().unwrap();
    behind.join().unwrap();
    rig.shared.write(8191..8192, 9);
    let mut expected = vec![1; SIZE as usize];
    expected[4000..5000].fill(7);
    expected[..10].fill(8);
    expected[8191] = 9;
    assert!(rig.shared.bytes() == expected);
    rig.forbid();
    // Not worth that all of it is saved.
    rig.shared.tap.disk(0).trim(0, SIZE).unwrap();
    // Nothing more was said: what comes is the next epoch, with the hash of the last write.
    rig.shared.tap.barrier(Epoch(2));
    assert!(matches!(next(&mut rig.secondary), Message::DiskSame { disk: 0, offset: 8191, length: 1, .. }));
    assert_eq!(next(&mut rig.secondary), Message::DiskBarrier { epoch: Epoch(2), is_durable: false });
    let disk = rig.shared.tap.disk(0);
    let zeroing = std::thread::spawn(move || disk.write_zeroes(0, 4096, true).unwrap());
    let (offset, data) = rig.before();
    assert!(offset == 0 && data[..] == expected[..4096], "of the epoch before");
    let number = rig.asked();
    rig.allow(Some(number));
    zeroing.join().unwrap();
    expected[..4096].fill(0);
    assert!(rig.shared.bytes() == expected);
    // Of zeroes no byte is sent.
    rig.shared.tap.barrier(Epoch(3));
    assert!(matches!(next(&mut rig.secondary), Message::DiskBarrier { epoch: Epoch(3), .. }));
    let writing = rig.shared.begin_write(512..1024, 7);
    let zeroes = Message::DiskBeforeZeroes { disk: 0, offset: 0, length: 4096 };
    assert_eq!(next(&mut rig.secondary), zeroes);
    let number = rig.asked();
    rig.allow(Some(number));
    writing.join().unwrap();
}

#[test]
fn who_has_lost_the_other_waits_for_the_word_that_it_does_not_serve() {
    let mut rig = InHand::new();
    let saving = rig.shared.begin_write(0..4096, 7);
    rig.before();
    let number = rig.asked();
    rig.allow(Some(number));
    saving.join().unwrap();
    // The other can put that right.
    rig.shared.write(100..200, 6);
    rig.forbid();
    let asking = rig.shared.begin_write(4096..8192, 8);
    rig.before();
    let InHand { mut shared, secondary, may_be_written } = rig;
    drop(secondary);
    shared.why_lost();
    assert!(matches!(shared.tap.status().state, DiskState::Held(Some(_))), "{:?}", shared.tap.status());
    let new = shared.begin_write(1 << 20..1 << 21, 9);
    // An epoch does not end any more, and nobody waits for it.
    shared.tap.barrier(Epoch(2));
    shared.tap.detach();
    let mut expected = vec![1; SIZE as usize];
    expected[..4096].fill(7);
    expected[100..200].fill(6);
    assert!(shared.bytes() == expected);
    may_be_written.store(true, Ordering::SeqCst);
    shared.tap.alone();
    asking.join().unwrap();
    new.join().unwrap();
    expected[4096..8192].fill(8);
    expected[1 << 20..1 << 21].fill(9);
    assert!(shared.bytes() == expected);
    assert!(matches!(shared.tap.status().state, DiskState::Alone(_)));
    shared.write(0..SIZE, 5);
}

#[test]
fn the_secondarys_guest_sees_its_epoch_while_the_primary_writes() {
    let mut shared = Shared::protected();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (disk, stop) = (shared.replica().disk(0), stop.clone());
            std::thread::spawn(move || {
                let mut bytes = vec![0; 256 << 10];
                while !stop.load(Ordering::Relaxed) {
                    disk.read(0, &mut bytes).unwrap();
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "it is of two epochs");
                }
            })
        })
        .collect();
    for fill in 2..40 {
        for part in 0..64 {
            shared.write(part * 4096..(part + 1) * 4096, fill);
        }
        shared.stage();
        shared.write(0..4096, 0);
        shared.write(0..4096, fill);
        shared.apply();
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn a_takeover_puts_the_disk_back_to_its_epoch_even_if_that_is_interrupted() {
    for is_interrupted in [false, true] {
        let mut shared = Shared::protected();
        shared.write(0..100_000, 3);
        shared.stage();
        shared.apply();
        shared.write(50_000..60_000, 4);
        shared.tap.disk(0).write_zeroes(200_000, 1 << 20, true).unwrap();
        shared.stage();
        shared.write(55_000..70_000, 5);
        shared.replica().disk(0).write(58_000, &[6; 4000]).unwrap();
        let expected = shared.guest_bytes();
        assert_eq!([0, 50_000, 58_000, 62_000, 99_999, 300_000].map(|at| expected[at]), [3, 3, 6, 3, 3, 1]);
        assert!(shared.bytes() != expected);
        shared.tap.detach();
        let refused = shared.replica().fail_over();
        assert!(refused.is_err() && !shared.replica().serves(), "nobody has fenced the primary");
        shared.take_over();
        assert!(shared.guest_bytes() == expected);
        if is_interrupted {
            shared.replica = None;
            shared.replica = Some(Replica::open(config(&shared.folder.0, "disk")).unwrap());
        }
        assert!(shared.replica().serves() && shared.guest_bytes() == expected);
        shared.replica().settle().unwrap();
        assert!(shared.bytes() == expected);
        // It goes on by itself, and can be protected from there.
        let own = shared.replica().disk(0);
        own.write(10, b"serves").unwrap();
        own.publish().unwrap();
        assert_eq!(&shared.bytes()[10..16], b"serves");
    }
}

#[test]
fn a_secondary_that_is_restarted_leaves_the_disk_alone() {
    let mut shared = Shared::protected();
    shared.write(0..100_000, 3);
    shared.replica().disk(0).write(0, &[9; 5000]).unwrap();
    shared.stage();
    shared.write(50_000..60_000, 4);
    let expected = shared.bytes();
    shared.replica = None;
    shared.replica = Some(Replica::open(config(&shared.folder.0, "disk")).unwrap());
    assert!(!shared.replica().serves());
    shared.replica().settle().unwrap();
    assert!(shared.bytes() == expected && shared.guest_bytes() == expected);
    shared.why_lost();
    // What waits for the secondary's end is done when that follows anew.
    let waiting = shared.begin_write(0..10, 6);
    shared.protect();
    waiting.join().unwrap();
    shared.stage();
    shared.apply();
    let mut expected = expected;
    expected[..10].fill(6);
    assert!(shared.bytes() == expected && shared.guest_bytes() == expected);
    // One that is none of its kind is refused.
    drop(shared.replica.take());
    let other = ReplicaConfig { store: StoreConfig::default(), ..config(&shared.folder.0, "disk") };
    let locked = Replica::open(other.clone()).err().expect("the primary has it").to_string();
    assert!(locked.ends_with("another process has locked it"), "{locked}");
    drop(shared.tap);
    let why = Replica::open(other).err().expect("a journal of another kind").to_string();
    assert!(why.contains("disks that are shared with another host, and these are not"), "{why}");
}

#[test]
fn what_is_not_one_disk_is_refused_on_both_hosts() {
    let ended = |replica: &Replica| match replica.status().state {
        DiskState::Alone(Some(why)) => why,
        other => panic!("{other:?}"),
    };
    // One of another size, one with something else in it, and one that is not shared.
    let (short, other, own) = (vec![1; 8192], vec![2; SIZE as usize], vec![1; SIZE as usize]);
    for (bytes, is_shared, why) in [
        (short, true, "they are not the same ones"),
        (other, true, "disk 0 is not the same one on both hosts: what the primary has at byte 0 is not there"),
        (own, false, "the primary's disks are shared, and this host's are not: serve them with --shared on both"),
    ] {
        let mut shared = Shared::new();
        std::fs::write(shared.folder.0.join("other"), &bytes).unwrap();
        let mut config = config(&shared.folder.0, "other");
        config.store.is_shared = is_shared;
        config.journal = shared.folder.0.join("another journal");
        shared.replica = Some(Replica::open(config).unwrap());
        let (primary, secondary) = channels();
        shared.replica().attach(secondary).unwrap();
        shared.attach(primary);
        let lost = shared.why_lost();
        assert!(lost.contains(why), "{lost}");
        assert!(!shared.replica().wait_barrier(Epoch::FIRST, Instant::now() + PATIENCE));
        assert_eq!(ended(shared.replica()), lost);
        assert!(shared.bytes() == [1; SIZE as usize]);
        assert!(std::fs::read(shared.folder.0.join("other")).unwrap() == bytes);
        // Nobody goes back to an epoch: there was none.
        shared.write(0..10, 3);
    }
    // A primary whose disk is its own.
    let mut shared = Shared::new();
    let own = new_disk(&shared.folder.0.join("own"), 1);
    shared.tap = Tap::new(vec![(Arc::new(FileBackend::new(own)), SIZE)], TapConfig::default());
    let (primary, secondary) = channels();
    shared.replica().attach(secondary).unwrap();
    shared.attach(primary);
    let lost = shared.why_lost();
    assert!(lost.starts_with("the secondary's disks are shared, and the primary's are not"), "{lost}");
}

#[test]
fn a_copy_of_a_disk_is_found_to_be_one_before_there_is_an_epoch() {
    let mut shared = Shared::new();
    std::fs::write(shared.folder.0.join("copy"), shared.bytes()).unwrap();
    // The journal is one replica's.
    shared.replica = None;
    shared.replica = Some(Replica::open(config(&shared.folder.0, "copy")).unwrap());
    let (primary, secondary) = channels();
    shared.replica().attach(secondary).unwrap();
    shared.attach(primary);
    shared.wait(|event| *event == DiskEvent::InStep);
    assert_eq!(shared.tap.verify(Box::new(|_| {})).err(), Some(VerifyError::Shared));
    shared.write(70_000..80_000, 3);
    shared.tap.barrier(Epoch::FIRST);
    assert!(!shared.replica().wait_barrier(Epoch::FIRST, Instant::now() + PATIENCE));
    let lost = shared.why_lost();
    assert!(lost.contains("what the primary has at byte 70000 is not there on the secondary's"), "{lost}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_is_at_the_epoch_and_what_the_guest_has_written_since(life in prop::collection::vec(happens(), 1..40)) {
        let mut shared = Shared::protected();
        let mut now = shared.bytes();
        let (mut staged, mut seen) = (None, now.clone());
        for event in life {
            match event {
                Happens::Write(range, fill) => {
                    shared.write(range.clone(), fill);
                    now[range.start as usize..range.end as usize].fill(fill);
                }
                Happens::Zeroes(range) => {
                    shared.tap.disk(0).write_zeroes(range.start, range.end - range.start, true).unwrap();
                    now[range.start as usize..range.end as usize].fill(0);
                }
                Happens::Own(range, fill) => {
                    let bytes = vec![fill; (range.end - range.start) as usize];
                    shared.replica().disk(0).write(range.start, &bytes).unwrap();
                    seen[range.start as usize..range.end as usize].fill(fill);
                }
                Happens::Stage if staged.is_none() => {
                    shared.stage();
                    staged = Some(now.clone());
                }
                Happens::Apply => {
                    if let Some(bytes) = staged.take() {
                        shared.apply();
                        seen = bytes;
                    }
                }
                Happens::Stage => {}
                Happens::Again | Happens::Restart => {
                    shared.tap.detach();
                    if matches!(event, Happens::Restart) {
                        shared.replica = None;
                        shared.replica = Some(Replica::open(config(&shared.folder.0, "disk")).unwrap());
                    }
                    prop_assert!(shared.bytes() == now, "the disk is the primary's");
                    shared.protect();
                    (staged, seen) = (None, now.clone());
                }
            }
            prop_assert!(shared.guest_bytes() == seen);
        }
        prop_assert!(shared.bytes() == now);
        shared.tap.detach();
        shared.take_over();
        prop_assert!(shared.guest_bytes() == seen);
        shared.replica().settle().unwrap();
        prop_assert!(shared.bytes() == seen);
    }
}
