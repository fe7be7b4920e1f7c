use super::error::Fault;
use super::{PfnWord, RECORD_HEADER_BYTES, kind};
use crate::domain::MAX_BATCH_PAGES;
use crate::ids::{PAGE_SIZE, Page, Pfn};
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a page is to the guest. Only a PV guest has page tables in this sense; all other guests' pages are
/// [`PageType::Normal`] where they exist.
///
/// The numbers are the specification's ("`XEN_DOMCTL_PFINFO_*` Page Types").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum PageType {
    /// Plain memory.
    Normal = 0x0,
    /// A page table of level 1.
    L1 = 0x1,
    /// A page table of level 2.
    L2 = 0x2,
    /// A page table of level 3.
    L3 = 0x3,
    /// A page table of level 4.
    L4 = 0x4,
    /// A pinned page table of level 1.
    L1Pinned = 0x9,
    /// A pinned page table of level 2.
    L2Pinned = 0xA,
    /// A pinned page table of level 3.
    L3Pinned = 0xB,
    /// A pinned page table of level 4.
    L4Pinned = 0xC,
    /// Lost to a hardware fault; has no data.
    Broken = 0xD,
    /// To be allocated, but has no data.
    AllocateOnly = 0xE,
    /// Not there (any more); has no data.
    Invalid = 0xF,
}

impl PageType {
    /// Every page type.
    pub const ALL: [PageType; 12] = {
        use PageType::*;
        [Normal, L1, L2, L3, L4, L1Pinned, L2Pinned, L3Pinned, L4Pinned, Broken, AllocateOnly, Invalid]
    };

    /// Whether the page's bytes are in the stream.
    pub const fn has_data(self) -> bool {
        !matches!(self, PageType::Broken | PageType::AllocateOnly | PageType::Invalid)
    }

    /// The level of the page table that this page is.
    pub const fn table_level(self) -> Option<u8> {
        match self {
            PageType::Normal | PageType::Broken | PageType::AllocateOnly | PageType::Invalid => None,
            table => Some(table as u8 & 7),
        }
    }

    /// Whether this is a pinned page table.
    pub const fn is_pinned(self) -> bool {
        self.table_level().is_some() && self as u8 & 8 != 0
    }

    /// The type that has this number.
    ///
    /// # Errors
    /// [`Fault::PageType`].
    pub fn from_number(number: u8) -> Result<PageType, Fault> {
        Self::ALL.into_iter().find(|page_type| *page_type as u8 == number).ok_or(Fault::PageType(number))
    }
}

/// Bits 0 to 51: the page number.
const PFN_BITS: u32 = 52;
/// Bits 60 to 63: its type. Those between are reserved, and ignored.
const TYPE_SHIFT: u32 = 60;

/// The front of a PAGE_DATA record's body.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPageData {
    count: U32,
    reserved: U32,
}

/// Which pages a PAGE_DATA record is about, and what each of them is: all of it but their bytes. Everything in it has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageList<'a> {
    words: &'a [PfnWord],
    with_data: usize,
}

impl<'a> PageList<'a> {
    /// How many pages are named, with data or without: 1 to [`MAX_BATCH_PAGES`].
    pub fn page_count(&self) -> usize {
        self.words.len()
    }

    /// How many of them have data.
    pub fn data_count(&self) -> usize {
        self.with_data
    }

