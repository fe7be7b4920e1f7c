//! `colo disk` as a user meets it.

#[path = "disk/shared.rs"]
mod shared;

use colo_core::disk::control::{ControlledPrimary, ControlledSecondary};
use colo_core::disk::nbd::{Client, ClientConfig};
use colo_core::disk::{Backend, DiskEvent, PrimaryDisks, SecondaryDisks};
use colo_core::ids::Epoch;
use colo_core::peer::StateChannel;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

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

    /// Asks it to end, and waits until it has.
    fn stop(self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(self.end(), (Some(0), String::new()));
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
    serving.stop();
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
fn a_guest_may_have_several_disks() {
    let folder = Folder::new("several");
    let (first, second, socket) = (folder.disk(4096), folder.path("second"), folder.path("socket"));
    File::create(&second).unwrap().set_len(8192).unwrap();
    let (control, journal) = (folder.path("control"), folder.path("journal"));
    let disks = ["--backing", &first, "--backing", &second, "--socket", &socket];
    let mut serving = Serving::start(&[&disks[..], &["--control", &control]].concat());
    let at = |name: &str| format!("nbd+unix:///{name}?socket={socket}");
    let told = format!("{first} (4096 bytes), {second} (8192 bytes) are at {} and at {}", at("disk0"), at("disk1"));
    assert_eq!(serving.told(), format!("colo: {told}, and driven at {control}"));
    for (name, fill) in [("disk0", 1), ("disk1", 2)] {
        let client = Client::connect(&at(name).parse().unwrap(), ClientConfig::default()).unwrap();
        client.write(0, &[fill; 4096]).unwrap();
    }
    assert_eq!(fs::read(&first).unwrap(), [1; 4096]);
    assert_eq!(fs::read(&second).unwrap(), [[2; 4096], [0; 4096]].concat());
    assert_eq!(ControlledPrimary::connect(Path::new(&control)).unwrap().sizes(), [4096, 8192]);
    serving.stop();

    let driven = ["--control", &control, "--journal", &journal, "--name", "root", "--name", "data"];
    let mut serving = Serving::start(&[&disks[..], &driven].concat());
    assert!(serving.told().contains(&format!("{} and at {}", at("root"), at("data"))));
    assert_eq!(ControlledSecondary::connect(Path::new(&control)).unwrap().sizes(), [4096, 8192]);
    serving.stop();

    for (more, why) in [
        (vec!["--name", "root"], "1 names for 2 disks: give one --name for each --backing, or none".to_owned()),
        (vec!["--name", "a", "--name", "a"], format!("{first} and {second}: two disks that are called \"a\"")),
        (vec!["--control", &control, "--journal", &second], format!("{second}: the journal is a file of its own")),
    ] {
        let said = Serving::start(&[&disks[..], &more].concat()).end();
        assert_eq!(said, (Some(1), format!("colo: {why}\n")));
    }
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

const PATIENCE: Duration = Duration::from_secs(20);

/// Two disk servers, as two hosts have them.
struct Hosts {
    folder: Folder,
    primary: Serving,
    secondary: Serving,
}

impl Hosts {
    fn new(name: &str) -> Hosts {
        let folder = Folder::new(name);
        fs::write(folder.path("p.disk"), vec![1; 1 << 20]).unwrap();
        fs::write(folder.path("s.disk"), vec![2; 1 << 20]).unwrap();
        let start = |host: &str, more: &[&str]| {
            let path = |what: &str| folder.path(&format!("{host}.{what}"));
            let (disk, socket, control) = (path("disk"), path("socket"), path("control"));
            let arguments = ["--backing", &disk, "--socket", &socket, "--control", &control];
            let mut serving = Serving::start(&[&arguments, more].concat());
            let told = format!("nbd+unix:///disk?socket={socket}, and driven at {control}");
            assert_eq!(serving.told(), format!("colo: {disk} (1048576 bytes) is at {told}"));
            serving
        };
        let primary = start("p", &["--durability", "disk"]);
        let secondary = start("s", &["--journal", &folder.path("journal")]);
        Hosts { folder, primary, secondary }
    }

    /// What `colo primary` and `colo secondary` have, once the two have met and both disks are the same.
    fn protect(&self) -> (ControlledPrimary, ControlledSecondary) {
        let mut primary = ControlledPrimary::connect(Path::new(&self.folder.path("p.control"))).unwrap();
        let mut secondary = ControlledSecondary::connect(Path::new(&self.folder.path("s.control"))).unwrap();
        assert_eq!((primary.sizes(), secondary.sizes()), (&[1 << 20][..], &[1 << 20][..]));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let channel = StateChannel::connect(&address, PATIENCE, Instant::now() + PATIENCE).unwrap();
        secondary.attach(StateChannel::new(listener.accept().unwrap().0, PATIENCE).unwrap()).unwrap();
        let (sender, events) = std::sync::mpsc::channel();
        primary.attach(channel, Box::new(move |event| drop(sender.send(event)))).unwrap();
        while events.recv_timeout(PATIENCE).unwrap() != DiskEvent::InStep {}
        (primary, secondary)
    }

    /// Has QEMU do that to a host's disk; false where there is no QEMU.
    fn qemu(&self, host: &str, what: &[&str]) -> bool {
        let address = format!("nbd+unix:///disk?socket={}", self.folder.path(&format!("{host}.socket")));
        let what = what.iter().flat_map(|what| ["-c", what]);
        match Command::new("qemu-io").args(["-f", "raw"]).args(what).arg(&address).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() && !said.contains("failed"), "{said}");
                true
            }
            Err(error) => {
                eprintln!("SKIPPED: qemu-io: {error}");
                false
            }
        }
    }

    fn bytes(&self, disk: &str) -> Vec<u8> {
        fs::read(self.folder.path(disk)).unwrap()
    }
}

