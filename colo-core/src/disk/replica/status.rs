use crate::disk::Pace;
use crate::ids::Epoch;
use std::time::Duration;

/// What a machine's disks are doing on this host, for whoever looks after them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskStatus {
    /// What they are doing.
    pub state: DiskState,
    /// The last epoch that counts: [`Epoch::NONE`] while there are none.
    pub epoch: Epoch,
    /// The last that is whole.
    pub whole_epoch: Epoch,
    /// Bytes of writes that wait for a checkpoint.
    pub waiting_bytes: u64,
    /// So many may wait before writers do.
    pub limit_bytes: u64,
    /// Bytes of the journal that are in use; 0 where there is none.
    pub journal_bytes: u64,
}

/// What disks are doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskState {
    /// Those that both hosts have, on the primary: it has lost the secondary, which may go on from its epoch. What their guest writes waits until it
    /// is known that it does not. With the reason.
    Held(Option<String>),
    /// Nothing but to serve their guest, on the primary, or to stay as they are, on the secondary: the machine is not protected. With the
    /// reason, if that was not on request.
    Alone(Option<String>),
    /// The first copy is under way, on the primary.
    Copying(CopyProgress),
    /// The first copy is under way, on the secondary.
    Receiving,
    /// Both hosts have the same, epoch by epoch.
    InStep,
    /// The secondary's, which has taken over.
    Serving,
}

/// How far the first copy is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CopyProgress {
    /// So many bytes are known to be the same.
    pub done_bytes: u64,
    /// Of so many.
    pub all_bytes: u64,
    /// So many were sent, since they differed.
    pub sent_bytes: u64,
    /// How long it has taken until now.
    pub took: Duration,
}

impl CopyProgress {
    /// How fast it was until now, and how long it will still take; unknown for the first second.
    pub fn pace(&self) -> Option<Pace> {
        Pace::of(self.done_bytes, self.took, self.all_bytes.saturating_sub(self.done_bytes))
    }
}
