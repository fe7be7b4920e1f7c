use super::{ImageEvent, ImageItem};
use crate::stream::libxl::LibxlHeader;
use crate::stream::{Headers, PageType, PvInfo, RecordRef, StateRef};
use std::collections::BTreeMap;

/// A layer of an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Layer {
    /// The file's header, as xl writes it.
    Xl,
    /// libxl's stream.
    Libxl,
    /// libxc's stream.
    Libxc,
}

impl Layer {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Layer::Xl => "xl",
            Layer::Libxl => "libxl",
            Layer::Libxc => "libxc",
        }
    }
}

/// How many records of a kind there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes, with their headers and padding.
    pub bytes: u64,
}

/// How many pages of a type there are. A page that comes several times counts each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageTally {
    /// How many.
    pub count: u64,
    /// The lowest number of one.
    pub lowest: u64,
    /// The highest number of one.
    pub highest: u64,
}

/// What is in an image, all in all. Of the same size for every image.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ImageSummary {
    /// Whether it begins with xl's header.
    pub is_xl: bool,
    /// The domain's configuration, if xl's header holds one.
    pub config: Option<Vec<u8>>,
    /// Whether that is JSON.
    pub config_is_json: bool,
    /// The header of libxl's stream, if there is one.
    pub libxl: Option<LibxlHeader>,
    /// The headers of libxc's stream.
    pub libxc: Option<Headers>,
    /// Of a PV guest its width.
    pub pv_info: Option<PvInfo>,
    /// The headers and records, by layer and name.
    pub tallies: BTreeMap<(Layer, &'static str), Tally>,
    /// The pages, by their type's number.
    pages: [Option<PageTally>; 16],
    /// Checkpoints in it.
    pub checkpoints: u64,
    /// Bytes of all of it.
    pub bytes: u64,
}

impl ImageSummary {
    /// Takes in a piece of the image.
    pub fn add(&mut self, item: &ImageItem<'_>) {
        let tally = self.tallies.entry((item.layer(), item.name())).or_default();
        tally.count += 1;
        tally.bytes += item.bytes as u64;
        self.bytes += item.bytes as u64;
        match item.event {
            ImageEvent::XlHeader(header) => {
                self.is_xl = true;
                self.config = header.config.map(<[u8]>::to_vec);
                self.config_is_json = header.is_json;
            }
            ImageEvent::LibxlHeader(header) => self.libxl = Some(header),
            ImageEvent::LibxcHeaders(headers) => self.libxc = Some(headers),
            ImageEvent::Libxc { state: Some(StateRef::PvInfo(info)), .. } => self.pv_info = Some(info),
            ImageEvent::Libxc { record: RecordRef::Checkpoint, .. } => self.checkpoints += 1,
            ImageEvent::Libxc { record: RecordRef::PageData(pages), .. } => {
                pages.pages().for_each(|page| self.add_page(page.page_type, page.pfn.0));
            }
            _ => {}
        }
    }

    /// The pages, by type.
    pub fn pages(&self) -> impl Iterator<Item = (PageType, PageTally)> {
        PageType::ALL.into_iter().filter_map(|page_type| Some((page_type, self.pages[page_type as usize]?)))
    }

    /// How many pages come with their bytes.
    pub fn pages_with_data(&self) -> u64 {
        self.pages().filter(|(page_type, _)| page_type.has_data()).map(|(_, tally)| tally.count).sum()
    }

    fn add_page(&mut self, page_type: PageType, pfn: u64) {
        let tally = &mut self.pages[page_type as usize];
        let before = tally.unwrap_or(PageTally { count: 0, lowest: pfn, highest: pfn });
        *tally = Some(PageTally {
            count: before.count + 1,
            lowest: before.lowest.min(pfn),
            highest: before.highest.max(pfn),
        });
    }
}
