use super::SaveImageError;
use crate::domain::{Control, DirtyLog, LentPages, RunState};
use crate::ids::{Epoch, PAGE_SIZE};
use crate::save::{CopyStats, PlainSave, SaveConfig, SaveLoop, Step, StreamSink};
use crate::stream::libxl::{Emulator, LibxlHeader, LibxlRecord, XenstoreData, encode_xenstore_data};
use crate::stream::xl::XlHeader;
use crate::xen::domain::XenDomain;
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

/// Writes an image of the domain as `xl save` does, with its configuration (libxl's JSON) in front, for `xl restore` and
/// [`restore_image`](super::restore_image). `progress` is asked between any two pieces of the first copies whether to go on.
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
    progress: &mut dyn FnMut(CopyStats) -> ControlFlow<()>,
) -> Result<Saved, SaveImageError> {
    let saved = write_image(domain, config, sink, options, progress);
    if options.live {
        // A log that is left on costs the guest time, and nothing else.
        let _ = domain.disable_dirty_log();
    }
    if saved.is_err() && domain.run_state() == RunState::Suspended {
        // The first error is the one to tell; a guest that cannot go on says so in the log.
        let _ = domain.resume().inspect_err(|error| tracing::error!("{error}"));
    }
    saved
}

fn write_image(
    domain: &mut XenDomain,
    config: &[u8],
    sink: &mut dyn StreamSink,
    options: SaveImageOptions,
    progress: &mut dyn FnMut(CopyStats) -> ControlFlow<()>,
) -> Result<Saved, SaveImageError> {
    let mut begin = Vec::new();
    XlHeader::new(config).encode(&mut begin)?;
    LibxlHeader { legacy: false }.encode(&mut begin);
    LibxlRecord::LibxcContext.encode(&mut begin)?;
    sink.write(&[IoSlice::new(&begin)])?;

    let mut sink = Counted { inner: sink, bytes: begin.len() as u64 };
    let mut callbacks = PlainSave { leave_running: options.leave_running };
    let mut save = SaveLoop::new(config_of(options));
    let mut last_pages = 0;
    loop {
        match save.step(Instant::now(), domain, &mut callbacks, &mut sink)? {
            Step::Copying(stats) if progress(stats).is_break() => return Err(SaveImageError::Interrupted),
            Step::Written(stats) => last_pages = stats.dirty_pages,
            Step::Done => break,
            Step::Copying(_) | Step::Working | Step::Waiting(_) => {}
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

/// Counts what goes through.
struct Counted<'a> {
    inner: &'a mut dyn StreamSink,
    bytes: u64,
}

impl StreamSink for Counted<'_> {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.inner.write(parts)
    }

    fn write_lent(&mut self, front: &[u8], pages: &dyn LentPages) -> io::Result<()> {
        self.bytes += (front.len() + pages.count() * PAGE_SIZE) as u64;
        self.inner.write_lent(front, pages)
    }

    fn end_epoch(&mut self, epoch: Epoch) -> io::Result<()> {
        self.inner.end_epoch(epoch)
    }
}
