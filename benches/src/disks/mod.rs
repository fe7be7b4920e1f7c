//! Servers of a disk over NBD, one beside the other, under the same load of fio's.

mod colo;
mod copies;
mod load;
mod process;
mod qemu;

pub use colo::{Alone, Protected};
pub use copies::Copies;
pub use load::{Load, Measured, Pattern, Processors};
pub use process::{NbdKit, QemuNbd};
pub use qemu::QemuReplication;

use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Somebody who serves a disk.
pub trait Contender {
    /// Where clients connect: the path of a Unix socket.
    fn socket(&self) -> &Path;

    /// The name of the export.
    fn export(&self) -> &str {
        "disk"
    }

    /// Its processes.
    fn processes(&self) -> Vec<u32>;

    /// Processor time that it has taken so far, on both hosts.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn cpu_time(&self) -> Result<Duration>;

    /// Does what it has put off until nobody waits for it. That counts, too.
    ///
    /// # Errors
    /// When it fails.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// A checkpoint, where it can take one: how long its guest would stand still for it.
    ///
    /// # Errors
    /// When it fails.
    fn checkpoint(&mut self) -> Result<Option<Duration>> {
        Ok(None)
    }
}

/// A folder in memory, for disks and sockets, until this is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Folder> {
        let path = PathBuf::from(format!("/dev/shm/colo-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A disk of that size, all of which is allocated.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub fn disk(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        use std::io::Write as _;
        let path = self.path(name);
        let mut file = std::fs::File::create(&path)?;
        let part = vec![0x5a; 1 << 20];
        for _ in 0..bytes >> 20 {
            file.write_all(&part)?;
        }
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
