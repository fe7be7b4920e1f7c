//! All connections, and the way of each packet to its own.

use crate::connection::{Connection, ECHO_PORT, HTTP_PORT, Worked};
use crate::device::Card;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use colo_guest::abi::BootInfo;
use colo_guest::flow::{Arrival, classify};
use colo_guest::plan::Plan;
use colo_guest::service::Service;
use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

/// Packets taken before their connections have their turn: enough to acknowledge many at once, few enough to stay in the cache.
const MAX_BATCH_PACKETS: usize = 64;
/// Datagrams that wait for their echo, and their bytes.
const UDP_DATAGRAMS: usize = 32;
const UDP_BYTES: usize = 32 << 10;
/// When all places are taken, a connection that has not got beyond its first packet gives way after this time,
const HALF_OPEN: Duration = Duration::from_secs(3);
/// and one on which nothing is under way after this.
const IDLE: Duration = Duration::from_secs(60);

/// The machine's network.
pub(crate) struct Network {
    card: Card,
    interface: Interface,
    plan: Plan,
    connections: Vec<Connection>,
    free: Vec<usize>,
    flows: BTreeMap<u64, usize>,
    ready: VecDeque<usize>,
    /// What is no TCP connection: UDP, and packets that smoltcp answers by itself.
    others: SocketSet<'static>,
    udp: SocketHandle,
}

