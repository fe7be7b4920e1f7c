use super::GuestDisk;
use crate::disk::{DiskError, SecondaryDisks};
use crate::ids::Epoch;
use crate::peer::StateChannel;
use rustix::ioctl::{NoArg, Opcode, ioctl};
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// `BLKFLSBUF` of `linux/fs.h`.
const BLKFLSBUF: Opcode = 0x1261;

/// A device that takes longer hangs, and that ends the session.
const FLUSH_WITHIN: Duration = Duration::from_secs(10);

/// A secondary's disks, of which this host's page cache forgets what it has whenever they become others: at each epoch that counts, and
/// when they take over. A device model that has read from them before would see what was there then, else, and so would whoever
/// looked at their partitions.
pub struct Uncached<D> {
    disks: D,
    cache: Flusher,
}

impl<D: SecondaryDisks> Uncached<D> {
    /// # Errors
    /// When a device cannot be opened.
    pub fn new(disks: D, devices: &[GuestDisk]) -> io::Result<Uncached<D>> {
        let devices: Vec<File> = devices.iter().map(|disk| File::open(&disk.device)).collect::<io::Result<_>>()?;
        Ok(Uncached { disks, cache: Flusher::start(move || forget_cached(&devices))? })
    }
}

/// Writes what is changed there, and forgets the rest.
fn forget_cached(devices: &[File]) -> Result<(), DiskError> {
    for device in devices {
        // SAFETY: this request takes no argument, and touches no memory of this process.
        let flushed = unsafe { ioctl(device, NoArg::<BLKFLSBUF>::new()) };
        flushed.map_err(|errno| {
            tracing::error!("what is cached of {device:?} cannot be given up: {errno}");
            DiskError::Io
        })?;
    }
    Ok(())
}

/// A thread that does that, so that nobody else waits for ever where a device hangs. It ends when it is let go of and the device answers.
struct Flusher {
    ask: Sender<()>,
    done: Receiver<Result<(), DiskError>>,
    hangs: bool,
}

impl Flusher {
    fn start(flush: impl Fn() -> Result<(), DiskError> + Send + 'static) -> io::Result<Flusher> {
        let ((ask, asked), (tell, done)) = (channel(), channel());
        std::thread::Builder::new()
            .name("disk cache".into())
            .spawn(move || while asked.recv().is_ok() && tell.send(flush()).is_ok() {})?;
        Ok(Flusher { ask, done, hangs: false })
    }

    /// # Errors
    /// Also each time after it has taken too long: nobody knows any more what is cached.
    fn flush(&mut self, within: Duration) -> Result<(), DiskError> {
        if self.hangs || self.ask.send(()).is_err() {
            return Err(DiskError::Io);
        }
        self.done.recv_timeout(within).unwrap_or_else(|_| {
            tracing::error!("a disk of the guest has not written within {} s what is cached of it", within.as_secs());
            self.hangs = true;
            Err(DiskError::Io)
        })
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
        if self.cache.flush(FLUSH_WITHIN).is_err() {
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
        self.cache.flush(FLUSH_WITHIN)
    }

    fn needs_fence(&self) -> bool {
        self.disks.needs_fence()
    }

    fn fenced(&mut self) {
        self.disks.fenced();
    }

    fn fail_over(&mut self) -> Result<(), DiskError> {
        self.disks.fail_over()?;
        self.cache.flush(FLUSH_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_device_that_hangs() {
        let (go_on, goes_on) = channel::<()>();
        let mut cache = Flusher::start(move || goes_on.recv().map_err(|_| DiskError::Io)).unwrap();
        go_on.send(()).unwrap();
        assert_eq!(cache.flush(FLUSH_WITHIN), Ok(()));
        assert_eq!(cache.flush(Duration::ZERO), Err(DiskError::Io));
        // What it says later is no answer to what comes then.
        go_on.send(()).unwrap();
        assert_eq!(cache.flush(FLUSH_WITHIN), Err(DiskError::Io));
    }
}
