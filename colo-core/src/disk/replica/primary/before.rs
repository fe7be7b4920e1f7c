//! Of disks that both hosts have: what stands there is with the secondary before it is changed, so that the secondary can go back to its epoch.
//!
//! The first write to a part in an epoch reads what is there, sends it, waits until the secondary has it, and only then changes the disk; further ones
//! find it saved. A barrier waits for the writes that are under way, and begins anew. When the way to the secondary is gone that may still go
//! back: then a write to a part that is not saved waits, until it is [known](super::PrimaryDisks::alone) that it will not.

use super::link::{Asked, Link};
use super::{Backend, Shared};
use crate::disk::replica::hash_of;
use crate::disk::{DiskError, ExtentMap, extents::Cut};
use crate::peer::MAX_DISK_BYTES;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So long a barrier waits for the writes under way, and they for the secondary: less than whoever asks for it waits for an
/// [answer](crate::disk::control::ANSWER_WITHIN).
const CLOSE_WITHIN: Duration = Duration::from_secs(8);

/// What is saved is whole blocks: a file system writes no less.
const BLOCK_BYTES: u64 = 4096;

/// Up to the next multiple of this more is saved at once, where a guest writes on behind what is saved: then it soon comes to that, too.
const AHEAD_BYTES: u64 = 64 << 10;

/// So much of what was written last is hashed, for the secondary to look whether it has the same disk.
pub(super) const PROVEN_BYTES: usize = 4096;

/// What the secondary has of what stood on the disks at the last barrier.
pub(super) struct Before {
    sizes: Vec<u64>,
    /// So that nobody can write two things which have the same hash.
    seed: u64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    stage: Stage,
    /// What need not be saved any more, before the next barrier.
    saved: Vec<ExtentMap<Saved>>,
    /// Writes that are under way.
    writing: usize,
    /// A barrier is: no write begins.
    is_closed: bool,
    last: Option<Written>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody goes back to an epoch.
    Alone,
    /// There are epochs.
    Epochs,
    /// There were, and nobody hears any more what is changed.
    Held,
}

/// What was written last.
#[derive(Clone, Copy)]
pub(super) struct Written {
    pub(super) disk: u8,
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) seed: u64,
    pub(super) hash: u128,
}

/// Nothing is known of such a part but that it is saved.
#[derive(Clone, Copy)]
struct Saved;

impl Cut for Saved {
    fn cut(&self, _: u64, _: u64) -> Self {
        Saved
    }

    fn memory_bytes(&self, _: u64) -> u64 {
        0
    }
}

/// A write that is under way, or a barrier, until this is dropped.
pub(super) struct Under<'a> {
    before: &'a Before,
    is_barrier: bool,
}

impl Before {
    pub(super) fn new(sizes: Vec<u64>) -> Before {
        let saved = Before::nothing(&sizes);
        let state = State { stage: Stage::Alone, saved, writing: 0, is_closed: false, last: None };
        Before { sizes, seed: crate::random::number(), state: Mutex::new(state), changed: Condvar::new() }
    }

    fn nothing(sizes: &[u64]) -> Vec<ExtentMap<Saved>> {
        sizes.iter().map(|_| ExtentMap::default()).collect()
    }

