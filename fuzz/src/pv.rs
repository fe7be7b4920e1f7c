//! What a PV guest, or its stream, says of its own memory: page tables, the table of frames, registers, the pages that it shares with
//! the host.

use colo_core::ids::{Mfn, PAGE_SIZE, Page, Pfn};
use colo_core::stream::{P2mFrames, PageType};
use colo_core::xen::pv::page_table::{Normalised, TableFault, TableFormat, localise, normalise, unpopulated};
use colo_core::xen::pv::shared_info::ArchInfo;
use colo_core::xen::pv::start_info::HostPart;
use colo_core::xen::pv::{
    FrameToPfn, GuestState, GuestWidth, P2mLimits, P2mReader, PfnToFrame, Physmap, ReadFrames, RestoredP2m,
    shared_info, start_info, vcpu,
};
use std::io;

/// The first byte says what the rest is: the width of the guest in its lowest bit, and in the others which of these.
pub fn fuzz(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    let width = if choice & 1 == 0 { GuestWidth::Bits64 } else { GuestWidth::Bits32Pae };
    match (choice >> 1) % 6 {
        0 => table(width, rest),
        1 => frames(width, rest),
        2 => registers(width, rest),
        3 => with_start_info(width, rest),
        4 => with_shared_info(width, rest),
        _ => memory(width, rest),
    }
}

/// Memory that is zero but for some places: 10 bytes each, which word of 4 bytes, and 8 bytes to put there.
fn patched(length: usize, patches: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for patch in patches.chunks_exact(10) {
        let at = usize::from(u16::from_le_bytes([patch[0], patch[1]])) * 4 % (length - 7);
        bytes[at..at + 8].copy_from_slice(&patch[2..]);
    }
    bytes
}

fn patched_page(patches: &[u8]) -> Page {
    patched(PAGE_SIZE, patches).try_into().expect("it is a page")
}

/// Pages of the guest here.
const PAGES: u64 = 100;
const FIRST_FRAME: u64 = 1000;

/// A guest of which every third page has no frame; pages 30 and 31 are top tables, 32 a table of the lowest level.
fn guest(width: GuestWidth) -> (RestoredP2m, Vec<u64>) {
    let mut p2m = RestoredP2m::new(width, PAGES);
    let mut m2p = vec![u64::MAX; 2000];
    p2m.grow(PAGES).expect("it is within its limit");
    for pfn in (0..PAGES).filter(|pfn| pfn % 3 != 2) {
        p2m.set_frame(Pfn(pfn), Mfn(FIRST_FRAME + 7 * pfn)).expect("the guest has the page");
        m2p[(FIRST_FRAME + 7 * pfn) as usize] = pfn;
    }
    let table = |level| PageType::ALL.into_iter().find(|page_type| page_type.table_level() == Some(level));
    for (pfn, level) in [(30, width.levels()), (31, width.levels()), (33, 1)] {
        p2m.set_type(Pfn(pfn), table(level).expect("there are such tables")).expect("the guest has the page");
    }
    (p2m, m2p)
}

fn table(width: GuestWidth, rest: &[u8]) {
    let Some((&level, patches)) = rest.split_first() else {
        return;
    };
    let original = patched_page(patches);
    let (mut p2m, m2p) = guest(width);
    let physmap = Physmap::new(&p2m, m2p.as_slice());
    let format = TableFormat { width, compat_m2p: Some(Mfn(FIRST_FRAME)) };
    let mut there = original;
    let running = normalise(format, level, GuestState::Running, &mut original.clone(), &physmap);
    let suspended = normalise(format, level, GuestState::Suspended, &mut there, &physmap);
    match (running, suspended) {
        (Ok(Normalised::Done), done) => {
            assert_eq!(done, Ok(Normalised::Done));
            // It names the guest's own pages, so it can be put back as it was, but for the hypervisor's part.
            localise(level, &mut there, &p2m).expect("what was read from a guest fits it");
            let same = |at: usize| there[at..at + 8] == original[at..at + 8] || there[at..at + 8] == [0; 8];
            assert!((0..PAGE_SIZE).step_by(8).all(same));
        }
        (Ok(Normalised::Deferred(fault)), refused) => assert_eq!(refused, Err(fault)),
        (refused, same) => {
            assert!(matches!(refused, Err(TableFault::NoSuchLevel { .. })), "{refused:?}");
            assert_eq!(refused, same);
            return;
        }
    }

    let mut page = original;
    let mut missing = vec![Pfn(7)];
    match unpopulated(level, &page, &p2m, &mut missing) {
        Ok(()) => {
            assert!(missing[1..].windows(2).all(|pair| pair[0] < pair[1]));
            for pfn in &missing[1..] {
                assert!(pfn.0 < PAGES && p2m.frame_of(*pfn).is_none());
                p2m.set_frame(*pfn, Mfn(500 + pfn.0)).expect("the guest has the page");
            }
            let localised = localise(level, &mut page, &p2m);
            assert!(matches!(localised, Ok(()) | Err(TableFault::Superpage { .. })), "{localised:?}");
        }
        Err(fault) => {
            assert!(matches!(fault, TableFault::PfnOutOfRange { pfn_limit: PAGES, .. }), "{fault:?}");
            assert_eq!(missing, [Pfn(7)]);
            assert!(localise(level, &mut page, &p2m).is_err());
        }
    }
}

