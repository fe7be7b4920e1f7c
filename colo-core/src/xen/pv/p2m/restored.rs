use super::{INVALID_ENTRY, pfn_index};
use crate::ids::{Mfn, PAGE_SIZE, Page, Pfn};
use crate::stream::{P2mFrames, PageType};
use crate::xen::pv::{GuestWidth, PfnToFrame};

/// The p2m of a guest that is being restored: which frames its pages got here, what the pages are, and in which of them the guest
/// looks for its own table.
///
/// ```
/// use colo_core::ids::{Mfn, Pfn};
/// use colo_core::stream::P2mFrames;
/// use colo_core::xen::pv::{GuestWidth, PfnToFrame, RestoredP2m};
///
/// let mut p2m = RestoredP2m::new(GuestWidth::Bits64, 1 << 20);
/// // X86_PV_P2M_FRAMES: pages 0 to 7, whose entries are in page 3.
/// let record = [[0, 0, 0, 0, 7, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0]].concat();
/// p2m.handle_frames(&P2mFrames::parse(&record, p2m.width().info())?)?;
/// p2m.set_frame(Pfn(3), Mfn(0x77))?;
///
/// let pages: Vec<_> = p2m.table_pages()?.collect();
/// assert_eq!((pages[0].pfn, pages[0].frame, pages[0].bytes().len()), (Pfn(3), Mfn(0x77), 64));
/// assert_eq!(pages[0].bytes()[24..32], 0x77_u64.to_le_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RestoredP2m {
    width: GuestWidth,
    most_entries: u64,
    /// Frames, or all ones.
    entries: Vec<u64>,
    types: Vec<PageType>,
    /// Which pages of the guest its own table is in, as far as the stream has said.
    table: Vec<Option<Pfn>>,
}

/// What cannot be in a guest's p2m.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RestoredP2mError {
    /// A guest of more pages than allowed.
    #[error("a guest of {pages} pages, but the limit is {limit}")]
    TooLong {
        /// Pages.
        pages: u64,
        /// The limit.
        limit: u64,
    },
    /// A page that the guest does not have.
    #[error("{pfn} is beyond the end of guest memory ({pfn_limit} pages)")]
    PfnOutOfRange {
        /// The page.
        pfn: Pfn,
        /// The first page number that the guest does not have.
        pfn_limit: u64,
    },
    /// A frame that a guest of this width cannot name.
    #[error("{frame} is beyond what the guest can name")]
    FrameTooHigh {
        /// The frame.
        frame: Mfn,
    },
    /// The stream has not said where a part of the guest's table is.
    #[error("the stream does not say in which page part {index} of the guest's p2m is")]
    UnknownTablePage {
        /// Which part.
        index: usize,
    },
    /// The guest's table is in a page that cannot be written: it is missing, or a page table.
    #[error("part {index} of the guest's p2m is in {pfn}, which is {page_type:?} and has {}", frame_name(*frame))]
    BadTablePage {
        /// Which part.
        index: usize,
        /// The page.
        pfn: Pfn,
        /// What it is.
        page_type: PageType,
        /// The frame it is in.
        frame: Option<Mfn>,
    },
}

/// One page of the guest's own table, as it must be from now on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct P2mPage {
    /// The page.
    pub pfn: Pfn,
    /// The frame it is in.
    pub frame: Mfn,
    page: Box<Page>,
    bytes: usize,
}

impl P2mPage {
    /// What must be written to the page's beginning. Only the last page has less than a whole page of it.
    pub fn bytes(&self) -> &[u8] {
        &self.page[..self.bytes]
    }
}

/// Frame numbers in page tables have 40 bits.
const FRAME_BITS: u32 = 40;

impl RestoredP2m {
    /// An empty table, which may grow to that many entries.
    pub fn new(width: GuestWidth, most_entries: u64) -> RestoredP2m {
        RestoredP2m { width, most_entries, entries: Vec::new(), types: Vec::new(), table: Vec::new() }
    }

    /// The guest's width.
    pub fn width(&self) -> GuestWidth {
        self.width
    }

    /// Takes an X86_PV_P2M_FRAMES record of a guest of this width: which pages the guest's table is in, and with that how many pages
    /// the guest has at least. There may be several; what a later one says holds.
    ///
    /// # Errors
    /// [`RestoredP2mError::TooLong`]; nothing has changed then.
    pub fn handle_frames(&mut self, frames: &P2mFrames<'_>) -> Result<(), RestoredP2mError> {
        self.grow(frames.end().0 + 1)?;
        for (part, pfn) in self.table.iter_mut().skip(frames.first_frame()).zip(frames.frames()) {
            *part = Some(pfn);
        }
        Ok(())
    }

    /// Makes room for that many pages, if there is less: without frames, of type [`PageType::Normal`].
    ///
    /// # Errors
    /// [`RestoredP2mError::TooLong`].
    pub fn grow(&mut self, pages: u64) -> Result<(), RestoredP2mError> {
        if pages > self.most_entries {
            return Err(RestoredP2mError::TooLong { pages, limit: self.most_entries });
        }
        let pages = (pages as usize).max(self.entries.len());
        self.entries.resize(pages, INVALID_ENTRY);
        self.types.resize(pages, PageType::Normal);
        self.table.resize(pages.div_ceil(self.width.words_per_page()), None);
        Ok(())
    }

