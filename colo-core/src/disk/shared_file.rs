//! A disk that another host writes to as well. What this host's page cache has of it may be old, so nothing goes by way of that: it is read and
//! written directly (`O_DIRECT`), in whole blocks.

use super::backend::{FileBackend, size_of, told, write_zeroes};
use super::{Allocation, Backend, DiskError};
use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, fcntl_getfl, fcntl_setfl, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// What devices and file systems want places and lengths to be multiples of, the smaller first: it is tried out.
const BLOCKS: [u64; 2] = [512, 4096];

/// What they want memory to be aligned to, at most.
const ALIGNMENT: usize = 4096;

/// So much is moved at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// A file or a block device that both hosts have. What is written is where the other host reads it; where the file system cannot do that
/// (`tmpfs` cannot everywhere), once it is [published](Backend::publish).
///
/// ```
/// use colo_core::disk::{Backend, SharedFile};
/// # let path = std::env::temp_dir().join(format!("colo-doc-shared-{}", std::process::id()));
/// std::fs::write(&path, [0; 8192])?;
/// let (ours, _) = SharedFile::open(&path)?;
/// let (theirs, _) = SharedFile::open(&path)?;
/// ours.write(4000, b"not in whole blocks")?;
/// ours.publish()?;
/// let mut bytes = [0; 3];
/// theirs.read(4000, &mut bytes)?;
/// assert_eq!(&bytes, b"not");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedFile {
    file: File,
    /// None where there is no way around the page cache.
    block_bytes: Option<u64>,
    /// Whoever writes a part of a block writes all of it: meanwhile nobody else may.
    blocks: RwLock<()>,
}

impl SharedFile {
    /// Opens a file or a block device for reading and writing, and locks it (`flock`) together with others that share it. Returns its size,
    /// too, in bytes.
    ///
    /// # Errors
    /// Those of opening; `ResourceBusy` when another process has it for itself.
    pub fn open(path: &Path) -> io::Result<(SharedFile, u64)> {
        let file = open_shared(path)?;
        let size = size_of(&file)?;
        Ok((SharedFile::new(file)?, size))
    }

    /// Over a file that is open for reading and writing. From here on it is so for whoever else has this very descriptor, or a copy of it:
    /// those must be `SharedFile`s, too.
    ///
    /// # Errors
    /// When the file cannot be asked.
    pub fn new(file: File) -> io::Result<SharedFile> {
        let (size, flags) = (size_of(&file)?, fcntl_getfl(&file)?);
        let mut block_bytes = None;
        if size > 0 && fcntl_setfl(&file, flags | OFlags::DIRECT).is_ok() {
            let mut buffer = Aligned::new(ALIGNMENT);
            let mut is_read = |bytes: u64| file.read_exact_at(&mut buffer.bytes()[..bytes as usize], 0).is_ok();
            block_bytes = BLOCKS.into_iter().find(|bytes| size % bytes == 0 && is_read(*bytes));
        }
        if block_bytes.is_none() {
            fcntl_setfl(&file, flags.difference(OFlags::DIRECT))?;
        }
        Ok(SharedFile { file, block_bytes, blocks: RwLock::new(()) })
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let Some(block_bytes) = self.block_bytes else {
            self.forget_cached(at, bytes.len() as u64);
            return self.file.read_exact_at(bytes, at);
        };
        if is_aligned(bytes, at, block_bytes) {
            return self.file.read_exact_at(bytes, at);
        }
        let mut buffer = Aligned::new(bytes.len().min(PIECE_BYTES as usize) + 2 * block_bytes as usize);
        for piece in pieces(at..at + bytes.len() as u64) {
            let blocks = blocks_of(&piece, block_bytes);
            let read = &mut buffer.bytes()[..(blocks.end - blocks.start) as usize];
            self.file.read_exact_at(read, blocks.start)?;
            let part = &mut bytes[(piece.start - at) as usize..(piece.end - at) as usize];
            part.copy_from_slice(&read[(piece.start - blocks.start) as usize..][..part.len()]);
        }
        Ok(())
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let Some(block_bytes) = self.block_bytes else { return self.file.write_all_at(bytes, at) };
        if is_aligned(bytes, at, block_bytes) {
            let _whole = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            return self.file.write_all_at(bytes, at);
        }
        let mut buffer = Aligned::new(bytes.len().min(PIECE_BYTES as usize) + 2 * block_bytes as usize);
        for piece in pieces(at..at + bytes.len() as u64) {
            let part = &bytes[(piece.start - at) as usize..(piece.end - at) as usize];
            self.write_piece(&piece, part, block_bytes, &mut buffer)?;
        }
        Ok(())
    }

