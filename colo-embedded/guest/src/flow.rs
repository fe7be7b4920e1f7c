//! Which connection a packet belongs to, seen from outside the TCP/IP stack: only enough of it is read to find the socket that
//! will then check all of it.
//!
//! ```
//! use colo_guest::flow::{Arrival, classify};
//! assert_eq!(classify(b"not a frame"), Arrival::Other);
//! ```

/// What has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A TCP segment over IPv4.
    Tcp {
        /// Names the connection: the client's address and port, and the local port.
        flow: u64,
        /// The local port.
        port: u16,
        /// Asks for a new connection: SYN without ACK or RST.
        opens: bool,
    },
    /// ARP: an address that connections wait for may have become known.
    Arp,
    /// Anything else, fragments and malformed segments among them.
    Other,
}

const ETHERNET_HEADER_BYTES: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const ETHERTYPE_ARP: [u8; 2] = [8, 6];
const PROTOCOL_TCP: u8 = 6;
const TCP_FLAG_SYN: u8 = 0x02;
const TCP_FLAG_RST: u8 = 0x04;
const TCP_FLAG_ACK: u8 = 0x10;

/// Looks at an Ethernet frame (RFC 791 and RFC 9293 for the layouts).
#[must_use]
pub fn classify(frame: &[u8]) -> Arrival {
    match frame.get(12..14) {
        Some(kind) if kind == ETHERTYPE_ARP => Arrival::Arp,
        Some(kind) if kind == ETHERTYPE_IPV4 => {
            classify_ipv4(&frame[ETHERNET_HEADER_BYTES..]).unwrap_or(Arrival::Other)
        }
        _ => Arrival::Other,
    }
}

fn classify_ipv4(ip: &[u8]) -> Option<Arrival> {
    let header_bytes = usize::from(*ip.first()? & 0x0f) * 4;
    // The offset of a fragment, and whether more follow.
    let fragment = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x3fff;
    if ip[0] >> 4 != 4 || header_bytes < 20 || fragment != 0 || *ip.get(9)? != PROTOCOL_TCP {
        return None;
    }
    let source = ip.get(12..16)?;
    let tcp = ip.get(header_bytes..)?;
    let ports = tcp.get(..4)?;
    let flags = *tcp.get(13)? & (TCP_FLAG_SYN | TCP_FLAG_RST | TCP_FLAG_ACK);
    let flow = u64::from_be_bytes([
        source[0], source[1], source[2], source[3], ports[0], ports[1], ports[2], ports[3],
    ]);
    Some(Arrival::Tcp {
        flow,
        port: u16::from_be_bytes([ports[2], ports[3]]),
        opens: flags == TCP_FLAG_SYN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
    };
    use std::vec::Vec;

    fn frame(control: TcpControl, ack_number: Option<TcpSeqNumber>) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: 0x1234,
            dst_port: 80,
            control,
            seq_number: TcpSeqNumber(1),
            ack_number,
            window_len: 1,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: b"x",
        };
        let (src_addr, dst_addr) = (Ipv4Address::new(10, 1, 2, 3), Ipv4Address::new(10, 1, 2, 4));
        let ip = Ipv4Repr {
            src_addr,
            dst_addr,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut frame = std::vec![0; 14 + 20 + tcp.buffer_len()];
        frame[12] = 8;
        let caps = ChecksumCapabilities::default();
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &caps);
        tcp.emit(
            &mut TcpPacket::new_unchecked(&mut frame[34..]),
            &src_addr.into(),
            &dst_addr.into(),
            &caps,
        );
        frame
    }

    #[test]
    fn segments() {
        let flow = 0x0a01_0203_1234_0050;
        for (control, ack, opens) in [
            (TcpControl::Syn, None, true),
            (TcpControl::Syn, Some(TcpSeqNumber(1)), false),
            (TcpControl::Rst, None, false),
            (TcpControl::None, Some(TcpSeqNumber(1)), false),
        ] {
            assert_eq!(
                classify(&frame(control, ack)),
                Arrival::Tcp {
                    flow,
                    port: 80,
                    opens
                }
            );
        }
        for (at, value) in [
            (12, 0x86),
            (14, 0x65),
            (14, 0x44),
            (20, 0x20),
            (21, 1),
            (23, 17),
        ] {
            let mut other = frame(TcpControl::Syn, None);
            other[at] = value;
            assert_eq!(classify(&other), Arrival::Other, "byte {at} = {value}");
        }
    }

    #[test]
    fn arp() {
        let mut arp = frame(TcpControl::Syn, None);
        arp[13] = 6;
        assert_eq!(classify(&arp), Arrival::Arp);
    }

    proptest! {
        #[test]
        fn no_cut_or_noise_panics(len in 0_usize..55, noise in proptest::collection::vec(any::<u8>(), 0..80)) {
            let frame = frame(TcpControl::Syn, None);
            if len < 14 + 20 + 14 {
                prop_assert_eq!(classify(&frame[..len]), Arrival::Other);
            }
            let _ = classify(&noise);
        }
    }
}
