//! How the machine's memory is divided: fixed at boot, so that no load leaves a part without memory that another has taken.
//!
//! ```
//! use colo_guest::plan::Plan;
//! let plan = Plan::for_memory(16 << 20, 10 << 20);
//! assert!(plan.connections >= 256);
//! ```

use crate::http::MAX_HEAD_BYTES;

/// From this much memory on, connections get large buffers.
const LARGE_BUFFERS_RAM_BYTES: u64 = 64 << 20;
/// From this much memory on, there are more connections.
const MORE_CONNECTIONS_RAM_BYTES: u64 = 256 << 20;
/// Beside its buffers and a request's head: the socket, the session, the head of an answer, and the allocator's part.
const CONNECTION_OVERHEAD_BYTES: u64 = 3 << 10;
/// For the interface, the tables, the UDP socket, and what the allocator loses.
const COMMON_BYTES: u64 = 512 << 10;

/// A division of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// TCP connections at once. 256 are promised; the rest is for those that are about to end.
    pub connections: usize,
    /// A connection's receive buffer.
    pub rx_bytes: usize,
    /// A connection's send buffer.
    pub tx_bytes: usize,
    /// For keys and values.
    pub store_bytes: usize,
    /// Pages to dirty.
    pub arena_pages: usize,
}

impl Plan {
    /// The plan for a machine with `ram_bytes` of memory, `heap_bytes` of them free.
    #[must_use]
    pub fn for_memory(ram_bytes: u64, heap_bytes: u64) -> Self {
        let (rx_bytes, tx_bytes) = if ram_bytes >= LARGE_BUFFERS_RAM_BYTES {
            (16 << 10, 64 << 10)
        } else {
            (4 << 10, 8 << 10)
        };
        let connections = if ram_bytes >= MORE_CONNECTIONS_RAM_BYTES {
            512
        } else {
            288
        };
        let each = (rx_bytes + tx_bytes + MAX_HEAD_BYTES) as u64 + CONNECTION_OVERHEAD_BYTES;
        let rest = heap_bytes.saturating_sub(connections as u64 * each + COMMON_BYTES);
        // A sixth is left over, for what the allocator loses between values of many sizes.
        Self {
            connections,
            rx_bytes,
            tx_bytes,
            store_bytes: (rest / 3) as usize,
            arena_pages: (rest / 2 / 4096) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_memory_is_enough() {
        for ram in [16_u64, 17, 32, 63, 64, 65, 255, 256, 1024, 4096].map(|mib| mib << 20) {
            // The image begins at 4 MiB and is allowed 1 MiB; the stack takes another.
            let heap = ram - (6 << 20);
            let plan = Plan::for_memory(ram, heap);
            let connections = plan.connections * (plan.rx_bytes + plan.tx_bytes + MAX_HEAD_BYTES);
            assert!(plan.connections >= 256);
            assert!(plan.store_bytes >= 1 << 20, "{plan:?}");
            assert!(plan.arena_pages >= 256, "{plan:?}");
            assert!(
                (connections + plan.store_bytes + plan.arena_pages * 4096) as u64 <= heap,
                "{plan:?}"
            );
        }
    }
}
