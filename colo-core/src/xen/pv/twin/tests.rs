use super::*;
use crate::ids::{Mfn, PAGE_SIZE};
use crate::stream::P2mFrames;
use crate::xen::pv::GuestWidth;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A page: its frame on the secondary and what that is there, and what it is to the primary.
type Known = (Option<PageType>, PageType);

fn tables(pages: &[Known]) -> (RestoredP2m, Vec<PageType>) {
    let mut p2m = RestoredP2m::new(GuestWidth::Bits64, 1 << 20);
    p2m.grow(pages.len() as u64).unwrap();
    for (pfn, (own, page_type)) in pages.iter().enumerate() {
        let pfn = Pfn(pfn as u64);
        p2m.set_type(pfn, *page_type).unwrap();
        if own.is_some() {
            p2m.set_frame(pfn, Mfn(0x1000 + pfn.0)).unwrap();
        }
    }
    (p2m, pages.iter().map(|(own, _)| own.unwrap_or(PageType::Invalid)).collect())
}

/// Frames, each with what it is to the secondary.
fn frames(p2m: &RestoredP2m, types: &[PageType]) -> BTreeMap<u64, PageType> {
    let frame = |pfn: usize| p2m.frame_of(Pfn(pfn as u64)).map(|frame| frame.0);
    let with = types.iter().enumerate().filter_map(|(pfn, page_type)| Some((frame(pfn)?, *page_type)));
    with.collect()
}

fn any_type() -> impl Strategy<Value = PageType> {
    prop::sample::select(PageType::ALL.to_vec())
}

proptest! {
    #[test]
    fn frames_are_settled(
        pages in prop::collection::vec((prop::option::of(prop::sample::select(vec![PageType::Normal, PageType::L1, PageType::L4Pinned])), any_type()), 0..40),
    ) {
        let (mut p2m, mut types) = tables(&pages);
        let before = p2m.clone();
        let frames_before = frames(&p2m, &types);
        let Settled { moved, missing, surplus } = settle(&mut p2m, &mut types);

        // None is lost, none is in two places, and each is still what it was.
        prop_assert_eq!(frames(&p2m, &types), frames_before);
        // Both at once would mean that memory is asked for and given back.
        prop_assert!(missing.is_empty() || surplus.is_empty());
        for pfn in (0..pages.len() as u64).map(Pfn) {
            let (has, had, wants) = (p2m.frame_of(pfn), before.frame_of(pfn), wants_memory(p2m.type_of(pfn)));
            prop_assert_eq!(moved.contains(&pfn), has.is_some() && had.is_none());
            prop_assert_eq!(missing.contains(&pfn), wants && has.is_none());
            prop_assert_eq!(surplus.contains(&pfn), !wants && has.is_some());
            prop_assert!(has == had || had.is_none() || has.is_none(), "a page keeps its frame");
        }
    }
}

/// An entry of a page table for a page that is present.
const fn entry(number: u64) -> [u8; 8] {
    (number << 12 | 0x67).to_le_bytes()
}

#[test]
fn tables_name_the_frames_of_here() {
    let pages = [
        (Some(PageType::Normal), PageType::Normal),
        (Some(PageType::Normal), PageType::L1),
        (Some(PageType::Normal), PageType::Normal),
        (None, PageType::Invalid),
    ];
    let (mut p2m, _) = tables(&pages);
    // Pages 0 to 3, whose entries are in page 2.
    let record = [[0, 0, 0, 0, 3, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]].concat();
    p2m.handle_frames(&P2mFrames::parse(&record, p2m.width().info()).unwrap()).unwrap();
    let mut memory = vec![[7; PAGE_SIZE]; 4];
    memory[1] = [0; PAGE_SIZE];
    memory[1][..8].copy_from_slice(&entry(0));
    memory[1][16..24].copy_from_slice(&entry(2));
    let received = |pfn: Pfn| &memory[pfn.0 as usize];
    let local = LocalPages::new(&p2m, &received).unwrap();

    assert_eq!(*local.page(Pfn(0)), [7; PAGE_SIZE]);
    let mut table = [0; PAGE_SIZE];
    table[..8].copy_from_slice(&entry(0x1000));
    table[16..24].copy_from_slice(&entry(0x1002));
    assert_eq!(*local.page(Pfn(1)), table);
    let own = [0x1000_u64, 0x1001, 0x1002, u64::MAX].map(u64::to_le_bytes).concat();
    assert_eq!(local.page(Pfn(2))[..32], own);
    assert_eq!(local.page(Pfn(2))[32..], [7; PAGE_SIZE - 32], "what is beyond the table's end is the guest's");
    let mut changed: Vec<Pfn> = local.changed().collect();
    changed.sort_unstable();
    assert_eq!(changed, [Pfn(1), Pfn(2)]);
}

#[test]
fn a_table_that_names_a_page_without_a_frame_is_refused() {
    let pages = [(Some(PageType::Normal), PageType::L1), (None, PageType::Normal)];
    let (p2m, _) = tables(&pages);
    let mut table = [0; PAGE_SIZE];
    table[..8].copy_from_slice(&entry(1));
    let refused = LocalPages::new(&p2m, &|_| &table).err();
    let fault = TableFault::NotPopulated { level: 1, index: 0, entry: 0x1067, pfn: Pfn(1) };
    assert_eq!(refused, Some(LocalError::Table { pfn: Pfn(0), fault }));
}
