use super::extents::Cut;
use super::summed::Summed;

/// What a part of a disk is in a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// These bytes, in memory. `at` is where in the journal they stand too, or will.
    Memory {
        /// The bytes.
        bytes: Summed,
        /// Their place in the journal, in bytes from its beginning.
        at: Option<u64>,
    },
    /// Bytes that are in the journal only.
    Stored {
        /// Their place, in bytes from its beginning.
        at: u64,
    },
    /// Nothing but zeroes.
    Zeroes {
        /// The disk need not keep them as such: it may give the space back.
        may_unmap: bool,
    },
}

/// What becomes of a part of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// These bytes are written there.
    Data(Summed),
    /// It is zeroes from here on.
    Zeroes {
        /// It was discarded: the disk may give the space back.
        may_unmap: bool,
    },
}

impl From<Change> for Content {
    fn from(change: Change) -> Self {
        match change {
            Change::Data(bytes) => Content::Memory { bytes, at: None },
            Change::Zeroes { may_unmap } => Content::Zeroes { may_unmap },
        }
    }
}

impl From<Vec<u8>> for Change {
    fn from(bytes: Vec<u8>) -> Self {
        Change::Data(bytes.into())
    }
}

impl Cut for Content {
    fn cut(&self, from: u64, bytes: u64) -> Self {
        match self {
            Content::Memory { bytes: all, at } => {
                let first = from as usize;
                Content::Memory { bytes: all.slice(first..first + bytes as usize), at: at.map(|at| at + from) }
            }
            Content::Stored { at } => Content::Stored { at: at + from },
            zeroes @ Content::Zeroes { .. } => zeroes.clone(),
        }
    }

    fn memory_bytes(&self, bytes: u64) -> u64 {
        match self {
            Content::Memory { .. } => bytes,
            Content::Stored { .. } | Content::Zeroes { .. } => 0,
        }
    }
}
