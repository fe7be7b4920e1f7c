//! Hosts that die at chosen and at random moments, with real processes and real clients: the service goes on, and nothing that
//! was acknowledged is lost.
//!
//! `COLO_KILLS=N` sets how many primaries die (100), `COLO_KILL_SEED=X` replays the one that a failure names.

#[path = "../src/demo/client.rs"]
#[allow(dead_code)]
mod client;

use client::Client;
use colo_core::domain::{Disks, Machine};
use colo_core::layers::Faults;
use colo_core::net::Port;
use colo_core::peer::Mode;
use colo_core::restore::RestoreCallbacks;
use colo_core::save::SaveCallbacks;
use colo_core::session::{
    Event, Events, PrimarySession, PrimarySessionConfig, SecondarySession, SecondarySessionConfig,
};
use colo_embedded::body;
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost};
use colo_embedded::switch::{Switch, SwitchConfig, SwitchPort};
use crossbeam_channel::{Receiver, unbounded};
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, Scope};
use std::time::{Duration, Instant};

const COLO: &str = env!("CARGO_BIN_EXE_colo");
const PATIENCE: Duration = Duration::from_secs(30);
const DOWNLOAD_BYTES: u64 = 20_000_000;
/// How long a machine that may be gone is waited for, at a time.
const PROBE: Duration = Duration::from_millis(500);
/// PUTs that must be acknowledged after the death.
const PUTS_AFTER: u64 = 20;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The LAN, with a way in for clients.
struct Lan {
    socket: PathBuf,
    guest: SocketAddr,
    /// Dropped to stop the switch.
    stopper: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Lan {
    fn start(name: &str) -> Lan {
        let socket = std::env::temp_dir().join(format!("colo-kills-{}-{name}.switch", std::process::id()));
        let mut config = SwitchConfig::new(&socket);
        config.forwards.push("127.0.0.1:0=10.77.0.10:80".parse().unwrap());
        let mut switch = Switch::new(&config).unwrap();
        let guest = switch.forward_addrs().unwrap()[0];
        let (stop, stopper) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            switch.run(stop).unwrap();
        });
        Lan { socket, guest, stopper: Some(stopper), thread: Some(thread) }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.stopper.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A process that dies with this value.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(args: &[&str]) -> Process {
        let mut child = Command::new(COLO)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = unbounded();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Process { child, lines }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The next line with that text.
    fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_deadline(deadline).unwrap_or_else(|_| panic!("no {text}"));
            if line.contains(text) {
                return line;
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

fn kill(pid: &AtomicI32) {
    let pid = pid.load(Ordering::SeqCst);
    if pid > 0 {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
}

/// How many PUTs were acknowledged; to be waited for.
#[derive(Default)]
struct Counter(Mutex<u64>, Condvar);

impl Counter {
    fn get(&self) -> u64 {
        *self.0.lock().unwrap()
    }

    fn set(&self, count: u64) {
        *self.0.lock().unwrap() = count;
        self.1.notify_all();
    }

    /// Waits until it is so many, or for too long.
    fn wait(&self, count: u64) {
        drop(self.1.wait_timeout_while(self.0.lock().unwrap(), PATIENCE, |now| *now < count).unwrap());
    }
}

/// What clients do meanwhile.
struct Clients<'scope> {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Counter>,
    connections: Vec<TcpStream>,
    puts: std::thread::ScopedJoinHandle<'scope, Result<u64, String>>,
    download: std::thread::ScopedJoinHandle<'scope, Result<bool, String>>,
}

impl<'scope> Clients<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>, guest: SocketAddr) -> Clients<'scope> {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Counter::default()));
        let (stopped, counter) = (stop.clone(), acknowledged.clone());
        let (storing, loading) = (TcpStream::connect(guest).unwrap(), TcpStream::connect(guest).unwrap());
        let connections = vec![storing.try_clone().unwrap(), loading.try_clone().unwrap()];
        let puts = scope.spawn(move || puts(storing, &stopped, &counter).map_err(|error| format!("PUT: {error:#}")));
        let download = scope.spawn(move || download(loading).map_err(|error| format!("download: {error:#}")));
        Clients { stop, acknowledged, connections, puts, download }
    }

