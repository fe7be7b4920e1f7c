//! The LAN, the processes and the clients of these tests.

use crate::client::Client;
use colo_core::session::{Event, Events};
use colo_embedded::body;
use colo_embedded::switch::{Switch, SwitchConfig};
use crossbeam_channel::{Receiver, unbounded};
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{JoinHandle, Scope};
use std::time::{Duration, Instant};

pub(crate) const COLO: &str = env!("CARGO_BIN_EXE_colo");
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const DOWNLOAD_BYTES: u64 = 20_000_000;
/// How long a machine that may be gone is waited for, at a time.
pub(crate) const PROBE: Duration = Duration::from_millis(500);
/// PUTs that must be acknowledged after the death.
pub(crate) const PUTS_AFTER: u64 = 20;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The LAN, with a way in for clients.
pub(crate) struct Lan {
    pub(crate) socket: PathBuf,
    pub(crate) guest: SocketAddr,
    /// Dropped to stop the switch.
    stopper: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Lan {
    pub(crate) fn start(name: &str) -> Lan {
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
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(args: &[&str]) -> Process {
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

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The next line with that text.
    pub(crate) fn wait_for(&self, text: &str) -> String {
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

pub(crate) fn kill(pid: &AtomicI32) {
    let pid = pid.load(Ordering::SeqCst);
    if pid > 0 {
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
    }
}

/// How many PUTs were acknowledged; to be waited for.
#[derive(Default)]
pub(crate) struct Counter(Mutex<u64>, Condvar);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        *self.0.lock().unwrap()
    }

    pub(crate) fn set(&self, count: u64) {
        *self.0.lock().unwrap() = count;
        self.1.notify_all();
    }

    /// Waits until it is so many, or for too long.
    pub(crate) fn wait(&self, count: u64) {
        drop(self.1.wait_timeout_while(self.0.lock().unwrap(), PATIENCE, |now| *now < count).unwrap());
    }
}

/// What clients do meanwhile.
pub(crate) struct Clients<'scope> {
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) acknowledged: Arc<Counter>,
    connections: Vec<TcpStream>,
    puts: std::thread::ScopedJoinHandle<'scope, Result<u64, String>>,
    download: std::thread::ScopedJoinHandle<'scope, Result<bool, String>>,
}

impl<'scope> Clients<'scope> {
    pub(crate) fn start(scope: &'scope Scope<'scope, '_>, guest: SocketAddr) -> Clients<'scope> {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Counter::default()));
        let (stopped, counter) = (stop.clone(), acknowledged.clone());
        let (storing, loading) = (TcpStream::connect(guest).unwrap(), TcpStream::connect(guest).unwrap());
        let connections = vec![storing.try_clone().unwrap(), loading.try_clone().unwrap()];
        let puts = scope.spawn(move || puts(storing, &stopped, &counter).map_err(|error| format!("PUT: {error:#}")));
        let download = scope.spawn(move || download(loading).map_err(|error| format!("download: {error:#}")));
        Clients { stop, acknowledged, connections, puts, download }
    }

    /// Lets them go on for a while, and checks what they have seen.
    pub(crate) fn finish(self, guest: SocketAddr) -> Result<(), String> {
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
    pub(crate) fn abandon(self) {
        self.stop.store(true, Ordering::SeqCst);
        for connection in &self.connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

pub(crate) fn puts(connection: TcpStream, stop: &AtomicBool, acknowledged: &Counter) -> anyhow::Result<u64> {
    let mut client = Client::over(connection, PATIENCE)?;
    while !stop.load(Ordering::SeqCst) {
        let number = acknowledged.get();
        client.put(&format!("/kv/{number}"), number.to_string().as_bytes())?;
        acknowledged.set(number + 1);
    }
    Ok(acknowledged.get())
}

pub(crate) fn download(connection: TcpStream) -> anyhow::Result<bool> {
    let (mut at, mut right) = (0, true);
    Client::over(connection, PATIENCE)?.download(&format!("/bytes/{DOWNLOAD_BYTES}"), |piece| {
        right &= body::first_difference(at, piece).is_none();
        at += piece.len() as u64;
    })?;
    Ok(right && at == DOWNLOAD_BYTES)
}

pub(crate) fn lost_puts(guest: SocketAddr, acknowledged: u64) -> anyhow::Result<Vec<u64>> {
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
pub(crate) fn guest_answers(guest: SocketAddr, gone: impl Fn() -> bool) -> bool {
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
pub(crate) fn wait_for(
    events: &Events,
    log: &mut Vec<String>,
    wanted: impl Fn(&Event) -> bool,
) -> Result<Event, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let event = events.recv_deadline(deadline).map_err(|_| format!("waited in vain; events: {log:#?}"))?;
        log.push(event.to_string());
        if wanted(&event) {
            return Ok(event);
        }
    }
}
