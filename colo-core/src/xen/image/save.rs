use super::SaveImageError;
use crate::domain::{Control, DirtyLog, Domain, DomainError, LentPages, RunState};
use crate::ids::{Epoch, PAGE_SIZE};
use crate::save::{CallbackError, CopyStats, PlainSave, SaveCallbacks, SaveConfig, SaveLoop, Step, StreamSink};
use crate::stream::libxl::{Emulator, LibxlHeader, LibxlRecord, XenstoreData, encode_xenstore_data};
use crate::stream::xl::XlHeader;
use crate::xen::domain::XenDomain;
use crate::xen::suspend::SuspendError;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How a domain is saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SaveImageOptions {
    /// Copy memory while the guest runs, so that it stands still for a moment only.
    pub live: bool,
    /// Let the guest go on once its state is in hand. Otherwise it stays suspended: the image is what is left to be used.
    pub leave_running: bool,
}

/// What a save has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saved {
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Pages that were copied while the guest stood still.
    pub last_pages: u64,
    /// How long the guest stood still, if it runs again.
    pub pause: Option<Duration>,
}

/// How far a save is, and what must not be forgotten meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveProgress {
    /// Memory is copied while the guest runs.
    Copying(CopyStats),
    /// The guest is about to be asked to suspend itself. From here on it needs somebody to let it go on.
    Suspending,
    /// So much of the image has been written, after the guest had been suspended.
    Writing {
        /// Bytes, from the beginning of the image.
        image_bytes: u64,
    },
    /// The guest runs again, or as before: it could not be suspended.
    Running,
}

/// Writes an image of the domain as `xl save` does, with its configuration (libxl's JSON) in front, for `xl restore` and
/// [`restore_image`](super::restore_image). `progress` is told how far it is, and asked whether to go on.
///
/// On success the domain stands suspended, or runs if the options say so. The image is then whole, but only its writer knows whether
/// it is safe.
///
/// # Errors
/// [`SaveImageError`]; the domain runs as before, unless it has ended by itself.
pub fn save_image(
    domain: &mut XenDomain,
    config: &[u8],
    sink: &mut dyn StreamSink,
    options: SaveImageOptions,
    progress: &mut dyn FnMut(SaveProgress) -> ControlFlow<()>,
) -> Result<Saved, SaveImageError> {
    let told = Told::new(progress);
    let saved = write_image(domain, config, sink, options, &told);
    if saved.is_err() && told.asked.get() {
        if domain.run_state() == RunState::Suspended {
            told.suspended.set(true);
            // The first error is the one to tell; a guest that cannot go on says so in the log.
            let _ = domain.resume().inspect_err(|error| tracing::error!("{error}"));
        }
        if told.suspended.get() && domain.run_state() == RunState::Running {
            // It has been resumed: nothing that it was asked is still to come. Whether to go on is no question any more.
            let _ = (told.tell.borrow_mut())(SaveProgress::Running);
        }
    }
    if options.live {
        // A log that is left on costs the guest time, and nothing else.
        let _ = domain.disable_dirty_log();
    }
    saved.map_err(|error| if told.broken.get() { SaveImageError::Interrupted } else { error })
}

fn write_image(
    domain: &mut XenDomain,
    config: &[u8],
    sink: &mut dyn StreamSink,
    options: SaveImageOptions,
    told: &Told<'_>,
) -> Result<Saved, SaveImageError> {
    let mut begin = Vec::new();
    XlHeader::new(config).encode(&mut begin)?;
    LibxlHeader { legacy: false }.encode(&mut begin);
    LibxlRecord::LibxcContext.encode(&mut begin)?;
    sink.write(&[IoSlice::new(&begin)])?;

    let mut sink = Counted { inner: sink, bytes: begin.len() as u64, told };
    let mut callbacks = Watched { inner: PlainSave { leave_running: options.leave_running }, told };
    let mut save = SaveLoop::new(config_of(options));
    let mut last_pages = 0;
    loop {
        match save.step(Instant::now(), domain, &mut callbacks, &mut sink)? {
            Step::Copying(stats) => told.tell(SaveProgress::Copying(stats)).map_err(|_| SaveImageError::Interrupted)?,
            Step::Written(stats) => last_pages = stats.dirty_pages,
            Step::Done => break,
            Step::Working | Step::Waiting(_) => {}
        }
    }

    let mut tail = Vec::new();
    if let Some(emulator) = domain.take_emulator_state() {
        if !emulator.xenstore.is_empty() {
            let entries = emulator.xenstore.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
            let data = encode_xenstore_data(entries)?;
            LibxlRecord::EmulatorXenstoreData(Emulator::QEMU, XenstoreData::parse(&data)?).encode(&mut tail)?;
        }
        LibxlRecord::EmulatorContext(Emulator::QEMU, &emulator.context).encode(&mut tail)?;
    }
    LibxlRecord::End.encode(&mut tail)?;
    sink.write(&[IoSlice::new(&tail)])?;
    Ok(Saved { image_bytes: sink.bytes, last_pages, pause: domain.last_pause() })
}