    /// Lets them go on for a while, and checks what they have seen.
    fn finish(self, guest: SocketAddr) -> Result<(), String> {
        let goal = self.acknowledged.get() + PUTS_AFTER;
        self.acknowledged.wait(goal);
        self.stop.store(true, Ordering::SeqCst);
        let acknowledged = self.puts.join().map_err(|_| "a panic")??;
        if acknowledged < goal {
            return Err(format!("only {acknowledged} of {goal} PUTs were acknowledged"));
        }
        if !self.download.join().map_err(|_| "a panic")?? {
            return Err("the download is wrong".into());
        }
        let lost = lost_puts(guest, acknowledged).map_err(|error| format!("GET: {error:#}"))?;
        if lost.is_empty() {
            Ok(())
        } else {
            Err(format!("of {acknowledged} acknowledged PUTs these are lost: {lost:?}"))
        }
    }

    /// Ends them, who wait for a machine that is gone.
    fn abandon(self) {
        self.stop.store(true, Ordering::SeqCst);
        for connection in &self.connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn puts(connection: TcpStream, stop: &AtomicBool, acknowledged: &Counter) -> anyhow::Result<u64> {
    let mut client = Client::over(connection, PATIENCE)?;
    while !stop.load(Ordering::SeqCst) {
        let number = acknowledged.get();
        client.put(&format!("/kv/{number}"), number.to_string().as_bytes())?;
        acknowledged.set(number + 1);
    }
    Ok(acknowledged.get())
}

fn download(connection: TcpStream) -> anyhow::Result<bool> {
    let (mut at, mut right) = (0, true);
    Client::over(connection, PATIENCE)?.download(&format!("/bytes/{DOWNLOAD_BYTES}"), |piece| {
        right &= body::first_difference(at, piece).is_none();
        at += piece.len() as u64;
    })?;
    Ok(right && at == DOWNLOAD_BYTES)
}

fn lost_puts(guest: SocketAddr, acknowledged: u64) -> anyhow::Result<Vec<u64>> {
    let mut client = Client::connect(guest)?;
    let mut lost = Vec::new();
    for number in 0..acknowledged {
        let (status, value) = client.get(&format!("/kv/{number}"))?;
        if status != 200 || value != number.to_string().as_bytes() {
            lost.push(number);
        }
    }
    Ok(lost)
}

/// Waits until the guest answers, or until the machine is gone.
fn guest_answers(guest: SocketAddr, gone: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && !gone() {
        let connection = TcpStream::connect(guest).map_err(anyhow::Error::from);
        let answer = connection.and_then(|connection| Client::over(connection, PROBE)?.get("/"));
        if answer.is_ok() {
            return true;
        }
    }
    false
}

/// The next event that `wanted` says yes to.
fn wait_for(events: &Events, log: &mut Vec<String>, wanted: impl Fn(&Event) -> bool) -> Result<Event, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = events.recv_deadline(deadline).map_err(|_| format!("waited in vain; events: {log:#?}"))?;
        log.push(event.to_string());
        if wanted(&event) {
            return Ok(event);
        }
    }
}

