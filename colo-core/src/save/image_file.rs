use super::StreamSink;
use crate::domain::LentPages;
use crate::ids::{Epoch, PAGE_SIZE};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An image file in the making: it appears under its name when it is whole and safe on its disk, or never.
///
/// Until then it has no name at all, where the file system can do that, so that nothing is left of it even when the process is
/// killed; elsewhere it is a hidden file beside the final one. Pages of zeroes become holes.
///
/// A name that is something else than a regular file, a pipe or a device, is written to as it is.
///
/// ```
/// use colo_core::save::{ImageFile, StreamSink};
/// use std::io::IoSlice;
///
/// let path = std::env::temp_dir().join(format!("colo-image-{}", std::process::id()));
/// let mut image = ImageFile::create(&path)?;
/// image.write(&[IoSlice::new(b"a stream")])?;
/// assert!(!path.exists());
/// image.commit()?;
/// assert_eq!(std::fs::read(&path)?, b"a stream");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    path: PathBuf,
    kind: Kind,
    /// What has been written; also the offset of what comes next.
    bytes: u64,
}

#[derive(Debug)]
enum Kind {
    /// No name yet.
    Unnamed,
    /// Under this name for now.
    Hidden(PathBuf),
    /// Not a file: nothing can be taken back.
    Stream,
}

/// Runs of zeroes shorter than this are written: two pages always hold a whole block of the file system's.
const MIN_HOLE_PAGES: usize = 2;

/// Only the owner: what is in an image was in a guest's memory.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

impl ImageFile {
    /// Begins an image that will be at `path`.
    ///
    /// # Errors
    /// When nothing can be written there; nothing has changed then.
    pub fn create(path: &Path) -> io::Result<ImageFile> {
        let (file, kind) = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => (File::options().write(true).open(path)?, Kind::Stream),
            Ok(_) => nameless(&path.canonicalize()?)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => nameless(path)?,
            Err(error) => return Err(error),
        };
        // What a link points to is replaced, not the link.
        let path = if path.exists() { path.canonicalize()? } else { path.to_owned() };
        Ok(ImageFile { file, path, kind, bytes: 0 })
    }

    /// How many bytes have been written, holes included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the whole image its name, once its bytes are on the disk.
    ///
    /// # Errors
    /// When they cannot be; the name is then as it was before, unless it is the folder that cannot be made safe.
    pub fn commit(mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.kind, Kind::Stream) {
            // A disk keeps what it is given when it is told to; a pipe has nothing to keep.
            Kind::Stream => return unless_not_possible(self.file.sync_all()),
            Kind::Unnamed => {
                self.finish()?;
                let hidden = hidden_name(&self.path)?;
                let this = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, this, CWD, &hidden, AtFlags::SYMLINK_FOLLOW)?;
                self.kind = Kind::Hidden(hidden);
            }
            hidden => {
                self.kind = hidden;
                self.finish()?;
            }
        }
        if let Kind::Hidden(hidden) = &self.kind {
            std::fs::rename(hidden, &self.path)?;
            self.kind = Kind::Stream;
        }
        unless_not_possible(File::open(folder(&self.path)).and_then(|folder| folder.sync_all()))
    }

    /// A hole at the end is part of the file only when its length says so.
    fn finish(&self) -> io::Result<()> {
        self.file.set_len(self.bytes)?;
        self.file.sync_all()
    }

    /// Writes bytes, but for long runs of whole pages of zeroes.
    fn write_sparse(&mut self, part: &[u8]) -> io::Result<()> {
        let (pages, rest) = part.split_at(part.len() - part.len() % PAGE_SIZE);
        let bytes = |run: Range<usize>| &pages[run.start * PAGE_SIZE..run.end * PAGE_SIZE];
        let write = |file: &File, run, offset| file.write_all_at(bytes(run), offset);
        self.write_pages(pages.len() / PAGE_SIZE, |index| is_zero(bytes(index..index + 1)), write)?;
        self.file.write_all_at(rest, self.bytes)?;
        self.bytes += rest.len() as u64;
        Ok(())
    }

    fn write_pages(
        &mut self,
        count: usize,
        is_zero: impl Fn(usize) -> bool,
        write: impl Fn(&File, Range<usize>, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        // Of what is not written yet: where it begins, and how many zeroes are at its end.
        let (mut begin, mut zeroes) = (0, 0);
        for index in 0..=count {
            if index < count && is_zero(index) {
                zeroes += 1;
                continue;
            }
            // A run of zeroes has ended, and with the last page everything.
            let hole = if zeroes >= MIN_HOLE_PAGES { zeroes } else { 0 };
            if hole > 0 || index == count {
                let data = begin..index - hole;
                if !data.is_empty() {
                    write(&self.file, data.clone(), self.bytes)?;
                }
                self.bytes += ((data.len() + hole) * PAGE_SIZE) as u64;
                begin = index;
            }
            zeroes = 0;
        }
        Ok(())
    }
}

