//! The thread that writes miscompares to a file.
//!
//! It is a witness, and never in the way: the net thread hands over what there is room for in the queue, and goes on. A file that
//! cannot be written ends the recording, and nothing else.

use super::SessionError;
use crate::compare::{Divergence, Evidence};
use crate::ids::Epoch;
use crate::peer::Mode;
use crate::record::{MAX_FILE_BYTES, Miscompare, Recording};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// Miscompares that wait to be written: a burst of an epoch each.
const MAX_QUEUED: usize = 64;

/// The most bytes of frames in them: what a disk takes in some tenths of a second. A single miscompare may have more.
const MAX_QUEUED_BYTES: usize = 32 << 20;

/// What a frame counts beside its own bytes.
const FRAME_OVERHEAD_BYTES: usize = 256;

/// How long the end of a session waits for a slow disk.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where miscompares are written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordConfig {
    /// The file: one that does not exist, or is empty.
    pub path: PathBuf,
    /// The most bytes that it gets.
    pub max_bytes: u64,
}

impl RecordConfig {
    /// With the usual limit, [`MAX_FILE_BYTES`].
    pub fn new(path: impl Into<PathBuf>) -> Self {
        RecordConfig { path: path.into(), max_bytes: MAX_FILE_BYTES }
    }
}

/// An empty file that is to become a recording.
#[derive(Debug)]
pub(super) struct RecordFile {
    file: File,
    path: PathBuf,
    max_bytes: u64,
}

impl RecordFile {
    /// Opens the file, or makes it. Nothing is written yet, so that a session that does not begin leaves nothing that the next one minds.
    pub(super) fn open(config: &RecordConfig, mode: Mode) -> Result<RecordFile, SessionError> {
        let file = match mode {
            Mode::Colo => open_empty(&config.path),
            Mode::Remus => {
                Err(io::Error::new(ErrorKind::InvalidInput, "under Remus there are no miscompares to record"))
            }
        };
        match file {
            Ok(file) => Ok(RecordFile { file, path: config.path.clone(), max_bytes: config.max_bytes }),
            Err(source) => Err(SessionError::Record { path: config.path.clone(), source }),
        }
    }

    /// Starts the thread. Returns what the net thread hands miscompares to, and what waits for the end.
    pub(super) fn start(self) -> (Recorder, Running) {
        let RecordFile { file, path, max_bytes } = self;
        start(file, path, max_bytes)
    }
}

/// Never overwrites anything: neither an earlier recording, nor what else a mistyped name may hit.
fn open_empty(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // What guests say is between them and their clients. And a pipe that nobody reads must not hold up the session.
    options.write(true).create(true).mode(0o600).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "this is no file"));
    }
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::new(ErrorKind::ResourceBusy, "another session records into it"))?;
    if metadata.len() > 0 {
        let why = "there is something in it already; give the name of a new file, or of an empty one";
        return Err(io::Error::new(ErrorKind::AlreadyExists, why));
    }
    Ok(file)
}

/// What is written to.
trait Output: Write + Send + 'static {
    /// Takes back what was written after so many bytes.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

