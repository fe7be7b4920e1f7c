use crate::disk::ActionId;
use crate::disk::backend::size_of;
use crate::disk::journal::ReadAt;
use bytes::Bytes;
use rustix::fs::copy_file_range;
use rustix::io::{Errno, pwritev};
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// So many parts are written by one call: `IOV_MAX`.
const MAX_PARTS: usize = 1024;

/// Writes to a journal, one after the other: those that are neighbours by one call.
pub(super) fn write_journal(journal: &File, writes: &[(ActionId, u64, Vec<Bytes>)]) -> io::Result<()> {
    let mut rest = writes.iter().peekable();
    while let Some((_, at, parts)) = rest.next() {
        let mut all = parts.clone();
        let mut end = at + bytes_of(parts);
        while let Some((_, at, parts)) =
            rest.next_if(|(_, at, parts)| *at == end && all.len() + parts.len() <= MAX_PARTS)
        {
            all.extend_from_slice(parts);
            end = at + bytes_of(parts);
        }
        write_parts(journal, *at, &all)?;
    }
    Ok(())
}

fn bytes_of(parts: &[Bytes]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}

/// Writes these parts, one behind the other.
pub(super) fn write_parts(file: &File, mut at: u64, parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        match pwritev(file, slices, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                at += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Copies a part of the journal to a disk, a piece at a time.
pub(super) fn copy(journal: &File, mut from: u64, disk: &File, range: &Range<u64>) -> io::Result<()> {
    let mut to = range.start;
    // Within the kernel, or not at all where file systems can share. Not between any two files.
    while to < range.end {
        let rest = (range.end - to) as usize;
        match copy_file_range(journal, Some(&mut from), disk, Some(&mut to), rest) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let range = to..range.end;
    const PIECE_BYTES: u64 = 1 << 20;
    let mut buffer = vec![0; (range.end - range.start).min(PIECE_BYTES) as usize];
    let mut at = range.start;
    while at < range.end {
        let piece = &mut buffer[..(range.end - at).min(PIECE_BYTES) as usize];
        journal.read_exact_at(piece, from)?;
        disk.write_all_at(piece, at)?;
        (from, at) = (from + piece.len() as u64, at + piece.len() as u64);
    }
    Ok(())
}

/// A journal's file, as recovery reads it.
pub(super) struct JournalFile<'a>(pub(super) &'a File);

impl ReadAt for JournalFile<'_> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.0.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes[filled..].fill(0);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        size_of(self.0)
    }
}

pub(super) fn sizes(disks: &[File]) -> io::Result<Vec<u64>> {
    disks.iter().map(size_of).collect()
}
