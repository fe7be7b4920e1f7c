//! The same where both hosts have the disks: the primary is an array of bytes that writes to them as it likes, once it has said what stood there.

use super::*;

/// The secondary's store, over disks that the primary writes to.
struct Shared {
    bench: Bench,
    /// What the primary has written, and its host not yet to the disks; oldest first.
    cached: Vec<(u8, u64, Vec<u8>)>,
    /// Once the guest serves: what the disks were when the primary died, and up to where the journal must be durable for them to be anything else.
    died: Option<(Disks, u64)>,
}

fn config(random: &mut Random) -> StoreConfig {
    StoreConfig { is_shared: true, ..super::config(random) }
}

impl Shared {
    fn new(seed: u64) -> Shared {
        Shared { bench: Bench::with(seed, config), cached: Vec::new(), died: None }
    }

    fn step(&mut self) {
        if !self.bench.store.has_begun() {
            assert!(self.act(), "the journal does not begin");
            return;
        }
        let bench = &mut self.bench;
        match bench.random.below(20) {
            0..=4 if bench.serves => bench.write(),
            0..=4 => self.write(),
            5..=7 if !bench.serves => {
                let (disk, range, change) = bench.change();
                apply(&mut bench.seen[usize::from(disk)], &range, &change);
                bench.store.write_overlay(disk, range, change).unwrap();
            }
            8..=9 if !bench.serves => {
                self.reach_disks(usize::MAX);
                let bench = &mut self.bench;
                let epoch = bench.store.last_barrier().next();
                bench.store.barrier(epoch).unwrap();
                bench.barriers.insert(epoch, bench.primary.clone());
            }
            10 if !bench.serves && bench.store.last_barrier() > bench.store.epoch() => {
                let whole = bench.store.last_barrier().0 - bench.store.epoch().0;
                let epoch = Epoch(bench.store.epoch().0 + 1 + bench.random.below(whole));
                bench.store.commit(epoch).unwrap();
                bench.seen = bench.barriers[&epoch].clone();
            }
            11 if !bench.serves => {
                let some = bench.random.below(self.cached.len() as u64 + 1) as usize;
                self.reach_disks(some);
            }
            12 if !bench.serves && bench.random.below(8) == 0 => self.fail_over(),
            13 if bench.serves => drop(bench.store.flush()),
            14..=15 => bench.read(),
            16 => drop(bench.store.make_durable()),
            _ => {
                self.act();
            }
        }
        self.bench.note_epoch();
    }

    /// The primary says what stands there, and then changes it; at times more than it will change, and at times once more than it must.
    fn write(&mut self) {
        let bench = &mut self.bench;
        let (disk, range, change) = bench.change();
        let around = range.start.saturating_sub(bench.random.below(50))..(range.end + bench.random.below(50)).min(SIZE);
        let model = &mut bench.primary[usize::from(disk)];
        let before = model[around.start as usize..around.end as usize].to_vec();
        let before = match before.iter().all(|byte| *byte == 0) {
            true => Change::Zeroes { may_unmap: false },
            false => before.into(),
        };
        assert!(matches!(bench.store.write(disk, around, before), Ok(Taken::Kept { .. })));
        apply(model, &range, &change);
        let bytes = model[range.start as usize..range.end as usize].to_vec();
        self.cached.push((disk, range.start, bytes));
    }

    /// So many of the primary's writes reach the disks.
    fn reach_disks(&mut self, count: usize) {
        for (disk, at, bytes) in self.cached.drain(..count.min(self.cached.len())) {
            let device = &mut self.bench.disks[usize::from(disk)];
            device.write(at, bytes);
            device.sync();
        }
    }

    /// The primary's host loses its power: what it had not yet written is there, is not, or in part.
    fn fail_over(&mut self) {
        for (disk, at, bytes) in self.cached.drain(..) {
            let device = &mut self.bench.disks[usize::from(disk)];
            device.write(at, bytes);
            device.crash(&mut self.bench.random);
        }
        let bench = &mut self.bench;
        bench.fail_over();
        // Its guest has not heard of it yet, nor anybody else.
        self.died = Some((disks(bench), bench.store.make_durable()));
        bench.note_epoch();
    }

