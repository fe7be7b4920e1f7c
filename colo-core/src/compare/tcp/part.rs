//! A part of a segment as a segment of its own, as a card would have cut it.

use crate::net::checksum::{mend, sum};
use crate::net::ip::IpPacket;
use crate::net::wire::{Segment, TCP_CHECKSUM_AT, TCP_SEQ_AT, TcpEdit, TcpFlags};
use crate::net::{Frame, Offload};
use std::net::IpAddr;
use std::ops::Range;

/// Where a TCP header has its flags.
const FLAGS_AT: usize = 13;
/// What only the last part of a segment says: that it ends the stream, or a piece of work.
const OF_THE_LAST: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::PSH.0);

/// The segment's frame with only these bytes of its payload. A checksum that was wrong stays wrong by as much. `None` for a frame that
/// carries no segment.
pub(super) fn part_of(frame: &Frame, segment: &Segment, part: Range<usize>, is_last: bool) -> Option<(Frame, Segment)> {
    let packet = IpPacket::parse(frame)?;
    let payload = &frame[segment.payload_range()];
    let removed = payload.len() - part.len();
    let mut bytes = Vec::with_capacity(segment.payload_range().start + part.len());
    bytes.extend_from_slice(&frame[..segment.payload_range().start]);
    bytes.extend_from_slice(&payload[part.clone()]);
    shorten_ip(&mut bytes, &packet, removed)?;
    number_ip(&mut bytes, &packet, frame.offload, part.start);

    let at = segment.header_at() + TCP_CHECKSUM_AT;
    let checksum = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let length = u16::try_from(segment.payload_range().end - segment.header_at()).ok()?;
    let (old, new) = (length, length - u16::try_from(removed).ok()?);
    let checksum = if frame.offload.needs_checksum() {
        // It is the sum over the pseudo header, which has the length.
        !mend(!checksum, old, new)
    } else {
        mend(mend(checksum, old, new), sum(payload), sum(&payload[part.clone()]))
    };
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());

    let frame = Frame::from(bytes).with_offload(uncut_if_short(frame.offload, part.len()));
    let (segment, ..) = Segment::parse(&frame, &IpPacket::parse(&frame)?)?;
    let edit = TcpEdit::new(&frame, &segment);
    let frame = frame.edit(|bytes| {
        edit.put(bytes, TCP_SEQ_AT, &(segment.seq + part.start as u32).0.to_be_bytes());
        if !is_last {
            let flags = bytes[segment.header_at() + FLAGS_AT] & !OF_THE_LAST.0;
            edit.put(bytes, FLAGS_AT, &[flags]);
        }
    });
    let (segment, ..) = Segment::parse(&frame, &IpPacket::parse(&frame)?)?;
    Some((frame, segment))
}

fn shorten_ip(bytes: &mut [u8], packet: &IpPacket, removed: usize) -> Option<()> {
    let (at, whole) = match packet.source {
        IpAddr::V4(_) => (packet.at + 2, packet.end - packet.at),
        IpAddr::V6(_) => (packet.at + 4, packet.end - packet.at - 40),
    };
    put_ip(bytes, packet, at, u16::try_from(whole - removed).ok()?);
    Some(())
}

/// A card numbers the packets that it cuts, one after the other.
fn number_ip(bytes: &mut [u8], packet: &IpPacket, offload: Offload, start: usize) {
    if let (IpAddr::V4(_), Some(before)) = (packet.source, start.checked_div(usize::from(offload.gso_size))) {
        let at = packet.at + 4;
        let number = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        put_ip(bytes, packet, at, number.wrapping_add(before as u16));
    }
}

/// Puts a field into an IP header, of which only IPv4's has a checksum.
fn put_ip(bytes: &mut [u8], packet: &IpPacket, at: usize, field: u16) {
    let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
    if packet.source.is_ipv4() {
        let at = packet.at + 10;
        let checksum = mend(u16::from_be_bytes([bytes[at], bytes[at + 1]]), old, field);
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// What fits one packet is not to be cut any more.
fn uncut_if_short(offload: Offload, payload_bytes: usize) -> Offload {
    if payload_bytes > usize::from(offload.gso_size) {
        offload
    } else {
        Offload { gso_type: 0, gso_size: 0, ..offload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{CARRIERS, Tcp, carried};
    use proptest::prelude::*;

    fn segment(frame: &Frame) -> Segment {
        Segment::parse(frame, &IpPacket::parse(frame).unwrap()).unwrap().0
    }

    proptest! {
        #[test]
        fn parts_are_as_if_they_had_been_made_so(
            payload in proptest::collection::vec(any::<u8>(), 1..60),
            cut in 0usize..60,
            way in 0..CARRIERS,
            fin: bool,
        ) {
            let cut = cut.min(payload.len());
            let tcp = |seq: usize, payload: &[u8], fin: bool| {
                let tcp = Tcp::new(80, 4000).seq((u32::MAX - 9).wrapping_add(seq as u32)).ack(7).payload(payload);
                carried(way, &if fin { tcp.fin() } else { tcp }.frame())
            };
            let whole = tcp(0, &payload, fin);
            let (first, told) = part_of(&whole, &segment(&whole), 0..cut, false).unwrap();
            prop_assert_eq!(&first, &tcp(0, &payload[..cut], false));
            prop_assert_eq!(told, segment(&first));
            let (last, told) = part_of(&whole, &segment(&whole), cut..payload.len(), true).unwrap();
            prop_assert_eq!(&last, &tcp(cut, &payload[cut..], fin));
            prop_assert_eq!(told, segment(&last));
        }
    }

    #[test]
    fn what_a_card_is_to_do_is_left_for_it() {
        let offload =
            Offload { flags: 1, gso_type: 1, header_bytes: 54, gso_size: 10, checksum_start: 34, checksum_offset: 16 };
        // The sum over the pseudo header: addresses, protocol, length.
        let with_sum = |payload: &[u8], seq, identification| {
            let tcp = Tcp::new(80, 4000).seq(seq).ack(7).identification(identification).payload(payload);
            let tcp_bytes = 20 + payload.len() as u16;
            let pseudo = [&[10, 0, 0, 1, 10, 0, 0, 2, 0, 6][..], &tcp_bytes.to_be_bytes()].concat();
            tcp.frame().edit(|bytes| bytes[50..52].copy_from_slice(&sum(&pseudo).to_be_bytes()))
        };
        let whole = with_sum(&[7; 35], 100, 0xFFFE).with_offload(offload);
        let (first, _) = part_of(&whole, &segment(&whole), 0..25, false).unwrap();
        assert_eq!(first, with_sum(&[7; 25], 100, 0xFFFE).with_offload(offload));
        let (last, _) = part_of(&whole, &segment(&whole), 25..35, true).unwrap();
        let uncut = Offload { gso_type: 0, gso_size: 0, ..offload };
        assert_eq!(last, with_sum(&[7; 10], 125, 0).with_offload(uncut), "two packets came before it");
    }
}