    /// The pages, in the order of the record.
    pub fn pages(&self) -> impl Iterator<Item = (Pfn, PageType)> + use<'a> {
        self.words.iter().map(|word| {
            let (pfn, number) = split(word.get());
            // `parse` has refused every word that this would not hold for.
            (pfn, PageType::from_number(number).unwrap_or(PageType::Invalid))
        })
    }

    /// How many bytes a record's body begins with before its pages' bytes come, and how many there are of those. `body` is as much of
    /// it as has come, at least [`PageList::MIN_BYTES`] unless all of it is shorter; `length` is the whole.
    pub(super) fn split_body(body: &[u8], length: usize) -> Result<usize, Fault> {
        let bad_length = Fault::BadLength { kind: kind::PAGE_DATA, length };
        let (raw, _) = RawPageData::ref_from_prefix(body).map_err(|_| bad_length.clone())?;
        let count = raw.count.get();
        if count == 0 || count as usize > MAX_BATCH_PAGES {
            return Err(Fault::PageCount(count));
        }
        let front = Self::MIN_BYTES + count as usize * size_of::<PfnWord>();
        if front <= length { Ok(front) } else { Err(bad_length) }
    }

    /// The shortest that a record's body can be.
    pub(super) const MIN_BYTES: usize = size_of::<RawPageData>();

    /// Reads the front of a body that has `length` bytes in all.
    pub(super) fn parse(front: &'a [u8], length: usize, pfn_limit: u64) -> Result<PageList<'a>, Fault> {
        let bad_length = Fault::BadLength { kind: kind::PAGE_DATA, length };
        let end = Self::split_body(front, length)?;
        let words = front.get(Self::MIN_BYTES..end).and_then(|words| <[PfnWord]>::ref_from_bytes(words).ok());
        let words = words.ok_or_else(|| bad_length.clone())?;
        let mut with_data = 0;
        for word in words {
            let (pfn, number) = split(word.get());
            if pfn.0 >= pfn_limit {
                return Err(Fault::PfnOutOfRange { pfn, pfn_limit });
            }
            with_data += usize::from(PageType::from_number(number)?.has_data());
        }
        if length - end != with_data * PAGE_SIZE {
            return Err(bad_length);
        }
        Ok(PageList { words, with_data })
    }

    /// Whether one of the bits between a number and its type is set, which means nothing.
    pub(super) fn has_reserved_bits(&self) -> bool {
        let reserved = (1 << TYPE_SHIFT) - (1 << PFN_BITS);
        self.words.iter().any(|word| word.get() & reserved != 0)
    }
}

/// A PAGE_DATA record: some pages, those that have data with it. Everything in it has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageData<'a> {
    list: PageList<'a>,
    data: &'a [u8],
}

/// One page of a [`PageData`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageEntry<'a> {
    /// Which page.
    pub pfn: Pfn,
    /// What it is to the guest.
    pub page_type: PageType,
    /// Its bytes, if [its type has any](PageType::has_data).
    pub data: Option<&'a Page>,
}

impl<'a> PageData<'a> {
    /// The pages without their bytes.
    pub fn list(&self) -> PageList<'a> {
        self.list
    }

    /// How many pages are named, with data or without: 1 to [`MAX_BATCH_PAGES`].
    pub fn page_count(&self) -> usize {
        self.list.page_count()
    }

    /// The pages, in the order of the record.
    pub fn pages(&self) -> impl Iterator<Item = PageEntry<'a>> + use<'a> {
        let mut data = self.data;
        self.list.pages().map(move |(pfn, page_type)| {
            let page = if page_type.has_data() { data.split_first_chunk() } else { None };
            let page = page.map(|(page, rest)| {
                data = rest;
                page
            });
            PageEntry { pfn, page_type, data: page }
        })
    }

    /// The bytes of all pages that have any, one after the other, in the order of the record.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The pages as if none had any bytes: for what looks at everything else.
    pub(crate) fn without_bytes(list: PageList<'a>) -> PageData<'a> {
        PageData { list, data: &[] }
    }

    pub(super) fn parse(body: &'a [u8], pfn_limit: u64) -> Result<PageData<'a>, Fault> {
        let list = PageList::parse(body, body.len(), pfn_limit)?;
        Ok(PageData { list, data: &body[body.len() - list.with_data * PAGE_SIZE..] })
    }
}

/// Appends the front of a PAGE_DATA record: its header, the count, and the pages' numbers and types. The bytes of all pages that
/// have data must follow in the same order, written by the caller from wherever they are; the return value says how many bytes
/// that is. Pages are a multiple of 8 bytes, so no padding comes after them.
///
/// # Panics
/// Unless there are 1 to [`MAX_BATCH_PAGES`] pages, with numbers below 2^52.
pub fn page_data_prefix(pages: impl IntoIterator<Item = (Pfn, PageType)>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let fixed_bytes = RECORD_HEADER_BYTES + size_of::<RawPageData>();
    out.resize(start + fixed_bytes, 0);
    let (mut count, mut data_bytes) = (0_u32, 0);
    for (pfn, page_type) in pages {
        assert!(pfn.0 < 1 << PFN_BITS, "{pfn} does not fit the stream");
        out.extend_from_slice(&(pfn.0 | (page_type as u64) << TYPE_SHIFT).to_le_bytes());
        count += 1;
        data_bytes += if page_type.has_data() { PAGE_SIZE } else { 0 };
    }
    assert!((1..=MAX_BATCH_PAGES).contains(&(count as usize)), "a record of {count} pages");

    let body_bytes = out.len() - start - RECORD_HEADER_BYTES + data_bytes;
    let front = RawFront {
        header: super::RawRecordHeader::new(kind::PAGE_DATA, body_bytes),
        pages: RawPageData { count: count.into(), reserved: 0.into() },
    };
    out[start..start + fixed_bytes].copy_from_slice(front.as_bytes());
    data_bytes
}

/// A PAGE_DATA record up to its page numbers.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawFront {
    header: super::RawRecordHeader,
    pages: RawPageData,
}