    pub(super) fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// A write begins, once no barrier is under way.
    pub(super) fn enter(&self) -> Under<'_> {
        let mut state = self.wait(|state| !state.is_closed);
        state.writing += 1;
        Under { before: self, is_barrier: false }
    }

    /// A barrier begins, once no write is under way; none when the way to the secondary is gone, for which a write may wait, or when one has
    /// waited for too long.
    pub(super) fn close(&self, within: Duration) -> Option<Under<'_>> {
        self.wait(|state| !state.is_closed).is_closed = true;
        let under = Under { before: self, is_barrier: true };
        let is_under_way = |state: &mut State| state.writing > 0 && state.stage != Stage::Held;
        let waited = self.changed.wait_timeout_while(self.lock(), within, is_under_way);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_closed = state.writing == 0 && state.stage != Stage::Held;
        drop(state);
        is_closed.then_some(under)
    }

    /// An epoch is whole: nothing of the next is saved. Returns what was written last in it.
    pub(super) fn next_epoch(&self) -> Option<Written> {
        let mut state = self.lock();
        (state.stage, state.saved) = (Stage::Epochs, Before::nothing(&self.sizes));
        state.last.take()
    }

    /// Whether the machine's writes may be waiting for a word.
    pub(super) fn is_held(&self) -> bool {
        self.lock().stage == Stage::Held
    }

    /// Whether the secondary is to be told what stands there. Who has the link finds that so for as long as he has it: another that
    /// follows has no epochs yet.
    fn has_epochs(&self) -> bool {
        self.lock().stage == Stage::Epochs
    }

    /// The way to the secondary is gone. Whoever says so has the link.
    pub(super) fn hold(&self) {
        let mut state = self.lock();
        if state.stage == Stage::Epochs {
            state.stage = Stage::Held;
        }
        self.changed.notify_all();
    }

    /// Nobody goes back to an epoch, now or later.
    pub(super) fn alone(&self) {
        let mut state = self.lock();
        (state.stage, state.saved) = (Stage::Alone, Before::nothing(&self.sizes));
        self.changed.notify_all();
    }

    /// Whether a discard need not be done: it is not worth that all of what stands there is saved.
    pub(super) fn keeps(&self) -> bool {
        self.lock().stage != Stage::Alone
    }

    /// What is to be saved at once where that is to be written.
    fn around(&self, disk: u8, range: &Range<u64>) -> Range<u64> {
        let state = self.lock();
        if state.missing(disk, range).is_empty() {
            return range.clone();
        }
        let start = range.start - range.start % BLOCK_BYTES;
        let is_behind = start > 0 && state.missing(disk, &(start - 1..start)).is_empty();
        let end = range.end.next_multiple_of(if is_behind { AHEAD_BYTES } else { BLOCK_BYTES });
        start..end.min(self.sizes[usize::from(disk)])
    }

    fn missing(&self, disk: u8, range: &Range<u64>) -> Vec<Range<u64>> {
        self.lock().missing(disk, range)
    }

    fn saved(&self, disk: u8, range: Range<u64>) {
        self.lock().saved[usize::from(disk)].insert(range, Saved);
    }

    /// Waits until nothing need be saved.
    fn wait_alone(&self) {
        drop(self.wait(|state| state.stage == Stage::Alone));
    }

    fn wrote(&self, last: Option<Written>) {
        self.lock().last = last;
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while !until(&state) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What of that must be saved before it is changed.
    fn missing(&self, disk: u8, range: &Range<u64>) -> Vec<Range<u64>> {
        match self.stage {
            Stage::Alone => Vec::new(),
            Stage::Epochs | Stage::Held => {
                let parts = self.saved[usize::from(disk)].read(range.clone());
                parts.filter(|(_, saved)| saved.is_none()).map(|(part, _)| part).collect()
            }
        }
    }
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        let mut state = self.before.lock();
        match self.is_barrier {
            true => state.is_closed = false,
            false => state.writing -= 1,
        }
        self.before.changed.notify_all();
    }
}

impl Shared {
    /// Changes a part of a disk that both hosts have.
    pub(super) fn change_shared(
        &self,
        before: &Before,
        disk: u8,
        range: Range<u64>,
        here: impl FnOnce(&dyn Backend) -> Result<(), DiskError>,
        bytes: Option<&[u8]>,
    ) -> Result<(), DiskError> {
        let _under = before.enter();
        let around = before.around(disk, &range);
        // Whoever comes to any of it meanwhile waits until it is saved.
        let _range = self.ranges.enter(disk, around.clone());
        self.save(before, disk, around)?;
        if let Err(error) = here(&*self.disks[usize::from(disk)].0) {
            // Nobody knows what is there now; what was there the secondary has.
            self.lose(format!("a write to disk {disk} failed on this host"));
            return Err(error);
        }
        before.wrote(bytes.map(|bytes| {
            let (proven, seed) = (&bytes[..bytes.len().min(PROVEN_BYTES)], before.seed);
            let (offset, length) = (range.start, proven.len() as u32);
            Written { disk, offset, length, seed, hash: hash_of(proven, seed) }
        }));
        Ok(())
    }

