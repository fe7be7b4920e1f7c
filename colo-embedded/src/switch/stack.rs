//! The TCP/IP stack inside the switch, with frames in and frames out.

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// Ethernet header and 1500 bytes.
const MAX_FRAME_BYTES: usize = 1514;
/// Frames that wait for the stack: more than a switch's port queues hold.
const MAX_WAITING_FRAMES: usize = 8192;
/// Buffers that are kept for the next frames.
const MAX_SPARE_BUFFERS: usize = 512;
/// What a connection may have under way in each direction: a guest's window and more.
const BUFFER_BYTES: usize = 256 << 10;
/// The first of the ports that connections are made from (RFC 6335, dynamic ports).
const FIRST_PORT: u16 = 49152;

/// The stack.
pub(super) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    began: Instant,
    next_port: u16,
}

/// What the stack takes for its device.
#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Stack {
    pub(super) fn new(mac: [u8; 6], address: IpCidr, now: Instant) -> Stack {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        // Two switches on one host must not number their connections alike.
        config.random_seed = u64::from(std::process::id()) << 32 | 0x636f_6c6f;
        let mut interface = Interface::new(config, &mut wire, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(address);
        });
        Stack { interface, sockets: SocketSet::new(Vec::new()), wire, began: now, next_port: FIRST_PORT }
    }

    /// Begins a connection.
    pub(super) fn connect(&mut self, to: SocketAddrV4) -> Option<SocketHandle> {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let from = self.next_port;
        self.next_port = from.checked_add(1).unwrap_or(FIRST_PORT);
        socket.connect(self.interface.context(), (*to.ip(), to.port()), from).ok()?;
        Some(self.sockets.add(socket))
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(super) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// A frame for the stack. Lost when too many wait.
    pub(super) fn handle_frame(&mut self, frame: &[u8]) {
        if self.wire.incoming.len() < MAX_WAITING_FRAMES {
            let mut buffer = self.wire.spare.pop().unwrap_or_default();
            buffer.clear();
            buffer.extend_from_slice(frame);
            self.wire.incoming.push_back(buffer);
        }
    }

    /// Lets the stack do what is due. Returns whether frames went in or out.
    pub(super) fn poll(&mut self, now: Instant) -> bool {
        let before = self.wire.outgoing.len();
        let any = !self.wire.incoming.is_empty();
        self.interface.poll(self.instant(now), &mut self.wire, &mut self.sockets);
        any || self.wire.outgoing.len() > before
    }

    /// When [`Stack::poll`] is due again.
    pub(super) fn poll_delay(&mut self, now: Instant) -> Option<Duration> {
        let now = self.instant(now);
        self.interface.poll_delay(now, &self.sockets).map(|delay| Duration::from_micros(delay.total_micros()))
    }

    /// What the stack has to say.
    pub(super) fn take_frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.wire.outgoing)
    }

    /// Gives the buffers back.
    pub(super) fn give_back(&mut self, frames: Vec<Vec<u8>>) {
        let room = MAX_SPARE_BUFFERS.saturating_sub(self.wire.spare.len());
        self.wire.spare.extend(frames.into_iter().take(room));
    }

    fn instant(&self, now: Instant) -> StackInstant {
        StackInstant::from_micros(now.saturating_duration_since(self.began).as_micros() as i64)
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _now: StackInstant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        let frame = self.incoming.pop_front()?;
        let spare = self.spare.pop().unwrap_or_default();
        Some((RxToken { frame, spare: &mut self.spare }, TxToken { buffer: spare, outgoing: &mut self.outgoing }))
    }

    fn transmit(&mut self, _now: StackInstant) -> Option<TxToken<'_>> {
        let buffer = self.spare.pop().unwrap_or_default();
        Some(TxToken { buffer, outgoing: &mut self.outgoing })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME_BYTES;
        capabilities
    }
}

struct RxToken<'a> {
    frame: Vec<u8>,
    spare: &'a mut Vec<Vec<u8>>,
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.frame);
        if self.spare.len() < MAX_SPARE_BUFFERS {
            self.spare.push(self.frame);
        }
        result
    }
}

struct TxToken<'a> {
    buffer: Vec<u8>,
    outgoing: &'a mut Vec<Vec<u8>>,
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, length: usize, f: F) -> R {
        self.buffer.resize(length, 0);
        let result = f(&mut self.buffer);
        self.outgoing.push(self.buffer);
        result
    }
}
