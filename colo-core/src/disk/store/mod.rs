mod append;
mod before;
mod epochs;
mod error;
mod limits;
mod log;
mod progress;
mod read;
mod recover;
mod types;

pub use error::{RecoverError, StoreError};
pub use types::{Action, ActionId, Piece, ReadId, Source, StoreConfig, Taken};

use super::journal::{Entry, Mark, RECORD_BYTES, SEGMENT_BYTES, Superblock};
use super::layer::Layer;
use super::segments::Segments;
use super::{Change, MAX_DISKS};
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
    /// There are not more bytes of data in memory: it is counted when these are too many.
    memory_at_most: u64,
    /// The last that counts.
    epoch: Epoch,
    serves: bool,
    log: Log,
    actions: VecDeque<(ActionId, Action)>,
    work: BTreeMap<ActionId, Work>,
    next_id: u64,
    /// Reads that look into the journal.
    readers: BTreeSet<ReadId>,
    /// Below that place of the journal nothing is needed but by reads up to this one.
    retiring: Option<(u64, ReadId)>,
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
    /// number. Until it has [begun](EpochStore::has_begun) nothing should come to it.
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
            memory_at_most: 0,
            epoch: superblock.epoch,
            serves: superblock.serves,
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
                serves_from: if superblock.serves { end.at } else { u64::MAX },
            },
            actions: VecDeque::new(),
            work: BTreeMap::new(),
            next_id: 0,
            readers: BTreeSet::new(),
            retiring: None,
            segments,
            garbage: Vec::new(),
            sizes,
        }
    }

    /// Whether a loss of power leaves a journal behind. One that has records and no superblock is damaged, and not taken for a new one.
    pub fn has_begun(&self) -> bool {
        self.log.number > 1 || self.log.superblock == SuperblockState::Durable
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

    /// The primary's disk has this content there now: a write, zeroes or a discard of the open epoch. Where both hosts have the disk: it had
    /// this before the open epoch. Of a guest that serves: its own, of which it must not be told before the journal has been
    /// [written](EpochStore::is_written) so far.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`], [`StoreError::BadLength`].
    pub fn write(&mut self, disk: u8, range: Range<u64>, change: Change) -> Result<Taken, StoreError> {
        self.check(disk, &range, &change)?;
        if self.is_direct() {
            return Ok(Taken::Direct);
        }
        self.note_memory(&range, &change);
        match self.keeps_before() {
            true => self.log_before(disk, range, &change.into()),
            false => self.log_write(disk, range, change.into()),
        }
        Ok(Taken::Kept { until: self.log.end.at })
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
        self.note_memory(&range, &change);
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
        let overlay = self.take_overlay();
        self.garbage.push(overlay);
        Ok(())
    }

    /// What has come and does not count is forgotten: the primary begins its open epoch anew.
    pub fn abort(&mut self) {
        if !self.serves {
            self.drop_uncommitted();
            self.append(Entry::Abort { life: self.log.life }, None);
        }
    }

    /// The primary is gone, and the secondary's guest serves: what of the primary's does not count is forgotten, or undone where both hosts
    /// have the disks; what the guest itself has written stays. From here on [`EpochStore::write`] is the guest's. Nobody must be told of it before the journal has been
    /// [written](EpochStore::is_written) up to the place that is returned.
    ///
    /// # Errors
    /// [`StoreError::NotNow`] the second time.
    pub fn fail_over(&mut self) -> Result<u64, StoreError> {
        if self.serves {
            return Err(StoreError::NotNow("twice"));
        }
        let own = if self.keeps_before() { self.take_seen() } else { self.take_overlay() };
        self.abort();
        // What of it is in the journal stays there for as long as this layer needs it.
        self.open.data_from = own.data_from;
        for (disk, range, content) in own.extents() {
            self.log_write(disk, range, content.clone());
        }
        self.garbage.push(own);
        // Behind them: it serves with all of them, or not at all.
        self.append(Entry::Serve, None);
        (self.serves, self.log.serves_from) = (true, self.log.end.at);
        self.flush();
        self.log.wanted = self.log.end.at;
        Ok(self.log.end.at)
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

    /// Whether the journal has been written up to there, all of it: a process that dies loses nothing of that, as long as its host lives.
    pub fn is_written(&self, at: u64) -> bool {
        self.log.written() >= at
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
    fn take_overlay(&mut self) -> Layer {
        std::mem::replace(&mut self.overlay, Layer::new(self.sizes.len(), self.log.end))
    }

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

    fn note_memory(&mut self, range: &Range<u64>, change: &Change) {
        if let Change::Data(_) = change {
            self.memory_at_most += range.end - range.start;
        }
    }

    fn write_superblock(&mut self, start: Start, epoch: Epoch) {
        self.log.number += 1;
        let (generation, number) = (self.log.generation, self.log.number);
        // The record that says so may be lost, with what the guest has written before: then it does not serve.
        let serves = self.log.serves_from <= start.mark.at;
        let (segment_bytes, sizes, is_shared) = (self.segments.bytes(), self.sizes.clone(), self.config.is_shared);
        let superblock =
            Superblock { generation, number, epoch, start: start.mark, serves, is_shared, segment_bytes, sizes };
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
