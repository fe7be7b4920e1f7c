//! The services on the machine's network: HTTP on port 80, echo on port 7.

use crate::clock::now_ns;
use crate::device::Card;
use alloc::vec;
use alloc::vec::Vec;
use colo_guest::abi::{BootInfo, Shared};
use colo_guest::session::Session;
use colo_guest::store::Store;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

/// HTTP connections at once: 256, and some that listen for the next.
const HTTP_SOCKETS: usize = 272;
/// TCP echo connections at once.
const ECHO_SOCKETS: usize = 8;
const HTTP_PORT: u16 = 80;
const ECHO_PORT: u16 = 7;

/// Connections share a quarter of a small machine's memory; with this much they get buffers for speed.
const LARGE_RAM_BYTES: u64 = 64 << 20;
/// Receive and send buffers, in a large machine and in a small one.
const LARGE_BUFFERS: (usize, usize) = (16 << 10, 64 << 10);
const SMALL_BUFFERS: (usize, usize) = (4 << 10, 8 << 10);
/// Datagrams, and their bytes, that wait to be echoed.
const UDP_WAITING: (usize, usize) = (64, 64 << 10);

/// Short, so that a client that waits for an acknowledgement goes on; long enough for the answer to carry it.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// The longest sleep: nothing needs it, but a machine that looks up now and then survives a lost event.
const MAX_SLEEP_NS: u64 = 1_000_000_000;

/// Everything that the machine does.
pub(crate) struct Server {
    shared: &'static Shared,
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    http: Vec<(SocketHandle, Session)>,
    echo: Vec<SocketHandle>,
    udp: SocketHandle,
    store: Store,
}

impl Server {
    pub(crate) fn new(boot: &BootInfo, shared: &'static Shared, heap_bytes: u64) -> Self {
        let mut card = Card::new(shared);
        let interface = interface(boot, &mut card, instant(now_ns(shared)));
        let mut sockets = SocketSet::new(Vec::with_capacity(HTTP_SOCKETS + ECHO_SOCKETS + 1));
        let (receive, send) = if boot.ram_bytes >= LARGE_RAM_BYTES { LARGE_BUFFERS } else { SMALL_BUFFERS };
        let mut add = |count: usize| -> Vec<SocketHandle> {
            (0..count).map(|_| sockets.add(tcp_socket(receive, send))).collect()
        };
        let http: Vec<_> = add(HTTP_SOCKETS).into_iter().map(|handle| (handle, Session::default())).collect();
        let echo = add(ECHO_SOCKETS);
        let udp = sockets.add(udp_socket());
        let buffers = ((HTTP_SOCKETS + ECHO_SOCKETS) * (receive + send)) as u64;
        // Half of what is left for values, three eighths for pages, the rest for what the heap itself needs.
        let free = heap_bytes.saturating_sub(buffers);
        let store = Store::new((free / 2) as usize, (free / 8 * 3 / 4096) as usize);
        Server { shared, card, interface, sockets, http, echo, udp, store }
    }

    /// Serves, for ever.
    pub(crate) fn run(&mut self) -> ! {
        loop {
            let now = now_ns(self.shared);
            self.interface.poll(instant(now), &mut self.card, &mut self.sockets);
            if self.serve(now) {
                continue;
            }
            let now = now_ns(self.shared);
            let delay = self.interface.poll_delay(instant(now), &self.sockets);
            let sleep = delay.map_or(MAX_SLEEP_NS, |delay| delay.total_micros().saturating_mul(1000).min(MAX_SLEEP_NS));
            if sleep > 0 {
                self.card.wait(sleep);
            }
        }
    }

    /// Returns whether anything moved.
    fn serve(&mut self, now: u64) -> bool {
        let mut moved = false;
        for (handle, session) in &mut self.http {
            moved |= serve_http(self.sockets.get_mut(*handle), session, &mut self.store, now);
        }
        for handle in &self.echo {
            moved |= echo_tcp(self.sockets.get_mut(*handle));
        }
        moved | echo_udp(self.sockets.get_mut(self.udp))
    }
}

fn serve_http(socket: &mut tcp::Socket<'_>, session: &mut Session, store: &mut Store, now: u64) -> bool {
    if !socket.is_open() {
        *session = Session::default();
        // Fails only for port 0 or an open socket.
        let _ = socket.listen(HTTP_PORT);
        return false;
    }
    let mut moved = false;
    loop {
        let mut count = 0;
        if session.wants_output() && socket.can_send() {
            count += socket.send(|buffer| twice(session.fill(buffer))).unwrap_or(0);
        }
        if session.wants_input() && socket.can_recv() {
            count += socket.recv(|data| twice(session.receive(data, store, now))).unwrap_or(0);
        }
        if count == 0 {
            break;
        }
        moved = true;
    }
    let client_is_done = socket.state() == tcp::State::CloseWait && !socket.can_recv();
    if session.is_over() || (client_is_done && !session.wants_output()) {
        socket.close();
    }
    moved
}

fn echo_tcp(socket: &mut tcp::Socket<'_>) -> bool {
    if !socket.is_open() {
        // Fails only for port 0 or an open socket.
        let _ = socket.listen(ECHO_PORT);
        return false;
    }
    let mut echoed = 0;
    if socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let mut piece = [0; 2048];
        let wanted = room.min(piece.len());
        let count = socket.recv_slice(&mut piece[..wanted]).unwrap_or(0);
        // There is room for all of it.
        echoed = socket.send_slice(&piece[..count]).unwrap_or(0);
    }
    if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
        socket.close();
    }
    echoed > 0
}

fn echo_udp(socket: &mut udp::Socket<'_>) -> bool {
    if !socket.is_open() {
        // Fails only for port 0 or an open socket.
        let _ = socket.bind(ECHO_PORT);
    }
    let mut piece = [0; 1500];
    let mut moved = false;
    while socket.can_send() {
        let Ok((count, from)) = socket.recv_slice(&mut piece) else { break };
        // A datagram that finds no room is lost, as datagrams may be.
        let _ = socket.send_slice(&piece[..count], from.endpoint);
        moved = true;
    }
    moved
}

fn interface(boot: &BootInfo, card: &mut Card, now: Instant) -> Interface {
    let [m0, m1, m2, m3, m4, m5, ..] = boot.mac;
    let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress([m0, m1, m2, m3, m4, m5])));
    config.random_seed = boot.seed;
    let mut interface = Interface::new(config, card, now);
    let address = IpCidr::new(IpAddress::Ipv4(Ipv4Address::from(boot.ipv4)), boot.prefix_len as u8);
    // Both have room for one.
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(address);
    });
    let _ = interface.routes_mut().add_default_ipv4_route(Ipv4Address::from(boot.gateway));
    interface
}

fn tcp_socket(receive: usize, send: usize) -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; receive]), tcp::SocketBuffer::new(vec![0; send]));
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(Some(ACK_DELAY));
    socket
}

fn udp_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; UDP_WAITING.0], vec![0; UDP_WAITING.1]);
    udp::Socket::new(buffer(), buffer())
}

fn instant(now_ns: u64) -> Instant {
    Instant::from_micros((now_ns / 1000) as i64)
}

fn twice(count: usize) -> (usize, usize) {
    (count, count)
}
