//! A machine behind a port: a TCP/IP stack with services to be asked over the forward.

use crate::running::Running;
use colo_core::net::{Frame, Port};
use colo_embedded::switch::SwitchPort;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

/// Says everything back, and ends when the client has.
pub(crate) const ECHO: u16 = 7;
/// Says [`pattern`] for [`SOURCE_BYTES`], throws away what it is told, and ends both when both are through.
pub(crate) const SOURCE: u16 = 19;
/// Resets the connection at the first byte.
pub(crate) const RESET: u16 = 20;
/// Accepts, and says and takes nothing.
pub(crate) const IDLE: u16 = 21;
/// Nobody listens here.
pub(crate) const REFUSED: u16 = 81;

/// How much [`SOURCE`] says.
pub(crate) const SOURCE_BYTES: usize = 32 << 20;

/// Byte number `index` of a text without short repetitions.
pub(crate) fn pattern(index: usize) -> u8 {
    ((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Sockets per service; SOURCE's are few, for they are large.
const SERVICES: [(u16, usize, usize); 4] =
    [(ECHO, 64, 16 << 10), (SOURCE, 2, 64 << 10), (RESET, 4, 4096), (IDLE, 4, 4096)];

/// The machine, until dropped.
pub(crate) struct Guest {
    stopper: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

struct Card {
    port: SwitchPort,
    incoming: VecDeque<Frame>,
    outgoing: VecDeque<Frame>,
    /// Loses one in so many frames each way, to see that TCP makes good for it; 0 loses none.
    lose_one_in: u32,
    counter: u32,
}

struct Service {
    port: u16,
    handle: SocketHandle,
    said: usize,
    told: bool,
}

impl Guest {
    pub(crate) fn start(switch: &Running) -> Self {
        Self::start_lossy(switch, 0)
    }

    pub(crate) fn start_lossy(switch: &Running, lose_one_in: u32) -> Self {
        let port = switch.plug_in();
        let (stop, stopper) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let card = Card { port, incoming: VecDeque::new(), outgoing: VecDeque::new(), lose_one_in, counter: 0 };
            run(card, &stop);
        });
        Self { stopper: Some(stopper), thread: Some(thread) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stopper = None;
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the guest panicked");
    }
}

fn run(mut card: Card, stop: &UnixStream) {
    let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 10])));
    config.random_seed = 77;
    let mut interface = Interface::new(config, &mut card, Instant::now());
    interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(Ipv4Address::new(10, 77, 0, 10).into(), 24)).unwrap();
    });
    let mut sockets = SocketSet::new(Vec::new());
    let mut services = Vec::new();
    for (port, count, bytes) in SERVICES {
        for _ in 0..count {
            let mut socket = Socket::new(SocketBuffer::new(vec![0; bytes]), SocketBuffer::new(vec![0; bytes]));
            socket.set_nagle_enabled(false);
            services.push(Service { port, handle: sockets.add(socket), said: 0, told: false });
        }
    }
    loop {
        card.receive();
        interface.poll(Instant::now(), &mut card, &mut sockets);
        for service in &mut services {
            service.serve(sockets.get_mut(service.handle));
        }
        interface.poll(Instant::now(), &mut card, &mut sockets);
        card.send();
        let delay = interface.poll_delay(Instant::now(), &sockets).map(|delay| delay.total_micros().max(100));
        let timeout = delay.map(|micros| Timespec {
            tv_sec: (micros / 1_000_000) as i64,
            tv_nsec: (micros % 1_000_000 * 1000) as i64,
        });
        let write = if card.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let fd = card.port.poll_fd();
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(&fd, PollFlags::IN | write)];
        poll(&mut fds, timeout.as_ref()).unwrap();
        if !fds[0].revents().is_empty() || fds[1].revents().contains(PollFlags::HUP) {
            return;
        }
    }
}

impl Service {
    fn serve(&mut self, socket: &mut Socket<'static>) {
        if matches!(socket.state(), State::Closed | State::TimeWait) {
            socket.abort();
            (self.said, self.told) = (0, false);
            // Not before the reset, if there is one, has been sent.
            let _ = socket.listen(self.port);
            return;
        }
        match self.port {
            ECHO => echo(socket),
            SOURCE => self.source(socket),
            RESET if socket.can_recv() => socket.abort(),
            _ => {}
        }
    }

    fn source(&mut self, socket: &mut Socket<'static>) {
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), ())).unwrap();
        }
        while self.said < SOURCE_BYTES && socket.can_send() {
            let start = self.said;
            self.said += socket
                .send(|room| {
                    let count = room.len().min(SOURCE_BYTES - start);
                    room[..count].iter_mut().zip(start..).for_each(|(byte, index)| *byte = pattern(index));
                    (count, count)
                })
                .unwrap();
        }
        if self.said == SOURCE_BYTES && !self.told {
            self.told = true;
            socket.close();
        }
    }
}

fn echo(socket: &mut Socket<'static>) {
    while socket.can_recv() && socket.can_send() {
        let mut chunk = [0; 4096];
        let room = (socket.send_capacity() - socket.send_queue()).min(chunk.len());
        let count = socket.recv_slice(&mut chunk[..room]).unwrap();
        assert_eq!(socket.send_slice(&chunk[..count]).unwrap(), count);
    }
    if socket.state() == State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}

impl Card {
    fn receive(&mut self) {
        let mut frames = Vec::new();
        // An error is a hang-up, which the poll tells too.
        while self.port.receive(&mut frames).unwrap_or(0) > 0 {}
        for frame in frames {
            if !self.loses() {
                self.incoming.push_back(frame);
            }
        }
    }

    fn send(&mut self) {
        let sent = self.port.send(self.outgoing.make_contiguous()).unwrap_or(0);
        self.outgoing.drain(..sent);
    }

    fn loses(&mut self) -> bool {
        self.counter += 1;
        self.lose_one_in > 0 && self.counter % self.lose_one_in == 0
    }
}

impl Device for Card {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Incoming(frame), Outgoing(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        (self.outgoing.len() < 1024).then_some(Outgoing(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

pub(crate) struct Incoming(Frame);
pub(crate) struct Outgoing<'a>(&'a mut Card);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, handle: F) -> R {
        handle(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut frame = vec![0; length];
        let result = fill(&mut frame);
        if !self.0.loses() {
            self.0.outgoing.push_back(frame.into());
        }
        result
    }
}
