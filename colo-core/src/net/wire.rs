//! What the comparator and the rewriter read of a frame's headers.
//!
//! The parsers accept only frames that say one thing: every length fits, nothing is truncated, nothing but Ethernet's padding
//! follows the packet. `None` means "treat it as opaque bytes", never an error: the frame may make sense to somebody else.

use super::ip::IpPacket;
use super::{Frame, Seq, checksum};
use etherparse::TcpHeaderSlice;
use std::fmt;
use std::ops::Range;

/// The shortest frame on a wire, without its checksum (IEEE 802.3): shorter ones are padded up to this length.
pub(crate) const MIN_WIRE_FRAME_BYTES: usize = 60;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;

pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_IGMP: u8 = 2;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_UDP: u8 = 17;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;

/// Where a TCP header (RFC 9293 §3.1) has its fields, in bytes from its start.
pub(crate) const TCP_SEQ_AT: usize = 4;
pub(crate) const TCP_ACK_AT: usize = 8;
pub(crate) const TCP_WINDOW_AT: usize = 14;
pub(crate) const TCP_CHECKSUM_AT: usize = 16;
const TCP_OPTIONS_AT: usize = 20;

/// A TCP segment in an IP packet (RFC 9293 §3.1), with its places in the frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) seq: Seq,
    /// `None` when the ACK flag is not set: the field means nothing then.
    pub(crate) ack: Option<Seq>,
    pub(crate) flags: TcpFlags,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    header_at: u16,
    header_bytes: u8,
    payload_bytes: u32,
}

impl Segment {
    /// Reads the segment and its ports (source, destination).
    #[inline(always)]
    pub(crate) fn parse(frame: &[u8], packet: &IpPacket) -> Option<(Self, u16, u16)> {
        if packet.fragment.is_some() {
            return None;
        }
        Self::parse_beginning(frame, packet)
    }

    /// The same for a segment of which the packet may be the first fragment, if it has the whole header; the rest of the payload is in
    /// others then.
    #[inline(always)]
    pub(crate) fn parse_beginning(frame: &[u8], packet: &IpPacket) -> Option<(Self, u16, u16)> {
        if packet.protocol != PROTOCOL_TCP || packet.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return None;
        }
        let header = TcpHeaderSlice::from_slice(packet.payload(frame)).ok()?;
        let header_bytes = header.slice().len();
        let flags = TcpFlags(header.slice()[13]);
        let segment = Segment {
            seq: Seq(header.sequence_number()),
            ack: header.ack().then(|| Seq(header.acknowledgment_number())),
            flags,
            window: header.window_size(),
            urgent: header.urgent_pointer(),
            header_at: u16::try_from(packet.payload_at).ok()?,
            header_bytes: u8::try_from(header_bytes).ok()?,
            payload_bytes: u32::try_from(packet.end - packet.payload_at - header_bytes).ok()?,
        };
        Some((segment, header.source_port(), header.destination_port()))
    }

    pub(crate) fn has(&self, flag: TcpFlags) -> bool {
        self.flags.contains(flag)
    }

    /// Whether it says nothing but bytes and an acknowledgement.
    pub(crate) fn is_plain(&self) -> bool {
        const OTHER: u8 = TcpFlags::FIN.0 | TcpFlags::SYN.0 | TcpFlags::RST.0 | TcpFlags::URG.0;
        self.flags.0 & OTHER == 0
    }

    /// Where the TCP header begins in the frame.
    pub(crate) fn header_at(&self) -> usize {
        usize::from(self.header_at)
    }

    /// Where the payload lies in the frame.
    pub(crate) fn payload_range(&self) -> Range<usize> {
        let start = self.header_at() + usize::from(self.header_bytes);
        start..start + self.payload_bytes as usize
    }

    pub(crate) fn payload_bytes(&self) -> u32 {
        self.payload_bytes
    }

    /// The options, from the frame that this was parsed from; each with its place in the TCP header.
    pub(crate) fn options<'a>(&self, frame: &'a [u8]) -> TcpOptions<'a> {
        let header = &frame[self.header_at()..self.payload_range().start];
        TcpOptions { header, at: TCP_OPTIONS_AT }
    }
}

/// Changes fields of a TCP header, and mends its checksum.
pub(crate) struct TcpEdit {
    tcp: Range<usize>,
    /// Whether the checksum covers the fields already: else a card will see to it.
    is_summed: bool,
}

impl TcpEdit {
    pub(crate) fn new(frame: &Frame, segment: &Segment) -> Self {
        TcpEdit { tcp: segment.header_at()..segment.payload_range().end, is_summed: !frame.offload.needs_checksum() }
    }

    /// Puts a field in its place, counted from the start of the header.
    pub(crate) fn put(&self, frame: &mut [u8], at: usize, field: &[u8]) {
        let tcp = &mut frame[self.tcp.clone()];
        if self.is_summed {
            checksum::replace(tcp, at, field, TCP_CHECKSUM_AT);
        } else {
            tcp[at..at + field.len()].copy_from_slice(field);
        }
    }
}

