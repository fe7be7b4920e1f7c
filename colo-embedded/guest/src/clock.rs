//! The machine's clock: the host's, corrected so that it runs on over suspensions and moves.

use crate::hypercall;
use colo_guest::abi::Shared;
use core::sync::atomic::{Ordering, fence};

/// The machine's time in ns. Never negative, and a little above zero at boot.
pub(crate) fn now_ns(shared: &Shared) -> u64 {
    loop {
        let before = shared.clock_version.load(Ordering::Acquire);
        let offset = shared.clock_offset_ns.load(Ordering::Relaxed);
        let host = hypercall::host_clock_ns();
        fence(Ordering::Acquire);
        // The same even number before and after: offset and host clock belong together, even if the machine was moved to
        // another host between the two.
        if before % 2 == 0 && shared.clock_version.load(Ordering::Relaxed) == before {
            return u64::try_from(host.wrapping_add(offset)).unwrap_or(0);
        }
        core::hint::spin_loop();
    }
}
