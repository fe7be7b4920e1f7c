//! A real machine whose two halves tell different times: `colo primary --record-miscompares` writes down what they had said, and
//! `colo why` names the byte.

#[path = "../src/demo/client.rs"]
#[allow(dead_code)]
mod client;

use client::Client;
use colo_embedded::switch::{Switch, SwitchConfig};
use crossbeam_channel::{Receiver, unbounded};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const COLO: &str = env!("CARGO_BIN_EXE_colo");
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of this test's own, removed with everything in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with this value, and its events.
struct Process {
    child: Child,
    events: Receiver<Value>,
}

impl Process {
    fn start(arguments: &[&str]) -> Process {
        let mut command = Command::new(COLO);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, events) = unbounded();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Process { child, events }
    }

    /// The next event of that name.
    fn wait_for(&self, name: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event: Value = self.events.recv_deadline(deadline).unwrap_or_else(|_| panic!("no {name}"));
            if event["event"] == name {
                return event;
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_byte_in_which_two_clocks_differ_is_named() {
    let scratch = Scratch(std::env::temp_dir().join(format!("colo-record-{}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).unwrap();
    let (socket, file) = (scratch.0.join("switch"), scratch.0.join("record.pcapng"));
    let mut config = SwitchConfig::new(&socket);
    config.forwards.push("127.0.0.1:0=10.77.0.10:80".parse().unwrap());
    let mut switch = Switch::new(&config).unwrap();
    let guest = switch.forward_addrs().unwrap()[0];
    let (stop, stopper) = UnixStream::pair().unwrap();
    let lan = std::thread::spawn(move || switch.run(stop).unwrap());
    let (switch, file) = (socket.to_str().unwrap(), file.to_str().unwrap());

    let secondary = Process::start(&["secondary", "--json", "--listen", "127.0.0.1:0", "--switch", switch]);
    let listening = secondary.wait_for("listening");
    let peer = listening["address"].as_str().unwrap();
    let mut arguments = vec!["primary", "--json", "--domain", "web", "--memory", "16", "--interval", "60000"];
    arguments.extend(["--peer", peer, "--switch", switch, "--compare-timeout", "60000", "--record-miscompares", file]);
    let mut primary = Process::start(&arguments);
    primary.wait_for("protected");
    let mut client = Client::connect(guest).unwrap();
    let (status, told) = client.get("/time").unwrap();
    assert_eq!(status, 200);
    primary.wait_for("miscompare");
    let pid = primary.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(primary.child.wait().unwrap().success());
    drop(stopper);
    lan.join().unwrap();

    let output = Command::new(COLO).args(["why", "--json", file]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let all: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The time is in nanoseconds: it differs in some digit, and the client was told the primary's.
    let found = all.iter().find(|one| {
        let difference = &one["differences"][0];
        let value = |side: &str| difference[side]["value"].as_str().unwrap_or_default().to_owned();
        let digit = |text: String| text.ends_with('\'') && text.as_bytes()[text.len() - 2].is_ascii_digit();
        difference["protocol"] == "TCP"
            && difference["field"] == "payload"
            && one["what"].as_str().unwrap().starts_with("TCP 10.77.0.10:80 > ")
            && digit(value("primary"))
            && digit(value("secondary"))
            && value("primary") != value("secondary")
    });
    let found = found.unwrap_or_else(|| panic!("told {:?}, recorded {all:#?}", String::from_utf8_lossy(&told)));
    let output = Command::new(COLO).args(["why", file]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let reason = found["text"].as_str().unwrap().lines().next().unwrap();
    assert!(reason.starts_with("TCP payload, byte ") && text.contains(reason), "{text}");
}