impl Output for File {
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// The net thread's end of the queue.
pub(super) struct Recorder {
    queue: Sender<Item>,
    shared: Arc<Shared>,
    /// Miscompares so far, recorded or not.
    count: u64,
}

struct Item {
    number: u64,
    time: SystemTime,
    epoch: Epoch,
    divergence: Divergence,
    bytes: usize,
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl Recorder {
    /// Hands over a divergence with its evidence, to be recorded with this moment's time; drops and counts it when the queue is full.
    pub(super) fn submit(&mut self, epoch: Epoch, divergence: Divergence) {
        self.count += 1;
        let bytes = divergence.evidence.as_deref().map_or(0, bytes_of);
        let queued = self.shared.queued_bytes.load(Ordering::SeqCst);
        if queued > 0 && queued + bytes > MAX_QUEUED_BYTES {
            self.shared.dropped.fetch_add(1, Ordering::SeqCst);
            return;
        }
        self.shared.queued_bytes.fetch_add(bytes, Ordering::SeqCst);
        let item = Item { number: self.count, time: SystemTime::now(), epoch, divergence, bytes };
        match self.queue.try_send(item) {
            Ok(()) => {}
            Err(TrySendError::Full(item)) => {
                self.shared.queued_bytes.fetch_sub(item.bytes, Ordering::SeqCst);
                self.shared.dropped.fetch_add(1, Ordering::SeqCst);
            }
            // The recording has ended, and has said so.
            Err(TrySendError::Disconnected(item)) => {
                self.shared.queued_bytes.fetch_sub(item.bytes, Ordering::SeqCst);
            }
        }
    }
}

fn bytes_of(evidence: &Evidence) -> usize {
    evidence.primary.iter().chain(&evidence.secondary).map(|frame| frame.len() + FRAME_OVERHEAD_BYTES).sum()
}

/// A recording under way.
pub(super) struct Running {
    path: PathBuf,
    /// Closed by the thread when it ends.
    ended: Receiver<()>,
}

impl Running {
    /// Waits until everything is written, once nobody has a [`Recorder`] any more; but not for ever.
    pub(super) fn finish(self) {
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(FINISH_TIMEOUT) {
            tracing::warn!("{}: the disk is too slow; the last miscompares may not be recorded", self.path.display());
        }
    }
}

fn start(output: impl Output, path: PathBuf, max_bytes: u64) -> (Recorder, Running) {
    let (queue, items) = bounded(MAX_QUEUED);
    let (end, ended) = bounded::<()>(0);
    let shared = Arc::new(Shared::default());
    let running = Running { path: path.clone(), ended };
    let writer = Writer { output, path, recording: Recording::new(max_bytes), shared: shared.clone(), told_dropped: 0 };
    std::thread::spawn(move || {
        // Also when it ends by a panic.
        let _end = end;
        writer.run(&items);
    });
    (Recorder { queue, shared, count: 0 }, running)
}

/// The thread.
struct Writer<O> {
    output: O,
    path: PathBuf,
    recording: Recording,
    shared: Arc<Shared>,
    told_dropped: u64,
}

impl<O: Output> Writer<O> {
    /// Until there is nobody left who could hand over anything, or the file can take no more.
    fn run(mut self, items: &Receiver<Item>) {
        let path = self.path.display().to_string();
        let begin = self.recording.begin();
        let mut written = self.write(0, &begin);
        tracing::info!("{path}: miscompares are recorded here");
        while let Ok(true) = written {
            let Ok(Item { number, time, epoch, divergence, bytes }) = items.recv() else { break };
            let at = self.recording.bytes();
            let piece = self.recording.add(&Miscompare::of(number, time, epoch, divergence));
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
            written = match piece {
                Some(piece) => self.write(at, &piece),
                None => Ok(false),
            };
            self.tell_dropped();
        }
        match written {
            Ok(true) => {}
            Ok(false) => tracing::warn!("{path}: this is as long as it may get; no more miscompares are recorded"),
            Err(error) => tracing::warn!("{path}: {error}; no more miscompares are recorded"),
        }
        self.tell_dropped();
    }

    /// Writes a piece that belongs at that place; all of it, or nothing.
    fn write(&mut self, at: u64, piece: &[u8]) -> io::Result<bool> {
        self.output.write_all(piece).map(|()| true).inspect_err(|_| {
            // What cannot be taken back either is for the reader to make the best of.
            let _ = self.output.cut(at);
        })
    }

    fn tell_dropped(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::SeqCst);
        if dropped > self.told_dropped {
            let count = dropped - self.told_dropped;
            tracing::warn!("{}: {count} miscompares were not recorded, as there were too many", self.path.display());
            self.told_dropped = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Reason;
    use crate::net::Frame;
    use crate::record::RecordReader;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Mutex, MutexGuard};

    /// A file in memory, on a disk of so many bytes, that writes only while it is let.
    #[derive(Clone)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        size: usize,
        gate: Arc<Mutex<()>>,
    }

