//! Miscompares that are written down.

use crate::rig::{Rig, Setup, answer};
use colo_core::ids::Epoch;
use colo_core::net::testing::Tcp;
use colo_core::net::{Frame, Seq};
use colo_core::record::{RecordReader, explain};
use colo_core::session::{Event, RecordConfig};
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

/// The secondary speaks, then the primary says something else; the checkpoint that follows is waited for.
fn differ(rig: &mut Rig, primary: &Frame, secondary: &[Frame]) {
    secondary.iter().for_each(|frame| rig.svm.say(frame));
    rig.pvm.say(primary);
    rig.primary_events.find(|event| matches!(event, Event::Miscompare(_)));
    rig.secondary_events.applied();
    assert_eq!(rig.client.next(), *primary);
}

#[test]
fn what_both_machines_had_said_is_recorded() {
    let file = File::new("differ");
    let mut setup = Setup::colo();
    setup.primary.record = Some(RecordConfig::new(&file.0));
    let mut rig = setup.protect();
    differ(&mut rig, &answer("10:15"), &[answer("10:16")]);
    let segment = |seq: u32, text: &str| Tcp::new(80, 4000).seq(seq).ack(1).payload(text.as_bytes()).frame();
    differ(&mut rig, &segment(100, "it is 10:15 now"), &[segment(100, "it is "), segment(106, "10:16 now")]);
    rig.stop();

    let recorded = std::fs::read(&file.0).unwrap();
    let mut reader = RecordReader::new(&recorded[..]);
    let mut next = || reader.next_miscompare().unwrap();
    let first = next().expect("a datagram");
    assert_eq!((first.number, first.epoch), (1, Some(Epoch(1))));
    assert_eq!(
        (first.primary.as_slice(), first.secondary.as_slice()),
        (&[answer("10:15")][..], &[answer("10:16")][..])
    );
    let text = explain(&first).to_string();
    assert!(text.starts_with("UDP payload, byte 4 ("), "{text}");
    assert!(text.contains("): primary 0x35 '5', secondary 0x36 '6'\n"), "{text}");
    let second = next().expect("a stream");
    assert_eq!((second.number, second.epoch), (2, Some(Epoch(2))));
    let explanation = explain(&second);
    assert_eq!(explanation.differences[0].place.sequence_number, Some(Seq(110)));
    assert!(explanation.to_string().contains("): primary 0x35 '5', secondary 0x36 '6'\n"), "{explanation}");
    assert_eq!(next(), None);
}
