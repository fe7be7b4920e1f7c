//! Two real TCP stacks with different initial sequence numbers serve one client through the comparator and the rewriter; then the
//! primary dies, and the secondary goes on with the same connections.

use colo_core::compare::{Comparator, CompareConfig};
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::net::rewrite::Rewriter;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as Time;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

const SERVER: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);
const CLIENT: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);
const PORT: u16 = 80;
const CONNECTIONS: usize = 3;
/// What each connection downloads.
const BODY_BYTES: usize = 300_000;
/// More steps than any run needs, in milliseconds of the simulated clock.
const MAX_STEPS: u64 = 300_000;

/// The byte of every download at a place.
fn body(at: usize) -> u8 {
    (at * 31 + at / 251) as u8
}

/// xorshift64 (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

#[derive(Default)]
struct Card {
    incoming: VecDeque<Frame>,
    outgoing: VecDeque<Frame>,
}

struct Incoming(Frame);
struct Outgoing<'a>(&'a mut VecDeque<Frame>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, f: F) -> R {
        let mut frame = vec![0; bytes];
        let result = f(&mut frame);
        self.0.push_back(frame.into());
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Time) -> Option<(Incoming, Outgoing<'_>)> {
        Some((Incoming(self.incoming.pop_front()?), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Time) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A machine with a TCP stack.
struct Machine {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
}

impl Machine {
    fn new(address: Ipv4Address, mac: u8, seed: u64) -> Self {
        let mut card = Card::default();
        let mut config = Config::new(EthernetAddress([2, 0, 0, 0, 0, mac]).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut card, Time::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), 24)).expect("room for one address");
        });
        let mut sockets = SocketSet::new(vec![]);
        let buffer = || tcp::SocketBuffer::new(vec![0; 20_000]);
        let handles = (0..CONNECTIONS).map(|_| sockets.add(tcp::Socket::new(buffer(), buffer()))).collect();
        Machine { card, interface, sockets, handles }
    }

    fn poll(&mut self, step: u64) {
        self.interface.poll(Time::from_millis(step as i64), &mut self.card, &mut self.sockets);
    }
}

/// Sends the body to whoever has sent a request, and closes.
struct Server {
    machine: Machine,
    /// Per connection; `None` before the request.
    sent: Vec<Option<usize>>,
}

impl Server {
    fn new(seed: u64) -> Self {
        let mut machine = Machine::new(SERVER, 1, seed);
        for handle in &machine.handles {
            machine.sockets.get_mut::<tcp::Socket>(*handle).listen(PORT).unwrap();
        }
        Server { machine, sent: vec![None; CONNECTIONS] }
    }

    fn step(&mut self, step: u64) {
        self.machine.poll(step);
        for (handle, sent) in self.machine.handles.iter().zip(&mut self.sent) {
            serve(self.machine.sockets.get_mut::<tcp::Socket>(*handle), sent);
        }
        self.machine.poll(step);
    }
}

fn serve(socket: &mut tcp::Socket<'_>, sent: &mut Option<usize>) {
    if socket.can_recv() && sent.is_none() {
        socket.recv(|request| (request.len(), ())).unwrap();
        *sent = Some(0);
    }
    let Some(sent) = sent.as_mut().filter(|_| socket.may_send()) else {
        return;
    };
    while socket.can_send() && *sent < BODY_BYTES {
        let fill = |room: &mut [u8]| {
            let count = room.len().min(BODY_BYTES - *sent);
            room[..count].iter_mut().enumerate().for_each(|(at, byte)| *byte = body(*sent + at));
            (count, count)
        };
        *sent += socket.send(fill).unwrap();
    }
    if *sent == BODY_BYTES {
        socket.close();
    }
}

struct Client {
    machine: Machine,
    received: Vec<usize>,
    requested: Vec<bool>,
}

impl Client {
    fn new() -> Self {
        let mut machine = Machine::new(CLIENT, 2, 99);
        for (port, handle) in (5000u16..).zip(&machine.handles) {
            let socket = machine.sockets.get_mut::<tcp::Socket>(*handle);
            socket.connect(machine.interface.context(), (SERVER, PORT), port).unwrap();
        }
        Client { machine, received: vec![0; CONNECTIONS], requested: vec![false; CONNECTIONS] }
    }

    fn step(&mut self, step: u64) {
        self.machine.poll(step);
        for (index, handle) in self.machine.handles.iter().enumerate() {
            let socket = self.machine.sockets.get_mut::<tcp::Socket>(*handle);
            if !self.requested[index] && socket.can_send() {
                socket.send_slice(b"GET").unwrap();
                self.requested[index] = true;
            }
            let received = &mut self.received[index];
            while socket.can_recv() {
                let check = |bytes: &mut [u8]| {
                    let expected = (*received..).map(body);
                    assert!(bytes.iter().copied().eq(expected.take(bytes.len())), "wrong bytes in {index}");
                    (bytes.len(), bytes.len())
                };
                *received += socket.recv(check).unwrap();
            }
            if self.requested[index] && *received < BODY_BYTES {
                assert!(socket.may_recv(), "connection {index} broke after {received} bytes");
            }
        }
        self.machine.poll(step);
    }

    fn is_done(&self) -> bool {
        self.received.iter().all(|received| *received == BODY_BYTES)
    }
}

/// Frames under way to or from the secondary's host; they keep their order.
#[derive(Default)]
struct Link {
    frames: VecDeque<(u64, Frame)>,
}

impl Link {
    fn send(&mut self, at: u64, frame: Frame) {
        let at = self.frames.back().map_or(at, |(last, _)| at.max(*last));
        self.frames.push_back((at, frame));
    }

