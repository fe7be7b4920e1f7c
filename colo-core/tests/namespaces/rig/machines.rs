//! Two machines with the same addresses, and a client, each a network namespace with the kernel's own TCP/IP; their cables lead to a
//! [harness](super::harness).

use super::harness::{Cables, Orders, Report, Running, Way};
use super::namespace::Namespace;
use super::servers::Servers;
use colo_core::compare::CompareConfig;
use colo_core::net::Port;
use colo_core::net::sys::{LinkName, Links, Offloads, PacketSocket, Promiscuous, Tap};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const SERVER: &str = "10.9.0.1";
pub(crate) const CLIENT: &str = "10.9.0.2";
pub(crate) const SERVER6: &str = "fd09::1";
const SERVER_MAC: &str = "02:00:00:00:09:01";
const CLIENT_MAC: &str = "02:00:00:00:09:02";
/// Longer than anything takes that is not broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What the three have for cards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cards {
    /// TAPs; segments of 64 KiB pass, and no checksum is computed.
    TapWithOffloads,
    /// TAPs; every frame is on the cable as it stands.
    TapWithout,
    /// Virtual Ethernet, with packet sockets at the harness' ends. What may be left to do is left.
    Cable,
}

/// What the machines' clocks say in TCP's timestamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timestamps {
    /// Nothing.
    Off,
    /// Each has an offset of its own.
    Differ,
}

/// The three, and the harness between them.
pub(crate) struct Rig {
    /// The first to go: cables are gone with their machines.
    harness: Running,
    pub(crate) client: Namespace,
    pub(crate) primary: Namespace,
    pub(crate) secondary: Namespace,
    _servers: [Servers; 2],
    /// Where the ends of cables are, if that must be anywhere.
    _ends: Namespace,
    /// One rig at a time: the kernel has queues that all networks share, and when they are full it loses frames of one machine.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Rig {
    /// Sets everything up. Everything is forwarded.
    pub(crate) fn new(cards: Cards, timestamps: Timestamps) -> Rig {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = Namespace::new();
        ends.set("ipv6/conf/default/disable_ipv6", "1");
        let ([client, primary, secondary], cables) = machines(cards, &ends);
        for (machine, address, mac, peer, peer_mac) in [
            (&client, 2, CLIENT_MAC, 1, SERVER_MAC),
            (&primary, 1, SERVER_MAC, 2, CLIENT_MAC),
            (&secondary, 1, SERVER_MAC, 2, CLIENT_MAC),
        ] {
            set_up(machine, address, mac);
            // The kernel asks again now and then whether its neighbour is still there, at moments that it chooses at random.
            for peer in [format!("10.9.0.{peer}"), format!("fd09::{peer}")] {
                machine.run(&format!("ip neigh replace {peer} lladdr {peer_mac} dev eth0 nud permanent"));
            }
        }
        // With its own offset, without one, or none at all.
        let [ours, theirs] = match timestamps {
            Timestamps::Off => ["0", "0"],
            Timestamps::Differ => ["1", "2"],
        };
        primary.set("ipv4/tcp_timestamps", ours);
        secondary.set("ipv4/tcp_timestamps", theirs);
        let servers = [Servers::start(&primary), Servers::start(&secondary)];
        Rig { client, primary, secondary, harness: Running::start(cables), _servers: servers, _ends: ends, _turn: turn }
    }

    /// From now on the comparator decides.
    pub(crate) fn compare(&self, seed: Option<u64>) {
        self.begin(Orders { way: Way::Compare, compare: patient(), seed, keeps_ledger: true });
    }

    /// Begins anew with these orders.
    pub(crate) fn begin(&self, orders: Orders) {
        self.harness.begin(orders);
    }

    /// What has happened since.
    pub(crate) fn report(&self) -> Report {
        self.harness.report()
    }

    /// Runs a command at the client, with this for input, and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) fn client_runs(&self, command: &str, input: &[u8]) -> Vec<u8> {
        run(&self.client, command, input)
    }

    /// Starts a command on both machines, with this for the input of each.
    pub(crate) fn servers_run(&self, command: &str, input: &[u8]) -> [Background; 2] {
        [&self.primary, &self.secondary].map(|machine| Background::start(machine, command, input))
    }

    /// Waits until something listens on this port of both machines.
    pub(crate) fn await_listeners(&self, port: u16) {
        for machine in [&self.primary, &self.secondary] {
            await_listener(machine, port);
        }
    }
}

/// A comparator that is in no hurry: how long the machines take is not judged here, only what they say.
pub(crate) fn patient() -> CompareConfig {
    CompareConfig { timeout: Duration::from_secs(10), keep_evidence: true, ..CompareConfig::default() }
}

