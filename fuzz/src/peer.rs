//! Messages between the hosts: as a peer sends them that does not know the protocol, and as one that knows its framing.

use bytes::Bytes;
use colo_core::domain::{DiskSpec, DomainSpec, MacAddr, NicSpec};
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::peer::{
    Channel, Facts, FrameDecoder, FrameEncoder, GoodbyeReason, Hello, Message, MessageKind, Mode, NetFrame, PeerError,
};
use std::io::IoSlice;

/// Reads `data` as it is, whole and in pieces; and then as the kind and the payload of a message whose frame is right.
pub fn fuzz(data: &[u8]) {
    let (whole, error) = decode(data, data.len());
    let (pieces, same) = decode(data, 7);
    assert_eq!(whole, pieces);
    assert_eq!(error.to_string(), same.to_string());
    let again = written(&whole);
    assert_eq!(decode(&again, again.len()).0, whole, "what is read can be sent");

    if let Some((kind, payload)) = data.split_first() {
        fuzz_payload(MessageKind::ALL[usize::from(*kind) % MessageKind::ALL.len()], payload);
    }
}

fn fuzz_payload(kind: MessageKind, payload: &[u8]) {
    let payload = &payload[..payload.len().min(kind.max_payload_bytes())];
    let header = FrameEncoder::new().header_for(kind, &[IoSlice::new(payload)]).expect("the length is right");
    let bytes = [&header, payload].concat();
    let (messages, error) = decode(&bytes, bytes.len());
    match error {
        PeerError::Closed => assert_eq!(written(&messages), bytes, "what is read is what was sent"),
        error => assert!(messages.is_empty() && matches!(error, PeerError::Payload { .. }), "{error}"),
    }
}

/// The messages in `data`, fed in pieces, and how it ended.
fn decode(data: &[u8], piece_bytes: usize) -> (Vec<Message>, PeerError) {
    let (mut decoder, mut messages, mut rest) = (FrameDecoder::new(), Vec::new(), data);
    loop {
        let taken = decoder.feed(&rest[..rest.len().min(piece_bytes)]);
        rest = &rest[taken..];
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, error),
            }
        }
        if rest.is_empty() {
            return (messages, decoder.closed());
        }
    }
}

fn written(messages: &[Message]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (FrameEncoder::new(), Vec::new());
    for message in messages {
        encoder.encode(message, &mut bytes).expect("what was read can be written");
    }
    bytes
}

/// Every kind of message: one after the other, and each one's kind and payload alone.
pub fn seeds() -> Vec<Vec<u8>> {
    let frames = vec![NetFrame { nic: 3, frame: Frame::from_static(b"an Ethernet frame") }; 2];
    let spec = DomainSpec {
        name: "web".into(),
        hypervisor: "embedded".into(),
        pfn_limit: 4096,
        nics: vec![NicSpec { mac: MacAddr([2, 0, 0, 0, 0, 1]), ipv4: Some([10, 0, 0, 1].into()) }],
        disks: vec![DiskSpec { size_bytes: 1 << 30 }],
        config: vec![1, 2, 3],
    };
    let facts =
        Facts { clock_ns: 4, facts: vec![("xen".into(), "4.17".into()), ("bridge.xenbr0".into(), "up".into())] };
    let hello = Hello {
        channel: Channel::Net,
        session: 1,
        mode: Mode::Colo,
        heartbeat_ms: 100,
        rehearse: true,
        spec: spec.clone(),
    };
    let epoch = Epoch(1);
    let messages = [
        Message::Hello(hello),
        Message::Welcome,
        Message::Refused("no".into()),
        Message::Inquiry(spec),
        Message::Facts(facts),
        Message::Stream(Bytes::from_static(b"records")),
        Message::EpochEnd { epoch, stream_bytes: 7, crc: 9 },
        Message::EpochStaged(epoch),
        Message::EpochApplied(epoch),
        Message::CheckpointWanted,
        Message::Likeness(Bytes::from_static(b"ports")),
        Message::Input { epoch, again: true, frames: frames.clone() },
        Message::Output { epoch, first: 5, frames },
        Message::Released { epoch, numbers: vec![1, 2, 3] },
        Message::HeldReleased(epoch),
        Message::Heartbeat { number: 2 },
        Message::DiskWrite { disk: 0, offset: 512, data: Bytes::from_static(b"sector").into() },
        Message::DiskZeroes { disk: 1, offset: 0, length: 4096, may_unmap: true },
        Message::DiskBarrier { epoch, is_durable: true },
        Message::DiskFlush { number: 1, is_durable: false },
        Message::DiskFlushed { number: 1 },
        Message::DiskHashesWanted { disk: 0, offset: 0, length: 65536, seed: 3 },
        Message::DiskHashes { disk: 0, offset: 0, hashes: vec![1] },
        Message::DiskShared { sizes: vec![4096] },
        Message::DiskBefore { disk: 0, offset: 512, data: Bytes::from_static(b"sector").into() },
        Message::DiskBeforeZeroes { disk: 1, offset: 0, length: 4096 },
        Message::DiskSame { disk: 0, offset: 0, length: 4096, seed: 3, hash: 1 },
        Message::Goodbye(GoodbyeReason::Failed("gone".into())),
    ];
    let payload = |message| written(std::slice::from_ref(message)).split_off(colo_core::peer::FRAME_HEADER_BYTES);
    let number = |message: &Message| MessageKind::ALL.iter().position(|kind| *kind == message.kind());
    let alone = |message| [vec![number(message).unwrap_or(0) as u8], payload(message)].concat();
    std::iter::once(written(&messages)).chain(messages.iter().map(alone)).collect()
}
