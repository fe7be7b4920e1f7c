use super::datagram::{DatagramFlow, Mask};
use super::tcp::TcpFlow;
use super::verdict::{Reason, Release};
use crate::net::Frame;
use crate::net::Vlans;
use crate::net::ip::{IpPacket, Network};
use crate::net::wire::{ETHERTYPE_ARP, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_UDP, Segment, TcpFlags};
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

/// What each held frame costs beside its own bytes: its place in the queues. Keeps empty frames from being free.
pub(super) const FRAME_OVERHEAD_BYTES: usize = 256;

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
    /// Every other IP packet: other protocols, neighbour discovery, fragments, malformed transport headers.
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
        classify(nic, frame).0
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

/// How a frame is to be compared.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Segment(Segment),
    Datagram(Mask),
}

/// Tells which flow a frame belongs to, and how it is compared there.
pub(super) fn classify(nic: u8, frame: &[u8]) -> (FlowKey, Content) {
    let whole = Content::Datagram(Mask::default());
    let Some(Network { vlans, ethertype, at }) = Network::parse(frame) else {
        return (FlowKey { nic, vlans: Vlans::default(), kind: FlowKind::Malformed }, whole);
    };
    let (kind, content) = match ethertype {
        ETHERTYPE_ARP => (classify_arp(&frame[at..]), whole),
        number => match IpPacket::parse(frame) {
            Some(packet) => classify_ip(frame, &packet),
            None => (FlowKind::Ethertype(number), whole),
        },
    };
    (FlowKey { nic, vlans, kind }, content)
}

fn classify_ip(frame: &[u8], packet: &IpPacket) -> (FlowKind, Content) {
    let IpPacket { source, destination, protocol, .. } = *packet;
    if let Some((segment, from, to)) = Segment::parse(frame, packet) {
        let ends = segment.has(TcpFlags::FIN) || segment.has(TcpFlags::RST);
        // A segment that opens and ends a connection at once has no place in a stream.
        if !(segment.has(TcpFlags::SYN) && ends) {
            let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
            return (FlowKind::Tcp { source, destination }, Content::Segment(segment));
        }
    }
    let port = |at: usize| u16::from_be_bytes([frame[packet.payload_at + at], frame[packet.payload_at + at + 1]]);
    let payload = packet.payload(frame);
    let mask = |checksum_at: Option<usize>| Content::Datagram(Mask::of(packet, checksum_at));
    let whole = !packet.is_fragment && payload.len() >= 8;
    if whole && protocol == PROTOCOL_UDP && usize::from(port(4)) == payload.len() {
        let (source, destination) = (SocketAddr::new(source, port(0)), SocketAddr::new(destination, port(2)));
        return (FlowKind::Udp { source, destination }, mask(Some(6)));
    }
    // Request and reply.
    let echo = match (source, protocol) {
        (IpAddr::V4(_), PROTOCOL_ICMP) => Some([8, 0]),
        (IpAddr::V6(_), PROTOCOL_ICMPV6) => Some([128, 129]),
        _ => None,
    };
    if let Some([request, reply]) = echo.filter(|_| whole) {
        if payload[0] == request || payload[0] == reply {
            let (identifier, reply) = (port(4), payload[0] == reply);
            return (FlowKind::Echo { source, destination, identifier, reply }, mask(Some(2)));
        }
    }
    (FlowKind::Ip { source, destination, protocol }, mask(None))
}

fn classify_arp(arp: &[u8]) -> FlowKind {
    const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    if arp.len() >= 28 && arp[..6] == ETHERNET_AND_IPV4 {
        FlowKind::Arp { sender: address(14), target: address(24) }
    } else {
        FlowKind::Ethertype(ETHERTYPE_ARP)
    }
}

/// A frame of the primary, on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Its place among all that the primary produced.
    pub(super) order: u64,
    pub(super) since: Instant,
    pub(super) frame: Frame,
}

/// A frame of the secondary.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) number: u64,
    pub(super) since: Instant,
    pub(super) frame: Frame,
}

/// What a flow's held frames count against the limits.
pub(super) fn charge(frame: &Frame) -> usize {
    frame.len() + FRAME_OVERHEAD_BYTES
}

