//! The framing and the codec together: what goes in comes out, and nothing else does.

use super::*;
use crate::disk::{MAX_DISKS, Summed};
use crate::domain::{DiskSpec, DomainSpec, MacAddr, NicSpec};
use crate::ids::Epoch;
use crate::net::{Frame, MAX_FRAME_BYTES, Offload};
use bytes::Bytes;
use proptest::prelude::*;
use std::io::IoSlice;

fn frames(max: usize) -> impl Strategy<Value = Vec<NetFrame>> {
    let offload = prop_oneof![Just([0; Offload::HEADER_BYTES]), any::<[u8; Offload::HEADER_BYTES]>()];
    let frame = (0_u8..16, prop::collection::vec(any::<u8>(), 0..100), offload.prop_map(Offload::from_header));
    let frame =
        frame.prop_map(|(nic, frame, offload)| NetFrame { nic, frame: Frame::from(frame).with_offload(offload) });
    prop::collection::vec(frame, 0..max)
}

fn spec() -> impl Strategy<Value = DomainSpec> {
    let nic = (any::<[u8; 6]>(), any::<Option<[u8; 4]>>())
        .prop_map(|(mac, ipv4)| NicSpec { mac: MacAddr(mac), ipv4: ipv4.map(Into::into) });
    let config = prop::collection::vec(any::<u8>(), 0..100);
    let disk = any::<u64>().prop_map(|size_bytes| DiskSpec { size_bytes });
    let (nics, disks) = (prop::collection::vec(nic, 0..=16), prop::collection::vec(disk, 0..=16));
    ("\\PC{0,60}", "[a-z]{0,32}", 1..=DomainSpec::MAX_PFN_LIMIT, nics, disks, config).prop_map(
        |(name, hypervisor, pfn_limit, nics, disks, config)| DomainSpec {
            name,
            hypervisor,
            pfn_limit,
            nics,
            disks,
            config,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let channel = prop::sample::select(vec![Channel::State, Channel::Net, Channel::Disk]);
    let mode = prop::sample::select(vec![Mode::Colo, Mode::Remus]);
    (channel, any::<u64>(), mode, any::<u32>(), any::<bool>(), spec()).prop_map(
        |(channel, session, mode, heartbeat_ms, rehearse, spec)| Hello {
            channel,
            session,
            mode,
            heartbeat_ms,
            rehearse,
            spec,
        },
    )
}

/// Any message, every kind as often as the others.
fn message() -> impl Strategy<Value = Message> {
    let epoch = || any::<u64>().prop_map(Epoch);
    let reason = prop_oneof![
        Just(GoodbyeReason::Stopped),
        Just(GoodbyeReason::Promoted),
        Just(GoodbyeReason::GuestEnded),
        "\\PC{0,100}".prop_map(GoodbyeReason::Failed),
    ];
    prop_oneof![
        hello().prop_map(Message::Hello),
        Just(Message::Welcome),
        spec().prop_map(Message::Inquiry),
        (any::<u64>(), prop::collection::vec(("[a-z.]{0,20}", "\\PC{0,60}"), 0..8))
            .prop_map(|(clock_ns, facts)| Message::Facts(Facts { clock_ns, facts })),
        "\\PC{0,100}".prop_map(Message::Refused),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Message::Stream(bytes.into())),
        (epoch(), any::<u64>(), any::<u32>())
            .prop_map(|(epoch, stream_bytes, crc)| { Message::EpochEnd { epoch, stream_bytes, crc } }),
        epoch().prop_map(Message::EpochStaged),
        epoch().prop_map(Message::EpochApplied),
        Just(Message::CheckpointWanted),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Message::Likeness(bytes.into())),
        (epoch(), any::<bool>(), frames(8)).prop_map(|(epoch, again, frames)| Message::Input { epoch, again, frames }),
        (epoch(), 0..u64::MAX - 8, frames(8)).prop_map(|(epoch, first, frames)| Message::Output {
            epoch,
            first,
            frames
        }),
        (epoch(), prop::collection::vec(any::<u64>(), 0..50))
            .prop_map(|(epoch, numbers)| Message::Released { epoch, numbers }),
        epoch().prop_map(Message::HeldReleased),
        any::<u64>().prop_map(|number| Message::Heartbeat { number }),
        disk_message(),
        reason.prop_map(Message::Goodbye),
    ]
}

