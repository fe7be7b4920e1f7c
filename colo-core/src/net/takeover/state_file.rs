use super::error::TakeoverError;
use super::record::{MAX_BYTES, Record, Written};
use crate::lock_file::LockFile;
use crate::net::sys::LinkName;
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

/// The file of a record. It is locked as long as whoever took the card over, or its guard, is alive: an open file belongs to a process
/// as no number does, which may be another's the next moment.
///
/// With a record in it the file stays when this is dropped.
#[derive(Debug)]
pub(super) struct StateFile(LockFile);

impl StateFile {
    /// Takes the file of a card, which is made where it is not there.
    pub(super) fn take(folder: &Path, vif: &LinkName) -> Result<StateFile, TakeoverError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| TakeoverError::File { path: folder.to_owned(), error })?;
        let path = folder.join(vif.as_str());
        match LockFile::try_lock(&path) {
            Ok(Some(lock)) => Ok(StateFile(lock)),
            Ok(None) => Err(TakeoverError::Busy { vif: vif.clone(), process: holder(&path) }),
            Err(errno) => Err(TakeoverError::File { path, error: errno.into() }),
        }
    }

    /// The file of which a guard was handed the descriptor.
    pub(super) fn taken_over(file: OwnedFd, path: PathBuf) -> StateFile {
        StateFile(LockFile::taken_over(file, path))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is in it.
    pub(super) fn read(&mut self) -> Result<Written, TakeoverError> {
        // Until it is known that nobody needs it.
        self.0.set_stays(true);
        let mut bytes = vec![0; MAX_BYTES];
        let count = read_whole(&self.0.file, &mut bytes).map_err(|error| self.failed(error))?;
        bytes.truncate(count);
        let bad = |why| TakeoverError::BadRecord { file: self.path().to_owned(), why };
        let text = String::from_utf8(bytes).map_err(|_| bad("not text".into()))?;
        let written = text.parse().map_err(bad)?;
        self.0.set_stays(written != Written::Part);
        Ok(written)
    }

    /// Writes a record. On return it is there whatever happens to this process.
    pub(super) fn write(&mut self, record: &Record) -> Result<(), TakeoverError> {
        self.0.set_stays(false);
        let file = &self.0.file;
        let written = file.set_len(0).and_then(|()| file.write_all_at(record.to_string().as_bytes(), 0));
        let folder = self.path().parent().unwrap_or(Path::new("/"));
        let synced = written.and_then(|()| file.sync_all()).and_then(|()| File::open(folder)?.sync_all());
        synced.map_err(|error| self.failed(error))?;
        self.0.set_stays(true);
        Ok(())
    }

    /// Writes another record of the same length over the one that is there. At no moment is it less than a whole record.
    pub(super) fn overwrite(&self, record: &Record) -> Result<(), TakeoverError> {
        self.0.file.write_all_at(record.to_string().as_bytes(), 0).map_err(|error| self.failed(error))
    }

    /// What is in it need not stay.
    pub(super) fn set_obsolete(&mut self) {
        self.0.set_stays(false);
    }

    /// The card is where it belongs: the file goes.
    pub(super) fn remove(mut self) {
        self.set_obsolete();
    }

    /// Whether another who had it, too, has removed it.
    pub(super) fn is_removed(&self) -> bool {
        matches!(self.0.is_at_its_path(), Ok(false))
    }

    fn failed(&self, error: io::Error) -> TakeoverError {
        TakeoverError::File { path: self.path().to_owned(), error }
    }
}

impl AsFd for StateFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// Reads from the beginning, wherever another descriptor of this file is.
fn read_whole(file: &File, into: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < into.len() {
        match file.read_at(&mut into[count..], count as u64) {
            Ok(0) => return Ok(count),
            Ok(more) => count += more,
            Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than any record"))
}

/// Who says to have it.
fn holder(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.lines().find_map(|line| line.strip_prefix("process ")?.parse().ok())
}
