//! What is added to the logs in a folder, as it is added.

use super::Reports;
use colo_testbed_inside::protocol::{ProtocolError, Report};
use rustix::fs::inotify::{self, ReadFlags, Reader, WatchFlags};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const PIECE_BYTES: usize = 16 << 10;

/// Follows all files of a folder whose names end in `.log`.
pub(crate) struct Follower {
    folder: PathBuf,
    inotify: OwnedFd,
    /// Each read up to its end.
    files: HashMap<String, File>,
}

impl Follower {
    /// Begins to watch. What the folder's files hold already is reported first.
    pub(crate) fn new(folder: &Path) -> io::Result<Follower> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let what = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        inotify::add_watch(&inotify, folder, what)?;
        Ok(Follower { folder: folder.to_owned(), inotify, files: HashMap::new() })
    }

    /// Reports, until the testbed is gone.
    pub(crate) fn run(&mut self, reports: &Reports) -> Result<(), ProtocolError> {
        for entry in fs::read_dir(&self.folder)? {
            if let Ok(name) = entry?.file_name().into_string() {
                self.report(&name, reports)?;
            }
        }
        let inotify = self.inotify.try_clone()?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(inotify, &mut buffer);
        loop {
            let event = events.next().map_err(io::Error::from)?;
            let Some(name) = event.file_name().and_then(|name| name.to_str().ok()) else { continue };
            // Logs are rotated: under the same name there may be another file from now on.
            if event.events().intersects(ReadFlags::CREATE | ReadFlags::MOVED_FROM | ReadFlags::DELETE) {
                self.files.remove(name);
            }
            if event.events().intersects(ReadFlags::CREATE | ReadFlags::MODIFY) {
                self.report(name, reports)?;
            }
        }
    }

    fn report(&mut self, name: &str, reports: &Reports) -> Result<(), ProtocolError> {
        if !name.ends_with(".log") {
            return Ok(());
        }
        if !self.files.contains_key(name) {
            match File::open(self.folder.join(name)) {
                Ok(file) => self.files.insert(name.to_owned(), file),
                // Gone already.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error.into()),
            };
        }
        let Some(file) = self.files.get_mut(name) else { return Ok(()) };
        // A device model begins its guest's log anew, in the same file.
        if file.stream_position()? > file.metadata()?.len() {
            file.rewind()?;
        }
        loop {
            let mut bytes = vec![0; PIECE_BYTES];
            let count = file.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            bytes.truncate(count);
            reports.say(&Report::Log { name: name.to_owned(), bytes })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use colo_testbed_inside::protocol::read_frame;
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_added_is_told_also_after_a_rotation() {
        let folder = std::env::temp_dir().join(format!("colo-testbed-follower-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("early.log"), "early").unwrap();
        let (mut port, other) = UnixStream::pair().unwrap();
        let mut follower = Follower::new(&folder).unwrap();
        let reports = Reports::to(other);
        // It ends when the port is closed, and something more is to be told.
        let thread = std::thread::spawn(move || follower.run(&reports));
        let mut hear = || match Report::decode(&read_frame(&mut port).unwrap().unwrap()).unwrap() {
            Report::Log { name, bytes } => (name, String::from_utf8(bytes).unwrap()),
            other => panic!("{other:?}"),
        };
        assert_eq!(hear(), ("early.log".into(), "early".into()));
        let mut log = File::create(folder.join("g.log")).unwrap();
        log.write_all(b"one").unwrap();
        assert_eq!(hear(), ("g.log".into(), "one".into()));
        log.write_all(b"two").unwrap();
        assert_eq!(hear(), ("g.log".into(), "two".into()));
        fs::write(folder.join("g.txt"), "not a log").unwrap();
        fs::rename(folder.join("g.log"), folder.join("g.log.1")).unwrap();
        fs::write(folder.join("g.log"), "three").unwrap();
        assert_eq!(hear(), ("g.log".into(), "three".into()));
        let mut log = File::create(folder.join("g.log")).unwrap();
        log.write_all(b"4").unwrap();
        assert_eq!(hear(), ("g.log".into(), "4".into()));
        // Not only dropped: a program that another test starts has a copy of it for a moment, and what is more is told but once.
        port.shutdown(Shutdown::Both).unwrap();
        fs::write(folder.join("g.log.2.log"), "more").unwrap();
        assert!(thread.join().unwrap().is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
