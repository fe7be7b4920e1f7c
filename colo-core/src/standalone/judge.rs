//! What becomes of frames, without any socket.

use crate::compare::{Comparator, CompareConfig, Counters, Divergence};
use crate::ids::Epoch;
use crate::net::Frame;
use std::time::Instant;

/// A comparator, and its epochs.
#[derive(Debug)]
pub(super) struct Judge {
    comparator: Comparator,
    /// Whether somebody takes checkpoints.
    has_checkpoints: bool,
    /// The number of the next frame of the secondary.
    next_number: u64,
}

impl Judge {
    pub(super) fn new(config: CompareConfig, has_checkpoints: bool, now: Instant) -> Self {
        let mut comparator = Comparator::new(config);
        comparator.begin_epoch(Epoch::FIRST);
        comparator.secondary_running(now);
        Judge { comparator, has_checkpoints, next_number: 0 }
    }

    /// Takes a frame of the primary; to be called unless [`Judge::is_full`].
    pub(super) fn handle_primary(&mut self, frame: Frame, now: Instant) {
        self.comparator.handle_primary(0, frame, now);
    }

    pub(super) fn handle_secondary(&mut self, frame: Frame, now: Instant) {
        self.comparator.handle_secondary(0, self.next_number, frame, now);
        self.next_number += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.comparator.is_full()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.comparator.poll_timeout()
    }

    /// Gives what may leave, in order, and what the machines were found to differ in: then a checkpoint is needed. Where nobody takes
    /// any, all that is held leaves instead, for nothing better will ever come.
    pub(super) fn settle(&mut self, now: Instant, mut leave: impl FnMut(Frame)) -> Option<Divergence> {
        self.comparator.handle_timeout(now);
        while let Some(release) = self.comparator.poll_release() {
            leave(release.frame);
        }
        // Nobody keeps the secondary's frames for a failover here.
        while self.comparator.poll_consumed().is_some() {}
        let divergence = self.comparator.poll_divergence()?;
        if !self.has_checkpoints {
            self.begin_epoch(now, leave);
        }
        Some(divergence)
    }

    /// A checkpoint was taken: the machines are equal, and all that the primary had said may leave.
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

    fn judge(has_checkpoints: bool) -> (Judge, Instant) {
        let now = Instant::now();
        (Judge::new(CompareConfig::default(), has_checkpoints, now), now)
    }

    fn settle(judge: &mut Judge, now: Instant) -> (Vec<Frame>, bool) {
        let mut left = Vec::new();
        let has_diverged = judge.settle(now, |frame| left.push(frame)).is_some();
        (left, has_diverged)
    }

    #[test]
    fn what_both_said_leaves_and_what_differs_waits_for_a_checkpoint() {
        let (mut judge, now) = judge(true);
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

    #[test]
    fn where_nobody_takes_checkpoints_all_leaves_at_a_difference() {
        let (mut judge, now) = judge(false);
        let (same, one, other) = (udp(1, 2, b"same"), udp(1, 2, b"one"), udp(1, 2, b"other"));
        for frame in [&same, &one] {
            judge.handle_primary(frame.clone(), now);
        }
        judge.handle_secondary(same.clone(), now);
        judge.handle_secondary(other, now);
        assert_eq!(settle(&mut judge, now), (vec![same.clone(), one], true));
        judge.handle_primary(same.clone(), now);
        let late = judge.poll_timeout().unwrap();
        assert_eq!(settle(&mut judge, late), (vec![same], true));
        assert_eq!(judge.poll_timeout(), None);
    }
}
