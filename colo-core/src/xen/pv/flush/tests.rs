//! Plans, carried out on a model of what Xen allows.

use super::*;
use crate::xen::pv::testing::Rng;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What Xen takes a page for, while somebody counts on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Writable,
    Table(u8),
}

/// A page: what is in it, and Xen's account of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Frame {
    /// As a table: the pages it maps, the flag for writable ones of level 1.
    entries: Vec<(usize, bool)>,
    /// As data.
    stamp: u64,
    counted: Option<(Use, u32)>,
    pinned: bool,
}

/// Xen's rules for the frames of one domain.
#[derive(Clone, Debug, Default)]
struct Model {
    frames: Vec<Frame>,
    dirty: BTreeSet<usize>,
    /// Tables whose entries were checked.
    checked: Vec<usize>,
}

type Refused = &'static str;

impl Model {
    fn new(pages: usize) -> Model {
        Model { frames: vec![Frame::default(); pages], ..Model::default() }
    }

    /// What a page's child at some level is used as. Read-only data needs no account.
    fn child_use(level: u8, writable: bool) -> Option<Use> {
        match level {
            1 => writable.then_some(Use::Writable),
            _ => Some(Use::Table(level - 1)),
        }
    }

    fn get(&mut self, page: usize, as_use: Use) -> Result<(), Refused> {
        match &mut self.frames[page].counted {
            Some((current, count)) if *current == as_use => {
                *count += 1;
                Ok(())
            }
            Some(_) => Err("the page is in use as something else"),
            None => {
                if let Use::Table(level) = as_use {
                    self.check_entries(page, level)?;
                    self.dirty.insert(page);
                }
                self.frames[page].counted = Some((as_use, 1));
                Ok(())
            }
        }
    }

    fn check_entries(&mut self, page: usize, level: u8) -> Result<(), Refused> {
        self.checked.push(page);
        // While it is looked at it is a table already: one that names itself is refused.
        self.frames[page].counted = Some((Use::Table(level), 1));
        let entries = self.frames[page].entries.clone();
        for (at, (child, writable)) in entries.iter().enumerate() {
            let got = Self::child_use(level, *writable).map_or(Ok(()), |child_use| self.get(*child, child_use));
            if let Err(refused) = got {
                self.put_entries(&entries[..at], level);
                self.frames[page].counted = None;
                return Err(refused);
            }
        }
        Ok(())
    }

    fn put_entries(&mut self, entries: &[(usize, bool)], level: u8) {
        for (child, writable) in entries {
            if Self::child_use(level, *writable).is_some() {
                self.put(*child);
            }
        }
    }

    fn put(&mut self, page: usize) {
        let (as_use, count) = self.frames[page].counted.expect("what is put was got");
        if count > 1 {
            self.frames[page].counted = Some((as_use, count - 1));
            return;
        }
        self.frames[page].counted = None;
        if let Use::Table(level) = as_use {
            self.dirty.insert(page);
            self.put_entries(&self.frames[page].entries.clone(), level);
        }
    }

    fn pin(&mut self, page: usize, level: u8) -> Result<(), Refused> {
        if self.frames[page].pinned {
            return Err("pinned twice");
        }
        self.get(page, Use::Table(level))?;
        self.frames[page].pinned = true;
        self.dirty.insert(page);
        Ok(())
    }

    fn unpin(&mut self, page: usize) -> Result<(), Refused> {
        if !self.frames[page].pinned {
            return Err("unpinned without a pin");
        }
        self.frames[page].pinned = false;
        self.dirty.insert(page);
        self.put(page);
        Ok(())
    }

    /// Maps a page writable, and writes it.
    fn write(&mut self, page: usize, entries: &[(usize, bool)], stamp: u64) -> Result<(), Refused> {
        self.get(page, Use::Writable)?;
        self.frames[page].entries = entries.to_vec();
        self.frames[page].stamp = stamp;
        self.dirty.insert(page);
        self.put(page);
        Ok(())
    }

