use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, flock, seek};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A disk, as whoever serves it to a guest or to a client sees it. Requests come from several threads, within its bounds.
pub trait Backend: Send + Sync {
    /// Fills the buffer from there on.
    ///
    /// # Errors
    /// What the guest or the client is told.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError>;

    /// Writes there.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes that part zeroes, and gives its space back if it may.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError>;

    /// That part need not be kept.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn trim(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.write_zeroes(offset, length, true)
    }

    /// Makes everything durable that was written before.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn flush(&self) -> Result<(), DiskError>;

    /// Has everything that was written before where another host reads it that has the same disk; whether it is durable there or not.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn publish(&self) -> Result<(), DiskError> {
        self.flush()
    }

    /// What the parts from there on are: at least one, and together no more than that length.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn allocation(&self, offset: u64, length: u32) -> Result<Vec<Allocation>, DiskError> {
        let _ = offset;
        Ok(vec![Allocation { length, is_hole: false, is_zero: false }])
    }
}

/// What a part of a disk is, as far as its file system knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allocation {
    /// How long the part is, in bytes.
    pub length: u32,
    /// Nothing is kept for it.
    pub is_hole: bool,
    /// It reads as zeroes.
    pub is_zero: bool,
}

/// Why a request is not done, by the numbers of `errno` that NBD has, too.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum DiskError {
    /// The disk is read-only.
    #[error("the disk is read-only")]
    NotPermitted = 1,
    /// The disk failed.
    #[error("the disk has failed")]
    Io = 5,
    /// The request makes no sense.
    #[error("the request makes no sense")]
    Invalid = 22,
    /// It is beyond the end of the disk, or the disk has no space.
    #[error("there is no space")]
    NoSpace = 28,
    /// It is longer than what is done at once.
    #[error("the request is too long")]
    Overflow = 75,
    /// The disk cannot do that.
    #[error("the disk cannot do that")]
    NotSupported = 95,
}

/// A file or a block device.
#[derive(Debug)]
pub struct FileBackend {
    file: File,
}

/// Zeroes that are written where the file system makes none.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// The most parts that are told at once.
const MAX_PARTS: usize = 512;

impl FileBackend {
    /// Opens a file or a block device for reading and writing, and locks it (`flock`). Returns its size, too, in bytes.
    ///
    /// # Errors
    /// Those of opening; `ResourceBusy` when another process has locked it.
    pub fn open(path: &Path) -> io::Result<(FileBackend, u64)> {
        let file = open_locked(path, false)?;
        let size = size_of(&file)?;
        Ok((FileBackend::new(file), size))
    }

    /// Over a file that is open for reading, and for writing if clients may write.
    pub fn new(file: File) -> FileBackend {
        FileBackend { file }
    }

    pub(super) fn allocation_of(file: &File, offset: u64, length: u32) -> Result<Vec<Allocation>, DiskError> {
        let (mut parts, mut at, end) = (Vec::new(), offset, offset + u64::from(length));
        while at < end && parts.len() < MAX_PARTS {
            let data = match seek(file, SeekFrom::Data(at)) {
                Ok(data) => data.min(end),
                // There are none behind it.
                Err(Errno::NXIO) => end,
                // A block device, for instance, does not tell.
                Err(_) => at,
            };
            if data > at {
                parts.push(Allocation { length: (data - at) as u32, is_hole: true, is_zero: true });
                at = data;
                continue;
            }
            let hole = seek(file, SeekFrom::Hole(at)).map_or(end, |hole| hole.min(end));
            parts.push(Allocation { length: (hole.max(at + 1) - at) as u32, is_hole: false, is_zero: false });
            at = hole.max(at + 1);
        }
        Ok(parts)
    }
}

impl Backend for FileBackend {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| told("read", &error))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(|error| told("write", &error))
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        write_zeroes(&self.file, offset, length, may_unmap).map_err(|error| told("zeroes", &error))
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| told("flush", &error))
    }

    fn allocation(&self, offset: u64, length: u32) -> Result<Vec<Allocation>, DiskError> {
        FileBackend::allocation_of(&self.file, offset, length)
    }
}

/// Opens a file that nobody else may have.
pub(super) fn open_locked(path: &Path, is_made: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(is_made).truncate(false).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has locked it")),
        Err(errno) => Err(errno.into()),
    }
}

/// How large a file or a block device is, of which metadata do not tell.
pub(super) fn size_of(mut file: &File) -> io::Result<u64> {
    file.seek(io::SeekFrom::End(0))
}

/// Makes a part of a file or a block device zeroes, by the way that costs least.
pub(super) fn write_zeroes(file: &File, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
    if give_back(file, offset, length, may_unmap)? {
        return Ok(());
    }
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let bytes = ZEROES.len().min((end - at) as usize);
        file.write_all_at(&ZEROES[..bytes], at)?;
        at += bytes as u64;
    }
    Ok(())
}

/// The same without writing them, where the file system or the device makes them; false where it does not.
pub(super) fn give_back(file: &File, offset: u64, length: u64, may_unmap: bool) -> io::Result<bool> {
    let done = |flags| match fallocate(file, flags | FallocateFlags::KEEP_SIZE, offset, length) {
        Ok(()) => Ok(true),
        // Not on this file system, or not at this place of a block device.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => Ok(false),
        Err(errno) => Err(io::Error::from(errno)),
    };
    Ok((may_unmap && done(FallocateFlags::PUNCH_HOLE)?) || done(FallocateFlags::ZERO_RANGE)?)
}

/// What a client is told, and what the log.
pub(super) fn told(what: &str, error: &io::Error) -> DiskError {
    tracing::warn!("{what}: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::NoSpace,
        _ => DiskError::Io,
    }
}
