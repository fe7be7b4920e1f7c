//! A frame as a list of its headers' fields, each with its name and its place.

use crate::net::ip::{IpPacket, Network};
use crate::net::wire::{ETHERTYPE_ARP, ETHERTYPE_IPV4, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// A field of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Field {
    pub(super) protocol: &'static str,
    pub(super) name: &'static str,
    /// Which bits of the frame it is.
    bits: Range<usize>,
    show: Show,
    pub(super) class: Class,
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Show {
    Number,
    /// With two digits for a byte.
    Hex,
    Mac,
    V4,
    V6,
    /// Any number of bytes, compared one by one.
    Bytes,
}

/// Whether a difference is a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Compared,
    /// Follows from something else, and is a reason only if nothing else differs.
    Derived,
    Ignored,
}
use Class::{Compared, Derived, Ignored};
use Show::{Bytes, Hex, Mac, Number, V4, V6};

impl Field {
    /// Where it begins, in bytes from the start of the frame.
    pub(super) fn at(&self) -> usize {
        self.bits.start / 8
    }

    /// Whether it is as long as it happens to be, such as a payload.
    pub(super) fn is_bytes(&self) -> bool {
        self.show == Bytes
    }

    /// Whether a byte of the frame is in it, or a part of that byte.
    pub(super) fn covers(&self, at: usize) -> bool {
        (self.at()..self.bits.end.div_ceil(8)).contains(&at)
    }

    /// Whether a frame is long enough to have it in the same place.
    pub(super) fn fits(&self, frame: &[u8]) -> bool {
        self.bits.end <= frame.len() * 8
    }

    /// Its bytes in the frame that this was made from, or another that it [fits](Self::fits).
    pub(super) fn bytes<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.at()..self.bits.end.div_ceil(8)]
    }

    /// Its bits in the frame that this was made from, as a number. 0 when it has more than a number has.
    pub(super) fn number(&self, frame: &[u8]) -> u128 {
        if self.bits.len() > 128 {
            return 0;
        }
        self.bits.clone().fold(0, |value, bit| value << 1 | u128::from(frame[bit / 8] >> (7 - bit % 8) & 1))
    }

    /// Its value in the frame that this was made from.
    pub(super) fn value(&self, frame: &[u8]) -> String {
        let number = self.number(frame);
        match self.show {
            Number => number.to_string(),
            Hex => format!("{number:#0width$x}", width = 2 + self.bits.len().div_ceil(4)),
            Mac => self.bytes(frame).iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
            V4 => Ipv4Addr::from(number as u32).to_string(),
            V6 => Ipv6Addr::from(number).to_string(),
            Bytes => format!("{} bytes", self.bits.len() / 8),
        }
    }
}

/// The fields of a frame, in order. They cover all of it.
pub(super) fn fields(frame: &[u8]) -> Vec<Field> {
    let mut walk = Walk { fields: Vec::new(), protocol: "Ethernet", bit: 0 };
    let Some(network) = Network::parse(frame) else {
        walk.rest("payload", frame.len());
        return walk.fields;
    };
    walk.layout(&[("destination", 48, Mac, Compared), ("source", 48, Mac, Compared)]);
    const TYPE: Spec = ("type", 16, Hex, Compared);
    const TAG: [Spec; 3] =
        [("priority", 3, Number, Compared), ("drop eligible", 1, Number, Compared), ("VLAN", 12, Number, Compared)];
    walk.layout(&[TYPE]);
    while walk.at() < network.at {
        walk.protocol = "VLAN";
        walk.layout(&TAG);
        walk.protocol = "Ethernet";
        walk.layout(&[TYPE]);
    }
    match IpPacket::parse(frame) {
        Some(packet) => walk.ip(frame, &packet, network.ethertype == ETHERTYPE_IPV4),
        None if network.ethertype == ETHERTYPE_ARP => walk.arp(frame),
        None => walk.rest("payload", frame.len()),
    }
    walk.fields
}

