use super::{INVALID_ENTRY, MAX_CLAIMED_ENTRIES, P2m, P2mChange, P2mError, P2mLimits, ReadFrames};
use crate::domain::DirtyBitmap;
use crate::ids::{Mfn, PAGE_SIZE, Page, Pfn};
use crate::xen::pv::page_table::{PRESENT, entries, frame_number, is_superpage};
use crate::xen::pv::shared_info::ArchInfo;
use crate::xen::pv::{FrameToPfn, GuestWidth, MachineToPfn, Physmap};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::transmute_ref;

/// How often a read is begun anew because the guest changed the table's mapping meanwhile. A change is a matter of microseconds, a
/// read one of milliseconds.
const READ_ATTEMPTS: u32 = 8;
/// Frames that are asked for at once: 1 MiB.
const FRAMES_AT_ONCE: usize = 256;
/// Bits of an address that choose an entry of a page table, and those that choose a byte of the page.
const LEVEL_BITS: u32 = 9;
const PAGE_BITS: u32 = 12;

/// Finds and reads a guest's p2m.
///
/// ```no_run
/// # use colo_core::ids::{Mfn, Page};
/// # use colo_core::xen::pv::{GuestWidth, P2mError, P2mLimits, P2mReader, ReadFrames};
/// # fn save(memory: &mut dyn ReadFrames, m2p: &[u64], shared_info: Mfn) -> Result<(), P2mError> {
/// let width = GuestWidth::Bits64;
/// let mut reader = P2mReader { width, shared_info, limits: P2mLimits::default(), memory, m2p: &m2p };
/// let mut p2m = reader.read()?;
/// // ... precopy, suspend ...
/// let change = reader.refresh(&mut p2m, None)?;
/// assert!(change.record_holds());
/// # Ok(()) }
/// ```
pub struct P2mReader<'a> {
    /// The guest's width.
    pub width: GuestWidth,
    /// The frame of its shared info.
    pub shared_info: Mfn,
    /// What is believed.
    pub limits: P2mLimits,
    /// The guest's memory.
    pub memory: &'a mut dyn ReadFrames,
    /// Xen's table of all frames.
    pub m2p: &'a dyn MachineToPfn,
}

