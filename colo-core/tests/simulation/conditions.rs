//! What a seed decides before anything happens: how fast everybody is, what the guest is like, what clients want.

use crate::client::Wishes;
use crate::frames::Kind;
use crate::guest::Nature;
use crate::primary_net::NetConfig;
use crate::rng::Rng;
use colo_core::checkpoint::PrimaryConfig;
use colo_core::compare::CompareConfig;
use colo_core::peer::Mode;
use colo_core::save::SaveConfig;
use std::time::Duration;

/// Between two heartbeats: many turns of everybody.
pub const HEARTBEAT: Duration = Duration::from_millis(10);
/// Of all checkpoints but a rehearsal's first.
const ACK_TIMEOUT: Duration = Duration::from_millis(400);
/// Short against the interval between checkpoints, long against the way there and back.
const COMPARE_TIMEOUT: Duration = Duration::from_millis(5);

pub struct Conditions {
    pub nature: Nature,
    /// The secondary's guest may be on a slower host.
    pub secondary_nature: Nature,
    pub net: NetConfig,
    pub checkpoints: PrimaryConfig,
    pub save: SaveConfig,
    pub verify: bool,
    /// How long the secondary's machine takes to stand and run for the first time, if that is rehearsed.
    pub rehearsal: Duration,
    pub wishes: Wishes,
    /// So often fences fail first.
    pub fence_failures: u32,
    /// How often, in a thousand steps, somebody gets no turn for a while.
    pub stall_chance: usize,
}

impl Conditions {
    pub fn draw(mode: Mode, rng: &mut Rng) -> Conditions {
        let nature = Nature { scribble: rng.below(300), tick: [0, 0, 3, 20][rng.below(4)], idle: rng.below(500) };
        let rehearse = rng.per_mille(400);
        Conditions {
            nature,
            secondary_nature: Nature { idle: [nature.idle, 800][rng.below(2)], ..nature },
            net: NetConfig {
                mode,
                heartbeat: HEARTBEAT,
                rehearse,
                compare: CompareConfig { timeout: COMPARE_TIMEOUT, ..CompareConfig::default() },
                queue_bytes: [usize::MAX, usize::MAX, usize::MAX, 4000][rng.below(4)],
                lan_slowness: [0, 150, 700][rng.below(3)],
            },
            checkpoints: PrimaryConfig {
                interval: interval(mode, rng),
                ack_timeout: ACK_TIMEOUT,
                rehearsal_timeout: ACK_TIMEOUT * 2,
                rehearse,
                ..PrimaryConfig::new(mode)
            },
            save: SaveConfig {
                precopy_dirty_pages: rng.below(6) as u64,
                precopy_rounds: rng.within(1..4) as u32,
                ..SaveConfig::default()
            },
            verify: rng.per_mille(300),
            // Also longer than any other checkpoint may take.
            rehearsal: [Duration::ZERO, Duration::ZERO, HEARTBEAT * 2, ACK_TIMEOUT + HEARTBEAT][rng.below(4)],
            wishes: wishes(rng),
            fence_failures: [0, 0, 0, 3][rng.below(4)],
            stall_chance: [0, 2, 10][rng.below(3)],
        }
    }

    /// Whether the two guests must say the same, whatever their pace. Not with TCP: the rewriter may keep a connection's segments
    /// for a while, and other flows' come before them.
    pub fn are_deterministic(&self) -> bool {
        self.wishes.tcp_requests == 0
            && self.wishes.kinds == [Kind::Plain]
            && self.nature.tick == 0
            && self.net.queue_bytes == usize::MAX
    }
}

/// In lock-step often so long that clients get their answers by comparison, and by what that asks for, or not at all.
fn interval(mode: Mode, rng: &mut Rng) -> Duration {
    let ms = match mode {
        Mode::Colo => [30, 30, 100, 10_000][rng.below(4)],
        Mode::Remus => [2, 4, 4, 12][rng.below(4)],
    };
    Duration::from_millis(ms)
}

fn wishes(rng: &mut Rng) -> Wishes {
    let kinds = match rng.below(4) {
        0 => vec![Kind::Plain],
        1 => vec![Kind::Plain, Kind::Plain, Kind::Plain, Kind::Plain, Kind::Memory],
        2 => vec![Kind::Plain, Kind::Plain, Kind::Plain, Kind::Plain, Kind::Entropy, Kind::Moody],
        _ => vec![Kind::Plain, Kind::Memory, Kind::Entropy, Kind::Moody],
    };
    Wishes { asks: rng.within(20..70) as u32, tcp_requests: [0, 2, 6, 11][rng.below(4)], kinds }
}
