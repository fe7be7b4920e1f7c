//! The machine's clock.

use core::sync::atomic::{Ordering, fence};

use crate::{hypercall, shared};

/// The guest's time in ns: the host's clock, corrected so that it goes on across suspensions and moves to other hosts.
///
/// Correction and clock must belong together: if the monitor changed the correction in between (the machine was suspended,
/// and may be on another host), both are read again.
pub(crate) fn now_ns() -> u64 {
    let shared = shared();
    loop {
        let version = shared.clock_version.load(Ordering::Acquire);
        let offset_ns = shared.clock_offset_ns.load(Ordering::Relaxed);
        let host_ns = hypercall::clock_monotonic_ns();
        fence(Ordering::Acquire);
        if version % 2 == 0 && version == shared.clock_version.load(Ordering::Relaxed) {
            return host_ns.wrapping_add_signed(offset_ns);
        }
    }
}
