use super::ActionId;
use crate::disk::journal::Mark;
use std::collections::BTreeMap;

/// The end of the journal, and how much of it is durable.
pub(super) struct Log {
    pub(super) generation: u64,
    /// Another in each life of the journal.
    pub(super) life: u64,
    pub(super) number: u64,
    pub(super) end: Mark,
    /// Where the writes begin that are under way.
    pub(super) writes: BTreeMap<ActionId, u64>,
    pub(super) durable: u64,
    /// Up to here it is to be made durable.
    pub(super) wanted: u64,
    pub(super) sync: Option<u64>,
    pub(super) superblock: SuperblockState,
    /// Where a recovery would begin.
    pub(super) start: Start,
    /// Behind which place of the journal the secondary's guest serves, if it does.
    pub(super) serves_from: u64,
}

/// Where a recovery begins, and below which place of the journal it looks at nothing: epochs may have data that came long before them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    pub(super) mark: Mark,
    pub(super) data_from: u64,
}

/// How far a superblock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SuperblockState {
    Durable,
    /// With this beginning.
    Writing(Start),
    Written(Start),
    Syncing(Start),
}

impl Log {
    /// Up to where all of the journal has been written.
    pub(super) fn written(&self) -> u64 {
        self.writes.values().min().copied().unwrap_or(self.end.at)
    }
}
