use super::classify::classify;
use crate::net::Vlans;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Frames between which the order matters, and only between those.
///
/// Only what guests send is compared, so a flow has one direction: a guest that forwards both directions of a connection has two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// The network card.
    pub nic: u8,
    /// The VLANs.
    pub vlans: Vlans,
    /// What the frames have in common.
    pub kind: FlowKind,
}

/// What the frames of a flow have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum FlowKind {
    /// One direction of a TCP connection, or of several one after the other.
    Tcp {
        /// The sender.
        source: SocketAddr,
        /// The receiver.
        destination: SocketAddr,
    },
    /// UDP datagrams.
    Udp {
        /// The sender.
        source: SocketAddr,
        /// The receiver.
        destination: SocketAddr,
    },
    /// ICMP or ICMPv6 echo requests, or replies, of one `ping`.
    Echo {
        /// The sender.
        source: IpAddr,
        /// The receiver.
        destination: IpAddr,
        /// The identifier in the messages.
        identifier: u16,
        /// Whether these are the replies.
        reply: bool,
    },
    /// Every other IP packet: other protocols, neighbour discovery, fragments that make no packet, malformed transport headers.
    Ip {
        /// The sender.
        source: IpAddr,
        /// The receiver.
        destination: IpAddr,
        /// The protocol's number, behind IPv6's extension headers.
        protocol: u8,
    },
    /// ARP for Ethernet and IPv4.
    Arp {
        /// Who asks, or answers.
        sender: Ipv4Addr,
        /// Who is asked for, or answered.
        target: Ipv4Addr,
    },
    /// Every other frame of this EtherType.
    Ethertype(u16),
    /// A frame without a whole Ethernet header.
    Malformed,
}

impl FlowKey {
    /// The flow of a frame that came from this network card.
    pub fn of(nic: u8, frame: &[u8]) -> FlowKey {
        classify(nic, frame).0.into()
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vlans {
            Vlans([0, 0]) => write!(f, "{} (nic {})", self.kind, self.nic),
            vlans => write!(f, "{} (nic {}, VLAN {vlans})", self.kind, self.nic),
        }
    }
}

impl fmt::Display for FlowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            FlowKind::Tcp { source, destination } => write!(f, "TCP {source} > {destination}"),
            FlowKind::Udp { source, destination } => write!(f, "UDP {source} > {destination}"),
            FlowKind::Echo { source, destination, identifier, reply } => {
                let kind = if reply { "reply" } else { "request" };
                write!(f, "ICMP echo {kind} {source} > {destination} id {identifier}")
            }
            FlowKind::Ip { source, destination, protocol } => {
                write!(f, "IP {source} > {destination} protocol {protocol}")
            }
            FlowKind::Arp { sender, target } => write!(f, "ARP {sender} for {target}"),
            FlowKind::Ethertype(number) => write!(f, "EtherType {number:#06x}"),
            FlowKind::Malformed => f.write_str("malformed frames"),
        }
    }
}

/// A [`FlowKey`] in few whole words, as it is looked for twice for every frame that leaves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key([u64; 6]);

/// Which kind a [`Key`] is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Tag {
    Tcp,
    Udp,
    EchoRequest,
    EchoReply,
    Ip,
    Arp,
    Ethertype,
    Malformed,
}

impl Key {
    /// `more` are two numbers of 16 bits: ports, an identifier, a protocol.
    pub(super) fn between(nic: u8, vlans: Vlans, tag: Tag, source: IpAddr, destination: IpAddr, more: [u16; 2]) -> Key {
        let words = |address: IpAddr| match address {
            IpAddr::V4(address) => [u64::from(address.to_bits()), 0],
            IpAddr::V6(address) => [(address.to_bits() >> 64) as u64, address.to_bits() as u64],
        };
        let ([s0, s1], [d0, d1]) = (words(source), words(destination));
        let [common, more] = Self::common(nic, vlans, tag, source.is_ipv6(), more);
        Key([s0, s1, d0, d1, common, more])
    }

    /// For frames that have no addresses of IP.
    pub(super) fn plain(nic: u8, vlans: Vlans, tag: Tag, number: u16) -> Key {
        let [common, more] = Self::common(nic, vlans, tag, false, [number, 0]);
        Key([0, 0, 0, 0, common, more])
    }

