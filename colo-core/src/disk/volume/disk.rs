use super::{Volume, VolumeError};
use crate::disk::{Backend, Change, DiskError};
use std::ops::Range;
use std::sync::Arc;

/// One of a volume's disks, as the secondary's guest has it.
pub struct VolumeDisk {
    volume: Arc<Volume>,
    disk: u8,
}

impl VolumeDisk {
    /// Disk number `disk` of the volume.
    pub fn new(volume: Arc<Volume>, disk: u8) -> VolumeDisk {
        VolumeDisk { volume, disk }
    }

    fn put(&self, range: Range<u64>, change: Change) -> Result<(), DiskError> {
        self.volume.write_guest(self.disk, range, change).map_err(|error| told(&error))
    }
}

impl Backend for VolumeDisk {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.volume.read(self.disk, offset, bytes).map_err(|error| told(&error))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.put(offset..offset + bytes.len() as u64, bytes.to_vec().into())
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.put(offset..offset + length, Change::Zeroes { may_unmap })
    }

    fn publish(&self) -> Result<(), DiskError> {
        self.volume.publish().map_err(|error| told(&error))
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.volume.flush_guest().map_err(|error| told(&error))
    }
}

fn told(error: &VolumeError) -> DiskError {
    tracing::warn!("{error}");
    DiskError::Io
}
