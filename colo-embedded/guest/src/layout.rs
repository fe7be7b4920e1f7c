//! How memory is divided, by how much of it there is.

use crate::pool::PoolLimits;

/// The stack, at the top of memory, in bytes.
pub const STACK_BYTES: usize = 1 << 20;
/// From here on connections get buffers for throughput, in bytes of memory; below, buffers that fit.
const AMPLE_BYTES: usize = 64 << 20;
/// Connections of the HTTP service: 256 in use, and as many in some stage of being closed or opened as a burst makes.
const HTTP_CONNECTIONS: usize = 320;
/// Connections of the echo service.
const ECHO_CONNECTIONS: usize = 64;
/// The share of the heap for what has no budget of its own: tables, answers' heads, the allocator's rounding.
const GENERAL_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;

/// A division of memory.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The HTTP service's connections.
    pub http: PoolLimits,
    /// The echo service's.
    pub echo: PoolLimits,
    /// The key-value store's budget, in bytes.
    pub store_bytes: usize,
    /// The arena of `/dirty`, in bytes: whole pages.
    pub arena_bytes: usize,
}

impl Layout {
    /// Divides `free_bytes`, what lies between the program and the stack, of a machine with `ram_bytes`.
    /// `None` if that is too little for the connections.
    pub fn new(ram_bytes: usize, free_bytes: usize) -> Option<Self> {
        let (receive_bytes, send_bytes) = if ram_bytes < AMPLE_BYTES {
            (4 << 10, 8 << 10)
        } else {
            (16 << 10, 64 << 10)
        };
        let http = PoolLimits {
            connections: HTTP_CONNECTIONS,
            receive_bytes,
            send_bytes,
        };
        let echo = PoolLimits {
            connections: ECHO_CONNECTIONS,
            receive_bytes: 4 << 10,
            send_bytes: 4 << 10,
        };
        let fixed = http.memory_bytes() + echo.memory_bytes() + GENERAL_BYTES;
        let left = free_bytes.checked_sub(fixed)?;
        let arena_bytes = left / 2 / PAGE_BYTES * PAGE_BYTES;
        // A quarter less than is there: blocks of many sizes leave gaps.
        let store_bytes = (left - arena_bytes) / 4 * 3;
        Some(Self {
            http,
            echo,
            store_bytes,
            arena_bytes,
        })
    }

    /// For a machine with a disk: the store gets less, for there must be room for what is written and for lists of all entries.
    #[must_use]
    pub fn with_disk(self) -> Self {
        Self {
            store_bytes: self.store_bytes / 3 * 2,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_of_machine_has_room_for_all() {
        for ram_bytes in [16 << 20, 17 << 20, 63 << 20, 64 << 20, 1 << 30, 4 << 30] {
            // The program begins 4 MiB into memory, and takes less than 1 MiB.
            let free_bytes = ram_bytes - (5 << 20) - STACK_BYTES;
            let layout = Layout::new(ram_bytes, free_bytes).expect("room");
            let buffers = layout.http.memory_bytes() + layout.echo.memory_bytes();
            assert!(
                buffers + layout.store_bytes + layout.arena_bytes + GENERAL_BYTES <= free_bytes
            );
            assert!(
                layout.store_bytes >= 1 << 20 && layout.arena_bytes >= 1 << 20,
                "{ram_bytes}: {layout:?}"
            );
            assert!(layout.with_disk().store_bytes >= 700 << 10);
        }
        assert!(Layout::new(8 << 20, 2 << 20).is_none());
    }
}
