use crate::save::{CheckpointStats, Trigger};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a session's checkpoints have cost so far.
///
/// ```
/// use colo_core::checkpoint::Stats;
/// use colo_core::ids::Epoch;
/// use colo_core::save::{CheckpointStats, Trigger};
/// use std::time::Duration;
///
/// let mut stats = Stats::default();
/// let checkpoint = CheckpointStats { epoch: Epoch(1), trigger: Trigger::First, dirty_pages: 10, stream_bytes: 41_000 };
/// stats.checkpoint(&checkpoint, Some(Duration::from_millis(2)));
/// assert_eq!(stats.checkpoints(), 1);
/// assert_eq!(stats.by_trigger(Trigger::First), 1);
/// assert_eq!(stats.pauses().p99(), Some(Duration::from_millis(2)));
/// ```
#[derive(Clone, Default, Debug)]
pub struct Stats {
    triggers: BTreeMap<&'static str, u64>,
    pauses: PauseStats,
    stream_bytes: u64,
    dirty_pages: u64,
}

impl Stats {
    /// Books a checkpoint and its pause.
    pub fn checkpoint(&mut self, checkpoint: &CheckpointStats, pause: Option<Duration>) {
        *self.triggers.entry(checkpoint.trigger.name()).or_default() += 1;
        self.stream_bytes += checkpoint.stream_bytes;
        self.dirty_pages += checkpoint.dirty_pages;
        if let Some(pause) = pause {
            self.pauses.add(pause);
        }
    }

    /// Checkpoints so far.
    pub fn checkpoints(&self) -> u64 {
        self.triggers.values().sum()
    }

    /// Checkpoints so far for that reason.
    pub fn by_trigger(&self, trigger: Trigger) -> u64 {
        self.triggers.get(trigger.name()).copied().unwrap_or(0)
    }

    /// How long the guest stood still.
    pub fn pauses(&self) -> &PauseStats {
        &self.pauses
    }

    /// Bytes of the stream, checkpoints only.
    pub fn stream_bytes(&self) -> u64 {
        self.stream_bytes
    }

    /// Dirty pages of all checkpoints.
    pub fn dirty_pages(&self) -> u64 {
        self.dirty_pages
    }
}

/// The last [`PauseStats::KEPT`] pauses.
#[derive(Clone, Default, Debug)]
pub struct PauseStats {
    pauses: std::collections::VecDeque<Duration>,
}

impl PauseStats {
    /// How many are kept: a percentile of more says little about now.
    pub const KEPT: usize = 4096;

    /// Adds one.
    pub fn add(&mut self, pause: Duration) {
        if self.pauses.len() == Self::KEPT {
            self.pauses.pop_front();
        }
        self.pauses.push_back(pause);
    }

    /// Half of the pauses were no longer than this.
    pub fn p50(&self) -> Option<Duration> {
        self.quantile(50)
    }

    /// All but one in a hundred were no longer than this.
    pub fn p99(&self) -> Option<Duration> {
        self.quantile(99)
    }

    /// The smallest pause that `percent` of the pauses do not exceed.
    fn quantile(&self, percent: usize) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.pauses.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }
}
