//! The store against a model: arrays of bytes, one for each epoch; with actions that are carried out in any order, and crashes at any moment.

mod shared;

use super::journal::ReadAt;
use super::*;
use crate::ids::Epoch;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

const DISKS: usize = 2;
const SIZE: u64 = 4096;
/// What a device writes whole or not at all.
const SECTOR: usize = 64;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn range(&mut self) -> Range<u64> {
        let start = self.below(SIZE);
        start..(start + 1 + self.below(700)).min(SIZE)
    }
}

/// A file whose writes are safe when they are made durable, and may be lost or torn until then.
#[derive(Clone, Default)]
struct Device {
    durable: Vec<u8>,
    written: Vec<(u64, Vec<u8>)>,
}

impl Device {
    fn put(bytes: &mut Vec<u8>, at: u64, data: &[u8]) {
        let end = at as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at as usize..end].copy_from_slice(data);
    }

    fn write(&mut self, at: u64, data: Vec<u8>) {
        self.written.push((at, data));
    }

    fn sync(&mut self) {
        for (at, data) in std::mem::take(&mut self.written) {
            Device::put(&mut self.durable, at, &data);
        }
    }

    fn now(&self) -> Vec<u8> {
        let mut device = self.clone();
        device.sync();
        device.durable
    }

    /// The power goes: of what was not durable any sectors are there, and any are not.
    fn crash(&mut self, random: &mut Random) {
        for (at, data) in std::mem::take(&mut self.written) {
            for (number, sector) in data.chunks(SECTOR).enumerate() {
                if random.below(2) == 0 {
                    Device::put(&mut self.durable, at + (number * SECTOR) as u64, sector);
                }
            }
        }
    }
}

impl ReadAt for Device {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let now = self.now();
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = now.get(offset as usize + index).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.now().len() as u64)
    }
}

type Disks = Vec<Vec<u8>>;

/// A piece that was read, and what was in it.
type Found = (Range<u64>, Source, Vec<u8>);

struct Bench {
    random: Random,
    store: EpochStore,
    journal: Device,
    disks: Vec<Device>,
    waiting: Vec<(ActionId, Action)>,
    /// What the disks were at each epoch.
    epochs: BTreeMap<Epoch, Disks>,
    /// What the primary has written by now.
    primary: Disks,
    /// At each barrier.
    barriers: BTreeMap<Epoch, Disks>,
    /// What the secondary's guest sees.
    seen: Disks,
    serves: bool,
    /// The epoch at which it has begun to.
    served_at: Epoch,
    /// Reads under way, and what they are to find in what is not the disk's.
    reads: Vec<(ReadId, Vec<Found>)>,
}

fn config(random: &mut Random) -> StoreConfig {
    StoreConfig {
        memory_bytes: random.below(3) * 1500,
        long_bytes: random.below(3) * 700,
        pending_bytes: 1 << 20,
        fold_bytes: 1 + random.below(2000),
        segment_bytes: (4 + random.below(30)) * 64,
        journal_bytes: random.below(3) * 4000,
        is_shared: false,
    }
}

impl Bench {
    fn new(seed: u64) -> Bench {
        Bench::with(seed, config)
    }

