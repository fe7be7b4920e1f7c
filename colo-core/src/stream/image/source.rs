use super::{ImageError, ImageFault, ImageReadError};
use crate::ids::{PAGE_SIZE, Page};
use rustix::fs::{SeekFrom, fstat, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;

/// What an image is read from. Only a file knows more than how to be read.
pub trait ImageSource: Read {
    /// The first hole that begins within the next `most` bytes and has at least `shortest` of them there: nothing but zeroes, which need
    /// not be read. In bytes from here on. Takes nothing.
    ///
    /// # Errors
    /// The source's.
    fn next_hole(&mut self, most: u64, shortest: u64) -> io::Result<Option<Range<u64>>> {
        let _ = (most, shortest);
        Ok(None)
    }

    /// Passes over so many bytes of a hole that begins here. A source that has no holes need not be able to.
    ///
    /// # Errors
    /// The source's.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let _ = bytes;
        Err(ErrorKind::Unsupported.into())
    }
}

impl ImageSource for File {
    fn next_hole(&mut self, most: u64, shortest: u64) -> io::Result<Option<Range<u64>>> {
        let Ok(here) = seek(&*self, SeekFrom::Current(0)) else {
            // A pipe.
            return Ok(None);
        };
        let found = next_hole(self, here, most, shortest);
        seek(&*self, SeekFrom::Start(here))?;
        // Not every file can tell, and none needs to.
        Ok(found.unwrap_or(None))
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| ErrorKind::InvalidInput)?;
        seek(&*self, SeekFrom::Current(bytes))?;
        Ok(())
    }
}

/// As the trait's, and leaves the file where it likes.
fn next_hole(file: &File, here: u64, most: u64, shortest: u64) -> Result<Option<Range<u64>>, Errno> {
    let end = here + most;
    let mut from = here;
    loop {
        let hole = seek(file, SeekFrom::Hole(from))?;
        if hole >= end {
            return Ok(None);
        }
        let data = match seek(file, SeekFrom::Data(hole)) {
            // No data from there on; the end of a file is the beginning of a hole, too.
            Err(Errno::NXIO) => u64::try_from(fstat(file)?.st_size).unwrap_or(0),
            data => data?,
        };
        if data.min(end) >= hole + shortest {
            return Ok(Some(hole - here..data.min(end) - here));
        }
        if data <= hole {
            return Ok(None);
        }
        from = data;
    }
}

impl ImageSource for &[u8] {}

/// Anything that can be read, as a source of an image.
#[derive(Debug)]
pub struct Flowing<R>(pub R);

impl<R: Read> Read for Flowing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> ImageSource for Flowing<R> {}

/// The bytes of a record's pages: in the record's order, each once.
pub trait PageSource {
    /// What the next pages are, of `most` at most, which is as many as there are still, or less. Zeroes are taken with that; data is to
    /// be [read](PageSource::read).
    ///
    /// # Errors
    /// The source's.
    fn next_run(&mut self, most: usize) -> Result<PageRun, ImageReadError>;

    /// Reads the next pages.
    ///
    /// # Errors
    /// The source's, also when there are not so many.
    fn read(&mut self, pages: &mut [Page]) -> Result<(), ImageReadError>;
}

/// Pages that come one after the other: at least one, if there are any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageRun {
    /// So many of nothing but zeroes.
    Zeroes(usize),
    /// So many to be read.
    Data(usize),
}

/// Pages in memory.
impl PageSource for &[u8] {
    fn next_run(&mut self, most: usize) -> Result<PageRun, ImageReadError> {
        Ok(PageRun::Data(most))
    }

    fn read(&mut self, pages: &mut [Page]) -> Result<(), ImageReadError> {
        let pages = pages.as_flattened_mut();
        match self.split_at_checked(pages.len()) {
            Some((front, rest)) => {
                pages.copy_from_slice(front);
                *self = rest;
                Ok(())
            }
            None => {
                let error = io::Error::from(ErrorKind::UnexpectedEof);
                Err(ImageReadError::Io { offset: 0, error })
            }
        }
    }
}

/// Holes of fewer pages are read: to make a run of its own costs more than that.
const MIN_HOLE_PAGES: usize = 16;

/// The bytes of a PAGE_DATA record's pages that are in the source still. What is not read of them is passed over.
#[derive(Debug)]
pub struct PageBytes<'a, R> {
    pub(super) source: &'a mut R,
    /// Bytes that are still to come of this record.
    pub(super) ahead: &'a mut u64,
    /// Where the record begins.
    pub(super) offset: u64,
    /// Its length, with its header.
    pub(super) bytes: usize,
}

impl<R> PageBytes<'_, R> {
    fn failed(&self, error: io::Error) -> ImageReadError {
        ImageReadError::Io { offset: self.offset, error }
    }
}