    fn common(nic: u8, vlans: Vlans, tag: Tag, is_v6: bool, [first, second]: [u16; 2]) -> [u64; 2] {
        let [outer, inner] = vlans.0.map(u64::from);
        let common = u64::from(nic) | (tag as u64) << 8 | u64::from(is_v6) << 16 | outer << 32 | inner << 48;
        [common, u64::from(first) | u64::from(second) << 16]
    }

    pub(super) fn nic(&self) -> u8 {
        self.0[4] as u8
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.0[4] >> 8 & 0xFF == Tag::Tcp as u64
    }
}

impl From<Key> for FlowKey {
    fn from(Key([s0, s1, d0, d1, common, more]): Key) -> FlowKey {
        const TAGS: [Tag; 8] =
            [Tag::Tcp, Tag::Udp, Tag::EchoRequest, Tag::EchoReply, Tag::Ip, Tag::Arp, Tag::Ethertype, Tag::Malformed];
        let v4 = |word: u64| Ipv4Addr::from_bits(word as u32);
        let address = |words: [u64; 2]| match common >> 16 & 1 {
            0 => IpAddr::from(v4(words[0])),
            _ => IpAddr::from(Ipv6Addr::from_bits(u128::from(words[0]) << 64 | u128::from(words[1]))),
        };
        let (source, destination) = (address([s0, s1]), address([d0, d1]));
        let (first, second) = (more as u16, (more >> 16) as u16);
        let (from, to) = (SocketAddr::new(source, first), SocketAddr::new(destination, second));
        let kind = match TAGS[(common >> 8 & 7) as usize] {
            Tag::Tcp => FlowKind::Tcp { source: from, destination: to },
            Tag::Udp => FlowKind::Udp { source: from, destination: to },
            Tag::EchoRequest => FlowKind::Echo { source, destination, identifier: first, reply: false },
            Tag::EchoReply => FlowKind::Echo { source, destination, identifier: first, reply: true },
            Tag::Ip => FlowKind::Ip { source, destination, protocol: first as u8 },
            Tag::Arp => FlowKind::Arp { sender: v4(s0), target: v4(d0) },
            Tag::Ethertype => FlowKind::Ethertype(first),
            Tag::Malformed => FlowKind::Malformed,
        };
        FlowKey { nic: common as u8, vlans: Vlans([(common >> 32) as u16, (common >> 48) as u16]), kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_in_a_key() {
        let (v4, v6) = (|n: u8| IpAddr::from([10, 1, 2, n]), |n: u16| IpAddr::from([0xFD00, 1, 2, 3, 4, 5, 6, n]));
        for (source, destination) in [(v4(1), v4(2)), (v6(1), v6(2))] {
            let key = |tag, more| FlowKey::from(Key::between(15, Vlans([4095, 7]), tag, source, destination, more));
            let (from, to) = (SocketAddr::new(source, 65_535), SocketAddr::new(destination, 1));
            let kinds = [
                (Tag::Tcp, FlowKind::Tcp { source: from, destination: to }),
                (Tag::Udp, FlowKind::Udp { source: from, destination: to }),
                (Tag::EchoRequest, FlowKind::Echo { source, destination, identifier: 65_535, reply: false }),
                (Tag::EchoReply, FlowKind::Echo { source, destination, identifier: 65_535, reply: true }),
            ];
            for (tag, kind) in kinds {
                assert_eq!(key(tag, [65_535, 1]), FlowKey { nic: 15, vlans: Vlans([4095, 7]), kind });
            }
            assert_eq!(key(Tag::Ip, [255, 0]).kind, FlowKind::Ip { source, destination, protocol: 255 });
        }
        let arp = Key::between(0, Vlans::default(), Tag::Arp, v4(1), v4(2), [0, 0]);
        let (sender, target) = (Ipv4Addr::new(10, 1, 2, 1), Ipv4Addr::new(10, 1, 2, 2));
        assert_eq!(FlowKey::from(arp).kind, FlowKind::Arp { sender, target });
        let plain = |tag, number| FlowKey::from(Key::plain(3, Vlans([1, 0]), tag, number));
        let vlans = Vlans([1, 0]);
        assert_eq!(plain(Tag::Ethertype, 0x88CC), FlowKey { nic: 3, vlans, kind: FlowKind::Ethertype(0x88CC) });
        assert_eq!(plain(Tag::Malformed, 0), FlowKey { nic: 3, vlans, kind: FlowKind::Malformed });
        assert!(Key::between(2, vlans, Tag::Tcp, v4(1), v4(2), [1, 2]).is_tcp() && !arp.is_tcp());
    }
}
