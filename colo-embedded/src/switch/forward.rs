//! The user-mode forward: host TCP listeners whose connections go on into the LAN, through a TCP/IP stack of the switch's
//! own, which is a machine like any other on it: it answers ARP and ping.

use super::config::Forward;
use super::ephemeral::EphemeralPorts;
use super::nic::{self, Nic, Passing};
use super::queue::FrameQueue;
use super::relay::{Fate, Relay};
use colo_core::domain::MacAddr;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The most connections at once. Each may use 512 KiB of buffers. At the limit no more are accepted: clients wait in the
/// listener's backlog.
pub const MAX_CONNECTIONS: usize = 1024;

/// How long to wait before accepting again when it was not possible for want of a port number or a descriptor.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The most connections accepted in one go, so that a flood of them does not hold up the frames.
const ACCEPT_BATCH: usize = 64;

/// A host's listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    target: SocketAddrV4,
    /// Holds until `accept` said that it would block.
    acceptable: bool,
}

/// A connection just accepted, to be watched from now on.
pub(super) type Accepted = u16;

/// All listeners and connections, and the stack.
pub(super) struct Forwarder {
    address: Ipv4Addr,
    interface: Interface,
    /// For frames that belong to no connection.
    no_sockets: SocketSet<'static>,
    start: Instant,
    listeners: Vec<Listener>,
    relays: HashMap<u16, Watched>,
    ports: EphemeralPorts,
    /// Connections to look at.
    ready: VecDeque<u16>,
    is_ready: HashSet<u16>,
    deadlines: BTreeSet<(Instant, u16)>,
    accept_at: Option<Instant>,
    /// Frames that the stack sends; to be taken after every call.
    pub(super) out: FrameQueue,
    /// Connections accepted so far.
    pub(super) accepted: u64,
    /// Connections that ended by being refused, by a time-out, or by a reset.
    pub(super) broken: u64,
}

struct Watched {
    relay: Relay,
    deadline: Option<Instant>,
}

impl Forwarder {
    /// Listens at every forward's address.
    ///
    /// # Errors
    /// The first address that cannot be listened at, with the kernel's reason.
    pub(super) fn new(
        mac: MacAddr,
        address: Ipv4Addr,
        prefix_len: u8,
        forwards: &[Forward],
        now: Instant,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let listeners = forwards
            .iter()
            .map(|forward| Listener::bind(forward).map_err(|error| (forward.listen, error)))
            .collect::<Result<_, _>>()?;
        let mut out = FrameQueue::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        config.random_seed = random_seed();
        let at = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(config, &mut Nic { frame: None, out: &mut out }, at);
        interface.update_ip_addrs(|addresses| {
            // The list is empty and takes at least one.
            let _ = addresses.push(IpCidr::new(address.into(), prefix_len));
        });
        Ok(Self {
            address,
            interface,
            no_sockets: SocketSet::new(Vec::new()),
            start: now,
            listeners,
            relays: HashMap::new(),
            ports: EphemeralPorts::new(),
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            deadlines: BTreeSet::new(),
            accept_at: None,
            out,
            accepted: 0,
            broken: 0,
        })
    }

    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The host's side of a connection, as long as it exists.
    pub(super) fn host(&self, port: u16) -> Option<&TcpStream> {
        self.relays.get(&port).map(|watched| watched.relay.host())
    }

