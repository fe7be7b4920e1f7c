//! How records come to the journal's end.

use super::{Action, EpochStore, Long, Work};
use crate::disk::journal::{Entry, MAX_DATA_BYTES, RECORD_BYTES};
use bytes::Bytes;

/// Long data begin at a multiple of that: so a file system copies them page by page, or shares them.
const PAGE_BYTES: u64 = 4096;

/// What stands where there is nothing to say.
static ZEROES: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

impl EpochStore {
    /// Adds a record to the journal, and returns the place of its data, for which there is [room](EpochStore::make_room).
    pub(super) fn append(&mut self, entry: Entry, data: Option<Bytes>) -> u64 {
        let number = self.log.end.at / self.segments.bytes();
        if self.log.end.at % self.segments.bytes() == 0 {
            self.segments.begin(number);
            self.put(Entry::Segment { number, life: self.log.life }, None);
        }
        self.put(entry, data)
    }

    /// Sees to it that data can be appended, of that length if there is so much room in a segment. Returns how much there is.
    pub(super) fn make_room(&mut self, length: u64) -> u64 {
        if self.segments.left(self.log.end.at) == RECORD_BYTES {
            self.fill(RECORD_BYTES);
        }
        if length >= self.config.long_bytes.max(PAGE_BYTES) {
            let end = self.record_at();
            let gap = (end + RECORD_BYTES).next_multiple_of(PAGE_BYTES) - RECORD_BYTES - end;
            if gap > 0 && gap + RECORD_BYTES + PAGE_BYTES <= self.segments.left(end) {
                self.fill(gap);
            }
        }
        length.min(MAX_DATA_BYTES).min(self.segments.left(self.record_at()) - RECORD_BYTES)
    }

    /// Where in its file that place of the journal is, which somebody needs.
    pub(super) fn place(&self, at: u64) -> u64 {
        self.segments.place(at).expect("what is needed has not been given back")
    }

    /// Where the next record will stand.
    fn record_at(&self) -> u64 {
        let end = self.log.end.at;
        // Behind the one that a segment begins with.
        if end % self.segments.bytes() == 0 { end + RECORD_BYTES } else { end }
    }

    /// A record that says nothing, of that length with its head.
    fn fill(&mut self, bytes: u64) {
        let data = Bytes::from_static(&ZEROES[..(bytes - RECORD_BYTES) as usize]);
        self.append(Entry::Scratch { length: data.len() as u64, checksum: crc32c::crc32c(&data) }, Some(data));
    }

    fn put(&mut self, entry: Entry, data: Option<Bytes>) -> u64 {
        let mark = self.log.end;
        let (head, behind) = entry.encode(self.log.generation, mark);
        let padding =
            (behind.at - mark.at - RECORD_BYTES).saturating_sub(data.as_ref().map_or(0, |data| data.len() as u64));
        let mut parts = vec![Bytes::copy_from_slice(&head)];
        parts.extend(data.filter(|data| !data.is_empty()));
        if padding > 0 {
            parts.push(Bytes::from_static(&ZEROES[..padding as usize]));
        }
        self.log.end = behind;
        let at = mark.at + RECORD_BYTES;
        let long = match entry {
            Entry::Data { disk, offset, length, .. } if length >= self.config.long_bytes => {
                Some(Long { disk, part: offset..offset + length, at })
            }
            _ => None,
        };
        let place = self.place(mark.at);
        let id = self.ask(Work::Append(long), Action::Journal { at: place, parts });
        self.log.writes.insert(id, mark.at);
        at
    }
}
