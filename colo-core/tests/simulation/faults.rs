//! What goes wrong, and when.

use crate::points::Mishap;
use crate::rng::Rng;
use crate::wires::Side;
use std::time::Duration;

/// Something that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process dies; its system closes the connections.
    Kill(Side),
    /// The host dies; nothing more is heard of it.
    PowerOff(Side),
    /// At a place within the engine's work, so many places from now.
    At(Side, u64, Mishap),
    /// A connection breaks: that of the state, that of the packets, or both.
    Cut { state: bool, net: bool },
    /// Nothing moves between the hosts, in these directions, for so long.
    Partition { to_primary: bool, to_secondary: bool, lasts: Duration },
    /// A process stands still for so long.
    Pause(Side, Duration),
    /// A bit is damaged on its way to that side.
    Flip { to: Side, state: bool },
    /// The operator ends protection.
    EndProtection,
}

/// A fault and its time, in steps of the world.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub step: u64,
    pub fault: Fault,
}

/// Longer than anybody's patience.
pub const FOR_EVER: Duration = Duration::from_secs(3600);

/// Draws what goes wrong with this seed: one thing mostly, sometimes none, sometimes two.
pub fn plan(rng: &mut Rng, steps: u64, heartbeat: Duration) -> Vec<Planned> {
    let count = [0, 1, 1, 1, 1, 1, 1, 2, 2, 2][rng.below(10)];
    // Also during the first copy, which is short.
    let last = if rng.per_mille(150) { 300 } else { steps as usize };
    let first = rng.below(last) as u64;
    let mut planned = Vec::new();
    for _ in 0..count {
        // The second soon after the first, or in the middle of its consequences, or much later.
        let after = [20, 400, 3000][rng.below(3)];
        let step = if planned.is_empty() { first } else { first + rng.below(after) as u64 };
        planned.push(Planned { step, fault: draw(rng, heartbeat) });
    }
    planned
}

fn draw(rng: &mut Rng, heartbeat: Duration) -> Fault {
    let side = *rng.pick(&Side::BOTH);
    match rng.below(20) {
        0..=2 => Fault::Kill(side),
        3..=4 => Fault::PowerOff(side),
        5..=9 => Fault::At(side, 1 + rng.below(80) as u64, Mishap::Death),
        10 => Fault::At(Side::Secondary, 1 + rng.below(80) as u64, Mishap::Failure),
        11..=13 => {
            let which = rng.below(3);
            Fault::Cut { state: which != 0, net: which != 1 }
        }
        14..=15 => {
            let which = rng.below(3);
            Fault::Partition { to_primary: which != 0, to_secondary: which != 1, lasts: duration(rng, heartbeat) }
        }
        16..=17 => Fault::Pause(side, duration(rng, heartbeat)),
        18 => Fault::Flip { to: side, state: rng.per_mille(500) },
        _ => Fault::EndProtection,
    }
}

/// Shorter than what makes a death, or longer, or for good.
fn duration(rng: &mut Rng, heartbeat: Duration) -> Duration {
    match rng.below(3) {
        0 => heartbeat * rng.within(1..5) as u32,
        1 => heartbeat * rng.within(5..12) as u32,
        _ => FOR_EVER,
    }
}
