//! The real guest program on a disk, killed in the midst of its work: what it has acknowledged is there for the next.

use colo_core::disk::FileBackend;
use colo_core::domain::{Control, RunState};
use colo_core::net::{Frame, Port};
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, RingPort};
use colo_embedded::switch::{Counters, Forward, Switch, SwitchConfig, SwitchPort};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
const DISK_BYTES: u64 = 2 << 20;
const CLIENTS: usize = 6;

/// A directory with a disk in it, for the time of a test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("colo-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn disk(&self) -> File {
        let path = self.0.join("disk");
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A switch with a way to the guest's service.
struct Lan {
    path: PathBuf,
    service: SocketAddr,
    stopper: Mutex<Option<UnixStream>>,
    thread: Option<JoinHandle<Counters>>,
}

impl Lan {
    fn start(directory: &Directory) -> Lan {
        let mut config = SwitchConfig::new(directory.0.join("lan.sock"));
        let target = "10.77.0.10:80".parse().unwrap();
        config.forwards = vec![Forward { listen: "127.0.0.1:0".parse().unwrap(), target }];
        let mut switch = Switch::new(&config).unwrap();
        let service = switch.forward_addrs().unwrap()[0];
        let (stop, stopper) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || switch.run(&stop).unwrap());
        Lan { path: directory.0.join("lan.sock"), service, stopper: Mutex::new(Some(stopper)), thread: Some(thread) }
    }

    /// Breaks all connections: clients need not wait for what nobody will say.
    fn cut(&self) {
        self.stopper.lock().unwrap().take();
    }

    /// The status and the body of the answer; `None` when there is nobody to give it.
    fn ask(&self, line: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.service).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
        let mut answer = Vec::new();
        // A connection that breaks has said what it has said.
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
        Some((status, answer[end + 4..].to_vec()))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.cut();
        let _ = self.thread.take().unwrap().join();
    }
}

/// A guest on the LAN's disk, and the cable to the switch. It ends with its domain.
struct Guest {
    domain: EmbeddedDomain,
    cable: JoinHandle<()>,
}

impl Guest {
    fn start(lan: &Lan, directory: &Directory) -> Guest {
        let config =
            EmbeddedConfig { ram_bytes: 16 << 20, disk_bytes: DISK_BYTES, ..EmbeddedConfig::named("disk-test") };
        let file = directory.disk();
        file.set_len(DISK_BYTES).unwrap();
        let (mut domain, card) = EmbeddedDomain::boot_with(&config, Some(Arc::new(FileBackend::new(file)))).unwrap();
        let switch = lan.path.clone();
        let cable = std::thread::spawn(move || carry(card, &switch));
        domain.resume().unwrap();
        let guest = Guest { domain, cable };
        let deadline = Instant::now() + DEADLINE;
        while lan.ask("GET /time", b"").is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < deadline, "no answer; console: {:#?}", guest.domain.console());
            assert_eq!(guest.domain.run_state(), RunState::Running, "{:?}", guest.domain.end_report());
        }
        guest
    }

    fn kill(self) {
        kill_process(Pid::from_raw(self.domain.pid()).unwrap(), Signal::KILL).unwrap();
        assert_eq!(self.domain.wait_until_ended(DEADLINE), RunState::Crashed);
        // With it goes the disk's thread: nothing that the guest has said reaches the file after this.
        drop(self.domain);
        self.cable.join().unwrap();
    }
}

/// Frames both ways, until the machine has ended. Those for which there is no room are lost.
fn carry(mut card: RingPort, switch: &Path) {
    let mut lan = SwitchPort::connect(switch).unwrap();
    loop {
        let (card_fd, lan_fd) = (card.poll_fd(), lan.poll_fd());
        poll(&mut [PollFd::new(&card_fd, PollFlags::IN), PollFd::new(&lan_fd, PollFlags::IN)], None).unwrap();
        let mut frames: Vec<Frame> = Vec::new();
        if card.receive(&mut frames).is_err() {
            return;
        }
        let _ = lan.send(&frames);
        frames.clear();
        let _ = lan.receive(&mut frames);
        let _ = card.send(&frames);
    }
}

fn value(client: usize, number: usize) -> Vec<u8> {
    let mut value = format!("{client}:{number}:").into_bytes();
    value.resize(20 + number * 331 % 3000, b'v');
    value
}

/// Puts values until there is nobody who acknowledges them: for each key the numbers of the last that was acknowledged, and of the
/// last that was sent.
fn put_until_it_dies(lan: &Lan, client: usize, first: usize, puts: &mpsc::Sender<()>) -> BTreeMap<String, [usize; 2]> {
    let mut sent = BTreeMap::new();
    for number in first.. {
        let key = format!("/kv/{client}-{}", number % 7);
        let entry = sent.entry(key.clone()).or_insert([usize::MAX, number]);
        entry[1] = number;
        match lan.ask(&format!("PUT {key}"), &value(client, number)) {
            Some((201 | 204, _)) => entry[0] = number,
            Some((status, _)) => panic!("{status}"),
            None => break,
        }
        // Nobody may be counting any more.
        let _ = puts.send(());
    }
    sent
}

#[test]
fn what_was_acknowledged_survives_the_guests_death() {
    let directory = Directory::new("machine-disk");
    let mut known: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for round in 0..3 {
        let lan = Lan::start(&directory);
        let guest = Guest::start(&lan, &directory);
        for (key, value) in &known {
            assert_eq!(lan.ask(&format!("GET {key}"), b""), Some((200, value.clone())), "{key}");
        }
        let expected = format!("ok {} keys\n", known.len());
        assert_eq!(lan.ask("GET /kv-check", b""), Some((200, expected.into_bytes())));
        let (puts, counted) = mpsc::channel();
        let results: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let (lan, puts) = (&lan, puts.clone());
                    scope.spawn(move || put_until_it_dies(lan, client, round * 10_000, &puts))
                })
                .collect();
            for _ in 0..300 {
                counted.recv_timeout(DEADLINE).unwrap();
            }
            guest.kill();
            lan.cut();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        // What the next guest has of the last value sent, which nobody may have acknowledged, it has from then on.
        drop(lan);
        let lan = Lan::start(&directory);
        let guest = Guest::start(&lan, &directory);
        for (client, sent) in results.into_iter().enumerate() {
            for (key, [acknowledged, last]) in sent {
                let answer = lan.ask(&format!("GET {key}"), b"").unwrap();
                let mut allowed: Vec<Vec<u8>> = [last].iter().map(|&number| value(client, number)).collect();
                match acknowledged {
                    usize::MAX => allowed.extend(known.get(&key).cloned()),
                    number => allowed.push(value(client, number)),
                }
                let is_new = acknowledged == usize::MAX && !known.contains_key(&key);
                assert!(allowed.contains(&answer.1) || (is_new && answer.0 == 404), "{key}: {}", answer.0);
                if answer.0 == 200 {
                    known.insert(key, answer.1);
                }
            }
        }
        guest.kill();
    }
}