fn split(word: u64) -> (Pfn, u8) {
    (Pfn(word & ((1 << PFN_BITS) - 1)), (word >> TYPE_SHIFT) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_record() {
        let mut bytes = Vec::new();
        let data_bytes = page_data_prefix([(Pfn(0x1234), PageType::L4Pinned), (Pfn(7), PageType::Invalid)], &mut bytes);
        let golden = [
            [1, 0, 0, 0, 0x18, 0x10, 0, 0],    // PAGE_DATA, 8 + 2 * 8 + 4096 bytes
            [2, 0, 0, 0, 0, 0, 0, 0],          // two pages
            [0x34, 0x12, 0, 0, 0, 0, 0, 0xC0], // pinned L4
            [7, 0, 0, 0, 0, 0, 0, 0xF0],       // not there
        ];
        assert_eq!((bytes.as_slice(), data_bytes), (golden.as_flattened(), PAGE_SIZE));
    }

    #[test]
    fn levels_and_pins() {
        assert_eq!((PageType::L3Pinned.table_level(), PageType::L3Pinned.is_pinned()), (Some(3), true));
        assert_eq!((PageType::L2.table_level(), PageType::L2.is_pinned()), (Some(2), false));
        for page_type in [PageType::Normal, PageType::Broken, PageType::AllocateOnly, PageType::Invalid] {
            assert_eq!((page_type.table_level(), page_type.is_pinned()), (None, false));
        }
    }

    #[test]
    fn counts_and_types_out_of_range() {
        let body = |count: u32, words: &[u64]| {
            let mut body = [count.to_le_bytes(), [0; 4]].concat();
            body.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            body
        };
        let fault = |body: &[u8]| PageData::parse(body, 10).unwrap_err();
        assert_eq!(fault(&body(0, &[])), Fault::PageCount(0));
        assert_eq!(fault(&body(1025, &[])), Fault::PageCount(1025));
        assert_eq!(fault(&body(1, &[])), Fault::BadLength { kind: kind::PAGE_DATA, length: 8 });
        assert_eq!(fault(&body(1, &[10])), Fault::PfnOutOfRange { pfn: Pfn(10), pfn_limit: 10 });
        assert_eq!(fault(&body(1, &[5 << 60])), Fault::PageType(5));
        assert_eq!(fault(&body(1, &[3])), Fault::BadLength { kind: kind::PAGE_DATA, length: 16 });
        let mut too_much = body(1, &[0xF << 60 | 3]);
        assert!(PageData::parse(&too_much, 10).is_ok());
        too_much.push(0);
        assert_eq!(fault(&too_much), Fault::BadLength { kind: kind::PAGE_DATA, length: 17 });
    }

    proptest! {
        #[test]
        fn round_trips(pages in prop::collection::vec((0_u64..1 << 52, prop::sample::select(&PageType::ALL), any::<u8>()), 1..40)) {
            let mut bytes = Vec::new();
            let data_bytes = page_data_prefix(pages.iter().map(|&(pfn, page_type, _)| (Pfn(pfn), page_type)), &mut bytes);
            let data: Vec<u8> = pages.iter().filter(|(_, t, _)| t.has_data()).flat_map(|(_, _, fill)| [*fill; PAGE_SIZE]).collect();
            prop_assert_eq!(data.len(), data_bytes);
            bytes.extend_from_slice(&data);
            let parsed = PageData::parse(&bytes[RECORD_HEADER_BYTES..], 1 << 52).unwrap();
            prop_assert_eq!(parsed.data(), data);
            prop_assert_eq!(parsed.page_count(), pages.len());
            for (entry, (pfn, page_type, fill)) in parsed.pages().zip(pages) {
                prop_assert_eq!((entry.pfn, entry.page_type), (Pfn(pfn), page_type));
                prop_assert_eq!(entry.data.copied(), page_type.has_data().then_some([fill; PAGE_SIZE]));
            }
        }
    }
}