    /// Sets the frame that a page is in from now on.
    ///
    /// # Errors
    /// When the guest does not have the page or cannot name the frame.
    pub fn set_frame(&mut self, pfn: Pfn, frame: Mfn) -> Result<(), RestoredP2mError> {
        let frame_bits = FRAME_BITS.min(8 * self.width.word_bytes() as u32);
        // All ones would be no frame.
        if frame.0 >= (1 << frame_bits) - 1 {
            return Err(RestoredP2mError::FrameTooHigh { frame });
        }
        let index = self.index(pfn)?;
        self.entries[index] = frame.0;
        Ok(())
    }

    /// Notes that a page has no frame any more, and returns the one it had.
    ///
    /// # Errors
    /// When the guest does not have the page.
    pub fn take_frame(&mut self, pfn: Pfn) -> Result<Option<Mfn>, RestoredP2mError> {
        let index = self.index(pfn)?;
        let had = self.frame_of(pfn);
        self.entries[index] = INVALID_ENTRY;
        Ok(had)
    }

    /// Notes what a page is.
    ///
    /// # Errors
    /// When the guest does not have the page.
    pub fn set_type(&mut self, pfn: Pfn, page_type: PageType) -> Result<(), RestoredP2mError> {
        let index = self.index(pfn)?;
        self.types[index] = page_type;
        Ok(())
    }

    /// What a page is: [`PageType::Normal`] until something else is noted, [`PageType::Invalid`] when the guest has no such page.
    pub fn type_of(&self, pfn: Pfn) -> PageType {
        pfn_index(pfn).and_then(|index| self.types.get(index)).copied().unwrap_or(PageType::Invalid)
    }

    /// All pages' types, page 0 first.
    pub fn types(&self) -> &[PageType] {
        &self.types
    }

    /// The pinned page tables, each with its level, as they must be pinned when everything is in place.
    pub fn pinned(&self) -> impl Iterator<Item = (Pfn, u8)> + '_ {
        let pages = (0..).map(Pfn).zip(&self.types);
        pages.filter(|(_, page_type)| page_type.is_pinned()).filter_map(|(pfn, t)| Some((pfn, t.table_level()?)))
    }

    /// The pages that the guest's own table is in, as far as the stream has said.
    pub fn table_pfns(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.table.iter().copied().flatten()
    }

    /// What must be written over the guest's own table so that it finds its pages: page after page. It must be the last that is
    /// written to these pages.
    ///
    /// # Errors
    /// When a page of the table is unknown, or not there, or cannot be written.
    pub fn table_pages(&self) -> Result<impl Iterator<Item = P2mPage> + '_, RestoredP2mError> {
        let pages: Vec<(Pfn, Mfn)> =
            self.table.iter().enumerate().map(|(index, pfn)| self.table_page(index, *pfn)).collect::<Result<_, _>>()?;
        let parts = self.entries.chunks(self.width.words_per_page());
        Ok(pages.into_iter().zip(parts).map(|((pfn, frame), part)| {
            let word_bytes = self.width.word_bytes();
            let mut page: Box<Page> = Box::new([0; PAGE_SIZE]);
            for (word, entry) in page.chunks_exact_mut(word_bytes).zip(part) {
                word.copy_from_slice(&entry.to_le_bytes()[..word_bytes]);
            }
            P2mPage { pfn, frame, page, bytes: part.len() * word_bytes }
        }))
    }

    fn table_page(&self, index: usize, pfn: Option<Pfn>) -> Result<(Pfn, Mfn), RestoredP2mError> {
        let pfn = pfn.ok_or(RestoredP2mError::UnknownTablePage { index })?;
        match (self.type_of(pfn), self.frame_of(pfn)) {
            (PageType::Normal, Some(frame)) => Ok((pfn, frame)),
            (page_type, frame) => Err(RestoredP2mError::BadTablePage { index, pfn, page_type, frame }),
        }
    }

    fn index(&self, pfn: Pfn) -> Result<usize, RestoredP2mError> {
        pfn_index(pfn)
            .filter(|index| *index < self.entries.len())
            .ok_or(RestoredP2mError::PfnOutOfRange { pfn, pfn_limit: self.pfn_limit() })
    }
}

impl PfnToFrame for RestoredP2m {
    fn frame_of(&self, pfn: Pfn) -> Option<Mfn> {
        let entry = *pfn_index(pfn).and_then(|index| self.entries.get(index))?;
        (entry != INVALID_ENTRY).then_some(Mfn(entry))
    }

    fn pfn_limit(&self) -> u64 {
        self.entries.len() as u64
    }
}

fn frame_name(frame: Option<Mfn>) -> String {
    frame.map_or("no frame".to_owned(), |frame| frame.to_string())
}