    fn with(seed: u64, config: fn(&mut Random) -> StoreConfig) -> Bench {
        let mut random = Random(seed);
        let disks: Disks = (0..DISKS).map(|_| (0..SIZE).map(|_| random.next() as u8).collect()).collect();
        let store = EpochStore::new(config(&mut random), &[SIZE; DISKS], Epoch(5), random.next());
        Bench {
            store,
            journal: Device::default(),
            disks: disks.iter().map(|disk| Device { durable: disk.clone(), written: Vec::new() }).collect(),
            waiting: Vec::new(),
            epochs: BTreeMap::from([(Epoch(5), disks.clone())]),
            barriers: BTreeMap::new(),
            primary: disks.clone(),
            seen: disks,
            serves: false,
            served_at: Epoch::NONE,
            reads: Vec::new(),
            random,
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=4 => self.write(),
            5..=7 if !self.serves => {
                let (disk, range, change) = self.change();
                apply(&mut self.seen[usize::from(disk)], &range, &change);
                self.store.write_overlay(disk, range, change).unwrap();
            }
            8..=9 if !self.serves => {
                let epoch = self.store.last_barrier().next();
                self.store.barrier(epoch).unwrap();
                self.barriers.insert(epoch, self.primary.clone());
            }
            10 if !self.serves && self.store.last_barrier() > self.store.epoch() => {
                let whole = self.store.last_barrier().0 - self.store.epoch().0;
                let epoch = Epoch(self.store.epoch().0 + 1 + self.random.below(whole));
                self.store.commit(epoch).unwrap();
                self.seen = self.barriers[&epoch].clone();
                self.epochs.insert(epoch, self.seen.clone());
            }
            11 if !self.serves && self.random.below(4) == 0 => {
                self.store.abort();
                self.primary = self.epochs[&self.store.epoch()].clone();
            }
            12 if !self.serves && self.random.below(8) == 0 => {
                self.served_at = self.store.epoch();
                self.store.fail_over().unwrap();
                self.serves = true;
            }
            13 if self.serves => drop(self.store.flush()),
            14..=15 => self.read(),
            16 => drop(self.store.make_durable()),
            _ => drop(self.act()),
        }
        self.note_epoch();
    }

    /// Of a guest that serves: a new epoch is all that it has written.
    fn note_epoch(&mut self) {
        if self.serves {
            let seen = self.seen.clone();
            self.epochs.entry(self.store.epoch()).or_insert(seen);
        }
    }

    fn change(&mut self) -> (u8, Range<u64>, Change) {
        let (disk, range) = (self.random.below(DISKS as u64) as u8, self.random.range());
        let change = match self.random.below(4) {
            0 => Change::Zeroes { may_unmap: self.random.below(2) == 0 },
            _ => (range.clone()).map(|_| self.random.next() as u8).collect::<Vec<_>>().into(),
        };
        (disk, range, change)
    }

    fn write(&mut self) {
        let (disk, range, change) = self.change();
        let model = if self.serves { &mut self.seen } else { &mut self.primary };
        apply(&mut model[usize::from(disk)], &range, &change);
        let bytes = model[usize::from(disk)][range.start as usize..range.end as usize].to_vec();
        match self.store.write(disk, range.clone(), change).unwrap() {
            Taken::Kept => {}
            Taken::Direct => {
                assert!(self.serves);
                // By whoever asked, and made durable by a flush of its own.
                let device = &mut self.disks[usize::from(disk)];
                device.write(range.start, bytes);
                device.sync();
                self.epochs.insert(self.store.epoch(), self.seen.clone());
            }
        }
    }

    /// Begins a read, and ends those that were begun, or not yet.
    fn read(&mut self) {
        let (disk, range) = (self.random.below(DISKS as u64) as u8, self.random.range());
        let is_primarys = self.random.below(3) == 0;
        let ((id, pieces), expected) = match is_primarys && !self.serves && !self.store.keeps_before() {
            true => (self.store.read_primary(disk, range.clone()).unwrap(), &self.primary),
            false => (self.store.read(disk, range.clone()).unwrap(), &self.seen),
        };
        if self.serves {
            let refused = self.store.read_primary(disk, range.clone());
            assert_eq!(refused.err(), Some(StoreError::NotNow("while it serves")));
        }
        let (mut at, mut found) = (range.start, Vec::new());
        for (piece, source) in pieces {
            assert_eq!(piece.start, at);
            let bytes = self.resolve(disk, &piece, &source);
            assert_eq!(bytes, expected[usize::from(disk)][piece.start as usize..piece.end as usize], "{piece:?}");
            at = piece.end;
            found.push((piece, source, bytes));
        }
        assert_eq!(at, range.end);
        found.retain(|(_, source, _)| *source != Source::Disk);
        self.reads.push((id, found));
        while self.random.below(3) > 0 {
            let Some((id, pieces)) = self.reads.pop() else { break };
            for (piece, source, bytes) in pieces {
                assert_eq!(self.resolve(0, &piece, &source), bytes, "{piece:?} is something else by now");
            }
            self.store.read_done(id);
        }
    }

