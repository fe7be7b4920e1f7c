use super::wire::{MAX_REQUEST_BYTES, can};

/// A disk as clients see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// By what name it is asked for.
    pub name: String,
    /// A line for people.
    pub description: String,
    /// Its size in bytes.
    pub size: u64,
    /// All requests are to be multiples of so many bytes: a power of two.
    pub minimum_block: u32,
    /// Requests of so many bytes are best: a power of two, no less than the minimum.
    pub preferred_block: u32,
    /// Nothing may be written.
    pub is_read_only: bool,
}

impl Export {
    /// A writable disk with blocks of one byte, which does best with pages.
    pub fn new(name: &str, size: u64) -> Export {
        let (name, description) = (name.to_owned(), String::new());
        Export { name, description, size, minimum_block: 1, preferred_block: 4096, is_read_only: false }
    }

    /// What can be asked of it; some of it only of clients that take structured replies.
    pub(super) fn flags(&self, is_structured: bool) -> u16 {
        let writes = if self.is_read_only { can::READ_ONLY } else { can::FUA | can::TRIM | can::WRITE_ZEROES };
        let structured = if is_structured { can::DF } else { 0 };
        // A flush is one for all connections: there is one disk behind them.
        can::HAS_FLAGS | can::FLUSH | can::MULTI_CONN | can::CACHE | writes | structured
    }

    /// The three block sizes: least, best, most.
    pub(super) fn block_sizes(&self) -> [u32; 3] {
        [self.minimum_block, self.preferred_block, MAX_REQUEST_BYTES]
    }
}
