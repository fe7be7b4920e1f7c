mod append;
mod before;
mod error;
mod log;
mod progress;
mod types;

pub use error::{RecoverError, StoreError};
pub use types::{Action, ActionId, Piece, ReadId, Source, StoreConfig, Taken};

use super::extents::Cut as _;
use super::journal::{
    Entry, Mark, RECORD_BYTES, ReadAt, SEGMENT_BYTES, Superblock, read_records, read_segments, read_superblock,
};
use super::layer::Layer;
use super::segments::Segments;
use super::{Change, Content, MAX_DISKS};
use crate::ids::Epoch;
use log::{Log, Start, SuperblockState};
use progress::Folding;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// The disks of a secondary: see the [module](super).
pub struct EpochStore {
    config: StoreConfig,
    sizes: Vec<u64>,
    /// What the secondary's own guest has written since the last commit.
    overlay: Layer,
    /// What has come since the last barrier: of the primary; or, of a guest that serves, since its last flush.
    open: Layer,
    /// Epochs that are whole, and do not count yet.
    closed: VecDeque<Layer>,
    /// Epochs that count, and are not on the disks yet.
    committed: VecDeque<Layer>,
    folding: Option<Folding>,
    /// The last that counts.
    epoch: Epoch,
    serves: bool,
    /// Behind which place of the journal it does, if the journal says so and no superblock yet.
    served_from: u64,
    log: Log,
    actions: VecDeque<(ActionId, Action)>,
    work: BTreeMap<ActionId, Work>,
    next_id: u64,
    /// Reads that look into the journal.
    readers: BTreeSet<ReadId>,
    /// Where in its file the journal is.
    segments: Segments,
    garbage: Vec<Layer>,
}

/// What a store needs no more.
#[must_use]
pub struct Garbage(Vec<Layer>);

impl Garbage {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What an action is for.
enum Work {
    /// Of a write that need not be kept in memory once the journal has it, if it is so long.
    Append(Option<Long>),
    Superblock,
    Sync,
    Fold(u64),
    FoldSync,
    Release(u64),
}

/// A part of a disk, and where in the journal its data stand.
struct Long {
    disk: u8,
    part: Range<u64>,
    at: u64,
}

impl EpochStore {
    /// For disks of these sizes, which are the primary's at the moment at which `epoch` begins, with a new journal. `generation` is a random
    /// number.
    ///
    /// # Panics
    /// With more than [`MAX_DISKS`] disks, or segments of another length than one may have.
    pub fn new(config: StoreConfig, sizes: &[u64], epoch: Epoch, generation: u64) -> EpochStore {
        let segment_bytes = config.segment_bytes;
        assert!(SEGMENT_BYTES.contains(&segment_bytes) && segment_bytes % RECORD_BYTES == 0, "{segment_bytes} bytes");
        let (start, sizes) = (Mark::BEGIN, sizes.to_vec());
        let (serves, is_shared) = (false, config.is_shared);
        let superblock = Superblock { generation, number: 0, epoch, start, serves, is_shared, segment_bytes, sizes };
        let segments = Segments::new(segment_bytes, config.journal_bytes);
        let mut store = EpochStore::with(config, &superblock, segments);
        store.write_superblock(store.log.start, epoch);
        store
    }

    /// Takes a journal up that was left behind: the disks are at the last epoch that counts, once it has been written to them, and everything
    /// after that is forgotten. `life` is a random number.
    ///
    /// # Errors
    /// [`RecoverError`].
    pub fn recover(
        config: StoreConfig,
        sizes: &[u64],
        journal: &impl ReadAt,
        life: u64,
    ) -> Result<EpochStore, RecoverError> {
        let superblock = read_superblock(journal)?.ok_or(RecoverError::NoJournal)?;
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
        store.drop_uncommitted();
        store.append(Entry::Abort { life }, None);
        store.log.wanted = store.log.end.at;
        Ok(store)
    }