    pub(super) fn set_acceptable(&mut self, listener: usize) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.acceptable = true;
        }
    }

    /// The poll reported the host's side of a connection.
    pub(super) fn handle_host_event(&mut self, port: u16, readable: bool, writable: bool, hung_up: bool) {
        if let Some(Watched { relay, .. }) = self.relays.get_mut(&port) {
            relay.host_readable |= readable;
            relay.host_writable |= writable;
            relay.host_hung_up |= hung_up;
            self.set_ready(port);
        }
    }

    /// Takes a frame from the LAN.
    pub(super) fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        let at = self.at(now);
        let passing = nic::classify(frame);
        if passing == Passing::Poison {
            return;
        }
        if let Passing::Tcp { from, to } = passing {
            let relay = self.relays.get_mut(&to).map(|watched| &mut watched.relay);
            if let Some(relay) = relay.filter(|relay| relay.remote() == Some(from)) {
                relay.handle_frame(&mut self.interface, at, frame, &mut self.out);
                self.set_ready(to);
                return;
            }
        }
        let mut nic = Nic { frame: Some(frame), out: &mut self.out };
        self.interface.poll_ingress_single(at, &mut nic, &mut self.no_sockets);
        if passing == (Passing::Arp { target: self.address }) {
            // Perhaps the answer that some wait for; such frames are rare.
            let ports: Vec<u16> = self.relays.keys().copied().collect();
            ports.into_iter().for_each(|port| self.set_ready(port));
        }
    }

    /// A machine has appeared at a port of the switch, or moved there.
    pub(super) fn handle_appeared(&mut self, now: Instant, mac: MacAddr) {
        for (&port, Watched { relay, .. }) in &mut self.relays {
            if relay.handle_appeared(mac.0, now) && self.is_ready.insert(port) {
                self.ready.push_back(port);
            }
        }
    }

    /// Accepts what there is room for; what was accepted is added to `accepted`.
    pub(super) fn accept(&mut self, now: Instant, accepted: &mut Vec<Accepted>) {
        self.accept_at = None;
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPT_BATCH {
                if !self.listeners[index].acceptable || self.relays.len() >= MAX_CONNECTIONS {
                    break;
                }
                let Some(port) = self.ports.take(now) else {
                    self.accept_at = Some(now + ACCEPT_RETRY);
                    break;
                };
                match self.accept_one(index, port, now) {
                    Ok(true) => accepted.push(port),
                    Ok(false) => self.ports.release(now, port),
                    Err(error) => {
                        tracing::debug!(%error, "connection not accepted");
                        self.ports.release(now, port);
                        self.accept_at = Some(now + ACCEPT_RETRY);
                        break;
                    }
                }
            }
        }
    }

    /// Looks at one connection that something happened to, or whose time has come. False when there is none.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        while let Some(&(deadline, port)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.set_deadline(port, None);
            self.set_ready(port);
        }
        let Some(port) = self.ready.pop_front() else {
            return false;
        };
        self.is_ready.remove(&port);
        let at = self.at(now);
        let Some(Watched { relay, .. }) = self.relays.get_mut(&port) else {
            return true;
        };
        match relay.advance(&mut self.interface, now, at, &mut self.out) {
            Fate::Alive => {
                let deadline = relay.deadline(&mut self.interface, at, now);
                self.set_deadline(port, deadline);
            }
            fate => self.remove(now, port, fate),
        }
        true
    }

    /// Whether there is something to do without waiting.
    pub(super) fn is_busy(&self) -> bool {
        let may_accept = self.accept_at.is_none() && self.relays.len() < MAX_CONNECTIONS;
        !self.ready.is_empty() || may_accept && self.listeners.iter().any(|listener| listener.acceptable)
    }

    /// When there is something to do though nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|&(deadline, _)| deadline);
        first.into_iter().chain(self.accept_at).min()
    }

    fn accept_one(&mut self, index: usize, port: u16, now: Instant) -> io::Result<bool> {
        let listener = &mut self.listeners[index];
        let host = match listener.socket.accept() {
            Ok((host, _)) => host,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                listener.acceptable = false;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let relay = Relay::connect(&mut self.interface, host, listener.target, port, now)?;
        self.accepted += 1;
        self.relays.insert(port, Watched { relay, deadline: None });
        self.set_ready(port);
        Ok(true)
    }

    fn remove(&mut self, now: Instant, port: u16, fate: Fate) {
        self.set_deadline(port, None);
        if let Some(Watched { relay, .. }) = self.relays.remove(&port) {
            if fate == Fate::Broken {
                self.broken += 1;
                relay.reset_host();
            }
            self.ports.release(now, port);
        }
    }

    fn set_ready(&mut self, port: u16) {
        if self.is_ready.insert(port) {
            self.ready.push_back(port);
        }
    }

    fn set_deadline(&mut self, port: u16, deadline: Option<Instant>) {
        let Some(watched) = self.relays.get_mut(&port) else {
            return;
        };
        if watched.deadline == deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut watched.deadline, deadline) {
            self.deadlines.remove(&(old, port));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, port));
        }
    }

    fn at(&self, now: Instant) -> smoltcp::time::Instant {
        // Never zero: the stack takes that for "at once".
        let elapsed = now.saturating_duration_since(self.start) + Duration::from_millis(1);
        smoltcp::time::Instant::from_micros(elapsed.as_micros() as i64)
    }
}

impl Listener {
    fn bind(forward: &Forward) -> io::Result<Self> {
        let socket = TcpListener::bind(forward.listen)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, target: forward.target, acceptable: true })
    }
}

/// Initial sequence numbers must differ between runs: the guest may remember connections of the last one.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

#[cfg(test)]
mod tests;
