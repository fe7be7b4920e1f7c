use super::{
    ImageError, ImageEvent, ImageFault, ImageItem, ImageLimits, ImagePart, ImageReadError, ImageSource, PageBytes,
    PagesPart, reserved,
};
use crate::ids::Pfn;
use crate::stream::input::Input;
use crate::stream::libxl::{self, LibxlHeader, LibxlOrder, LibxlRecord, is_libxl_after_checkpoint};
use crate::stream::record::RawRecordHeader;
use crate::stream::xl::{self, XlHeader};
use crate::stream::{
    DomainKind, Fault, Headers, Limits, MemoryHash, NetState, OrderChecker, P2mFrames, PageData, PageList,
    RECORD_HEADER_BYTES, RecordRef, StateRef, kind, twin,
};
use std::io::{self, Read};

/// Every libxc stream begins with this.
const LIBXC_MARKER: [u8; 8] = [0xFF; 8];

/// Reads an image, event by event.
///
/// A source is read in few and large pieces; it need not be buffered.
#[derive(Debug)]
pub struct ImageReader<R> {
    input: Input<R>,
    walk: Walk,
}

impl<R: Read> ImageReader<R> {
    /// A reader at the beginning of an image.
    pub fn new(source: R, limits: ImageLimits) -> Self {
        ImageReader { input: Input::new(source), walk: Walk::new(limits) }
    }

    /// How many bytes have been read: after an event, where the next one begins.
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }

    /// Reads the next piece of the image; `None` after its last.
    ///
    /// # Errors
    /// The image's and the source's. There is nothing to be read on after one.
    pub fn next_item(&mut self) -> Result<Option<ImageItem<'_>>, ImageReadError> {
        match self.fetch(Walk::fetch_whole)? {
            Some((offset, piece)) => self.item(offset, piece).map(Some),
            None => Ok(None),
        }
    }

    /// As [`ImageReader::next_item`], but the bytes of pages are left in the source: they are most of an image, and can be read from
    /// there to where they belong. Those that are not read are passed over.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// use colo_core::ids::PAGE_SIZE;
    /// use colo_core::stream::image::{ImageLimits, ImagePart, ImageReader, PageSource, testing::images};
    ///
    /// let (_, image) = images().remove(0);
    /// let mut reader = ImageReader::new(image.as_slice(), ImageLimits::default());
    /// let mut pages = Vec::new();
    /// while let Some(part) = reader.next_part()? {
    ///     if let ImagePart::Pages(mut part) = part {
    ///         pages = vec![[0; PAGE_SIZE]; part.list.data_count()];
    ///         part.source.read(&mut pages)?;
    ///     }
    /// }
    /// assert!(!pages.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_part(&mut self) -> Result<Option<ImagePart<'_, R>>, ImageReadError>
    where
        R: ImageSource,
    {
        let Some((offset, piece)) = self.fetch(Walk::fetch_front)? else {
            return Ok(None);
        };
        let Piece::Pages { body, bytes } = piece else {
            return self.item(offset, piece).map(|item| Some(ImagePart::Item(item)));
        };
        let ahead = (bytes - self.input.bytes().len()) as u64;
        let (front, source, ahead) = self.input.finish_ahead(ahead);
        match self.walk.pages(front, body) {
            Ok(list) => {
                let source = PageBytes { source, ahead, offset, bytes };
                Ok(Some(ImagePart::Pages(PagesPart { offset, bytes, list, source })))
            }
            Err(fault) => Err(ImageError { offset, fault }.into()),
        }
    }

    fn fetch(
        &mut self,
        fetch: fn(&Walk, &mut Input<R>) -> Result<Option<Piece>, Stop>,
    ) -> Result<Option<(u64, Piece)>, ImageReadError> {
        let offset = self.input.offset();
        let passed = self.input.pass_over();
        self.input.start();
        match passed.map_err(Stop::Io).and_then(|()| fetch(&self.walk, &mut self.input)) {
            Ok(piece) => Ok(piece.map(|piece| (offset, piece))),
            Err(Stop::Fault(fault)) => Err(ImageError { offset, fault }.into()),
            Err(Stop::Io(error)) => Err(ImageReadError::Io { offset, error }),
        }
    }

    /// The piece that has come.
    fn item(&mut self, offset: u64, piece: Piece) -> Result<ImageItem<'_>, ImageReadError> {
        self.input.finish();
        let bytes = self.input.bytes();
        match self.walk.read(piece, bytes) {
            Ok(event) => Ok(ImageItem { offset, bytes: bytes.len(), event }),
            Err((within, fault)) => Err(ImageError { offset: offset + within, fault }.into()),
        }
    }

    /// Makes sure that nothing follows the image, for sources that should hold nothing else: a file, not a pipe of a migration.
    ///
    /// # Errors
    /// [`ImageFault::Trailing`], and the source's.
    pub fn check_end_of_source(&mut self) -> Result<(), ImageReadError> {
        let offset = self.input.offset();
        self.input.start();
        match self.input.fill_to(1) {
            Ok(false) => Ok(()),
            Ok(true) => Err(ImageError { offset, fault: ImageFault::Trailing }.into()),
            Err(error) => Err(ImageReadError::Io { offset, error }),
        }
    }

    /// Gives the source back, which stands where the next event begins.
    pub fn into_source(self) -> R {
        self.input.into_source()
    }
}