    fn with(config: StoreConfig, superblock: &Superblock, segments: Segments) -> EpochStore {
        let (sizes, end) = (superblock.sizes.clone(), superblock.start);
        assert!(sizes.len() <= MAX_DISKS, "at most {MAX_DISKS} disks");
        EpochStore {
            config,
            overlay: Layer::new(sizes.len(), end),
            open: Layer::new(sizes.len(), end),
            closed: VecDeque::new(),
            committed: VecDeque::new(),
            folding: None,
            epoch: superblock.epoch,
            serves: superblock.serves,
            served_from: 0,
            log: Log {
                generation: superblock.generation,
                life: superblock.generation,
                number: superblock.number,
                end,
                writes: BTreeMap::new(),
                durable: end.at,
                wanted: end.at,
                sync: None,
                superblock: SuperblockState::Durable,
                start: Start { mark: superblock.start, data_from: superblock.start.at },
            },
            actions: VecDeque::new(),
            work: BTreeMap::new(),
            next_id: 0,
            readers: BTreeSet::new(),
            segments,
            garbage: Vec::new(),
            sizes,
        }
    }

    /// The last epoch that counts.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the secondary's guest serves.
    pub fn serves(&self) -> bool {
        self.serves
    }

    /// The last epoch that would count after this host had lost its power now.
    pub fn durable_epoch(&self) -> Epoch {
        let durable = self.log.durable;
        self.committed.iter().rev().find(|layer| layer.end <= durable).map_or_else(
            || self.folding.as_ref().map_or(self.epoch_before_layers(), |folding| folding.layer.epoch),
            |layer| layer.epoch,
        )
    }

    /// The last epoch that is whole, whether it counts or not.
    pub fn last_barrier(&self) -> Epoch {
        self.closed.back().map_or(self.epoch, |layer| layer.epoch)
    }

    /// Bytes of writes that wait for a commit.
    pub fn pending_bytes(&self) -> u64 {
        self.overlay.bytes() + self.open.bytes() + self.closed.iter().map(Layer::bytes).sum::<u64>()
    }

    /// Bytes of data that are kept in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.layers().map(Layer::memory_bytes).sum()
    }

    /// Bytes of the journal that are in use.
    pub fn journal_bytes(&self) -> u64 {
        self.log.end.at - self.log.start.data_from.min(self.data_from())
    }

    /// Whether so much waits for a commit that there should be a checkpoint.
    pub fn wants_checkpoint(&self) -> bool {
        !self.serves && self.pending_bytes() >= self.config.pending_bytes / 2
    }

    /// Whether writers must wait until there has been a checkpoint.
    pub fn is_full(&self) -> bool {
        !self.serves && self.pending_bytes() >= self.config.pending_bytes
    }

    /// The primary's disk has this content there now: a write, zeroes or a discard of the open epoch. Where both hosts have the disk: it had
    /// this before the open epoch. Of a guest that serves: its own.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`], [`StoreError::BadLength`].
    pub fn write(&mut self, disk: u8, range: Range<u64>, change: Change) -> Result<Taken, StoreError> {
        self.check(disk, &range, &change)?;
        if self.is_direct() {
            return Ok(Taken::Direct);
        }
        match self.keeps_before() {
            true => self.log_before(disk, range, &change.into()),
            false => self.log_write(disk, range, change.into()),
        }
        Ok(Taken::Kept)
    }

    /// The secondary's own guest has written that, which is thrown away with the next commit. Only until it serves.
    ///
    /// # Errors
    /// As for [`EpochStore::write`]; [`StoreError::NotNow`].
    pub fn write_overlay(&mut self, disk: u8, range: Range<u64>, change: Change) -> Result<(), StoreError> {
        self.check(disk, &range, &change)?;
        if self.serves {
            return Err(StoreError::NotNow("while it serves"));
        }
        self.overlay.insert(disk, range, change.into());
        Ok(())
    }