/// The most entries of a table here.
const MOST_ENTRIES: u64 = 1 << 13;

/// X86_PV_P2M_FRAMES records, each with its length in front.
fn frames(width: GuestWidth, mut rest: &[u8]) {
    let mut p2m = RestoredP2m::new(width, MOST_ENTRIES);
    while let Some((&[low, high], after)) = rest.split_first_chunk() {
        let (body, after) = after.split_at(usize::from(u16::from_le_bytes([low, high])).min(after.len()));
        rest = after;
        let before = p2m.clone();
        let Ok(frames) = P2mFrames::parse(body, width.info()) else {
            continue;
        };
        match p2m.handle_frames(&frames) {
            Ok(()) => assert_eq!(p2m.pfn_limit(), before.pfn_limit().max(frames.end().0 + 1)),
            Err(_) => assert_eq!((p2m.pfn_limit(), p2m.types()), (before.pfn_limit(), before.types())),
        }
        assert!(p2m.pfn_limit() <= MOST_ENTRIES && p2m.types().len() as u64 == p2m.pfn_limit());
    }
    for pfn in (0..p2m.pfn_limit()).step_by(2) {
        p2m.set_frame(Pfn(pfn), Mfn(pfn + 1)).expect("the guest has the page");
    }
    if let Ok(pages) = p2m.table_pages() {
        let mut bytes = 0;
        for page in pages {
            assert_eq!(page.frame, Mfn(page.pfn.0 + 1));
            bytes += page.bytes().len();
        }
        assert_eq!(bytes, p2m.pfn_limit() as usize * width.word_bytes());
    }
}

fn registers(width: GuestWidth, rest: &[u8]) {
    let Some((&number, patches)) = rest.split_first() else {
        return;
    };
    let number = u32::from(number % 3);
    let original = patched(vcpu::blob_bytes(width), patches);
    let (p2m, m2p) = guest(width);
    let physmap = Physmap::new(&p2m, m2p.as_slice());
    let mut there = original.clone();
    if let Ok(start_info) = vcpu::localise(width, number, &mut there, &p2m) {
        assert_eq!(start_info.is_some(), number == 0);
        assert!(start_info.is_none_or(|frame| physmap.pfn_of(frame).is_some()));
        let localised = there.clone();
        vcpu::normalise(width, number, &mut there, &physmap).expect("what was put into a guest is the guest's");
        // Bits of an address that choose a byte of a page are lost once, and it is online once.
        vcpu::localise(width, number, &mut there, &p2m).expect("what was read from a guest fits it");
        assert!(there == localised);
    }
    let mut there = original.clone();
    if vcpu::normalise(width, number, &mut there, &physmap).is_ok() {
        // Only a table's type, or a frame's, can be in the way.
        let _ = vcpu::localise(width, number, &mut there, &p2m);
    }
    assert!(vcpu::normalise(width, number, &mut original[1..].to_vec(), &physmap).is_err());
}

fn with_start_info(width: GuestWidth, patches: &[u8]) {
    let original = patched_page(patches);
    let (p2m, _) = guest(width);
    let mut page = original;
    let host = HostPart { shared_info: Mfn(3), store_port: 1, console_port: 2 };
    match start_info::restore(width, &mut page, &host, &p2m) {
        Ok(rings) => {
            for ring in [rings.store, rings.console] {
                assert_eq!(p2m.frame_of(ring.pfn), Some(ring.frame));
            }
            assert!(page[88..] == original[88..] && page[..32] == original[..32], "only the host's part changes");
        }
        Err(_) => assert!(page == original),
    }
}

