//! Which flow a frame belongs to, and how it is compared there.

use super::datagram::Mask;
use super::key::{Key, Tag};
use crate::net::Vlans;
use crate::net::ip::{IpPacket, Network};
use crate::net::wire::{ETHERTYPE_ARP, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_IGMP, PROTOCOL_UDP, Segment, TcpFlags};
use std::net::{IpAddr, Ipv4Addr};

/// How a frame is to be compared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Segment(Segment),
    Datagram(Mask),
    /// As a datagram, too. It says something that holds until another says otherwise, so that said again it says nothing.
    Notice(Mask),
    /// A part of a packet; alone it is compared as a datagram.
    Fragment(IpPacket),
}

/// Tells which flow a frame belongs to, and how it is compared there.
// Inline: what it returns is large, and read at once.
#[inline(always)]
pub(super) fn classify(nic: u8, frame: &[u8]) -> (Key, Content) {
    let whole = Content::Datagram(Mask::default());
    let Some(network) = Network::parse(frame) else {
        return (Key::plain(nic, Vlans::default(), Tag::Malformed, 0), whole);
    };
    let Network { vlans, ethertype, at } = network;
    if ethertype == ETHERTYPE_ARP {
        return classify_arp(nic, vlans, &frame[at..]);
    }
    match IpPacket::parse_behind(frame, network) {
        Some(packet) => classify_ip(nic, frame, &packet),
        None => (Key::plain(nic, vlans, Tag::Ethertype, ethertype), whole),
    }
}

#[inline(always)]
fn classify_ip(nic: u8, frame: &[u8], packet: &IpPacket) -> (Key, Content) {
    let key = |tag: Tag, more: [u16; 2]| Key::between(nic, packet.vlans, tag, packet.source, packet.destination, more);
    if packet.fragment.is_some() {
        return (key(Tag::Ip, [packet.protocol.into(), 0]), Content::Fragment(*packet));
    }
    if let Some((segment, source, destination)) = Segment::parse(frame, packet) {
        let ends = segment.has(TcpFlags::FIN) || segment.has(TcpFlags::RST);
        // A segment that opens and ends a connection at once has no place in a stream.
        if !(segment.has(TcpFlags::SYN) && ends) {
            return (key(Tag::Tcp, [source, destination]), Content::Segment(segment));
        }
    }
    let payload = packet.payload(frame);
    let mask = |checksum_at: Option<usize>| Content::Datagram(Mask::of(packet, checksum_at));
    if let Some(&[a0, a1, b0, b1, c0, c1, ..]) = payload.get(..8) {
        let [a, b, c] = [[a0, a1], [b0, b1], [c0, c1]].map(u16::from_be_bytes);
        if packet.protocol == PROTOCOL_UDP && usize::from(c) == payload.len() {
            return (key(Tag::Udp, [a, b]), mask(Some(6)));
        }
        let echo = match (packet.source, packet.protocol, a0) {
            (IpAddr::V4(_), PROTOCOL_ICMP, 8) | (IpAddr::V6(_), PROTOCOL_ICMPV6, 128) => Some(Tag::EchoRequest),
            (IpAddr::V4(_), PROTOCOL_ICMP, 0) | (IpAddr::V6(_), PROTOCOL_ICMPV6, 129) => Some(Tag::EchoReply),
            _ => None,
        };
        if let Some(tag) = echo {
            return (key(tag, [c, 0]), mask(Some(2)));
        }
    }
    let content = match (packet.source, packet.protocol, payload.first()) {
        // Membership of groups (RFC 3376, 2236, 1112; RFC 3810, 2710), and neighbour discovery but for redirects (RFC 4861).
        (IpAddr::V4(_), PROTOCOL_IGMP, Some(0x12 | 0x16 | 0x17 | 0x22))
        | (IpAddr::V6(_), PROTOCOL_ICMPV6, Some(131 | 132 | 133..=136 | 143)) => {
            Content::Notice(Mask::of(packet, None))
        }
        _ => mask(None),
    };
    (key(Tag::Ip, [packet.protocol.into(), 0]), content)
}

/// Of a client's frame that resets a TCP connection, the flow of what the guest says in it.
pub(super) fn reset_flow(nic: u8, frame: &[u8]) -> Option<Key> {
    let packet = IpPacket::parse(frame)?;
    let (segment, from, to) = Segment::parse(frame, &packet)?;
    let key = || Key::between(nic, packet.vlans, Tag::Tcp, packet.destination, packet.source, [to, from]);
    segment.has(TcpFlags::RST).then(key)
}

fn classify_arp(nic: u8, vlans: Vlans, arp: &[u8]) -> (Key, Content) {
    const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let address = |at: usize| IpAddr::from(Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]));
    if arp.len() >= 28 && arp[..6] == ETHERNET_AND_IPV4 {
        (Key::between(nic, vlans, Tag::Arp, address(14), address(24), [0, 0]), Content::Notice(Mask::default()))
    } else {
        (Key::plain(nic, vlans, Tag::Ethertype, ETHERTYPE_ARP), Content::Datagram(Mask::default()))
    }
}