/// Why a piece was not read whole.
enum Stop {
    Fault(ImageFault),
    Io(io::Error),
}

impl<F: Into<ImageFault>> From<F> for Stop {
    fn from(fault: F) -> Self {
        Stop::Fault(fault.into())
    }
}

/// What the bytes of a piece are.
#[derive(Clone, Copy)]
enum Piece {
    XlHeader,
    LibxlHeader,
    LibxlRecord,
    LibxcHeaders,
    LibxcRecord,
    /// A PAGE_DATA record of which the front is there; with the length of its body, and of all of it.
    Pages {
        body: usize,
        bytes: usize,
    },
}

/// Where in an image one is, and what has been learnt on the way.
#[derive(Debug)]
struct Walk {
    limits: ImageLimits,
    at: At,
    /// The order of libxl's records, if there is such a stream.
    libxl: Option<LibxlOrder>,
    libxc: Option<Libxc>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Start,
    LibxlHeader,
    Libxl,
    LibxcHeaders,
    Libxc,
    End,
}

/// What is known of libxc's stream.
#[derive(Debug)]
struct Libxc {
    order: OrderChecker,
    domain: DomainKind,
    limits: Limits,
    /// The limit of page numbers before the domain has told its own.
    most_pages: u64,
    p2m: P2mEnd,
}

impl Walk {
    fn new(limits: ImageLimits) -> Walk {
        Walk { limits, at: At::Start, libxl: None, libxc: None }
    }

    /// Reads the next piece whole.
    fn fetch_whole<R: Read>(&self, input: &mut Input<R>) -> Result<Option<Piece>, Stop> {
        let piece = self.fetch_front(input)?;
        let Some(Piece::Pages { bytes, .. }) = piece else {
            return Ok(piece);
        };
        fill(input, kind::name(kind::PAGE_DATA), bytes)?;
        Ok(Some(Piece::LibxcRecord))
    }

    /// Reads the next piece, of pages only which they are.
    fn fetch_front<R: Read>(&self, input: &mut Input<R>) -> Result<Option<Piece>, Stop> {
        match self.at {
            At::Start => self.fetch_first(input).map(Some),
            At::LibxlHeader => {
                fill(input, "libxl's header", LibxlHeader::BYTES)?;
                Ok(Some(Piece::LibxlHeader))
            }
            At::LibxcHeaders => {
                fill(input, "libxc's headers", Headers::BYTES)?;
                Ok(Some(Piece::LibxcHeaders))
            }
            At::Libxl => self.fetch_libxl(input).map(Some),
            At::Libxc => self.fetch_libxc(input).map(Some),
            At::End => Ok(None),
        }
    }