/// When a primary dies.
#[derive(Clone, Debug)]
enum Moment {
    /// Just before call number N of one of its own callbacks.
    Primary(&'static str, u64),
    /// Just before call number N of one of the secondary's.
    Secondary(&'static str, u64),
    /// After so many PUTs.
    Puts(u64),
}

impl Moment {
    fn random(random: &mut Random) -> Moment {
        let call = 1 + random.below(6);
        match random.below(12) {
            // 1 is the end of the first copy.
            0 => Moment::Primary("wait_checkpoint", 1),
            1 => Moment::Primary("suspend", call),
            2 => Moment::Primary("capture", call),
            3 => Moment::Primary("postcopy", call),
            4 => Moment::Primary("checkpoint", 1 + random.below(12)),
            // During the first copy, and while a later checkpoint is staged.
            5 => Moment::Secondary("get_page", 1 + random.below(20)),
            6 => Moment::Secondary("get_page", 40 + random.below(2000)),
            // The last record before the acknowledgement.
            7 => Moment::Secondary("record", call),
            // Between the acknowledgement and the release, while flushing, and after.
            8 => Moment::Secondary("flush_memory", call),
            9 => Moment::Secondary("finish_restore", call),
            _ => Moment::Puts(random.below(300)),
        }
    }
}

#[test]
fn a_primary_dies_at_any_moment() {
    let lan = Lan::start("primary");
    let kills = std::env::var("COLO_KILLS").map_or(100, |text| text.parse().expect("COLO_KILLS is a number"));
    let seeds: Vec<u64> = match std::env::var("COLO_KILL_SEED") {
        Ok(seed) => vec![seed.parse().expect("COLO_KILL_SEED is a number")],
        Err(_) => (0..kills).collect(),
    };
    let mut took_over = 0;
    for &seed in &seeds {
        match primary_dies(seed, &lan) {
            Ok(survived) => took_over += u64::from(survived),
            Err(error) => panic!("replay with COLO_KILL_SEED={seed}: {error}"),
        }
    }
    println!("{} primaries died; {took_over} times the secondary took over", seeds.len());
    assert!(
        seeds.len() < 20 || took_over * 2 > seeds.len() as u64,
        "most of the deaths are after the first checkpoint"
    );
}

/// Returns whether there was anything to take over.
fn primary_dies(seed: u64, lan: &Lan) -> Result<bool, String> {
    let mut random = Random(seed);
    let mode = if random.below(3) == 0 { "remus" } else { "colo" };
    let moment = Moment::random(&mut random);
    let pid = Arc::new(AtomicI32::new(0));
    let layer = {
        let (pid, moment) = (pid.clone(), moment.clone());
        move |inner: Box<dyn RestoreCallbacks>| -> Box<dyn RestoreCallbacks> {
            let Moment::Secondary(callback, call) = moment else { return inner };
            let pid = pid.clone();
            let faults = Faults::default().at(callback, call, move || {
                kill(&pid);
                Ok(())
            });
            Box::new(colo_core::restore::layers::Faulty::new(inner, faults))
        }
    };
    let config = SecondarySessionConfig { verify: true, layer: Some(Arc::new(layer)), ..Default::default() };
    let host = Box::new(EmbeddedHost::new(&lan.socket));
    let session = SecondarySession::listen("127.0.0.1:0", host, config).map_err(|error| error.to_string())?;
    let mut primary = start_primary(lan, session.local_addr(), mode, &moment);
    pid.store(primary.pid(), Ordering::SeqCst);
    let result = std::thread::scope(|scope| {
        let gone = || primary_gone(pid.load(Ordering::SeqCst));
        let clients = guest_answers(lan.guest, gone).then(|| Clients::start(scope, lan.guest));
        if let (Moment::Puts(count), Some(clients)) = (&moment, &clients) {
            clients.acknowledged.wait(*count);
            kill(&pid);
        }
        let mut log = Vec::new();
        let is_end = |event: &Event| matches!(event, Event::TookOver { .. } | Event::Unprotected(_) | Event::Ended(_));
        match wait_for(session.events(), &mut log, is_end)? {
            Event::TookOver { .. } => {}
            Event::Unprotected(why) if why.contains("before the machine was protected") => {
                if let Some(clients) = clients {
                    clients.abandon();
                }
                return Ok(false);
            }
            other => return Err(format!("{mode}, {moment:?}: {other}; events: {log:#?}")),
        }
        match clients {
            Some(clients) => {
                clients.finish(lan.guest).map_err(|error| format!("{mode}, {moment:?}: {error}; {log:#?}"))?;
            }
            None => assert!(guest_answers(lan.guest, || false), "{mode}, {moment:?}: the survivor does not answer"),
        }
        Ok(true)
    });
    let _ = primary.child.kill();
    session.controller().stop();
    session.wait();
    result
}

fn start_primary(lan: &Lan, peer: SocketAddr, mode: &str, moment: &Moment) -> Process {
    let (peer, switch) = (peer.to_string(), lan.socket.to_string_lossy().into_owned());
    let mut args = vec!["primary", "--json", "--verify", "--domain", "web", "--memory", "16", "--mode", mode];
    // A process that is starved by other tests is not silent: only the dead are taken over from without a fence.
    args.extend(["--interval", "30", "--heartbeat", "1000", "--peer", &peer, "--switch", &switch]);
    let die_at = match moment {
        Moment::Primary(callback, call) => format!("{callback}:{call}"),
        _ => String::new(),
    };
    if !die_at.is_empty() {
        args.extend(["--die-at", &die_at]);
    }
    Process::start(&args)
}

/// A primary that stands still is silent, as if the link were cut: the operator says whether it is dead.
#[test]
fn a_primary_that_is_only_silent_is_held_until_sigusr1() {
    for accepts in [false, true] {
        let lan = Lan::start(&format!("silent-{accepts}"));
        let switch = lan.socket.to_string_lossy().into_owned();
        let mut args = vec!["secondary", "--json", "--listen", "127.0.0.1:0", "--switch", &switch];
        args.extend(accepts.then_some("--promote-unfenced"));
        let secondary = Process::start(&args);
        let listening: serde_json::Value = serde_json::from_str(&secondary.wait_for("listening")).unwrap();
        let peer = listening["address"].as_str().unwrap();
        let mut primary = Process::start(&[
            "primary",
            "--json",
            "--domain",
            "web",
            "--memory",
            "16",
            "--heartbeat",
            "200",
            "--peer",
            peer,
            "--switch",
            &switch,
        ]);
        primary.wait_for("\"protected\"");
        secondary.wait_for("\"applied\"");
        send_signal("-STOP", primary.pid());
        if !accepts {
            secondary.wait_for("\"held\"");
            send_signal("-USR1", secondary.pid());
        }
        secondary.wait_for("\"took-over\"");
        // It wakes, hears that the other side serves, and stands down.
        send_signal("-CONT", primary.pid());
        assert_eq!(primary.child.wait().unwrap().code(), Some(3));
        assert!(guest_answers(lan.guest, || false));
    }
}

fn send_signal(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn primary_gone(pid: i32) -> bool {
    // A zombie has no memory map.
    std::fs::read_to_string(format!("/proc/{pid}/maps")).map_or(true, |maps| maps.is_empty())
}

#[test]
fn a_secondary_dies_at_any_moment() {
    let lan = Lan::start("secondary");
    for seed in 0..20 {
        if let Err(error) = secondary_dies(seed, &lan) {
            panic!("seed {seed}: {error}");
        }
    }
}

fn secondary_dies(seed: u64, lan: &Lan) -> Result<(), String> {
    let mut random = Random(seed);
    let mode = if random.below(3) == 0 { Mode::Remus } else { Mode::Colo };
    let callbacks = ["wait_checkpoint", "suspend", "capture", "postcopy", "checkpoint"];
    let callback = callbacks[random.below(callbacks.len() as u64) as usize];
    let call = 1 + random.below(8);
    let switch = lan.socket.to_string_lossy().into_owned();
    let secondary =
        Process::start(&["secondary", "--json", "--verify", "--listen", "127.0.0.1:0", "--switch", &switch]);
    let line = secondary.wait_for("listening");
    let peer = line.split('"').find(|word| word.starts_with("127.0.0.1:")).ok_or("no address")?.to_owned();
    let pid = Arc::new(AtomicI32::new(secondary.pid()));
    let (machine, wire) = boot(&lan.socket);
    let mut config = PrimarySessionConfig::new(mode);
    config.checkpoints.interval = Duration::from_millis(30);
    config.verify = true;
    config.layer = Some(Box::new(move |inner: Box<dyn SaveCallbacks>| {
        let faults = Faults::default().at(callback, call, move || {
            kill(&pid);
            Ok(())
        });
        Box::new(colo_core::save::layers::Faulty::new(inner, faults))
    }));
    let session = PrimarySession::start(machine, vec![wire], &peer, config).map_err(|error| error.error.to_string())?;
    let result = std::thread::scope(|scope| {
        if !guest_answers(lan.guest, || false) {
            return Err("the guest does not answer".into());
        }
        let clients = Clients::start(scope, lan.guest);
        let mut log = Vec::new();
        wait_for(session.events(), &mut log, |event| matches!(event, Event::Unprotected(_)))?;
        clients.finish(lan.guest).map_err(|error| format!("{mode:?}, {callback} {call}: {error}; {log:#?}"))
    });
    session.controller().stop();
    session.wait();
    result
}

fn boot(switch: &Path) -> (Machine, Box<dyn Port>) {
    let config = EmbeddedConfig { ram_bytes: 16 << 20, ..EmbeddedConfig::named("web") };
    let wire = SwitchPort::connect(switch).unwrap();
    let (domain, card) = EmbeddedDomain::boot(&config).unwrap();
    (Machine { domain: Box::new(domain), nics: vec![Box::new(card)], disks: Disks::None }, Box::new(wire))
}
