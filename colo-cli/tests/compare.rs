//! `colo compare` as a user meets it.

use colo_core::net::Frame;
use colo_core::net::qemu::encode_frame;
use colo_core::net::testing::udp;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

const COLO: &str = env!("CARGO_BIN_EXE_colo");

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("colo-compare-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A comparator that runs; killed when this is dropped.
struct Compare {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Compare {
    fn start(options: &[&str]) -> Compare {
        let mut command = Command::new(COLO);
        command.args(options).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Compare { child, stdout, stderr }
    }

    fn told(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn json(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Its exit code, and what else it says.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stdout, stderr)
    }
}

impl Drop for Compare {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wire(frames: &[Frame]) -> Vec<u8> {
    let mut wire = Vec::new();
    frames.iter().for_each(|frame| encode_frame(frame, None, &mut wire));
    wire
}

fn expect(socket: &mut impl Read, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

#[test]
fn it_compares_and_tells_what_it_has_done() {
    let directory = Directory::new("it-compares");
    let path = |name| directory.path(name);
    let (primary_in, secondary_in, out) = (path("primary"), path("secondary"), path("out"));
    let options = ["compare", "--primary-in", &primary_in, "--secondary-in", &secondary_in, "--out", &out];
    let mut compare = Compare::start(&options);
    assert_eq!(compare.told(), format!("colo: primary-in is at {primary_in}"));
    assert_eq!(compare.told(), format!("colo: secondary-in is at {secondary_in}"));
    assert_eq!(compare.told(), format!("colo: out is at {out}"));

    let connect = |path: &str| UnixStream::connect(path).unwrap();
    let (mut primary, mut secondary, mut out) = (connect(&primary_in), connect(&secondary_in), connect(&out));
    let agreed = wire(&[udp(53, 4000, b"an answer")]);
    primary.write_all(&agreed).unwrap();
    secondary.write_all(&agreed).unwrap();
    expect(&mut out, &agreed);
    compare.signal("USR1");
    let totals = "colo: primary: 1 frames, 1 agreed, 0 let go without, 0 held, 0 lost; \
                  secondary: 1 frames, 0 forgotten, 0 too old; out: 1 sent, 0 waiting, 0 lost; \
                  0 miscompares, 0 checkpoints, 0 connections with bad framing";
    assert_eq!(compare.told(), totals);

    // It goes on. Without --notify a difference is told, and what was held leaves.
    let held = wire(&[udp(53, 4000, b"10:15")]);
    primary.write_all(&held).unwrap();
    secondary.write_all(&wire(&[udp(53, 4000, b"10:16")])).unwrap();
    expect(&mut out, &held);
    let told = compare.told();
    assert!(told.contains("outputs differ (1 times): UDP 10.0.0.1:53 > 10.0.0.2:4000"), "{told}");

    // Bad framing: one line, and that connection's end.
    primary.write_all(&[0; 4]).unwrap();
    assert_eq!(primary.read(&mut [0]).unwrap(), 0);
    let told = compare.told();
    assert!(told.contains("primary-in: bad framing: a frame of 0 bytes"), "{told}");
    let mut primary = connect(&primary_in);
    primary.write_all(&agreed).unwrap();
    secondary.write_all(&agreed).unwrap();
    expect(&mut out, &agreed);

    compare.signal("TERM");
    let (code, stdout, stderr) = compare.end();
    assert_eq!((code, &stdout[..]), (Some(0), ""), "{stderr}");
    assert!(stderr.starts_with("colo: primary: 3 frames, 2 agreed, 1 let go without, 0 held"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(!Path::new(&primary_in).exists(), "its files are gone");
}

#[test]
fn over_tcp_with_a_toolstack_and_in_json() {
    let any = "tcp:127.0.0.1:0";
    let options = ["--json", "compare", "--primary-in", any, "--secondary-in", any, "--out", any, "--notify", any];
    let mut compare = Compare::start(&[&options[..], &["--vnet-hdr", "--compare-timeout", "20"]].concat());
    let listening = compare.json();
    assert_eq!(listening["event"], "listening");
    let connect = |name: &str| {
        let address = listening[name].as_str().unwrap().strip_prefix("tcp:").unwrap();
        TcpStream::connect(address).unwrap()
    };
    let mut notify = connect("notify");
    let (mut primary, _secondary, mut out) = (connect("primary_in"), connect("secondary_in"), connect("out"));
    let mut wire = Vec::new();
    encode_frame(&udp(53, 4000, b"alone"), Some(12), &mut wire);
    primary.write_all(&wire).unwrap();
    // The secondary says nothing for 20 ms.
    expect(&mut notify, b"\0\0\0\x0dDO_CHECKPOINT");
    notify.write_all(b"\0\0\0\x0fCOLO_CHECKPOINT").unwrap();
    expect(&mut out, &wire);
    compare.signal("INT");
    let totals = compare.json();
    assert_eq!((&totals["event"], &totals["checkpoints"]), (&"totals".into(), &1.into()), "{totals}");
    assert_eq!((&totals["let_go_frames"], &totals["sent_frames"]), (&1.into(), &1.into()), "{totals}");
    assert_eq!(compare.end().0, Some(0));
}

/// What it says when it does not start: one line on stderr.
fn complaint(code: i32, options: &[&str]) -> String {
    let output = Command::new(COLO).arg("compare").args(options).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

#[test]
fn where_it_cannot_listen_it_says_so_and_leaves_all_as_it_is() {
    let directory = Directory::new("cannot-listen");
    let (mine, precious) = (directory.path("mine"), directory.path("precious"));
    std::fs::write(&precious, "precious").unwrap();
    let said = complaint(1, &["--primary-in", &mine, "--secondary-in", &precious, "--out", "tcp:127.0.0.1:0"]);
    assert_eq!(said, format!("colo: cannot listen at {precious} for secondary-in: the file is not a socket\n"));
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    assert!(!Path::new(&mine).exists());

    let missing = directory.path("no/such/folder");
    let said = complaint(1, &["--primary-in", &missing, "--secondary-in", &mine, "--out", &mine]);
    assert!(said.starts_with(&format!("colo: cannot listen at {missing} for primary-in: No such file")), "{said}");

    let said = complaint(1, &["--primary-in", &mine, "--secondary-in", &mine, "--out", "tcp:127.0.0.1:0"]);
    assert!(said.starts_with(&format!("colo: cannot listen at {mine} for secondary-in: ")), "{said}");
    assert_eq!(said.lines().count(), 1);
}

#[test]
fn addresses_that_are_not_clear_are_refused() {
    for (address, hint) in [("localhost:9001", "tcp:HOST:PORT"), ("tcp:9001", "tcp:HOST:PORT"), ("", "give a path")] {
        let said = complaint(2, &["--primary-in", address, "--secondary-in", "a", "--out", "b"]);
        assert!(said.contains(hint) && said.contains("--primary-in"), "{address}: {said}");
    }
    assert!(complaint(2, &["--primary-in", "a", "--secondary-in", "b"]).contains("--out"));
    let said = complaint(2, &["--primary-in", "a", "--secondary-in", "b", "--out", "c", "--compare-timeout", "0"]);
    assert!(said.contains("whole milliseconds"), "{said}");
}