    /// With the rest of its first block and of its last, as they are.
    fn write_piece(&self, piece: &Range<u64>, part: &[u8], block_bytes: u64, buffer: &mut Aligned) -> io::Result<()> {
        let blocks = blocks_of(piece, block_bytes);
        let write = &mut buffer.bytes()[..(blocks.end - blocks.start) as usize];
        if blocks == *piece {
            let _whole = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
            write.copy_from_slice(part);
            return self.file.write_all_at(write, blocks.start);
        }
        let _parts = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        let last = write.len() - block_bytes as usize;
        self.file.read_exact_at(&mut write[..block_bytes as usize], blocks.start)?;
        if last > 0 {
            self.file.read_exact_at(&mut write[last..], blocks.end - block_bytes)?;
        }
        write[(piece.start - blocks.start) as usize..][..part.len()].copy_from_slice(part);
        self.file.write_all_at(write, blocks.start)
    }

    pub(super) fn make_zeroes(&self, range: Range<u64>, may_unmap: bool) -> io::Result<()> {
        if self.block_bytes.is_none() {
            return write_zeroes(&self.file, range.start, range.end - range.start, may_unmap);
        }
        // Of a block that is zeroes in part a file system might keep the rest in its cache.
        let page = ALIGNMENT as u64;
        let (first, last) = (range.start.next_multiple_of(page), range.end - range.end % page);
        let zeroes = Aligned::new(PIECE_BYTES as usize);
        let write = |range: Range<u64>| {
            pieces(range).try_for_each(|piece| {
                self.write_all_at(&zeroes.as_bytes()[..(piece.end - piece.start) as usize], piece.start)
            })
        };
        if first >= last {
            return write(range);
        }
        write(range.start..first)?;
        write(last..range.end)?;
        match super::backend::give_back(&self.file, first, last - first, may_unmap)? {
            true => Ok(()),
            false => write(first..last),
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn make_readable(&self) -> io::Result<()> {
        // It went there directly.
        if self.block_bytes.is_some() { Ok(()) } else { self.sync() }
    }

    /// What of that part is in this host's page cache, and needs not be written, is read anew.
    fn forget_cached(&self, at: u64, bytes: u64) {
        // It is advice: where it is not taken there is no cache to be given up.
        let _ = fadvise(&self.file, at, NonZeroU64::new(bytes), Advice::DontNeed);
    }
}

impl Backend for SharedFile {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.read_exact_at(bytes, offset).map_err(|error| told("read", &error))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write_all_at(bytes, offset).map_err(|error| told("write", &error))
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.make_zeroes(offset..offset + length, may_unmap).map_err(|error| told("zeroes", &error))
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.sync().map_err(|error| told("flush", &error))
    }

    fn publish(&self) -> Result<(), DiskError> {
        self.make_readable().map_err(|error| told("flush", &error))
    }

    fn allocation(&self, offset: u64, length: u32) -> Result<Vec<Allocation>, DiskError> {
        FileBackend::allocation_of(&self.file, offset, length)
    }
}

/// Opens a file that nobody may have for himself alone.
pub(super) fn open_shared(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has locked it")),
        Err(errno) => Err(errno.into()),
    }
}

/// Zeroes first, at a place in memory that is a multiple of [`ALIGNMENT`].
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Aligned {
        let bytes = vec![0; length + ALIGNMENT];
        let from = bytes.as_ptr().align_offset(ALIGNMENT);
        Aligned { bytes, from, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.length]
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.from + self.length]
    }
}