/// A live save copies what it can before the guest stands still, and keeps the rest in memory so that it can go on before that is
/// written. A save that is not live has nobody to hurry for but itself: pages go through one warm buffer.
fn config_of(options: SaveImageOptions) -> SaveConfig {
    let config = SaveConfig::default();
    let hurry = options.live && options.leave_running;
    let (batch_pages, capture_limit_bytes) =
        if hurry { (config.batch_pages, config.capture_limit_bytes) } else { (SMALL_BATCH_PAGES, 0) };
    SaveConfig { live: options.live, batch_pages, capture_limit_bytes, ..config }
}

/// Pages in a record when nobody waits for them but the writer: 2 MiB, for which a reader needs no large buffer, and which it can put
/// into one extent of memory.
const SMALL_BATCH_PAGES: usize = 512;

/// The caller, who may want no more of it.
struct Told<'a> {
    tell: RefCell<&'a mut dyn FnMut(SaveProgress) -> ControlFlow<()>>,
    broken: Cell<bool>,
    /// Whether the guest may have been asked to suspend itself, and not have been resumed.
    asked: Cell<bool>,
    /// Whether it has been suspended.
    suspended: Cell<bool>,
}

impl<'a> Told<'a> {
    fn new(tell: &'a mut dyn FnMut(SaveProgress) -> ControlFlow<()>) -> Self {
        let [broken, asked, suspended] = [(); 3].map(|()| Cell::new(false));
        Told { tell: RefCell::new(tell), broken, asked, suspended }
    }

    /// Fails when the caller wants no more.
    fn tell(&self, progress: SaveProgress) -> io::Result<()> {
        let broken = (self.tell.borrow_mut())(progress).is_break();
        self.broken.set(self.broken.get() || broken);
        if broken { Err(io::Error::other("interrupted")) } else { Ok(()) }
    }

    /// The guest has not been suspended: it needs nobody any more, unless it may come to it still.
    fn not_suspended(&self, error: &CallbackError) {
        match why(error) {
            // Whether a request still stands after a call has failed nobody knows.
            Some(SuspendError::TimedOut(_) | SuspendError::Xen(_)) => return,
            Some(SuspendError::Interrupted(_)) => self.broken.set(true),
            _ => {}
        }
        // Whether to go on is no question any more.
        let _ = self.tell(SaveProgress::Running);
        self.asked.set(false);
    }
}

/// A plain save that tells when the guest needs somebody to let it go on.
struct Watched<'a, 'b> {
    inner: PlainSave,
    told: &'a Told<'b>,
}

impl SaveCallbacks for Watched<'_, '_> {
    crate::hand_on_save!(inner: is_checkpointed, wait_checkpoint, capture, checkpoint);

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        if let Err(error) = self.told.tell(SaveProgress::Suspending) {
            // It has not been asked.
            let _ = self.told.tell(SaveProgress::Running);
            return Err(error.into());
        }
        self.told.asked.set(true);
        let suspended = self.inner.suspend(domain);
        match &suspended {
            Ok(()) => self.told.suspended.set(true),
            Err(error) => match error.downcast_ref() {
                Some(DomainError::SuspendedByAnother(_)) => self.told.not_suspended(error),
                // Something else has failed, and it must be resumed.
                _ if domain.run_state() == RunState::Suspended => self.told.suspended.set(true),
                _ => self.told.not_suspended(error),
            },
        }
        suspended
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<(), CallbackError> {
        self.inner.postcopy(domain, epoch)?;
        if self.inner.leave_running {
            self.told.tell(SaveProgress::Running)?;
        }
        Ok(())
    }
}

/// Why a guest has not been suspended, where that is known.
fn why(error: &CallbackError) -> Option<&SuspendError> {
    match error.downcast_ref()? {
        DomainError::Hypervisor(error) => error.downcast_ref(),
        _ => None,
    }
}

