use colo_core::disk::{Backend, DiskError, FileBackend};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A disk that fails when the test wants it to.
pub(crate) struct Breakable {
    file: FileBackend,
    fails: AtomicUsize,
}

impl Breakable {
    pub(crate) fn new(file: File) -> Arc<Breakable> {
        Arc::new(Breakable { file: FileBackend::new(file), fails: AtomicUsize::new(0) })
    }

    /// So many requests fail from here on.
    pub(crate) fn fail(&self, requests: usize) {
        self.fails.store(requests, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), DiskError> {
        let left = self.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Err(DiskError::Io) } else { Ok(()) }
    }
}

impl Backend for Breakable {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.check()?;
        self.file.read(offset, bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check()?;
        self.file.write(offset, bytes)
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.check()?;
        self.file.write_zeroes(offset, length, may_unmap)
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.check()?;
        self.file.flush()
    }
}