    /// On return that may be changed: the secondary has what is there, or need not have it.
    fn save(&self, before: &Before, disk: u8, range: Range<u64>) -> Result<(), DiskError> {
        let missing = before.missing(disk, &range);
        for part in missing.iter().flat_map(|part| pieces(part.clone())) {
            let mut bytes = vec![0; (part.end - part.start) as usize];
            self.disks[usize::from(disk)].0.read(part.start, &mut bytes)?;
            self.send(|link| if before.has_epochs() { link.before(disk, part.start, &bytes) } else { Ok(()) });
            self.room.take(part.end - part.start);
        }
        if missing.is_empty() {
            return Ok(());
        }
        // Asked for behind all of it, on the same way.
        let ask = |link: &mut Link| if before.has_epochs() { link.ask_flush(false).map(Some) } else { Ok(None) };
        match self.send(ask).flatten().is_some_and(Asked::wait) {
            true => missing.into_iter().for_each(|part| before.saved(disk, part)),
            false => before.wait_alone(),
        }
        Ok(())
    }

    /// The end of an epoch: what was written before it is where the secondary's host reads it.
    pub(super) fn barrier_shared(&self, before: &Before, epoch: crate::ids::Epoch) {
        let Some(_closed) = before.close(CLOSE_WITHIN) else {
            if !before.is_held() {
                self.lose(format!("a write has waited for {} s", CLOSE_WITHIN.as_secs()));
            }
            return;
        };
        if let Some(disk) = self.disks.iter().position(|(disk, _)| disk.publish().is_err()) {
            return self.lose(format!("a flush of disk {disk} failed on this host"));
        }
        let mut link = self.link();
        let Some(way) = link.as_mut() else { return };
        let last = before.next_epoch();
        self.room.barrier(epoch);
        let said = last.map_or(Ok(()), |written| way.same(&written)).and_then(|()| way.barrier(epoch, false));
        if let Err(error) = said {
            self.end(&mut link, format!("the secondary's disks: {error}"));
        }
    }
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(MAX_DISK_BYTES).map(move |from| from..end.min(from + MAX_DISK_BYTES as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const MIB: u64 = 1 << 20;
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_barrier_does_not_wait_for_ever_and_lets_writes_begin_then() {
        let before = Before::new(vec![MIB]);
        before.next_epoch();
        let writing = before.enter();
        assert!(before.close(Duration::ZERO).is_none() && !before.is_held());
        drop((before.enter(), writing));
        assert!(before.close(Duration::ZERO).is_some());
    }

    #[test]
    fn what_is_saved_is_whole_blocks_and_more_where_a_guest_writes_on() {
        let before = Before::new(vec![MIB + 100]);
        // Nobody goes back.
        assert_eq!((before.around(0, &(5..6)), before.missing(0, &(0..MIB))), (5..6, vec![]));
        before.next_epoch();
        assert_eq!(before.around(0, &(5000..5001)), 4096..8192);
        before.saved(0, 4096..8192);
        // That is there.
        assert_eq!(before.around(0, &(5000..8192)), 5000..8192);
        assert_eq!(before.missing(0, &(0..12288)), [0..4096, 8192..12288]);
        // It writes on.
        assert_eq!(before.around(0, &(8192..12288)), 8192..65536);
        assert_eq!(before.around(0, &(MIB + 50..MIB + 100)), MIB..MIB + 100);
        before.next_epoch();
        let all = 0..12288;
        assert_eq!(before.missing(0, &all), std::slice::from_ref(&all));
        before.hold();
        assert_eq!(before.missing(0, &all), std::slice::from_ref(&all));
        before.alone();
        assert_eq!(before.missing(0, &all), []);
    }

    #[test]
    fn a_barrier_waits_for_writes_unless_nobody_hears_of_them() {
        let before = Before::new(vec![MIB]);
        before.next_epoch();
        // However often: one that does not wait may come late by chance.
        for _ in 0..50 {
            let (writing, is_written) = (before.enter(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                let closing = scope.spawn(|| before.close(PATIENCE).is_some() && is_written.load(Ordering::SeqCst));
                // It has begun when nothing else does any more.
                while !before.lock().is_closed && !closing.is_finished() {
                    std::thread::yield_now();
                }
                (0..1000).for_each(|_| std::thread::yield_now());
                is_written.store(true, Ordering::SeqCst);
                drop(writing);
                assert!(closing.join().unwrap());
            });
        }
        let writing = before.enter();
        before.hold();
        assert!(before.close(PATIENCE).is_none() && before.is_held());
        drop(writing);
        // And what was closed is open again.
        drop(before.enter());
    }
}
