//! Frames for tests, examples and fuzz targets. Not part of the stable interface.
//!
//! ```
//! use colo_core::net::testing::Tcp;
//!
//! let frame = Tcp::new(80, 4000).seq(7).ack(9).payload(b"hello").frame();
//! assert_eq!(&frame[54..], b"hello");
//! ```

use super::ip::IpPacket;
use super::{Frame, Seq};
use crate::domain::MacAddr;
use etherparse::{IpNumber, Ipv4Header, PacketBuilder, TcpHeader};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Its client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The guest's Ethernet address.
pub const GUEST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Its client's Ethernet address.
pub const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// A TCP segment from the guest to its client, or the other way, with a right checksum.
#[derive(Clone, Debug)]
pub struct Tcp {
    header: TcpHeader,
    options: Vec<u8>,
    payload: Vec<u8>,
    identification: u16,
    inbound: bool,
}

impl Tcp {
    /// A segment between these ports without flags and payload.
    pub fn new(source_port: u16, destination_port: u16) -> Self {
        let header = TcpHeader::new(source_port, destination_port, 0, 8192);
        Tcp { header, options: Vec::new(), payload: Vec::new(), identification: 0, inbound: false }
    }

    /// From the client to the guest.
    pub fn inbound(mut self) -> Self {
        self.inbound = true;
        self
    }

    /// The sequence number.
    pub fn seq(mut self, seq: u32) -> Self {
        self.header.sequence_number = seq;
        self
    }

    /// The acknowledgement number, and the ACK flag.
    pub fn ack(mut self, ack: u32) -> Self {
        self.header.acknowledgment_number = ack;
        self.header.ack = true;
        self
    }

    /// The window as it stands in the header.
    pub fn window(mut self, window: u16) -> Self {
        self.header.window_size = window;
        self
    }

    /// The SYN flag.
    pub fn syn(mut self) -> Self {
        self.header.syn = true;
        self
    }

    /// The FIN flag.
    pub fn fin(mut self) -> Self {
        self.header.fin = true;
        self
    }

    /// The RST flag.
    pub fn rst(mut self) -> Self {
        self.header.rst = true;
        self
    }

    /// The URG flag and pointer.
    pub fn urgent(mut self, pointer: u16) -> Self {
        self.header.urg = true;
        self.header.urgent_pointer = pointer;
        self
    }

    /// Options in their wire format; at most 40 bytes.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// The payload.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The IPv4 identification, which machines choose for themselves.
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// The frame.
    ///
    /// # Panics
    /// When the options or the payload are too long.
    pub fn frame(mut self) -> Frame {
        self.header.set_options_raw(&self.options).expect("at most 40 bytes of options");
        let bytes = self.header.header_len() + self.payload.len();
        let ip = ipv4(IpNumber::TCP, bytes, self.identification, self.inbound);
        self.header.checksum = self.header.calc_checksum_ipv4(&ip, &self.payload).expect("fits a packet");
        let mut transport = Vec::new();
        self.header.write(&mut transport).expect("memory takes everything");
        transport.extend_from_slice(&self.payload);
        packet(&ip, self.inbound, &transport)
    }
}

fn ipv4(protocol: IpNumber, bytes: usize, identification: u16, inbound: bool) -> Ipv4Header {
    let (source, destination) = if inbound { (CLIENT, GUEST) } else { (GUEST, CLIENT) };
    let bytes = u16::try_from(bytes).expect("fits a packet");
    let mut ip = Ipv4Header::new(bytes, 64, protocol, source.octets(), destination.octets()).expect("fits a packet");
    ip.identification = identification;
    ip.header_checksum = ip.calc_header_checksum();
    ip
}

fn packet(ip: &Ipv4Header, inbound: bool, transport: &[u8]) -> Frame {
    let (source, destination) = if inbound { (CLIENT_MAC, GUEST_MAC) } else { (GUEST_MAC, CLIENT_MAC) };
    let mut frame = [destination.0, source.0].concat();
    frame.extend_from_slice(&super::wire::ETHERTYPE_IPV4.to_be_bytes());
    ip.write(&mut frame).expect("memory takes everything");
    frame.extend_from_slice(transport);
    frame.into()
}

