use super::{Shared, told};
use crate::disk::target::Target;
use crate::disk::{Backend, DiskError, VolumeDisk};
use std::sync::{Arc, PoisonError};

/// One of a [`Replica`](super::Replica)'s disks, as the guest has it.
#[derive(Clone)]
pub struct ReplicaDisk {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: u8,
}

impl ReplicaDisk {
    /// Does something with the disk, while nobody has frozen it.
    pub(super) fn with<T>(&self, work: impl FnOnce(Seen<'_>) -> Result<T, DiskError>) -> Result<T, DiskError> {
        let mut state = self.shared.lock();
        while state.is_frozen {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let volume = state.phase.volume().cloned();
        let has_guest = state.has_session || volume.as_ref().is_some_and(|volume| volume.serves());
        state.active += 1;
        drop(state);
        let _active = Active(&self.shared);
        work(match volume {
            Some(volume) if has_guest => Seen::Epochs(VolumeDisk::new(volume, self.disk)),
            Some(volume) => Seen::Left(VolumeDisk::new(volume, self.disk)),
            None => Seen::Direct(&self.shared.direct[usize::from(self.disk)]),
        })
    }
}

/// A disk as it is seen now.
pub(super) enum Seen<'a> {
    Epochs(VolumeDisk),
    /// At the epoch at which the last session has left it: what a guest wrote would be forgotten by the next, so it is told.
    Left(VolumeDisk),
    /// Itself, which is the primary's alone: it is read, but not written.
    Direct(&'a Target),
}

impl Seen<'_> {
    fn for_writes(self) -> Result<VolumeDisk, DiskError> {
        match self {
            Seen::Epochs(disk) => Ok(disk),
            Seen::Left(_) | Seen::Direct(_) => Err(DiskError::NotPermitted),
        }
    }
}

impl Backend for ReplicaDisk {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.with(|seen| match seen {
            Seen::Epochs(disk) | Seen::Left(disk) => disk.read(offset, bytes),
            Seen::Direct(file) => file.read_exact_at(bytes, offset).map_err(|error| told(&error)),
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.with(|seen| seen.for_writes()?.write(offset, bytes))
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.with(|seen| seen.for_writes()?.write_zeroes(offset, length, may_unmap))
    }

    fn publish(&self) -> Result<(), DiskError> {
        self.with(|seen| match seen {
            Seen::Epochs(disk) | Seen::Left(disk) => disk.publish(),
            // Nobody has written anything.
            Seen::Direct(_) => Ok(()),
        })
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.with(|seen| match seen {
            Seen::Epochs(disk) | Seen::Left(disk) => disk.flush(),
            // Nobody has written anything.
            Seen::Direct(_) => Ok(()),
        })
    }
}

/// A request that is under way.
struct Active<'a>(&'a Shared);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.lock().active -= 1;
        self.0.changed.notify_all();
    }
}
