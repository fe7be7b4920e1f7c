use super::*;
use crate::domain::DirtyBitmap;
use crate::ids::PAGE_SIZE;
use crate::stream::pv::p2m_frames_record;
use crate::stream::{P2mFrames, PageType};
use crate::xen::pv::testing::{GUEST_PAGES, Guest, Machine, Rng, p2m_vaddr};
use crate::xen::pv::{FrameToPfn, GuestWidth, PfnToFrame, Physmap};
use proptest::prelude::*;

const WIDTHS: [GuestWidth; 2] = [GuestWidth::Bits32Pae, GuestWidth::Bits64];

/// A guest's memory, of which every read is counted, and may change something.
struct Watched<'a> {
    machine: &'a mut Machine,
    frames_read: usize,
    on_read: Box<dyn FnMut(&mut Machine) + 'a>,
}

impl ReadFrames for Watched<'_> {
    fn read_frames(&mut self, frames: &[Mfn], pages: &mut [Page]) -> io::Result<()> {
        self.frames_read += frames.len();
        self.machine.read_frames(frames, pages)?;
        (self.on_read)(self.machine);
        Ok(())
    }
}

struct Host {
    guest: Guest,
    machine: Machine,
    rng: Rng,
    limits: P2mLimits,
}

impl Host {
    fn new(width: GuestWidth) -> Host {
        let mut rng = Rng(7);
        let mut machine = Machine::new(&mut rng);
        let guest = Guest::build(width, &mut rng, &mut machine);
        Host { guest, machine, rng, limits: P2mLimits { entries: 1 << 20 } }
    }

    /// Makes the guest one that has only the three-level list.
    fn only_list(mut self) -> Host {
        self.change_info(|info| info.p2m_cr3 = 0);
        self
    }

    fn change_info(&mut self, change: impl FnOnce(&mut crate::xen::pv::shared_info::ArchInfo)) {
        let mut info = self.guest.arch_info(&self.machine);
        change(&mut info);
        self.guest.set_arch_info(&mut self.machine, info);
    }