fn disk_message() -> impl Strategy<Value = Message> {
    let epoch = || any::<u64>().prop_map(Epoch);
    let place = || (0..MAX_DISKS as u8, any::<u64>());
    prop_oneof![
        (place(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|((disk, offset), data)| Message::DiskWrite {
            disk,
            offset,
            data: data.into()
        }),
        (place(), any::<u64>(), any::<bool>()).prop_map(|((disk, offset), length, may_unmap)| Message::DiskZeroes {
            disk,
            offset,
            length,
            may_unmap
        }),
        (epoch(), any::<bool>()).prop_map(|(epoch, is_durable)| Message::DiskBarrier { epoch, is_durable }),
        (any::<u64>(), any::<bool>()).prop_map(|(number, is_durable)| Message::DiskFlush { number, is_durable }),
        any::<u64>().prop_map(|number| Message::DiskFlushed { number }),
        (place(), 1..=(MAX_DISK_HASHES * HASHED_BYTES) as u32, any::<u64>())
            .prop_map(|((disk, offset), length, seed)| Message::DiskHashesWanted { disk, offset, length, seed }),
        (place(), prop::collection::vec(any::<u128>(), 0..=MAX_DISK_HASHES))
            .prop_map(|((disk, offset), hashes)| Message::DiskHashes { disk, offset, hashes }),
        shared_message(),
    ]
}

fn shared_message() -> impl Strategy<Value = Message> {
    let place = || (0..MAX_DISKS as u8, any::<u64>());
    prop_oneof![
        prop::collection::vec(any::<u64>(), 0..=MAX_DISKS).prop_map(|sizes| Message::DiskShared { sizes }),
        (place(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|((disk, offset), data)| Message::DiskBefore {
            disk,
            offset,
            data: data.into()
        }),
        (place(), any::<u64>()).prop_map(|((disk, offset), length)| Message::DiskBeforeZeroes { disk, offset, length }),
        (place(), 1..=(MAX_DISK_HASHES * HASHED_BYTES) as u32, any::<u64>(), any::<u128>())
            .prop_map(|((disk, offset), length, seed, hash)| Message::DiskSame { disk, offset, length, seed, hash }),
    ]
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (FrameEncoder::new(), Vec::new());
    for message in messages {
        encoder.encode(message, &mut bytes).unwrap();
    }
    bytes
}

/// A frame with a right checksum around any payload.
fn frame(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    let header = FrameEncoder::new().header_for(kind, &[IoSlice::new(payload)]).unwrap();
    [&header, payload].concat()
}

/// All messages in `bytes`; if the last is cut off, that as an error.
fn decode(bytes: &[u8]) -> Result<Vec<Message>, PeerError> {
    let (mut decoder, mut messages, mut rest) = (FrameDecoder::new(), Vec::new(), bytes);
    loop {
        rest = &rest[decoder.feed(rest)..];
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
        if rest.is_empty() {
            return match decoder.closed() {
                PeerError::Closed => Ok(messages),
                error => Err(error),
            };
        }
    }
}

/// CRC-32C as the standard defines it, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

#[test]
fn golden_frame() {
    let mut bytes = encode(&[Message::Welcome, Message::Heartbeat { number: 7 }]).split_off(FRAME_HEADER_BYTES);
    let front = *b"COLO\x05\x02\x24\0\x01\0\0\0\0\0\0\0\x08\0\0\0";
    assert_eq!(bytes[..20], front);
    assert_eq!(bytes[24..], [7, 0, 0, 0, 0, 0, 0, 0]);
    let crc: Vec<u8> = bytes.drain(20..24).collect();
    assert_eq!(crc, crc32c(&bytes).to_le_bytes());
}

#[test]
fn golden_frame_of_data() {
    let data: Summed = b"what is on a disk".to_vec().into();
    let bytes = encode(&[Message::DiskWrite { disk: 1, offset: 512, data: data.clone() }]);
    let (header, head) = (&bytes[..20], &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + 9]);
    assert_eq!((head, &bytes[FRAME_HEADER_BYTES + 9..]), (&[1, 0, 2, 0, 0, 0, 0, 0, 0][..], &data[..]));
    let summed = [header, head, &crc32c(&data).to_le_bytes()].concat();
    assert_eq!(bytes[20..24], crc32c(&summed).to_le_bytes());
}

proptest! {
    #[test]
    fn messages_round_trip_however_they_are_cut(
        messages in prop::collection::vec(message(), 0..12),
        cuts in prop::collection::vec(1_usize..400, 1..60),
    ) {
        let bytes = encode(&messages);
        let (mut decoder, mut got, mut rest) = (FrameDecoder::new(), Vec::new(), bytes.as_slice());
        for cut in cuts.iter().cycle() {
            let taken = decoder.feed(&rest[..rest.len().min(*cut)]);
            rest = &rest[taken..];
            while let Some(message) = decoder.next_message().unwrap() {
                got.push(message);
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got, messages);
        prop_assert!(matches!(decoder.closed(), PeerError::Closed));
    }

    #[test]
    fn a_message_cut_off_anywhere_is_truncated(message in message()) {
        let bytes = encode(&[message]);
        for length in 1..bytes.len() {
            let error = decode(&bytes[..length]).unwrap_err();
            prop_assert!(matches!(error, PeerError::Truncated { .. }), "{}: {}", length, error);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found(message in message()) {
        let bytes = encode(&[message]);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&flipped).is_err(), "bit {}", bit);
        }
    }

    #[test]
    fn what_is_read_is_what_would_have_been_sent(message in message(), at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        // A peer gone wrong, whose checksums are right.
        let mut payload = encode(std::slice::from_ref(&message)).split_off(FRAME_HEADER_BYTES);
        if !payload.is_empty() {
            let at = at.index(payload.len());
            payload[at] = byte;
            if cut {
                payload.truncate(at);
            }
        }
        let bytes = frame(message.kind(), &payload);
        match decode(&bytes) {
            Ok(messages) => prop_assert_eq!(encode(&messages), bytes),
            Err(error) => prop_assert!(matches!(error, PeerError::Payload { .. }), "{}", error),
        }
    }

    #[test]
    fn any_payload_gives_a_message_or_an_error(kind in prop::sample::select(&MessageKind::ALL), payload in prop::collection::vec(any::<u8>(), 0..80)) {
        let payload = &payload[..payload.len().min(kind.max_payload_bytes())];
        let bytes = frame(kind, payload);
        match decode(&bytes) {
            Ok(messages) => prop_assert_eq!(encode(&messages), bytes),
            Err(error) => prop_assert!(matches!(error, PeerError::Payload { .. }), "{}", error),
        }
    }

    #[test]
    fn data_have_the_sum_that_they_were_checked_by(length in 0..4096_usize, byte: u8, is_before: bool) {
        let data: Summed = (0..length).map(|at| (at / 7) as u8 ^ byte).collect::<Vec<_>>().into();
        let message = match is_before {
            false => Message::DiskWrite { disk: 1, offset: 512, data },
            true => Message::DiskBefore { disk: 1, offset: 512, data },
        };
        let mut decoded = decode(&encode(&[message])).unwrap();
        let (Message::DiskWrite { data, .. } | Message::DiskBefore { data, .. }) = decoded.remove(0) else { unreachable!() };
        prop_assert_eq!(data.crc(), crc32c(&data));
        // A part has another one.
        let part = data.slice(length / 3..length);
        prop_assert_eq!(part.crc(), crc32c(&part));
    }

    #[test]
    fn sums_agree_with_the_bytes(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6)) {
        let (mut encoder, mut bytes) = (FrameEncoder::new(), Vec::new());
        for part in &parts {
            encoder.encode(&Message::Stream(Bytes::copy_from_slice(part)), &mut bytes).unwrap();
            encoder.encode(&Message::Welcome, &mut bytes).unwrap();
        }
        let (whole, sum) = (parts.concat(), encoder.take_stream_sum());
        prop_assert_eq!((sum.bytes(), sum.crc()), (whole.len() as u64, crc32c(&whole)));
        prop_assert_eq!(encoder.take_stream_sum().bytes(), 0);
    }
}