/// The control bits of a TCP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct TcpFlags(pub(crate) u8);

impl TcpFlags {
    pub(crate) const FIN: TcpFlags = TcpFlags(1);
    pub(crate) const SYN: TcpFlags = TcpFlags(2);
    pub(crate) const RST: TcpFlags = TcpFlags(4);
    pub(crate) const PSH: TcpFlags = TcpFlags(8);
    pub(crate) const URG: TcpFlags = TcpFlags(32);

    pub(crate) const fn contains(self, other: TcpFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A TCP option (RFC 9293 §3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpOption<'a> {
    pub(crate) kind: u8,
    /// Where its data begin, in bytes from the start of the TCP header.
    pub(crate) data_at: usize,
    pub(crate) data: &'a [u8],
}

impl TcpOption<'_> {
    /// How far windows are shifted (RFC 7323).
    pub(crate) const WINDOW_SCALE: u8 = 3;
    /// Selective acknowledgements: pairs of sequence numbers (RFC 2018).
    pub(crate) const SACK: u8 = 5;
    /// The sender's clock and the last one heard (RFC 7323).
    pub(crate) const TIMESTAMPS: u8 = 8;
}

impl fmt::Debug for TcpOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option {} at {}: {:02x?}", self.kind, self.data_at, self.data)
    }
}

/// Walks over the options, without the padding between them. Ends early at one whose length lies.
pub(crate) struct TcpOptions<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Iterator for TcpOptions<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        while *self.header.get(self.at)? == NO_OPERATION {
            self.at += 1;
        }
        let kind = self.header[self.at];
        if kind == END {
            self.at = self.header.len();
            return None;
        }
        let bytes = usize::from(*self.header.get(self.at + 1)?);
        let data_at = self.at + 2;
        // A length below 2 would not even cover itself, and loop for ever.
        let Some(data) = self.header.get(data_at..self.at + bytes.max(2)).filter(|_| bytes >= 2) else {
            self.at = self.header.len();
            return None;
        };
        self.at += bytes;
        Some(TcpOption { kind, data_at, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::Tcp;
    use proptest::prelude::*;

    fn parse(frame: &[u8]) -> Option<Segment> {
        let packet = IpPacket::parse(frame)?;
        Some(Segment::parse(frame, &packet)?.0)
    }

    #[test]
    fn reads_a_segment() {
        let frame = Tcp::new(4000, 80).seq(7).ack(9).payload(b"hello").frame();
        let segment = parse(&frame).unwrap();
        assert_eq!((segment.seq, segment.ack), (Seq(7), Some(Seq(9))));
        assert_eq!(&frame[segment.payload_range()], b"hello");
        assert!(!segment.has(TcpFlags::SYN));
    }

    #[test]
    fn padding_is_not_payload_but_a_hidden_tail_is_refused() {
        let mut frame = Tcp::new(4000, 80).ack(1).frame().to_vec();
        assert!(frame.len() < MIN_WIRE_FRAME_BYTES);
        frame.resize(MIN_WIRE_FRAME_BYTES, 0xaa);
        assert_eq!(parse(&frame).unwrap().payload_bytes(), 0);
        frame.push(0);
        assert_eq!(parse(&frame), None);
    }

    #[test]
    fn every_truncation_is_refused() {
        let frame = Tcp::new(4000, 80).ack(1).payload(b"hello").frame();
        for bytes in 0..frame.len() {
            assert_eq!(parse(&frame[..bytes]), None, "{bytes} bytes");
        }
    }

    #[test]
    fn options_that_lie_end_the_walk() {
        let walk = |options: &[u8]| {
            let mut header = vec![0; TCP_OPTIONS_AT];
            header.extend_from_slice(options);
            TcpOptions { header: &header, at: TCP_OPTIONS_AT }.map(|o| (o.kind, o.data.len())).collect::<Vec<_>>()
        };
        assert_eq!(walk(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]), [(8, 8)]);
        assert_eq!(walk(&[2, 4, 5, 0xb4, 0, 3, 3, 7]), [(2, 2)]);
        assert_eq!(walk(&[3, 0, 3, 3]), []);
        assert_eq!(walk(&[3, 1, 3, 3]), []);
        assert_eq!(walk(&[5, 18, 0, 0]), []);
        assert_eq!(walk(&[5]), []);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(mut frame in proptest::collection::vec(any::<u8>(), 0..200), ipv4: bool) {
            if ipv4 && frame.len() > 23 {
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
                let total = (frame.len() - 14) as u16;
                frame[16..18].copy_from_slice(&total.to_be_bytes());
                frame[20..22].fill(0);
                frame[23] = PROTOCOL_TCP;
            }
            if let Some(segment) = parse(&frame) {
                prop_assert!(segment.payload_range().end <= frame.len());
                prop_assert!(segment.options(&frame).count() <= 20);
            }
        }
    }
}