    fn resolve(&self, disk: u8, range: &Range<u64>, source: &Source) -> Vec<u8> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        match source {
            Source::Memory(memory) => bytes.copy_from_slice(memory),
            Source::Journal { at } => self.journal.read_at(*at, &mut bytes).unwrap(),
            Source::Zeroes => {}
            Source::Disk => self.disks[usize::from(disk)].read_at(range.start, &mut bytes).unwrap(),
        }
        bytes
    }

    /// Carries one of the waiting actions out, if there is one.
    fn act(&mut self) -> bool {
        while let Some(action) = self.store.poll_action() {
            self.waiting.push(action);
        }
        self.note_epoch();
        if self.waiting.is_empty() {
            return false;
        }
        let index = self.random.below(self.waiting.len() as u64) as usize;
        let (id, action) = self.waiting.swap_remove(index);
        match action {
            Action::Journal { at, parts } => self.journal.write(at, parts.concat()),
            Action::SyncJournal => self.journal.sync(),
            Action::Disk { disk, range, content } => {
                let source = match content {
                    Content::Memory { bytes, .. } => Source::Memory(bytes),
                    Content::Stored { at } => Source::Journal { at },
                    Content::Zeroes { .. } => Source::Zeroes,
                };
                let bytes = self.resolve(disk, &range, &source);
                self.disks[usize::from(disk)].write(range.start, bytes);
            }
            Action::SyncDisk { disk } => self.disks[usize::from(disk)].sync(),
            // What is given back reads as something else at once.
            Action::Release(range) => self.journal.write(range.start, vec![0xEE; (range.end - range.start) as usize]),
        }
        self.store.done(id);
        self.note_epoch();
        true
    }

    /// The process dies, and with it the power goes or not; then there is another.
    fn crash(&mut self) {
        let promised = self.store.durable_epoch();
        let must_serve = self.store.is_direct() || self.serves && promised > self.served_at;
        let last = self.store.epoch();
        self.die();
        let config = config(&mut self.random);
        self.store = match EpochStore::recover(config, &[SIZE; DISKS], &self.journal, self.random.next()) {
            Ok(store) => store,
            // It had not even begun.
            Err(RecoverError::NoJournal) if promised == Epoch(5) => {
                self.journal = Device::default();
                EpochStore::new(config, &[SIZE; DISKS], Epoch(5), self.random.next())
            }
            Err(error) => panic!("{error}"),
        };
        assert!(self.serves || !self.store.serves());
        assert!(!must_serve || self.store.serves(), "it has served, and does not know of it");
        self.serves = self.store.serves();
        let epoch = self.store.epoch();
        assert!((promised..=last).contains(&epoch), "{epoch}, but {promised} was promised, and {last} the last");
        self.seen = self.epochs[&epoch].clone();
        self.primary = self.seen.clone();
        self.epochs.retain(|other, _| *other <= epoch);
        self.barriers.clear();
    }

    /// Of what was to be done some had begun; and the power goes, or not.
    fn die(&mut self) {
        for (_, action) in std::mem::take(&mut self.waiting) {
            if let (Action::Journal { at, parts }, true) = (action, self.random.below(2) == 0) {
                self.journal.write(at, parts.concat());
            }
        }
        self.reads.clear();
        if self.random.below(2) == 0 {
            self.journal.crash(&mut self.random);
            for disk in &mut self.disks {
                disk.crash(&mut self.random);
            }
        }
    }

    /// Everything that is to be done is done.
    fn settle(&mut self) {
        self.store.make_durable();
        for (id, _) in std::mem::take(&mut self.reads) {
            self.store.read_done(id);
        }
        while self.act() {}
        for (disk, expected) in self.disks.iter().zip(&self.epochs[&self.store.epoch()]) {
            assert!(disk.durable == *expected, "the disks are not at {}", self.store.epoch());
        }
    }
}

fn apply(disk: &mut [u8], range: &Range<u64>, change: &Change) {
    let part = &mut disk[range.start as usize..range.end as usize];
    match change {
        Change::Data(bytes) => part.copy_from_slice(bytes),
        Change::Zeroes { .. } => part.fill(0),
    }
}

