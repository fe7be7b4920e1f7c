//! The TCP segments that ICMP errors quote.
//!
//! An error (RFC 792 types 3, 11 and 12; RFC 4443 types 1 to 4) quotes the beginning of the packet that it is about: at least the first
//! 8 bytes behind an IPv4 header, which end with the sequence number, and as much as fits over IPv6. The sender of that packet
//! compares the number with what it has under way, and does not believe the error when it does not fit (RFC 5927 §4): a guest whose numbers are
//! moved must find its own.
//!
//! Only that number is moved. The quoted checksum stays as it is: nobody can verify it, as the segment is seldom quoted as a whole.

use super::super::ip::{IpPacket, Vlans};
use super::super::wire::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, TCP_ACK_AT, TCP_SEQ_AT};
use super::super::{Frame, Seq, checksum};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

/// Where an error has its checksum, and where its quotation begins: the same in RFC 792 and in RFC 4443.
const CHECKSUM_AT: usize = 2;
const QUOTATION_AT: usize = 8;

/// The fewest bytes of a TCP header that are of use: its ports and its sequence number.
const MIN_QUOTED_BYTES: usize = 8;

/// Where a TCP header has its control bits (RFC 9293 §3.1), and that of a header whose acknowledgement counts.
const TCP_FLAGS_AT: usize = 13;
const TCP_ACK_FLAG: u8 = 16;

/// An ICMP error that quotes a TCP segment.
pub(super) struct Quotation {
    pub(super) vlans: Vlans,
    /// Who sent the segment, and to whom.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// Where the ICMP message is in the frame, and what is quoted of the segment.
    message: Range<usize>,
    segment: Range<usize>,
}

impl Quotation {
    /// `None` when it is no such error, or one that is malformed or quotes too little.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let packet = IpPacket::parse(frame)?;
        let message = packet.payload(frame);
        let is_error = match (packet.source, packet.protocol, *message.first()?) {
            (IpAddr::V4(_), PROTOCOL_ICMP, kind) => matches!(kind, 3 | 11 | 12),
            (IpAddr::V6(_), PROTOCOL_ICMPV6, kind) => matches!(kind, 1..=4),
            _ => false,
        };
        if !is_error || packet.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return None;
        }
        let quoted = IpPacket::parse_quoted(&frame[..packet.end], &packet, packet.payload_at + QUOTATION_AT)?;
        let tcp = quoted.payload(frame);
        let is_beginning = quoted.fragment.is_none_or(|fragment| fragment.offset == 0);
        if quoted.protocol != PROTOCOL_TCP || !is_beginning || tcp.len() < MIN_QUOTED_BYTES {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        Some(Quotation {
            vlans: packet.vlans,
            source: SocketAddr::new(quoted.source, port(0)),
            destination: SocketAddr::new(quoted.destination, port(2)),
            message: packet.payload_at..packet.end,
            segment: quoted.payload_at..quoted.end,
        })
    }

    /// The frame with the quoted sequence number moved by so much.
    pub(super) fn move_seq(&self, frame: Frame, by: u32) -> Frame {
        self.move_number(frame, TCP_SEQ_AT, by)
    }

    /// The same for the quoted acknowledgement number, which must be quoted.
    pub(super) fn move_ack(&self, frame: Frame, by: u32) -> Frame {
        self.move_number(frame, TCP_ACK_AT, by)
    }

    /// Whether the acknowledgement number is quoted, and counts.
    pub(super) fn has_ack(&self, frame: &[u8]) -> bool {
        let tcp = &frame[self.segment.clone()];
        // When the control bits are not quoted, it is a segment of a connection that stands, and those acknowledge.
        tcp.len() >= TCP_ACK_AT + 4 && tcp.get(TCP_FLAGS_AT).is_none_or(|flags| flags & TCP_ACK_FLAG != 0)
    }

    fn move_number(&self, frame: Frame, field_at: usize, by: u32) -> Frame {
        let at = self.segment.start + field_at;
        let is_summed = !frame.offload.needs_checksum();
        frame.edit(|bytes| {
            let field = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            let moved = (Seq(u32::from_be_bytes(field)) + by).to_be_bytes();
            if is_summed {
                // ICMPv6's covers addresses, too, which stay.
                let message = &mut bytes[self.message.clone()];
                checksum::replace(message, at - self.message.start, &moved, CHECKSUM_AT);
            } else {
                bytes[at..at + moved.len()].copy_from_slice(&moved);
            }
        })
    }
}