/// A UDP datagram from the guest.
pub fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Frame {
    let step = PacketBuilder::ethernet2(GUEST_MAC.0, CLIENT_MAC.0).ipv4(GUEST.octets(), CLIENT.octets(), 64);
    let step = step.udp(source_port, destination_port);
    let mut frame = Vec::new();
    step.write(&mut frame, payload).expect("memory takes everything");
    frame.into()
}

/// The ways in which [`carried`] takes a segment.
pub const CARRIERS: usize = 5;

/// A frame that [`Tcp`] made, in another way: 0, as it is; 1, in a VLAN; 2, in a VLAN of a VLAN; 3, in IPv6; 4, in both.
///
/// # Panics
/// When it is no such frame, or there is no such way.
pub fn carried(way: usize, frame: &[u8]) -> Frame {
    let tags = [(0x88A8, 7), (0x8100, 0x6005)];
    match way {
        0 => Frame::copy_from_slice(frame),
        1 => tagged(frame, &tags[1..]),
        2 => tagged(frame, &tags),
        3 => over_ipv6(frame),
        4 => tagged(&over_ipv6(frame), &tags[1..]),
        _ => panic!("no such way"),
    }
}

fn address6(last: u8) -> [u8; 16] {
    Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, last.into()).octets()
}

/// The same segment with its addresses' last bytes as those of IPv6 addresses, and another checksum.
fn over_ipv6(frame: &[u8]) -> Frame {
    let (source, destination) = (address6(frame[29]), address6(frame[33]));
    let (mut header, payload) = TcpHeader::from_slice(&frame[34..]).expect("a TCP segment");
    header.checksum = header.calc_checksum_ipv6_raw(source, destination, payload).expect("fits a packet");
    let bytes = u16::try_from(frame.len() - 34).expect("fits a packet");
    let mut other =
        [&frame[..12], &[0x86, 0xDD, 0x60, 0, 0, 0], &bytes.to_be_bytes(), &[6, 64], &source, &destination].concat();
    header.write(&mut other).expect("memory takes everything");
    other.extend_from_slice(payload);
    other.into()
}

/// A UDP datagram in IPv6, between the addresses ::1 and ::2.
pub fn udp6(source_port: u16, destination_port: u16, payload: &[u8]) -> Frame {
    let (source, destination) = (address6(1), address6(2));
    let step = PacketBuilder::ethernet2(GUEST_MAC.0, CLIENT_MAC.0).ipv6(source, destination, 64);
    let step = step.udp(source_port, destination_port);
    let mut frame = Vec::new();
    step.write(&mut frame, payload).expect("memory takes everything");
    frame.into()
}

/// An answer to an ICMPv6 echo request, between the same addresses.
pub fn echo_reply6(identifier: u16, sequence: u16, payload: &[u8]) -> Frame {
    let step = PacketBuilder::ethernet2(GUEST_MAC.0, CLIENT_MAC.0).ipv6(address6(1), address6(2), 64);
    let step = step.icmpv6_echo_reply(identifier, sequence);
    let mut frame = Vec::new();
    step.write(&mut frame, payload).expect("memory takes everything");
    frame.into()
}

/// An IPv6 frame with extension headers: the number of each, and its bytes, of which the first will say what follows.
///
/// # Panics
/// When they are too long.
pub fn with_extensions(frame: &[u8], headers: &[(u8, Vec<u8>)]) -> Frame {
    let mut frame = frame.to_vec();
    for (number, header) in headers.iter().rev() {
        let mut header = header.clone();
        header[0] = std::mem::replace(&mut frame[20], *number);
        frame.splice(54..54, header);
    }
    let length = u16::try_from(frame.len() - 54).expect("fits a packet");
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame.into()
}

