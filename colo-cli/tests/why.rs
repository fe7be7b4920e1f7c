//! `colo why`, the real command, on recordings and on what is none; and `--record-miscompares` where it cannot be.

#[path = "support/scratch.rs"]
mod scratch;

use colo_core::compare::{Divergence, Evidence, FlowKey, Reason};
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::net::testing::{Tcp, udp};
use colo_core::record::{MAX_FILE_BYTES, Miscompare, Recording};
use colo_embedded::switch::{Switch, SwitchConfig};
use scratch::Scratch;
use serde_json::Value;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, UNIX_EPOCH};

fn colo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_colo")).args(arguments).output().unwrap()
}

fn why(path: &Path, options: &[&str]) -> Output {
    colo(&[&["why", path.to_str().unwrap()], options].concat())
}

/// What it says on stdout when all is well.
fn told(path: &Path, options: &[&str]) -> String {
    let output = why(path, options);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What it says on stderr when something is wrong: one line.
fn complaint(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(code), 1), "{stderr}");
    stderr.trim_end().strip_prefix("colo: ").expect(&stderr).to_owned()
}

fn miscompare(number: u64, reason: Reason, primary: &[Frame], secondary: &[Frame]) -> Miscompare {
    let evidence = Evidence { primary: primary.to_vec(), secondary: secondary.to_vec() };
    let divergence = Divergence { flow: Some(FlowKey::of(0, &primary[0])), reason, evidence: Some(Box::new(evidence)) };
    let time = UNIX_EPOCH + Duration::new(1_709_251_199, 123_456_789);
    Miscompare::of(number, time, Epoch(number + 4), divergence)
}

fn recorded(miscompares: &[Miscompare]) -> Vec<u8> {
    let mut recording = Recording::new(MAX_FILE_BYTES);
    let mut file = recording.begin();
    miscompares.iter().for_each(|miscompare| file.extend(recording.add(miscompare).unwrap()));
    file
}

/// A clock's answer over TCP, cut differently by the two machines; and a datagram that only one has sent.
fn two() -> Vec<Miscompare> {
    let segment = |seq: u32, text: &str| Tcp::new(80, 4000).seq(seq).ack(9).payload(text.as_bytes()).frame();
    let primary = [segment(1000, "HTTP/1.1 200 OK\r\n\r\n10:15:07")];
    let secondary = [segment(1000, "HTTP/1.1 200 OK\r\n\r\n"), segment(1019, "10:15:08")];
    let waited = Duration::from_millis(200);
    vec![
        miscompare(1, Reason::PayloadDiffers { offset: 1026 }, &primary, &secondary),
        miscompare(4, Reason::Unmatched { waited }, &[udp(53, 4000, b"answer")], &[]),
    ]
}

#[test]
fn what_differed_is_told_in_words() {
    let scratch = Scratch::new("why-words");
    let path = scratch.file("record.pcapng", &recorded(&two()));
    let expected = "\
miscompare 1, 2024-02-29 23:59:59.123456789 UTC, epoch 5
  TCP 10.0.0.1:80 > 10.0.0.2:4000 (nic 0): payload differs at 1026
  TCP payload, byte 26 of the stream as recorded (sequence number 1026, byte 80 of frame 1, byte 61 of frame 3): \
primary 0x37 '7', secondary 0x38 '8'
    primary     0a 31 30 3a 31 35 3a 30[37]                         .10:15:07
    secondary   0a 31 30 3a 31 35 3a 30[38]                         .10:15:08
miscompare 4, 2024-02-29 23:59:59.123456789 UTC, epoch 8
  UDP 10.0.0.1:53 > 10.0.0.2:4000 (nic 0): the primary's frame unmatched for 200 ms
  the secondary did not send this: UDP 10.0.0.1:53 > 10.0.0.2:4000, 6 bytes \"answer\"
";
    let text = told(&path, &[]);
    assert_eq!(text, expected);
    let path = scratch.file("none.pcapng", &recorded(&[]));
    assert_eq!(told(&path, &[]), format!("{}: no miscompares\n", path.display()));
}