fn checkpoint(primary: &mut ControlledPrimary, secondary: &mut ControlledSecondary, epoch: Epoch) {
    primary.freeze();
    primary.barrier(epoch);
    primary.thaw();
    assert!(secondary.wait_barrier(epoch, Instant::now() + PATIENCE));
    secondary.release();
    secondary.freeze();
    secondary.commit(epoch).unwrap();
    secondary.thaw();
    primary.committed(epoch);
}

#[test]
fn two_servers_replicate_a_disk_when_they_are_driven() {
    let hosts = Hosts::new("driven");
    // Before anything is protected.
    hosts.qemu("p", &["write -P 3 0 4k", "flush"]);
    hosts.qemu("s", &["read -P 2 0 1M"]);
    let (mut primary, mut secondary) = hosts.protect();
    checkpoint(&mut primary, &mut secondary, Epoch(1));
    hosts.qemu("p", &["write -P 4 8k 4k", "flush"]);
    checkpoint(&mut primary, &mut secondary, Epoch(2));
    let expected = hosts.bytes("p.disk");
    // This does not count.
    if hosts.qemu("p", &["write -P 5 0 64k", "flush"]) {
        assert!(hosts.qemu("s", &["read -P 3 0 4k", "read -P 4 8k 4k"]));
        assert_eq!((expected[0], expected[8192]), (3, 4));
    }
    drop((primary, secondary));
    let Hosts { folder, primary, secondary } = hosts;
    secondary.stop();
    primary.stop();
    assert!(fs::read(folder.path("s.disk")).unwrap() == expected);
    assert!(!fs::exists(folder.path("s.control")).unwrap());
}

#[test]
fn a_driven_disk_serves_after_a_failover_and_after_a_restart() {
    let hosts = Hosts::new("failover");
    let (mut primary, mut secondary) = hosts.protect();
    checkpoint(&mut primary, &mut secondary, Epoch(1));
    // The primary's host dies: `colo primary` with it.
    drop(primary);
    secondary.fail_over().unwrap();
    drop(secondary);
    let mut expected = hosts.bytes("p.disk");
    if hosts.qemu("s", &["write -P 6 4k 4k", "flush"]) {
        expected[4096..8192].fill(6);
    }
    let Hosts { folder, primary, secondary } = hosts;
    drop(primary);
    // Not even time for a word.
    drop(secondary);
    let (disk, journal) = (folder.path("s.disk"), folder.path("journal"));
    let (socket, control) = (folder.path("s.socket"), folder.path("s.control"));
    let arguments = ["--backing", &disk, "--socket", &socket, "--control", &control, "--journal", &journal];
    let mut again = Serving::start(&arguments);
    assert!(again.told().contains("is at nbd+unix:"));
    again.stop();
    assert!(fs::read(disk).unwrap() == expected);
}

#[test]
fn what_does_not_go_together_is_said() {
    let folder = Folder::new("together");
    let (disk, socket, control) = (folder.disk(1 << 20), folder.path("socket"), folder.path("control"));
    let journal = folder.path("journal");
    for (more, code, why) in [
        (vec!["--journal", &journal], 2, "--control <PATH>"),
        (vec!["--durability", "disk"], 2, "--control <PATH>"),
        (vec!["--control", &control, "--read-only"], 2, "cannot be used with"),
        (vec!["--control", &control, "--durability", "none"], 2, "async-epoch, memory, disk"),
        (vec!["--copy-limit", "100M"], 2, "--control <PATH>"),
        (vec!["--control", &control, "--copy-limit", "100MB"], 2, "give whole bytes in a second, 64K or more"),
        (vec!["--control", &control, "--copy-limit", "0"], 2, "100M, for instance"),
        (vec!["--control", &control, "--journal", &disk], 1, "disk: the journal is a file of its own"),
        (vec!["--control", &socket], 1, "socket: address in use"),
        (vec!["--control", &disk], 1, "disk: the file is not a socket"),
    ] {
        let arguments = [&["--backing", &disk, "--socket", &socket][..], &more].concat();
        let (ended, said) = Serving::start(&arguments).end();
        assert!(ended == Some(code) && said.contains(why), "{more:?}: {said}");
        assert!(code == 2 || said.lines().count() == 1, "{said}");
    }
    let empty = folder.path("empty");
    File::create(&empty).unwrap();
    let arguments = ["--backing", &empty, "--socket", &socket, "--control", &control, "--journal", &journal];
    let why = format!("colo: {empty}: it is empty; give it its size first (truncate -s SIZE)\n");
    assert_eq!(Serving::start(&arguments).end(), (Some(1), why));
}

