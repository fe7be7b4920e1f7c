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
/// Where an ARP packet for Ethernet and IPv4 says whom it is for (RFC 826).
const ARP_TARGET: std::ops::Range<usize> = HEADER_BYTES + 24..HEADER_BYTES + 28;
const PROTOCOL_TCP: u8 = 6;
const IPV4_HEADER_BYTES: usize = 20;

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
pub(super) enum Passing {
    /// ARP for this address.
    Arp {
        /// The target: who is asked, or answered.
        target: Ipv4Addr,
    },
    /// TCP from this address to this local port.
    Tcp {
        /// The sender.
        from: SocketAddrV4,
        /// The local port.
        to: u16,
    },
    /// Anything else.
    Other,
    /// A frame that smoltcp 0.12 may not survive.
    Poison,
}

/// Looks at a frame's headers; checks no more than where they are, which the stack does again, and fully.
pub(super) fn classify(frame: &[u8]) -> Passing {
    match frame.get(12..HEADER_BYTES) {
        Some(kind) if kind == ETHERTYPE_ARP => {
            let target = frame.get(ARP_TARGET).and_then(|bytes| bytes.first_chunk::<4>());
            return target.map_or(Passing::Other, |&bytes| Passing::Arp { target: bytes.into() });
        }
        Some(kind) if kind == ETHERTYPE_IPV4 => {}
        _ => return Passing::Other,
    }
    let Some(ip) = frame[HEADER_BYTES..].first_chunk::<IPV4_HEADER_BYTES>() else {
        return Passing::Other;
    };
    let header_bytes = usize::from(ip[0] & 15) * 4;
    // smoltcp trusts the header length (RFC 791, 3.1: at least 5 words), and may panic when it answers to nobody's address.
    // Only a host that has none yet has that one, and it wants nothing from here.
    if header_bytes < IPV4_HEADER_BYTES || ip[12..16] == [0; 4] {
        return Passing::Poison;
    }
    if ip[9] != PROTOCOL_TCP {
        return Passing::Other;
    }
    match frame.get(HEADER_BYTES + header_bytes..HEADER_BYTES + header_bytes + 4) {
        Some(ports) => Passing::Tcp {
            from: SocketAddrV4::new(
                Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
                u16::from_be_bytes([ports[0], ports[1]]),
            ),
            to: u16::from_be_bytes([ports[2], ports[3]]),
        },
        None => Passing::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(ETHERTYPE_IPV4);
        frame.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, PROTOCOL_TCP, 0, 0, 10, 0, 0, 9, 10, 0, 0, 1]);
        frame.extend([0, 80, 0x40, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 16, 0, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn arp_is_found() {
        let mut frame = vec![0; HEADER_BYTES + 28];
        frame[12..HEADER_BYTES].copy_from_slice(&ETHERTYPE_ARP);
        frame[38..].copy_from_slice(&[10, 0, 0, 1]);
        let target = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(classify(&frame), Passing::Arp { target });
        assert_eq!(classify(&frame[..41]), Passing::Other);
    }

    #[test]
    fn headers_are_found() {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 80);
        let frame = segment();
        assert_eq!(classify(&frame), Passing::Tcp { from, to: 0x4001 });
        for cut in 0..HEADER_BYTES + IPV4_HEADER_BYTES + 4 {
            assert_eq!(classify(&frame[..cut]), Passing::Other);
        }
    }
}
