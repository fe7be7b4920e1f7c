use super::SharedFile;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A disk itself.
pub(super) enum Target {
    /// Of this host alone.
    Own(File),
    /// Of both hosts.
    Shared(SharedFile),
}

impl Target {
    pub(super) fn new(file: File, is_shared: bool) -> io::Result<Target> {
        Ok(if is_shared { Target::Shared(SharedFile::new(file)?) } else { Target::Own(file) })
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Target::Own(file) => file.read_exact_at(bytes, at),
            Target::Shared(file) => file.read_exact_at(bytes, at),
        }
    }

    /// See [`Backend::publish`](super::Backend::publish).
    pub(super) fn publish(&self) -> io::Result<()> {
        match self {
            Target::Own(file) => file.sync_data(),
            Target::Shared(file) => file.make_readable(),
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Target::Own(file) => file.sync_data(),
            Target::Shared(file) => file.sync(),
        }
    }
}
