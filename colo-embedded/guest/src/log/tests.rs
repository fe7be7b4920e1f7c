//! The log on a disk that loses, at a crash, any part of what was not flushed; against a model.

use std::{collections::BTreeMap as Model, format, string::String, vec};

use proptest::prelude::*;

use super::*;
use crate::{
    body,
    kv::{Kv, Ticket},
    platter::{DISK_BYTES, TestDisk},
    store::StoreError,
};

/// One start of a machine, with what it should know.
struct Start {
    platter: TestDisk,
    disk: Disk,
    kv: Kv,
    /// The entries at the start, and the changes since, with the ticket of each.
    base: Model<Vec<u8>, Vec<u8>>,
    changes: Vec<(Ticket, Vec<u8>, Option<Vec<u8>>)>,
}

impl Start {
    fn new(platter: &TestDisk) -> Self {
        let mut disk = Disk::new(std::boxed::Box::new(platter.clone()));
        let kv = Kv::new(Store::new(1 << 20), Some(&mut disk));
        let mut start = Self {
            platter: platter.clone(),
            disk,
            kv,
            base: Model::new(),
            changes: vec![],
        };
        while !start.kv.is_ready() {
            start.step();
        }
        start.base = start.entries();
        start
    }

    fn step(&mut self) -> bool {
        let worked = self.platter.work();
        loop {
            self.disk.pump();
            if !self.kv.pump(&mut self.disk) {
                return worked || !self.platter.0.borrow().requests.is_empty();
            }
        }
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    fn entries(&self) -> Model<Vec<u8>, Vec<u8>> {
        let items = self.kv.store().snapshot();
        let copy = |(key, value): (Rc<[u8]>, Rc<Value>)| (key.to_vec(), value.to_vec());
        items.into_iter().map(copy).collect()
    }

    /// The entries after so many changes.
    fn model(&self, changes: usize) -> Model<Vec<u8>, Vec<u8>> {
        let mut model = self.base.clone();
        for (_, key, value) in &self.changes[..changes] {
            match value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(key),
            };
        }
        model
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<Ticket, StoreError> {
        let mut upload = self.kv.store().begin(key, value.len() as u64)?;
        upload.push(value);
        let was_there = self.model(self.changes.len()).contains_key(key);
        let (is_new, ticket) = self.kv.put(upload)?;
        assert_eq!(is_new, !was_there);
        self.changes
            .push((ticket, key.to_vec(), Some(value.to_vec())));
        Ok(ticket)
    }

    fn delete(&mut self, key: &[u8]) {
        let was_there = self.model(self.changes.len()).contains_key(key);
        let (removed, ticket) = self.kv.delete(key);
        assert_eq!(removed, was_there);
        if removed {
            self.changes.push((ticket, key.to_vec(), None));
        }
    }

    fn check(&mut self) -> CheckReport {
        let receipt = self.kv.begin_check().expect("no other");
        for _ in 0..10_000 {
            if let Some(report) = receipt.take() {
                return report;
            }
            self.step();
        }
        panic!("the check does not end")
    }

    /// The machine dies. The next has all that was acknowledged, and whole changes of the rest, in order.
    fn crash(self, random: u64) -> Self {
        let counts = |(ticket, ..): &&(Ticket, _, _)| self.kv.settled(*ticket) == Some(Ok(()));
        let acknowledged = self.changes.iter().take_while(counts).count();
        self.platter.crash(random);
        let next = Self::new(&self.platter);
        let found =
            (acknowledged..=self.changes.len()).find(|&count| self.model(count) == next.base);
        assert!(found.is_some(), "{acknowledged} of {}", self.changes.len());
        next
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Delete(u8),
    Work(u8),
    Check,
    Crash(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u8..12, prop_oneof![0usize..40, 0usize..2000]).prop_map(|(key, bytes)| Step::Put(key, bytes)),
        2 => (0u8..12).prop_map(Step::Delete),
        6 => (1u8..8).prop_map(Step::Work),
        1 => Just(Step::Check),
        1 => any::<u64>().prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 0..250)
}

proptest! {
    #[test]
    fn what_was_acknowledged_survives(steps in steps()) {
        let platter = TestDisk::new();
        let mut start = Start::new(&platter);
        prop_assert!(start.base.is_empty());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(key, bytes) => {
                    let mut value = vec![0; bytes];
                    body::fill(number as u64 * 1000, &mut value);
                    // Full is full; nothing has changed.
                    let _ = start.put(&[b'k', key], &value);
                }
                Step::Delete(key) => start.delete(&[b'k', key]),
                Step::Work(times) => for _ in 0..times { start.step(); },
                Step::Check => {
                    let keys = start.entries().len();
                    prop_assert_eq!(start.check(), Ok(keys));
                }
                Step::Crash(random) => start = start.crash(random),
            }
            prop_assert_eq!(start.entries(), start.model(start.changes.len()));
        }
        start.settle();
        let all = start.changes.iter().all(|(ticket, ..)| start.kv.settled(*ticket) == Some(Ok(())));
        prop_assert!(all);
        let next = start.crash(1);
        prop_assert_eq!(platter.0.borrow().now[..].len(), DISK_BYTES);
        drop(next);
    }
}

/// Crashes after each number of requests of a run that begins the log anew several times.
#[test]
fn a_crash_at_any_request_loses_nothing() {
    let mut longest = 0;
    for limit in 0..400 {
        let mut start = Start::new(&TestDisk::new());
        let mut requests = 0;
        'run: for number in 0..60u64 {
            let mut value = vec![0; 700];
            body::fill(number, &mut value);
            start.put(&[(number % 5) as u8], &value).expect("room");
            while start.step() {
                requests += 1;
                if requests >= limit {
                    break 'run;
                }
            }
        }
        longest = longest.max(requests);
        let mut next = start.crash(body::word(limit));
        let keys = next.base.len();
        assert_eq!(next.check(), Ok(keys));
    }
    assert!(
        (150..400).contains(&longest),
        "{longest}: it went to its end"
    );
}

