//! Miscompares that are written down.

use crate::rig::Setup;
use colo_core::record::RecordReader;
use colo_core::session::RecordConfig;
use std::path::PathBuf;

/// A file that goes when the test is over.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> File {
        File(std::env::temp_dir().join(format!("colo-session-{name}-{}.pcapng", std::process::id())))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_session_without_a_miscompare_leaves_a_recording_of_none() {
    let file = File::new("none");
    let mut setup = Setup::colo();
    setup.primary.record = Some(RecordConfig::new(&file.0));
    setup.protect().stop();
    let recorded = std::fs::read(&file.0).unwrap();
    assert!(!recorded.is_empty());
    assert!(RecordReader::new(&recorded[..]).next_miscompare().unwrap().is_none());
}