#[test]
fn repeated_and_missing_messages_are_told_apart() {
    let all = encode(&[Message::Welcome, Message::CheckpointWanted, Message::Welcome]);
    let (first, rest) = all.split_at(FRAME_HEADER_BYTES);
    let (_, third) = rest.split_at(FRAME_HEADER_BYTES);
    let again = decode(&[first, first].concat()).unwrap_err();
    assert!(matches!(again, PeerError::Repeated { expected: 1, got: 0 }), "{again}");
    let missing = decode(&[first, third].concat()).unwrap_err();
    assert!(matches!(missing, PeerError::Missing { expected: 1, got: 2 }), "{missing}");
}

#[test]
fn a_failed_decoder_stays_failed() {
    let mut decoder = FrameDecoder::new();
    decoder.feed(&[0; FRAME_HEADER_BYTES]);
    assert!(matches!(decoder.next_message(), Err(PeerError::NotOurs(0))));
    decoder.feed(&encode(&[Message::Welcome]));
    assert!(matches!(decoder.next_message(), Err(PeerError::Failed)));
}

#[test]
fn another_major_version_is_refused_by_both_names() {
    let mut bytes = encode(&[Message::Welcome]);
    (bytes[4], bytes[5]) = (9, 3);
    let error = decode(&bytes).unwrap_err();
    assert!(matches!(error, PeerError::Version { major: 9, minor: 3 }), "{error}");
    let text = error.to_string();
    assert!(text.contains("9.3") && text.contains(&format!("{MAJOR_VERSION}.{MINOR_VERSION}")), "{text}");
}