    /// What has come since the last barrier is the whole of this epoch.
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`] unless it is the one after the last; [`StoreError::NotNow`].
    pub fn barrier(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        let last = self.last_barrier();
        if self.serves {
            return Err(StoreError::NotNow("while it serves"));
        }
        if epoch != last.next() {
            return Err(StoreError::OutOfOrder { what: "a barrier of", epoch, last });
        }
        self.close(epoch);
        Ok(())
    }

    /// This epoch, which is whole, counts from here on, and whatever came before it; what the secondary's own guest has written since is
    /// forgotten. It takes no longer for more data.
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`] when it is not whole; [`StoreError::NotNow`].
    pub fn commit(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        if self.serves {
            return Err(StoreError::NotNow("while it serves"));
        }
        if epoch <= self.epoch || epoch > self.last_barrier() {
            return Err(StoreError::OutOfOrder { what: "a commit of", epoch, last: self.last_barrier() });
        }
        self.count(epoch);
        let overlay = Layer::new(self.sizes.len(), self.log.end);
        self.garbage.push(std::mem::replace(&mut self.overlay, overlay));
        Ok(())
    }

    /// What has come and does not count is forgotten: the primary begins its open epoch anew.
    pub fn abort(&mut self) {
        if !self.serves {
            self.drop_uncommitted();
            self.append(Entry::Abort { life: self.log.life }, None);
        }
    }

    /// The primary is gone, and the secondary's guest serves: what of the primary's does not count is forgotten, what the guest itself has
    /// written stays. From here on [`EpochStore::write`] is the guest's.
    ///
    /// # Errors
    /// [`StoreError::NotNow`] the second time.
    pub fn fail_over(&mut self) -> Result<(), StoreError> {
        if self.serves {
            return Err(StoreError::NotNow("twice"));
        }
        if self.keeps_before() {
            self.go_back();
            return Ok(());
        }
        self.abort();
        self.append(Entry::Serve, None);
        (self.serves, self.served_from) = (true, self.log.end.at);
        let overlay = std::mem::replace(&mut self.overlay, Layer::new(self.sizes.len(), self.log.end));
        // Its scratch stays in the journal for as long as this layer needs it.
        self.open.data_from = overlay.data_from;
        for (disk, range, content) in overlay.extents() {
            self.log_write(disk, range, content.clone());
        }
        self.garbage.push(overlay);
        self.flush();
        self.log.wanted = self.log.end.at;
        Ok(())
    }

    /// Of a guest that serves: says up to where the journal must be [durable](EpochStore::is_durable) for all that it has written to be safe.
    /// Where the store has nothing any more the disks must be made durable instead.
    pub fn flush(&mut self) -> u64 {
        if self.serves && !self.open.is_empty() {
            let epoch = self.epoch.next();
            self.close(epoch);
            self.count(epoch);
        }
        self.log.end.at
    }

    /// Makes everything durable that has come so far: for an epoch that must be safe here before it counts anywhere.
    pub fn make_durable(&mut self) -> u64 {
        self.log.wanted = self.log.end.at;
        self.log.end.at
    }

    /// Whether the journal is durable up to there.
    pub fn is_durable(&self, at: u64) -> bool {
        self.log.durable >= at
    }

    /// Whether the store has nothing to do any more: writes and flushes are between the guest and its disks.
    pub fn is_direct(&self) -> bool {
        // Else a recovery would put something old over what is written from here on.
        self.serves
            && self.open.is_empty()
            && self.committed.is_empty()
            && self.folding.is_none()
            && self.log.start.mark == self.log.end
    }

    /// Whether everything that counts is on the disks.
    pub fn is_settled(&self) -> bool {
        self.committed.is_empty() && self.folding.is_none()
    }

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

    /// Looks for a part in these layers, then in those that count, the latest first.
    fn find<'a>(&'a self, disk: u8, range: Range<u64>, first: impl Iterator<Item = &'a Layer>) -> Vec<Piece> {
        let (mut pieces, mut missing) = (Vec::new(), vec![range]);
        let folding = self.folding.as_ref().map(|folding| &folding.layer);
        for layer in first.chain(self.committed.iter().rev()).chain(folding) {
            let parts = std::mem::take(&mut missing);
            for (range, content) in parts.into_iter().flat_map(|part| layer.map(disk).read(part)) {
                match content {
                    None => missing.push(range),
                    Some(Content::Memory { bytes, .. }) => pieces.push((range, Source::Memory(bytes))),
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

    /// A read is done.
    pub fn read_done(&mut self, id: ReadId) {
        self.readers.remove(&id);
        self.pump();
    }

    /// The next thing to be done. To be asked for after each other call, until there is none.
    pub fn poll_action(&mut self) -> Option<(ActionId, Action)> {
        self.pump();
        self.actions.pop_front()
    }

    /// What is needed no more, to be let go of where nobody waits: there may be much of it.
    pub fn take_garbage(&mut self) -> Garbage {
        Garbage(std::mem::take(&mut self.garbage))
    }

    /// Something has been done. (What cannot be done is the end of the store: nothing depends on it but what the primary has, too.)
    pub fn done(&mut self, id: ActionId) {
        let Some(work) = self.work.remove(&id) else { return };
        match work {
            Work::Append(long) => {
                self.log.writes.remove(&id);
                if let Some(Long { disk, part, at }) = long {
                    let written = at..at + (part.end - part.start);
                    for layer in self.layers_mut() {
                        layer.forget_written(disk, part.clone(), &written);
                    }
                }
            }
            Work::Superblock => {
                if let SuperblockState::Writing(start) = self.log.superblock {
                    self.log.superblock = SuperblockState::Written(start);
                }
            }
            Work::Sync => {
                self.log.durable = self.log.durable.max(self.log.sync.take().unwrap_or(0));
                self.segments.settle();
                if let SuperblockState::Syncing(start) = self.log.superblock {
                    (self.log.superblock, self.log.start) = (SuperblockState::Durable, start);
                }
            }
            Work::Fold(bytes) => {
                if let Some(folding) = &mut self.folding {
                    folding.bytes_in_flight -= bytes;
                    folding.writes -= 1;
                }
            }
            Work::FoldSync => {
                if let Some(folding) = &mut self.folding {
                    folding.syncs -= 1;
                }
            }
            Work::Release(slot) => self.segments.given_back(slot),
        }
        self.pump();
    }
}

/// The parts.
impl EpochStore {
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        let folding = self.folding.as_ref().map(|folding| &folding.layer);
        [&self.overlay, &self.open].into_iter().chain(&self.closed).chain(&self.committed).chain(folding)
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut Layer> {
        let folding = self.folding.as_mut().map(|folding| &mut folding.layer);
        [&mut self.overlay, &mut self.open]
            .into_iter()
            .chain(&mut self.closed)
            .chain(&mut self.committed)
            .chain(folding)
    }

    /// The epoch that the disks are at without what is in layers.
    fn epoch_before_layers(&self) -> Epoch {
        let folding = self.folding.as_ref().map(|folding| &folding.layer);
        let first = folding.into_iter().chain(&self.committed).next();
        first.map_or(self.epoch, |layer| layer.before)
    }

    fn check(&self, disk: u8, range: &Range<u64>, change: &Change) -> Result<(), StoreError> {
        self.check_range(disk, range)?;
        let expected = range.end - range.start;
        match change {
            Change::Data(bytes) if bytes.len() as u64 != expected => {
                Err(StoreError::BadLength { expected, got: bytes.len() as u64 })
            }
            _ => Ok(()),
        }
    }

    fn check_range(&self, disk: u8, range: &Range<u64>) -> Result<(), StoreError> {
        let size = self.sizes.get(usize::from(disk)).copied().unwrap_or(0);
        if range.start <= range.end && range.end <= size {
            return Ok(());
        }
        Err(StoreError::OutOfRange { disk, range: range.clone(), size })
    }

    /// Notes a write of the open epoch, in the journal and here; in pieces, where no record is so long.
    fn log_write(&mut self, disk: u8, range: Range<u64>, content: Content) {
        if self.open.is_empty() {
            self.open.begin = self.log.end;
        }
        let mut offset = range.start;
        while offset < range.end {
            let all = range.end - offset;
            let is_new = matches!(content, Content::Memory { at: None, .. });
            let length = if is_new { self.make_room(all) } else { all };
            let content = match content.cut(offset - range.start, length) {
                Content::Memory { bytes, at: None } => {
                    let checksum = crc32fast::hash(&bytes);
                    let at = self.append(Entry::Data { disk, offset, length, checksum }, Some(bytes.clone()));
                    Content::Memory { bytes, at: Some(at) }
                }
                scratch @ (Content::Memory { at: Some(at), .. } | Content::Stored { at }) => {
                    self.append(Entry::Refer { disk, offset, length, at }, None);
                    scratch
                }
                zeroes @ Content::Zeroes { may_unmap } => {
                    self.append(Entry::Zeroes { disk, offset, length, may_unmap }, None);
                    zeroes
                }
            };
            self.open.insert(disk, offset..offset + length, content);
            offset += length;
        }
    }

    fn close(&mut self, epoch: Epoch) {
        if self.open.is_empty() {
            self.open.begin = self.log.end;
        }
        self.append(Entry::Barrier(epoch), None);
        let mut layer = std::mem::replace(&mut self.open, Layer::new(self.sizes.len(), self.log.end));
        (layer.epoch, layer.before) = (epoch, self.last_barrier());
        self.closed.push_back(layer);
    }

    fn count(&mut self, epoch: Epoch) {
        self.append(Entry::Commit(epoch), None);
        let end = self.log.end.at;
        self.move_closed(epoch, end);
        self.log.wanted = end;
    }

    /// Closed epochs up to this one count, once the journal is durable up to there.
    fn move_closed(&mut self, epoch: Epoch, end: u64) {
        while self.closed.front().is_some_and(|layer| layer.epoch <= epoch) {
            let Some(mut layer) = self.closed.pop_front() else { break };
            if self.keeps_before() {
                // The disks have it.
                self.garbage.push(layer);
                continue;
            }
            layer.end = end;
            self.committed.push_back(layer);
        }
        self.epoch = epoch;
    }

    fn drop_uncommitted(&mut self) {
        let open = std::mem::replace(&mut self.open, Layer::new(self.sizes.len(), self.log.end));
        self.garbage.push(open);
        self.garbage.extend(self.closed.drain(..));
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
            Entry::Barrier(epoch) => {
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
            Entry::Serve if self.config.is_shared => {
                self.count_restored(at);
                return Ok(());
            }
            Entry::Serve => {
                (self.serves, self.served_from) = (true, at);
                return Ok(());
            }
            Entry::Scratch { .. } | Entry::Segment { .. } => return Ok(()),
        };
        let range = offset..offset.saturating_add(length);
        self.check_range(disk, &range)?;
        self.open.insert(disk, range, content);
        Ok(())
    }

    fn write_superblock(&mut self, start: Start, epoch: Epoch) {
        self.log.number += 1;
        let (generation, number) = (self.log.generation, self.log.number);
        // Not before the record that says so is: it may be torn off.
        let serves = self.serves && self.served_from <= start.mark.at;
        let (segment_bytes, sizes, is_shared) = (self.segments.bytes(), self.sizes.clone(), self.config.is_shared);
        let start_mark = start.mark;
        let superblock =
            Superblock { generation, number, epoch, start: start_mark, serves, is_shared, segment_bytes, sizes };
        self.log.superblock = SuperblockState::Writing(start);
        let action = Action::Journal { at: superblock.offset(), parts: vec![superblock.encode().into()] };
        self.ask(Work::Superblock, action);
    }

    fn ask(&mut self, work: Work, action: Action) -> ActionId {
        let id = ActionId(self.number());
        self.work.insert(id, work);
        self.actions.push_back((id, action));
        id
    }

    fn number(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