/// Name, bits, how it is written, whether it counts.
type Spec = (&'static str, usize, Show, Class);

const IPV4: [Spec; 15] = [
    ("version", 4, Number, Compared),
    ("header length", 4, Number, Derived),
    ("DSCP", 6, Number, Compared),
    ("ECN", 2, Number, Compared),
    ("total length", 16, Number, Derived),
    ("identification", 16, Hex, Ignored),
    ("reserved flag", 1, Number, Compared),
    ("don't fragment", 1, Number, Compared),
    ("more fragments", 1, Number, Compared),
    ("fragment offset", 13, Number, Compared),
    ("TTL", 8, Number, Compared),
    ("protocol", 8, Number, Compared),
    ("header checksum", 16, Hex, Ignored),
    ("source", 32, V4, Compared),
    ("destination", 32, V4, Compared),
];

const IPV6: [Spec; 9] = [
    ("version", 4, Number, Compared),
    ("DSCP", 6, Number, Compared),
    ("ECN", 2, Number, Compared),
    ("flow label", 20, Hex, Ignored),
    ("payload length", 16, Number, Derived),
    ("next header", 8, Number, Compared),
    ("hop limit", 8, Number, Compared),
    ("source", 128, V6, Compared),
    ("destination", 128, V6, Compared),
];

const IPV6_FRAGMENT: [Spec; 6] = [
    ("next header", 8, Number, Compared),
    ("reserved", 8, Hex, Compared),
    ("fragment offset", 13, Number, Compared),
    ("reserved", 2, Number, Compared),
    ("more fragments", 1, Number, Compared),
    ("identification", 32, Hex, Ignored),
];

const UDP: [Spec; 4] = [
    ("source port", 16, Number, Compared),
    ("destination port", 16, Number, Compared),
    ("length", 16, Number, Derived),
    ("checksum", 16, Hex, Ignored),
];

const TCP: [Spec; 16] = [
    ("source port", 16, Number, Compared),
    ("destination port", 16, Number, Compared),
    ("sequence number", 32, Number, Compared),
    ("acknowledgement number", 32, Number, Compared),
    ("header length", 4, Number, Derived),
    ("reserved bits", 4, Number, Compared),
    ("CWR", 1, Number, Compared),
    ("ECE", 1, Number, Compared),
    ("URG", 1, Number, Compared),
    ("ACK", 1, Number, Compared),
    ("PSH", 1, Number, Compared),
    ("RST", 1, Number, Compared),
    ("SYN", 1, Number, Compared),
    ("FIN", 1, Number, Compared),
    ("window", 16, Number, Compared),
    ("checksum", 16, Hex, Derived),
];
const URGENT: Spec = ("urgent pointer", 16, Number, Compared);
const TCP_BYTES: usize = 20;

const MESSAGE: [Spec; 2] = [("type", 8, Number, Compared), ("code", 8, Number, Compared)];
const ECHO: [Spec; 3] =
    [("checksum", 16, Hex, Ignored), ("identifier", 16, Number, Compared), ("sequence number", 16, Number, Compared)];
const NO_ECHO: [Spec; 2] = [("checksum", 16, Hex, Derived), ("rest of the header", 32, Hex, Compared)];
const NEIGHBOUR: [Spec; 1] = [("target", 128, V6, Compared)];

const ARP: [Spec; 9] = [
    ("hardware type", 16, Number, Compared),
    ("protocol type", 16, Hex, Compared),
    ("hardware address length", 8, Number, Compared),
    ("protocol address length", 8, Number, Compared),
    ("operation", 16, Number, Compared),
    ("sender hardware address", 48, Mac, Compared),
    ("sender address", 32, V4, Compared),
    ("target hardware address", 48, Mac, Compared),
    ("target address", 32, V4, Compared),
];

struct Walk {
    fields: Vec<Field>,
    protocol: &'static str,
    bit: usize,
}

impl Walk {
    fn at(&self) -> usize {
        self.bit / 8
    }

    fn layout(&mut self, specs: &[Spec]) {
        for &(name, bits, show, class) in specs {
            let bits = self.bit..self.bit + bits;
            self.bit = bits.end;
            self.fields.push(Field { protocol: self.protocol, name, bits, show, class });
        }
    }

    /// Everything up to there, in bytes from the start of the frame, as one field.
    fn rest(&mut self, name: &'static str, end: usize) {
        self.layout(&[(name, end * 8 - self.bit, Bytes, Compared)]);
    }

    fn arp(&mut self, frame: &[u8]) {
        const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
        const BYTES: usize = 28;
        self.protocol = "ARP";
        let arp = &frame[self.at()..];
        if arp.len() >= BYTES && arp.starts_with(&ETHERNET_AND_IPV4) {
            self.layout(&ARP);
            // The comparator looks at whole frames here.
            self.layout(&[("padding", frame.len() * 8 - self.bit, Bytes, Derived)]);
        } else {
            self.rest("payload", frame.len());
        }
    }

    fn ip(&mut self, frame: &[u8], packet: &IpPacket, is_v4: bool) {
        let protocol = if is_v4 { "IPv4" } else { "IPv6" };
        self.protocol = protocol;
        if is_v4 {
            self.layout(&IPV4);
            self.rest("options", packet.payload_at);
        } else {
            self.layout(&IPV6);
            self.extensions(frame, packet);
        }
        let payload = packet.payload(frame);
        match (packet.protocol, payload.len()) {
            _ if packet.fragment.is_some() => {}
            // Its length is one that the comparator believes.
            (PROTOCOL_UDP, 8..) if usize::from(u16::from_be_bytes([payload[4], payload[5]])) == payload.len() => {
                self.protocol = "UDP";
                self.layout(&UDP);
            }
            (PROTOCOL_TCP, TCP_BYTES..) => self.tcp(payload),
            (PROTOCOL_ICMP, 8..) if is_v4 => self.message("ICMP", matches!(payload[0], 0 | 8), false),
            (PROTOCOL_ICMPV6, 8..) if !is_v4 => {
                // Neighbour solicitation and advertisement.
                let has_target = matches!(payload[0], 135 | 136) && payload.len() >= 24;
                self.message("ICMPv6", matches!(payload[0], 128 | 129), has_target);
            }
            _ => {}
        }
        self.rest("payload", packet.end);
        self.protocol = protocol;
        self.layout(&[("padding", frame.len() * 8 - self.bit, Bytes, Ignored)]);
    }

    /// IPv6's extension headers, up to the payload.
    fn extensions(&mut self, frame: &[u8], packet: &IpPacket) {
        if let Some(at) = packet.fragment_at {
            self.rest("extension headers", at);
            self.layout(&IPV6_FRAGMENT);
        }
        self.rest("extension headers", packet.payload_at);
        debug_assert!(packet.payload_at <= frame.len());
    }

    fn tcp(&mut self, payload: &[u8]) {
        let header_bytes = usize::from(payload[12] >> 4) * 4;
        if !(TCP_BYTES..=payload.len()).contains(&header_bytes) {
            return;
        }
        self.protocol = "TCP";
        let end = self.at() + header_bytes;
        self.layout(&TCP);
        self.layout(&[URGENT]);
        self.rest("options", end);
    }

    fn message(&mut self, protocol: &'static str, is_echo: bool, has_target: bool) {
        self.protocol = protocol;
        self.layout(&MESSAGE);
        self.layout(if is_echo { &ECHO } else { &NO_ECHO });
        if has_target {
            self.layout(&NEIGHBOUR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{Tcp, arp_request, echo_reply, echo_reply6, tagged, udp, udp6, with_extensions};
    use proptest::prelude::*;

    /// No bit is left out, and none is in two fields.
    fn check(frame: &[u8]) {
        let mut bit = 0;
        for field in fields(frame) {
            assert_eq!(field.bits.start, bit, "{field:?}");
            bit = field.bits.end;
            let _ = field.value(frame);
        }
        assert_eq!(bit, frame.len() * 8);
    }

    fn value(frame: &[u8], protocol: &str, name: &str) -> String {
        let found = fields(frame).into_iter().find(|field| field.protocol == protocol && field.name == name);
        found.unwrap_or_else(|| panic!("{protocol} {name}")).value(frame)
    }

    #[test]
    fn fields_have_the_values_that_were_put_in() {
        let frame = udp(53, 4000, b"answer");
        check(&frame);
        assert_eq!(value(&frame, "Ethernet", "source"), "02:00:00:00:00:01");
        assert_eq!(value(&frame, "Ethernet", "type"), "0x0800");
        assert_eq!((value(&frame, "IPv4", "TTL"), value(&frame, "IPv4", "source")), ("64".into(), "10.0.0.1".into()));
        assert_eq!(
            (value(&frame, "UDP", "source port"), value(&frame, "UDP", "payload")),
            ("53".into(), "6 bytes".into())
        );

        let frame = tagged(&udp6(53, 4000, b"answer"), &[(0x88A8, 0xE007), (0x8100, 5)]);
        check(&frame);
        assert_eq!((value(&frame, "VLAN", "priority"), value(&frame, "VLAN", "VLAN")), ("7".into(), "7".into()));
        assert_eq!(
            (value(&frame, "IPv6", "hop limit"), value(&frame, "IPv6", "destination")),
            ("64".into(), "::2".into())
        );

        let frame =
            with_extensions(&frame_6(), &[(0, vec![0, 0, 1, 4, 0, 0, 0, 0]), (44, vec![0, 0, 0, 9, 1, 2, 3, 4])]);
        check(&frame);
        assert_eq!(value(&frame, "IPv6", "fragment offset"), "1");
        assert_eq!(value(&frame, "IPv6", "more fragments"), "1");

        let frame = Tcp::new(80, 4000).seq(7).ack(9).window(100).urgent(3).options(&[1, 1, 1, 0]).payload(b"x").frame();
        check(&frame);
        let tcp = |name| value(&frame, "TCP", name);
        assert_eq!(
            (tcp("sequence number"), tcp("window"), tcp("urgent pointer")),
            ("7".into(), "100".into(), "3".into())
        );
        assert_eq!((tcp("ACK"), tcp("URG"), tcp("FIN")), ("1".into(), "1".into(), "0".into()));
        assert_eq!((tcp("options"), tcp("payload")), ("4 bytes".into(), "1 bytes".into()));

        for (frame, protocol) in [(echo_reply(7, 8, b"ping"), "ICMP"), (echo_reply6(7, 8, b"ping"), "ICMPv6")] {
            check(&frame);
            assert_eq!(
                (value(&frame, protocol, "identifier"), value(&frame, protocol, "sequence number")),
                ("7".into(), "8".into())
            );
        }
        let frame = arp_request(Ipv4Addr::new(10, 0, 0, 9));
        check(&frame);
        assert_eq!(
            (value(&frame, "ARP", "operation"), value(&frame, "ARP", "target address")),
            ("1".into(), "10.0.0.9".into())
        );
    }

    fn frame_6() -> Vec<u8> {
        udp6(53, 4000, b"answer").to_vec()
    }

    proptest! {
        #[test]
        fn arbitrary_frames_are_covered(mut frame in prop::collection::vec(any::<u8>(), 0..120), shape in 0..4u8) {
            let good: &[u8] = match shape {
                0 => &[],
                1 => &udp(1, 2, &[0; 40]),
                2 => &Tcp::new(1, 2).payload(&[0; 40]).frame(),
                _ => &echo_reply6(1, 2, &[0; 40]),
            };
            // Right where it decides on the shape, and arbitrary elsewhere.
            let kept = good.len().min(frame.len()).min(24);
            frame[..kept].copy_from_slice(&good[..kept]);
            check(&frame);
            for at in 0..good.len().min(frame.len()) {
                let mut changed = good.to_vec();
                changed[at] = frame[at];
                check(&changed);
            }
        }
    }
}
