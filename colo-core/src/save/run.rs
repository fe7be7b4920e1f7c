use super::capture::Capture;
use super::{Ready, SaveCallbacks, SaveError, StreamSink, Trigger};
use crate::domain::{DirtyBitmap, Domain, MAX_BATCH_PAGES, StateRecord};
use crate::ids::{Epoch, Pfn};
use crate::stream::{Headers, MAX_BODY_BYTES, kind, write_record};
use std::io::IoSlice;
use std::time::Instant;

/// How a save goes about its work.
#[derive(Clone, Debug)]
pub struct SaveConfig {
    /// Whether memory is copied while the guest runs, and what it writes meanwhile again at the end. Otherwise all of it is copied
    /// while the guest stands still, and the dirty log stays off: less work, but a longer pause. Checkpoints need it.
    pub live: bool,
    /// Precopy ends when a round leaves no more dirty pages than this ...
    pub precopy_dirty_pages: u64,
    /// ... or after so many rounds: a guest that writes faster than pages can be sent would never get there.
    pub precopy_rounds: u32,
    /// How many pages make one record: 1 to [`MAX_BATCH_PAGES`]. A batch takes a buffer of as many pages.
    pub batch_pages: usize,
    /// How much memory may hold captured pages so that the guest can go on before they are sent. What does not fit is sent while
    /// it waits; 0 where nobody waits for it, and pages are best sent from where they are. It is taken before the first checkpoint, but never more than the guest has: taking it when it is needed would
    /// cost the waiting guest several times what the copy does.
    pub capture_limit_bytes: usize,
}

impl Default for SaveConfig {
    /// Live, 1,024 pages, 5 rounds, full batches, 64 MiB.
    fn default() -> Self {
        SaveConfig {
            live: true,
            precopy_dirty_pages: 1024,
            precopy_rounds: 5,
            batch_pages: MAX_BATCH_PAGES,
            capture_limit_bytes: 64 << 20,
        }
    }
}

/// How far the first copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CopyStats {
    /// The round, from 0.
    pub round: u32,
    /// Pages sent in this round.
    pub sent_pages: u64,
    /// Pages that this round has to send.
    pub round_pages: u64,
    /// Bytes sent in all rounds.
    pub stream_bytes: u64,
}

/// What one checkpoint carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointStats {
    /// Its number.
    pub epoch: Epoch,
    /// Why it was taken.
    pub trigger: Trigger,
    /// Dirty pages.
    pub dirty_pages: u64,
    /// Bytes of the stream.
    pub stream_bytes: u64,
}

/// What [`SaveLoop::step`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A part of the first copy; step again.
    Copying(CopyStats),
    /// Something else; step again.
    Working,
    /// A checkpoint has been written, its acknowledgement is awaited; step again.
    Written(CheckpointStats),
    /// Nothing to do: step again when something has happened, and at this time at the latest.
    Waiting(Instant),
    /// The stream is complete.
    Done,
}

/// The order in which a domain is saved. See the module.
pub struct SaveLoop {
    config: SaveConfig,
    state: State,
    /// The last checkpoint begun.
    epoch: Epoch,
    copy: CopyStats,
    /// Pages of the current round (precopy) or checkpoint.
    dirty: DirtyBitmap,
    capture: Capture,
}

enum State {
    Start,
    /// Sending the round's pages, from this one on.
    Precopy {
        next: Pfn,
    },
    Wait,
    Commit,
    Done,
}

impl SaveLoop {
    /// A save that has not begun.
    pub fn new(config: SaveConfig) -> Self {
        let capture = Capture::new(config.capture_limit_bytes, config.batch_pages);
        SaveLoop {
            config,
            state: State::Start,
            epoch: Epoch::NONE,
            copy: CopyStats::default(),
            dirty: DirtyBitmap::new(0),
            capture,
        }
    }

