use super::reply::Allocation;
use super::wire::NbdError;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A disk behind a server. Requests come from several threads, within its bounds.
pub trait Backend: Sync {
    /// Fills the buffer from there on.
    ///
    /// # Errors
    /// What the client is told.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), NbdError>;

    /// Writes there.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), NbdError>;

    /// Makes that part zeroes, and gives its space back if it may.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), NbdError>;

    /// That part need not be kept.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn trim(&self, offset: u64, length: u64) -> Result<(), NbdError> {
        self.write_zeroes(offset, length, true)
    }

    /// Makes everything durable that was written before.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn flush(&self) -> Result<(), NbdError>;

    /// What the parts from there on are: at least one, and together no more than that length.
    ///
    /// # Errors
    /// As for [`Backend::read`].
    fn allocation(&self, offset: u64, length: u32) -> Result<Vec<Allocation>, NbdError> {
        let _ = offset;
        Ok(vec![Allocation { length, is_hole: false, is_zero: false }])
    }
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
    /// Over a file that is open for reading, and for writing if clients may write.
    pub fn new(file: File) -> FileBackend {
        FileBackend { file }
    }
}

impl Backend for FileBackend {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), NbdError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| told("read", &error))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), NbdError> {
        self.file.write_all_at(bytes, offset).map_err(|error| told("write", &error))
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), NbdError> {
        write_zeroes(&self.file, offset, length, may_unmap).map_err(|error| told("zeroes", &error))
    }

    fn flush(&self) -> Result<(), NbdError> {
        self.file.sync_data().map_err(|error| told("flush", &error))
    }

    fn allocation(&self, offset: u64, length: u32) -> Result<Vec<Allocation>, NbdError> {
        let (mut parts, mut at, end) = (Vec::new(), offset, offset + u64::from(length));
        while at < end && parts.len() < MAX_PARTS {
            let data = match seek(&self.file, SeekFrom::Data(at)) {
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
            let hole = seek(&self.file, SeekFrom::Hole(at)).map_or(end, |hole| hole.min(end));
            parts.push(Allocation { length: (hole.max(at + 1) - at) as u32, is_hole: false, is_zero: false });
            at = hole.max(at + 1);
        }
        Ok(parts)
    }
}

/// Makes a part of a file or a block device zeroes, by the way that costs least.
pub(in crate::disk) fn write_zeroes(file: &File, offset: u64, length: u64, may_unmap: bool) -> io::Result<()> {
    let done = |flags| match fallocate(file, flags | FallocateFlags::KEEP_SIZE, offset, length) {
        Ok(()) => Ok(true),
        // Not on this file system, or not at this place of a block device.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => Ok(false),
        Err(errno) => Err(io::Error::from(errno)),
    };
    if (may_unmap && done(FallocateFlags::PUNCH_HOLE)?) || done(FallocateFlags::ZERO_RANGE)? {
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

/// What a client is told, and what the log.
fn told(what: &str, error: &io::Error) -> NbdError {
    tracing::warn!("{what}: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NbdError::NoSpace,
        _ => NbdError::Io,
    }
}
