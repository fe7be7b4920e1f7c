use super::pcapng::{Block, Blocks, write_interface, write_packet, write_section};
use super::*;
use crate::compare::{Evidence, FlowKey, Reason};
use crate::net::testing::{Tcp, echo_reply, udp};
use proptest::prelude::*;
use std::slice::from_ref;
use std::time::{Duration, UNIX_EPOCH};

fn answer(text: &str) -> Frame {
    udp(53, 4000, text.as_bytes())
}

fn miscompare(number: u64, primary: Vec<Frame>, secondary: Vec<Frame>) -> Miscompare {
    let flow = primary.first().or(secondary.first()).map(|frame| FlowKey::of(0, frame));
    let evidence = Some(Box::new(Evidence { primary, secondary }));
    let divergence = Divergence { flow, reason: Reason::PayloadDiffers { offset: 46 }, evidence };
    let time = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
    Miscompare::of(number, time, Epoch(number + 6), divergence)
}

fn recorded(miscompares: &[Miscompare]) -> Vec<u8> {
    let mut recording = Recording::new(MAX_FILE_BYTES);
    let mut file = recording.begin();
    for miscompare in miscompares {
        file.extend(recording.add(miscompare).expect("there is room"));
    }
    assert_eq!(recording.bytes(), file.len() as u64);
    file
}

/// All miscompares, and what was wrong at the end.
fn read(file: &[u8]) -> (Vec<Miscompare>, Option<String>) {
    let mut reader = RecordReader::new(file);
    let mut all = Vec::new();
    loop {
        match reader.next_miscompare() {
            Ok(Some(miscompare)) => all.push(miscompare),
            Ok(None) => return (all, None),
            Err(error) => {
                assert!(matches!(reader.next_miscompare(), Ok(None)), "an error is the end");
                return (all, Some(error.to_string()));
            }
        }
    }
}

#[test]
fn frames_of_both_are_side_by_side_with_a_comment() {
    let (one, two, three) = (answer("one"), answer("two"), answer("three"));
    let file =
        recorded(&[miscompare(3, vec![one.clone(), two.clone()], vec![one.clone(), two.clone(), three.clone()])]);
    let mut blocks = Blocks::new(&file[..]);
    let mut next = || blocks.next_block().unwrap();
    assert_eq!(next(), Some(Block::Section));
    assert_eq!(next(), Some(Block::Interface { name: Some("primary".into()) }));
    assert_eq!(next(), Some(Block::Interface { name: Some("secondary".into()) }));
    for (number, (interface, frame)) in
        [(0, &one), (1, &one), (0, &two), (1, &two), (1, &three)].into_iter().enumerate()
    {
        let Some(Block::Packet(packet)) = next() else { panic!("a packet") };
        assert_eq!(
            (packet.interface, packet.nanos, &packet.data[..]),
            (interface, 1_700_000_000_123_456_789, &frame[..])
        );
        let what = "UDP 10.0.0.1:53 > 10.0.0.2:4000 (nic 0): payload differs at 46";
        assert_eq!(packet.comments, [format!("miscompare 3 (epoch 9), frame {} of 5: {what}", number + 1)]);
    }
    assert_eq!(next(), None);
}

#[test]
fn a_file_that_was_cut_is_read_up_to_there() {
    let (first, second) =
        (miscompare(1, vec![answer("a")], vec![answer("b")]), miscompare(2, vec![answer("c")], vec![answer("d")]));
    let whole = recorded(from_ref(&first)).len();
    let file = recorded(&[first.clone(), second.clone()]);
    let (all, error) = read(&file[..whole + 3]);
    assert_eq!(
        (all, error),
        (vec![first.clone()], Some(format!("at byte {whole}: the file ends in the middle of a block")))
    );
    // In the middle of a miscompare it has fewer frames than it had.
    let (all, error) = read(&file[..file.len() - 1]);
    assert!(error.unwrap().ends_with("the file ends in the middle of a block"));
    assert_eq!((all.len(), &all[0]), (2, &first));
    assert_eq!((all[1].primary.len(), all[1].secondary.len(), all[1].frames), (1, 0, 2));
    // The recording had begun.
    let begun = recorded(&[]);
    assert_eq!(read(&begun), (Vec::new(), None));
}