    /// The last checkpoint begun.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Does the next thing. After an error the loop is of no further use, and the domain runs unless it has ended.
    ///
    /// # Errors
    /// [`SaveError`].
    ///
    /// # Panics
    /// When called after [`Step::Done`] or an error.
    pub fn step(
        &mut self,
        now: Instant,
        domain: &mut dyn Domain,
        callbacks: &mut dyn SaveCallbacks,
        sink: &mut dyn StreamSink,
    ) -> Result<Step, SaveError> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Start => self.start(domain, sink),
            State::Precopy { next } => self.precopy(next, domain, sink),
            State::Wait => match callbacks.wait_checkpoint(now).map_err(SaveError::callback("wait_checkpoint"))? {
                Ready::Now(trigger) => self.checkpoint(trigger, domain, callbacks, sink),
                Ready::NotBefore(until) => self.waiting(State::Wait, until),
            },
            State::Commit => match callbacks.checkpoint(self.epoch, now).map_err(SaveError::callback("checkpoint"))? {
                Ready::Now(true) => self.working(State::Wait),
                Ready::Now(false) if callbacks.is_checkpointed() => finish(sink),
                Ready::Now(false) => Ok(Step::Done),
                Ready::NotBefore(until) => self.waiting(State::Commit, until),
            },
            State::Done => panic!("a save was stepped after its end"),
        }
    }

    fn start(&mut self, domain: &mut dyn Domain, sink: &mut dyn StreamSink) -> Result<Step, SaveError> {
        let mut begin = Vec::new();
        Headers::new(domain.stream_header()).encode(&mut begin);
        write_records(&mut begin, &domain.save_static()?)?;
        write_record(&mut begin, kind::STATIC_DATA_END, &[])?;
        write_records(&mut begin, &domain.save_layout()?)?;
        sink.write(&[IoSlice::new(&begin)])?;
        self.copy.stream_bytes = begin.len() as u64;
        self.dirty = DirtyBitmap::new(domain.spec().pfn_limit);
        if !self.config.live {
            return self.working(State::Wait);
        }
        // In this order: a page written after the log began is in the log, one written before has content.
        domain.enable_dirty_log()?;
        domain.populated(&mut self.dirty)?;
        self.copy.round_pages = self.dirty.count();
        self.working(State::Precopy { next: Pfn(0) })
    }

    /// Sends one batch of the round, or ends the round.
    fn precopy(&mut self, next: Pfn, domain: &mut dyn Domain, sink: &mut dyn StreamSink) -> Result<Step, SaveError> {
        let batch: Vec<Pfn> = self.dirty.iter_from(next).take(self.config.batch_pages).collect();
        let Some(&last) = batch.last() else {
            return self.end_round(domain);
        };
        self.copy.stream_bytes += self.capture.take(domain, batch.iter().copied(), sink)? + self.capture.write(sink)?;
        self.copy.sent_pages += batch.len() as u64;
        self.state = State::Precopy { next: Pfn(last.0 + 1) };
        Ok(Step::Copying(self.copy))
    }

    fn end_round(&mut self, domain: &mut dyn Domain) -> Result<Step, SaveError> {
        self.dirty.clear();
        domain.take_dirty(&mut self.dirty)?;
        let left = self.dirty.count();
        self.copy = CopyStats { round: self.copy.round + 1, sent_pages: 0, round_pages: left, ..self.copy };
        if left <= self.config.precopy_dirty_pages || self.copy.round >= self.config.precopy_rounds {
            // For as many as there may ever be room for: a burst of writes must not wait for memory while the guest stands still.
            self.capture.prepare(domain.spec().pfn_limit);
            return self.working(State::Wait);
        }
        self.working(State::Precopy { next: Pfn(0) })
    }

    /// Takes a checkpoint. The domain runs again on return, whatever happened, unless the callbacks left it suspended on purpose.
    fn checkpoint(
        &mut self,
        trigger: Trigger,
        domain: &mut dyn Domain,
        callbacks: &mut dyn SaveCallbacks,
        sink: &mut dyn StreamSink,
    ) -> Result<Step, SaveError> {
        self.epoch = self.epoch.next();
        let captured = self.stop_and_copy(domain, callbacks, sink);
        let (mut stream_bytes, records) = captured.inspect_err(|_| {
            // Best effort: a domain that has ended cannot run again, and the first error is the one to tell.
            let _ = domain.resume();
        })?;
        let dirty_pages = self.dirty.count();
        self.dirty.clear();
        stream_bytes += self.capture.write(sink)?;
        let mut tail = Vec::new();
        for record in &records {
            if tail.len() + record.body.len() > MAX_BODY_BYTES {
                stream_bytes += tail.len() as u64;
                sink.write(&[IoSlice::new(&tail)])?;
                tail.clear();
            }
            write_record(&mut tail, record.kind, &record.body)?;
        }
        let last = if callbacks.is_checkpointed() { kind::CHECKPOINT } else { kind::END };
        write_record(&mut tail, last, &[])?;
        stream_bytes += tail.len() as u64;
        sink.write(&[IoSlice::new(&tail)])?;
        sink.end_epoch(self.epoch)?;
        self.state = State::Commit;
        Ok(Step::Written(CheckpointStats { epoch: self.epoch, trigger, dirty_pages, stream_bytes }))
    }

    /// The part during which the guest waits: nothing here that could be done before or after.
    fn stop_and_copy(
        &mut self,
        domain: &mut dyn Domain,
        callbacks: &mut dyn SaveCallbacks,
        sink: &mut dyn StreamSink,
    ) -> Result<(u64, Vec<StateRecord>), SaveError> {
        callbacks.suspend(domain).map_err(SaveError::callback("suspend"))?;
        if self.config.live {
            domain.take_dirty(&mut self.dirty)?;
        } else {
            domain.populated(&mut self.dirty)?;
        }
        let written = if self.config.capture_limit_bytes == 0 {
            self.capture.pass(domain, self.dirty.iter(), sink)?
        } else {
            self.capture.take(domain, self.dirty.iter(), sink)?
        };
        let mut records = domain.save_state()?;
        callbacks.saved(&records);
        records.extend(callbacks.capture(domain, self.epoch).map_err(SaveError::callback("capture"))?);
        callbacks.postcopy(domain, self.epoch).map_err(SaveError::callback("postcopy"))?;
        Ok((written, records))
    }

    fn working(&mut self, state: State) -> Result<Step, SaveError> {
        self.state = state;
        Ok(Step::Working)
    }

    fn waiting(&mut self, state: State, until: Instant) -> Result<Step, SaveError> {
        self.state = state;
        Ok(Step::Waiting(until))
    }
}

fn write_records(out: &mut Vec<u8>, records: &[StateRecord]) -> Result<(), SaveError> {
    records.iter().try_for_each(|record| Ok(write_record(out, record.kind, &record.body)?))
}

fn finish(sink: &mut dyn StreamSink) -> Result<Step, SaveError> {
    let mut end = Vec::new();
    write_record(&mut end, kind::END, &[])?;
    sink.write(&[IoSlice::new(&end)])?;
    Ok(Step::Done)
}
