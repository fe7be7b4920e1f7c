//! One saver of a domain at a time.
//!
//! Two would not know of each other: what one lets go on the other believes to stand still, and the image of either could hold a guest
//! of two moments. So whoever saves a domain holds its [`SaveLock`] from before the first touch to the very end.
//!
//! The lock is a `flock` on a file, which belongs to an open file, not to a process: the kernel gives it up when the last descriptor
//! of it is closed, however its holders end. The saver hands a descriptor to its [`Guard`](crate::guard::Guard), too. So a saver that is
//! killed is still its domain's saver until its guard has set things right; a guard that is dismissed has ended by then.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::guard::Guard;
//! use colo_core::xen::save_lock::SaveLock;
//!
//! let mut guard = Guard::start(|_, mut kept| {
//!     let lock = kept.pop().map(|file| SaveLock::taken_over(DomId(3), file));
//!     // ... let the guest go on; the lock's file goes with the lock ...
//! })?;
//! let lock = SaveLock::take(DomId(3), "web")?;
//! guard.keep(&lock)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::ids::DomId;
use crate::lock_file::LockFile;
use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where the locks are. Only root may make anything there.
const FOLDER: &str = "/run/colo";

/// Why a domain cannot be saved now.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum SaveLockError {
    /// Another is at it.
    #[error("{name} is being saved by another colo{}", process.map_or(String::new(), |id| format!(" (process {id})")))]
    Busy {
        /// The domain's name.
        name: String,
        /// Who; none if it has not said so yet.
        process: Option<u32>,
    },
    /// The system refused.
    #[error("{path}: {errno}")]
    Io {
        /// The lock's file, or its folder.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
    },
}

/// The right to save a domain, until it is dropped here and wherever its descriptor was handed to. Dropped, it removes its file, and the
/// next one gets another: drop it only after the guard that has its descriptor.
#[derive(Debug)]
pub struct SaveLock(LockFile);

impl SaveLock {
    /// Takes the lock of a domain, without waiting. The name is for the error.
    ///
    /// # Errors
    /// [`SaveLockError`].
    pub fn take(domid: DomId, name: &str) -> Result<SaveLock, SaveLockError> {
        Self::take_in(Path::new(FOLDER), domid, name)
    }

    fn take_in(folder: &Path, domid: DomId, name: &str) -> Result<SaveLock, SaveLockError> {
        match mkdir(folder, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(SaveLockError::Io { path: folder.to_owned(), errno }),
        }
        let path = path_in(folder, domid);
        match LockFile::try_lock(&path) {
            Ok(Some(file)) => Ok(SaveLock(file).signed()),
            Ok(None) => Err(SaveLockError::Busy { name: name.into(), process: holder(&path) }),
            Err(errno) => Err(SaveLockError::Io { path, errno }),
        }
    }

    /// The lock of which a guard was handed the descriptor, once its first holder has died.
    pub fn taken_over(domid: DomId, file: OwnedFd) -> SaveLock {
        Self::taken_over_in(Path::new(FOLDER), domid, file)
    }

    fn taken_over_in(folder: &Path, domid: DomId, file: OwnedFd) -> SaveLock {
        SaveLock(LockFile::taken_over(file, path_in(folder, domid))).signed()
    }

    /// Says in the file who has it.
    fn signed(self) -> SaveLock {
        let file = &self.0.file;
        // Only for whoever wonders.
        let _: io::Result<()> =
            file.set_len(0).and_then(|()| file.write_all_at(std::process::id().to_string().as_bytes(), 0));
        self
    }
}

impl AsFd for SaveLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// A number is not given to another domain as long as its domain is there, and the lock does not outlive its holders: the number is
/// name enough.
fn path_in(folder: &Path, domid: DomId) -> PathBuf {
    folder.join(format!("domain-{}.lock", domid.0))
}

fn holder(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guard;
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::os::unix::net::UnixStream;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            Folder(std::env::temp_dir().join(format!("colo-save-lock-{name}-{}", std::process::id())))
        }

        fn take(&self, domid: u32) -> Result<SaveLock, SaveLockError> {
            SaveLock::take_in(&self.0, DomId(domid), "web")
        }

        fn is_empty(&self) -> bool {
            std::fs::read_dir(&self.0).unwrap().next().is_none()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn one_at_a_time_for_each_domain() {
        let folder = Folder::new("plain");
        let lock = folder.take(3).unwrap();
        let told = folder.take(3).unwrap_err().to_string();
        assert_eq!(told, format!("web is being saved by another colo (process {})", std::process::id()));
        drop(folder.take(4).unwrap());
        drop(lock);
        assert!(folder.is_empty());
        drop(folder.take(3).unwrap());
        let nowhere = SaveLock::take_in(Path::new("/nonexistent/colo"), DomId(3), "web").unwrap_err();
        assert!(matches!(nowhere, SaveLockError::Io { errno: Errno::NOENT, .. }), "{nowhere}");
    }

    #[test]
    fn a_file_that_somebody_has_left_is_no_lock() {
        let folder = Folder::new("left");
        drop(folder.take(3).unwrap());
        std::fs::write(path_in(&folder.0, DomId(3)), "123456789").unwrap();
        let lock = folder.take(3).unwrap();
        assert_eq!(holder(&path_in(&folder.0, DomId(3))), Some(std::process::id()));
        drop(lock);
    }

    #[test]
    fn a_file_of_the_next_one_stays() {
        let folder = Folder::new("next");
        let lock = folder.take(3).unwrap();
        drop(SaveLock::taken_over_in(&folder.0, DomId(3), lock.as_fd().try_clone_to_owned().unwrap()));
        let next = folder.take(3).unwrap();
        drop(lock);
        assert!(!folder.is_empty());
        assert!(matches!(folder.take(3), Err(SaveLockError::Busy { .. })));
        drop(next);
        assert!(folder.is_empty());
    }

    #[test]
    fn a_guard_has_it_until_it_has_done_its_work() {
        let folder = Folder::new("guard");
        let (guards, mut ours) = UnixStream::pair().unwrap();
        let at = folder.0.clone();
        let mut guard = Guard::start(move |_, mut kept| {
            let lock = kept.pop().map(|file| SaveLock::taken_over_in(&at, DomId(3), file));
            let Some(mut guards) = kept.pop().map(UnixStream::from) else { return };
            // Its work: until it is told that this is enough.
            let _ = guards.write_all(&std::process::id().to_le_bytes()).and_then(|()| guards.read_exact(&mut [0]));
            drop(lock);
        })
        .unwrap();
        let lock = folder.take(3).unwrap();
        guard.keep(&guards).unwrap();
        guard.keep(&lock).unwrap();
        guard.watch(&[]).unwrap();
        // As in a process that is killed: its descriptor is closed, and nothing else is done.
        // SAFETY: it is open, and the lock that it belongs to does not close it any more.
        drop(unsafe { OwnedFd::from_raw_fd(lock.as_fd().as_raw_fd()) });
        std::mem::forget(lock);
        std::thread::scope(|scope| {
            let ended = scope.spawn(move || drop(guard));
            let mut process = [0; 4];
            ours.read_exact(&mut process).unwrap();
            let told = folder.take(3).unwrap_err();
            let guards = u32::from_le_bytes(process);
            assert!(matches!(told, SaveLockError::Busy { process: Some(id), .. } if id == guards), "{told}");
            ours.write_all(&[1]).unwrap();
            ended.join().unwrap();
        });
        assert!(folder.is_empty());
    }
}
