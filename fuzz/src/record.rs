//! Recordings of miscompares: files that `colo why` is given.

use colo_core::compare::{Divergence, Evidence, FlowKey, Reason};
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::net::testing::{CLIENT, Tcp, arp_request, echo_reply, tagged, udp, udp6};
use colo_core::record::{MAX_FILE_BYTES, Miscompare, RecordReader, Recording, explain};
use std::time::UNIX_EPOCH;

/// Reads `data` as a recording, and explains what is in it. What was read is read again when it is recorded again.
pub fn fuzz(data: &[u8]) {
    let mut reader = RecordReader::new(data);
    while let Ok(Some(miscompare)) = reader.next_miscompare() {
        let explanation = explain(&miscompare);
        assert!(!explanation.to_string().is_empty());
        let frames = miscompare.primary.len() + miscompare.secondary.len();
        for difference in &explanation.differences {
            let numbers = [difference.place.primary_frame, difference.place.secondary_frame];
            assert!(numbers.into_iter().flatten().all(|number| (1..=frames).contains(&number)), "{difference}");
        }
        let mut recording = Recording::new(MAX_FILE_BYTES);
        let mut file = recording.begin();
        file.extend(recording.add(&miscompare).expect("what fits in a file fits"));
        let again = RecordReader::new(&file[..]).next_miscompare().expect("what is written can be read");
        let again = again.expect("it has frames");
        assert_eq!((again.primary, again.secondary), (miscompare.primary, miscompare.secondary));
    }
    assert!(matches!(reader.next_miscompare(), Ok(None)), "the end stays the end");
}

/// Miscompares of several kinds, all in one file, each in one of its own, and two files one behind the other.
pub fn seeds() -> Vec<Vec<u8>> {
    let segment = |seq: u32| Tcp::new(80, 4000).seq(seq).ack(1);
    let syn = |options: &[u8]| Tcp::new(80, 4000).seq(7).ack(1).syn().options(options).frame();
    let kinds: [(Vec<Frame>, Vec<Frame>); 6] = [
        (vec![udp(53, 4000, b"10:15")], vec![udp(53, 4000, b"10:16")]),
        (
            vec![segment(8).payload(b"HTTP/1.1 200 OK").frame(), segment(23).fin().payload(b" 10:15").frame()],
            vec![segment(8).payload(b"HTTP/1.1").frame(), segment(16).payload(b" 200 OK 10:16").frame()],
        ),
        (vec![syn(&[2, 4, 5, 0xB4, 3, 3, 7, 0])], vec![syn(&[2, 4, 5, 0xB0, 3, 3, 9, 0]), segment(8).rst().frame()]),
        (vec![echo_reply(1, 2, b"ping"), tagged(&udp6(1, 2, b"x"), &[(0x8100, 5)])], vec![echo_reply(1, 3, b"ping")]),
        (vec![arp_request(CLIENT)], Vec::new()),
        (vec![Frame::from_static(b"no frame at all")], vec![Frame::from_static(b"no frame")]),
    ];
    let kinds: Vec<Miscompare> =
        kinds.into_iter().zip(1..).map(|(frames, number)| miscompare(number, frames)).collect();
    let mut seeds: Vec<Vec<u8>> = kinds.iter().map(|one| file(std::slice::from_ref(one))).collect();
    seeds.push(file(&kinds));
    seeds.push([file(&kinds[..2]), file(&kinds[3..])].concat());
    seeds
}

fn miscompare(number: u64, (primary, secondary): (Vec<Frame>, Vec<Frame>)) -> Miscompare {
    let flow = Some(FlowKey::of(0, &primary[0]));
    let reason = Reason::PayloadDiffers { offset: 46 };
    let divergence = Divergence { flow, reason, evidence: Some(Box::new(Evidence { primary, secondary })) };
    Miscompare::of(number, UNIX_EPOCH, Epoch(number), divergence)
}

fn file(miscompares: &[Miscompare]) -> Vec<u8> {
    let mut recording = Recording::new(MAX_FILE_BYTES);
    let mut file = recording.begin();
    file.extend(miscompares.iter().filter_map(|miscompare| recording.add(miscompare)).flatten());
    file
}