impl Network {
    pub(crate) fn new(boot: &BootInfo, mut card: Card, plan: Plan, now_ns: u64) -> Self {
        let mac = EthernetAddress([
            boot.mac[0],
            boot.mac[1],
            boot.mac[2],
            boot.mac[3],
            boot.mac[4],
            boot.mac[5],
        ]);
        let mut config = Config::new(mac.into());
        config.random_seed = boot.seed;
        let mut interface = Interface::new(config, &mut card, instant(now_ns));
        let address = Ipv4Address::from(boot.ipv4);
        let prefix_len = boot.prefix_len.min(32) as u8;
        interface.update_ip_addrs(|addresses| {
            // The list has room for one.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, prefix_len)));
        });
        if boot.gateway != [0; 4] {
            let _ = interface
                .routes_mut()
                .add_default_ipv4_route(Ipv4Address::from(boot.gateway));
        }
        let mut others = SocketSet::new(Vec::with_capacity(1));
        let buffer = || {
            udp::PacketBuffer::new(
                vec![udp::PacketMetadata::EMPTY; UDP_DATAGRAMS],
                vec![0; UDP_BYTES],
            )
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        // A new socket can be bound, and the port is not 0.
        let _ = socket.bind(ECHO_PORT);
        let udp = others.add(socket);
        Self {
            card,
            interface,
            plan,
            connections: Vec::with_capacity(plan.connections),
            free: Vec::with_capacity(plan.connections),
            flows: BTreeMap::new(),
            ready: VecDeque::with_capacity(plan.connections),
            others,
            udp,
        }
    }

    /// Does what there is to do now, and then sleeps if there is no more.
    pub(crate) fn run_once(&mut self, service: &mut Service, clock: impl Fn() -> u64) {
        service.now_ns = clock();
        let now = instant(service.now_ns);
        let more_to_receive = self.receive(now);
        self.wake_due(now);
        self.echo_datagrams(now);
        let more_to_do = self.work(now, service);
        if self.card.blocked() {
            self.card.sleep(None);
        } else if !more_to_receive && !more_to_do {
            let timeout = self
                .next_deadline(now)
                .map(|at| (at - now).total_micros() * 1000);
            self.card.sleep(timeout);
        } else {
            self.card.announce();
        }
    }

    /// Takes a batch of packets. Whether there may be more.
    fn receive(&mut self, now: Instant) -> bool {
        for _ in 0..MAX_BATCH_PACKETS {
            let Some(frame) = self.card.peek() else {
                return false;
            };
            let arrival = classify(frame);
            let target = match arrival {
                Arrival::Tcp { flow, port, opens } => self.route(flow, port, opens, now),
                Arrival::Arp | Arrival::Other => Target::Others,
            };
            let sockets = match target {
                Target::Place(place) => &mut self.connections[place].sockets,
                Target::Others => &mut self.others,
                Target::Nowhere => {
                    self.card.skip();
                    continue;
                }
            };
            if self
                .interface
                .poll_ingress_single(now, &mut self.card, sockets)
                == PollIngressSingleResult::None
            {
                return false;
            }
            if let Target::Place(place) = target {
                self.connections[place].heard_at = now;
                self.enqueue(place);
            }
            if arrival == Arrival::Arp {
                // Whoever waits to hear an address need not wait for its timer.
                self.wake_due(Instant::from_micros(i64::MAX));
            }
        }
        true
    }

    fn route(&mut self, flow: u64, port: u16, opens: bool, now: Instant) -> Target {
        if let Some(&place) = self.flows.get(&flow) {
            // A client may use its port again as soon as it likes (RFC 9293, 3.6.1).
            if opens && self.connections[place].state() == tcp::State::TimeWait {
                self.connections[place].listen(port, flow, now);
            }
            return Target::Place(place);
        }
        if !opens || !matches!(port, HTTP_PORT | ECHO_PORT) {
            return Target::Others;
        }
        // Without a place the packet is dropped, as with any full backlog: the client will ask again.
        let Some(place) = self
            .free
            .pop()
            .or_else(|| self.add())
            .or_else(|| self.evict(now))
        else {
            return Target::Nowhere;
        };
        self.connections[place].listen(port, flow, now);
        self.flows.insert(flow, place);
        Target::Place(place)
    }

    /// A place not used before. Places are made when they are needed, so that a machine with few clients has few pages to copy.
    fn add(&mut self) -> Option<usize> {
        if self.connections.len() == self.plan.connections {
            return None;
        }
        self.connections.push(Connection::new(&self.plan));
        Some(self.connections.len() - 1)
    }

    /// The place of whoever loses least by losing it: one that has ended and only lingers, else one that never got far, else
    /// one that has long been silent; of those the longest silent.
    fn evict(&mut self, now: Instant) -> Option<usize> {
        let rank = |connection: &Connection| {
            let silent = now - connection.heard_at;
            match connection.state() {
                tcp::State::TimeWait => Some(0),
                tcp::State::FinWait2 | tcp::State::LastAck | tcp::State::Closing
                    if silent >= HALF_OPEN =>
                {
                    Some(1)
                }
                tcp::State::SynReceived if silent >= HALF_OPEN => Some(2),
                tcp::State::Established if silent >= IDLE && connection.idle() => Some(3),
                _ => None,
            }
        };
        let candidates = self.connections.iter().enumerate();
        let ranked = candidates.filter_map(|(place, connection)| {
            Some((rank(connection)?, connection.heard_at, place))
        });
        let (_, _, place) = ranked.min()?;
        self.flows.remove(&self.connections[place].flow);
        Some(place)
    }

    fn enqueue(&mut self, place: usize) {
        if !core::mem::replace(&mut self.connections[place].queued, true) {
            self.ready.push_back(place);
        }
    }

    fn wake_due(&mut self, now: Instant) {
        for place in 0..self.connections.len() {
            if self.connections[place].deadline.is_some_and(|at| at <= now) {
                self.enqueue(place);
            }
        }
    }

    /// Gives each waiting connection a turn. Whether any wants another.
    fn work(&mut self, now: Instant, service: &mut Service) -> bool {
        for _ in 0..self.ready.len() {
            let Some(place) = self.ready.pop_front() else {
                break;
            };
            let connection = &mut self.connections[place];
            connection.queued = false;
            match connection.work(now, &mut self.interface, &mut self.card, service) {
                Worked::Done => {}
                Worked::More => self.enqueue(place),
                Worked::Ended => {
                    connection.deadline = None;
                    // An evicted connection's place is used again at once, under another flow.
                    self.flows.remove(&connection.flow);
                    self.free.push(place);
                }
            }
            self.card.announce();
        }
        !self.ready.is_empty()
    }

    fn echo_datagrams(&mut self, now: Instant) {
        let socket = self.others.get_mut::<udp::Socket>(self.udp);
        let mut datagram = [0; 2048];
        while socket.can_recv() && socket.can_send() {
            let Ok((len, from)) = socket.recv_slice(&mut datagram) else {
                break;
            };
            // Two echo services must not talk to each other for ever.
            if from.endpoint.port != ECHO_PORT {
                // The datagram fitted the receive buffer, and the send buffer is as large; if it is full, UDP may lose.
                let _ = socket.send_slice(&datagram[..len], from.endpoint);
            }
        }
        while self
            .interface
            .poll_egress(now, &mut self.card, &mut self.others)
            == PollResult::SocketStateChanged
        {}
    }

    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let others = self.interface.poll_at(now, &self.others);
        self.connections
            .iter()
            .filter_map(|connection| connection.deadline)
            .chain(others)
            .min()
            .map(|at| at.max(now))
    }
}

/// Where a packet goes.
#[derive(Clone, Copy)]
enum Target {
    Place(usize),
    Others,
    Nowhere,
}

fn instant(ns: u64) -> Instant {
    Instant::from_micros((ns / 1000) as i64)
}
