//! A whole guest, from one machine to another.

use super::page_table::{Normalised, TableFault, localise, normalise, unpopulated};
use super::testing::{GUEST_PAGES, Guest, Machine, Rng, TrueMap, levels_seen, view};
use super::*;
use crate::domain::StateRecord;
use crate::ids::{Mfn, PAGE_SIZE, Page, Pfn};
use crate::stream::{P2mFrames, PageType};
use proptest::prelude::*;

const WIDTHS: [GuestWidth; 2] = [GuestWidth::Bits32Pae, GuestWidth::Bits64];

fn built(width: GuestWidth, seed: u64) -> (Guest, Machine, Rng) {
    let mut rng = Rng(seed);
    let mut machine = Machine::new(&mut rng);
    let guest = Guest::build(width, &mut rng, &mut machine);
    (guest, machine, rng)
}

fn read_p2m(guest: &Guest, machine: &mut Machine) -> Result<P2m, P2mError> {
    let m2p = machine.m2p.clone();
    let (width, shared_info, limits) = (guest.width, guest.shared_info, P2mLimits { entries: 1 << 20 });
    P2mReader { width, shared_info, limits, memory: machine, m2p: &m2p.as_slice() }.read()
}

/// Every page in the order given, as a stream would have it: its number, its type, its bytes.
fn saved(guest: &Guest, machine: &mut Machine, order: impl Iterator<Item = u64>) -> Vec<(Pfn, PageType, Option<Page>)> {
    let p2m = read_p2m(guest, machine).unwrap();
    let physmap = Physmap::new(&p2m, machine.m2p.as_slice());
    let mut stream = Vec::new();
    for pfn in order.map(Pfn) {
        let Some(frame) = p2m.frame_of(pfn) else {
            stream.push((pfn, PageType::Invalid, None));
            continue;
        };
        let page_type = guest.types.get(&pfn.0).copied().unwrap_or(PageType::Normal);
        let mut page = *machine.page(frame);
        if let Some(level) = page_type.table_level() {
            let done = normalise(guest.format(), level, GuestState::Suspended, &mut page, &physmap);
            assert_eq!(done, Ok(Normalised::Done), "{pfn}");
        }
        stream.push((pfn, page_type, Some(page)));
    }
    stream
}