    fn with_reader<T>(&mut self, act: impl FnOnce(&mut P2mReader<'_>) -> T) -> T {
        let m2p = self.machine.m2p.clone();
        act(&mut P2mReader {
            width: self.guest.width,
            shared_info: self.guest.shared_info,
            limits: self.limits,
            memory: &mut self.machine,
            m2p: &m2p.as_slice(),
        })
    }

    fn read(&mut self) -> Result<P2m, P2mError> {
        self.with_reader(|reader| reader.read())
    }

    fn refresh(&mut self, p2m: &mut P2m, dirty: Option<&DirtyBitmap>) -> P2mChange {
        self.with_reader(|reader| reader.refresh(p2m, dirty)).unwrap()
    }

    fn assert_is_true(&self, p2m: &P2m) {
        for pfn in (0..p2m.pfn_limit()).map(Pfn) {
            assert_eq!(p2m.frame_of(pfn), self.guest.p2m.get(&pfn.0).copied());
        }
    }
}

#[test]
fn both_ways_lead_to_the_same_table() {
    for width in WIDTHS {
        let linear = Host::new(width).read().unwrap();
        let mut host = Host::new(width).only_list();
        let listed = host.read().unwrap();
        assert_eq!(linear.entries, listed.entries);
        assert_eq!(linear.table_frames(), listed.table_frames());
        assert_eq!(linear.pfn_limit(), GUEST_PAGES);
        host.assert_is_true(&linear);
        let pages: Vec<Pfn> = linear.table_frames().iter().map(|(_, pfn)| *pfn).collect();
        assert_eq!(pages, host.guest.p2m_pages);

        let record = linear.frames_record().body;
        assert_eq!(record[..8], [[0; 4], (GUEST_PAGES as u32 - 1).to_le_bytes()].concat());
        assert_eq!(record[8..16], pages[0].0.to_le_bytes());
        assert_eq!(record.len(), 8 + 8 * pages.len());
    }
}

#[test]
fn what_an_entry_says() {
    for (width, foreign, identity) in
        [(GuestWidth::Bits64, 1_u64 << 63, 1 << 62), (GuestWidth::Bits32Pae, 1 << 31, 1 << 30)]
    {
        let mut host = Host::new(width);
        host.guest.write_p2m_entry(&mut host.machine, Pfn(1), foreign | 5);
        host.guest.write_p2m_entry(&mut host.machine, Pfn(2), identity | 6);
        host.guest.write_p2m_entry(&mut host.machine, Pfn(3), u64::MAX);
        let p2m = host.read().unwrap();
        assert_eq!(p2m.entry(Pfn(1)), P2mEntry::Foreign(Mfn(5)));
        assert_eq!(p2m.entry(Pfn(2)), P2mEntry::Identity(Mfn(6)));
        assert_eq!(p2m.entry(Pfn(3)), P2mEntry::Missing);
        assert_eq!(p2m.entry(Pfn(4)), P2mEntry::Frame(host.guest.p2m[&4]));
        assert_eq!(p2m.entry(Pfn(u64::MAX)), P2mEntry::Missing);
        assert_eq!([1, 2, 3, u64::MAX].map(|pfn| p2m.frame_of(Pfn(pfn))), [None; 4]);
    }
}

/// A guest whose memory may grow claims far more entries than it has: the rest share one page of nothing.
#[test]
fn a_tail_that_is_shared_does_not_count() {
    for width in WIDTHS {
        let words = width.words_per_page() as u64;
        let mut host = Host::new(width);
        let Host { guest, machine, .. } = &mut host;
        let nothing = guest.spare_page();
        guest.write_words(machine, nothing, &vec![u64::MAX; words as usize]);
        let nothing_frame = guest.p2m[&nothing.0].0;
        // The address space: the table begins with the last entry of an L1, so the next one maps 512 pages of it.
        let first_free = p2m_vaddr(width) + guest.p2m_pages.len() as u64 * 4096;
        for vaddr in (first_free..p2m_vaddr(width) + 513 * 4096).step_by(4096) {
            guest.map(machine, vaddr, nothing, 0x25);
        }
        let boundary = p2m_vaddr(width) + 513 * 4096;
        assert_eq!(boundary % (2 << 20), 0);
        let l2 = guest.table_for(machine, boundary, 2);
        let l1 = guest.table_for(machine, boundary, 1);
        let l1_frame = guest.p2m[&l1.0].0;
        for slot in 0..512 {
            guest.set_entry(machine, l1, slot, nothing_frame << 12 | 0x25);
        }
        for more in 0..4 {
            guest.set_entry(machine, l2, (boundary >> 21) as usize % 512 + more, l1_frame << 12 | 0x67);
        }
        // The list.
        let (empty_list, full_list, list_list) = (guest.spare_page(), guest.spare_page(), guest.spare_page());
        guest.write_words(machine, empty_list, &vec![nothing_frame; words as usize]);
        let leaves = guest.p2m_pages.iter().map(|pfn| guest.p2m[&pfn.0].0);
        let leaves: Vec<u64> = leaves.chain(std::iter::repeat(nothing_frame)).take(words as usize).collect();
        guest.write_words(machine, full_list, &leaves);
        let lists = [full_list, empty_list, empty_list, empty_list, empty_list].map(|pfn| guest.p2m[&pfn.0].0);
        guest.write_words(machine, list_list, &lists);
        let list_list = guest.p2m[&list_list.0].0;

        host.change_info(|info| info.entries = (513 + 4 * 512) * words);
        let p2m = host.read().unwrap();
        assert_eq!(p2m.pfn_limit(), 513 * words);
        host.assert_is_true(&p2m);

        host.change_info(|info| {
            (info.p2m_cr3, info.entries, info.frame_list_list) = (0, 5 * words * words, list_list);
        });
        let p2m = host.read().unwrap();
        assert_eq!(p2m.pfn_limit(), words * words);
        host.assert_is_true(&p2m);

        // What is left must be within the limit, what was claimed need not.
        host.limits.entries = words * words - 1;
        let error = host.read().unwrap_err();
        assert!(matches!(error, P2mError::TooLong { entries, .. } if entries == words * words), "{error}");
    }
}

#[test]
fn a_table_that_grows_between_two_reads() {
    for width in WIDTHS {
        for list in [false, true] {
            let mut host = if list { Host::new(width).only_list() } else { Host::new(width) };
            let mut p2m = host.read().unwrap();
            let unchanged = host.refresh(&mut p2m, None);
            assert!(unchanged.record_holds() && !unchanged.has_grown() && unchanged.changed.is_empty());

            let more = GUEST_PAGES + 3 * width.words_per_page() as u64;
            let machine = &mut host.machine;
            for pfn in GUEST_PAGES..more {
                host.guest.p2m.insert(pfn, machine.allocate(pfn));
            }
            host.guest.pages = more;
            host.guest.keep_p2m(machine, more);
            if list {
                host.change_info(|info| info.p2m_cr3 = 0);
            }
            // Even a dirty log that has seen nothing does not hide it.
            let change = host.refresh(&mut p2m, Some(&DirtyBitmap::new(GUEST_PAGES)));
            assert!(change.has_grown() && change.moved && !change.record_holds());
            assert_eq!((change.old_pfn_limit, change.new_pfn_limit), (GUEST_PAGES, more));
            assert!(change.changed.iter().eq((GUEST_PAGES..more).map(Pfn)));
            host.assert_is_true(&p2m);
        }
    }
}

#[test]
fn pages_given_back_and_got_again() {
    for width in WIDTHS {
        let mut host = Host::new(width);
        let mut p2m = host.read().unwrap();
        let pages: Vec<Pfn> = (0..20).map(|_| host.guest.spare_page()).collect();
        let mut dirty = DirtyBitmap::new(GUEST_PAGES);
        for (at, pfn) in pages.iter().enumerate() {
            host.guest.balloon_out(&mut host.machine, *pfn);
            if at % 2 == 0 {
                host.guest.balloon_in(&mut host.machine, *pfn);
            }
            dirty.set(host.guest.p2m_pages[pfn.0 as usize / width.words_per_page()]);
        }
        let mut whole = p2m.clone();
        let change = host.refresh(&mut p2m, Some(&dirty));
        assert_eq!(host.refresh(&mut whole, None), change);
        assert_eq!(p2m, whole);
        assert!(change.record_holds());
        assert_eq!(change.changed.iter().collect::<std::collections::BTreeSet<_>>(), pages.into_iter().collect());
        host.assert_is_true(&p2m);
    }
}

#[test]
fn only_dirty_pages_are_read_again() {
    let mut host = Host::new(GuestWidth::Bits64);
    let mut p2m = host.read().unwrap();
    let mut dirty = DirtyBitmap::new(GUEST_PAGES);
    dirty.set(host.guest.p2m_pages[1]);
    let m2p = host.machine.m2p.clone();
    let mut memory = Watched { machine: &mut host.machine, frames_read: 0, on_read: Box::new(|_| ()) };
    let (width, shared_info, limits) = (GuestWidth::Bits64, host.guest.shared_info, host.limits);
    let mut reader = P2mReader { width, shared_info, limits, memory: &mut memory, m2p: &m2p.as_slice() };
    reader.refresh(&mut p2m, Some(&dirty)).unwrap();
    assert_eq!(memory.frames_read, 2, "the shared info and one page of the table");
}

#[test]
fn a_mapping_that_changes_while_it_is_read() {
    // After every read: now and then, then for ever.
    for (changes, is_read) in [(2, true), (4, true), (5, false), (usize::MAX, false)] {
        let mut host = Host::new(GuestWidth::Bits64);
        let (guest, m2p) = (&host.guest, host.machine.m2p.clone());
        let mut left = changes;
        let on_read = move |machine: &mut Machine| {
            if left > 0 {
                left -= 1;
                let mut info = guest.arch_info(machine);
                info.p2m_generation += 1;
                guest.set_arch_info(machine, info);
            }
        };
        let (width, shared_info, limits) = (guest.width, guest.shared_info, host.limits);
        let mut memory = Watched { machine: &mut host.machine, frames_read: 0, on_read: Box::new(on_read) };
        let mut reader = P2mReader { width, shared_info, limits, memory: &mut memory, m2p: &m2p.as_slice() };
        let read = reader.read();
        drop(memory);
        // An odd number of changes leaves the guest in the middle of one.
        match is_read {
            true => host.assert_is_true(&read.unwrap()),
            false => assert!(matches!(read, Err(P2mError::Changing)), "{changes} changes"),
        }
    }
    // The guest stopped in the middle of a change.
    let mut host = Host::new(GuestWidth::Bits64);
    host.change_info(|info| info.p2m_generation += 1);
    assert!(matches!(host.read(), Err(P2mError::Changing)));
    host.change_info(|info| info.p2m_generation += 1);
    assert!(host.read().is_ok());
}

#[test]
fn lies_of_the_shared_info() {
    for width in WIDTHS {
        let error = |change: fn(&mut crate::xen::pv::shared_info::ArchInfo)| {
            let mut host = Host::new(width);
            host.change_info(change);
            host.read().unwrap_err()
        };
        let no_entries = error(|info| info.entries = 0);
        assert!(matches!(no_entries, P2mError::NotSetUp));
        let no_list = error(|info| (info.p2m_cr3, info.frame_list_list) = (0, 0));
        assert!(matches!(no_list, P2mError::NotSetUp));
        let never = error(|info| (info.p2m_cr3, info.frame_list_list) = (0, u64::MAX));
        assert!(matches!(never, P2mError::BadFrame { what: "frame list list", .. }), "{never}");
        let no_root = error(|info| info.p2m_cr3 = 0xFFFF_F000);
        assert!(matches!(no_root, P2mError::BadFrame { what: "CR3", .. }), "{no_root}");
        let unaligned = error(|info| info.p2m_vaddr += 8);
        assert!(matches!(unaligned, P2mError::BadAddress { .. }));
        let too_long = error(|info| (info.p2m_cr3, info.entries) = (0, u64::from(u32::MAX)));
        assert!(matches!(too_long, P2mError::TooLong { .. }), "{too_long}");
    }
    // Where Xen is, into where Xen is, beyond the end, in the hole.
    for (width, vaddr) in [
        (GuestWidth::Bits32Pae, 0xF580_0000_u64),
        (GuestWidth::Bits32Pae, 0xF57F_F000),
        (GuestWidth::Bits32Pae, 0xFFFF_F000),
        (GuestWidth::Bits64, 0xFFFF_8000_0000_0000),
        (GuestWidth::Bits64, 0xFFFF_87FF_FFFF_F000),
        (GuestWidth::Bits64, 0x0000_7FFF_FFFF_F000),
        (GuestWidth::Bits64, 0xFFFF_7FFF_FFFF_F000),
        (GuestWidth::Bits64, 0xFFFF_FFFF_FFFF_F000),
    ] {
        let mut host = Host::new(width);
        host.change_info(|info| info.p2m_vaddr = vaddr);
        assert!(matches!(host.read(), Err(P2mError::BadAddress { .. })), "{vaddr:#x}");
    }
    let mut host = Host::new(GuestWidth::Bits64);
    host.change_info(|info| info.entries = 1 << 33);
    assert!(matches!(host.read(), Err(P2mError::TooLong { .. })));
}

#[test]
fn tables_that_lead_nowhere() {
    for width in WIDTHS {
        for (level, name) in [(1, "L1"), (2, "L2"), (3, "L3")] {
            let mut host = Host::new(width);
            let vaddr = p2m_vaddr(width);
            let table = host.guest.table_for(&mut host.machine, vaddr, level);
            let index = (vaddr >> (12 + 9 * (u32::from(level) - 1))) as usize & 511;
            let good = host.guest.entry(&host.machine, table, index);
            let superpage = if level > 1 { good | 0x80 } else { 0 };
            for entry in [0, good & !1, 1, 0x000F_FFFF_FFFF_F001, superpage] {
                host.guest.set_entry(&mut host.machine, table, index, entry);
                let error = host.read().unwrap_err();
                assert!(matches!(error, P2mError::BadFrame { what, index: 0, .. } if what == name), "{error}");
            }
            // A table that maps itself, in place of what it should: found, but not the guest's table.
            host.guest.set_entry(&mut host.machine, table, index, host.guest.p2m[&table.0].0 << 12 | 0x67);
            assert!(host.read().is_err());
            // A frame that exists, but not for this guest.
            let foreign = host.machine.allocate(5);
            host.machine.frames.remove(&foreign.0);
            host.guest.set_entry(&mut host.machine, table, index, foreign.0 << 12 | 0x67);
            assert!(matches!(host.read(), Err(P2mError::Read { .. })));
        }
        // A frame of the table that claims to be another page of the guest's.
        let mut host = Host::new(width);
        let (leaf, other) = (host.guest.p2m_pages[0], host.guest.spare_page());
        let frame = host.guest.p2m[&leaf.0];
        host.machine.m2p[frame.0 as usize] = other.0;
        let error = host.read().unwrap_err();
        assert!(matches!(error, P2mError::NotInPhysmap { index: 0, frame: named } if named == frame), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a guest writes into its tables, lists and shared info, a read ends, and what it gives is the guest's own.
    #[test]
    fn any_table_any_bytes(seed: u64, wide: bool, list: bool, wild: bool) {
        let mut host = Host::new(WIDTHS[usize::from(wide)]);
        if list {
            host.change_info(|info| info.p2m_cr3 = 0);
        }
        host.rng = Rng(seed);
        let frames: Vec<u64> = host.machine.frames.keys().copied().collect();
        for _ in 0..400 {
            let frame = frames[host.rng.below(frames.len() as u64) as usize];
            let target = frames[host.rng.below(frames.len() as u64) as usize];
            let value = if wild { host.rng.next() } else if list { target } else { target << 12 | 1 };
            let at = host.rng.below(512) as usize * 8;
            host.machine.page_mut(Mfn(frame))[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        for _ in 0..host.rng.below(4) {
            // In `arch`, or a word before or after it.
            let at = if wide { 3080 } else { 2312 } + host.rng.below(7) as usize * 8;
            let value = host.rng.next() >> host.rng.below(64);
            let shared_info = host.guest.shared_info;
            host.machine.page_mut(shared_info)[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(p2m) = host.read() {
            prop_assert!(p2m.pfn_limit() <= host.limits.entries);
            let physmap = Physmap::new(&p2m, host.machine.m2p.as_slice());
            for (frame, pfn) in p2m.table_frames() {
                prop_assert_eq!(physmap.pfn_of(*frame), Some(*pfn));
            }
        }
    }

    /// What a restorer is told, in any pieces, it writes over the guest's table.
    #[test]
    fn what_is_restored_is_written(
        pages in 1_u64..5000,
        wide: bool,
        cuts in prop::collection::vec(0_u64..5000, 0..4),
        holes in prop::collection::btree_set(0_u64..5000, 0..50),
    ) {
        let width = WIDTHS[usize::from(wide)];
        let words = width.words_per_page() as u64;
        let mut p2m = RestoredP2m::new(width, 5000);
        // The table is in the first pages; the stream says so piece by piece, each to the guest's end as it then was.
        let mut ends: Vec<u64> = cuts.into_iter().filter(|cut| *cut < pages - 1).collect();
        ends.push(pages - 1);
        ends.sort_unstable();
        let mut first = 0;
        for last in ends {
            let pfns: Vec<u64> = (first / words..=last / words).collect();
            handle_frames(&mut p2m, first as u32, last as u32, &pfns).unwrap();
            first = last;
        }
        let table_pages = pages.div_ceil(words);
        let frame = |pfn: u64| if pfn >= table_pages && holes.contains(&pfn) { u64::MAX } else { pfn * 3 + 1 };
        for pfn in (0..pages).filter(|pfn| frame(*pfn) != u64::MAX) {
            p2m.set_frame(Pfn(pfn), Mfn(frame(pfn))).unwrap();
        }
        let mut bytes = Vec::new();
        for (index, page) in p2m.table_pages().unwrap().enumerate() {
            prop_assert_eq!((page.pfn, page.frame), (Pfn(index as u64), Mfn(index as u64 * 3 + 1)));
            bytes.extend_from_slice(page.bytes());
        }
        let expected: Vec<u8> =
            (0..pages).flat_map(|pfn| frame(pfn).to_le_bytes()[..width.word_bytes()].to_vec()).collect();
        prop_assert_eq!(bytes, expected);
    }

    /// Also one of a guest of the other width.
    #[test]
    fn any_frames_record(
        body in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..200),
        wide: bool,
        recorded_wide: bool,
    ) {
        let Ok(frames) = P2mFrames::parse(&body, WIDTHS[usize::from(recorded_wide)].info()) else { return Ok(()) };
        let mut p2m = RestoredP2m::new(WIDTHS[usize::from(wide)], 10_000);
        if p2m.handle_frames(&frames).is_err() {
            prop_assert_eq!(p2m.pfn_limit(), 0);
        }
        prop_assert!(p2m.pfn_limit() <= 10_000);
    }
}

/// A record comes from the stream.
fn handle_frames(p2m: &mut RestoredP2m, first: u32, last: u32, pfns: &[u64]) -> Result<(), RestoredP2mError> {
    let info = p2m.width().info();
    let record = p2m_frames_record(info, first, last, pfns.iter().copied().map(Pfn));
    p2m.handle_frames(&P2mFrames::parse(&record.body, info).unwrap())
}

#[test]
fn records_and_pages_that_cannot_be() {
    let mut p2m = RestoredP2m::new(GuestWidth::Bits64, 1000);
    let pages = 1001;
    assert_eq!(handle_frames(&mut p2m, 0, 1000, &[1, 2]), Err(RestoredP2mError::TooLong { pages, limit: 1000 }));
    assert_eq!(p2m.set_frame(Pfn(0), Mfn(1)), Err(RestoredP2mError::PfnOutOfRange { pfn: Pfn(0), pfn_limit: 0 }));

    handle_frames(&mut p2m, 512, 600, &[4]).unwrap();
    let error = p2m.table_pages().err();
    assert_eq!(error, Some(RestoredP2mError::UnknownTablePage { index: 0 }));
    handle_frames(&mut p2m, 0, 3, &[1 << 50]).unwrap();
    let bad = |p2m: &RestoredP2m| match p2m.table_pages().err() {
        Some(RestoredP2mError::BadTablePage { index, pfn, page_type, frame }) => (index, pfn.0, page_type, frame),
        other => panic!("{other:?}"),
    };
    assert_eq!(bad(&p2m), (0, 1 << 50, PageType::Invalid, None));
    handle_frames(&mut p2m, 0, 3, &[3]).unwrap();
    assert_eq!(bad(&p2m), (0, 3, PageType::Normal, None));
    p2m.set_frame(Pfn(3), Mfn(9)).unwrap();
    p2m.set_frame(Pfn(4), Mfn(10)).unwrap();
    assert_eq!(p2m.table_pages().unwrap().map(|page| page.bytes().len()).collect::<Vec<_>>(), [PAGE_SIZE, 89 * 8]);
    p2m.set_type(Pfn(4), PageType::L1Pinned).unwrap();
    assert_eq!(bad(&p2m), (1, 4, PageType::L1Pinned, Some(Mfn(10))));
    assert_eq!(p2m.pinned().collect::<Vec<_>>(), [(Pfn(4), 1)]);
    assert_eq!((p2m.take_frame(Pfn(3)), p2m.take_frame(Pfn(3))), (Ok(Some(Mfn(9))), Ok(None)));

    for (width, most) in [(GuestWidth::Bits32Pae, u64::from(u32::MAX)), (GuestWidth::Bits64, (1 << 40) - 1)] {
        let mut p2m = RestoredP2m::new(width, 1);
        p2m.grow(1).unwrap();
        assert_eq!(p2m.set_frame(Pfn(0), Mfn(most)), Err(RestoredP2mError::FrameTooHigh { frame: Mfn(most) }));
        p2m.set_frame(Pfn(0), Mfn(most - 1)).unwrap();
        assert_eq!(p2m.frame_of(Pfn(0)), Some(Mfn(most - 1)));
    }
}
