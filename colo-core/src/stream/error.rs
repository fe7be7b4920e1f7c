use super::kind;
use crate::ids::Pfn;
use crate::peer::PayloadError;

/// What is wrong with a stream, and where.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("at byte {offset} of the stream: {fault}")]
pub struct StreamError {
    /// Where the header or the record that is wrong begins, in bytes from the beginning of what was read: of the stream for
    /// [`super::RecordReader`], of the buffer for [`super::Records`] and the `parse` functions.
    pub offset: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl StreamError {
    pub(super) fn at(offset: u64) -> impl Fn(Fault) -> StreamError {
        move |fault| StreamError { offset, fault }
    }
}

impl Fault {
    /// This fault, in something that was read from its own beginning.
    pub(super) fn at_start(self) -> StreamError {
        StreamError { offset: 0, fault: self }
    }
}

/// What can be wrong with a stream.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end within a header or a record.
    #[error("it is cut off: {needed} bytes are needed, {got} are there")]
    Truncated {
        /// Bytes of the whole, as far as known.
        needed: usize,
        /// Bytes there are.
        got: usize,
    },
    /// The image header does not begin as every image since Xen 4.6 does.
    #[error("this is no Xen domain image (or a legacy one, of Xen 4.5 or before)")]
    NotAnImage,
    /// A version of the format that this reader does not know.
    #[error("version {0} of the format is unknown (2 and 3 are known)")]
    UnknownVersion(u32),
    /// The numbers of the stream are big-endian, which no machine that runs Xen writes.
    #[error("its numbers are big-endian")]
    BigEndian,
    /// A type of domain that is not known.
    #[error("domain type {0:#x} is unknown")]
    UnknownDomain(u32),
    /// Pages of another size than 4096 bytes.
    #[error("its pages are of 2^{0} bytes, not 2^12")]
    PageShift(u16),
    /// A record's body is longer than the reader allows.
    #[error("{} record of {length} bytes, but the limit is {limit}", kind::name(*kind))]
    TooLong {
        /// The record's type.
        kind: u32,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A mandatory record that is not known, so that the stream cannot be understood.
    #[error("mandatory record of unknown type {0:#x}")]
    UnknownMandatory(u32),
    /// A record of the wrong length for its type.
    #[error("{} record of {length} bytes", kind::name(*kind))]
    BadLength {
        /// The record's type.
        kind: u32,
        /// Its length.
        length: usize,
    },
    /// A record of the wrong length for what it says of itself.
    #[error("{} record of {length} bytes, not {expected}", kind::name(*kind))]
    Size {
        /// The record's type.
        kind: u32,
        /// The length it should have.
        expected: usize,
        /// Its length.
        length: usize,
    },
    /// A PV guest that no Xen runs.
    #[error("X86_PV_INFO record: a guest of {width}-byte words with {levels} levels of page tables")]
    PvInfo {
        /// Bytes of its words.
        width: u8,
        /// Levels of its page tables.
        levels: u8,
    },
    /// A part of a PV guest's table of frames that ends before it begins.
    #[error("X86_PV_P2M_FRAMES record: from page {start:#x} to {end:#x}")]
    P2mRange {
        /// Its first page.
        start: u32,
        /// Its last page.
        end: u32,
    },
    /// A vCPU beyond any machine's.
    #[error("{} record of vCPU {vcpu}", kind::name(*kind))]
    VcpuNumber {
        /// The record's type.
        kind: u32,
        /// The vCPU.
        vcpu: u32,
    },
    /// The inside of an HVM_CONTEXT record is wrong.
    #[error("HVM_CONTEXT record: at its byte {at}: {what}")]
    HvmContext {
        /// Where, in bytes from the beginning of the record's body.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A reserved field of the headers that must be zero is not.
    #[error("a reserved field of libxc's headers is not zero")]
    HeaderNotZero,
    /// A field that must be zero is not.
    #[error("{} record: {what} is not zero", kind::name(*kind))]
    NotZero {
        /// The record's type.
        kind: u32,
        /// The field.
        what: &'static str,
    },
    /// More pages in a record than a batch may have, or none.
    #[error("a PAGE_DATA record of {0} pages, not 1 to 1024")]
    PageCount(u32),
    /// A page beyond the end of guest memory.
    #[error("{pfn} is beyond the end of guest memory ({pfn_limit} pages)")]
    PfnOutOfRange {
        /// The page.
        pfn: Pfn,
        /// The first page number that does not exist.
        pfn_limit: u64,
    },
    /// A page type that has no meaning.
    #[error("page type {0:#x} is unknown")]
    PageType(u8),
    /// The inside of one of our own records is wrong.
    #[error("{} record: {error}", kind::name(*kind))]
    Body {
        /// The record's type.
        kind: u32,
        /// What is wrong.
        error: PayloadError,
    },
    /// The inside of one of our records of a device model's state is wrong.
    #[error("{} record: {what}", kind::name(*kind))]
    Emulator {
        /// The record's type.
        kind: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// A record where it may not be.
    #[error("{} record where {expected} must come", kind::name(*kind))]
    OutOfOrder {
        /// The type of the record that came.
        kind: u32,
        /// What could have come.
        expected: &'static str,
    },
    /// A record that this stream may not have at all.
    #[error("{} record in {stream}", kind::name(*kind))]
    NotAllowed {
        /// Its type.
        kind: u32,
        /// What kind of stream this is.
        stream: &'static str,
    },
    /// The stream ends, but not with its END record.
    #[error("it ends without an END record")]
    NoEnd,
}
