//! A whole image, as it is in a file or comes through a pipe, whatever layer it begins with: xl's header, libxl's stream, libxc's.
//!
//! [`ImageReader`] finds out with which, and gives one event after the other: each header, each record of either stream, read,
//! checked, and in its right place. It needs memory for the longest record, whatever the image's length, and reads no byte beyond
//! the event that it gives, so that its caller may take the source over between any two.
//!
//! ```
//! use colo_core::stream::image::{ImageEvent, ImageLimits, ImageReader};
//! use colo_core::stream::libxl::{LibxlHeader, LibxlRecord};
//! use colo_core::stream::xl::XlHeader;
//! use colo_core::stream::{DomainHeader, DomainKind, Headers, HvmContext, RecordRef, hvm::entry, kind, write_record};
//!
//! // A domain without memory, as `xl save` would write it.
//! let mut image = Vec::new();
//! XlHeader::new(b"{}").encode(&mut image)?;
//! LibxlHeader::default().encode(&mut image);
//! LibxlRecord::LibxcContext.encode(&mut image)?;
//! let domain = DomainHeader { kind: DomainKind::X86Hvm, page_shift: 12, xen_major: 4, xen_minor: 17 };
//! Headers::new(domain).encode(&mut image);
//! let context = HvmContext::record(&[(entry::HEADER, 0, &HvmContext::header(0, 0))]);
//! write_record(&mut image, kind::STATIC_DATA_END, &[])?;
//! write_record(&mut image, context.kind, &context.body)?;
//! write_record(&mut image, kind::END, &[])?;
//! LibxlRecord::End.encode(&mut image)?;
//!
//! let mut reader = ImageReader::new(image.as_slice(), ImageLimits::default());
//! let mut records = Vec::new();
//! while let Some(item) = reader.next_item()? {
//!     if let ImageEvent::Libxc { record, .. } = item.event {
//!         records.push(kind::name(record.kind()));
//!     }
//! }
//! assert_eq!(records, ["STATIC_DATA_END", "HVM_CONTEXT", "END"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod gist;
mod reader;
mod reserved;
mod source;
mod summary;
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use reader::ImageReader;
pub use source::{Flowing, ImageSource, PageBytes, PageRun, PageSource};
pub use summary::{ImageSummary, Layer, PageTally, Tally};

use super::libxl::{LibxlFault, LibxlHeader, LibxlRecord, MAX_LIBXL_BODY_BYTES};
use super::xl::{XlFault, XlHeader};
use super::{Fault, Headers, Limits, PageList, RecordRef, StateRef};
use std::io;

/// One piece of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageItem<'a> {
    /// Where it begins, in bytes from the beginning of the image.
    pub offset: u64,
    /// How long it is, with its header and padding.
    pub bytes: usize,
    /// What it is.
    pub event: ImageEvent<'a>,
}

/// One piece of an image, with the bytes of pages left where they are.
#[derive(Debug)]
pub enum ImagePart<'a, R> {
    /// Any piece but pages.
    Item(ImageItem<'a>),
    /// A PAGE_DATA record.
    Pages(PagesPart<'a, R>),
}

/// A PAGE_DATA record whose pages' bytes have not been read yet.
#[derive(Debug)]
pub struct PagesPart<'a, R> {
    /// Where it begins, in bytes from the beginning of the image.
    pub offset: u64,
    /// How long it is, with its header and the pages' bytes.
    pub bytes: usize,
    /// Which pages.
    pub list: PageList<'a>,
    /// Their bytes: so many pages as there are [with data](PageList::data_count).
    pub source: PageBytes<'a, R>,
}

/// What a piece of an image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageEvent<'a> {
    /// xl's header, which only a file of xl's begins with.
    XlHeader(XlHeader<'a>),
    /// The header of libxl's stream.
    LibxlHeader(LibxlHeader),
    /// A record of libxl's stream.
    Libxl(LibxlRecord<'a>),
    /// The headers of libxc's stream.
    LibxcHeaders(Headers),
    /// A record of libxc's stream.
    Libxc {
        /// The record.
        record: RecordRef<'a>,
        /// What it says, if it is [`RecordRef::State`].
        state: Option<StateRef<'a>>,
    },
}

/// What an [`ImageReader`] puts up with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageLimits {
    /// In libxc's stream. A PV domain's own record of its size lowers the limit of page numbers.
    pub libxc: Limits,
    /// The longest body of a record of libxl's, in bytes.
    pub libxl_body_bytes: usize,
    /// Whether to refuse what a restore must put up with but no Xen writes: reserved fields and padding that are not zero, and
    /// optional records of unknown types. Such an image has been damaged: a PAGE_DATA record of which one bit is flipped is such a
    /// record, and a restore would go on without those pages.
    pub strict: bool,
}

impl Default for ImageLimits {
    /// For an image of a domain of which nothing is known, to be restored.
    fn default() -> Self {
        ImageLimits { libxc: Limits::of_any_domain(), libxl_body_bytes: MAX_LIBXL_BODY_BYTES, strict: false }
    }
}

impl ImageLimits {
    /// As the default, but [strict](ImageLimits::strict).
    pub fn strict() -> ImageLimits {
        ImageLimits { strict: true, ..ImageLimits::default() }
    }
}

/// Why an image cannot be read on.
#[derive(thiserror::Error, Debug)]
pub enum ImageReadError {
    /// The image is wrong.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The source failed.
    #[error("at byte {offset}: {error}")]
    Io {
        /// Where the piece begins that could not be read.
        offset: u64,
        /// Why.
        error: io::Error,
    },
}

/// What is wrong with an image, and where.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("at byte {offset}: {fault}")]
pub struct ImageError {
    /// Where the header or the record that is wrong begins, in bytes from the beginning of the image.
    pub offset: u64,
    /// What is wrong.
    pub fault: ImageFault,
}

/// What can be wrong with an image.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ImageFault {
    /// There is not a byte.
    #[error("the file is empty")]
    Empty,
    /// It begins as no image does.
    #[error("this is no Xen domain image")]
    NotAnImage,
    /// It is an image of Xen 4.5 or before.
    #[error("this is a legacy image, of Xen 4.5 or before")]
    Legacy,
    /// It ends too early.
    #[error("it ends within {what}: {needed} bytes are needed, {got} are there")]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Bytes of that, as far as known.
        needed: usize,
        /// Bytes there are.
        got: usize,
    },
    /// It ends between two records, but not with the last.
    #[error("it ends where {0} must come")]
    NoEnd(&'static str),
    /// Something comes after its end.
    #[error("something follows the end of the image")]
    Trailing,
    /// An optional record of a type that no Xen writes, in an image that is read [strictly](ImageLimits::strict).
    #[error("optional record of unknown type {0:#x}, which no Xen writes")]
    UnknownOptional(u32),
    /// xl's header is wrong.
    #[error(transparent)]
    Xl(XlFault),
    /// libxl's stream is wrong.
    #[error(transparent)]
    Libxl(#[from] LibxlFault),
    /// libxc's stream is wrong.
    #[error(transparent)]
    Libxc(#[from] Fault),
}

impl From<XlFault> for ImageFault {
    fn from(fault: XlFault) -> Self {
        match fault {
            XlFault::Legacy => ImageFault::Legacy,
            fault => ImageFault::Xl(fault),
        }
    }
}