fn with_shared_info(width: GuestWidth, patches: &[u8]) {
    let saved = patched_page(patches);
    let mut page = [0xC3; PAGE_SIZE];
    shared_info::restore(width, &saved, &mut page);
    let (before, after) = (ArchInfo::read(width, &saved), ArchInfo::read(width, &page));
    assert_eq!(after, ArchInfo { frame_list_list: 0, ..before });
    let (pending, mask) = match width {
        GuestWidth::Bits64 => (2048..2560, 2560..3072),
        GuestWidth::Bits32Pae => (2048..2176, 2176..2304),
    };
    assert!(page[pending].iter().all(|byte| *byte == 0) && page[mask].iter().all(|byte| *byte == 0xFF));
    assert!(page[3136..].iter().all(|byte| *byte == 0xC3));
}

/// Frames from number 1 on; the first is the shared info.
struct Frames(Vec<Page>);

/// Frames of the machine here.
const FRAMES: usize = 12;

impl ReadFrames for Frames {
    fn read_frames(&mut self, frames: &[Mfn], pages: &mut [Page]) -> io::Result<()> {
        for (frame, page) in frames.iter().zip(pages) {
            let index = usize::try_from(frame.0).ok().and_then(|index| index.checked_sub(1));
            *page = *index.and_then(|index| self.0.get(index)).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(())
    }
}

/// A guest's memory, in which it says where its table is. Page 0 is in frame 2, and so on.
fn memory(width: GuestWidth, patches: &[u8]) {
    let bytes = patched(FRAMES * PAGE_SIZE, patches);
    let mut memory = Frames(bytes.chunks_exact(PAGE_SIZE).map(|page| page.try_into().expect("a page")).collect());
    let m2p: Vec<u64> = (0..=FRAMES as u64).map(|frame| frame.checked_sub(2).unwrap_or(u64::MAX)).collect();
    let limits = P2mLimits { entries: MOST_ENTRIES };
    let m2p = m2p.as_slice();
    let read = P2mReader { width, shared_info: Mfn(1), limits, memory: &mut memory, m2p: &m2p }.read();
    let Ok(mut p2m) = read else {
        return;
    };
    assert!((1..=MOST_ENTRIES).contains(&p2m.pfn_limit()));
    let physmap = Physmap::new(&p2m, m2p);
    for (frame, pfn) in p2m.table_frames() {
        assert_eq!(physmap.pfn_of(*frame), Some(*pfn));
    }
    let mut restored = RestoredP2m::new(width, MOST_ENTRIES);
    let record = p2m.frames_record();
    let frames = P2mFrames::parse(&record.body, width.info()).expect("what is written can be read");
    restored.handle_frames(&frames).expect("it is no longer than what was read");
    assert_eq!(restored.pfn_limit(), p2m.pfn_limit());
    let change = P2mReader { width, shared_info: Mfn(1), limits, memory: &mut memory, m2p: &m2p }
        .refresh(&mut p2m, None)
        .expect("it is as it was");
    assert!(change.record_holds() && change.changed.is_empty());
}

/// Something right of every kind, for both widths.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (choice, width) in [(0, GuestWidth::Bits64), (1, GuestWidth::Bits32Pae)] {
        let seed = |kind: u8, rest: Vec<u8>| [vec![choice | kind << 1], rest].concat();
        let cr3 = |pfn| width.frame_to_cr3(Mfn(pfn)).unwrap_or(0);
        let at = |narrow, wide| if width == GuestWidth::Bits64 { wide } else { narrow };
        for level in 1..=width.levels() {
            // As a guest has it, and as a stream has it.
            let mut patches = vec![level];
            patches.extend(patch(8, (FIRST_FRAME + 7 * 3) << 12 | 0x8000_0000_0000_0067));
            patches.extend(patch(800, (FIRST_FRAME + 7 * 4) << 12 | 0x61));
            seeds.push(seed(0, patches));
            seeds.push(seed(0, [vec![level], patch(16, 2 << 12 | 1), patch(24, 5 << 12 | 1)].concat()));
        }
        let words = width.words_per_page() as u32;
        let record = |first: u32, last: u32, pfns: &[u64]| {
            let mut body = [first.to_le_bytes(), last.to_le_bytes()].concat();
            body.extend(pfns.iter().flat_map(|pfn| pfn.to_le_bytes()));
            [(body.len() as u16).to_le_bytes().to_vec(), body].concat()
        };
        seeds.push(seed(1, [record(0, words, &[4, 6]), record(words, words + 7, &[8])].concat()));
        let mut register_patches = vec![0];
        register_patches.extend(patch(at(524, 616), 1));
        register_patches.extend(patch(at(2640, 4832), 3));
        register_patches.extend(patch(at(2704, 4960), 1));
        register_patches.extend(patch(at(2728, 5008), cr3(30)));
        if width == GuestWidth::Bits64 {
            register_patches.extend(patch(4992, 31 << 12 | 1));
        }
        seeds.push(seed(2, register_patches));
        seeds.push(seed(3, [patch(at(44, 56), 3), patch(at(52, 72), 4)].concat()));
        seeds.push(seed(4, [patch(0, 1), patch(at(2316, 3088), 64), patch(at(2320, 3096), 2)].concat()));
        // Three levels of lists in frames 3 and 4, the table in frame 5: page 3.
        let mut lists = [patch(at(2316, 3088), 8), patch(at(2320, 3096), 3)].concat();
        lists.extend([patch(2 * 4096, 4), patch(3 * 4096, 5)].concat());
        lists.extend(table_words(width));
        seeds.push(seed(5, lists));
        // The same by page tables, from frame 6 on.
        let vaddr: u64 = at(0xE000_0000, 0xFFFF_C900_0000_0000) as u64;
        let mut linear = patch(at(2316, 3088), 8);
        linear.extend(patch(at(2328, 3112), cr3(6)));
        linear.extend(patch(at(2332, 3120), vaddr));
        for (frame, level) in (6..).zip((1..=width.levels()).rev()) {
            let index = vaddr >> (12 + 9 * (u64::from(level) - 1)) & 511;
            let next = if level == 1 { 5 } else { frame + 1 };
            linear.extend(patch((frame as usize - 1) * PAGE_SIZE + index as usize * 8, next << 12 | 1));
        }
        linear.extend(table_words(width));
        seeds.push(seed(5, linear));
    }
    seeds
}

