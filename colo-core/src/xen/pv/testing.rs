//! A PV guest for tests, in memory: machine frames at random, real page tables, Xen's slots in them, a p2m that it keeps in its
//! own pages in both ways.

use super::page_table::{self, TableFormat};
use super::shared_info::ArchInfo;
use super::{FrameToPfn, GuestWidth, PfnToFrame, ReadFrames};
use crate::ids::{Mfn, PAGE_SIZE, Page, Pfn};
use crate::stream::PageType;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// splitmix64: the same numbers for the same seed.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// The machine's frames: which owner's page each is, and what is in them.
pub(super) struct Machine {
    pub(super) m2p: Vec<u64>,
    pub(super) frames: BTreeMap<u64, Page>,
    /// Frames of nobody, in random order.
    free: Vec<u64>,
}

const MACHINE_FRAMES: u64 = 1 << 14;

impl Machine {
    pub(super) fn new(rng: &mut Rng) -> Machine {
        let mut free: Vec<u64> = (1..MACHINE_FRAMES).collect();
        for index in (1..free.len()).rev() {
            free.swap(index, rng.below(index as u64 + 1) as usize);
        }
        Machine { m2p: vec![u64::MAX; MACHINE_FRAMES as usize], frames: BTreeMap::new(), free }
    }

    pub(super) fn allocate(&mut self, pfn: u64) -> Mfn {
        let frame = self.free.pop().expect("the machine is large enough");
        self.m2p[frame as usize] = pfn;
        self.frames.insert(frame, [0; PAGE_SIZE]);
        Mfn(frame)
    }

    pub(super) fn release(&mut self, frame: Mfn) {
        self.m2p[frame.0 as usize] = u64::MAX;
        self.frames.remove(&frame.0);
    }

    pub(super) fn page(&self, frame: Mfn) -> &Page {
        &self.frames[&frame.0]
    }

    pub(super) fn page_mut(&mut self, frame: Mfn) -> &mut Page {
        self.frames.get_mut(&frame.0).expect("an allocated frame")
    }
}

impl ReadFrames for Machine {
    fn read_frames(&mut self, frames: &[Mfn], pages: &mut [Page]) -> io::Result<()> {
        assert_eq!(frames.len(), pages.len());
        for (frame, page) in frames.iter().zip(pages) {
            *page = *self.frames.get(&frame.0).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(())
    }
}

/// Where the guest's kernel maps its p2m: not at a boundary of any table but the lowest.
pub(super) fn p2m_vaddr(width: GuestWidth) -> u64 {
    match width {
        GuestWidth::Bits32Pae => 0xE03F_F000,
        GuestWidth::Bits64 => 0xFFFF_C900_401F_F000,
    }
}

pub(super) struct Guest {
    pub(super) width: GuestWidth,
    /// The guest's own view; the same is in its pages.
    pub(super) p2m: BTreeMap<u64, Mfn>,
    pub(super) types: BTreeMap<u64, PageType>,
    pub(super) pages: u64,
    pub(super) root: Pfn,
    pub(super) shared_info: Mfn,
    pub(super) compat_m2p: Mfn,
    /// The pages of the p2m, in order.
    pub(super) p2m_pages: Vec<Pfn>,
    /// Pages that nothing uses so far.
    spare: Vec<u64>,
}

/// Pages of the guest at first: the p2m has more than one page, and ends within one.
pub(super) const GUEST_PAGES: u64 = 2500;

pub(super) const WRITABLE: u64 = 0x8000_0000_0000_0067;

impl Guest {
    /// Builds a guest: every page has a frame; all are in use as data, page tables, or p2m.
    pub(super) fn build(width: GuestWidth, rng: &mut Rng, machine: &mut Machine) -> Guest {
        let mut spare: Vec<u64> = (0..GUEST_PAGES).collect();
        for index in (1..spare.len()).rev() {
            spare.swap(index, rng.below(index as u64 + 1) as usize);
        }
        let p2m: BTreeMap<u64, Mfn> = (0..GUEST_PAGES).map(|pfn| (pfn, machine.allocate(pfn))).collect();
        let root = Pfn(spare.pop().unwrap());
        let mut guest = Guest {
            width,
            p2m,
            types: BTreeMap::new(),
            pages: GUEST_PAGES,
            root,
            shared_info: machine.allocate(u64::MAX),
            compat_m2p: machine.allocate(u64::MAX),
            p2m_pages: Vec::new(),
            spare,
        };
        guest.types.insert(root.0, guest.table_type(width.levels()));
        guest.add_xen_slots(rng, machine);
        for _ in 0..60 {
            let vaddr = guest.random_vaddr(rng);
            // Some pages are mapped more than once; none that the balloon driver could give back.
            let pfn = if rng.chance(4) { guest.root } else { guest.spare_page() };
            guest.map(machine, vaddr, pfn, if rng.chance(2) { WRITABLE } else { 0x25 });
        }
        guest.keep_p2m(machine, GUEST_PAGES);
        guest.pin_some(rng);
        guest
    }