impl P2mReader<'_> {
    /// Finds and reads the table.
    ///
    /// # Errors
    /// [`P2mError`]. [`P2mError::Changing`] only while the guest runs.
    pub fn read(&mut self) -> Result<P2m, P2mError> {
        let mut before = self.arch_info()?;
        for _ in 0..READ_ATTEMPTS {
            let read = if before.p2m_generation % 2 == 0 { self.read_as(before) } else { Err(P2mError::Changing) };
            // An error, too, may come of a change.
            let after = self.arch_info()?;
            if after == before && !matches!(read, Err(P2mError::Changing)) {
                return read;
            }
            before = after;
        }
        Err(P2mError::Changing)
    }

    /// Reads the table again, and says what has changed. With `dirty` only those of its pages that are dirty are read, if it is
    /// still where it was: right only if the dirty log has seen every write since the last read.
    ///
    /// # Errors
    /// [`P2mError`]; the table is then the old one still.
    pub fn refresh(&mut self, p2m: &mut P2m, dirty: Option<&DirtyBitmap>) -> Result<P2mChange, P2mError> {
        let new = match dirty {
            // Only the linear table's generation tells whether the way to it is the same still.
            Some(dirty) if p2m.info.p2m_cr3 != 0 && self.arch_info()? == p2m.info => self.read_dirty(p2m, dirty)?,
            _ => self.read()?,
        };
        let change = p2m.change_to(&new);
        *p2m = new;
        Ok(change)
    }

    fn read_dirty(&mut self, p2m: &P2m, dirty: &DirtyBitmap) -> Result<P2m, P2mError> {
        let mut new = p2m.clone();
        let words = self.width.words_per_page();
        let is_dirty = |index: usize| dirty.contains(p2m.frames[index].1);
        let indexes: Vec<usize> = (0..p2m.frames.len()).filter(|index| is_dirty(*index)).collect();
        let frames: Vec<Mfn> = indexes.iter().map(|index| p2m.frames[*index].0).collect();
        let width = self.width;
        self.for_each_page("table", &frames, |at, page| {
            let entries = new.entries[indexes[at] * words..].iter_mut();
            entries.zip(words_of(width, page)).for_each(|(entry, word)| *entry = word);
            Ok(())
        })?;
        self.check_frames(&new)?;
        Ok(new)
    }

    fn read_as(&mut self, info: ArchInfo) -> Result<P2m, P2mError> {
        if info.entries == 0 {
            return Err(P2mError::NotSetUp);
        }
        if info.entries > MAX_CLAIMED_ENTRIES {
            return Err(P2mError::TooLong { entries: info.entries, limit: MAX_CLAIMED_ENTRIES });
        }
        let (frames, count) = if info.p2m_cr3 == 0 { self.list_frames(&info)? } else { self.mapped_frames(&info)? };
        let mut entries = Vec::with_capacity(frames.len() * self.width.words_per_page());
        let width = self.width;
        self.for_each_page("table", &frames, |_, page| {
            entries.extend(words_of(width, page));
            Ok(())
        })?;
        // Both ways give as many frames as hold that many entries.
        entries.truncate(count as usize);
        // Xen knows all frames' numbers; whether it is the guest that has them is known when the table is.
        let frames = frames.into_iter().map(|frame| (frame, Pfn(self.m2p.entry(frame).unwrap_or(u64::MAX)))).collect();
        let p2m = P2m { width, info, frames, entries };
        self.check_frames(&p2m)?;
        Ok(p2m)
    }

    /// The table must be in the guest's own frames: a restorer looks for it by their page numbers.
    fn check_frames(&self, p2m: &P2m) -> Result<(), P2mError> {
        let physmap = Physmap::new(p2m, self.m2p);
        match p2m.frames.iter().position(|(frame, pfn)| physmap.pfn_of(*frame) != Some(*pfn)) {
            Some(index) => Err(P2mError::NotInPhysmap { index, frame: p2m.frames[index].0 }),
            None => Ok(()),
        }
    }

    fn arch_info(&mut self) -> Result<ArchInfo, P2mError> {
        let mut page = [0; PAGE_SIZE];
        self.read_some("shared info", &[self.shared_info], std::slice::from_mut(&mut page))?;
        Ok(ArchInfo::read(self.width, &page))
    }

    /// The three-level list: the table's frames, and how many entries count.
    fn list_frames(&mut self, info: &ArchInfo) -> Result<(Vec<Mfn>, u64), P2mError> {
        if info.frame_list_list == 0 {
            return Err(P2mError::NotSetUp);
        }
        let words = self.width.words_per_page() as u64;
        let (entries_per_list, most) = (words * words, words * words * words);
        if info.entries > most {
            return Err(P2mError::TooLong { entries: info.entries, limit: most });
        }
        let top = self.known_frame("frame list list", 0, info.frame_list_list)?;
        let mut lists = self.listed("frame list list", &[top], info.entries.div_ceil(entries_per_list))?;
        let count = info.entries.min(useful(&lists) as u64 * entries_per_list);
        self.check_limit(count)?;
        lists.truncate(count.div_ceil(entries_per_list) as usize);
        let frames = self.listed("frame list", &lists, count.div_ceil(words))?;
        Ok((frames, count))
    }

    /// The first `count` frames that these pages list.
    fn listed(&mut self, what: &'static str, lists: &[Mfn], count: u64) -> Result<Vec<Mfn>, P2mError> {
        let (width, m2p) = (self.width, self.m2p);
        let mut frames: Vec<Mfn> = Vec::new();
        self.for_each_page(what, lists, |_, page| {
            let rest = count - frames.len() as u64;
            for word in words_of(width, page).take(usize::try_from(rest).unwrap_or(usize::MAX)) {
                frames.push(known_frame(m2p, what, frames.len() as u64, word)?);
            }
            Ok(())
        })?;
        Ok(frames)
    }

    /// The linear table, found through the guest's page tables: its frames, and how many entries count.
    fn mapped_frames(&mut self, info: &ArchInfo) -> Result<(Vec<Mfn>, u64), P2mError> {
        let word_bytes = self.width.word_bytes() as u64;
        let start = self.address(info)?;
        let mut count = info.entries;
        let root = self.width.cr3_to_frame(info.p2m_cr3).map_or(info.p2m_cr3, |frame| frame.0);
        let mut tables = vec![self.known_frame("CR3", 0, root)?];
        for level in (1..=u32::from(self.width.levels())).rev() {
            let last = start + (count * word_bytes - 1);
            let shift = PAGE_BITS + LEVEL_BITS * (level - 1);
            tables = self.mapped_tables(level as u8, &tables, start >> shift, last >> shift)?;
            if level == 2 {
                // Each of these tables maps the addresses up to a boundary, the first one maybe not all that is before it.
                let end = ((start >> shift) + useful(&tables) as u64) << shift;
                count = count.min((end - start) / word_bytes);
                self.check_limit(count)?;
                let last = start + (count * word_bytes - 1);
                tables.truncate(((last >> shift) - (start >> shift) + 1) as usize);
            }
        }
        Ok((tables, count))
    }

    /// What the entries `first` to `last` of a level map. They are counted over the whole address space; `tables` are the ones
    /// that hold them.
    fn mapped_tables(&mut self, level: u8, tables: &[Mfn], first: u64, last: u64) -> Result<Vec<Mfn>, P2mError> {
        let what = ["", "L1", "L2", "L3", "L4"][usize::from(level)];
        let m2p = self.m2p;
        let mut next = first;
        let mut mapped = Vec::new();
        self.for_each_page(what, tables, |_, page| {
            let table = next >> LEVEL_BITS;
            while next <= last && next >> LEVEL_BITS == table {
                let entry = entries(page)[(next % (1 << LEVEL_BITS)) as usize].get();
                let index = next - first;
                if entry & PRESENT == 0 || is_superpage(level, entry) {
                    return Err(P2mError::BadFrame { what, index, value: entry });
                }
                mapped.push(known_frame(m2p, what, index, frame_number(entry))?);
                next += 1;
            }
            Ok(())
        })?;
        Ok(mapped)
    }

    /// Where the table begins, without the sign that 64-bit addresses carry in their upper 16 bits.
    fn address(&self, info: &ArchInfo) -> Result<u64, P2mError> {
        let (vaddr, entries) = (info.p2m_vaddr, info.entries);
        let bad = P2mError::BadAddress { vaddr, entries };
        let table_bytes = entries.div_ceil(self.width.words_per_page() as u64) * PAGE_SIZE as u64;
        let Some(last) = vaddr.checked_add(table_bytes - 1) else { return Err(bad) };
        let is_canonical = |address: u64| matches!(address >> 47, 0 | 0x1_FFFF);
        // As in `xen-x86_64.h` and `xen-x86_32.h`.
        let (xen, is_possible, mask) = match self.width {
            GuestWidth::Bits32Pae => (0xF580_0000..=0xFFFF_FFFF, last <= u64::from(u32::MAX), u64::from(u32::MAX)),
            GuestWidth::Bits64 => (
                0xFFFF_8000_0000_0000..=0xFFFF_87FF_FFFF_FFFF,
                is_canonical(vaddr) && is_canonical(last) && vaddr >> 63 == last >> 63,
                (1 << 48) - 1,
            ),
        };
        let overlaps_xen = vaddr <= *xen.end() && last >= *xen.start();
        if vaddr % PAGE_SIZE as u64 != 0 || !is_possible || overlaps_xen {
            return Err(bad);
        }
        Ok(vaddr & mask)
    }

    fn check_limit(&self, entries: u64) -> Result<(), P2mError> {
        let limit = self.limits.entries;
        if entries > limit { Err(P2mError::TooLong { entries, limit }) } else { Ok(()) }
    }

    fn known_frame(&self, what: &'static str, index: u64, value: u64) -> Result<Mfn, P2mError> {
        known_frame(self.m2p, what, index, value)
    }

    /// Reads frames, some at a time.
    fn for_each_page(
        &mut self,
        what: &'static str,
        frames: &[Mfn],
        mut handle: impl FnMut(usize, &Page) -> Result<(), P2mError>,
    ) -> Result<(), P2mError> {
        let mut pages = vec![[0; PAGE_SIZE]; frames.len().min(FRAMES_AT_ONCE)];
        for (part_index, part) in frames.chunks(FRAMES_AT_ONCE).enumerate() {
            let pages = &mut pages[..part.len()];
            self.read_some(what, part, pages)?;
            for (offset, page) in pages.iter().enumerate() {
                handle(part_index * FRAMES_AT_ONCE + offset, page)?;
            }
        }
        Ok(())
    }

    fn read_some(&mut self, what: &'static str, frames: &[Mfn], pages: &mut [Page]) -> Result<(), P2mError> {
        self.memory.read_frames(frames, pages).map_err(|source| P2mError::Read { what, source })
    }
}