    fn fetch_first(&self, input: &mut Input<impl Read>) -> Result<Piece, Stop> {
        const BEGINNINGS: [(&[u8], Piece, &str, usize); 3] = [
            (xl::MAGIC, Piece::XlHeader, "xl's header", XlHeader::FRONT_BYTES),
            (&LibxlHeader::IDENT, Piece::LibxlHeader, "libxl's header", LibxlHeader::BYTES),
            (&LIBXC_MARKER, Piece::LibxcHeaders, "libxc's headers", Headers::BYTES),
        ];
        // Nothing shorter is an image, and nothing longer can be asked for before it is known what this is.
        let whole = input.fill_to(LIBXC_MARKER.len()).map_err(Stop::Io)?;
        let got = input.bytes();
        if got.is_empty() {
            return Err(ImageFault::Empty.into());
        }
        let found = BEGINNINGS.into_iter().find(|(beginning, ..)| beginning.starts_with(got));
        let Some((beginning, piece, what, needed)) = found else {
            let legacy = is_legacy_libxc(input).map_err(Stop::Io)?;
            return Err(if legacy { ImageFault::Legacy } else { ImageFault::NotAnImage }.into());
        };
        if !whole {
            return Err(ImageFault::Truncated { what, needed, got: got.len() }.into());
        }
        input.fill_to(beginning.len()).map_err(Stop::Io)?;
        if !beginning.starts_with(input.bytes()) {
            return Err(ImageFault::NotAnImage.into());
        }
        fill(input, what, needed)?;
        if let Piece::XlHeader = piece {
            fill(input, what, XlHeader::bytes(input.bytes())?)?;
        }
        Ok(piece)
    }

    fn fetch_libxl(&self, input: &mut Input<impl Read>) -> Result<Piece, Stop> {
        fill(input, "a libxl record", RECORD_HEADER_BYTES)?;
        let (kind, _, bytes) = LibxlRecord::parse_header(input.bytes(), self.limits.libxl_body_bytes)?;
        fill(input, libxl::kind::name(kind), bytes)?;
        Ok(Piece::LibxlRecord)
    }

    fn fetch_libxc(&self, input: &mut Input<impl Read>) -> Result<Piece, Stop> {
        fill(input, "a libxc record", RECORD_HEADER_BYTES)?;
        let (kind, body, bytes) = RawRecordHeader::parse(input.bytes(), &self.limits.libxc)?;
        if self.libxl.is_some_and(|order| order.is_between_checkpoints()) && is_libxl_after_checkpoint(kind) {
            return self.fetch_libxl(input);
        }
        if kind == kind::PAGE_DATA {
            fill(input, kind::name(kind), RECORD_HEADER_BYTES + body.min(PageList::MIN_BYTES))?;
            let front = PageList::split_body(&input.bytes()[RECORD_HEADER_BYTES..], body)?;
            fill(input, kind::name(kind), RECORD_HEADER_BYTES + front)?;
            return Ok(Piece::Pages { body, bytes });
        }
        fill(input, kind::name(kind), bytes)?;
        Ok(Piece::LibxcRecord)
    }

