//! `colo disk` as a user meets it.

use colo_core::disk::Backend;
use colo_core::disk::nbd::{Client, ClientConfig};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

const COLO: &str = env!("CARGO_BIN_EXE_colo");

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("colo-disk-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn disk(&self, size: u64) -> String {
        let path = self.path("disk");
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A server that runs; killed when this is dropped.
struct Serving {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Serving {
    fn start(arguments: &[&str]) -> Serving {
        let mut command = Command::new(COLO);
        command.args(["disk", "serve"]).args(arguments).env_remove("RUST_LOG");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Serving { child, stderr }
    }

    fn told(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Its exit code, and what else it says.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_disk_is_served_until_it_is_told_to_stop() {
    let folder = Folder::new("served");
    let (disk, socket) = (folder.disk(1 << 20), folder.path("socket"));
    let arguments = ["--backing", &disk, "--socket", &socket, "--name", "root"];
    let mut serving = Serving::start(&arguments);
    let address = format!("nbd+unix:///root?socket={socket}");
    assert_eq!(serving.told(), format!("colo: {disk} (1048576 bytes) is at {address}"));

    let other = folder.path("other");
    let (code, said) = Serving::start(&["--backing", &disk, "--socket", &other]).end();
    let locked = "another process has locked it; a disk has one server, or several that only read";
    assert_eq!((code, said), (Some(1), format!("colo: {disk}: {locked}\n")));

    match Command::new("qemu-io").args(["-f", "raw", "-c", "write -P 5 4k 4k", "-c", "flush", &address]).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(fs::read(&disk).unwrap()[4096..8192] == [5; 4096]);
        }
        Err(error) => eprintln!("SKIPPED: qemu-io: {error}"),
    }
    let kill = format!("kill -TERM {}", serving.child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(serving.end(), (Some(0), String::new()));
    assert!(!fs::exists(&socket).unwrap());
}

#[test]
fn a_disk_is_served_to_the_network_too() {
    let folder = Folder::new("tcp");
    let (disk, socket) = (folder.disk(1 << 20), folder.path("socket"));
    let mut serving = Serving::start(&["--backing", &disk, "--socket", &socket, "--tcp", "127.0.0.1:0"]);
    let told = serving.told();
    let (here, there) = told.rsplit_once(" and at ").unwrap();
    assert_eq!(here, format!("colo: {disk} (1048576 bytes) is at nbd+unix:///disk?socket={socket}"));
    // Both are the same disk.
    let client = |location: &str| Client::connect(&location.parse().unwrap(), ClientConfig::default()).unwrap();
    client(there).write(4096, &[7; 512]).unwrap();
    let mut bytes = [0; 512];
    client(here.rsplit_once(' ').unwrap().1).read(4096, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 512]);

    let port = there.strip_prefix("nbd://").unwrap().strip_suffix("/disk").unwrap();
    let other = folder.path("other");
    File::create(&other).unwrap().set_len(512).unwrap();
    let (code, said) = Serving::start(&["--backing", &other, "--tcp", port]).end();
    assert_eq!((code, said), (Some(1), format!("colo: {port}: Address already in use (os error 98)\n")));
    let (code, said) = Serving::start(&["--backing", &other]).end();
    assert!(code == Some(2) && said.contains("--socket <PATH>"), "{said}");
}

#[test]
fn what_cannot_be_served_is_said_in_a_line() {
    let folder = Folder::new("refused");
    let (empty, socket) = (folder.disk(0), folder.path("socket"));
    let (missing, directory) = (folder.path("missing"), folder.0.display().to_string());
    for (backing, more, why) in [
        (&empty, None, "it is empty; give it its size first (truncate -s SIZE)"),
        (&missing, None, "No such file or directory (os error 2)"),
        (&directory, Some("--read-only"), "neither a file nor a block device"),
    ] {
        let arguments = ["--backing", backing, "--socket", &socket].into_iter().chain(more).collect::<Vec<_>>();
        assert_eq!(Serving::start(&arguments).end(), (Some(1), format!("colo: {backing}: {why}\n")));
    }
    assert!(!fs::exists(&socket).unwrap());
}