    impl Disk {
        fn of(size: usize) -> Disk {
            Disk { bytes: Arc::default(), size, gate: Arc::default() }
        }

        fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
            self.bytes.lock().unwrap()
        }

        /// Numbers and epochs of what is recorded.
        fn read(&self) -> Vec<(u64, u64)> {
            let bytes = self.bytes().clone();
            let mut reader = RecordReader::new(&bytes[..]);
            let next = || reader.next_miscompare().unwrap().map(|one| (one.number, one.epoch.unwrap().0));
            std::iter::from_fn(next).collect()
        }
    }

    impl Write for Disk {
        fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
            let _let = self.gate.lock().unwrap();
            let mut bytes = self.bytes();
            let fits = piece.len().min(self.size - bytes.len());
            bytes.extend_from_slice(&piece[..fits]);
            if fits == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(fits) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Disk {
        fn cut(&mut self, bytes: u64) -> io::Result<()> {
            self.bytes().truncate(bytes as usize);
            Ok(())
        }
    }

    fn divergence(frame_bytes: usize) -> Divergence {
        let frame = || vec![Frame::from(vec![0; frame_bytes])];
        let evidence = Some(Box::new(Evidence { primary: frame(), secondary: frame() }));
        Divergence { flow: None, reason: Reason::PayloadDiffers { offset: 0 }, evidence }
    }

    /// What is in the file and in the log after so many miscompares on that disk.
    fn record(disk: Disk, max_bytes: u64, count: u64) -> (Vec<(u64, u64)>, String) {
        let log = record_log(disk.clone(), max_bytes, count);
        (disk.read(), log)
    }

    fn record_log(disk: Disk, max_bytes: u64, count: u64) -> String {
        let log = Log::default();
        let writes = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writes.clone()).with_ansi(false).finish();
        let (queue, items) = bounded(MAX_QUEUED);
        let shared = Arc::new(Shared::default());
        let mut recorder = Recorder { queue, shared: shared.clone(), count: 0 };
        (0..count).for_each(|number| recorder.submit(Epoch(number + 10), divergence(60)));
        drop(recorder);
        let (output, recording) = (disk.clone(), Recording::new(max_bytes));
        let writer = Writer { output, path: "file".into(), recording, shared, told_dropped: 0 };
        tracing::subscriber::with_default(subscriber, || writer.run(&items));
        let log = log.0.lock().unwrap().clone();
        String::from_utf8(log).unwrap()
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_handed_over_is_in_the_file_at_the_end() {
        let disk = Disk::of(1 << 20);
        let (mut recorder, running) = start(disk.clone(), "file".into(), MAX_FILE_BYTES);
        (0..5).for_each(|number| recorder.submit(Epoch(number + 10), divergence(60)));
        drop(recorder);
        running.finish();
        assert_eq!(disk.read(), [(1, 10), (2, 11), (3, 12), (4, 13), (5, 14)]);
    }

    #[test]
    fn a_full_disk_ends_the_recording_with_one_line() {
        let (all, log) = record(Disk::of(1 << 20), MAX_FILE_BYTES, 3);
        assert_eq!((all, log.matches("WARN").count()), (vec![(1, 10), (2, 11), (3, 12)], 0));
        let whole = Disk::of(1 << 20);
        record(whole.clone(), MAX_FILE_BYTES, 2);
        let room = whole.bytes().len();
        for size in [0, 1, room / 2, room - 1] {
            let disk = Disk::of(size);
            let log = record_log(disk.clone(), MAX_FILE_BYTES, 3);
            assert_eq!(log.matches("WARN").count(), 1, "{log}");
            assert!(log.contains("file: no storage space; no more miscompares are recorded"), "{log}");
        }
        for size in [room, room + 10] {
            let disk = Disk::of(size);
            let (all, _) = record(disk.clone(), MAX_FILE_BYTES, 3);
            assert_eq!((all, disk.bytes().len()), (vec![(1, 10), (2, 11)], room), "what is not whole is taken back");
        }
    }

