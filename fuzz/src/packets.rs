//! Frames: what the two guests say, as the comparator and the rewriter get it.

use colo_core::net::Frame;
use colo_core::net::testing::{CLIENT, Tcp, arp_request, echo_reply, udp};

/// Cuts `data` into frames of both sides, for a comparator and for a rewriter.
pub fn fuzz(data: &[u8]) {
    colo_core::compare::fuzz(data);
    colo_core::net::rewrite::fuzz(data);
}

/// A connection from its beginning to its end, and a frame of each other kind; each said by one side, then by the other.
pub fn seeds() -> Vec<Vec<u8>> {
    let connection = [
        Tcp::new(4000, 80).inbound().syn().seq(1).frame(),
        Tcp::new(80, 4000).syn().seq(500).ack(2).frame(),
        Tcp::new(4000, 80).inbound().seq(2).ack(501).payload(b"GET /").frame(),
        Tcp::new(80, 4000).seq(501).ack(7).payload(b"hello").frame(),
        Tcp::new(80, 4000).seq(506).ack(7).fin().frame(),
        Tcp::new(4000, 80).inbound().seq(7).ack(507).rst().frame(),
    ];
    let others = [udp(7, 9, b"datagram"), echo_reply(1, 2, b"ping"), arp_request(CLIENT)];
    vec![said(&connection), said(&others), said(&[connection.as_slice(), &others].concat())]
}

/// As the fuzz functions cut it: the side, the length, the frame.
fn said(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (frame, side) in frames.iter().flat_map(|frame| [(frame, 0), (frame, 1)]) {
        bytes.extend([side, frame.len().min(255) as u8]);
        bytes.extend_from_slice(&frame[..frame.len().min(255)]);
    }
    bytes
}
