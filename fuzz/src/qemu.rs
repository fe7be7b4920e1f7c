//! What comes through the sockets of QEMU's network filters, and from the toolstack.

use colo_core::net::Frame;
use colo_core::net::qemu::{
    BufferPool, FrameDecoder, FramingError, NotifyDecoder, NotifyError, NotifyMessage, encode_frame,
};
use colo_core::net::testing::{Tcp, udp};
use std::sync::OnceLock;

/// Decodes `data`, without its first two bytes, in pieces that those say, and in one piece: it must come to the same.
///
/// # Panics
/// When it does not, or when what was decoded is not what was sent.
pub fn fuzz(data: &[u8]) {
    let [flags, step, wire @ ..] = data else {
        return;
    };
    let has_vnet_header = flags & 1 != 0;
    let (frames, taken, error) = frames(wire, usize::from(*step) + 1, has_vnet_header, flags & 2 != 0);
    let whole = self::frames(wire, wire.len() + 1, has_vnet_header, false);
    assert!((&frames, taken, error) == (&whole.0, whole.1, whole.2), "it depends on how the bytes are cut");
    let mut again = Vec::new();
    for (frame, header_bytes) in &frames {
        encode_frame(frame, has_vnet_header.then_some(*header_bytes), &mut again);
    }
    assert_eq!(again.len(), taken, "something was made up");
    assert!(has_vnet_header || again == wire[..taken]);
    assert_eq!(messages(wire, usize::from(*step) + 1), messages(wire, wire.len() + 1));
}

/// Frames of both kinds of framing, and messages.
pub fn seeds() -> Vec<Vec<u8>> {
    let frames = [udp(7, 9, b"datagram"), Tcp::new(80, 4000).seq(501).ack(7).payload(b"hello").frame()];
    let wire = |header_bytes: Option<usize>| {
        let mut wire = vec![u8::from(header_bytes.is_some()), 30];
        frames.iter().for_each(|frame| encode_frame(frame, header_bytes, &mut wire));
        wire
    };
    let messages = [NotifyMessage::ProxyInit, NotifyMessage::Checkpoint].map(|message| message.encode()).concat();
    vec![wire(None), wire(Some(0)), wire(Some(10)), wire(Some(12)), [&[0, 7][..], &messages].concat()]
}

type Decoded = (Vec<(Frame, usize)>, usize, Option<FramingError>);

/// The frames, each with the length of its vnet header, the bytes that they took, and what ended them.
fn frames(mut wire: &[u8], step: usize, has_vnet_header: bool, copies: bool) -> Decoded {
    static POOLS: OnceLock<[BufferPool; 2]> = OnceLock::new();
    let pools = POOLS.get_or_init(|| [usize::MAX >> 1, 0].map(BufferPool::new));
    let mut decoder = FrameDecoder::new(has_vnet_header, &pools[usize::from(copies)]);
    let mut frames = Vec::new();
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push((frame, decoder.vnet_header_bytes())),
            Err(error) => {
                assert_eq!(decoder.next_frame(), Err(error));
                return (frames, decoder.taken_bytes() as usize, Some(error));
            }
            Ok(None) if wire.is_empty() => return (frames, decoder.taken_bytes() as usize, None),
            Ok(None) => {
                let room = decoder.room();
                let (now, later) = wire.split_at(step.min(wire.len()).min(room.len()));
                room[..now.len()].copy_from_slice(now);
                decoder.advance(now.len());
                wire = later;
            }
        }
    }
}

fn messages(wire: &[u8], step: usize) -> (Vec<NotifyMessage>, Option<NotifyError>) {
    let (mut decoder, mut messages) = (NotifyDecoder::new(), Vec::new());
    for piece in wire.chunks(step) {
        decoder.feed(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}
