use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A file that is locked with `flock`, which the kernel unlocks when the last process that has it open is gone. Dropped, it is removed,
/// unless it shall stay, and closed.
#[derive(Debug)]
pub(crate) struct LockFile {
    pub(crate) file: File,
    path: PathBuf,
    stays: bool,
}

impl LockFile {
    /// Locks the file, which is made where it is not there; none when another has it.
    pub(crate) fn try_lock(path: &Path) -> Result<Option<LockFile>, Errno> {
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = open(path, flags, Mode::RUSR | Mode::WUSR)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            }
            let lock = LockFile { file: file.into(), path: path.to_owned(), stays: false };
            // Its last holder may have removed it meanwhile.
            if lock.is_at_its_path()? {
                return Ok(Some(lock));
            }
        }
    }

    /// A file that this process has been given, open and locked.
    pub(crate) fn taken_over(file: OwnedFd, path: PathBuf) -> LockFile {
        LockFile { file: file.into(), path, stays: false }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file shall be there after this is dropped, unlocked.
    pub(crate) fn set_stays(&mut self, stays: bool) {
        self.stays = stays;
    }

    /// Whether its name is still its own.
    pub(crate) fn is_at_its_path(&self) -> Result<bool, Errno> {
        let locked = fstat(&self.file)?;
        match stat(&self.path) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Removed while still locked, as every holder does: nobody else can put another there. If it is gone already, what has its
        // name now is another's.
        if !self.stays && matches!(self.is_at_its_path(), Ok(true)) {
            let _ = std::fs::remove_file(&self.path);
        }
        // Closing it is not enough: a process that is being made this moment has a copy until it is another program.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_stays_is_free_though_a_copy_of_its_descriptor_is_left() {
        let path = std::env::temp_dir().join(format!("colo-lock-file-{}", std::process::id()));
        let mut lock = LockFile::try_lock(&path).unwrap().unwrap();
        assert!(LockFile::try_lock(&path).unwrap().is_none());
        lock.set_stays(true);
        let copy = lock.file.try_clone().unwrap();
        drop(lock);
        let next = LockFile::try_lock(&path).unwrap().expect("nobody has it");
        drop((copy, next));
        assert!(!path.exists());
    }
}