    /// Changes an entry of a table that is in use, as a guest does by hypercall.
    fn update(&mut self, page: usize, slot: usize, new: (usize, bool)) -> Result<(), Refused> {
        let Some((Use::Table(level), _)) = self.frames[page].counted else { return Err("no table") };
        if let Some(child_use) = Self::child_use(level, new.1) {
            self.get(new.0, child_use)?;
        }
        let old = self.frames[page].entries.get(slot).copied();
        match old {
            Some(_) => self.frames[page].entries[slot] = new,
            None => self.frames[page].entries.push(new),
        }
        self.dirty.insert(page);
        self.put_entries(old.as_slice(), level);
        Ok(())
    }

    fn types(&self) -> Vec<PageType> {
        let of_frame = |frame: &Frame| match frame.counted {
            Some((Use::Table(level), _)) => {
                let number = level | if frame.pinned { 8 } else { 0 };
                PageType::ALL.into_iter().find(|t| *t as u8 == number).unwrap()
            }
            _ => PageType::Normal,
        };
        self.frames.iter().map(of_frame).collect()
    }

    /// A guest does this and that; what Xen refuses it does not do.
    fn run(&mut self, rng: &mut Rng, steps: usize) {
        let pages = self.frames.len() as u64;
        for _ in 0..steps {
            let page = rng.below(pages) as usize;
            let level = 1 + rng.below(4) as u8;
            let child = |rng: &mut Rng| (rng.below(pages) as usize, rng.chance(2));
            let _ = match rng.below(6) {
                0 => self.write(page, &[], rng.next()),
                1 | 2 => {
                    // Tables of a level above 1 need children that are tables, or could be.
                    let is_child = |at: &usize| self.types()[*at].table_level() == Some(level - 1);
                    let tables: Vec<usize> = (0..pages as usize).filter(is_child).collect();
                    let entries: Vec<(usize, bool)> = (0..1 + rng.below(4))
                        .map(|_| match tables.len() {
                            0 => child(rng),
                            count => (tables[rng.below(count as u64) as usize], false),
                        })
                        .collect();
                    self.write(page, &entries, 0).and_then(|()| self.pin(page, level))
                }
                3 => self.unpin(page),
                4 => match self.types()[page].table_level() {
                    Some(level) => self.pin(page, level),
                    None => Ok(()),
                },
                _ => self.update(page, rng.below(5) as usize, child(rng)),
            };
        }
    }

    fn carry_out(&mut self, batch: Batch<'_>, primary: &Model) -> Result<(), Refused> {
        match batch {
            Batch::Pin(tables) => tables.iter().try_for_each(|(pfn, level)| self.pin(pfn.0 as usize, *level)),
            Batch::Unpin(tables) => tables.iter().try_for_each(|pfn| self.unpin(pfn.0 as usize)),
            Batch::Write(pages) => pages.iter().map(|pfn| pfn.0 as usize).try_for_each(|page| {
                let source = &primary.frames[page];
                self.write(page, &source.entries, source.stamp)
            }),
        }
    }
}

/// A primary and a secondary that were the same and went on apart; and what either has dirtied since.
fn apart(seed: u64) -> (Model, Model, DirtyBitmap) {
    let mut rng = Rng(seed);
    let pages = 30 + rng.below(60) as usize;
    let mut primary = Model::new(pages);
    primary.run(&mut rng, 400);
    primary.dirty.clear();
    let mut secondary = primary.clone();
    let (steps, other_steps) = (rng.below(60) as usize, rng.below(60) as usize);
    primary.run(&mut rng, steps);
    secondary.run(&mut rng, other_steps);
    let mut dirty = DirtyBitmap::new(pages as u64);
    primary.dirty.union(&secondary.dirty).for_each(|page| dirty.set(Pfn(*page as u64)));
    (primary, secondary, dirty)
}

