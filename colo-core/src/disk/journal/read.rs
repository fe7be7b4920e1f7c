use super::{Entry, MAX_AT, Mark, RECORD_BYTES, RECORDS_AT, SLOT_BYTES, SUPERBLOCK_BYTES, Superblock};
use crate::disk::segments::Segments;
use std::io;

/// A file, or what stands for one in a test.
pub trait ReadAt {
    /// Fills the buffer from this place on, with zeroes beyond the end of the file.
    ///
    /// # Errors
    /// The file's.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// How long the file is.
    ///
    /// # Errors
    /// The file's.
    fn bytes(&self) -> io::Result<u64>;
}

/// The valid superblock with the higher number.
///
/// # Errors
/// The file's.
pub fn read_superblock(journal: &impl ReadAt) -> io::Result<Option<Superblock>> {
    let mut found: Option<Superblock> = None;
    for slot in 0..2 {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        journal.read_at(slot * SLOT_BYTES, &mut bytes)?;
        let superblock = Superblock::decode(&bytes).filter(|superblock| superblock.offset() == slot * SLOT_BYTES);
        if superblock.as_ref().is_some_and(|one| found.as_ref().is_none_or(|other| one.number > other.number)) {
            found = superblock;
        }
    }
    Ok(found)
}

/// Which segments the file has, and where.
///
/// # Errors
/// The file's.
pub(in crate::disk) fn read_segments(
    journal: &impl ReadAt,
    superblock: &Superblock,
    kept_bytes: u64,
) -> io::Result<Segments> {
    let slots = journal.bytes()?.saturating_sub(RECORDS_AT).div_ceil(superblock.segment_bytes);
    let mut found = Vec::new();
    for slot in 0..slots {
        let mut head = [0; RECORD_BYTES as usize];
        journal.read_at(RECORDS_AT + slot * superblock.segment_bytes, &mut head)?;
        let number = Entry::segment(&head, superblock.generation);
        found.push(number.filter(|number| *number <= MAX_AT / superblock.segment_bytes));
    }
    Ok(Segments::found(superblock, kept_bytes, found.into_iter()))
}

/// All records that count, each with the place behind its head. Returns the mark behind the last.
///
/// # Errors
/// The file's.
pub(in crate::disk) fn read_records(
    journal: &impl ReadAt,
    superblock: &Superblock,
    segments: &Segments,
    mut with: impl FnMut(Entry, u64),
) -> io::Result<Mark> {
    let mut mark = superblock.start;
    let mut data = Vec::new();
    loop {
        let Some(place) = segments.place(mark.at) else { return Ok(mark) };
        let mut head = [0; RECORD_BYTES as usize];
        journal.read_at(place, &mut head)?;
        let Some((entry, behind)) = Entry::decode(&head, superblock.generation, mark) else {
            return Ok(mark);
        };
        let is_first = mark.at % segments.bytes() == 0;
        let is_in_place = match entry {
            Entry::Segment { number, .. } => is_first && number == mark.at / segments.bytes(),
            _ => !is_first && entry.record_bytes() <= segments.left(mark.at),
        };
        if !is_in_place {
            return Ok(mark);
        }
        if let Entry::Data { length, checksum, .. } | Entry::Scratch { length, checksum } = entry {
            data.resize(length as usize, 0);
            journal.read_at(place + RECORD_BYTES, &mut data)?;
            if crc32c::crc32c(&data) != checksum {
                return Ok(mark);
            }
        }
        with(entry, mark.at + RECORD_BYTES);
        mark = behind;
    }
}