    pub(super) fn format(&self) -> TableFormat {
        TableFormat { width: self.width, compat_m2p: Some(self.compat_m2p) }
    }

    pub(super) fn spare_page(&mut self) -> Pfn {
        Pfn(self.spare.pop().expect("a guest with pages enough"))
    }

    fn table_type(&self, level: u8) -> PageType {
        PageType::ALL.into_iter().find(|t| t.table_level() == Some(level) && !t.is_pinned()).unwrap()
    }

    /// Addresses not far from one another, so that tables are shared; far from the p2m and from Xen.
    fn random_vaddr(&self, rng: &mut Rng) -> u64 {
        let low = rng.below(3) << 30 | rng.below(4) << 21 | rng.below(512) << 12;
        match self.width {
            GuestWidth::Bits32Pae => low,
            GuestWidth::Bits64 => low | rng.below(2) << 39,
        }
    }

    /// Maps a page, and makes the tables that are not there.
    pub(super) fn map(&mut self, machine: &mut Machine, vaddr: u64, pfn: Pfn, flags: u64) {
        let table = self.table_for(machine, vaddr, 1);
        let frame = self.p2m[&pfn.0];
        self.set_entry(machine, table, (vaddr >> 12) as usize & 511, frame.0 << 12 | flags);
    }

    /// The table of that level which is in use for an address; made if it is not there.
    pub(super) fn table_for(&mut self, machine: &mut Machine, vaddr: u64, level: u8) -> Pfn {
        let mut table = self.root;
        for above in (level + 1..=self.width.levels()).rev() {
            let index = (vaddr >> (12 + 9 * (u32::from(above) - 1))) as usize & 511;
            let entry = self.entry(machine, table, index);
            if entry & 1 == 0 {
                let made = self.spare_page();
                let made_type = self.table_type(above - 1);
                self.types.insert(made.0, made_type);
                let frame = self.p2m[&made.0];
                self.set_entry(machine, table, index, frame.0 << 12 | 0x67);
                table = made;
            } else {
                table = Pfn(machine.m2p[page_table::frame_number(entry) as usize]);
            }
        }
        table
    }

    pub(super) fn entry(&self, machine: &Machine, table: Pfn, index: usize) -> u64 {
        page_table::entries(machine.page(self.p2m[&table.0]))[index].get()
    }

    pub(super) fn set_entry(&self, machine: &mut Machine, table: Pfn, index: usize, entry: u64) {
        page_table::entries_mut(machine.page_mut(self.p2m[&table.0]))[index].set(entry);
    }

    /// What Xen puts into the slots that are its own.
    fn add_xen_slots(&mut self, rng: &mut Rng, machine: &mut Machine) {
        let root = self.root;
        match self.width {
            GuestWidth::Bits64 => {
                for slot in 256..272 {
                    self.set_entry(machine, root, slot, rng.next() | 1);
                }
            }
            GuestWidth::Bits32Pae => {
                for slot in 4..512 {
                    self.set_entry(machine, root, slot, rng.next());
                }
                let table = self.table_for(machine, 0xF580_0000, 2);
                self.set_entry(machine, table, 428, self.compat_m2p.0 << 12 | 0xE3);
                for slot in 429..512 {
                    self.set_entry(machine, table, slot, rng.next() | 1);
                }
            }
        }
    }

    /// Pins the root, and some tables of each level.
    fn pin_some(&mut self, rng: &mut Rng) {
        let root = self.root.0;
        for (pfn, page_type) in &mut self.types {
            if *pfn == root || rng.chance(2) {
                *page_type = PageType::ALL.into_iter().find(|t| *t as u8 == *page_type as u8 | 8).unwrap();
            }
        }
    }

    /// Writes the p2m into pages of the guest, with both ways to it, for that many entries.
    pub(super) fn keep_p2m(&mut self, machine: &mut Machine, entries: u64) {
        let words = self.width.words_per_page() as u64;
        while (self.p2m_pages.len() as u64) < entries.div_ceil(words) {
            let pfn = self.spare_page();
            self.p2m_pages.push(pfn);
        }
        for (part, pfn) in self.p2m_pages.clone().into_iter().enumerate() {
            let values =
                (0..words).map(|word| self.p2m.get(&(part as u64 * words + word)).map_or(u64::MAX, |frame| frame.0));
            self.write_words(machine, pfn, &values.collect::<Vec<_>>());
            self.map(machine, p2m_vaddr(self.width) + (part as u64) * PAGE_SIZE as u64, pfn, 0x25);
        }
        let list_pfn = self.spare_page();
        let leaves: Vec<u64> = self.p2m_pages.iter().map(|pfn| self.p2m[&pfn.0].0).collect();
        self.write_words(machine, list_pfn, &leaves);
        let list_list_pfn = self.spare_page();
        self.write_words(machine, list_list_pfn, &[self.p2m[&list_pfn.0].0]);
        let info = ArchInfo {
            entries,
            frame_list_list: self.p2m[&list_list_pfn.0].0,
            p2m_cr3: self.width.frame_to_cr3(self.p2m[&self.root.0]).unwrap(),
            p2m_vaddr: p2m_vaddr(self.width),
            p2m_generation: self.arch_info(machine).p2m_generation + 2,
        };
        self.set_arch_info(machine, info);
    }

