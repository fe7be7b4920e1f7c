use super::*;
use proptest::prelude::*;

/// A frame as it is sent: its bytes, and its vnet header.
type Sent = (Vec<u8>, Vec<u8>);

fn sent(frame_bytes: impl Strategy<Value = usize>) -> impl Strategy<Value = Sent> {
    let header = prop_oneof![Just(0), Just(10), Just(12), Just(20), Just(MAX_VNET_HEADER_BYTES)];
    (frame_bytes, header, any::<u8>()).prop_map(|(frame, header, first)| {
        let count = |bytes: usize| (0..bytes).map(|at| first.wrapping_add(at as u8)).collect();
        (count(frame), count(header))
    })
}

fn wire(frames: &[Sent], has_vnet_header: bool) -> Vec<u8> {
    let mut wire = Vec::new();
    for (frame, header) in frames {
        let header = if has_vnet_header { &header[..] } else { &[] };
        wire.extend_from_slice(&((frame.len() + header.len()) as u32).to_be_bytes());
        if has_vnet_header {
            wire.extend_from_slice(&(header.len() as u32).to_be_bytes());
        }
        wire.extend_from_slice(header);
        wire.extend_from_slice(frame);
    }
    wire
}

/// Feeds bytes as they come in reads of those lengths, and takes frames as they become whole; tells what came before an error, and that.
fn decode(
    decoder: &mut FrameDecoder,
    mut wire: &[u8],
    reads: impl IntoIterator<Item = usize>,
) -> (Vec<(Frame, usize)>, Option<FramingError>) {
    let mut got = Vec::new();
    for read in reads {
        let room = decoder.room();
        assert!(!room.is_empty());
        let (now, later) = wire.split_at(read.min(wire.len()).min(room.len()));
        room[..now.len()].copy_from_slice(now);
        decoder.advance(now.len());
        wire = later;
        loop {
            let has_frame = decoder.has_frame();
            let next = decoder.next_frame();
            assert_eq!(has_frame, next != Ok(None));
            match next {
                Ok(Some(frame)) => got.push((frame, decoder.vnet_header_bytes())),
                Ok(None) => break,
                Err(error) => return (got, Some(error)),
            }
        }
        if wire.is_empty() {
            break;
        }
    }
    assert!(wire.is_empty());
    (got, None)
}