/// As [`patched`] reads it.
fn patch(at: usize, word: u64) -> Vec<u8> {
    [((at / 4) as u16).to_le_bytes().as_slice(), &word.to_le_bytes()].concat()
}

/// The table of frames, in frame 5: pages 0 to 7 are in frames 2 to 9.
fn table_words(width: GuestWidth) -> Vec<u8> {
    let (table, bytes) = (4 * PAGE_SIZE, width.word_bytes());
    // A narrow word's upper half is the next word, which is written after.
    (0..8_u64).flat_map(|pfn| patch(table + pfn as usize * bytes, pfn + 2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_is_taken() {
        for width in [GuestWidth::Bits64, GuestWidth::Bits32Pae] {
            let narrow = u8::from(width == GuestWidth::Bits32Pae);
            let seeds: Vec<_> = seeds().into_iter().filter(|seed| seed[0] & 1 == narrow).collect();
            let of = |kind: u8| seeds.iter().filter(move |seed| seed[0] >> 1 == kind).map(|seed| &seed[1..]);
            let (p2m, m2p) = guest(width);
            for rest in of(2) {
                let mut blob = patched(vcpu::blob_bytes(width), &rest[1..]);
                vcpu::localise(width, 0, &mut blob, &p2m).unwrap();
                vcpu::normalise(width, 0, &mut blob, &Physmap::new(&p2m, m2p.as_slice())).unwrap();
            }
            for rest in of(3) {
                let host = HostPart { shared_info: Mfn(3), store_port: 1, console_port: 2 };
                start_info::restore(width, &mut patched_page(rest), &host, &p2m).unwrap();
            }
            assert_eq!(of(5).count(), 2);
            for rest in of(5) {
                let bytes = patched(FRAMES * PAGE_SIZE, rest);
                let mut memory = Frames(bytes.chunks_exact(PAGE_SIZE).map(|page| page.try_into().unwrap()).collect());
                let m2p: Vec<u64> = (0..=FRAMES as u64).map(|frame| frame.checked_sub(2).unwrap_or(u64::MAX)).collect();
                let limits = P2mLimits { entries: MOST_ENTRIES };
                let m2p = m2p.as_slice();
                let p2m =
                    P2mReader { width, shared_info: Mfn(1), limits, memory: &mut memory, m2p: &m2p }.read().unwrap();
                assert_eq!((p2m.pfn_limit(), p2m.frame_of(Pfn(7))), (8, Some(Mfn(9))));
            }
        }
    }
}