impl StreamSink for ImageFile {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        for part in parts {
            match self.kind {
                Kind::Stream => {
                    self.file.write_all(part)?;
                    self.bytes += part.len() as u64;
                }
                Kind::Unnamed | Kind::Hidden(_) => self.write_sparse(part)?,
            }
        }
        Ok(())
    }

    fn write_lent(&mut self, front: &[u8], pages: &dyn LentPages) -> io::Result<()> {
        if let Kind::Stream = self.kind {
            let mut data = vec![[0; PAGE_SIZE]; pages.count()];
            data.iter_mut().enumerate().for_each(|(index, page)| pages.copy(index, page));
            return self.write(&[IoSlice::new(front), IoSlice::new(data.as_flattened())]);
        }
        self.write(&[IoSlice::new(front)])?;
        let write = |file: &File, run, offset| pages.write_at(run, file.as_fd(), offset);
        self.write_pages(pages.count(), |index| pages.is_zero(index), write)
    }

    fn end_epoch(&mut self, _epoch: Epoch) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        if let Kind::Hidden(hidden) = &self.kind {
            let _ = std::fs::remove_file(hidden);
        }
    }
}

/// Not everything can be made safe: of what cannot, the system says that the argument is invalid.
fn unless_not_possible(synced: io::Result<()>) -> io::Result<()> {
    match synced {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

fn nameless(path: &Path) -> io::Result<(File, Kind)> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(folder(path), flags | OFlags::TMPFILE, MODE) {
        Ok(file) => Ok((file.into(), Kind::Unnamed)),
        // What a file system says that cannot, or a kernel that does not know.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            let hidden = hidden_name(path)?;
            // Nobody else's, and not where a link leads.
            let file = rustix::fs::open(&hidden, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, MODE)?;
            Ok((file.into(), Kind::Hidden(hidden)))
        }
        Err(error) => Err(error.into()),
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn hidden_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    // Another host may write into the same folder.
    let number = crate::random::number();
    hidden.push(format!(".{number:016x}.partial"));
    Ok(path.with_file_name(hidden))
}

fn is_zero(page: &[u8]) -> bool {
    // Most pages that are not zero show it at once. The rest in one go, which the compiler makes wide.
    let (front, rest) = page.split_at(64);
    let any = |bytes: &[u8]| {
        let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        words.fold(0, |any, word| any | word)
    };
    any(front) == 0 && any(rest) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("colo-image-file-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn names(&self) -> Vec<OsString> {
            std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    proptest! {
        // Each writes to the disk.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn reads_back_as_it_was_written(
            parts in prop::collection::vec((prop::collection::vec(0_u8..3, 0..12), 0_usize..300), 1..6),
        ) {
            let folder = Folder::new("same");
            let path = folder.0.join("image");
            let mut image = ImageFile::create(&path).unwrap();
            let mut expected = Vec::new();
            for (pages, tail) in parts {
                let mut part: Vec<u8> = pages.iter().flat_map(|fill| [*fill & 1; PAGE_SIZE]).collect();
                part.extend(vec![7; tail]);
                image.write(&[IoSlice::new(&part)]).unwrap();
                expected.extend(part);
            }
            prop_assert_eq!(image.bytes(), expected.len() as u64);
            image.commit().unwrap();
            prop_assert!(std::fs::read(&path).unwrap() == expected);
            prop_assert_eq!(folder.names(), ["image"]);
        }
    }

    #[test]
    fn zeroes_take_no_room() {
        let folder = Folder::new("holes");
        let path = folder.0.join("image");
        let mut image = ImageFile::create(&path).unwrap();
        image.write(&[IoSlice::new(b"head"), IoSlice::new(&vec![0; 16 << 20])]).unwrap();
        image.commit().unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!(found.len(), (16 << 20) + 4);
        assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
        assert_eq!(found.mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_committed_leaves_nothing_and_what_was_there_stays() {
        let folder = Folder::new("dropped");
        let path = folder.0.join("image");
        std::fs::write(&path, "before").unwrap();
        let mut image = ImageFile::create(&path).unwrap();
        image.write(&[IoSlice::new(b"half")]).unwrap();
        drop(image);
        assert_eq!(folder.names(), ["image"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"before");

        let mut image = ImageFile::create(&path).unwrap();
        image.write(&[IoSlice::new(b"whole")]).unwrap();
        image.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_device_is_written_to_as_it_is() {
        let mut image = ImageFile::create(Path::new("/dev/null")).unwrap();
        image.write(&[IoSlice::new(&[0; 3 * PAGE_SIZE])]).unwrap();
        image.commit().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
        assert_eq!(ImageFile::create(Path::new("/")).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(ImageFile::create(Path::new("/no/such/folder/x")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
