use crate::compare::Counters;
use std::fmt;

/// What a server has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// What the comparator has done.
    pub counters: Counters,
    /// Times that the machines were found to differ.
    pub divergences: u64,
    /// Checkpoints that were taken.
    pub checkpoints: u64,
    /// Frames of the secondary that were left aside because a checkpoint had made them void before they were read.
    pub stale_frames: u64,
    /// Frames that `out` has taken.
    pub sent_frames: u64,
    /// Frames that wait for `out`.
    pub waiting_frames: u64,
    /// Frames of the primary that were lost because too much was held for too long.
    pub lost_primary_frames: u64,
    /// Frames that had both machines' word, and were lost because too much waited for `out`.
    pub lost_out_frames: u64,
    /// Connections that were closed for bad framing.
    pub bad_framings: u64,
}

impl Totals {
    /// Frames of the primary that wait for the secondary's.
    pub fn held_frames(&self) -> u64 {
        self.counters.primary_frames - self.counters.released_frames - self.counters.handed_back_frames
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters {
            primary_frames, secondary_frames, released_frames, handed_back_frames, forgotten_frames, ..
        } = self.counters;
        let held_frames = self.held_frames();
        let Totals { stale_frames, sent_frames, waiting_frames, lost_primary_frames, lost_out_frames, .. } = self;
        let Totals { divergences, checkpoints, bad_framings, .. } = self;
        write!(
            f,
            "primary: {primary_frames} frames, {released_frames} agreed, {handed_back_frames} let go without, \
             {held_frames} held, {lost_primary_frames} lost; secondary: {secondary_frames} frames, {forgotten_frames} forgotten, {stale_frames} too old; \
             out: {sent_frames} sent, {waiting_frames} waiting, {lost_out_frames} lost; {divergences} differences, {checkpoints} checkpoints, \
             {bad_framings} connections with bad framing"
        )
    }
}
