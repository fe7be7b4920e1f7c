//! What ICMP errors quote.

use super::*;
use crate::net::testing::{CLIENT_MAC, GUEST, GUEST_MAC, udp, with_extensions};
use etherparse::PacketBuilder;
use std::net::IpAddr;

const TOO_BIG_V4: (u8, u8) = (3, 4);
const TOO_BIG_V6: (u8, u8) = (2, 0);

/// Enough to be cut anywhere.
const PAYLOAD: [u8; 100] = [7; 100];

/// An ICMP message in the VLANs and over the protocol of the frame that it quotes, which ends after so many bytes of its payload. A
/// router is its sender; or the guest, if that was sent to the guest.
fn message((kind, code): (u8, u8), frame: &[u8], bytes: usize) -> Frame {
    let packet = IpPacket::parse(frame).unwrap();
    let quoted = &frame[packet.at..packet.payload_at + bytes];
    let (from, to) = if packet.destination == GUEST || packet.destination == guest_v6() {
        (GUEST_MAC, CLIENT_MAC)
    } else {
        (CLIENT_MAC, GUEST_MAC)
    };
    let builder = PacketBuilder::ethernet2(from.0, to.0);
    let mut message = Vec::new();
    let next_mtu = [0, 0, 5, 0];
    match packet.source {
        IpAddr::V4(source) => builder
            .ipv4([10, 0, 0, 99], source.octets(), 64)
            .icmpv4_raw(kind, code, next_mtu)
            .write(&mut message, quoted)
            .unwrap(),
        IpAddr::V6(source) => {
            let mut router = source.octets();
            router[15] = 99;
            builder
                .ipv6(router, source.octets(), 64)
                .icmpv6_raw(kind, code, next_mtu)
                .write(&mut message, quoted)
                .unwrap();
        }
    }
    // The tags stand behind the addresses.
    [&message[..12], &frame[12..packet.at - 2], &message[12..]].concat().into()
}

fn guest_v6() -> IpAddr {
    IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])
}

fn is_v4(way: usize) -> bool {
    way < 3
}

/// The same frame with another number at a place of the TCP header.
fn with_number(frame: &[u8], at: usize, number: u32) -> Frame {
    let at = IpPacket::parse(frame).unwrap().payload_at + at;
    [&frame[..at], &number.to_be_bytes(), &frame[at + 4..]].concat().into()
}

/// A connection whose guest counts from 300 where the primary's counted from 100, on a side that serves.
fn serving(way: usize) -> Rewriter {
    let mut rewriter = Rewriter::new();
    rewriter.handle_input(0, carried(way, &from_client().syn().seq(9).frame()));
    rewriter.handle_output(0, carried(way, &from_guest().syn().seq(300).ack(10).frame()));
    rewriter.handle_input(0, carried(way, &from_client().seq(10).ack(101).frame()));
    rewriter.go_live();
    rewriter
}

/// Without it the guest ignores that its segments are too big, and the connection hangs.
#[test]
fn an_error_quotes_the_number_that_the_guest_has_sent() {
    for way in 0..CARRIERS {
        let kinds =
            if is_v4(way) { [TOO_BIG_V4, (11, 0), (12, 1), (3, 1)] } else { [(1, 4), TOO_BIG_V6, (3, 0), (4, 2)] };
        let mut rewriter = serving(way);
        let sent = carried(way, &from_guest().seq(5000).ack(10).payload(&PAYLOAD).frame());
        let on_the_wire = rewriter.handle_output(0, sent.clone());
        assert_ne!(on_the_wire, sent);
        for kind in kinds {
            for bytes in [8, 11, 12, 20, 120] {
                // All but the number is as it was, and the checksum is what another implementation computes.
                let expected = message(kind, &with_number(&on_the_wire, TCP_SEQ_AT, 5000), bytes);
                let given = rewriter.handle_input(0, message(kind, &on_the_wire, bytes));
                assert_eq!(given, Some(expected), "way {way}, {kind:?}, {bytes} bytes");
            }
        }
        assert_eq!(rewriter.counters().inputs_rewritten, 1 + 4 * 5);
    }
}

#[test]
fn what_quotes_too_little_or_another_connection_stays() {
    for way in 0..CARRIERS {
        let kind = if is_v4(way) { TOO_BIG_V4 } else { TOO_BIG_V6 };
        let mut rewriter = serving(way);
        let sent = |port| carried(way, &Tcp::new(port, CLIENT_PORT).seq(4800).ack(10).payload(&PAYLOAD).frame());
        let mut messages: Vec<_> = (0..8).map(|bytes| message(kind, &sent(SERVER_PORT), bytes)).collect();
        messages.push(message(kind, &sent(81), 20));
        // No error: an echo, and what sends a guest another way.
        messages.push(message(if is_v4(way) { (8, 0) } else { (128, 0) }, &sent(SERVER_PORT), 20));
        messages.push(message(if is_v4(way) { (5, 0) } else { (137, 0) }, &sent(SERVER_PORT), 20));
        // The beginning of a segment is in another fragment.
        messages.push(message(kind, &fragments(&sent(SERVER_PORT), 40, 1)[1], 20));
        for message in messages {
            assert_eq!(rewriter.handle_input(0, message.clone()), Some(message));
        }
        let known = message(kind, &sent(SERVER_PORT), 20);
        assert_eq!(rewriter.handle_input(1, known.clone()), Some(known), "another card is another network");
        assert_eq!(rewriter.counters().inputs_rewritten, 1);
    }
    let mut rewriter = serving(0);
    let quoting_udp = message(TOO_BIG_V4, &udp(SERVER_PORT, CLIENT_PORT, &PAYLOAD), 20);
    assert_eq!(rewriter.handle_input(0, quoting_udp.clone()), Some(quoting_udp));
}

