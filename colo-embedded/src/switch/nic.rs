//! The network card of the switch's own TCP/IP stack, and what it reads in the headers of the frames that pass.

use super::fabric::HEADER_BYTES;
use super::queue::FrameQueue;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The longest frame that the stack sends and announces to take: a standard Ethernet frame.
pub(super) const MTU_FRAME_BYTES: usize = 1514;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROTOCOL_TCP: u8 = 6;
const IPV4_HEADER_BYTES: usize = 20;
const TCP_HEADER_BYTES: usize = 20;
const TCP_FLAGS: u8 = 0b0011_1111;
const TCP_ACK: u8 = 0b0001_0000;

/// The card for the length of one call: at most one frame in, any number out.
pub(super) struct Nic<'a> {
    pub(super) frame: Option<&'a [u8]>,
    pub(super) out: &'a mut FrameQueue,
}

pub(super) struct Incoming<'a>(&'a [u8]);
pub(super) struct Outgoing<'a>(&'a mut FrameQueue);

impl Device for Nic<'_> {
    type RxToken<'b>
        = Incoming<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        self.frame.take().map(|frame| (Incoming(frame), Outgoing(self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        self.out.has_room(MTU_FRAME_BYTES).then_some(Outgoing(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU_FRAME_BYTES;
        capabilities
    }
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, handle: F) -> R {
        handle(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        fill(self.0.push_zeroed(length))
    }
}

/// What a frame that came in is to the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming4 {
    /// ARP: may tell what some connection waits for.
    Arp,
    /// TCP from this address to this local port.
    Tcp {
        /// The sender.
        from: SocketAddrV4,
        /// The local port.
        to: u16,
    },
    /// Anything else, malformed frames included.
    Other,
}

/// Looks at a frame's headers; checks no more than where they are, which the stack does again, and fully.
pub(super) fn classify(frame: &[u8]) -> Incoming4 {
    match frame.get(12..HEADER_BYTES) {
        Some(kind) if kind == ETHERTYPE_ARP => return Incoming4::Arp,
        Some(kind) if kind == ETHERTYPE_IPV4 => {}
        _ => return Incoming4::Other,
    }
    let Some(ip) = frame[HEADER_BYTES..].first_chunk::<IPV4_HEADER_BYTES>() else {
        return Incoming4::Other;
    };
    let header_bytes = usize::from(ip[0] & 15) * 4;
    if ip[9] != PROTOCOL_TCP {
        return Incoming4::Other;
    }
    match frame.get(HEADER_BYTES + header_bytes..HEADER_BYTES + header_bytes + 4) {
        Some(ports) => Incoming4::Tcp {
            from: SocketAddrV4::new(
                Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
                u16::from_be_bytes([ports[0], ports[1]]),
            ),
            to: u16::from_be_bytes([ports[2], ports[3]]),
        },
        None => Incoming4::Other,
    }
}

/// Whether one of the stack's own frames is a TCP acknowledgement and nothing else: no data, and no SYN, FIN or RST.
pub(super) fn is_pure_ack(frame: &[u8]) -> bool {
    let Some(ip) = frame.get(HEADER_BYTES..) else {
        return false;
    };
    let Some(tcp) = ip.get(IPV4_HEADER_BYTES..) else {
        return false;
    };
    if tcp.len() < TCP_HEADER_BYTES || frame[12..HEADER_BYTES] != ETHERTYPE_IPV4 || ip[9] != PROTOCOL_TCP {
        return false;
    }
    let ip_bytes = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let header_bytes = usize::from(tcp[12] >> 4) * 4;
    tcp[13] & TCP_FLAGS == TCP_ACK && ip_bytes == IPV4_HEADER_BYTES + header_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV4);
        frame.extend([0x45, 0]);
        frame.extend((40 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, PROTOCOL_TCP, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1]);
        frame.extend([0, 80, 0x40, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        frame
    }

    #[test]
    fn headers_are_found() {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 80);
        let frame = segment(TCP_ACK, b"");
        assert_eq!(classify(&frame), Incoming4::Tcp { from, to: 0x4001 });
        for cut in 0..HEADER_BYTES + IPV4_HEADER_BYTES + 4 {
            assert_eq!(classify(&frame[..cut]), Incoming4::Other);
            assert!(!is_pure_ack(&frame[..cut]));
        }
    }

    #[test]
    fn only_a_bare_ack_is_pure() {
        assert!(is_pure_ack(&segment(TCP_ACK, b"")));
        assert!(!is_pure_ack(&segment(TCP_ACK, b"x")));
        for other in [1, 2, 4, 8] {
            assert!(!is_pure_ack(&segment(TCP_ACK | other, b"")));
        }
    }
}