/// Counts what goes through, and tells it where nobody else does: while the guest runs the copy is told by its pages.
struct Counted<'a, 'b> {
    inner: &'a mut dyn StreamSink,
    bytes: u64,
    told: &'a Told<'b>,
}

impl Counted<'_, '_> {
    fn count(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes += bytes as u64;
        if self.told.suspended.get() {
            self.told.tell(SaveProgress::Writing { image_bytes: self.bytes })?;
        }
        Ok(())
    }
}

impl StreamSink for Counted<'_, '_> {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.count(parts.iter().map(|part| part.len()).sum())?;
        self.inner.write(parts)
    }

    fn write_lent(&mut self, front: &[u8], pages: &dyn LentPages) -> io::Result<()> {
        self.count(front.len() + pages.count() * PAGE_SIZE)?;
        self.inner.write_lent(front, pages)
    }

    fn end_epoch(&mut self, epoch: Epoch) -> io::Result<()> {
        self.inner.end_epoch(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::ModelDomain;
    use crate::ids::DomId;
    use crate::xen::control::ShutdownReason;

    /// Saves a domain and breaks off where the caller says; returns what it was told.
    fn save(live: bool, leave_running: bool, breaks: impl Fn(SaveProgress) -> bool) -> (Vec<SaveProgress>, bool) {
        let mut domain = ModelDomain::new("web", 4);
        domain.store(5000, b"hello");
        domain.resume().unwrap();
        let mut seen = Vec::new();
        let mut progress = |step| {
            seen.push(step);
            if breaks(step) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let told = Told::new(&mut progress);
        let mut image = Vec::new();
        let mut sink = Counted { inner: &mut image, bytes: 0, told: &told };
        let mut callbacks = Watched { inner: PlainSave { leave_running }, told: &told };
        let mut save = SaveLoop::new(config_of(SaveImageOptions { live, leave_running }));
        let whole = loop {
            match save.step(Instant::now(), &mut domain, &mut callbacks, &mut sink) {
                Ok(Step::Done) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        assert_eq!(told.broken.get(), !whole);
        let stands_still = domain.run_state() == RunState::Suspended;
        assert_eq!(stands_still, whole && !leave_running, "nobody else lets it go on");
        (seen, whole)
    }

    #[test]
    fn a_caller_knows_when_the_guest_needs_it() {
        let (seen, whole) = save(false, false, |_| false);
        assert!(whole && seen.len() >= 3);
        assert_eq!(seen[0], SaveProgress::Suspending);
        assert!(seen[1..].iter().all(|step| matches!(step, SaveProgress::Writing { .. })));
        let (seen, _) = save(true, true, |_| false);
        let at = |wanted| seen.iter().position(|step| *step == wanted).unwrap();
        assert!(at(SaveProgress::Suspending) < at(SaveProgress::Running));
    }

    #[test]
    fn a_caller_may_break_off_anywhere() {
        let (seen, whole) = save(false, false, |step| step == SaveProgress::Suspending);
        assert_eq!((seen, whole), (vec![SaveProgress::Suspending, SaveProgress::Running], false));
        let (seen, whole) = save(false, false, |step| matches!(step, SaveProgress::Writing { .. }));
        assert_eq!((seen.len(), whole), (2, false));
    }

    /// What a caller is told of a guest that is not suspended, and whether it counts as interrupted.
    fn not_suspended(error: impl Into<CallbackError>) -> (Vec<SaveProgress>, bool) {
        let mut seen = Vec::new();
        let mut progress = |step| {
            seen.push(step);
            ControlFlow::Continue(())
        };
        let told = Told::new(&mut progress);
        told.not_suspended(&error.into());
        let broken = told.broken.get();
        (seen, broken)
    }

    #[test]
    fn only_a_guest_that_is_late_may_still_suspend_itself() {
        let error = |error: SuspendError| DomainError::from(error);
        let runs = vec![SaveProgress::Running];
        assert_eq!(not_suspended(error(SuspendError::TimedOut(DomId(3)))), (vec![], false));
        assert_eq!(not_suspended(error(SuspendError::NotAcknowledged(DomId(3)))), (runs.clone(), false));
        assert_eq!(not_suspended(error(SuspendError::Interrupted(DomId(3)))), (runs.clone(), true));
        assert_eq!(not_suspended(error(SuspendError::Stopped(DomId(3), ShutdownReason::CRASH))), (runs.clone(), false));
        assert_eq!(not_suspended("no"), (runs, false));
    }
}
