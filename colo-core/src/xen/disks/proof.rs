use super::{DisksError, GuestDisk};
use crate::disk::control::{ControlError, Witness};
use crate::random;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How long a device may take for a read.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// So many reads may go astray: the kernel puts neighbouring requests together.
const MAX_READS: u64 = 8;
/// A read's length, and what its place is a multiple of: the largest block that there is.
const BLOCK_BYTES: usize = 4096;

/// Makes sure that these devices are the disks of that server, in this order: what is read from each must be seen there. A disk of the same
/// size that another server has would be taken for the guest's, else, and what the guest writes would be lost at a failover.
///
/// # Errors
/// [`DisksError::Elsewhere`], [`DisksError::Device`], [`DisksError::Server`].
pub(super) fn prove(disks: &[GuestDisk], server: &dyn Witness) -> Result<(), DisksError> {
    let silent = |error: ControlError| DisksError::Server(error.to_string());
    for (number, GuestDisk { vdev, device, size_bytes }) in (0..).zip(disks) {
        let blocks = (size_bytes / BLOCK_BYTES as u64).max(1);
        let mut was_read = false;
        for _ in 0..MAX_READS {
            let offset = random::number() % blocks * BLOCK_BYTES as u64;
            server.expect_read(number, offset).map_err(silent)?;
            let read = read_direct(device, offset, (*size_bytes).min(BLOCK_BYTES as u64) as usize);
            read.map_err(|source| DisksError::Device { device: device.clone(), why: source.to_string() })?;
            was_read = server.was_read().map_err(silent)?;
            if was_read {
                break;
            }
        }
        if !was_read {
            return Err(DisksError::Elsewhere { vdev: vdev.clone(), device: device.clone() });
        }
    }
    Ok(())
}

/// Reads past the page cache. A device whose server hangs may not answer at all: then this does not wait for it for ever.
fn read_direct(device: &Path, offset: u64, length: usize) -> io::Result<()> {
    let (sender, receiver) = channel();
    let device = device.to_owned();
    std::thread::Builder::new().name("disk proof".into()).spawn(move || {
        let read = || {
            let file = rustix::fs::open(&device, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?;
            // Its memory must be where a block could be.
            let mut memory = vec![0; length + BLOCK_BYTES];
            let start = memory.as_ptr().align_offset(BLOCK_BYTES);
            std::fs::File::from(file).read_exact_at(&mut memory[start..start + length], offset)
        };
        // Nobody waits for it any more when it was too slow.
        let _ = sender.send(read());
    })?;
    match receiver.recv_timeout(READ_LIMIT) {
        Ok(read) => read,
        Err(RecvTimeoutError::Timeout) => {
            Err(io::Error::other(format!("it does not answer for {} s", READ_LIMIT.as_secs())))
        }
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("its reader panicked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// A server of that file, or of another one.
    #[derive(Default)]
    struct Server {
        is_its: Cell<bool>,
        expected: RefCell<Vec<(u8, u64)>>,
    }

    impl Witness for Server {
        fn is_shared(&self) -> bool {
            false
        }

        fn expect_read(&self, disk: u8, offset: u64) -> Result<(), ControlError> {
            self.expected.borrow_mut().push((disk, offset));
            Ok(())
        }

        fn was_read(&self) -> Result<bool, ControlError> {
            // The first goes astray.
            Ok(self.is_its.get() && self.expected.borrow().len() > 1)
        }
    }

    #[test]
    fn a_device_is_a_servers_only_if_it_sees_what_is_read() {
        let path = std::env::temp_dir().join(format!("colo-proof-{}", std::process::id()));
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let disk = GuestDisk { vdev: "xvda".into(), device: path.clone(), size_bytes: 1 << 20 };
        let server = Server::default();
        let error = prove(std::slice::from_ref(&disk), &server).unwrap_err();
        assert_eq!(error, DisksError::Elsewhere { vdev: "xvda".into(), device: path.clone() });
        assert_eq!(server.expected.borrow().len(), 8);
        server.is_its.set(true);
        server.expected.borrow_mut().clear();
        prove(std::slice::from_ref(&disk), &server).unwrap();
        let expected = server.expected.borrow().clone();
        assert!(expected.len() == 2 && expected.iter().all(|(disk, offset)| *disk == 0 && *offset < 1 << 20));
        std::fs::remove_file(&path).unwrap();
        let error = prove(&[disk], &server).unwrap_err();
        assert!(error.to_string().ends_with("No such file or directory (os error 2)"), "{error}");
    }
}