impl<R: ImageSource> PageSource for PageBytes<'_, R> {
    fn next_run(&mut self, most: usize) -> Result<PageRun, ImageReadError> {
        let most_bytes = (*self.ahead).min((most * PAGE_SIZE) as u64);
        // A page that lies partly in it is read: so one page less may be left.
        let shortest = ((MIN_HOLE_PAGES + 1) * PAGE_SIZE) as u64;
        let hole = self.source.next_hole(most_bytes, shortest).map_err(|error| self.failed(error))?;
        let Some(hole) = hole else { return Ok(PageRun::Data(most)) };
        let before = (hole.start as usize).div_ceil(PAGE_SIZE);
        if before > 0 {
            return Ok(PageRun::Data(before));
        }
        let pages = hole.end as usize / PAGE_SIZE;
        let bytes = (pages * PAGE_SIZE) as u64;
        self.source.skip(bytes).map_err(|error| self.failed(error))?;
        *self.ahead -= bytes;
        Ok(PageRun::Zeroes(pages))
    }

    fn read(&mut self, pages: &mut [Page]) -> Result<(), ImageReadError> {
        let mut rest = pages.as_flattened_mut();
        if rest.len() as u64 > *self.ahead {
            return Err(self.failed(ErrorKind::UnexpectedEof.into()));
        }
        while !rest.is_empty() {
            match self.source.read(rest) {
                Ok(0) => {
                    let got = self.bytes - *self.ahead as usize;
                    let fault = ImageFault::Truncated { what: "PAGE_DATA", needed: self.bytes, got };
                    return Err(ImageError { offset: self.offset, fault }.into());
                }
                Ok(count) => {
                    *self.ahead -= count as u64;
                    rest = &mut rest[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::io::{Seek, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    /// A page with something in its first and in its last bytes, or in neither.
    fn page(fill: u8) -> Page {
        let mut page = [0; PAGE_SIZE];
        page[..8].fill(fill & 1);
        page[PAGE_SIZE - 8..].fill(fill >> 1);
        page
    }

    /// A file that begins with so many bytes of something else, and has these pages behind that; every block of zeroes is a hole.
    fn sparse(front: usize, fills: &[u8]) -> File {
        let bytes = [vec![9; front], fills.iter().flat_map(|fill| page(*fill)).collect()].concat();
        let file = File::from(memfd_create("sparse", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(bytes.len() as u64).unwrap();
        for (index, block) in
            bytes.chunks(PAGE_SIZE).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        {
            file.write_all_at(block, (index * PAGE_SIZE) as u64).unwrap();
        }
        seek(&file, SeekFrom::Start(front as u64)).unwrap();
        file
    }

    /// Reads all that is there as the bytes of one record; also how many pages were passed over.
    fn read_all(mut file: File, pages: usize) -> Result<(Vec<Page>, usize), ImageReadError> {
        let mut ahead = (pages * PAGE_SIZE) as u64;
        let bytes = pages * PAGE_SIZE;
        let mut source = PageBytes { source: &mut file, ahead: &mut ahead, offset: 0, bytes };
        let (mut read, mut zeroes) = (Vec::new(), 0);
        while read.len() < pages {
            match source.next_run(pages - read.len())? {
                PageRun::Zeroes(count) => {
                    assert!(count >= MIN_HOLE_PAGES);
                    read.extend(vec![[0; PAGE_SIZE]; count]);
                    zeroes += count;
                }
                PageRun::Data(count) => {
                    let mut run = vec![[0xFF; PAGE_SIZE]; count];
                    source.read(&mut run)?;
                    read.extend(run);
                }
            }
        }
        assert_eq!((read.len(), ahead), (pages, 0));
        Ok((read, zeroes))
    }

    proptest! {
        #[test]
        fn a_file_with_holes_is_what_it_would_be_without(
            runs in prop::collection::vec((0_u8..4, 1_usize..60), 1..8),
            front in 0_usize..9000,
        ) {
            let fills: Vec<u8> = runs.iter().flat_map(|(fill, count)| vec![*fill; *count]).collect();
            let (read, zeroes) = read_all(sparse(front, &fills), fills.len()).unwrap();
            let expected: Vec<Page> = fills.iter().map(|fill| page(*fill)).collect();
            prop_assert!(read == expected);
            // Of a long run of zeroes all is passed over but a page at either end, which may share a block with something else.
            let long = fills.chunk_by(|a, b| a == b).filter(|run| run[0] == 0 && run.len() > MIN_HOLE_PAGES + 2);
            prop_assert!(zeroes >= long.map(|run| run.len() - 2).sum(), "{} of {:?}", zeroes, runs);
        }
    }

    #[test]
    fn a_file_that_ends_early() {
        for fill in [0, 1] {
            let file = sparse(100, &[fill; 40]);
            file.set_len(100 + 30 * PAGE_SIZE as u64 + 7).unwrap();
            let error = read_all(file, 40).unwrap_err();
            let text = format!(
                "at byte 0: it ends within PAGE_DATA: {} bytes are needed, {} are there",
                40 * 4096,
                30 * 4096 + 7
            );
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_pipe_has_no_holes() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(&[0; 4 * PAGE_SIZE]).unwrap();
        assert_eq!(read_all(File::from(OwnedFd::from(reader)), 4).unwrap(), (vec![[0; PAGE_SIZE]; 4], 0));
        let mut file = sparse(0, &[0; 40]);
        file.seek(io::SeekFrom::Start(0)).unwrap();
        assert_eq!(file.next_hole(1 << 20, 1).unwrap(), Some(0..40 * PAGE_SIZE as u64));
        assert_eq!(file.next_hole(1 << 20, 1 << 20).unwrap(), None, "it is shorter");
        assert_eq!(file.next_hole(20 << 12, 30 << 12).unwrap(), None, "so much of it is not asked for");
        assert_eq!(file.stream_position().unwrap(), 0, "nothing is taken");
        assert_eq!((&[0_u8; 4096][..]).next_hole(4096, 1).unwrap(), None);
    }
}