/// Bytes held in a flow, or in all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Held {
    pub(super) primary: usize,
    pub(super) secondary: usize,
}

/// Where a flow puts what it decided.
#[derive(Default, Debug)]
pub(super) struct Outbox {
    pub(super) released: VecDeque<Release>,
    pub(super) consumed: VecDeque<u64>,
    pub(super) compared_bytes: u64,
    pub(super) released_frames: u64,
    /// The network card of the flow at work.
    pub(super) nic: u8,
    /// Whether that flow may release anything now.
    pub(super) open: bool,
}

impl Outbox {
    pub(super) fn release(&mut self, frame: Frame) {
        self.released_frames += 1;
        self.released.push_back(Release { nic: self.nic, frame });
    }
}

/// Who waits in a flow, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    pub(super) is_primary: bool,
}

/// A flow by the way in which it is compared.
#[derive(Debug)]
pub(super) enum Flow {
    Stream(Box<TcpFlow>),
    Datagrams(DatagramFlow),
}

impl Flow {
    pub(super) fn new(key: &FlowKey) -> Self {
        match key.kind {
            FlowKind::Tcp { .. } => Flow::Stream(Box::default()),
            _ => Flow::Datagrams(DatagramFlow::default()),
        }
    }

    /// Takes a frame of the primary. `content` is what [`classify`] said with the flow's key.
    pub(super) fn push_primary(&mut self, outgoing: Outgoing, content: Content) {
        match (self, content) {
            (Flow::Stream(flow), Content::Segment(segment)) => flow.push_primary(outgoing, segment),
            (Flow::Datagrams(flow), Content::Datagram(mask)) => flow.push_primary(outgoing, mask),
            (flow, content) => unreachable!("{content:?} in {flow:?}"),
        }
    }

    /// Takes a frame of the secondary.
    pub(super) fn push_secondary(
        &mut self,
        witness: Witness,
        content: Content,
        out: &mut Outbox,
    ) -> Result<(), Reason> {
        match (self, content) {
            (Flow::Stream(flow), Content::Segment(segment)) => flow.push_secondary(witness, segment, out),
            (Flow::Datagrams(flow), Content::Datagram(mask)) => {
                flow.push_secondary(witness, mask);
                Ok(())
            }
            (flow, content) => unreachable!("{content:?} in {flow:?}"),
        }
    }

    /// Compares what can be compared, and releases what may leave.
    pub(super) fn advance(&mut self, out: &mut Outbox) -> Result<(), Reason> {
        match self {
            Flow::Stream(flow) => flow.advance(out),
            Flow::Datagrams(flow) => flow.advance(out),
        }
    }

    /// Both machines now stand where the primary stands: moves all that the primary still holds to `ended`, in any order.
    pub(super) fn begin_epoch(&mut self, ended: &mut Vec<Outgoing>) {
        match self {
            Flow::Stream(flow) => flow.begin_epoch(ended),
            Flow::Datagrams(flow) => flow.begin_epoch(ended),
        }
    }

    /// Who has waited longest; `None` when nobody waits.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        match self {
            Flow::Stream(flow) => flow.waiting(),
            Flow::Datagrams(flow) => flow.waiting(),
        }
    }

    pub(super) fn held(&self) -> Held {
        match self {
            Flow::Stream(flow) => flow.held(),
            Flow::Datagrams(flow) => flow.held(),
        }
    }

    /// Whether nothing more is expected in it.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Flow::Stream(flow) => flow.is_closed(),
            Flow::Datagrams(_) => false,
        }
    }
}

/// The longer waiting of two.
pub(super) fn longest(a: Option<Waiting>, b: Option<Waiting>) -> Option<Waiting> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.since < a.since { b } else { a }),
        (a, b) => a.or(b),
    }
}

/// Capacity that an emptied queue may keep: enough for a busy flow's steady state. More is given back, so that one burst in each of
/// many flows does not hold memory for ever.
const KEPT_CAPACITY: usize = 64;

/// Gives back the memory of an emptied queue that had grown.
pub(super) fn trim<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() && queue.capacity() > KEPT_CAPACITY {
        queue.shrink_to(KEPT_CAPACITY);
    }
}