/// Waits for something that nobody tells.
pub(crate) fn until(mut happens: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !happens() {
        assert!(Instant::now() < end, "it does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something listens on a port there.
pub(crate) fn await_listener(machine: &Namespace, port: u16) {
    let place = format!(":{port:04X} ");
    until(|| {
        machine.enter(|| {
            ["tcp", "tcp6", "udp", "udp6"].iter().any(|protocol| {
                let sockets = std::fs::read_to_string(format!("/proc/thread-self/net/{protocol}")).unwrap();
                // Its own address, that of no peer, and the state: listening, or of a datagram socket.
                sockets.lines().any(|line| {
                    let fields: Vec<_> = line.split_whitespace().collect();
                    fields.get(1).is_some_and(|own| format!("{own} ").ends_with(&place))
                        && matches!(fields.get(3), Some(&"0A" | &"07"))
                })
            })
        })
    });
}

/// A command that runs meanwhile. Ended when it is dropped.
pub(crate) struct Background {
    process: super::namespace::Running,
    command: String,
    reader: Option<std::thread::JoinHandle<Vec<u8>>>,
}

impl Background {
    /// Starts it, with this for input.
    pub(crate) fn start(machine: &Namespace, command: &str, input: &[u8]) -> Background {
        let mut words = command.split(' ');
        let mut process =
            machine.spawn(Command::new(words.next().unwrap()).args(words).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (mut stdin, input) = (process.0.stdin.take().unwrap(), input.to_vec());
        // One that does not read it all has its reasons.
        std::thread::spawn(move || stdin.write_all(&input));
        let mut stdout = process.0.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut printed = Vec::new();
            stdout.read_to_end(&mut printed).map(|_| printed).unwrap()
        });
        Background { process, command: command.to_owned(), reader: Some(reader) }
    }

    /// Waits for its end, and returns what it has printed.
    ///
    /// # Panics
    /// When it fails.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let printed = self.reader.take().unwrap().join().unwrap();
        let status = self.process.0.wait().unwrap();
        assert!(status.success(), "{}: {status}\n{}", self.command, String::from_utf8_lossy(&printed));
        printed
    }
}

/// Runs a command there, with this for input, and returns what it prints.
///
/// # Panics
/// When it fails.
pub(crate) fn run(machine: &Namespace, command: &str, input: &[u8]) -> Vec<u8> {
    Background::start(machine, command, input).finish()
}

/// Three networks with a card `eth0` each, and the other ends of their cables.
fn machines(cards: Cards, ends: &Namespace) -> ([Namespace; 3], Cables) {
    let machines = [Namespace::new(), Namespace::new(), Namespace::new()];
    let tap = |machine: &Namespace, offloads| -> Box<dyn Port> {
        Box::new(machine.enter(|| Tap::open(&name("eth0"), offloads)).unwrap())
    };
    let cable = |machine: &Namespace, end: &str| -> Box<dyn Port> {
        ends.run(&format!("ip link add {end} type veth peer name eth0 netns {}", machine.path()));
        ends.enter(|| {
            let mut links = Links::open().unwrap();
            let link = links.find(&name(end)).unwrap();
            links.set_arp(link.id, false).unwrap();
            links.set_up(link.id, true).unwrap();
            Box::new(PacketSocket::open(&name(end), Promiscuous::Yes).unwrap())
        })
    };
    let [client, primary, secondary] = match cards {
        Cards::TapWithOffloads => machines.each_ref().map(|machine| tap(machine, Offloads::On)),
        Cards::TapWithout => machines.each_ref().map(|machine| tap(machine, Offloads::Off)),
        Cards::Cable => {
            [cable(&machines[0], "client"), cable(&machines[1], "primary"), cable(&machines[2], "secondary")]
        }
    };
    (machines, Cables { client, primary, secondary })
}

fn set_up(machine: &Namespace, number: u32, mac: &str) {
    // Nothing that is said by chance: no looking for routers, nor for others of the same address.
    for (setting, value) in [("accept_ra", "0"), ("router_solicitations", "0"), ("accept_dad", "0")] {
        machine.set(&format!("ipv6/conf/all/{setting}"), value);
        machine.set(&format!("ipv6/conf/eth0/{setting}"), value);
    }
    // An error that was not told, as others were told just before, would be a difference.
    machine.set("ipv4/icmp_ratelimit", "0");
    machine.set("ipv6/icmp/ratelimit", "0");
    machine.run(&format!("ip link set eth0 address {mac}"));
    machine.run(&format!("ip addr add 10.9.0.{number}/24 dev eth0"));
    machine.run(&format!("ip addr add fd09::{number}/64 dev eth0 nodad"));
    machine.run("ip link set eth0 up");
    let is_running = || machine.enter(|| Links::open().unwrap().find(&name("eth0")).unwrap().is_running);
    until(is_running);
}

fn name(text: &str) -> LinkName {
    text.parse().unwrap()
}