#[test]
fn no_more_is_written_than_there_is_room_for() {
    let one = miscompare(1, vec![answer("a")], vec![answer("b")]);
    let file = recorded(&[one.clone(), one.clone()]);
    let mut recording = Recording::new(file.len() as u64 - 1);
    let mut short = recording.begin();
    short.extend(recording.add(&one).unwrap());
    assert_eq!(recording.add(&one), None);
    assert_eq!((recording.bytes(), &short[..]), (short.len() as u64, &file[..short.len()]));
    let mut recording = Recording::new(file.len() as u64);
    recording.begin();
    assert!(recording.add(&one).is_some() && recording.add(&one).is_some());
}

#[test]
fn of_a_long_evidence_what_is_around_the_difference_is_written() {
    let segment = |number: u32, byte: u8| {
        let mut payload = vec![b'.'; 1000];
        payload[500] = byte;
        Tcp::new(80, 4000).seq(number * 1000).ack(1).payload(&payload).frame()
    };
    let stream = |changed: u32, count: u32| -> Vec<Frame> {
        (0..count).map(|number| segment(number, if number == changed { b'!' } else { b'.' })).collect()
    };
    let flow = FlowKey::of(0, &segment(0, b'.')).to_string();
    let long = |primary: Vec<Frame>, secondary: Vec<Frame>| {
        let what = format!("{flow}: payload differs at 1800500");
        let frames = primary.len() + secondary.len();
        Miscompare { primary, secondary, what, frames, ..miscompare(1, Vec::new(), Vec::new()) }
    };
    for (primary, secondary) in
        [(stream(u32::MAX, 3000), stream(1800, 2000)), (stream(1800, 1801), stream(u32::MAX, 1850))]
    {
        let all = long(primary, secondary);
        let (read, error) = read(&recorded(from_ref(&all)));
        assert!(error.is_none() && read.len() == 1);
        let bytes = |frames: &[Frame]| frames.iter().map(|frame| frame.len()).sum::<usize>();
        assert!(bytes(&read[0].primary) + bytes(&read[0].secondary) < MAX_MISCOMPARE_BYTES);
        assert!(read[0].primary.contains(&all.primary[1800]) && read[0].secondary.contains(&all.secondary[1800]));
        assert!(read[0].primary.contains(&all.primary[1792]), "and some before");
        assert!(read[0].what.ends_with(&format!(" ({} frames; these are around the difference)", all.frames)));
        let (before, after) = (explain(&all), explain(&read[0]));
        let told = |explanation: &Explanation| {
            let first = &explanation.differences[0];
            (first.place.sequence_number, first.primary.clone(), first.secondary.clone())
        };
        assert_eq!(told(&before), told(&after));
        assert_eq!(told(&after).0, Some(crate::net::Seq(1_800_500)));
    }
    // One that has said nothing more leaves its half to the other; what it said last is kept.
    let all = long(stream(u32::MAX, 3000), stream(u32::MAX, 100));
    let (read, _) = read(&recorded(from_ref(&all)));
    assert_eq!(read[0].secondary, all.secondary);
    assert!(read[0].primary.len() > 500 && read[0].primary.contains(&all.primary[100]));
    assert_eq!(explain(&read[0]).differences[0].place.sequence_number, Some(crate::net::Seq(100_000)));
    // No frame is longer than there is room for, and the limit holds all the same.
    let huge = Frame::from(vec![0; MAX_MISCOMPARE_BYTES]);
    let all =
        Miscompare { primary: vec![huge.clone()], secondary: vec![huge], ..miscompare(1, Vec::new(), Vec::new()) };
    assert!(recorded(&[all]).len() < 1000);
}

/// A capture of another program: no comments of ours.
struct Capture(Vec<u8>);

impl Capture {
    fn new(interfaces: &[&str]) -> Capture {
        let mut bytes = Vec::new();
        write_section(&mut bytes, "dumpcap");
        interfaces.iter().for_each(|name| write_interface(&mut bytes, name));
        Capture(bytes)
    }

    fn frame(mut self, interface: u32, frame: &Frame) -> Capture {
        write_packet(&mut self.0, interface, 1, frame, "seen by somebody");
        self
    }
}

