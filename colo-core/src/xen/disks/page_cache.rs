use super::GuestDisk;
use crate::disk::{DiskError, SecondaryDisks};
use crate::ids::Epoch;
use crate::peer::StateChannel;
use rustix::ioctl::{NoArg, Opcode, ioctl};
use std::fs::File;
use std::io;
use std::time::Instant;

/// `BLKFLSBUF` of `linux/fs.h`.
const BLKFLSBUF: Opcode = 0x1261;

/// A secondary's disks, of which this host's page cache forgets what it has whenever they become others: at each epoch that counts, and
/// when they take over. A device model that has read from them before would see what was there then, else, and so would whoever
/// looked at their partitions.
pub struct Uncached<D> {
    disks: D,
    devices: Vec<File>,
}

impl<D: SecondaryDisks> Uncached<D> {
    /// # Errors
    /// When a device cannot be opened.
    pub fn new(disks: D, devices: &[GuestDisk]) -> io::Result<Uncached<D>> {
        let devices = devices.iter().map(|disk| File::open(&disk.device)).collect::<io::Result<_>>()?;
        Ok(Uncached { disks, devices })
    }

    /// Writes what is changed there, and forgets the rest.
    fn forget_cached(&self) -> Result<(), DiskError> {
        for device in &self.devices {
            // SAFETY: this request takes no argument, and touches no memory of this process.
            let flushed = unsafe { ioctl(device, NoArg::<BLKFLSBUF>::new()) };
            flushed.map_err(|errno| {
                tracing::error!("what is cached of {device:?} cannot be given up: {errno}");
                DiskError::Io
            })?;
        }
        Ok(())
    }
}

impl<D: SecondaryDisks> SecondaryDisks for Uncached<D> {
    fn attach(&mut self, channel: StateChannel) -> Result<(), DiskError> {
        self.disks.attach(channel)
    }

    fn wait_barrier(&mut self, epoch: Epoch, deadline: Instant) -> bool {
        self.disks.wait_barrier(epoch, deadline)
    }

    fn release(&mut self) {
        self.disks.release();
    }

    fn freeze(&mut self) {
        // What the guest has written and the device model not yet: it must not come after the epoch.
        if self.forget_cached().is_err() {
            tracing::warn!("the guest's last writes may be lost");
        }
        self.disks.freeze();
    }

    fn thaw(&mut self) {
        self.disks.thaw();
    }

    fn wants_checkpoint(&self) -> bool {
        self.disks.wants_checkpoint()
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), DiskError> {
        self.disks.commit(epoch)?;
        self.forget_cached()
    }

    fn needs_fence(&self) -> bool {
        self.disks.needs_fence()
    }

    fn fenced(&mut self) {
        self.disks.fenced();
    }

    fn fail_over(&mut self) -> Result<(), DiskError> {
        self.disks.fail_over()?;
        self.forget_cached()
    }
}
