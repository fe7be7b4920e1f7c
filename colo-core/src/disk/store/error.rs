use crate::ids::Epoch;
use std::io;
use std::ops::Range;

/// Why something cannot be done. Nothing has changed.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such part of a disk.
    #[error("bytes {} to {} of disk {disk}, which has {size}", range.start, range.end)]
    OutOfRange {
        /// Which disk.
        disk: u8,
        /// What was asked for.
        range: Range<u64>,
        /// How large it is: 0 if there is none of that number.
        size: u64,
    },
    /// Data of another length than their range.
    #[error("{got} bytes for {expected}")]
    BadLength {
        /// The range's length.
        expected: u64,
        /// How many bytes there are.
        got: u64,
    },
    /// An epoch out of order.
    #[error("{what} {epoch} after {last}")]
    OutOfOrder {
        /// What was asked for.
        what: &'static str,
        /// Of which epoch.
        epoch: Epoch,
        /// The last one.
        last: Epoch,
    },
    /// A record of data that are not in the journal.
    #[error("the journal has nothing at {0}")]
    NotThere(u64),
    /// It serves already, or does not yet.
    #[error("not {0}")]
    NotNow(&'static str),
}

/// Why a journal cannot be taken up.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum RecoverError {
    /// It cannot be read.
    #[error("the journal: {0}")]
    Journal(#[from] io::Error),
    /// It is none, or its beginning is lost.
    #[error("this is no journal of disks, or its beginning is damaged")]
    NoJournal,
    /// It was being begun when the power went: there is nothing in it, and there has been nothing.
    #[error("this journal was never begun")]
    NotBegun,
    /// It is of other disks.
    #[error("the journal is of disks of {theirs:?} bytes, and these have {ours:?}")]
    OtherDisks {
        /// What the journal says.
        theirs: Vec<u64>,
        /// What they are.
        ours: Vec<u64>,
    },
    /// It is of disks that both hosts have, and these are not, or the other way round.
    #[error("the journal is of {}", if *is_shared {
        "disks that are shared with another host, and these are not"
    } else {
        "disks of this host alone, and these are shared with another"
    })]
    OtherKind {
        /// Whether those that it is of are shared.
        is_shared: bool,
    },
    /// A record that is whole and makes no sense.
    #[error("the journal has a record that cannot be: {0}")]
    BadRecord(String),
}