/// A frame with VLAN tags, the outer first: EtherType, priority and VLAN.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Frame {
    let tags = tags.iter().flat_map(|(ethertype, tag)| [ethertype.to_be_bytes(), tag.to_be_bytes()].concat());
    [&frame[..12], &tags.collect::<Vec<u8>>(), &frame[12..]].concat().into()
}

/// The fragments of an IP packet, with so many bytes of its payload in each.
///
/// # Panics
/// When the frame is none, or the bytes are not a multiple of 8.
pub fn fragments(frame: &[u8], bytes: usize, identification: u16) -> Vec<Frame> {
    let packet = IpPacket::parse(frame).expect("an IP packet");
    assert_eq!(bytes % 8, 0, "offsets count in units of 8 bytes");
    let payload = packet.payload(frame);
    let is_v4 = packet.source.is_ipv4();
    let fragment = |(index, part): (usize, &[u8])| {
        let (offset, more) = (index * bytes, index * bytes + part.len() < payload.len());
        let mut fragment = frame[..packet.payload_at].to_vec();
        if is_v4 {
            let length = (packet.payload_at - packet.at + part.len()) as u16;
            let place = (offset / 8) as u16 | u16::from(more) << 13;
            fragment[packet.at + 2..packet.at + 4].copy_from_slice(&length.to_be_bytes());
            fragment[packet.at + 4..packet.at + 6].copy_from_slice(&identification.to_be_bytes());
            fragment[packet.at + 6..packet.at + 8].copy_from_slice(&place.to_be_bytes());
        } else {
            const FRAGMENT: u8 = 44;
            let place = (offset as u16 | u16::from(more)).to_be_bytes();
            let [id0, id1] = identification.to_be_bytes();
            fragment.extend_from_slice(&[packet.protocol, 0, place[0], place[1], 0, 0, id0, id1]);
            let length = (fragment.len() - packet.at - 40 + part.len()) as u16;
            fragment[packet.at + 4..packet.at + 6].copy_from_slice(&length.to_be_bytes());
            fragment[packet.at + 6] = FRAGMENT;
        }
        fragment.extend_from_slice(part);
        fragment.into()
    };
    payload.chunks(bytes).enumerate().map(fragment).collect()
}

/// The guest's answer to an ICMP echo request.
pub fn echo_reply(identifier: u16, sequence: u16, payload: &[u8]) -> Frame {
    let step = PacketBuilder::ethernet2(GUEST_MAC.0, CLIENT_MAC.0).ipv4(GUEST.octets(), CLIENT.octets(), 64);
    let step = step.icmpv4_echo_reply(identifier, sequence);
    let mut frame = Vec::new();
    step.write(&mut frame, payload).expect("memory takes everything");
    frame.into()
}

/// The guest's ARP request for an address.
pub fn arp_request(target: Ipv4Addr) -> Frame {
    let mut frame = super::announce::gratuitous_arp(GUEST_MAC, GUEST).to_vec();
    frame[38..42].copy_from_slice(&target.octets());
    frame.into()
}

/// The sequence number of a frame that [`Tcp`] made.
///
/// # Panics
/// When it is none.
pub fn seq_of(frame: &[u8]) -> Seq {
    Seq(u32::from_be_bytes(frame[38..42].try_into().expect("a TCP segment")))
}

/// The acknowledgement number of a frame that [`Tcp`] made.
///
/// # Panics
/// When it is none.
pub fn ack_of(frame: &[u8]) -> Seq {
    Seq(u32::from_be_bytes(frame[42..46].try_into().expect("a TCP segment")))
}

/// Cuts bytes from a fuzzer into frames, each after two bytes: which side it comes from, and its length.
pub fn cut(mut data: &[u8]) -> impl Iterator<Item = (u8, Frame)> {
    std::iter::from_fn(move || {
        let [side, length, rest @ ..] = data else {
            return None;
        };
        let (frame, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        Some((*side, Frame::copy_from_slice(frame)))
    })
}