#[test]
fn and_as_json() {
    let scratch = Scratch::new("why-json");
    let path = scratch.file("record.pcapng", &recorded(&two()));
    let values: Vec<Value> = told(&path, &["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), 2);
    assert_eq!((&values[0]["miscompare"], &values[0]["epoch"]), (&1.into(), &5.into()));
    assert_eq!(values[0]["time"], "2024-02-29T23:59:59.123456789Z");
    assert_eq!(values[0]["what"], "TCP 10.0.0.1:80 > 10.0.0.2:4000 (nic 0): payload differs at 1026");
    let difference = &values[0]["differences"][0];
    assert_eq!((&difference["protocol"], &difference["field"]), (&"TCP".into(), &"payload".into()));
    assert_eq!((&difference["sequence_number"], &difference["payload_offset"]), (&1026.into(), &26.into()));
    assert_eq!((&difference["primary"]["value"], &difference["primary"]["offset"]), (&"0x37 '7'".into(), &80.into()));
    assert_eq!((&difference["secondary"]["value"], &difference["secondary"]["frame"]), (&"0x38 '8'".into(), &3.into()));
    assert_eq!(values[1]["differences"][0]["secondary"]["value"], Value::Null);
    let path = scratch.file("none.pcapng", &recorded(&[]));
    assert_eq!(told(&path, &["--json"]), "");
}

#[test]
fn what_is_wrong_is_said_in_one_line_after_what_is_right() {
    let scratch = Scratch::new("why-wrong");
    let (whole, one) = (recorded(&two()), recorded(&two()[..1]));
    let check = |name: &str, bytes: &[u8], told: usize, said: &str| {
        let path = scratch.file(name, bytes);
        let output = why(&path, &[]);
        assert_eq!(complaint(&output, 1), format!("{}: {said}", path.display()));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches("miscompare ").count(), told, "{name}: {text}");
        text
    };
    check("empty", b"", 0, "at byte 0: the file is empty");
    check("text", b"no recording at all", 0, "at byte 0: this is no pcapng file");
    let pcap = "at byte 0: this is a pcap file, which cannot say which machine a frame is from; pcapng can";
    check("pcap", &[0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0, 0, 0, 0, 0], 0, pcap);
    let cut = format!("at byte {}: the file ends in the middle of a block", one.len());
    check("cut", &whole[..whole.len() - 1], 1, &cut);
    let last = u32::from_le_bytes(*one.last_chunk().unwrap()) as usize;
    let cut = format!("at byte {}: the file ends in the middle of a block", one.len() - last);
    let text = check("cut in a miscompare", &one[..one.len() - 1], 1, &cut);
    assert!(text.contains("\n  only 2 of its 3 frames are in the file\n"), "{text}");
    let changed = |at: usize, value: u8| {
        let mut bytes = one.clone();
        bytes[at] = value;
        bytes
    };
    let at = u32::from_le_bytes(one[4..8].try_into().unwrap()) as usize;
    check("no Ethernet", &changed(at + 8, 101), 0, &format!("at byte {at}: the link type is 101, not Ethernet"));
    let length = u32::from_le_bytes(one[at + 4..at + 8].try_into().unwrap()) as usize;
    let said = "one interface where two are needed, the primary's and the secondary's";
    check("one interface", &one[..at + length], 0, &format!("at byte {}: {said}", at + length));
    let output = why(&scratch.0, &[]);
    assert_eq!(complaint(&output, 1), format!("{}: this is a directory", scratch.0.display()));
    let missing = scratch.0.join("missing");
    assert_eq!(
        complaint(&why(&missing, &[]), 1),
        format!("{}: No such file or directory (os error 2)", missing.display())
    );
}

#[test]
fn reads_stdin_and_minds_no_closed_pipe() {
    let run = |listens: bool| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_colo"))
            .args(["why", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if !listens {
            // Nobody reads: the first thing that it writes fails.
            drop(child.stdout.take());
        }
        // It may be gone before all of it is written.
        let _ = child.stdin.take().unwrap().write_all(&recorded(&two()));
        child.wait_with_output().unwrap()
    };
    for listens in [true, false] {
        let output = run(listens);
        assert_eq!((String::from_utf8(output.stderr).unwrap().as_str(), output.status.code()), ("", Some(0)));
        assert_eq!(output.stdout.is_empty(), !listens);
    }
}

#[test]
fn under_remus_nothing_can_be_recorded() {
    let scratch = Scratch::new("why-remus");
    let path = scratch.0.join("record.pcapng");
    let arguments =
        ["primary", "--hypervisor", "embedded", "--domain", "web", "--peer", "127.0.0.1:1", "--mode", "remus"];
    let output = colo(&[&arguments[..], &["--record-miscompares", path.to_str().unwrap()]].concat());
    let said = "--record-miscompares: under Remus there are no miscompares to record; use --mode colo";
    assert_eq!(complaint(&output, 2), said);
    assert!(!path.exists());
}

/// Before anything begins.
#[test]
fn rules_that_make_no_sense_are_refused_with_their_line() {
    let scratch = Scratch::new("why-rules");
    let wrong = scratch.file("wrong", b"# one\nmask tcp from :80\n");
    let right = scratch.file("right", b"ignore udp from :123\n");
    let run = |rules: &std::path::Path, mode: &str| {
        let arguments =
            ["primary", "--hypervisor", "embedded", "--domain", "web", "--peer", "127.0.0.1:1", "--mode", mode];
        colo(&[&arguments[..], &["--compare-rules", rules.to_str().unwrap()]].concat())
    };
    let said = String::from_utf8(run(&wrong, "colo").stderr).unwrap();
    assert!(said.contains("--compare-rules <FILE>': line 2: a mask needs `bytes FROM..TO`"), "{said}");
    assert_eq!(run(&wrong, "colo").status.code(), Some(2));
    assert_eq!(run(&scratch.0.join("none"), "colo").status.code(), Some(2));
    let said = "--compare-rules: under Remus nothing is compared; use --mode colo";
    assert_eq!(complaint(&run(&right, "remus"), 2), said);
}

#[test]
fn what_is_in_a_file_stays_there() {
    let scratch = Scratch::new("why-exists");
    let path = scratch.file("record.pcapng", b"an earlier one");
    let socket = scratch.0.join("switch");
    let mut switch = Switch::new(&SwitchConfig::new(&socket)).unwrap();
    let (stop, stopper) = UnixStream::pair().unwrap();
    let lan = std::thread::spawn(move || switch.run(stop).unwrap());
    let (socket, file) = (socket.to_str().unwrap(), path.to_str().unwrap());
    // Nobody is there: what is wrong with the file comes before that.
    let mut arguments =
        vec!["primary", "--hypervisor", "embedded", "--domain", "web", "--memory", "16", "--switch", socket];
    arguments.extend(["--peer", "127.0.0.1:1", "--record-miscompares", file]);
    let said = complaint(&colo(&arguments), 1);
    drop(stopper);
    lan.join().unwrap();
    assert_eq!(
        said,
        format!("{file}: there is something in it already; give the name of a new file, or of an empty one")
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"an earlier one");
}
