//! The machine against a client of its own kind, over a wire that can lose frames. Time is the tests' own.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    format,
    rc::Rc,
    string::String,
};

use smoltcp::{
    phy::{DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp,
    wire::{HardwareAddress, IpEndpoint},
};

use super::*;
use crate::{abi::BOOT_MAGIC, arena::Arena, body, kv::Kv, platter::TestDisk, store::Store};

mod disk;

const GUEST: [u8; 4] = [10, 77, 0, 10];
const RAM_BYTES: usize = 16 << 20;
const FREE_BYTES: usize = 10 << 20;

thread_local! {
    static NOW_NS: Cell<u64> = const { Cell::new(1_000_000_000) };
}

fn now_ns() -> u64 {
    NOW_NS.get()
}

fn advance(ns: u64) {
    NOW_NS.set(now_ns() + ns);
}

/// One end of a wire.
#[derive(Clone, Default)]
struct End {
    inward: Rc<RefCell<VecDeque<Vec<u8>>>>,
    outward: Rc<RefCell<VecDeque<Vec<u8>>>>,
}

struct Frame(Vec<u8>);
struct Out(Rc<RefCell<VecDeque<Vec<u8>>>>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Out {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.borrow_mut().push_back(frame);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Out;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Out)> {
        let frame = self.inward.borrow_mut().pop_front()?;
        Some((Frame(frame), Out(self.outward.clone())))
    }

    fn transmit(&mut self, _: Instant) -> Option<Out> {
        Some(Out(self.outward.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

fn machine(device: &mut End, mut disk: Option<Disk>) -> Machine {
    let boot = BootInfo {
        magic: BOOT_MAGIC,
        ram_bytes: RAM_BYTES as u64,
        heap_start: 0,
        seed: 7,
        mac: [2, 0, 0, 0, 0, 10, 0, 0],
        ipv4: GUEST,
        gateway: [10, 77, 0, 1],
        prefix_len: 24,
        reserved: 0,
        disk_bytes: 0,
    };
    let layout = Layout::new(RAM_BYTES, FREE_BYTES).expect("room");
    let state = State {
        kv: Kv::new(Store::new(layout.store_bytes), disk.as_mut()),
        arena: Arena::new(vec![0; layout.arena_bytes / 8].leak()),
        boot_ns: now_ns(),
        disk,
    };
    Machine::new(&boot, &layout, state, device, now_ns)
}

/// The machine, a client, and what lies between them.
struct Net {
    machine: Machine,
    machine_end: End,
    client: Interface,
    client_end: End,
    sockets: SocketSet<'static>,
    next_port: u16,
    /// One frame in so many is lost, if not 0.
    loss: u64,
    random: u64,
    disk: Option<TestDisk>,
}

impl Net {
    fn new(loss: u64, seed: u64) -> Self {
        Self::with_disk(loss, seed, None)
    }

    fn with_disk(loss: u64, seed: u64, platter: Option<TestDisk>) -> Self {
        let mut machine_end = End::default();
        let mut client_end = End::default();
        let disk = platter.clone().map(|disk| Disk::new(Box::new(disk)));
        let machine = machine(&mut machine_end, disk);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress([
            2, 0, 0, 0, 0, 1,
        ])));
        config.random_seed = seed;
        let mut client = Interface::new(config, &mut client_end, instant(now_ns()));
        client.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(Ipv4Address::new(10, 77, 0, 1).into(), 24));
        });
        Self {
            machine,
            machine_end,
            client,
            client_end,
            sockets: SocketSet::new(vec![]),
            next_port: 10_000,
            loss,
            random: seed,
            disk: platter,
        }
    }

    /// Both sides once, and the frames between them; then time goes on by 1 ms.
    fn step(&mut self) {
        self.carry(
            &self.client_end.outward.clone(),
            &self.machine_end.inward.clone(),
        );
        while self.machine.round(&mut self.machine_end) == Next::Again {}
        self.carry(
            &self.machine_end.outward.clone(),
            &self.client_end.inward.clone(),
        );
        self.client
            .poll(instant(now_ns()), &mut self.client_end, &mut self.sockets);
        if let Some(disk) = &self.disk {
            disk.work();
        }
        advance(1_000_000);
    }

    fn carry(&mut self, from: &RefCell<VecDeque<Vec<u8>>>, to: &RefCell<VecDeque<Vec<u8>>>) {
        for frame in from.borrow_mut().drain(..) {
            self.random = body::word(self.random);
            if self.loss == 0 || self.random % self.loss != 0 {
                to.borrow_mut().push_back(frame);
            }
        }
    }

    fn connect(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 16 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let remote = IpEndpoint::new(Ipv4Address::from(GUEST).into(), port);
        socket
            .connect(self.client.context(), remote, self.next_port)
            .expect("a free port");
        self.next_port += 1;
        self.sockets.add(socket)
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends all of `bytes` and reads until `enough` of the answer, or until the machine ends the connection.
    fn exchange(&mut self, handle: SocketHandle, bytes: &[u8], enough: usize) -> Vec<u8> {
        let (mut sent, mut answer) = (0, Vec::new());
        let mut until_ns = now_ns() + 60_000_000_000;
        loop {
            let socket = self.socket(handle);
            if socket.may_send() && sent < bytes.len() {
                sent += socket.send_slice(&bytes[sent..]).expect("may send");
            }
            while let Ok(count @ 1..) = socket.recv(|data| {
                answer.extend_from_slice(data);
                (data.len(), data.len())
            }) {
                until_ns = now_ns() + 60_000_000_000 + count as u64;
            }
            let ended = !matches!(socket.state(), tcp::State::SynSent) && !socket.may_recv();
            if ended || (answer.len() >= enough && sent == bytes.len()) {
                return answer;
            }
            assert!(now_ns() < until_ns, "stopped after {} bytes", answer.len());
            self.step();
        }
    }

    /// The status line and the body of the answer to one request, on a connection of its own.
    fn ask(&mut self, request: &str, content: &[u8]) -> (String, Vec<u8>) {
        let head = format!(
            "{request} HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        let handle = self.connect(HTTP_PORT);
        let answer = self.exchange(handle, &[head.as_bytes(), content].concat(), usize::MAX);
        self.sockets.remove(handle);
        split(&answer)
    }

    fn status(&mut self, request: &str, content: &[u8]) -> String {
        self.ask(request, content).0
    }
}

fn split(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a whole head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    (
        head.lines().next().expect("a line")["HTTP/1.1 ".len()..].into(),
        answer[end + 4..].to_vec(),
    )
}

#[test]
fn values_are_kept() {
    let mut net = Net::new(0, 1);
    let value: Vec<u8> = (0..65536u32).map(|number| number as u8).collect();
    assert_eq!(net.status("GET /kv/a", b""), "404 Not Found");
    assert_eq!(net.status("PUT /kv/a", &value), "201 Created");
    assert_eq!(net.status("PUT /kv/a", &value[..9]), "204 No Content");
    assert_eq!(net.status("PUT /kv/b", &value), "201 Created");
    assert_eq!(
        net.ask("GET /kv/a", b""),
        ("200 OK".into(), value[..9].to_vec())
    );
    assert_eq!(net.ask("GET /kv/b", b""), ("200 OK".into(), value));
    assert_eq!(net.ask("HEAD /kv/b", b""), ("200 OK".into(), vec![]));
}

#[test]
fn the_store_says_when_it_is_full_and_still_serves() {
    let mut net = Net::new(0, 1);
    let value = vec![3; 65536];
    let mut stored = 0;
    let status = loop {
        match net.status(&format!("PUT /kv/{stored}"), &value) {
            status if status == "201 Created" => stored += 1,
            status => break status,
        }
    };
    assert_eq!(status, "507 Insufficient Storage");
    assert!(stored > 10, "{stored}");
    assert_eq!(net.ask("GET /kv/0", b""), ("200 OK".into(), value));
}

#[test]
fn dirty_changes_the_sum_and_reading_does_not() {
    let mut net = Net::new(0, 1);
    let sum = net.ask("GET /sum", b"");
    assert_eq!(sum.0, "200 OK");
    assert_eq!(net.ask("GET /sum", b""), sum);
    assert_eq!(
        net.ask("POST /dirty/100", b"ignored"),
        ("200 OK".into(), b"100\n".to_vec())
    );
    let after = net.ask("GET /sum", b"");
    assert_ne!(after, sum);
    assert_eq!(net.status("POST /dirty/9999999", b""), "400 Bad Request");
    assert_eq!(net.ask("GET /sum", b""), after);
    net.status("PUT /kv/a", b"");
    assert_ne!(net.ask("GET /sum", b""), after);
}

#[test]
fn what_cannot_be_done_is_named() {
    let mut net = Net::new(0, 1);
    for (request, content, status) in [
        ("GET /nothing", 0, "404 Not Found"),
        ("PUT /time", 5, "405 Method Not Allowed"),
        ("DELETE /kv/a", 0, "405 Method Not Allowed"),
        ("GET /bytes/1073741825", 0, "400 Bad Request"),
        ("GET /bytes/ten", 0, "400 Bad Request"),
        ("PUT /kv/a", 65537, "413 Content Too Large"),
        ("POST /dirty/1", 70_000, "413 Content Too Large"),
    ] {
        assert_eq!(
            net.status(request, &vec![b'x'; content]),
            status,
            "{request}"
        );
    }
    let long = format!(
        "GET /kv/a HTTP/1.1\r\nHost: g\r\nX: {}\r\n",
        "x".repeat(5000)
    );
    for (bytes, status) in [
        ("GET / HTTP/3.0\r\n", "505 HTTP Version Not Supported"),
        ("GET /\r\n", "400 Bad Request"),
        (&*long, "431 Request Header Fields Too Large"),
        (
            "PUT /kv/a HTTP/1.1\r\nHost: g\r\n\r\n",
            "411 Length Required",
        ),
        (
            "PUT /kv/a HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n",
            "411 Length Required",
        ),
    ] {
        let handle = net.connect(HTTP_PORT);
        let answer = net.exchange(handle, bytes.as_bytes(), usize::MAX);
        assert_eq!(split(&answer).0, status, "{bytes}");
    }
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let mut net = Net::new(0, 1);
    let handle = net.connect(HTTP_PORT);
    let lengths: Vec<usize> = (0..60).map(|number| number * 37 % 5000).collect();
    let mut requests: String = lengths
        .iter()
        .map(|length| format!("GET /bytes/{length} HTTP/1.1\r\nHost: g\r\n\r\n"))
        .collect();
    requests.push_str("GET /nothing HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: g\r\n\r\n");
    let mut rest = net.exchange(handle, requests.as_bytes(), usize::MAX);
    for length in lengths {
        let (status, after) = split(&rest);
        assert_eq!(status, "200 OK");
        assert_eq!(body::first_difference(0, &after[..length]), None);
        rest = after[length..].to_vec();
    }
    assert_eq!(
        split(&rest),
        ("404 Not Found".into(), b"Not Found\n".to_vec())
    );
}

#[test]
fn a_client_that_asks_is_told_to_go_on() {
    let mut net = Net::new(0, 1);
    let handle = net.connect(HTTP_PORT);
    let head = "PUT /kv/a HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(
        net.exchange(handle, head.as_bytes(), 25),
        b"HTTP/1.1 100 Continue\r\n\r\n"
    );
    let answer = net.exchange(handle, b"hello", 20);
    assert_eq!(split(&answer).0, "201 Created");
}

#[test]
fn downloads_survive_any_loss() {
    for seed in 0..40 {
        let mut net = Net::new(12, seed);
        // A length with many windows, one client that ends its side early and one that does not.
        let (status, bytes) = net.ask("GET /bytes/150000", b"");
        assert_eq!(
            (status.as_str(), bytes.len()),
            ("200 OK", 150_000),
            "seed {seed}"
        );
        assert_eq!(body::first_difference(0, &bytes), None, "seed {seed}");
        let handle = net.connect(HTTP_PORT);
        let request = b"GET /bytes/90000 HTTP/1.1\r\nHost: g\r\n\r\n";
        let mut answer = net.exchange(handle, request, 1);
        net.socket(handle).close();
        answer.extend(net.exchange(handle, b"", 90_000 - answer.len() + 80));
        assert_eq!(
            body::first_difference(0, &split(&answer).1),
            None,
            "seed {seed}"
        );
    }
}

#[test]
fn uploads_survive_any_loss() {
    let mut value = vec![0; 60_000];
    body::fill(5, &mut value);
    for seed in 0..20 {
        let mut net = Net::new(12, seed);
        assert_eq!(
            net.status("PUT /kv/a", &value),
            "201 Created",
            "seed {seed}"
        );
        assert!(net.ask("GET /kv/a", b"").1 == value, "seed {seed}");
    }
}

#[test]
fn two_hundred_and_fifty_six_at_once_again_and_again() {
    let mut net = Net::new(0, 1);
    for _ in 0..4 {
        let handles: Vec<_> = (0..256).map(|_| net.connect(HTTP_PORT)).collect();
        for &handle in &handles {
            let answer = net.exchange(handle, b"GET /bytes/9 HTTP/1.1\r\nHost: g\r\n\r\n", 9);
            assert_eq!(split(&answer).0, "200 OK");
        }
        for &handle in &handles {
            assert_eq!(net.socket(handle).state(), tcp::State::Established);
        }
        // The machine closes first: it is the one that must wait for stray packets.
        for handle in handles {
            net.exchange(handle, b"GET / HTTP/1.0\r\n\r\n", usize::MAX);
            net.socket(handle).close();
        }
        for _ in 0..5 {
            net.step();
        }
        net.sockets = SocketSet::new(vec![]);
    }
}

#[test]
fn clients_that_vanished_make_room() {
    let mut net = Net::new(0, 1);
    for _ in 0..600 {
        net.connect(HTTP_PORT);
    }
    for _ in 0..5 {
        net.step();
    }
    let open = net.machine.http.connections(&net.machine.sockets);
    assert_eq!(
        open,
        Layout::new(RAM_BYTES, FREE_BYTES)
            .expect("room")
            .http
            .connections
    );
    net.sockets = SocketSet::new(vec![]);
    net.client_end.outward.borrow_mut().clear();
    let refused = net.connect(HTTP_PORT);
    for _ in 0..5 {
        net.step();
    }
    assert_eq!(net.socket(refused).state(), tcp::State::Closed);
    advance(31_000_000_000);
    for _ in 0..5 {
        net.step();
    }
    assert_eq!(net.status("GET /time", b""), "200 OK");
}

#[test]
fn a_handshake_that_stops_is_given_up() {
    let mut net = Net::new(0, 1);
    // An exchange that comes to its end, so that each knows the other's Ethernet address.
    net.status("GET /time", b"");
    for _ in 0..20_000 {
        net.step();
    }
    net.connect(HTTP_PORT);
    net.client
        .poll(instant(now_ns()), &mut net.client_end, &mut net.sockets);
    // The client's first segment arrives, and nothing after it.
    net.carry(
        &net.client_end.outward.clone(),
        &net.machine_end.inward.clone(),
    );
    net.sockets = SocketSet::new(vec![]);
    let started_ns = now_ns();
    let mut open = 0;
    while now_ns() < started_ns + 20_000_000_000 {
        net.machine.round(&mut net.machine_end);
        open = net.machine.http.connections(&net.machine.sockets);
        advance(100_000_000);
        if now_ns() < started_ns + 9_000_000_000 {
            assert!(open >= 1);
        }
    }
    assert_eq!(open, 0);
}

#[test]
fn echo_answers_over_tcp() {
    let mut net = Net::new(20, 3);
    let mut bytes = vec![0; 50_000];
    body::fill(0, &mut bytes);
    let handle = net.connect(ECHO_PORT);
    assert!(net.exchange(handle, &bytes, bytes.len()) == bytes);
    net.socket(handle).close();
    assert_eq!(net.exchange(handle, b"", 1), b"");
    for _ in 0..2000 {
        net.step();
    }
    assert_eq!(net.machine.echo.connections(&net.machine.sockets), 0);
}

#[test]
fn echo_answers_datagrams() {
    let mut net = Net::new(0, 1);
    let mut socket: udp::Socket<'static> = echo::datagram_socket();
    socket.bind(9999).expect("a port");
    let handle = net.sockets.add(socket);
    let guest = IpEndpoint::new(Ipv4Address::from(GUEST).into(), ECHO_PORT);
    for length in [0, 1, 1472] {
        let datagram = vec![7; length];
        net.sockets
            .get_mut::<udp::Socket<'_>>(handle)
            .send_slice(&datagram, guest)
            .expect("room");
        for _ in 0..5 {
            net.step();
        }
        let (answer, from) = net
            .sockets
            .get_mut::<udp::Socket<'_>>(handle)
            .recv()
            .expect("an answer");
        assert_eq!((answer, from.endpoint), (&datagram[..], guest));
    }
}

/// What lock-stepping relies on: the same machine, given the same frames at the same times, sends the same frames.
#[test]
fn the_same_inputs_make_the_same_outputs() {
    let mut net = Net::new(9, 5);
    let mut twin_end = End::default();
    let mut twin = machine(&mut twin_end, None);
    let handle = net.connect(HTTP_PORT);
    let request = b"PUT /kv/a HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\nabcGET /bytes/100000 HTTP/1.1\r\nHost: g\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    let mut sent = false;
    let mut frames = 0;
    for _ in 0..20_000 {
        net.carry(
            &net.client_end.outward.clone(),
            &net.machine_end.inward.clone(),
        );
        twin_end
            .inward
            .borrow_mut()
            .extend(net.machine_end.inward.borrow().iter().cloned());
        while net.machine.round(&mut net.machine_end) == Next::Again {}
        while twin.round(&mut twin_end) == Next::Again {}
        assert_eq!(
            *net.machine_end.outward.borrow(),
            *twin_end.outward.borrow()
        );
        frames += twin_end.outward.borrow_mut().drain(..).count();
        net.carry(
            &net.machine_end.outward.clone(),
            &net.client_end.inward.clone(),
        );
        net.client
            .poll(instant(now_ns()), &mut net.client_end, &mut net.sockets);
        let socket = net.socket(handle);
        if socket.may_send() && !sent {
            socket.send_slice(request).expect("room");
            sent = true;
        }
        let _ = socket.recv(|data| (data.len(), ()));
        if sent && !socket.may_recv() {
            break;
        }
        advance(1_000_000);
    }
    assert!(frames > 100, "{frames}");
    assert!(!net.socket(handle).may_recv(), "it came to its end");
}

/// Sets the checksums of an IPv4 packet in an Ethernet frame right, as far as it is one.
fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = |parts: &[&[u8]]| {
        let words = parts
            .iter()
            .flat_map(|part| part.chunks(2))
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
    };
    let header = (usize::from(bytes[14] & 15) * 4).max(12);
    let total = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    if bytes.len() < 14 + header + 20 || total < header + 20 || bytes.len() < 14 + total {
        return bytes;
    }
    bytes[24..26].fill(0);
    let check = sum(&[&bytes[14..14 + header]]);
    bytes[24..26].copy_from_slice(&check);
    let segment = 14 + header..14 + total;
    bytes[segment.start + 16..segment.start + 18].fill(0);
    let length = (segment.len() as u16).to_be_bytes();
    let check = sum(&[
        &bytes[26..34],
        &[0, bytes[23]],
        &length,
        &bytes[segment.clone()],
    ]);
    bytes[segment.start + 16..segment.start + 18].copy_from_slice(&check);
    bytes
}

