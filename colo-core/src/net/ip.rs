//! What stands between a frame's Ethernet addresses and its transport header: VLAN tags (IEEE 802.1Q), IPv4 (RFC 791), IPv6 with
//! extension headers (RFC 8200).

use super::wire::{ETHERTYPE_IPV4, MIN_WIRE_FRAME_BYTES};
use etherparse::Ipv4HeaderSlice;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERTYPE_IPV6: u16 = 0x86DD;
/// Those of a customer's tag, of a provider's (802.1ad), and of a provider's as it was before there was a standard.
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88A8, 0x9100];
/// Where the first EtherType stands: behind two addresses.
const ETHERTYPE_AT: usize = 12;
const VLAN_ID_BITS: u16 = 0x0FFF;

/// The VLANs of a frame, the outer first; those that it is not in are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Vlans(pub [u16; 2]);

impl fmt::Display for Vlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [0, 0] => f.write_str("none"),
            [outer, 0] => write!(f, "{outer}"),
            [outer, inner] => write!(f, "{outer}.{inner}"),
        }
    }
}

/// A frame as far as the protocol that it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Network {
    pub(crate) vlans: Vlans,
    /// Of what is behind the tags.
    pub(crate) ethertype: u16,
    /// Where that begins, in bytes from the start of the frame.
    pub(crate) at: usize,
}

impl Network {
    /// `None` for a frame without a whole Ethernet header, or whose tags are cut off. Of more than two tags the third is taken for the
    /// protocol.
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        let mut network =
            Network { vlans: Vlans::default(), ethertype: word(frame, ETHERTYPE_AT)?, at: ETHERTYPE_AT + 2 };
        for vlan in &mut network.vlans.0 {
            if !ETHERTYPES_VLAN.contains(&network.ethertype) {
                break;
            }
            *vlan = word(frame, network.at)? & VLAN_ID_BITS;
            network.ethertype = word(frame, network.at + 2)?;
            network.at += 4;
        }
        Some(network)
    }
}

/// An IP packet in an Ethernet frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IpPacket {
    pub(crate) vlans: Vlans,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Of the payload: behind extension headers.
    pub(crate) protocol: u8,
    /// When it is only a part of a packet, be it the first: which.
    pub(crate) fragment: Option<Fragment>,
    /// Where its header, its payload and what follows it begin, in bytes from the start of the frame.
    pub(crate) at: usize,
    pub(crate) payload_at: usize,
    pub(crate) end: usize,
    /// Where IPv6's fragment header is.
    pub(crate) fragment_at: Option<usize>,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fragment {
    /// What its parts have in common.
    pub(crate) identification: u32,
    /// Where its payload belongs in the packet's, in bytes.
    pub(crate) offset: usize,
    /// Whether it is not the last.
    pub(crate) more: bool,
}

impl IpPacket {
    pub(crate) fn parse(frame: &[u8]) -> Option<Self> {
        Self::parse_behind(frame, Network::parse(frame)?)
    }

    /// The same, when the frame was read as far as `network` says.
    #[inline(always)]
    pub(crate) fn parse_behind(frame: &[u8], network: Network) -> Option<Self> {
        let packet = match network.ethertype {
            ETHERTYPE_IPV4 => Self::parse_v4(frame, network)?,
            ETHERTYPE_IPV6 => Self::parse_v6(frame, network)?,
            _ => return None,
        };
        // Tags may have been put in or taken out of a frame that was padded before.
        let padded = packet.end == frame.len() || frame.len() <= MIN_WIRE_FRAME_BYTES + network.at - (ETHERTYPE_AT + 2);
        (packet.end >= packet.payload_at && packet.end <= frame.len() && padded).then_some(packet)
    }

    /// A packet of which the beginning is quoted in the one `around` it, from `at` on: its payload is as much as there is of it. `frame`
    /// ends where that one ends.
    pub(crate) fn parse_quoted(frame: &[u8], around: &IpPacket, at: usize) -> Option<Self> {
        let network = |ethertype| Network { vlans: around.vlans, ethertype, at };
        let mut packet = match around.source {
            IpAddr::V4(_) => Self::parse_v4(frame, network(ETHERTYPE_IPV4))?,
            IpAddr::V6(_) => Self::parse_v6(frame, network(ETHERTYPE_IPV6))?,
        };
        packet.end = packet.end.min(frame.len());
        (packet.end >= packet.payload_at).then_some(packet)
    }