proptest! {
    /// Xen refuses no step, and in the end the secondary's pages and Xen's account of them are the primary's.
    #[test]
    fn the_secondary_becomes_the_primary(seed: u64) {
        let (primary, mut secondary, dirty) = apart(seed);
        let plan = FlushPlan::new(&secondary.types(), &primary.types(), &dirty).unwrap();
        secondary.checked.clear();
        for batch in plan.batches() {
            prop_assert_eq!(secondary.carry_out(batch, &primary), Ok(()), "{:?}", batch);
        }
        prop_assert_eq!(&secondary.frames, &primary.frames);
        // No table of level 1 is checked again without need.
        for page in &secondary.checked {
            prop_assert!(dirty.contains(Pfn(*page as u64)) || primary.types()[*page].table_level() > Some(1));
        }
    }

    /// Without Xen's dirty log: the pages that differ, and those that are something else.
    #[test]
    fn dirty_pages_found_by_comparing_are_enough(seed: u64) {
        let (primary, mut secondary, _) = apart(seed);
        let mut dirty = DirtyBitmap::new(primary.frames.len() as u64);
        for (index, (ours, theirs)) in secondary.frames.iter().zip(&primary.frames).enumerate() {
            if (&ours.entries, ours.stamp) != (&theirs.entries, theirs.stamp) {
                dirty.set(Pfn(index as u64));
            }
        }
        type_changes(&secondary.types(), &primary.types()).for_each(|pfn| dirty.set(pfn));
        let plan = FlushPlan::new(&secondary.types(), &primary.types(), &dirty).unwrap();
        for batch in plan.batches() {
            prop_assert_eq!(secondary.carry_out(batch, &primary), Ok(()), "{:?}", batch);
        }
        prop_assert_eq!(secondary.frames, primary.frames);
    }

    /// Checkpoint after checkpoint, while both go on between them and pages become tables and stop to be: Xen refuses no pin, no unpin and
    /// no write.
    #[test]
    fn again_and_again(seed: u64) {
        let (mut primary, mut secondary, _) = apart(seed);
        let mut rng = Rng(seed ^ 1);
        let pages = primary.frames.len();
        for epoch in 0..4 {
            let mut dirty = DirtyBitmap::new(pages as u64);
            for (index, (ours, theirs)) in secondary.frames.iter().zip(&primary.frames).enumerate() {
                if (&ours.entries, ours.stamp) != (&theirs.entries, theirs.stamp) {
                    dirty.set(Pfn(index as u64));
                }
            }
            type_changes(&secondary.types(), &primary.types()).for_each(|pfn| dirty.set(pfn));
            let plan = FlushPlan::new(&secondary.types(), &primary.types(), &dirty).unwrap();
            for batch in plan.batches() {
                prop_assert_eq!(secondary.carry_out(batch, &primary), Ok(()), "epoch {}, {:?}", epoch, batch);
            }
            prop_assert_eq!(&secondary.frames, &primary.frames, "epoch {}", epoch);
            let steps = [1 + rng.below(60), rng.below(60)];
            primary.run(&mut rng, steps[0] as usize);
            secondary.run(&mut rng, steps[1] as usize);
        }
    }

    /// The same plan for a domain that has never run: all pages are written, and what must be is pinned.
    #[test]
    fn a_fresh_domain_becomes_the_primary(seed: u64) {
        let (primary, _, _) = apart(seed);
        let pages = primary.frames.len();
        let mut fresh = Model::new(pages);
        let mut all = DirtyBitmap::new(pages as u64);
        all.set_range(Pfn(0), pages as u64);
        let plan = FlushPlan::new(&[], &primary.types(), &all).unwrap();
        for batch in plan.batches() {
            prop_assert_eq!(fresh.carry_out(batch, &primary), Ok(()), "{:?}", batch);
        }
        prop_assert_eq!(fresh.frames, primary.frames);
    }
}