#[test]
fn other_captures_are_put_together_by_flow() {
    let file = Capture::new(&["tap0", "tap1"])
        .frame(0, &answer("10:15"))
        .frame(1, &echo_reply(1, 2, b"ping"))
        .frame(1, &answer("10:16"))
        .frame(0, &echo_reply(1, 2, b"ping"))
        .frame(0, &udp(53, 5000, b"alone"));
    let (all, error) = read(&file.0);
    assert_eq!((all.len(), error), (2, None), "the pings are the same");
    let what: Vec<_> = all.iter().map(|miscompare| (miscompare.number, miscompare.what.as_str())).collect();
    assert_eq!(what, [(1, "UDP 10.0.0.1:53 > 10.0.0.2:4000"), (2, "UDP 10.0.0.1:53 > 10.0.0.2:5000")]);
    assert_eq!((&all[0].primary[..], &all[0].secondary[..]), (&[answer("10:15")][..], &[answer("10:16")][..]));
    // Names count more than the order.
    for names in [["secondary", "primary"], ["secondary", "tap1"], ["tap0", "primary"]] {
        let file = Capture::new(&names).frame(0, &answer("10:15")).frame(1, &answer("10:16"));
        let (all, _) = read(&file.0);
        assert_eq!((&all[0].primary[..], &all[0].secondary[..]), (&[answer("10:16")][..], &[answer("10:15")][..]));
    }
}

#[test]
fn it_must_be_known_which_machine_is_which() {
    let complaint = |interfaces: &[&str]| read(&Capture::new(interfaces).0).1.expect("not so");
    let needed = "where two are needed, the primary's and the secondary's";
    assert!(complaint(&[]).ends_with(&format!(": 0 interfaces {needed}")));
    assert!(complaint(&["primary"]).ends_with(&format!(": one interface {needed}")));
    assert!(complaint(&["primary", "secondary", "third"]).ends_with(&format!(": 3 interfaces {needed}")));
    // Each section has its own.
    let one = miscompare(1, vec![answer("a")], vec![answer("b")]);
    let twice = [recorded(from_ref(&one)), recorded(from_ref(&one))].concat();
    assert_eq!(read(&twice), (vec![one.clone(), one.clone()], None));
    let (all, error) = read(&[recorded(from_ref(&one)), Capture::new(&["eth0"]).0].concat());
    assert!(all == [one] && error.unwrap().contains("one interface"));
}

#[test]
fn only_so_much_is_held_at_a_time() {
    let frame = Frame::from(vec![0; 60_000]);
    let count = MAX_FILE_BYTES as usize / frame.len() + 1;
    let mut file = Capture::new(&["tap0", "tap1"]);
    for _ in 0..count {
        file = file.frame(0, &frame);
    }
    let (all, error) = read(&file.0);
    assert!(error.unwrap().ends_with(": more than 67108864 bytes of frames that belong together"));
    assert_eq!((all.len(), all[0].primary.len()), (1, count - 1), "what is there is told all the same");
    // A miscompare that was given out is held no more.
    let mut file = recorded(&[]);
    for number in 0..count as u64 {
        write_packet(&mut file, 0, 1, &frame, &format!("miscompare {number}, frame 1 of 1: what"));
    }
    let (all, error) = read(&file);
    assert_eq!((all.len(), error), (count, None));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Frame::from),
        "[a-z]{0,20}".prop_map(|text| answer(&text)),
    ]
}

prop_compose! {
    fn any_miscompare()(
        nanos: u64,
        epoch: Option<u64>,
        what in "\\PC{0,60}",
        primary in prop::collection::vec(any_frame(), 0..6),
        secondary in prop::collection::vec(any_frame(), 1..6),
    ) -> Miscompare {
        Miscompare {
            number: 0,
            time: UNIX_EPOCH + Duration::from_nanos(nanos),
            epoch: epoch.map(Epoch),
            what,
            frames: primary.len() + secondary.len(),
            primary,
            secondary,
        }
    }
}

proptest! {
    #[test]
    fn what_is_recorded_is_read(miscompares in prop::collection::vec(any_miscompare(), 0..5)) {
        let miscompares: Vec<Miscompare> =
            miscompares.into_iter().zip(7..).map(|(one, number)| Miscompare { number, ..one }).collect();
        prop_assert_eq!(read(&recorded(&miscompares)), (miscompares, None));
    }
}