/// Runs `colo disk` with these arguments: its exit code, and what it says.
fn disk(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(COLO).arg("disk").args(arguments).env_remove("RUST_LOG").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_differs_is_told_while_another_drives_the_disk() {
    let hosts = Hosts::new("verify");
    let (control, secondarys) = (hosts.folder.path("p.control"), hosts.folder.path("s.control"));
    let verify = |more: &[&str]| disk(&[&["verify", "--control", &control], more].concat());
    let why = format!("colo: {control}: not protected: there is nothing to compare with\n");
    assert_eq!(verify(&[]), (Some(5), String::new(), why));

    let (mut primary, mut secondary) = hosts.protect();
    checkpoint(&mut primary, &mut secondary, Epoch(1));
    let same = "both hosts have the same: 1048576 bytes were compared\n";
    let progress = "colo: comparing disks: 0 of 1 MiB, 0 parts differ\n";
    let (code, told, said) = verify(&[]);
    assert!((code, &*told) == (Some(0), same) && said.starts_with(progress), "{told}{said}");

    let path = hosts.folder.path("s.disk");
    let mut bytes = fs::read(&path).unwrap();
    bytes[70_000] ^= 1;
    fs::write(path, bytes).unwrap();
    let (code, told, _) = verify(&[]);
    let found =
        "disk 0 differs at byte 65536, for 65536 bytes\n1 of 16 parts differ, in 1048576 bytes. Nothing was changed";
    assert!(code == Some(1) && told.starts_with(found), "{told}");
    let (code, told, said) = verify(&["--json"]);
    assert_eq!((code, said), (Some(1), String::new()));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains(r#""event":"verifying""#) && lines[0].contains(r#""all_bytes":1048576"#), "{told}");
    let last = lines.last().unwrap();
    let differences = r#""differences":[{"disk":0,"is_unreadable":false,"length":65536,"offset":65536}]"#;
    for part in [r#""event":"verified""#, r#""is_equal":false"#, r#""differing_parts":1"#, differences] {
        assert!(last.contains(part), "{last}");
    }
    // Nobody has noticed.
    checkpoint(&mut primary, &mut secondary, Epoch(2));

    let why = "these are a secondary's disks: ask for it where the primary's are";
    let refused = (Some(1), String::new(), format!("colo: {secondarys}: {why}\n"));
    assert_eq!(disk(&["verify", "--control", &secondarys]), refused);
    let nobody = hosts.folder.path("nobody");
    let why = format!("colo: {nobody}: No such file or directory (os error 2)\n");
    assert_eq!(disk(&["verify", "--control", &nobody]), (Some(1), String::new(), why.clone()));
    assert_eq!(disk(&["status", "--control", &nobody]), (Some(1), String::new(), why));
}

#[test]
fn what_a_disk_is_doing_is_told_on_both_hosts() {
    let hosts = Hosts::new("status");
    let (control, secondarys) = (hosts.folder.path("p.control"), hosts.folder.path("s.control"));
    let status = |control: &str| {
        let (code, told, said) = disk(&["status", "--control", control]);
        assert_eq!((code, said), (Some(0), String::new()));
        told
    };
    let idle = "role         primary\nstate        not protected\ndriven       by nobody\nbytes        1048576\n\
                epoch        0 counts, 0 is whole\nwaiting      0 of at most 536870912 bytes\n";
    assert_eq!(status(&control), idle);

    let (mut primary, mut secondary) = hosts.protect();
    checkpoint(&mut primary, &mut secondary, Epoch(1));
    let in_step = "state        in step\ndriven       by another process\nbytes        1048576\n\
                   epoch        1 counts, 1 is whole\n";
    assert!(status(&control).contains(in_step), "{}", status(&control));
    let told = status(&secondarys);
    assert!(told.starts_with("role         secondary\n") && told.contains(in_step), "{told}");
    assert!(told.contains("\njournal      "), "{told}");
    let (code, told, _) = disk(&["status", "--json", "--control", &control]);
    assert_eq!((code, told.lines().count()), (Some(0), 1));
    for part in [r#""state":"in-step""#, r#""is_driven":true"#, r#""epoch":1"#, r#""sizes":[1048576]"#] {
        assert!(told.contains(part), "{told}");
    }
    drop(primary);
    assert!(status(&control).contains("state        not protected\ndriven       by nobody\n"), "{}", status(&control));
    drop(secondary);
    let told = status(&secondarys);
    assert!(told.contains("state        follows nobody\n") && told.contains("epoch        1 counts"), "{told}");
}
