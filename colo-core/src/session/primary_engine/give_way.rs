//! A disk of the primary's has failed: the other side takes over, and the guest does not hear of it.

use super::{Checkpoints, End, Engine};
use crate::disk::DiskEvent;
use std::cell::RefCell;

impl Engine<'_> {
    /// What becomes of the machine: it ends here only when the other side can go on with it. Else the guest hears of it, as it would without
    /// protection.
    pub(super) fn give_way(&mut self, why: String, primary: &RefCell<Checkpoints>) -> End {
        // A secondary that has just gone, unheard of, could not take over, and the machine would be lost with both.
        let is_there = match self.net.await_peer() {
            Ok(()) => self.hear_net(),
            Err(error) => Err(End::Net(error.to_string())),
        };
        match is_there {
            Ok(true) => {}
            Ok(false) => return End::Cannot(why),
            Err(end) => return end,
        }
        // Its last words, and what it has acknowledged.
        while let Ok(message) = self.messages.try_recv() {
            if let Err(end) = self.message(Some(message), primary) {
                return end;
            }
        }
        if primary.borrow().is_protected() { End::Disk(why) } else { End::Cannot(why) }
    }

    /// What to make of a disk that has failed, if one has that was not heard of yet.
    pub(super) fn failed_disk(&mut self, primary: &RefCell<Checkpoints>) -> Option<End> {
        let failed = |event| if let DiskEvent::Failed(why) = event { Some(why) } else { None };
        let why = self.disk_events.try_iter().find_map(failed)?;
        Some(self.give_way(why, primary))
    }

    /// The guest stands still from here on.
    pub(super) fn keep_from_hearing(&mut self) {
        if let Err(error) = self.domain.hold() {
            // It is about to be destroyed, and what it says until then does not leave.
            tracing::warn!("the guest cannot be stopped before its disk's failure is told: {error}");
        }
    }
}
