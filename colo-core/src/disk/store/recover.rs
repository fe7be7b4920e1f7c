//! What a journal that was left behind makes of the disks.

use super::{EpochStore, RecoverError, StoreConfig, StoreError};
use crate::disk::Content;
use crate::disk::journal::{Entry, RECORDS_AT, ReadAt, read_records, read_segments, read_superblock};
use crate::disk::layer::Layer;

impl EpochStore {
    /// Takes a journal up that was left behind: the disks are at the last epoch that counts, once it has been written to them, and everything
    /// after that is forgotten. But what a guest has written since it serves counts as far as it is there: where only the process was gone, the
    /// guest has gone on, and has been told of it. `life` is a random number. What is in the file must have been made durable: a record in it
    /// must not outlive the superblock.
    ///
    /// # Errors
    /// [`RecoverError`].
    pub fn recover(
        config: StoreConfig,
        sizes: &[u64],
        journal: &impl ReadAt,
        life: u64,
    ) -> Result<EpochStore, RecoverError> {
        let Some(superblock) = read_superblock(journal)? else {
            // The first superblock is durable before there are records.
            let has_records = journal.bytes()? > RECORDS_AT;
            return Err(if has_records { RecoverError::NoJournal } else { RecoverError::NotBegun });
        };
        if superblock.sizes != sizes {
            return Err(RecoverError::OtherDisks { theirs: superblock.sizes, ours: sizes.to_vec() });
        }
        if superblock.is_shared != config.is_shared {
            return Err(RecoverError::OtherKind { is_shared: superblock.is_shared });
        }
        let segments = read_segments(journal, &superblock, config.journal_bytes)?;
        let mut store = EpochStore::with(config, &superblock, segments.clone());
        let mut wrong = None;
        let end = read_records(journal, &superblock, &segments, |entry, at| {
            if let Err(error) = store.take_up(entry, at) {
                wrong.get_or_insert(error);
            }
        })?;
        if let Some(error) = wrong {
            return Err(RecoverError::BadRecord(error.to_string()));
        }
        // What was read may not have been durable: it is made so before anything is written to the disks.
        (store.log.end, store.log.life) = (end, life);
        store.log.start.data_from = store.data_from().min(superblock.start.at);
        if store.serves && !(store.open.is_empty() && store.closed.is_empty()) {
            let epoch = store.last_barrier().next();
            store.close(epoch);
            store.count(epoch);
        } else {
            store.drop_uncommitted();
            store.append(Entry::Abort { life }, None);
        }
        store.log.wanted = store.log.end.at;
        Ok(store)
    }

    /// A record that was found in the journal, and the place behind its head.
    fn take_up(&mut self, entry: Entry, at: u64) -> Result<(), StoreError> {
        let (disk, offset, length, content) = match entry {
            Entry::Data { disk, offset, length, .. } => (disk, offset, length, Content::Stored { at }),
            Entry::Refer { disk, offset, length, at } => {
                if self.segments.place(at).is_none() || length > self.segments.left(at) {
                    return Err(StoreError::NotThere(at));
                }
                self.open.data_from = self.open.data_from.min(at);
                (disk, offset, length, Content::Stored { at })
            }
            Entry::Zeroes { disk, offset, length, may_unmap } => (disk, offset, length, Content::Zeroes { may_unmap }),
            Entry::Barrier { epoch, .. } => {
                let mut layer = std::mem::replace(&mut self.open, Layer::new(self.sizes.len(), self.log.start.mark));
                (layer.epoch, layer.before) = (epoch, self.last_barrier());
                self.closed.push_back(layer);
                return Ok(());
            }
            Entry::Commit(epoch) => {
                self.move_closed(epoch, at);
                return Ok(());
            }
            Entry::Abort { .. } => {
                self.drop_uncommitted();
                return Ok(());
            }
            Entry::Serve => {
                (self.serves, self.log.serves_from) = (true, at);
                return Ok(());
            }
            Entry::Scratch { .. } | Entry::Segment { .. } => return Ok(()),
        };
        let range = offset..offset.saturating_add(length);
        self.check_range(disk, &range)?;
        self.open.insert(disk, range, content);
        Ok(())
    }
}