#[test]
fn a_quotation_that_is_malformed_stays() {
    let mut rewriter = serving(0);
    let error = message(TOO_BIG_V4, &from_guest().seq(4800).ack(10).payload(&PAYLOAD).frame(), 20);
    // Behind Ethernet, IP and ICMP: another version, a header beyond what is quoted, a length that does not cover it.
    for (at, byte) in [(42, 0x65), (42, 0x4F), (42, 0x44), (45, 27)] {
        let mut bytes = error.to_vec();
        bytes[at] = byte;
        bytes[44] = 0;
        let malformed = Frame::from(bytes);
        assert_eq!(rewriter.handle_input(0, malformed.clone()), Some(malformed), "{byte:x} at {at}");
    }
}

#[test]
fn the_quoted_number_is_looked_for_behind_extension_headers() {
    let mut rewriter = serving(3);
    let sent = |seq| {
        let frame = carried(3, &from_guest().seq(seq).ack(10).payload(&PAYLOAD).frame());
        with_extensions(&frame, &[(60, vec![0; 8]), (44, vec![0, 0, 0, 0, 1, 2, 3, 4])])
    };
    // With the same checksum, which is of other numbers.
    let on_the_wire = with_number(&sent(5000), TCP_SEQ_AT, 4800);
    let given = rewriter.handle_input(0, message(TOO_BIG_V6, &on_the_wire, 8));
    assert_eq!(given, Some(message(TOO_BIG_V6, &sent(5000), 8)));
    // Cut off within them.
    let short = message(TOO_BIG_V6, &carried(3, &from_guest().seq(4800).frame()), 8);
    let mut short = short.to_vec();
    short[14 + 40 + 8 + 6] = 60;
    let short = Frame::from(short);
    assert_eq!(rewriter.handle_input(0, short.clone()), Some(short));
}

/// Both guests refuse what the client sends, each in its own numbers.
#[test]
fn an_error_of_the_guest_quotes_what_the_client_has_acknowledged() {
    for way in 0..CARRIERS {
        let kind = if is_v4(way) { (3, 3) } else { (1, 4) };
        let mut rewriter = serving(way);
        let sent = carried(way, &from_client().seq(10).ack(150).payload(&PAYLOAD).frame());
        let heard = rewriter.handle_input(0, sent.clone()).unwrap();
        for bytes in [12, 13, 20, 120] {
            let expected = message(kind, &with_number(&heard, TCP_ACK_AT, 150), bytes);
            assert_eq!(rewriter.handle_output(0, message(kind, &heard, bytes)), expected, "way {way}, {bytes} bytes");
        }
        let too_short = message(kind, &heard, 11);
        assert_eq!(rewriter.handle_output(0, too_short.clone()), too_short);
        let no_ack = message(kind, &carried(way, &from_client().syn().seq(9).frame()), 20);
        assert_eq!(rewriter.handle_output(0, no_ack.clone()), no_ack);
    }
}

/// The sum that a card is to complete is of nothing yet.
#[test]
fn a_checksum_that_a_card_completes_stays() {
    let mut rewriter = serving(0);
    let offload = Offload { flags: 1, checksum_start: 34, checksum_offset: 2, ..Offload::default() };
    let error = message(TOO_BIG_V4, &from_guest().seq(4800).ack(10).payload(&PAYLOAD).frame(), 8);
    let given = rewriter.handle_input(0, error.clone().with_offload(offload)).unwrap();
    assert_eq!((&given[..66], &given[66..70]), (&error[..66], &5000u32.to_be_bytes()[..]));
}

proptest! {
    /// Errors that quote arbitrary bytes reach the code behind the parser.
    #[test]
    fn arbitrary_quotations_do_not_panic(
        quotations in prop::collection::vec((any::<u8>(), prop::bool::ANY, prop::collection::vec(any::<u8>(), 0..60), 0..60usize), 0..40)
    ) {
        let mut data = Vec::new();
        let mut put = |side: u8, frame: &[u8]| {
            data.extend_from_slice(&[side, frame.len() as u8]);
            data.extend_from_slice(frame);
        };
        for (side, v4, bytes, kept) in quotations {
            let (way, kind) = if v4 { (0, TOO_BIG_V4) } else { (3, TOO_BIG_V6) };
            for (side, tcp) in [(0, from_client().syn().seq(9)), (7, from_guest().syn().seq(300).ack(10)), (0, from_client().seq(10).ack(101))] {
                put(side, &carried(way, &tcp.frame()));
            }
            let mut error = message(kind, &carried(way, &from_guest().seq(4800).ack(10).payload(&PAYLOAD[..60]).frame()), 60).to_vec();
            let at = error.len() - bytes.len() - kept.min(error.len() - bytes.len() - 54);
            error[at..at + bytes.len()].copy_from_slice(&bytes);
            put(side % 14, &error);
        }
        fuzz(&data);
    }
}