    fn receive(&mut self, step: u64) -> Option<Frame> {
        self.frames.front().filter(|(at, _)| *at <= step)?;
        Some(self.frames.pop_front()?.1)
    }
}

struct World {
    dice: Dice,
    loss_percent: u64,
    client: Client,
    primary: Option<Server>,
    secondary: Server,
    rewriter: Rewriter,
    comparator: Comparator,
    to_secondary: Link,
    from_secondary: Link,
    /// The secondary's output that was not reported as released, by number.
    unreported: BTreeMap<u64, Frame>,
    numbers_sent: u64,
    numbers_received: u64,
    start: Instant,
    divergences: Vec<String>,
}

impl World {
    fn new(seed: u64, loss_percent: u64) -> Self {
        let start = Instant::now();
        // What the client has lost may be all that both machines wait for, until they send it again.
        let timeout = Duration::from_secs(2);
        let mut comparator = Comparator::new(CompareConfig { timeout, ..CompareConfig::default() });
        comparator.begin_epoch(Epoch::FIRST);
        comparator.secondary_running(start);
        World {
            dice: Dice(seed),
            loss_percent,
            client: Client::new(),
            primary: Some(Server::new(seed)),
            secondary: Server::new(seed + 1),
            rewriter: Rewriter::new(),
            comparator,
            to_secondary: Link::default(),
            from_secondary: Link::default(),
            unreported: BTreeMap::new(),
            numbers_sent: 0,
            numbers_received: 0,
            start,
            divergences: Vec::new(),
        }
    }

    /// A millisecond.
    fn step(&mut self, step: u64) {
        self.client.step(step);
        while let Some(frame) = self.client.machine.card.outgoing.pop_front() {
            if self.is_lost() {
                continue;
            }
            let mut delay = 0;
            if let Some(primary) = &mut self.primary {
                primary.machine.card.incoming.push_back(frame.clone());
                delay = self.dice.roll(4);
            }
            self.to_secondary.send(step + delay, frame);
        }
        while let Some(frame) = self.to_secondary.receive(step) {
            self.secondary.machine.card.incoming.extend(self.rewriter.handle_input(0, frame));
        }
        self.secondary.step(step);
        while let Some(frame) = self.secondary.machine.card.outgoing.pop_front() {
            let frame = self.rewriter.handle_output(0, frame);
            while let Some((_, frame)) = self.rewriter.poll_input() {
                self.secondary.machine.card.incoming.push_back(frame);
            }
            if self.primary.is_some() {
                self.unreported.insert(self.numbers_sent, frame.clone());
                self.numbers_sent += 1;
                let delay = self.dice.roll(4);
                self.from_secondary.send(step + delay, frame);
            } else {
                self.reach_client(frame);
            }
        }
        self.compare(step);
    }

    fn compare(&mut self, step: u64) {
        let Some(primary) = &mut self.primary else {
            return;
        };
        let now = self.start + Duration::from_millis(step);
        primary.step(step);
        while let Some(frame) = primary.machine.card.outgoing.pop_front() {
            self.comparator.handle_primary(0, frame, now);
        }
        while let Some(frame) = self.from_secondary.receive(step) {
            self.comparator.handle_secondary(0, self.numbers_received, frame, now);
            self.numbers_received += 1;
        }
        self.comparator.handle_timeout(now);
        while let Some(release) = self.comparator.poll_release() {
            self.reach_client(release.frame);
        }
        while let Some(number) = self.comparator.poll_consumed() {
            assert!(self.unreported.remove(&number).is_some());
        }
        self.divergences.extend(self.comparator.poll_divergence().map(|divergence| divergence.to_string()));
    }

    fn fail_over(&mut self) {
        self.primary = None;
        self.rewriter.go_live();
        for frame in std::mem::take(&mut self.unreported).into_values() {
            self.reach_client(frame);
        }
    }

    fn reach_client(&mut self, frame: Frame) {
        if !self.is_lost() {
            self.client.machine.card.incoming.push_back(frame);
        }
    }

    fn is_lost(&mut self) -> bool {
        self.dice.roll(100) < self.loss_percent
    }

    fn received(&self) -> usize {
        self.client.received.iter().sum()
    }
}

#[test]
fn two_stacks_agree_without_a_checkpoint() {
    let mut world = World::new(7, 0);
    let mut step = 0;
    while !world.client.is_done() {
        step += 1;
        world.step(step);
        assert!(step < MAX_STEPS, "{} bytes after {step} ms: {:?}", world.received(), world.divergences);
    }
    assert_eq!(world.divergences, [""; 0]);
    let counters = world.comparator.counters();
    assert!(counters.compared_bytes >= (CONNECTIONS * BODY_BYTES) as u64, "{counters:?}");
    // The numbers differed, so every segment after the handshake was rewritten.
    assert!(world.rewriter.counters().outputs_rewritten > 100, "{:?}", world.rewriter.counters());
}

#[test]
fn the_secondary_goes_on_with_the_connections_of_a_dead_primary() {
    for seed in 1..=30 {
        let loss_percent = seed % 3;
        let mut world = World::new(seed * 1_000_003, loss_percent);
        let die_after = world.dice.roll((CONNECTIONS * BODY_BYTES) as u64) as usize;
        let mut step = 0;
        while !world.client.is_done() {
            step += 1;
            world.step(step);
            if world.primary.is_some() && world.received() >= die_after {
                world.fail_over();
            }
            assert!(step < MAX_STEPS, "seed {seed}: {} bytes, {:?}", world.received(), world.divergences);
        }
        assert!(world.primary.is_none());
        assert_eq!(world.divergences, [""; 0], "seed {seed}");
    }
}