    /// The packet may end behind the frame.
    #[inline(always)]
    fn parse_v4(frame: &[u8], Network { vlans, at, .. }: Network) -> Option<Self> {
        let header = Ipv4HeaderSlice::from_slice(frame.get(at..)?).ok()?;
        Some(IpPacket {
            vlans,
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.protocol().0,
            fragment: header.is_fragmenting_payload().then(|| Fragment {
                identification: header.identification().into(),
                offset: usize::from(header.fragments_offset().value()) * 8,
                more: header.more_fragments(),
            }),
            at,
            payload_at: at + header.slice().len(),
            end: at + usize::from(header.total_len()),
            fragment_at: None,
        })
    }

    /// Likewise, if its extension headers do not.
    fn parse_v6(frame: &[u8], Network { vlans, at, .. }: Network) -> Option<Self> {
        const HEADER_BYTES: usize = 40;
        let header = frame.get(at..at + HEADER_BYTES)?;
        let address = |from: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = header[from..from + 16].try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        };
        let length = usize::from(word(header, 4)?);
        // No length: more than it can say is in an option (RFC 2675), which no Ethernet carries.
        if header[0] >> 4 != 6 || length == 0 {
            return None;
        }
        let mut packet = IpPacket {
            vlans,
            source: address(8)?,
            destination: address(24)?,
            protocol: header[6],
            fragment: None,
            at,
            payload_at: at + HEADER_BYTES,
            end: at + HEADER_BYTES + length,
            fragment_at: None,
        };
        packet.skip_extensions(&frame[..packet.end.min(frame.len())])?;
        Some(packet)
    }

    /// Goes behind the extension headers; `None` when one is cut off.
    fn skip_extensions(&mut self, frame: &[u8]) -> Option<()> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION: u8 = 60;
        const MOBILITY: u8 = 135;
        loop {
            let bytes = match self.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => {
                    (usize::from(*frame.get(self.payload_at + 1)?) + 1) * 8
                }
                // In units of four bytes, less two.
                AUTHENTICATION => (usize::from(*frame.get(self.payload_at + 1)?) + 2) * 4,
                FRAGMENT => {
                    let field = word(frame, self.payload_at + 2)?;
                    self.fragment_at = Some(self.payload_at);
                    // An offset, or more to come: a packet that is all of one fragment (RFC 6946) is whole.
                    if field & 0xFFF9 != 0 {
                        let identification = frame.get(self.payload_at + 4..self.payload_at + 8)?;
                        self.fragment = Some(Fragment {
                            identification: u32::from_be_bytes(identification.try_into().ok()?),
                            offset: usize::from(field & 0xFFF8),
                            more: field & 1 != 0,
                        });
                    }
                    8
                }
                _ => return Some(()),
            };
            frame.get(self.payload_at..self.payload_at + bytes)?;
            self.protocol = frame[self.payload_at];
            self.payload_at += bytes;
            if self.fragment.is_some() {
                // What follows is a part of what would follow.
                return Some(());
            }
        }
    }

    /// The payload, from the frame that this was parsed from.
    pub(crate) fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.payload_at..self.end]
    }

    /// The sender, of an IPv4 packet that is in no VLAN.
    pub(crate) fn source_v4(&self) -> Option<Ipv4Addr> {
        match self.source {
            IpAddr::V4(source) if self.vlans == Vlans::default() => Some(source),
            _ => None,
        }
    }
}

