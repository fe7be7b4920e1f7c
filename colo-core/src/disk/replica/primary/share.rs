//! How a session with disks that both hosts have begins: nothing is copied, but both sides say that they have the same.

use super::before::{Before, PROVEN_BYTES, Written};
use super::copy::{Copy, Stop};
use crate::disk::replica::{DiskEvent, hash_of};
use crate::peer::Message;

/// The minor version of the protocol from which on disks may be shared.
const SHARES_SINCE: u8 = 2;

impl Copy {
    /// Until it is known that the secondary has the same disks, as far as that can be found out.
    pub(super) fn share(&mut self) -> Result<(), Stop> {
        let shared = self.shared.clone();
        let Some(before) = shared.before.as_ref() else { return Ok(()) };
        // Any release answers this, and so tells which it is.
        self.flush()?;
        if self.receiver.peer_minor().is_none_or(|minor| minor < SHARES_SINCE) {
            let why = "the other host runs an older release of colo, which cannot share disks: run the same on both";
            return Err(Stop::Failed(why.into()));
        }
        let sizes = before.sizes().to_vec();
        shared.send(|link| link.send(&Message::DiskShared { sizes })).ok_or(Stop::Detached)?;
        while self.shares_there.is_none() {
            self.hear_one()?;
        }
        // Who follows from here on goes back to no epoch of before. (Whatever waits for that has its part of the disk.)
        before.alone();
        for (disk, size) in (0..).zip(before.sizes()) {
            let last = size.saturating_sub(PROVEN_BYTES as u64);
            for offset in [0, last / 2, last] {
                self.compare_part(disk, offset, (*size - offset).min(PROVEN_BYTES as u64))?;
            }
        }
        self.course.in_step(self.receiver.peer_minor());
        (self.on_event)(DiskEvent::InStep);
        Ok(())
    }

    /// Nobody writes to that part, until the secondary has read it.
    fn compare_part(&mut self, disk: u8, offset: u64, length: u64) -> Result<(), Stop> {
        let shared = self.shared.clone();
        let _range = shared.ranges.enter(disk, offset..offset + length);
        let mut part = vec![0; length as usize];
        let backend = &shared.disks[usize::from(disk)].0;
        let read = backend.publish().and_then(|()| backend.read(offset, &mut part));
        read.map_err(|error| Stop::Failed(format!("disk {disk} cannot be read: {error}")))?;
        let (length, seed) = (length as u32, self.seed);
        let written = Written { disk, offset, length, seed, hash: hash_of(&part, seed) };
        shared.send(|link| link.same(&written)).ok_or(Stop::Detached)?;
        self.flush()
    }

    /// Until the secondary has taken all that was said.
    fn flush(&mut self) -> Result<(), Stop> {
        let asked = self.shared.send(|link| link.ask_flush(false)).ok_or(Stop::Detached)?;
        while !asked.is_done() {
            self.hear_one()?;
        }
        Ok(())
    }

    /// The secondary says that its disks are shared, too.
    pub(super) fn hear_shared(&mut self, theirs: Vec<u64>) -> Result<(), Stop> {
        let ours = self.shared.before.as_ref().map(Before::sizes);
        if self.shares_there.is_some() || ours != Some(&theirs) {
            return Err(Stop::Failed("the secondary's disks say what nobody asked".into()));
        }
        self.shares_there = Some(theirs);
        Ok(())
    }
}
