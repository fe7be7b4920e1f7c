//! Where what is read is.

use super::{EpochStore, Piece, ReadId, Source, StoreError};
use crate::disk::Content;
use crate::disk::layer::Layer;
use std::ops::Range;

impl EpochStore {
    /// Where what the secondary's guest reads is, piece by piece and without gaps. Until [`EpochStore::read_done`] those places stay as they
    /// are.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`].
    pub fn read(&mut self, disk: u8, range: Range<u64>) -> Result<(ReadId, Vec<Piece>), StoreError> {
        self.check_range(disk, &range)?;
        let own = if self.serves { &self.open } else { &self.overlay };
        let pieces = match self.keeps_before() {
            true => self.find_before(disk, range),
            false => self.find(disk, range, std::iter::once(own)),
        };
        Ok(self.begin_read(pieces))
    }

    /// The same for what the primary's guest reads there, as far as its writes have come: those that do not count yet are seen, and what the
    /// secondary's guest has written is not.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`]; [`StoreError::NotNow`] once there is no primary.
    pub fn read_primary(&mut self, disk: u8, range: Range<u64>) -> Result<(ReadId, Vec<Piece>), StoreError> {
        self.check_range(disk, &range)?;
        if self.serves {
            return Err(StoreError::NotNow("while it serves"));
        }
        if self.config.is_shared {
            return Err(StoreError::NotNow("where both hosts have the disk"));
        }
        let pieces = self.find(disk, range, std::iter::once(&self.open).chain(self.closed.iter().rev()));
        Ok(self.begin_read(pieces))
    }

    /// A read is done.
    pub fn read_done(&mut self, id: ReadId) {
        self.readers.remove(&id);
        self.pump();
    }

    /// Looks for a part in these layers, then in those that count, the latest first.
    pub(super) fn find<'a>(
        &'a self,
        disk: u8,
        range: Range<u64>,
        first: impl Iterator<Item = &'a Layer>,
    ) -> Vec<Piece> {
        let (mut pieces, mut missing) = (Vec::new(), vec![range]);
        let folding = self.folding.as_ref().map(|folding| &folding.layer);
        for layer in first.chain(self.committed.iter().rev()).chain(folding) {
            let parts = std::mem::take(&mut missing);
            for (range, content) in parts.into_iter().flat_map(|part| layer.map(disk).read(part)) {
                match content {
                    None => missing.push(range),
                    Some(Content::Memory { bytes, .. }) => {
                        pieces.push((range, Source::Memory(bytes.as_bytes().clone())));
                    }
                    Some(Content::Stored { at }) => pieces.push((range, Source::Journal { at: self.place(at) })),
                    Some(Content::Zeroes { .. }) => pieces.push((range, Source::Zeroes)),
                }
            }
        }
        pieces.extend(missing.into_iter().map(|range| (range, Source::Disk)));
        pieces.sort_by_key(|(range, _)| range.start);
        pieces
    }

    fn begin_read(&mut self, pieces: Vec<Piece>) -> (ReadId, Vec<Piece>) {
        let id = ReadId(self.number());
        if pieces.iter().any(|(_, source)| matches!(source, Source::Journal { .. })) {
            self.readers.insert(id);
        }
        (id, pieces)
    }
}
