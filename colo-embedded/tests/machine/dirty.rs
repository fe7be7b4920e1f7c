//! The dirty log, both kinds, against a model.

use crate::programs::{CONTROL, DATA, LIST, caller, dirtier};
use crate::support::{TestVm, pfn_of};
use colo_core::domain::{Control, DirtyBitmap, DirtyLog, DomainError, Pages};
use colo_core::ids::{PAGE_SIZE, Pfn};
use colo_core::net::Port;
use colo_embedded::machine::DirtyLogChoice;
use std::collections::BTreeSet;

/// The page of the words that both sides share: a resumption writes it.
const SHARED: u64 = 1;

/// The kinds that this kernel has, told apart by what the domain says of itself.
fn kinds() -> Vec<(DirtyLogChoice, &'static str)> {
    let best = TestVm::boot_with(&dirtier(), DirtyLogChoice::Auto).domain.dirty_log_kind();
    let mut kinds = vec![(DirtyLogChoice::Shadow, "shadow compare")];
    if best == "userfaultfd-wp" {
        kinds.push((DirtyLogChoice::Userfaultfd, best));
    } else {
        eprintln!("this kernel offers no userfaultfd: only {best} is tried");
    }
    kinds
}

fn each_kind(program: &[u8], test: impl Fn(TestVm)) {
    for (choice, kind) in kinds() {
        let vm = TestVm::boot_with(program, choice);
        assert_eq!(vm.domain.dirty_log_kind(), kind);
        test(vm);
    }
}

fn take(vm: &mut TestVm) -> BTreeSet<u64> {
    let mut dirty = DirtyBitmap::new(vm.domain.spec().pfn_limit);
    vm.domain.take_dirty(&mut dirty).unwrap();
    dirty.iter().map(|pfn| pfn.0).collect()
}

fn set(pfns: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    pfns.into_iter().collect()
}

/// A generator of the tests' own (SplitMix64), so that a run can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// Tells the program to write to these pages; returns what must be dirty after that.
fn write_pages(vm: &mut TestVm, pfns: &BTreeSet<u64>) -> BTreeSet<u64> {
    add_to_pages(vm, pfns, 1)
}

fn add_to_pages(vm: &mut TestVm, pfns: &BTreeSet<u64>, number: i64) -> BTreeSet<u64> {
    let list: Vec<u64> = pfns.iter().copied().collect();
    for (index, chunk) in list.chunks(512).enumerate() {
        vm.poke(LIST + index as u64 * PAGE_SIZE as u64, chunk);
    }
    vm.run_once(list.len() as u64, &[number as u64]);
    let mut expected = pfns.clone();
    expected.extend([SHARED, pfn_of(CONTROL).0]);
    expected
}

/// Pages that the program may write to: its data, up to the end of memory.
fn random_pages(vm: &TestVm, random: &mut Random) -> BTreeSet<u64> {
    let (first, limit) = (pfn_of(DATA).0, vm.domain.spec().pfn_limit);
    let count = 1 + random.below(600);
    (0..count).map(|_| first + random.below(limit - first)).collect()
}

#[test]
fn reports_exactly_what_the_guest_wrote() {
    each_kind(&dirtier(), |mut vm| {
        let mut random = Random(7);
        vm.domain.enable_dirty_log().unwrap();
        assert_eq!(take(&mut vm), set([]));
        for _ in 0..30 {
            let pfns = random_pages(&vm, &mut random);
            let expected = write_pages(&mut vm, &pfns);
            assert_eq!(take(&mut vm), expected);
            assert_eq!(take(&mut vm), set([]), "taken twice");
        }
    });
}

#[test]
fn adds_up_while_nobody_looks() {
    each_kind(&dirtier(), |mut vm| {
        let mut random = Random(8);
        vm.domain.enable_dirty_log().unwrap();
        let mut expected = BTreeSet::new();
        for _ in 0..5 {
            let pfns = random_pages(&vm, &mut random);
            expected.extend(write_pages(&mut vm, &pfns));
        }
        let mut dirty = DirtyBitmap::new(vm.domain.spec().pfn_limit);
        dirty.set(Pfn(2));
        vm.domain.take_dirty(&mut dirty).unwrap();
        expected.insert(2);
        assert_eq!(dirty.iter().map(|pfn| pfn.0).collect::<BTreeSet<_>>(), expected, "added to what was there");
    });
}