/// Puts the pages of a stream into frames of another machine, as a restorer does.
fn restored(
    width: GuestWidth,
    record: &StateRecord,
    stream: &[(Pfn, PageType, Option<Page>)],
    machine: &mut Machine,
) -> RestoredP2m {
    let mut p2m = RestoredP2m::new(width, 1 << 20);
    p2m.handle_frames(&P2mFrames::parse(&record.body, width.info()).unwrap()).unwrap();
    for (pfn, page_type, page) in stream {
        p2m.set_type(*pfn, *page_type).unwrap();
        let Some(mut page) = *page else { continue };
        let mut missing = vec![];
        if let Some(level) = page_type.table_level() {
            unpopulated(level, &page, &p2m, &mut missing).unwrap();
        }
        missing.extend(p2m.frame_of(*pfn).is_none().then_some(*pfn));
        missing.sort_unstable();
        missing.dedup();
        for pfn in missing {
            p2m.set_frame(pfn, machine.allocate(pfn.0)).unwrap();
        }
        if let Some(level) = page_type.table_level() {
            localise(level, &mut page, &Physmap::new(&p2m, machine.m2p.as_slice())).unwrap();
        }
        *machine.page_mut(p2m.frame_of(*pfn).unwrap()) = page;
    }
    for table_page in p2m.table_pages().unwrap() {
        machine.page_mut(table_page.frame)[..table_page.bytes().len()].copy_from_slice(table_page.bytes());
    }
    p2m
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A guest sees the same pages at the same addresses on both machines, and finds its frames in its own table.
    #[test]
    fn a_guest_moves_from_machine_to_machine(seed: u64, wide: bool) {
        let width = WIDTHS[usize::from(wide)];
        let (mut guest, mut machine, mut rng) = built(width, seed);
        for _ in 0..50 {
            let pfn = guest.spare_page();
            guest.balloon_out(&mut machine, pfn);
        }
        let before = view(width, guest.p2m[&guest.root.0], &machine, &TrueMap(&guest, &machine));
        prop_assert!(before.len() > 40);
        for level in 1..=width.levels() {
            prop_assert!(levels_seen(&guest).contains(&(level, true)) || levels_seen(&guest).contains(&(level, false)));
        }

        let record = read_p2m(&guest, &mut machine).unwrap().frames_record();
        // Tables before what they map as often as after.
        let mut order: Vec<u64> = (0..GUEST_PAGES).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, rng.below(index as u64 + 1) as usize);
        }
        let stream = saved(&guest, &mut machine, order.into_iter());
        let mut other = Machine::new(&mut rng);
        let p2m = restored(width, &record, &stream, &mut other);

        let root = p2m.frame_of(guest.root).unwrap();
        let physmap = Physmap::new(&p2m, other.m2p.as_slice());
        prop_assert_eq!(view(width, root, &other, &physmap), before);
        for pfn in 0..GUEST_PAGES {
            prop_assert_eq!(p2m.frame_of(Pfn(pfn)).is_some(), guest.p2m.contains_key(&pfn));
        }
        // The guest's own table, found by its own page tables on the new machine.
        let shared_info = other.allocate(u64::MAX);
        let cr3 = width.frame_to_cr3(root).unwrap();
        let info = shared_info::ArchInfo { p2m_cr3: cr3, frame_list_list: 0, ..guest.arch_info(&machine) };
        guest.shared_info = shared_info;
        guest.set_arch_info(&mut other, info);
        let found = read_p2m(&guest, &mut other).unwrap();
        for pfn in (0..GUEST_PAGES).map(Pfn) {
            prop_assert_eq!(found.frame_of(pfn), p2m.frame_of(pfn));
        }
    }

    /// Whatever the bytes, the answer is a table or a fault, and nothing beyond the guest's memory is named.
    #[test]
    fn tables_of_any_bytes(seed: u64, level in 0_u8..6, wide: bool, sparse: bool) {
        let width = WIDTHS[usize::from(wide)];
        let mut rng = Rng(seed);
        let mut machine = Machine::new(&mut rng);
        let mut p2m = RestoredP2m::new(width, 100);
        p2m.grow(100).unwrap();
        for pfn in (0..100).filter(|pfn| pfn % 3 != 0).map(Pfn) {
            p2m.set_frame(pfn, machine.allocate(pfn.0)).unwrap();
        }
        let mut page = [0; PAGE_SIZE];
        for entry in page_table::entries_mut(&mut page) {
            entry.set(if sparse { rng.below(300) << 12 & 0x7F000 | rng.below(2) } else { rng.next() });
        }
        let original = page;
        let physmap = Physmap::new(&p2m, machine.m2p.as_slice());
        let format = page_table::TableFormat { width, compat_m2p: None };
        let running = normalise(format, level, GuestState::Running, &mut page.clone(), &physmap);
        let suspended = normalise(format, level, GuestState::Suspended, &mut page, &physmap);
        match (running, suspended) {
            (Ok(Normalised::Done), done) => prop_assert_eq!(done, Ok(Normalised::Done)),
            (Ok(Normalised::Deferred(fault)), refused) => prop_assert_eq!(refused, Err(fault)),
            (refused, same) => {
                prop_assert_eq!(&refused, &same);
                let no_level = matches!(refused, Err(TableFault::NoSuchLevel { .. }));
                prop_assert!(no_level && (level == 0 || level > width.levels()));
            }
        }

        let mut page = original;
        let mut missing = vec![Pfn(7)];
        match unpopulated(level, &page, &p2m, &mut missing) {
            Ok(()) => {
                prop_assert!(missing[1..].windows(2).all(|pair| pair[0] < pair[1]));
                for pfn in &missing[1..] {
                    prop_assert!(pfn.0 < 100 && p2m.frame_of(*pfn).is_none());
                    p2m.set_frame(*pfn, machine.allocate(pfn.0)).unwrap();
                }
                let is_localised = localise(level, &mut page, &p2m);
                prop_assert!(matches!(is_localised, Ok(()) | Err(TableFault::Superpage { .. })), "{is_localised:?}");
            }
            Err(fault) => {
                prop_assert!(matches!(fault, TableFault::PfnOutOfRange { pfn_limit: 100, .. }), "{fault:?}");
                prop_assert_eq!(missing, [Pfn(7)]);
                prop_assert!(localise(level, &mut page, &p2m).is_err());
            }
        }
    }
}