    /// Understands a piece that is there as a whole, and goes on. A fault comes with how far into the piece it is.
    fn read<'a>(&mut self, piece: Piece, bytes: &'a [u8]) -> Result<ImageEvent<'a>, (u64, ImageFault)> {
        match piece {
            Piece::LibxcHeaders => self.libxc_headers(bytes),
            Piece::XlHeader => self.xl_header(bytes).map_err(|fault| (0, fault)),
            Piece::LibxlHeader => self.libxl_header(bytes).map_err(|fault| (0, fault)),
            Piece::LibxlRecord => self.libxl_record(bytes).map_err(|fault| (0, fault)),
            Piece::LibxcRecord | Piece::Pages { .. } => self.libxc_record(bytes).map_err(|fault| (0, fault)),
        }
    }

    fn xl_header<'a>(&mut self, bytes: &'a [u8]) -> Result<ImageEvent<'a>, ImageFault> {
        let (header, _) = XlHeader::parse(bytes)?;
        self.at = At::LibxlHeader;
        Ok(ImageEvent::XlHeader(header))
    }

    fn libxl_header(&mut self, bytes: &[u8]) -> Result<ImageEvent<'static>, ImageFault> {
        let (header, _) = LibxlHeader::parse(bytes)?;
        if self.limits.strict {
            LibxlHeader::check_reserved(bytes)?;
        }
        self.libxl = Some(LibxlOrder::default());
        self.at = At::Libxl;
        Ok(ImageEvent::LibxlHeader(header))
    }

    fn libxl_record<'a>(&mut self, bytes: &'a [u8]) -> Result<ImageEvent<'a>, ImageFault> {
        let limit = self.limits.libxl_body_bytes;
        let (record, _) = LibxlRecord::parse(bytes, limit)?;
        if self.limits.strict {
            let (kind, body_bytes, _) = LibxlRecord::parse_header(bytes, limit)?;
            LibxlRecord::check_reserved(kind, body_bytes, &bytes[RECORD_HEADER_BYTES..])?;
        }
        let order = self.libxl.get_or_insert_default();
        order.check(&record)?;
        self.at = match (order.has_ended(), order.is_libxc(), &self.libxc) {
            (true, ..) => At::End,
            (false, true, None) => At::LibxcHeaders,
            (false, true, Some(_)) => At::Libxc,
            (false, false, _) => At::Libxl,
        };
        Ok(ImageEvent::Libxl(record))
    }

    fn libxc_headers(&mut self, bytes: &[u8]) -> Result<ImageEvent<'static>, (u64, ImageFault)> {
        let (headers, _) = Headers::parse(bytes).map_err(|error| (error.offset, error.fault.into()))?;
        if self.limits.strict {
            reserved::check_headers(bytes).map_err(|fault| (0, fault.into()))?;
        }
        self.libxc = Some(Libxc {
            order: OrderChecker::for_any_use(&headers),
            domain: headers.domain.kind,
            limits: self.limits.libxc,
            most_pages: self.limits.libxc.pfn_limit,
            p2m: P2mEnd::default(),
        });
        self.at = At::Libxc;
        Ok(ImageEvent::LibxcHeaders(headers))
    }

    fn libxc_record<'a>(&mut self, bytes: &'a [u8]) -> Result<ImageEvent<'a>, ImageFault> {
        // The headers have come, or this would not have been taken for a record.
        let Some(libxc) = &mut self.libxc else { return Err(ImageFault::NotAnImage) };
        let (record, state) = libxc.read(bytes)?;
        self.go_on(bytes, &record)?;
        Ok(ImageEvent::Libxc { record, state })
    }

    /// Understands a PAGE_DATA record by its front; its body is so long.
    fn pages<'a>(&mut self, front: &'a [u8], body: usize) -> Result<PageList<'a>, ImageFault> {
        let Some(libxc) = &mut self.libxc else { return Err(ImageFault::NotAnImage) };
        let list = PageList::parse(&front[RECORD_HEADER_BYTES..], body, libxc.limits.pfn_limit)?;
        let record = RecordRef::PageData(PageData::without_bytes(list));
        libxc.order.check(&record).map_err(|error| error.fault)?;
        self.go_on(front, &record)?;
        Ok(list)
    }

    /// Goes on after a record that is right in itself.
    fn go_on(&mut self, bytes: &[u8], record: &RecordRef<'_>) -> Result<(), ImageFault> {
        if self.limits.strict {
            reserved::check_record(bytes, record)?;
        }
        let Some(libxc) = &self.libxc else { return Err(ImageFault::NotAnImage) };
        let device_model = libxc.domain != DomainKind::X86Pv;
        match (record, &mut self.libxl) {
            (RecordRef::End, None) => self.at = At::End,
            (RecordRef::End, Some(order)) => {
                order.libxc_ended(device_model);
                self.at = At::Libxl;
            }
            (RecordRef::Checkpoint, Some(order)) => {
                order.libxc_checkpoint(device_model);
                self.at = At::Libxl;
            }
            (_, Some(order)) => order.libxc_goes_on(),
            (_, None) => {}
        }
        Ok(())
    }
}

