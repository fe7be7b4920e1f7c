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

/// A longest write, with all that stands beside it in the journal.
const MAX_WRITE_BYTES: u64 = 4096;

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
    config: StoreConfig,
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
    /// Of a guest that serves: what it has seen after its failover, and after each of its writes since, and how far the journal must be for that
    /// to be kept.
    own: Vec<(u64, Disks)>,
    /// Reads under way, and what they are to find in what is not the disk's.
    reads: Vec<(ReadId, Vec<Found>)>,
}

fn config(random: &mut Random) -> StoreConfig {
    StoreConfig {
        memory_bytes: random.below(3) * 1500,
        long_bytes: random.below(3) * 700,
        pending_bytes: 1 << 20,
        behind_bytes: 1 + random.below(3) * 2000,
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
        let config = config(&mut random);
        let store = EpochStore::new(config, &[SIZE; DISKS], Epoch(5), random.next());
        Bench {
            store,
            config,
            journal: Device::default(),
            disks: disks.iter().map(|disk| Device { durable: disk.clone(), written: Vec::new() }).collect(),
            waiting: Vec::new(),
            epochs: BTreeMap::from([(Epoch(5), disks.clone())]),
            barriers: BTreeMap::new(),
            primary: disks.clone(),
            seen: disks,
            serves: false,
            own: Vec::new(),
            reads: Vec::new(),
            random,
        }
    }

    fn step(&mut self) {
        if !self.store.has_begun() {
            assert!(self.act(), "the journal does not begin");
            return;
        }
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
                self.catch_up();
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
                self.fail_over();
            }
            13 if self.serves => drop(self.store.flush()),
            14..=15 => self.read(),
            16 => drop(self.store.make_durable()),
            _ => drop(self.act()),
        }
        self.note_epoch();
    }

    fn fail_over(&mut self) {
        let until = self.store.fail_over().unwrap();
        (self.serves, self.own) = (true, vec![(until, self.seen.clone())]);
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

    /// Waits, as whoever would add to what is not on the disks does, until there is not too much of it. That needs nobody's help: not a reader's
    /// end, nor another epoch.
    fn catch_up(&mut self) {
        while self.store.is_behind() {
            assert!(self.act(), "{} bytes behind, and nothing to be done", self.store.behind_bytes());
        }
    }

    fn write(&mut self) {
        if self.serves {
            self.catch_up();
        }
        let (disk, range, change) = self.change();
        let model = if self.serves { &mut self.seen } else { &mut self.primary };
        apply(&mut model[usize::from(disk)], &range, &change);
        let bytes = model[usize::from(disk)][range.start as usize..range.end as usize].to_vec();
        match self.store.write(disk, range.clone(), change).unwrap() {
            Taken::Kept { until } if self.serves => {
                let limit = self.config.behind_bytes + MAX_WRITE_BYTES;
                assert!(self.store.behind_bytes() <= limit, "{} bytes behind", self.store.behind_bytes());
                self.own.push((until, self.seen.clone()));
            }
            Taken::Kept { .. } => {}
            Taken::Direct => {
                assert!(self.serves);
                // By whoever asked, and made durable by a flush of its own.
                let device = &mut self.disks[usize::from(disk)];
                device.write(range.start, bytes);
                device.sync();
                self.own = vec![(0, self.seen.clone())];
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
        let (memory, limit) = (self.store.memory_bytes(), self.config.memory_bytes);
        // What the journal has need not be in memory.
        let is_written = self.waiting.iter().all(|(_, action)| !matches!(action, Action::Journal { .. }));
        assert!(!is_written || memory <= limit, "{memory} bytes in memory, and {limit} at most");
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
                    Content::Memory { bytes, .. } => Source::Memory(bytes.as_bytes().clone()),
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
        let (promised, last) = (self.store.durable_epoch(), self.store.epoch());
        let had_begun = self.store.has_begun();
        let kept = self.die();
        let config = config(&mut self.random);
        self.config = config;
        self.store = match EpochStore::recover(config, &[SIZE; DISKS], &self.journal, self.random.next()) {
            Ok(store) => store,
            Err(RecoverError::NotBegun) if !had_begun => {
                self.journal = Device::default();
                EpochStore::new(config, &[SIZE; DISKS], Epoch(5), self.random.next())
            }
            Err(error) => panic!("{error}"),
        };
        let epoch = self.store.epoch();
        assert!(epoch >= promised, "{epoch}, but {promised} was promised");
        if self.store.serves() {
            self.serve_again(kept);
        } else {
            assert!(kept.is_none(), "it has served, and does not know of it");
            assert!(epoch <= last, "{epoch}, but {last} was the last");
            self.own.clear();
        }
        self.serves = self.store.serves();
        self.seen = self.epochs[&epoch].clone();
        self.primary = self.seen.clone();
        self.epochs.retain(|other, _| *other <= epoch);
        self.barriers.clear();
    }

    /// Of what was to be done some had begun; and the power goes, or not. Of what a guest was told that serves that is kept when the power stays,
    /// and what it has flushed always: returns how many of its writes that is, less one.
    fn die(&mut self) -> Option<usize> {
        let loses_power = self.random.below(2) == 0;
        let is_kept = |(until, _): &(u64, Disks)| match loses_power {
            true => self.store.is_durable(*until),
            false => self.store.is_written(*until),
        };
        let kept = self.own.iter().rposition(is_kept);
        for (_, action) in std::mem::take(&mut self.waiting) {
            if let (Action::Journal { at, parts }, true) = (action, self.random.below(2) == 0) {
                let mut bytes = parts.concat();
                bytes.truncate(self.random.below(bytes.len() as u64 + 1) as usize);
                self.journal.write(at, bytes);
            }
        }
        self.reads.clear();
        if loses_power {
            self.journal.crash(&mut self.random);
            for disk in &mut self.disks {
                disk.crash(&mut self.random);
            }
        }
        if !self.store.has_begun() {
            // As whoever takes it up does. For what comes later it makes no difference.
            self.journal.sync();
        }
        kept
    }

    /// A guest that serves goes on from the journal.
    fn serve_again(&mut self, kept: Option<usize>) {
        let disks = self.contents();
        let first = kept.unwrap_or(0);
        let found = (first..self.own.len()).rev().find(|found| is_between(&disks, &self.own[*found..]));
        let found = found.expect("what the guest has written up to some moment, and all that is safe");
        self.own.truncate(found + 1);
        self.own.push((self.store.make_durable(), disks.clone()));
        self.seen = disks.clone();
        self.epochs.insert(self.store.epoch(), disks);
    }

    /// What the secondary's guest would read now.
    fn contents(&mut self) -> Disks {
        (0..DISKS as u8)
            .map(|disk| {
                let (id, pieces) = self.store.read(disk, 0..SIZE).unwrap();
                let bytes = pieces.iter().flat_map(|(range, source)| self.resolve(disk, range, source)).collect();
                self.store.read_done(id);
                bytes
            })
            .collect()
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

/// Whether these are the first, or the first with some of what was written next: a long write may be in several records.
fn is_between(disks: &Disks, own: &[(u64, Disks)]) -> bool {
    let (first, next) = (&own[0].1, &own.get(1).unwrap_or(&own[0]).1);
    let bytes = |disks: &Disks| disks.concat();
    let (first, next) = (bytes(first), bytes(next));
    bytes(disks).iter().enumerate().all(|(index, byte)| [first[index], next[index]].contains(byte))
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
            while !bench.store.has_begun() {
                prop_assert!(bench.act());
            }
            bench.fail_over();
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
    let write = |store: &mut EpochStore, range| {
        let _ = store.write(0, range, vec![1; 40].into()).unwrap();
    };
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
    let recover = |journal: &Device| EpochStore::recover(StoreConfig::default(), &[SIZE], journal, 1);
    assert!(matches!(recover(&journal), Err(RecoverError::NotBegun)));
    // A superblock that is torn, and one that is lost.
    journal.write(4096, b"COLODISK\x02\0\0\0".to_vec());
    assert!(matches!(recover(&journal), Err(RecoverError::NotBegun)));
    journal.write(8192, b"COLJ".to_vec());
    assert!(matches!(recover(&journal), Err(RecoverError::NoJournal)));
    let mut journal = Device::default();
    let mut store = EpochStore::new(StoreConfig::default(), &[SIZE], Epoch(1), 9);
    let Some((_, Action::Journal { at, parts })) = store.poll_action() else { panic!("no superblock") };
    journal.write(at, parts.concat());
    assert_eq!(EpochStore::recover(StoreConfig::default(), &[SIZE], &journal, 1).unwrap().epoch(), Epoch(1));
    let other = EpochStore::recover(StoreConfig::default(), &[SIZE, SIZE], &journal, 1);
    assert!(matches!(other, Err(RecoverError::OtherDisks { .. })));
}

#[test]
fn readers_that_are_always_there_do_not_keep_the_journal_for_ever() {
    let mut bench = Bench::new(1);
    // All data are read from the journal.
    let config = StoreConfig { memory_bytes: 0, segment_bytes: 1024, journal_bytes: 1 << 20, ..bench.config };
    (bench.config, bench.store) = (config, EpochStore::new(config, &[SIZE; DISKS], Epoch(5), 7));
    while !bench.store.has_begun() {
        assert!(bench.act());
    }
    let mut reading = None;
    for epoch in 6..500 {
        let _ = bench.store.write(0, 0..600, vec![epoch as u8; 600].into()).unwrap();
        bench.store.barrier(Epoch(epoch)).unwrap();
        bench.store.commit(Epoch(epoch)).unwrap();
        while let Some((id, action)) = bench.store.poll_action() {
            match action {
                Action::Journal { at, parts } => {
                    bench.journal.write(at, parts.concat());
                    bench.store.done(id);
                }
                action => bench.waiting.push((id, action)),
            }
        }
        // The next begins before the last has ended.
        let (id, pieces) = bench.store.read(0, 0..600).unwrap();
        assert!(matches!(pieces[0].1, Source::Journal { .. }), "{pieces:?}");
        if let Some(last) = reading.replace(id) {
            bench.store.read_done(last);
        }
        while bench.act() {}
    }
    let bytes = bench.journal.bytes().unwrap();
    assert!(bytes < 30_000, "{bytes} bytes for what is never more than 2000");
}