    pub(super) fn write_words(&self, machine: &mut Machine, pfn: Pfn, words: &[u64]) {
        let bytes = self.width.word_bytes();
        for (word, value) in machine.page_mut(self.p2m[&pfn.0]).chunks_exact_mut(bytes).zip(words) {
            word.copy_from_slice(&value.to_le_bytes()[..bytes]);
        }
    }

    pub(super) fn arch_info(&self, machine: &Machine) -> ArchInfo {
        ArchInfo::read(self.width, machine.page(self.shared_info))
    }

    pub(super) fn set_arch_info(&self, machine: &mut Machine, info: ArchInfo) {
        info.write(self.width, machine.page_mut(self.shared_info));
    }

    /// Gives a page back, or gets one, as the balloon driver does; its entry in the p2m is kept.
    pub(super) fn balloon_out(&mut self, machine: &mut Machine, pfn: Pfn) {
        let frame = self.p2m.remove(&pfn.0).expect("a page with a frame");
        machine.release(frame);
        self.write_p2m_entry(machine, pfn, u64::MAX);
    }

    pub(super) fn balloon_in(&mut self, machine: &mut Machine, pfn: Pfn) {
        let frame = machine.allocate(pfn.0);
        self.p2m.insert(pfn.0, frame);
        self.write_p2m_entry(machine, pfn, frame.0);
    }

    /// Writes a raw entry into the p2m that is in the guest's memory.
    pub(super) fn write_p2m_entry(&self, machine: &mut Machine, pfn: Pfn, value: u64) {
        let (words, bytes) = (self.width.words_per_page() as u64, self.width.word_bytes());
        let page = self.p2m_pages[(pfn.0 / words) as usize];
        let at = (pfn.0 % words) as usize * bytes;
        machine.page_mut(self.p2m[&page.0])[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }
}

/// What a guest sees: which page is at which address, with what flags, through which levels' flags. Only what is the guest's own.
pub(super) fn view(
    width: GuestWidth,
    root: Mfn,
    machine: &Machine,
    frames: &impl FrameToPfn,
) -> BTreeMap<u64, (Pfn, u64)> {
    let mut seen = BTreeMap::new();
    let mut tables = vec![(root, width.levels(), 0_u64)];
    while let Some((table, level, base)) = tables.pop() {
        for (index, entry) in page_table::entries(machine.page(table)).iter().map(|entry| entry.get()).enumerate() {
            let own = match (width, level) {
                (GuestWidth::Bits64, 4) => !(256..272).contains(&index),
                (GuestWidth::Bits32Pae, 3) => index < 4,
                (GuestWidth::Bits32Pae, 2) => base >> 30 != 3 || index < 428,
                _ => true,
            };
            if !own || entry & 1 == 0 {
                continue;
            }
            let vaddr = base | (index as u64) << (12 + 9 * (u32::from(level) - 1));
            let frame = Mfn(page_table::frame_number(entry));
            let pfn = frames.pfn_of(frame).expect("a mapping of the guest's own");
            seen.insert(vaddr << 3 | u64::from(level), (pfn, entry & !0x000F_FFFF_FFFF_F000));
            if level > 1 {
                tables.push((frame, level - 1, vaddr));
            }
        }
    }
    seen
}

/// Levels at which a guest has tables, pinned ones and others.
pub(super) fn levels_seen(guest: &Guest) -> BTreeSet<(u8, bool)> {
    guest.types.values().filter_map(|t| Some((t.table_level()?, t.is_pinned()))).collect()
}

/// A guest that is its own p2m and m2p.
pub(super) struct TrueMap<'a>(pub(super) &'a Guest, pub(super) &'a Machine);

impl FrameToPfn for TrueMap<'_> {
    fn pfn_of(&self, frame: Mfn) -> Option<Pfn> {
        let pfn = *self.1.m2p.get(usize::try_from(frame.0).ok()?)?;
        (self.0.p2m.get(&pfn) == Some(&frame)).then_some(Pfn(pfn))
    }
}

impl PfnToFrame for TrueMap<'_> {
    fn frame_of(&self, pfn: Pfn) -> Option<Mfn> {
        self.0.p2m.get(&pfn.0).copied()
    }

    fn pfn_limit(&self) -> u64 {
        self.0.pages
    }
}