#[test]
fn both_kinds_of_pins_are_tested() {
    for width in WIDTHS {
        let seen: std::collections::BTreeSet<_> = (0..8).flat_map(|seed| levels_seen(&built(width, seed).0)).collect();
        let levels = width.levels();
        // The top table is always pinned, all others are seen both ways.
        assert_eq!(seen.len(), 2 * usize::from(levels) - 1);
    }
}

/// One entry of a table of that level, normalised.
fn one_entry(level: u8, state: GuestState, index: usize, entry: u64) -> Result<(Normalised, u64), TableFault> {
    struct Single;
    impl FrameToPfn for Single {
        fn pfn_of(&self, frame: Mfn) -> Option<Pfn> {
            (frame.0 == 0xFF_FFFF_FFFF).then_some(Pfn(5))
        }
    }
    let mut page = [0; PAGE_SIZE];
    page_table::entries_mut(&mut page)[index].set(entry);
    let format = page_table::TableFormat { width: GuestWidth::Bits64, compat_m2p: None };
    let normalised = normalise(format, level, state, &mut page, &Single)?;
    Ok((normalised, page_table::entries(&page)[index].get()))
}

#[test]
fn all_but_the_frame_is_kept() {
    let done = |entry| Ok((Normalised::Done, entry));
    // All of the architecture's 40 bits are the frame, all else is not.
    assert_eq!(one_entry(1, GuestState::Suspended, 511, u64::MAX), done(0xFFF0_0000_0000_5FFF));
    // Not present: where the page was swapped to.
    assert_eq!(one_entry(1, GuestState::Suspended, 3, 0xDEAD_BEEF_DEAD_BEEE), done(0xDEAD_BEEF_DEAD_BEEE));
    // Bit 7 is an attribute of the memory at level 1, a superpage above.
    assert_eq!(one_entry(1, GuestState::Running, 0, 0x000F_FFFF_FFFF_F081), done(0x5081));
    for level in 2..=4 {
        let fault = TableFault::Superpage { level, index: 9, entry: 0x000F_FFFF_FFFF_F081 };
        assert_eq!(one_entry(level, GuestState::Suspended, 9, 0x000F_FFFF_FFFF_F081), Err(fault.clone()));
        let deferred = one_entry(level, GuestState::Running, 9, 0x000F_FFFF_FFFF_F081).unwrap().0;
        assert_eq!(deferred, Normalised::Deferred(fault));
    }
}

#[test]
fn a_frame_of_another_is_deferred_and_then_refused() {
    let fault = TableFault::NotInPhysmap { level: 1, index: 17, entry: 0xFEE0_0001, frame: Mfn(0xFEE00) };
    let running = one_entry(1, GuestState::Running, 17, 0xFEE0_0001).unwrap().0;
    assert_eq!(running, Normalised::Deferred(fault.clone()));
    assert_eq!(one_entry(1, GuestState::Suspended, 17, 0xFEE0_0001), Err(fault));
}

#[test]
fn xens_slots_do_not_travel() {
    for slot in [256, 271] {
        assert_eq!(one_entry(4, GuestState::Suspended, slot, u64::MAX), Ok((Normalised::Done, 0)));
        assert_eq!(one_entry(3, GuestState::Suspended, slot, 2), Ok((Normalised::Done, 2)));
    }
    for slot in [255, 272] {
        assert!(one_entry(4, GuestState::Suspended, slot, 0x1001).is_err());
    }
    // In a 32-bit guest's L2 only when Xen's m2p is there.
    let (guest, machine, _) = built(GuestWidth::Bits32Pae, 1);
    let physmap = TrueMap(&guest, &machine);
    for (compat_m2p, is_done) in [(Some(guest.compat_m2p), true), (None, false), (Some(Mfn(3)), false)] {
        let mut page = [0; PAGE_SIZE];
        page_table::entries_mut(&mut page)[428].set(guest.compat_m2p.0 << 12 | 0xE3);
        page_table::entries_mut(&mut page)[511].set(1);
        let format = page_table::TableFormat { compat_m2p, ..guest.format() };
        let normalised = normalise(format, 2, GuestState::Suspended, &mut page, &physmap);
        assert_eq!(normalised.is_ok(), is_done);
        assert_eq!(page == [0; PAGE_SIZE], is_done);
    }
}
