use crate::disk::replica::verify::Found;
use crate::disk::{Compared, CopyProgress, DiskState, VerifyError};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The minor version of the protocol from which on hashes may be asked for at any time.
const COMPARES_SINCE: u8 = 1;

/// So many parts are being asked for at once, 2 MiB: enough to go on while answers wait behind what the guest writes, and so few that this
/// does not wait for long while the secondary reads them.
const ASKED_AT_ONCE: usize = 32;

/// How far a secondary is, and the comparison with it, if there is one. The thread that hears the secondary says what it hears.
pub(super) struct Course {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    stage: Stage,
    /// Which comparison goes on: each has another number, so that answers to one before it do not count.
    run: Option<u64>,
    runs: u64,
    /// What was asked for, oldest first.
    asked: VecDeque<Asked>,
    compared: Compared,
    /// What has failed on this host.
    failed: Option<String>,
}

enum Stage {
    Copying(CopyProgress, Instant),
    InStep { can_compare: bool },
    Ended(Option<String>),
}

/// A part that the secondary was asked for, and what it is here at that place of what is said to it.
pub(super) struct Asked {
    pub(super) run: u64,
    pub(super) disk: u8,
    pub(super) range: Range<u64>,
    pub(super) ours: u128,
}

impl Course {
    /// With a secondary that has nothing yet.
    pub(super) fn new() -> Course {
        Course::at(Stage::Copying(CopyProgress::default(), Instant::now()))
    }

    /// Without any.
    pub(super) fn ended() -> Course {
        Course::at(Stage::Ended(None))
    }

    fn at(stage: Stage) -> Course {
        let (asked, compared) = (VecDeque::new(), Compared::default());
        let state = State { stage, run: None, runs: 0, asked, compared, failed: None };
        Course { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The copy goes on.
    pub(super) fn copying(&self, done_bytes: u64, all_bytes: u64, sent_bytes: u64) {
        if let Stage::Copying(progress, _) = &mut self.lock().stage {
            *progress = CopyProgress { done_bytes, all_bytes, sent_bytes, ..*progress };
        }
    }

    /// The secondary has what this host has. It speaks that minor version of the protocol.
    pub(super) fn in_step(&self, minor: Option<u8>) {
        let mut state = self.lock();
        if let Stage::Copying(..) = state.stage {
            state.stage = Stage::InStep { can_compare: minor.is_some_and(|minor| minor >= COMPARES_SINCE) };
        }
    }

    /// There is no secondary any more. The first reason counts.
    pub(super) fn end(&self, why: Option<String>) {
        let mut state = self.lock();
        if !matches!(state.stage, Stage::Ended(_)) {
            state.stage = Stage::Ended(state.failed.take().or(why));
        }
        self.changed.notify_all();
    }

    /// A disk of this host's has failed. Returns whether it is the first that is heard of.
    pub(super) fn fail(&self, why: &str) -> bool {
        let mut state = self.lock();
        let is_first = state.failed.is_none();
        state.failed.get_or_insert_with(|| why.to_owned());
        is_first
    }

    /// Waits until there is no secondary any more.
    pub(super) fn wait_for_end(&self) {
        let is_there = |state: &mut State| !matches!(state.stage, Stage::Ended(_));
        drop(self.changed.wait_while(self.lock(), is_there).unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn state(&self) -> DiskState {
        match &self.lock().stage {
            Stage::Copying(progress, began) => DiskState::Copying(CopyProgress { took: began.elapsed(), ..*progress }),
            Stage::InStep { .. } => DiskState::InStep,
            Stage::Ended(why) => DiskState::Alone(why.clone()),
        }
    }

    /// Begins a comparison, if there can be one, and returns its number.
    pub(super) fn begin(&self) -> Result<u64, VerifyError> {
        let mut state = self.lock();
        match state.stage {
            Stage::Ended(_) => return Err(VerifyError::NotProtected),
            Stage::Copying(..) => return Err(VerifyError::Copying),
            Stage::InStep { can_compare: false } => return Err(VerifyError::Older),
            Stage::InStep { can_compare: true } if state.run.is_some() => return Err(VerifyError::Another),
            Stage::InStep { can_compare: true } => {}
        }
        state.runs += 1;
        (state.run, state.compared) = (Some(state.runs), Compared::default());
        Ok(state.runs)
    }

    /// The comparison is over; or it is to be, and its thread finds that out.
    pub(super) fn stop(&self, run: u64) {
        let mut state = self.lock();
        if state.run == Some(run) {
            state.run = None;
        }
        self.changed.notify_all();
    }

    /// Waits until more may be asked for, and returns how many bytes were compared and how many parts differed by then.
    pub(super) fn wait_for_room(&self, run: u64) -> Result<(u64, u64), VerifyError> {
        let state = self.wait(run, |state| state.asked.len() < ASKED_AT_ONCE)?;
        Ok((state.compared.compared_bytes, state.compared.differing_parts))
    }

    /// Waits until all is answered, and returns what was found.
    pub(super) fn wait_for_all(&self, run: u64) -> Result<Compared, VerifyError> {
        Ok(self.wait(run, |state| state.asked.is_empty())?.compared.clone())
    }

    /// Waits until that time.
    pub(super) fn pause_until(&self, run: u64, until: Instant) -> Result<(), VerifyError> {
        let mut state = self.lock();
        loop {
            state.check(run)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A part is about to be asked for; the link is held, so that the order is that of the questions.
    pub(super) fn ask(&self, asked: Asked) {
        self.lock().asked.push_back(asked);
    }

    /// The secondary has answered; false when that is no answer to what was asked.
    pub(super) fn answered(&self, disk: u8, offset: u64, hashes: &[u128]) -> bool {
        let mut state = self.lock();
        let Some(asked) = state.asked.pop_front() else { return false };
        let found = match hashes {
            _ if (asked.disk, asked.range.start) != (disk, offset) => return false,
            [] => Found::Unreadable,
            [theirs] if *theirs == asked.ours => Found::Same,
            [_] => Found::Other,
            _ => return false,
        };
        if state.run == Some(asked.run) {
            state.compared.add(disk, asked.range, found);
        }
        self.changed.notify_all();
        true
    }

    fn wait(&self, run: u64, until: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>, VerifyError> {
        let mut state = self.lock();
        loop {
            state.check(run)?;
            if until(&state) {
                return Ok(state);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether that comparison may go on.
    fn check(&self, run: u64) -> Result<(), VerifyError> {
        match self.stage {
            Stage::Ended(_) => Err(VerifyError::Lost),
            _ if self.run != Some(run) => Err(VerifyError::Stopped),
            _ => Ok(()),
        }
    }
}