    /// One action, which is not to a disk that is the primary's.
    fn act(&mut self) -> bool {
        let (has_acted, bench) = (self.bench.act(), &self.bench);
        let has_disk = bench.waiting.iter().any(|(_, action)| matches!(action, Action::Disk { .. }));
        assert!(!has_disk || bench.serves, "the disks are the primary's");
        has_acted
    }

    /// The secondary's process dies, and with it the power goes or not; then there is another.
    fn crash(&mut self) {
        let before = disks(&self.bench);
        let bench = &mut self.bench;
        let promised = bench.store.durable_epoch();
        let must_serve = self.died.as_ref().is_some_and(|(_, end)| bench.store.is_durable(*end));
        let kept = bench.die();
        let config = config(&mut bench.random);
        bench.config = config;
        match EpochStore::recover(config, &[SIZE; DISKS], &bench.journal, bench.random.next()) {
            Ok(store) if store.serves() => {
                assert!(bench.serves, "it serves by itself");
                let epoch = store.epoch();
                assert!(epoch >= promised, "{epoch}, and {promised} was promised");
                bench.store = store;
                bench.serve_again(kept);
                bench.epochs.retain(|other, _| *other <= epoch);
                let end = bench.store.make_durable();
                self.died = self.died.take().map(|(disks, _)| (disks, end));
            }
            recovered => {
                assert!(!must_serve, "it has served, and does not know of it");
                let untouched = self.died.take().map_or(before, |(disks, _)| disks);
                if let Ok(store) = recovered {
                    bench.store = store;
                    bench.serves = false;
                    while self.act() {}
                }
                assert!(disks(&self.bench) == untouched, "it has changed what is not its own");
                // Nobody goes on from that epoch any more.
                *self = Shared::new(self.bench.random.next());
            }
        }
    }

    /// Everything that is to be done is done.
    fn settle(&mut self) {
        match self.bench.serves {
            true => self.bench.settle(),
            false => while self.act() {},
        }
    }
}

/// What they are now.
fn disks(bench: &Bench) -> Disks {
    bench.disks.iter().map(Device::now).collect()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn of_disks_that_both_hosts_have_the_guest_sees_its_epoch_and_goes_on_from_it(
        seed in any::<u64>(), lives in 1..5_usize, steps in 1..250_usize,
    ) {
        let mut shared = Shared::new(seed);
        for _ in 0..lives {
            let steps = shared.bench.random.below(steps as u64) + 1;
            for _ in 0..steps {
                shared.step();
            }
            if !shared.bench.serves && shared.bench.random.below(2) == 0 {
                shared.fail_over();
                shared.bench.read();
            }
            let acts = shared.bench.random.below(20);
            (0..acts).for_each(|_| {
                shared.act();
            });
            if shared.bench.random.below(3) > 0 {
                shared.crash();
            }
            if shared.bench.random.below(2) == 0 {
                shared.settle();
            }
        }
        shared.settle();
    }
}

#[test]
fn a_journal_says_whose_disks_it_is_of() {
    for is_shared in [false, true] {
        let config = StoreConfig { is_shared, ..StoreConfig::default() };
        let mut store = EpochStore::new(config, &[SIZE], Epoch(1), 9);
        let mut journal = Device::default();
        let Some((_, Action::Journal { at, parts })) = store.poll_action() else { panic!("no superblock") };
        journal.write(at, parts.concat());
        assert!(EpochStore::recover(config, &[SIZE], &journal, 1).is_ok());
        let other = StoreConfig { is_shared: !is_shared, ..config };
        let refused = EpochStore::recover(other, &[SIZE], &journal, 1);
        assert!(matches!(refused, Err(RecoverError::OtherKind { is_shared: theirs }) if theirs == is_shared));
    }
}
