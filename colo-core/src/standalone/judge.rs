//! What becomes of frames, without any socket.

use crate::compare::{Comparator, CompareConfig, Counters, Divergence};
use crate::ids::Epoch;
use crate::net::Frame;
use std::time::Instant;

/// A comparator, and its epochs.
#[derive(Debug)]
pub(super) struct Judge {
    comparator: Comparator,
    /// The number of the next frame of the secondary.
    next_number: u64,
}

impl Judge {
    pub(super) fn new(config: CompareConfig, now: Instant) -> Self {
        let mut comparator = Comparator::new(config);
        comparator.begin_epoch(Epoch::FIRST);
        comparator.secondary_running(now);
        Judge { comparator, next_number: 0 }
    }

    /// Takes a frame of the primary; not to be called when [`Judge::is_primary_full`].
    pub(super) fn handle_primary(&mut self, frame: Frame, now: Instant) {
        self.comparator.handle_primary(0, frame, now);
    }

    /// Takes a frame of the secondary; when [`Judge::is_secondary_full`] it may be forgotten.
    pub(super) fn handle_secondary(&mut self, frame: Frame, now: Instant) {
        self.comparator.handle_secondary(0, self.next_number, frame, now);
        self.next_number += 1;
    }

    pub(super) fn is_primary_full(&self) -> bool {
        self.comparator.is_full()
    }

    pub(super) fn is_secondary_full(&self) -> bool {
        self.comparator.is_secondary_full()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.comparator.poll_timeout()
    }

    /// Gives what may leave, in order, and what the machines were found to differ in: then a checkpoint is needed.
    pub(super) fn settle(&mut self, now: Instant, mut leave: impl FnMut(Frame)) -> Option<Divergence> {
        self.comparator.handle_timeout(now);
        while let Some(release) = self.comparator.poll_release() {
            leave(release.frame);
        }
        // Nobody keeps the secondary's frames for a failover here.
        while self.comparator.poll_consumed().is_some() {}
        self.comparator.poll_divergence()
    }

    /// A checkpoint was taken: the machines are equal, and all that the primary had said may leave. Or nobody takes any, and nothing
    /// better will ever come.
    pub(super) fn begin_epoch(&mut self, now: Instant, mut leave: impl FnMut(Frame)) {
        for release in self.comparator.begin_epoch(self.comparator.epoch().next()) {
            leave(release.frame);
        }
        self.comparator.secondary_running(now);
        self.next_number = 0;
    }

    pub(super) fn counters(&self) -> Counters {
        self.comparator.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::udp;

    fn settle(judge: &mut Judge, now: Instant) -> (Vec<Frame>, bool) {
        let mut left = Vec::new();
        let has_diverged = judge.settle(now, |frame| left.push(frame)).is_some();
        (left, has_diverged)
    }

    #[test]
    fn what_both_said_leaves_and_what_differs_waits_for_a_checkpoint() {
        let now = Instant::now();
        let mut judge = Judge::new(CompareConfig::default(), now);
        let (same, one, other) = (udp(1, 2, b"same"), udp(1, 2, b"one"), udp(1, 2, b"other"));
        judge.handle_primary(same.clone(), now);
        judge.handle_primary(one.clone(), now);
        judge.handle_secondary(same.clone(), now);
        assert_eq!(settle(&mut judge, now), (vec![same.clone()], false));
        judge.handle_secondary(other, now);
        assert_eq!(settle(&mut judge, now), (vec![], true));
        judge.handle_primary(same.clone(), now);
        assert_eq!(settle(&mut judge, now), (vec![], false), "it is asked for once");

        let mut left = Vec::new();
        judge.begin_epoch(now, |frame| left.push(frame));
        assert_eq!(left, [one, same.clone()]);
        judge.handle_primary(same.clone(), now);
        judge.handle_secondary(same.clone(), now);
        assert_eq!(settle(&mut judge, now), (vec![same], false));
    }
}
