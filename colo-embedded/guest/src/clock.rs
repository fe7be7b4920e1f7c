//! The guest's time: continuous wherever the machine is.

use crate::hypercall::host_clock_ns;
use colo_guest::abi::Shared;
use core::sync::atomic::Ordering::{Acquire, SeqCst};

/// Nanoseconds since boot. Read again when the monitor has changed the correction meanwhile: the machine may have been moved
/// between the two readings.
pub(crate) fn now_ns(shared: &Shared) -> u64 {
    loop {
        let version = shared.clock_version.load(Acquire);
        let offset = shared.clock_offset_ns.load(Acquire);
        let host = host_clock_ns();
        if version % 2 == 0 && shared.clock_version.load(SeqCst) == version {
            return host.wrapping_add(offset).max(0) as u64;
        }
    }
}
