//! Disks that the primary writes to while the secondary's guest reads them.

use super::{Volume, VolumeError};
use crate::disk::{Content, EpochStore, SharedFile};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// So much is copied at a time.
const PIECE_BYTES: u64 = 1 << 20;

impl Volume {
    /// Reads what the secondary's guest sees. What was read from a disk itself counts only if its epoch was still there when it had been
    /// read: the primary changes nothing before it was heard of here what it changes.
    pub(super) fn read_shared(&self, disk: u8, offset: u64, bytes: &mut [u8]) -> Result<(), VolumeError> {
        loop {
            let epoch = self.epoch();
            let from_disk = self.read_found(disk, offset, bytes, EpochStore::read)?;
            let is_good = self.look(|store| {
                store.epoch() == epoch && from_disk.iter().all(|part| store.is_untouched(disk, part.clone()))
            });
            if is_good {
                return Ok(());
            }
        }
    }

    /// Has all that the guest has written, which serves, where another host reads it that has the same disks.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn publish(&self) -> Result<(), VolumeError> {
        let epoch = self.with(|store| {
            store.flush();
            Ok(store.epoch())
        })?;
        self.wait(|state| state.store.is_folded(epoch))?;
        self.shared.disks.iter().try_for_each(|disk| Ok(disk.publish()?))
    }
}

/// Writes that to a disk itself.
pub(super) fn put(journal: &File, disk: &SharedFile, range: &Range<u64>, content: &Content) -> io::Result<()> {
    match content {
        Content::Memory { bytes, .. } => disk.write_all_at(bytes, range.start),
        Content::Zeroes { may_unmap } => disk.make_zeroes(range.clone(), *may_unmap),
        Content::Stored { at } => {
            let mut buffer = vec![0; (range.end - range.start).min(PIECE_BYTES) as usize];
            for from in range.clone().step_by(PIECE_BYTES as usize) {
                let piece = &mut buffer[..(range.end - from).min(PIECE_BYTES) as usize];
                journal.read_exact_at(piece, at + (from - range.start))?;
                disk.write_all_at(piece, from)?;
            }
            Ok(())
        }
    }
}