#[test]
fn another_minor_version_is_spoken_with_and_known() {
    let mut bytes = encode(&[Message::Welcome]);
    bytes[5] = MINOR_VERSION + 3;
    let crc = crc32c(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    let mut decoder = FrameDecoder::new();
    decoder.feed(&bytes);
    assert_eq!(decoder.peer_minor(), None);
    assert_eq!(decoder.next_message().unwrap(), Some(Message::Welcome));
    assert_eq!(decoder.peer_minor(), Some(MINOR_VERSION + 3));
}

#[test]
fn output_beyond_the_last_number_is_refused() {
    let frames = vec![NetFrame { nic: 0, frame: vec![0; 60].into() }];
    let bytes = encode(&[Message::Output { epoch: Epoch(1), first: u64::MAX, frames }]);
    let error = decode(&bytes).unwrap_err();
    let PeerError::Payload { error: PayloadError::BadValue { what, got }, .. } = error else { panic!("{error}") };
    assert_eq!((what, got), ("first number", u64::MAX));
}

#[test]
fn a_kind_that_does_not_exist() {
    let mut bytes = encode(&[Message::Welcome]);
    bytes[6] = 99;
    assert!(matches!(decode(&bytes), Err(PeerError::UnknownKind(99))));
}

#[test]
fn every_kind_has_its_limit_and_no_room_is_made_beyond_it() {
    for kind in MessageKind::ALL {
        let limit = kind.max_payload_bytes();
        let mut header = frame(kind, &[]);
        header[16..20].copy_from_slice(&(limit as u32 + 1).to_le_bytes());
        let mut decoder = FrameDecoder::new();
        decoder.feed(&header);
        let error = decoder.next_message().unwrap_err();
        assert!(matches!(error, PeerError::TooLong { length, .. } if length == limit + 1), "{error}");
        assert!(decoder.capacity_bytes() <= 2 * FRAME_HEADER_BYTES);

        // The longest there may be, and as much more as the sender likes: only one message's room is taken.
        header[16..20].copy_from_slice(&(limit as u32).to_le_bytes());
        header[20] ^= 1;
        let mut decoder = FrameDecoder::new();
        let mut source = std::io::Read::chain(header.as_slice(), std::io::repeat(0));
        decoder.read_from(&mut source).unwrap();
        let result = decoder.next_message();
        if let Ok(None) = result {
            decoder.read_from(&mut source).unwrap();
            assert!(decoder.capacity_bytes() <= FRAME_HEADER_BYTES + limit.max(64 * 1024), "{kind:?}");
        }
        let error = result.and_then(|_| decoder.next_message()).unwrap_err();
        assert!(matches!(error, PeerError::Checksum(_)), "{kind:?}: {error}");
    }
}

#[test]
fn bytes_are_not_taken_while_messages_wait() {
    let bytes = encode(&vec![Message::Heartbeat { number: 1 }; 10_000]);
    let mut decoder = FrameDecoder::new();
    let taken = decoder.feed(&bytes);
    assert_eq!((taken, decoder.feed(&bytes[taken..])), (64 * 1024, 0));
    assert_eq!(decode(&bytes).unwrap().len(), 10_000);
}

#[test]
fn the_longest_messages_round_trip() {
    let net_frame = |bytes: usize| NetFrame { nic: 15, frame: vec![0xAB; bytes].into() };
    let messages = [
        Message::Stream(vec![1; MAX_STREAM_BYTES].into()),
        Message::Input { epoch: Epoch(1), again: false, frames: vec![net_frame(2048); MAX_MESSAGE_FRAMES] },
        Message::Output { epoch: Epoch(1), first: u64::MAX - 31, frames: vec![net_frame(MAX_FRAME_BYTES); 31] },
        Message::Released { epoch: Epoch(1), numbers: (0..MAX_RELEASED as u64).collect() },
        Message::Facts(Facts {
            clock_ns: u64::MAX,
            facts: vec![("n".repeat(MAX_FACT_NAME_BYTES), "v".repeat(MAX_FACT_BYTES)); MAX_FACTS],
        }),
        Message::Hello(Hello {
            channel: Channel::Net,
            session: 1,
            mode: Mode::Remus,
            heartbeat_ms: 100,
            rehearse: true,
            spec: DomainSpec {
                name: "n".repeat(DomainSpec::MAX_NAME_BYTES),
                hypervisor: "h".repeat(DomainSpec::MAX_HYPERVISOR_BYTES),
                pfn_limit: DomainSpec::MAX_PFN_LIMIT,
                nics: vec![NicSpec { mac: MacAddr::BROADCAST, ipv4: None }; DomainSpec::MAX_NICS],
                disks: vec![DiskSpec { size_bytes: u64::MAX }; MAX_DISKS],
                config: vec![0; DomainSpec::MAX_CONFIG_BYTES],
            },
        }),
    ];
    let bytes = encode(&messages);
    assert!(decode(&bytes).unwrap() == messages);
}

#[test]
fn what_is_beyond_a_limit_is_not_sent() {
    let net_frame = |bytes: usize| NetFrame { nic: 0, frame: vec![0; bytes].into() };
    let input = |frames| Message::Input { epoch: Epoch(1), again: false, frames };
    let facts = |facts| Message::Facts(Facts { clock_ns: 0, facts });
    let refused = [
        input(vec![net_frame(1); MAX_MESSAGE_FRAMES + 1]),
        input(vec![net_frame(MAX_FRAME_BYTES + 1)]),
        input(vec![net_frame(MAX_FRAME_BYTES); 32]),
        input(vec![NetFrame { nic: 16, frame: Frame::new() }]),
        Message::Released { epoch: Epoch(1), numbers: vec![0; MAX_RELEASED + 1] },
        Message::Stream(vec![0; MAX_STREAM_BYTES + 1].into()),
        facts(vec![(String::new(), String::new()); MAX_FACTS + 1]),
        facts(vec![("n".repeat(MAX_FACT_NAME_BYTES + 1), String::new())]),
        facts(vec![(String::new(), "v".repeat(MAX_FACT_BYTES + 1))]),
    ];
    let (mut encoder, mut bytes) = (FrameEncoder::new(), b"before".to_vec());
    for message in refused {
        let error = encoder.encode(&message, &mut bytes).unwrap_err();
        assert!(matches!(error, PeerError::Payload { .. } | PeerError::TooLong { .. }), "{error}");
        assert_eq!(bytes, b"before");
    }
    // None of them counted.
    bytes.clear();
    encoder.encode(&Message::Welcome, &mut bytes).unwrap();
    assert_eq!(decode(&bytes).unwrap(), [Message::Welcome]);
}

#[test]
fn long_texts_are_cut_off_between_characters() {
    let text = format!("{}é and more", "x".repeat(MAX_TEXT_BYTES - 1));
    let messages = decode(&encode(&[Message::Refused(text)])).unwrap();
    assert_eq!(messages, [Message::Refused("x".repeat(MAX_TEXT_BYTES - 1))]);
}