#[test]
fn changes_that_wait_share_a_flush() {
    let mut start = Start::new(&TestDisk::new());
    let before = start.platter.0.borrow().flushes;
    for number in 0..20 {
        start.put(&[number], b"value").expect("room");
    }
    start.settle();
    // The first goes at once with all that are there.
    assert_eq!(start.platter.0.borrow().flushes, before + 1);
}

#[test]
fn an_answer_waits_for_the_last_change_of_its_key_and_no_other() {
    let mut start = Start::new(&TestDisk::new());
    start.put(b"a", b"1").expect("room");
    start.settle();
    start.put(b"b", b"2").expect("room");
    let (value, ticket) = start.kv.get(b"a");
    assert_eq!(
        (value.as_deref().map(|v| &v[..]), start.kv.settled(ticket)),
        (Some(&b"1"[..]), Some(Ok(())))
    );
    let (value, ticket) = start.kv.get(b"b");
    assert_eq!(
        (value.as_deref().map(|v| &v[..]), start.kv.settled(ticket)),
        (Some(&b"2"[..]), None)
    );
    start.delete(b"a");
    let (value, ticket) = start.kv.get(b"a");
    assert!(value.is_none() && start.kv.settled(ticket).is_none());
    start.settle();
    assert_eq!(start.kv.settled(ticket), Some(Ok(())));
}

#[test]
fn a_full_log_refuses_by_what_was_asked_and_not_by_what_was_done() {
    let outcome = |steps_between: usize| {
        let mut start = Start::new(&TestDisk::new());
        let mut answers = String::new();
        for number in 0..60u8 {
            let put = start.put(&[number % 40], &vec![number; 300 + usize::from(number)]);
            answers.push_str(&format!("{} ", put.is_ok()));
            if number % 7 == 0 {
                start.delete(&[number / 2]);
            }
            for _ in 0..steps_between {
                start.step();
            }
        }
        (answers, start.entries())
    };
    let slow = outcome(0);
    assert!(slow.0.contains("true") && slow.0.contains("false"));
    assert_eq!(slow, outcome(1));
    assert_eq!(slow, outcome(50));
}

#[test]
fn a_check_finds_what_does_not_belong() {
    for at in [0, 20, 33, 39] {
        let mut start = Start::new(&TestDisk::new());
        start.put(b"key", b"value").expect("room");
        start.settle();
        assert_eq!(start.check(), Ok(1));
        // The first record of the first generation's half.
        let half = Area::of(DISK_BYTES as u64).half_offset(1) as usize;
        start.platter.0.borrow_mut().now[half + at] ^= 1;
        assert!(start.check().is_err(), "{at}");
    }
}

#[test]
fn a_failed_disk_acknowledges_nothing_and_takes_no_more() {
    let mut start = Start::new(&TestDisk::new());
    start.put(b"a", b"1").expect("room");
    start.settle();
    start.platter.0.borrow_mut().fails = true;
    let ticket = start.put(b"b", b"2").expect("room");
    start.settle();
    assert_eq!(start.kv.settled(ticket), Some(Err(DiskFailed)));
    let (_, ticket) = start.kv.delete(b"a");
    assert_eq!(start.kv.settled(ticket), Some(Err(DiskFailed)));
    let (value, ticket) = start.kv.get(b"a");
    assert!(value.is_some() && start.kv.settled(ticket) == Some(Ok(())));
    assert!(start.check().is_err());
}

#[test]
fn the_raw_area_is_left_alone() {
    let mut start = Start::new(&TestDisk::new());
    for number in 0..200u64 {
        let mut value = vec![0; 900];
        body::fill(number, &mut value);
        start.put(&[(number % 9) as u8], &value).expect("room");
        start.step();
    }
    start.settle();
    let area = Area::of(DISK_BYTES as u64);
    let platter = start.platter.0.borrow();
    assert!(
        platter.now[area.raw_offset as usize..]
            .iter()
            .all(|&byte| byte == 0xAA)
    );
}

/// A batch whose first record was torn, and whose others were not: they must not count when what is written in the first one's place
/// comes to end where they begin.
#[test]
fn what_was_behind_a_torn_record_does_not_come_back() {
    let mut start = Start::new(&TestDisk::new());
    for key in [b"a", b"b", b"c"] {
        start.put(key, b"12345678").expect("room");
    }
    start.disk.pump();
    start.kv.pump(&mut start.disk);
    start.disk.pump();
    let before = start.platter.0.borrow().now.clone();
    assert!(start.platter.work(), "the write, and not the flush");
    {
        let mut platter = start.platter.0.borrow_mut();
        let torn = Area::of(DISK_BYTES as u64).half_offset(1) as usize;
        assert_eq!(record_bytes(1, 8), 48);
        platter.now[torn..torn + 48].copy_from_slice(&before[torn..torn + 48]);
        platter.durable = platter.now.clone();
        platter.cached.clear();
    }
    let mut next = start.crash(0);
    assert!(next.base.is_empty());
    // With the record that begins the epoch, as long as the first two were.
    assert_eq!(record_bytes(0, 0) + record_bytes(1, 31), 2 * 48);
    next.put(b"n", &[7; 31]).expect("room");
    next.settle();
    let last = next.crash(0);
    assert_eq!(last.base.keys().collect::<Vec<_>>(), [b"n"]);
}