/// Two bytes in network order.
fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([field[0], field[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{Tcp, tagged, udp6, with_extensions};
    use proptest::prelude::*;

    #[test]
    fn tags_are_looked_behind() {
        let frame = Tcp::new(80, 4000).payload(b"x").frame();
        let plain = IpPacket::parse(&frame).unwrap();
        assert_eq!(plain.vlans, Vlans::default());
        let one = tagged(&frame, &[(0x8100, 0xE005)]);
        let packet = IpPacket::parse(&one).unwrap();
        assert_eq!((packet.vlans, packet.at), (Vlans([5, 0]), 18), "the priority is not the VLAN");
        assert_eq!(packet.payload(&one), plain.payload(&frame));
        let two = tagged(&frame, &[(0x88A8, 7), (0x8100, 5)]);
        let packet = IpPacket::parse(&two).unwrap();
        assert_eq!((packet.vlans, packet.vlans.to_string().as_str()), (Vlans([7, 5]), "7.5"));
        assert_eq!(IpPacket::parse(&tagged(&frame, &[(0x88A8, 7), (0x8100, 5), (0x8100, 6)])), None);
        assert_eq!(Network::parse(&one[..15]), None);
    }

    #[test]
    fn extension_headers_are_gone_behind() {
        let frame = udp6(53, 4000, b"answer");
        let plain = IpPacket::parse(&frame).unwrap();
        assert_eq!((plain.protocol, plain.fragment, plain.payload(&frame).len()), (17, None, 14));
        // Hop by hop, routing with 16 bytes, authentication with 12, destination.
        let headers: [(u8, Vec<u8>); 4] = [
            (0, vec![0, 0, 1, 4, 0, 0, 0, 0]),
            (43, [vec![0, 1], vec![0; 14]].concat()),
            (51, [vec![0, 1], vec![0; 10]].concat()),
            (60, vec![0; 8]),
        ];
        let extended = with_extensions(&frame, &headers);
        let packet = IpPacket::parse(&extended).unwrap();
        assert_eq!((packet.protocol, packet.fragment), (17, None));
        assert_eq!(packet.payload(&extended), plain.payload(&frame));
        for bytes in 54..extended.len() {
            assert_eq!(IpPacket::parse(&extended[..bytes]), None, "{bytes} bytes");
        }
    }

    #[test]
    fn fragments_are_told_from_packets_in_one_fragment() {
        let frame = udp6(53, 4000, b"answer");
        let parse =
            |field: u8| IpPacket::parse(&with_extensions(&frame, &[(44, vec![0, 0, 0, field, 1, 2, 3, 4])])).unwrap();
        assert_eq!((parse(0).fragment, parse(0).fragment_at), (None, Some(54)));
        let identification = 0x0102_0304;
        assert_eq!(parse(1).fragment, Some(Fragment { identification, offset: 0, more: true }));
        assert_eq!(parse(8).fragment, Some(Fragment { identification, offset: 8, more: false }));
        assert_eq!(parse(6).fragment, None, "reserved bits say nothing");
        assert_eq!(parse(1).protocol, 17);
        // What lies behind an offset is the middle of something, whatever it looks like.
        let middle =
            with_extensions(&frame, &[(44, vec![0, 0, 0, 8, 1, 2, 3, 4]), (60, vec![0, 255, 0, 0, 0, 0, 0, 0])]);
        let packet = IpPacket::parse(&middle).unwrap();
        assert_eq!((packet.protocol, packet.payload_at), (60, 62));
    }

    #[test]
    fn padding_is_no_payload_behind_tags_either() {
        let frame = Tcp::new(80, 4000).ack(1).frame();
        let mut padded = frame.to_vec();
        padded.resize(MIN_WIRE_FRAME_BYTES, 0xAA);
        let tags = [(0x88A8, 7), (0x8100, 5)];
        for tags in [&tags[1..], &tags[..]] {
            let tagged = tagged(&padded, tags);
            assert_eq!(IpPacket::parse(&tagged).unwrap().payload(&tagged).len(), frame.len() - 34);
            let more = [&tagged[..], &[0]].concat();
            assert_eq!(IpPacket::parse(&more), None, "a hidden tail");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(mut frame in prop::collection::vec(any::<u8>(), 0..200), shape in 0..3) {
            if frame.len() > 60 && shape > 0 {
                frame[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
                frame[14] = 0x60;
                let length = (frame.len() - 54) as u16;
                frame[18..20].copy_from_slice(&length.to_be_bytes());
                frame[20] = [0, 43, 44, 51, 60][usize::from(frame[20]) % 5];
            }
            if let Some(packet) = IpPacket::parse(&frame) {
                prop_assert!(packet.payload_at <= packet.end && packet.end <= frame.len());
                let _ = packet.payload(&frame);
            }
        }
    }
}