/// Whether it can be moved as it is.
fn is_aligned(bytes: &[u8], at: u64, block_bytes: u64) -> bool {
    (at | bytes.len() as u64) % block_bytes == 0 && bytes.as_ptr().align_offset(ALIGNMENT) == 0
}

/// The blocks that a part is in.
fn blocks_of(part: &Range<u64>, block_bytes: u64) -> Range<u64> {
    part.start - part.start % block_bytes..part.end.next_multiple_of(block_bytes)
}

/// In pieces, of which all but the first begin with a block.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = (at - at % PIECE_BYTES + PIECE_BYTES).min(range.end);
        let piece = at..end;
        at = end;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = (3 << 20) + 512 * 5;

    fn file(folder: &Path) -> File {
        let file = File::options().read(true).write(true).create_new(true).open(folder).unwrap();
        file.set_len(SIZE).unwrap();
        file
    }

    struct Scratch(std::path::PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// On this file system, and on one in memory: one of them may know no way around the page cache.
    fn files() -> Vec<(SharedFile, Scratch)> {
        let name = format!("colo-shared-file-{}-{}", std::process::id(), crate::random::number());
        let folders = [std::env::temp_dir(), "/dev/shm".into()].into_iter().filter(|folder| folder.is_dir());
        let files = folders.map(|folder| folder.join(&name));
        files.map(|path| (SharedFile::new(file(&path)).unwrap(), Scratch(path))).collect()
    }

    fn range() -> impl Strategy<Value = Range<u64>> {
        let length = prop_oneof![1..600_u64, Just(512), Just(4096), 4000..20_000_u64, 900_000..2_200_000_u64];
        let start = prop_oneof![0..SIZE, (0..SIZE / 512).prop_map(|sector| sector * 512)];
        (start, length).prop_map(|(start, length)| start..SIZE.min(start + length))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn it_is_an_array_of_bytes_whatever_blocks_are(writes in prop::collection::vec((range(), 0..4_u8), 1..30)) {
            for (shared, _scratch) in files() {
                let mut model = vec![0; SIZE as usize];
                for (number, (range, kind)) in (1..).zip(&writes) {
                    let part = &mut model[range.start as usize..range.end as usize];
                    match kind {
                        0 => {
                            shared.write_zeroes(range.start, range.end - range.start, number % 2 == 0).unwrap();
                            part.fill(0);
                        }
                        _ => {
                            part.fill(number);
                            shared.write(range.start, part).unwrap();
                        }
                    }
                    let mut read = vec![0; (range.end - range.start) as usize];
                    shared.read(range.start, &mut read).unwrap();
                    prop_assert!(read == model[range.start as usize..range.end as usize]);
                }
                let mut read = vec![0; SIZE as usize];
                shared.read(0, &mut read).unwrap();
                prop_assert!(read == model);
                shared.publish().unwrap();
            }
        }
    }

    #[test]
    fn two_halves_of_a_block_are_written_at_once() {
        for (shared, _scratch) in files() {
            std::thread::scope(|scope| {
                for thread in 0..4_u8 {
                    let shared = &shared;
                    scope.spawn(move || {
                        for block in 0..200_u64 {
                            shared.write(block * 4096 + u64::from(thread) * 100, &[thread + 1; 100]).unwrap();
                        }
                    });
                }
            });
            let mut read = vec![0; 200 * 4096];
            shared.read(0, &mut read).unwrap();
            for block in read.chunks(4096) {
                assert!((0..4).all(|thread| block[thread * 100..][..100] == [thread as u8 + 1; 100]));
            }
        }
    }

    #[test]
    fn one_that_shares_is_not_locked_out_and_one_that_does_not_is() {
        let path = std::env::temp_dir().join(format!("colo-shared-lock-{}", crate::random::number()));
        drop(file(&path));
        let _scratch = Scratch(path.clone());
        let both = (SharedFile::open(&path).unwrap(), SharedFile::open(&path).unwrap());
        assert_eq!(FileBackend::open(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(both);
        let alone = FileBackend::open(&path).unwrap();
        assert_eq!(SharedFile::open(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(alone);
    }
}