/// A frame that exists. Frame 0 is never a guest's.
fn known_frame(m2p: &dyn MachineToPfn, what: &'static str, index: u64, value: u64) -> Result<Mfn, P2mError> {
    match m2p.entry(Mfn(value)) {
        Some(_) if value != 0 => Ok(Mfn(value)),
        _ => Err(P2mError::BadFrame { what, index, value }),
    }
}

/// How many of these lists or tables are of use: without those at the end that are one and the same. Two parts of the p2m that are
/// the same cannot hold a page, so there is nothing in them; that is how a guest whose memory may grow claims a table much longer
/// than it has need of.
fn useful(frames: &[Mfn]) -> usize {
    match frames {
        [.., before, last] if before == last => {
            frames.iter().rposition(|frame| frame != last).map_or(1, |different| different + 1)
        }
        _ => frames.len(),
    }
}

/// The words of a guest's page, widened; all ones stays all ones.
fn words_of(width: GuestWidth, page: &Page) -> impl Iterator<Item = u64> + '_ {
    let (narrow, wide): (&[U32], &[U64]) = match width {
        GuestWidth::Bits32Pae => {
            let words: &[U32; PAGE_SIZE / 4] = transmute_ref!(page);
            (words, &[])
        }
        GuestWidth::Bits64 => {
            let words: &[U64; PAGE_SIZE / 8] = transmute_ref!(page);
            (&[], words)
        }
    };
    let widen = |word: &U32| if word.get() == u32::MAX { INVALID_ENTRY } else { u64::from(word.get()) };
    narrow.iter().map(widen).chain(wide.iter().map(|word| word.get()))
}