proptest::proptest! {
    /// Frames that are damaged, but whose checksums are right, and a machine that serves on all the same.
    #[test]
    fn hostile_frames_do_no_harm(
        damage in proptest::collection::vec((0usize..80, proptest::prelude::any::<u8>(), 0usize..12), 1..40),
        unspecified: bool,
    ) {
        let mut net = Net::new(0, 1);
        let handle = net.connect(HTTP_PORT);
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for (at, byte, kind) in damage {
            net.step();
            if net.socket(handle).may_send() {
                let _ = net.socket(handle).send_slice(b"GET /bytes/5000 HTTP/1.1\r\nHost: g\r\n\r\n");
            }
            net.client.poll(instant(now_ns()), &mut net.client_end, &mut net.sockets);
            sent.extend(net.client_end.outward.borrow().iter().cloned());
            let Some(frame) = sent.get(kind % sent.len().max(1)) else { continue };
            let mut frame = frame.clone();
            // Not of ARP, nor the Ethernet addresses: those would send the machine's answers elsewhere, and rightly.
            if frame.len() < 54 {
                continue;
            }
            let at = 12 + at % (frame.len() - 12);
            frame[at] = byte;
            if unspecified {
                frame[26..30].fill(0);
            }
            net.machine_end.inward.borrow_mut().push_back(with_checksums(frame));
        }
        net.step();
        proptest::prop_assert_eq!(net.status("GET /time", b""), "200 OK");
    }
}