impl Libxc {
    fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(RecordRef<'a>, Option<StateRef<'a>>), Fault> {
        let (record, _) = RecordRef::parse(bytes, &self.limits).map_err(|error| error.fault)?;
        self.order.check(&record).map_err(|error| error.fault)?;
        let state = match record {
            RecordRef::State { kind, body } => {
                Some(StateRef::parse(kind, body, self.order.pv_info()).map_err(|error| error.fault)?)
            }
            RecordRef::Own { kind: kind::NET_STATE, body } => {
                NetState::default().add_part(body).map_err(|error| error.fault)?;
                None
            }
            RecordRef::Own { kind: kind::MEMORY_HASH, body } => {
                MemoryHash::parse(body).map_err(|error| error.fault)?;
                None
            }
            RecordRef::Own { kind, body } => {
                twin::check(kind, body).map_err(|error| error.fault)?;
                None
            }
            _ => None,
        };
        match (&state, record) {
            (Some(StateRef::P2mFrames(frames)), _) => {
                self.limits.pfn_limit = self.p2m.add(frames, self.most_pages)?;
            }
            (_, RecordRef::Checkpoint | RecordRef::End) => self.p2m.check()?,
            _ => {}
        }
        Ok((record, state))
    }
}

/// The end of a PV guest's memory, as far as its X86_PV_P2M_FRAMES records have told.
#[derive(Default, Debug)]
struct P2mEnd {
    /// The first page number that does not exist; `None` before the first record.
    pfn_limit: Option<u64>,
    /// The highest page that the table itself lies in.
    highest_frame: Pfn,
}

impl P2mEnd {
    /// Takes in a record, and returns the first page number that does not exist; `most` is the limit that the guest may not grow
    /// beyond.
    fn add(&mut self, frames: &P2mFrames<'_>, most: u64) -> Result<u64, Fault> {
        if frames.end().0 >= most {
            return Err(Fault::PfnOutOfRange { pfn: frames.end(), pfn_limit: most });
        }
        self.highest_frame = frames.frames().max().unwrap_or_default().max(self.highest_frame);
        let limit = self.pfn_limit.unwrap_or(0).max(frames.end().0 + 1);
        self.pfn_limit = Some(limit);
        Ok(limit)
    }

    /// Whether the whole table lies within the guest: asked when a state ends, because the guest may grow until then.
    fn check(&self) -> Result<(), Fault> {
        match self.pfn_limit {
            Some(pfn_limit) if self.highest_frame.0 >= pfn_limit => {
                Err(Fault::PfnOutOfRange { pfn: self.highest_frame, pfn_limit })
            }
            _ => Ok(()),
        }
    }
}

/// Reads until that many bytes of the piece are there.
fn fill(input: &mut Input<impl Read>, what: &'static str, needed: usize) -> Result<(), Stop> {
    if input.fill_to(needed).map_err(Stop::Io)? {
        return Ok(());
    }
    match input.bytes().len() {
        0 => Err(ImageFault::NoEnd(what).into()),
        got => Err(ImageFault::Truncated { what, needed, got }.into()),
    }
}

/// Whether these bytes, of which eight are there, begin a libxc stream of a PV domain as Xen 4.5 and before wrote it: the size of
/// its p2m as a number of 4 or 8 bytes, and then a chunk of extended information, which begins with ones of as many bytes. The
/// legacy streams of HVM domains have nothing to know them by.
fn is_legacy_libxc(input: &mut Input<impl Read>) -> io::Result<bool> {
    input.fill_to(2 * LIBXC_MARKER.len())?;
    Ok(match input.bytes() {
        [a, b, c, d, 0, 0, 0, 0, marker @ ..] if *marker == LIBXC_MARKER => [*a, *b, *c, *d] != [0; 4],
        [a, b, c, d, 0xFF, 0xFF, 0xFF, 0xFF, ..] => [*a, *b, *c, *d] != [0; 4],
        _ => false,
    })
}
