//! A frame in words.

use super::fields::{Field, fields};
use crate::compare::{FlowKey, FlowKind};
use crate::net::ip::IpPacket;
use crate::net::wire::{Segment, TcpFlags};

/// How many bytes of a payload are shown.
const SHOWN_BYTES: usize = 24;

/// The protocol of the innermost header that is understood.
pub(super) fn protocol(frame: &[u8]) -> &'static str {
    fields(frame).iter().rev().find(|field| field.name != "padding").map_or("Ethernet", |field| field.protocol)
}

/// What it is, between whom, and how its payload begins.
pub(super) fn frame(frame: &[u8]) -> String {
    let kind = FlowKey::of(0, frame).kind;
    let mut text = kind.to_string();
    if let (FlowKind::Tcp { .. }, Some(packet)) = (kind, IpPacket::parse(frame)) {
        if let Some((segment, _, _)) = Segment::parse(frame, &packet) {
            text += &segment_text(&segment);
        }
    }
    let fields = fields(frame);
    let value = |name: &str| fields.iter().find(|field| field.name == name).map(|field| field.value(frame));
    match kind {
        FlowKind::Echo { .. } => text += &format!(", sequence number {}", value("sequence number").unwrap_or_default()),
        FlowKind::Ip { .. } if protocol(frame).starts_with("ICMP") => {
            text +=
                &format!(", type {}, code {}", value("type").unwrap_or_default(), value("code").unwrap_or_default());
        }
        FlowKind::Arp { .. } => text += &format!(", operation {}", value("operation").unwrap_or_default()),
        _ => {}
    }
    let payload = payload(&fields).map(|field| field.bytes(frame)).unwrap_or_default();
    if !payload.is_empty() {
        text += &format!(", {}", bytes(payload));
    }
    text
}

/// Flags and numbers of a segment.
fn segment_text(segment: &Segment) -> String {
    let flags = [(TcpFlags::SYN, "SYN"), (TcpFlags::FIN, "FIN"), (TcpFlags::RST, "RST"), (TcpFlags::URG, "URG")];
    let flags = flags.iter().filter(|(flag, _)| segment.has(*flag)).map(|(_, name)| format!(" {name}"));
    let mut text: String = flags.collect();
    text += &format!(", sequence number {}", segment.seq);
    if let Some(ack) = segment.ack {
        text += &format!(", acknowledges {ack}");
    }
    text
}

/// How many bytes these are, and the first of them as text.
pub(super) fn bytes(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = if shown.len() < bytes.len() { "..." } else { "" };
    let unit = if bytes.len() == 1 { "byte" } else { "bytes" };
    format!("{} {unit} \"{}\"{more}", bytes.len(), shown.escape_ascii())
}

fn payload(fields: &[Field]) -> Option<&Field> {
    fields.iter().find(|field| field.name == "payload")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{CLIENT, Tcp, arp_request, echo_reply, udp};

    #[test]
    fn frames_are_told_with_what_matters() {
        let text = "TCP 10.0.0.1:80 > 10.0.0.2:4000 FIN, sequence number 7, acknowledges 9, 5 bytes \"he\\\"y\\n\"";
        assert_eq!(frame(&Tcp::new(80, 4000).seq(7).ack(9).fin().payload(b"he\"y\n").frame()), text);
        let text = "UDP 10.0.0.1:53 > 10.0.0.2:4000, 40 bytes \"aaaaaaaaaaaaaaaaaaaaaaaa\"...";
        assert_eq!(frame(&udp(53, 4000, &[b'a'; 40])), text);
        let text = "ICMP echo reply 10.0.0.1 > 10.0.0.2 id 1, sequence number 2, 1 byte \"x\"";
        assert_eq!(frame(&echo_reply(1, 2, b"x")), text);
        assert_eq!(frame(&arp_request(CLIENT)), "ARP 10.0.0.1 for 10.0.0.2, operation 1");
        assert_eq!(frame(b"short"), "malformed frames, 5 bytes \"short\"");
        assert_eq!((protocol(&arp_request(CLIENT)), protocol(&udp(1, 2, b""))), ("ARP", "UDP"));
    }
}