/// What is known of a frame once it was taken from the wire: of its header, the fields of virtio's.
fn expected((frame, header): &Sent, has_vnet_header: bool) -> (Frame, usize) {
    let header = if has_vnet_header { &header[..] } else { &[] };
    let offload = header.first_chunk().map_or(Offload::default(), |fields| Offload::from_header(*fields));
    (Frame::copy_from_slice(frame).with_offload(offload), header.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// However the bytes are cut, and whether frames are shared or copied.
    #[test]
    fn frames_come_as_they_were_sent(
        frames in proptest::collection::vec(sent(prop_oneof![8 => 1usize..2000, 1 => 1..=MAX_FRAME_BYTES]), 1..200),
        has_vnet_header: bool,
        reads in proptest::collection::vec(prop_oneof![1..10usize, 1..5000usize, 1..BUFFER_BYTES], 1..20),
        max_lent_bytes in prop_oneof![Just(0), Just(BUFFER_BYTES), Just(usize::MAX)],
    ) {
        let pool = BufferPool::new(max_lent_bytes);
        let mut decoder = FrameDecoder::new(has_vnet_header, &pool);
        let wire = wire(&frames, has_vnet_header);
        let (got, error) = decode(&mut decoder, &wire, reads.into_iter().cycle());
        prop_assert_eq!(error, None);
        let expected: Vec<_> = frames.iter().map(|frame| expected(frame, has_vnet_header)).collect();
        prop_assert_eq!(&got, &expected);
        prop_assert_eq!((decoder.taken_bytes(), decoder.received_bytes()), (wire.len() as u64, wire.len() as u64));
        // All frames are still there.
        prop_assert!(pool.lent_bytes() <= max_lent_bytes);
        drop(got);
        prop_assert_eq!(pool.lent_bytes(), 0);
    }

    /// What is encoded is what QEMU would send, but for the number of buffers and what else follows virtio's first fields.
    #[test]
    fn frames_are_sent_as_they_came(
        frames in proptest::collection::vec(sent(1usize..200), 1..10),
        has_vnet_header: bool,
    ) {
        let frames: Vec<Sent> = frames.into_iter().map(|(frame, mut header)| {
            header.iter_mut().skip(Offload::HEADER_BYTES).for_each(|byte| *byte = 0);
            (frame, header)
        }).collect();
        let wire = wire(&frames, has_vnet_header);
        let mut decoder = FrameDecoder::new(has_vnet_header, &BufferPool::new(0));
        let (got, _) = decode(&mut decoder, &wire, [usize::MAX]);
        let mut again = Vec::new();
        for (frame, header_bytes) in got {
            encode_frame(&frame, has_vnet_header.then_some(header_bytes), &mut again);
        }
        prop_assert_eq!(again, wire);
    }

    /// What came before counts; nothing after it is looked at.
    #[test]
    fn a_bad_length_ends_it(
        before in proptest::collection::vec(sent(1usize..200), 0..10),
        has_vnet_header: bool,
        bad in prop_oneof![Just(0u32), MAX_FRAME_BYTES as u32 + MAX_VNET_HEADER_BYTES as u32 + 1.., Just(u32::MAX)],
        after in proptest::collection::vec(any::<u8>(), 0..50),
        reads in proptest::collection::vec(1usize..300, 1..5),
    ) {
        let wire = [wire(&before, has_vnet_header), bad.to_be_bytes().to_vec(), after].concat();
        let mut decoder = FrameDecoder::new(has_vnet_header, &BufferPool::new(1 << 20));
        let (got, error) = decode(&mut decoder, &wire, reads.into_iter().cycle());
        prop_assert_eq!(got.len(), before.len());
        prop_assert_eq!(error, Some(FramingError::Length { bytes: bad }));
        prop_assert_eq!(decoder.next_frame(), Err(FramingError::Length { bytes: bad }));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..500),
        has_vnet_header: bool,
        reads in proptest::collection::vec(1usize..100, 1..5),
    ) {
        let mut decoder = FrameDecoder::new(has_vnet_header, &BufferPool::new(1 << 20));
        for (frame, header_bytes) in decode(&mut decoder, &bytes, reads.into_iter().cycle()).0 {
            encode_frame(&frame, has_vnet_header.then_some(header_bytes), &mut Vec::new());
        }
    }
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let error = |bytes: u32, header_bytes: u32| {
        let wire = [bytes.to_be_bytes(), header_bytes.to_be_bytes()].concat();
        decode(&mut FrameDecoder::new(true, &BufferPool::new(0)), &wire, [usize::MAX]).1
    };
    let refused = |bytes, header_bytes| Some(FramingError::VnetHeader { header_bytes, bytes });
    assert_eq!(error(100, 0), None);
    assert_eq!(error(100, 10), None);
    assert_eq!(error(100, 9), refused(100, 9));
    assert_eq!(error(100, 65), refused(100, 65));
    assert_eq!(error(100, u32::MAX), refused(100, u32::MAX));
    // Nothing would be left for the frame.
    assert_eq!(error(12, 12), refused(12, 12));
    assert_eq!(error(11, 12), refused(11, 12));
    // The longest frame with the longest header.
    let longest = (MAX_FRAME_BYTES + MAX_VNET_HEADER_BYTES) as u32;
    assert_eq!(error(longest, 64), None);
    assert_eq!(error(longest, 12), Some(FramingError::Length { bytes: longest }));
    // Without vnet headers, where the other side sends them: read as 12, 12, ... the next length is from a frame's inside.
    let refused = decode(&mut FrameDecoder::new(false, &BufferPool::new(0)), &[0xff; 4], [4]).1.unwrap();
    assert!(refused.to_string().contains("vnet_hdr_support"), "{refused}");
}

#[test]
fn many_frames_share_the_buffer_and_few_are_copied() {
    let pool = BufferPool::new(1 << 20);
    let mut decoder = FrameDecoder::new(false, &pool);
    let frame: Sent = (vec![7; 1000], Vec::new());
    let one = wire(std::slice::from_ref(&frame), false);
    let (held, _) = decode(&mut decoder, &one, [usize::MAX]);
    assert_eq!(pool.lent_bytes(), one.len());
    drop(held);

    let many = one.repeat(100);
    let at = decoder.room().as_ptr();
    let (mut held, _) = decode(&mut decoder, &many, [usize::MAX]);
    assert_eq!(held[0].0.as_ptr(), at.wrapping_add(LENGTH_BYTES));
    assert_eq!(pool.lent_bytes(), BUFFER_BYTES);
    held.truncate(1);
    assert_eq!(pool.lent_bytes(), BUFFER_BYTES);
    drop(held);
    assert_eq!(pool.lent_bytes(), 0);
}

/// One frame of each read is held: it must not keep the memory of all others for long.
#[test]
fn what_frames_keep_is_bounded() {
    const MAX_LENT_BYTES: usize = 2 << 20;
    let pool = BufferPool::new(MAX_LENT_BYTES);
    let mut decoder = FrameDecoder::new(false, &pool);
    let reads = wire(&vec![(vec![7; 1000], Vec::new()); 200], false);
    let mut held = Vec::new();
    for _ in 0..100 {
        let (mut frames, _) = decode(&mut decoder, &reads, [usize::MAX]);
        held.extend(frames.pop());
        drop(frames);
        assert!(pool.lent_bytes() <= MAX_LENT_BYTES);
    }
    assert_eq!(held.len(), 100);
    assert_eq!(pool.lent_bytes(), MAX_LENT_BYTES, "frames were shared as long as there was room");
}
