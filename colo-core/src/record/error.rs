use std::fmt;
use std::io;

/// Why a recording cannot be read, or not on. `Display` is one line that begins with the place.
#[derive(Debug)]
pub struct RecordError {
    /// Where in the file: where the block begins that is wrong.
    pub offset: u64,
    /// What is wrong.
    pub kind: RecordErrorKind,
}

/// What is wrong with a recording.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum RecordErrorKind {
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// It is something else.
    #[error("this is no pcapng file")]
    NotPcapng,
    /// It is of the older format.
    #[error("this is a pcap file, which cannot say which machine a frame is from; pcapng can")]
    Pcap,
    /// It is of a later format.
    #[error("version {0} of pcapng is not known")]
    Version(u16),
    /// It was cut, or is still being written.
    #[error("the file ends in the middle of a block")]
    Truncated,
    /// A block that makes no sense.
    #[error("a block {0}")]
    Block(&'static str),
    /// A block that is longer than any frame makes it.
    #[error("a block of {bytes} bytes, but at most {limit} are read")]
    TooLong {
        /// Its length.
        bytes: u32,
        /// The limit.
        limit: usize,
    },
    /// A packet that makes no sense.
    #[error("a packet that is longer than its block")]
    Packet,
    /// A packet from nowhere.
    #[error("a packet of an interface that was not described")]
    Stray,
    /// What was captured is not Ethernet.
    #[error("the link type is {0}, not Ethernet")]
    LinkType(u16),
    /// It is not known which machine is which.
    #[error("{} where two are needed, the primary's and the secondary's", interfaces(*.0))]
    Interfaces(usize),
    /// More frames than are held at a time.
    #[error("more than {0} bytes of frames that belong together")]
    TooMuch(usize),
    /// The source itself failed.
    #[error(transparent)]
    Source(io::Error),
}

fn interfaces(count: usize) -> String {
    if count == 1 { "one interface".into() } else { format!("{count} interfaces") }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.kind)
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            RecordErrorKind::Source(error) => Some(error),
            _ => None,
        }
    }
}