    #[test]
    fn a_file_of_its_longest_ends_the_recording_with_one_line() {
        let whole = Disk::of(1 << 20);
        record(whole.clone(), MAX_FILE_BYTES, 2);
        let room = whole.bytes().len() as u64;
        let (all, log) = record(Disk::of(1 << 20), room, 9);
        assert_eq!((all, log.matches("WARN").count()), (vec![(1, 10), (2, 11)], 1));
        assert!(log.contains("file: this is as long as it may get; no more miscompares are recorded"), "{log}");
    }

    #[test]
    fn what_does_not_fit_in_the_queue_is_counted_and_nobody_waits() {
        let disk = Disk::of(1 << 20);
        let gate = disk.gate.clone();
        let closed = gate.lock().unwrap();
        let (mut recorder, running) = start(disk.clone(), "file".into(), MAX_FILE_BYTES);
        // It waits for the disk with its first words, and takes none.
        let over = 7;
        (0..MAX_QUEUED + over).for_each(|_| recorder.submit(Epoch(1), divergence(60)));
        assert_eq!(recorder.shared.dropped.load(Ordering::SeqCst), over as u64);
        drop(closed);
        // Bytes count, too; but nothing is too long for an empty queue.
        let shared = recorder.shared.clone();
        drop(recorder);
        running.finish();
        assert_eq!(disk.read().len(), MAX_QUEUED);
        assert_eq!(shared.queued_bytes.load(Ordering::SeqCst), 0);

        let (queue, items) = bounded(MAX_QUEUED);
        let mut recorder = Recorder { queue, shared: Arc::default(), count: 0 };
        recorder.submit(Epoch(1), divergence(MAX_QUEUED_BYTES));
        recorder.submit(Epoch(1), divergence(60));
        assert_eq!((items.len(), recorder.shared.dropped.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(items.recv().unwrap().number, 1, "the long one");
        drop(items);
        recorder.submit(Epoch(1), divergence(60));
        assert_eq!(recorder.count, 3, "the numbers tell what is missing");
    }

    #[test]
    fn what_was_dropped_is_told_in_the_log() {
        let (all, log) = record(Disk::of(1 << 20), MAX_FILE_BYTES, MAX_QUEUED as u64 + 3);
        assert_eq!(all.len(), MAX_QUEUED);
        assert_eq!(log.matches("file: 3 miscompares were not recorded, as there were too many").count(), 1, "{log}");
    }

    /// A folder that goes when the test is over.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("colo-recorder-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = Folder::new("open");
        let path = folder.0.join("record.pcapng");
        let open =
            |path: &Path| RecordFile::open(&RecordConfig::new(path), Mode::Colo).map_err(|error| error.to_string());
        let complaint =
            |path: &Path| open(path).unwrap_err().strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned();
        let file = open(&path).unwrap();
        assert_eq!(complaint(&path), "another session records into it");
        drop(file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (recorder, running) = open(&path).expect("an empty one will do").start();
        drop(recorder);
        running.finish();
        let begun = std::fs::read(&path).unwrap();
        assert!(RecordReader::new(&begun[..]).next_miscompare().unwrap().is_none());
        assert!(complaint(&path).starts_with("there is something in it already; "));
        assert_eq!(std::fs::read(&path).unwrap(), begun);
        assert_eq!(complaint(&folder.0), "Is a directory (os error 21)");
        assert_eq!(complaint(&folder.0.join("no").join("such")), "No such file or directory (os error 2)");
        assert_eq!(complaint(Path::new("/dev/null")), "this is no file");
        let pipe = folder.0.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(complaint(&pipe), "No such device or address (os error 6)");
    }

    #[test]
    fn under_remus_there_is_nothing_to_record() {
        let folder = Folder::new("remus");
        let path = folder.0.join("record.pcapng");
        let error = RecordFile::open(&RecordConfig::new(&path), Mode::Remus).unwrap_err().to_string();
        assert_eq!(error, format!("{}: under Remus there are no miscompares to record", path.display()));
        assert!(!path.exists());
    }
}