#[test]
fn a_running_guest_escapes_no_log() {
    each_kind(&dirtier(), |mut vm| {
        let pfn = pfn_of(DATA);
        vm.domain.enable_dirty_log().unwrap();
        for _ in 0..200 {
            vm.poke(LIST, &[pfn.0]);
            vm.poke(CONTROL, &[1, 1]);
            vm.domain.resume().unwrap();
            // An engine copies pages while the guest runs, and later only those that are dirty.
            let mut live = vm.page(pfn);
            let mut dirty = take(&mut vm);
            if dirty.contains(&pfn.0) {
                live = vm.page(pfn);
            }
            vm.wait_until(|vm| vm.peek(CONTROL) == 0);
            vm.domain.suspend().unwrap();
            dirty = take(&mut vm);
            assert!(dirty.contains(&pfn.0) || live == vm.page(pfn), "the copy is old, and the log does not say so");
        }
    });
}

#[test]
fn a_page_that_was_read_with_passing_content_is_dirty() {
    each_kind(&dirtier(), |mut vm| {
        let pfns = set([pfn_of(DATA).0]);
        vm.domain.enable_dirty_log().unwrap();
        add_to_pages(&mut vm, &pfns, 1);
        // The engine has copied this, and must hear that it is old.
        vm.page(pfn_of(DATA));
        let expected = add_to_pages(&mut vm, &pfns, -1);
        assert_eq!(take(&mut vm), expected);
    });
}

#[test]
fn what_the_engine_writes_is_not_dirty_but_hides_nothing() {
    each_kind(&dirtier(), |mut vm| {
        let (data, other) = (pfn_of(DATA), pfn_of(DATA + 0x1000));
        vm.domain.enable_dirty_log().unwrap();
        vm.domain.write_pages(&[data, other], &[3; 2 * PAGE_SIZE]).unwrap();
        assert_eq!(take(&mut vm), set([]));
        let expected = write_pages(&mut vm, &set([data.0]));
        vm.domain.write_pages(&[data], &[4; PAGE_SIZE]).unwrap();
        assert_eq!(take(&mut vm), expected, "the guest wrote it before");
        assert_eq!(write_pages(&mut vm, &set([data.0, other.0])), take(&mut vm));
    });
}

#[test]
fn what_devices_write_is_dirty() {
    each_kind(&dirtier(), |mut vm| {
        vm.domain.enable_dirty_log().unwrap();
        vm.domain.resume().unwrap();
        let frames = vec![vec![1; 64].into(); 5];
        assert_eq!(vm.port.send(&frames).unwrap(), 5);
        vm.domain.suspend().unwrap();
        // Five slots of half a page, from page 2 on.
        assert_eq!(take(&mut vm), set([SHARED, 2, 3, 4]));
    });
}

#[test]
fn what_the_kernel_writes_for_the_guest_is_dirty() {
    each_kind(&caller(), |mut vm| {
        vm.domain.enable_dirty_log().unwrap();
        for page in [0, 1, 0] {
            let address = DATA + page * PAGE_SIZE as u64;
            vm.run_once(1, &[228, 1, address]);
            assert_eq!(vm.peek(CONTROL + 48), 0, "clock_gettime");
            assert_eq!(take(&mut vm), set([SHARED, pfn_of(CONTROL).0, pfn_of(address).0]));
        }
    });
}

#[test]
fn can_be_switched_off_and_on_again() {
    each_kind(&dirtier(), |mut vm| {
        let mut dirty = DirtyBitmap::new(vm.domain.spec().pfn_limit);
        assert!(matches!(vm.domain.take_dirty(&mut dirty), Err(DomainError::DirtyLogOff)));
        for round in 0..3 {
            vm.domain.enable_dirty_log().unwrap();
            let pfns = set([pfn_of(DATA).0 + round]);
            assert_eq!(write_pages(&mut vm, &pfns), take(&mut vm));
            write_pages(&mut vm, &pfns);
            vm.domain.enable_dirty_log().unwrap();
            assert_eq!(take(&mut vm), set([]), "enabling starts anew");
            vm.domain.disable_dirty_log().unwrap();
            assert!(matches!(vm.domain.take_dirty(&mut dirty), Err(DomainError::DirtyLogOff)));
            write_pages(&mut vm, &pfns);
        }
        assert!(dirty.is_empty());
    });
}

#[test]
fn refuses_a_bitmap_of_another_size() {
    each_kind(&dirtier(), |mut vm| {
        vm.domain.enable_dirty_log().unwrap();
        assert!(vm.domain.take_dirty(&mut DirtyBitmap::new(1)).is_err());
    });
}