/// Two thousand lives, or as many as `PROPTEST_CASES` asks for.
fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(2000), ..config }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn it_is_a_list_of_epochs_whatever_crashes(seed in any::<u64>(), lives in 1..5_usize, steps in 1..250_usize) {
        let mut bench = Bench::new(seed);
        for _ in 0..lives {
            let steps = bench.random.below(steps as u64) + 1;
            for _ in 0..steps {
                bench.step();
            }
            bench.crash();
            if bench.random.below(2) == 0 {
                bench.settle();
            }
        }
        bench.settle();
    }

    #[test]
    fn a_guest_that_serves_needs_the_store_no_more_when_all_is_on_the_disks(seed in any::<u64>(), steps in 0..200_usize) {
        let mut bench = Bench::new(seed);
        for _ in 0..steps {
            bench.step();
        }
        if !bench.serves {
            bench.store.fail_over().unwrap();
            bench.serves = true;
            bench.note_epoch();
        }
        bench.store.make_durable();
        while !bench.store.is_direct() {
            prop_assert!(bench.act());
        }
        bench.write();
        bench.read();
        bench.crash();
        bench.settle();
        bench.read();
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut store = EpochStore::new(StoreConfig::default(), &[SIZE], Epoch(1), 9);
    let data = || Change::from(vec![1; 10]);
    let range = SIZE - 5..SIZE + 5;
    assert_eq!(store.write(0, range.clone(), data()), Err(StoreError::OutOfRange { disk: 0, range, size: SIZE }));
    assert_eq!(store.write(1, 0..10, data()), Err(StoreError::OutOfRange { disk: 1, range: 0..10, size: 0 }));
    assert_eq!(store.write_overlay(0, 0..9, data()), Err(StoreError::BadLength { expected: 9, got: 10 }));
    let out_of_order = |what, epoch, last| Err(StoreError::OutOfOrder { what, epoch: Epoch(epoch), last: Epoch(last) });
    assert_eq!(store.barrier(Epoch(3)), out_of_order("a barrier of", 3, 1));
    assert_eq!(store.commit(Epoch(2)), out_of_order("a commit of", 2, 1));
    store.barrier(Epoch(2)).unwrap();
    assert_eq!(store.commit(Epoch(1)), out_of_order("a commit of", 1, 2));
    store.fail_over().unwrap();
    assert_eq!(store.commit(Epoch(2)), Err(StoreError::NotNow("while it serves")));
    assert_eq!(store.fail_over(), Err(StoreError::NotNow("twice")));
    assert_eq!((store.pending_bytes(), store.epoch()), (0, Epoch(1)));
}

#[test]
fn a_checkpoint_is_asked_for_before_writers_wait() {
    let config = StoreConfig { pending_bytes: 100, ..StoreConfig::default() };
    let mut store = EpochStore::new(config, &[SIZE], Epoch(1), 9);
    let write = |store: &mut EpochStore, range| assert_eq!(store.write(0, range, vec![1; 40].into()), Ok(Taken::Kept));
    write(&mut store, 0..40);
    assert!(!store.wants_checkpoint());
    store.write_overlay(0, 20..60, vec![2; 40].into()).unwrap();
    assert!(store.wants_checkpoint() && !store.is_full());
    store.barrier(Epoch(2)).unwrap();
    write(&mut store, 40..80);
    assert!(store.is_full());
    store.commit(Epoch(2)).unwrap();
    assert_eq!((store.pending_bytes(), store.is_full()), (40, false));
}

#[test]
fn a_journal_of_other_disks_is_refused() {
    let mut journal = Device::default();
    assert!(matches!(EpochStore::recover(StoreConfig::default(), &[SIZE], &journal, 1), Err(RecoverError::NoJournal)));
    let mut store = EpochStore::new(StoreConfig::default(), &[SIZE], Epoch(1), 9);
    let Some((_, Action::Journal { at, parts })) = store.poll_action() else { panic!("no superblock") };
    journal.write(at, parts.concat());
    assert_eq!(EpochStore::recover(StoreConfig::default(), &[SIZE], &journal, 1).unwrap().epoch(), Epoch(1));
    let other = EpochStore::recover(StoreConfig::default(), &[SIZE, SIZE], &journal, 1);
    assert!(matches!(other, Err(RecoverError::OtherDisks { .. })));
}