/// The model would notice: each of the steps is needed, and so is their order.
#[test]
fn no_step_can_be_left_out_or_moved() {
    let is_right = |seed: u64, order: &[usize]| {
        let (primary, mut secondary, dirty) = apart(seed);
        let plan = FlushPlan::new(&secondary.types(), &primary.types(), &dirty).unwrap();
        let steps: [Vec<Batch<'_>>; 5] = [
            plan.shield.chunks(1).map(Batch::Pin).collect(),
            plan.unpin.chunks(1).map(Batch::Unpin).collect(),
            plan.write.chunks(1).map(Batch::Write).collect(),
            plan.pin.chunks(1).map(Batch::Pin).collect(),
            plan.unshield.chunks(1).map(Batch::Unpin).collect(),
        ];
        secondary.checked.clear();
        let done = order.iter().flat_map(|step| &steps[*step]).try_for_each(|b| secondary.carry_out(*b, &primary));
        let no_needless_check = secondary
            .checked
            .iter()
            .all(|page| dirty.contains(Pfn(*page as u64)) || primary.types()[*page].table_level() > Some(1));
        done.is_ok() && secondary.frames == primary.frames && no_needless_check
    };
    let fails_somewhere = |order: &[usize]| (0..200).any(|seed| !is_right(seed, order));
    assert!(!fails_somewhere(&[0, 1, 2, 3, 4]));
    for wrong in [
        [1, 2, 3, 4].as_slice(),
        &[0, 2, 3, 4],
        &[0, 1, 3, 4],
        &[0, 1, 2, 4],
        &[0, 1, 2, 3],
        &[1, 0, 2, 3, 4],
        &[0, 2, 1, 3, 4],
        &[0, 1, 3, 2, 4],
        &[0, 1, 2, 4, 3],
    ] {
        assert!(fails_somewhere(wrong), "{wrong:?}");
    }
}

#[test]
fn pages_of_all_kinds() {
    use PageType::{AllocateOnly, Broken, Invalid, L1, L1Pinned, L2Pinned, L4Pinned, Normal};
    let secondary = [Normal, L4Pinned, L1Pinned, Invalid, Normal, L1Pinned, L1];
    let primary = [Invalid, Normal, Broken, Normal, AllocateOnly, L1, L1Pinned, L2Pinned];
    let mut dirty = DirtyBitmap::new(5);
    dirty.set_range(Pfn(0), 5);
    // The last page is dirty, too: it is beyond the secondary's end.
    let mut longer = DirtyBitmap::new(8);
    longer.set_range(Pfn(0), 5);
    longer.set(Pfn(7));
    let plan = FlushPlan::new(&secondary, &primary, &longer).unwrap();
    let batches: Vec<_> = plan.batches().collect();
    let expected = [
        Batch::Pin(&[(Pfn(6), 1)]),
        Batch::Unpin(&[Pfn(1), Pfn(2)]),
        Batch::Write(&[Pfn(1), Pfn(3), Pfn(7)]),
        Batch::Pin(&[(Pfn(7), 2)]),
        Batch::Unpin(&[Pfn(5)]),
    ];
    assert_eq!(batches, expected);

    let fault = FlushError::CleanButDifferent { pfn: Pfn(7), secondary: Invalid, primary: L2Pinned };
    assert_eq!(FlushPlan::new(&secondary, &primary, &dirty), Err(fault));
    assert_eq!(type_changes(&secondary, &primary).collect::<Vec<_>>(), [Pfn(1), Pfn(2), Pfn(7)]);
}

#[test]
fn batches_are_bounded() {
    let pages = 2 * MAX_BATCH_PAGES + 1;
    let mut dirty = DirtyBitmap::new(pages as u64);
    dirty.set_range(Pfn(0), pages as u64);
    let primary = vec![PageType::L1Pinned; pages];
    let plan = FlushPlan::new(&[], &primary, &dirty).unwrap();
    assert_eq!(plan.written().len(), pages);
    let lengths = plan.batches().map(|batch| match batch {
        Batch::Pin(tables) => tables.len(),
        Batch::Unpin(pages) | Batch::Write(pages) => pages.len(),
    });
    let each = [MAX_BATCH_PAGES, MAX_BATCH_PAGES, 1];
    assert_eq!(lengths.collect::<Vec<_>>(), [each, each].concat());
}
