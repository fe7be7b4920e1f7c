use super::*;
use crate::compare::{Divergence, Reason};
use crate::net::testing::{
    CARRIERS, CLIENT, Tcp, arp_request, carried, echo_reply, echo_reply6, tagged, udp, udp6, with_extensions,
};
use proptest::prelude::*;
use std::slice::from_ref;
use std::time::{Duration, UNIX_EPOCH};

fn miscompare(what: &str, primary: &[Frame], secondary: &[Frame]) -> Miscompare {
    Miscompare {
        number: 1,
        time: UNIX_EPOCH,
        epoch: None,
        what: what.into(),
        primary: primary.to_vec(),
        secondary: secondary.to_vec(),
        frames: primary.len() + secondary.len(),
    }
}

fn differences(primary: &[Frame], secondary: &[Frame]) -> Vec<Difference> {
    explain(&miscompare("", primary, secondary)).differences
}

/// The reason, in words.
fn reason(primary: &[Frame], secondary: &[Frame]) -> String {
    explain(&miscompare("", primary, secondary)).to_string().lines().next().unwrap().to_owned()
}

/// What is first in a frame when one byte of it is another.
fn changed(frame: &Frame, at: usize, xor: u8) -> String {
    let other = frame.clone().edit(|bytes| bytes[at] ^= xor);
    reason(from_ref(frame), &[other])
}

#[test]
fn fields_are_told_by_their_names() {
    let frame = udp(53, 4000, b"10:15");
    let told = |at: usize, field: &str, primary: &str, secondary: &str| {
        format!("{field} (byte {at} of frame 1, byte {at} of frame 2): primary {primary}, secondary {secondary}")
    };
    assert_eq!(changed(&frame, 5, 1), told(0, "Ethernet destination", "02:00:00:00:00:02", "02:00:00:00:00:03"));
    assert_eq!(changed(&frame, 15, 4), told(15, "IPv4 DSCP", "0", "1"));
    assert_eq!(changed(&frame, 20, 0x40), told(20, "IPv4 don't fragment", "1", "0"));
    assert_eq!(changed(&frame, 22, 1), told(22, "IPv4 TTL", "64", "65"));
    assert_eq!(changed(&frame, 35, 1), told(34, "UDP source port", "53", "52"));
    let tagged = tagged(&frame, &[(0x8100, 0x6005)]);
    assert_eq!(changed(&tagged, 14, 0x20), told(14, "VLAN priority", "3", "2"));
    assert_eq!(changed(&tagged, 26, 1), told(26, "IPv4 TTL", "64", "65"));
    let frame = udp6(53, 4000, b"answer");
    assert_eq!(changed(&frame, 21, 1), told(21, "IPv6 hop limit", "64", "65"));
    assert_eq!(changed(&frame, 15, 0x10), told(15, "IPv6 ECN", "0", "1"));
    let fragment = with_extensions(&frame, &[(44, vec![0, 0, 0, 9, 1, 2, 3, 4])]);
    assert_eq!(changed(&fragment, 57, 1), told(57, "IPv6 more fragments", "1", "0"));
    assert_eq!(changed(&echo_reply(1, 2, b"x"), 41, 1), told(40, "ICMP sequence number", "2", "3"));
    assert_eq!(changed(&arp_request(CLIENT), 21, 3), told(20, "ARP operation", "1", "2"));
    assert_eq!(changed(&arp_request(CLIENT), 41, 3), told(38, "ARP target address", "10.0.0.2", "10.0.0.1"));
}

#[test]
fn bytes_are_told_with_what_is_around_them() {
    let (primary, secondary) = (udp(53, 4000, b"it is 10:15 now"), udp(53, 4000, b"it is 10:16 now"));
    let text = explain(&miscompare("", &[primary], &[secondary])).to_string();
    let expected = "\
UDP payload, byte 10 (byte 52 of frame 1, byte 52 of frame 2): primary 0x35 '5', secondary 0x36 '6'
  primary     20 69 73 20 31 30 3a 31[35]20 6e 6f 77               is 10:15 now
  secondary   20 69 73 20 31 30 3a 31[36]20 6e 6f 77               is 10:16 now";
    assert_eq!(text, expected);
    // A payload that ends: not the length, which follows from it.
    let text = explain(&miscompare("", &[udp(53, 4000, b"10")], &[udp(53, 4000, b"10\n")])).to_string();
    let expected = "\
UDP payload, byte 2 (byte 44 of frame 1, byte 44 of frame 2): primary nothing, secondary 0x0a
  primary     31 30[  ]                                           10
  secondary   31 30[0a]                                           10.";
    assert_eq!(text, expected);
    let frame = Frame::from_static(b"\x01\x80\xc2\0\0\x0e\x02\0\0\0\0\x01\x88\xcc lldp");
    assert!(
        changed(&frame, 15, 1).starts_with("Ethernet payload, byte 1 (byte 15 of frame 1"),
        "{}",
        changed(&frame, 15, 1)
    );
    assert!(changed(&Frame::from_static(b"stub"), 3, 1).starts_with("Ethernet payload, byte 3 ("));
}

/// Each byte of a frame of each kind, changed: those that the comparator's table has as ignored are never given as the reason.
#[test]
fn what_is_ignored_is_no_reason() {
    let ignored = |frame: &Frame| -> Vec<usize> {
        let same = |at: &usize| {
            let other = frame.clone().edit(|bytes| bytes[*at] ^= 1);
            differences(from_ref(frame), &[other]).is_empty()
        };
        (0..frame.len()).filter(same).collect()
    };
    assert_eq!(ignored(&udp(5, 6, b"payload")), [18, 19, 24, 25, 40, 41]);
    assert_eq!(ignored(&tagged(&udp(5, 6, b"payload"), &[(0x8100, 5)])), [22, 23, 28, 29, 44, 45]);
    assert_eq!(ignored(&udp6(5, 6, b"payload")), [15, 16, 17, 60, 61]);
    assert_eq!(ignored(&echo_reply(1, 2, b"ping")), [18, 19, 24, 25, 36, 37]);
    assert_eq!(ignored(&echo_reply6(1, 2, b"ping")), [15, 16, 17, 56, 57]);
    assert_eq!(ignored(&arp_request(CLIENT)), [0; 0]);
    // Of a segment without SYN: everything but the payload, the ports and what says how long that is. Flags are events.
    let segment = Tcp::new(80, 4000).seq(7).ack(9).payload(b"hello").frame();
    let other = segment.clone().edit(|bytes| {
        for at in (0..12).chain([15, 18, 19, 22, 24, 25, 48, 49, 50, 51]) {
            bytes[at] ^= 1;
        }
    });
    assert_eq!(differences(&[segment], &[other]), []);
    // Padding.
    let pad = |value: u8| {
        let mut frame = udp(5, 6, b"x").to_vec();
        frame.resize(60, value);
        Frame::from(frame)
    };
    assert_eq!(differences(&[pad(0)], &[pad(7)]), []);
}

/// A length is a reason only when nothing else is; then it is one that lies.
#[test]
fn what_follows_from_something_else_comes_last() {
    let frame = echo_reply(1, 2, b"ping");
    let unreachable = frame.edit(|bytes| bytes[34] = 3);
    assert!(changed(&unreachable, 36, 1).starts_with("ICMP checksum (byte 36"), "{}", changed(&unreachable, 36, 1));
    let both = unreachable.clone().edit(|bytes| {
        bytes[36] ^= 1;
        bytes[43] ^= 1;
    });
    assert!(reason(&[unreachable], &[both]).starts_with("ICMP payload, byte 1 "));
}

#[test]
fn frames_of_different_kinds_are_told_apart() {
    let frame = udp(53, 4000, b"answer");
    assert!(changed(&frame, 12, 1).starts_with("Ethernet type (byte 12"));
    assert!(changed(&frame, 23, 1).starts_with("IPv4 protocol (byte 23"));
    assert!(changed(&frame, 14, 1).starts_with("IPv4 header length (byte 14"));
    assert!(changed(&frame, 39, 1).starts_with("UDP length (byte 38"));
    let longer = Frame::from([&frame[..], &[0; 40]].concat());
    assert_eq!(
        reason(&[frame], &[longer]),
        "Ethernet frame's length (frame 1, frame 2): primary 48 bytes, secondary 88 bytes"
    );
}

#[test]
fn a_frame_of_one_machine_alone_is_described() {
    let (first, second) = (udp(53, 4000, b"first"), udp(53, 4000, b"second"));
    let text = "UDP 10.0.0.1:53 > 10.0.0.2:4000, 6 bytes \"second\"";
    let alone = reason(&[first.clone(), second.clone()], from_ref(&first));
    assert_eq!(alone, format!("the secondary did not send this: {text}"));
    let alone = reason(from_ref(&first), &[first.clone(), second.clone()]);
    assert_eq!(alone, format!("the primary did not send this: {text}"));
    assert_eq!(reason(&[], from_ref(&second)), format!("the primary did not send this: {text}"));
    assert_eq!(reason(&[], &[]), "what was recorded is the same in everything that is compared");
    // What was left out shows in what comes next.
    let third = udp(53, 4000, b"third");
    let found = differences(&[first.clone(), second.clone(), third.clone()], &[first, third]);
    assert_eq!((found[0].field.as_str(), found[0].place.primary_frame), ("payload", Some(3)));
    assert_eq!(found.last().unwrap().to_string(), format!("the secondary did not send this: {text}"));
}

#[test]
fn the_words_of_the_divergence_have_a_say() {
    // Rules may have the comparator look over the first difference.
    let frames = |text: &str| vec![udp(53, 4000, b"masked: 1"), udp(53, 4000, text.as_bytes())];
    let (primary, mut secondary) = (frames("id 1 is 10"), frames("id 2 is 11"));
    secondary[0] = udp(53, 4000, b"masked: 2");
    let told = |reason: Reason| {
        let what = Divergence { flow: None, reason, evidence: None }.to_string();
        explain(&miscompare(&what, &primary, &secondary)).differences[0].place
    };
    let place = told(Reason::PayloadDiffers { offset: 42 + 9 });
    assert_eq!((place.primary_frame, place.payload_offset), (Some(3), Some(9)));
    // A place that makes no sense is no place.
    let place = told(Reason::PayloadDiffers { offset: u64::MAX });
    assert_eq!((place.primary_frame, place.payload_offset), (Some(1), Some(8)));
    // Of a stream.
    let segment = |text: &str| Tcp::new(80, 4000).seq(100).ack(1).payload(text.as_bytes()).frame();
    let (primary, secondary) = (segment("id 1 is 10"), segment("id 2 is 11"));
    let explained =
        |what: &str| explain(&miscompare(what, from_ref(&primary), from_ref(&secondary))).differences[0].place;
    assert_eq!(explained("payload differs at 109").sequence_number, Some(Seq(109)));
    assert_eq!(explained("payload differs at 105").sequence_number, Some(Seq(103)));
    // Who waits for something waits for that.
    let waited = Duration::from_millis(200);
    let (one, two) = (udp(53, 4000, b"masked: 1"), udp(53, 4000, b"masked: 2"));
    let what = Reason::Unmatched { waited }.to_string();
    let explained = explain(&miscompare(&what, &[one, udp(53, 4000, b"more")], &[two]));
    assert!(explained.to_string().starts_with("the secondary did not send this: UDP"), "{explained}");
    let explained = explain(&miscompare(&what, &[segment("id 1, more")], &[segment("id 2")]));
    assert!(explained.to_string().contains("primary 6 bytes \", more\", secondary nothing"), "{explained}");
}

fn segment(seq: u32) -> Tcp {
    Tcp::new(80, 4000).seq(seq).ack(9)
}

#[test]
fn a_byte_of_a_stream_is_told_however_it_was_cut() {
    let primary = [segment(100).payload(b"HTTP/1.1 200").frame(), segment(112).payload(b" OK 10:15").frame()];
    let secondary = [
        segment(100).payload(b"HTTP").frame(),
        segment(120).payload(b"6").frame(),
        segment(104).payload(b"/1.1 200 OK 10:1").frame(),
    ];
    let found = differences(&primary, &secondary);
    let expected = "TCP payload, byte 20 of the stream as recorded (sequence number 120, byte 62 of frame 3, byte 54 of \
        frame 4): primary 0x35 '5', secondary 0x36 '6'";
    assert_eq!(found[0].to_string(), expected);
    let [ours, theirs] = found[0].excerpts.as_ref().unwrap();
    assert_eq!((ours.bytes.as_slice(), ours.at), (&b" OK 10:15"[..], 8));
    assert_eq!((theirs.bytes.as_slice(), theirs.at), (&b" OK 10:16"[..], 8));
    assert_eq!(found.len(), 1);
}

#[test]
fn ends_of_streams() {
    let end = |text: &str| segment(100).fin().payload(text.as_bytes()).frame();
    let open = |text: &str| segment(100).payload(text.as_bytes()).frame();
    let at = |number| format!("TCP FIN (sequence number {number}, frame 1): primary");
    assert_eq!(reason(&[end("bye")], &[open("bye!!")]), at(103) + " set, secondary not set, 2 bytes follow");
    assert_eq!(
        reason(&[open("bye")], &[end("by")]),
        at(102).replace("frame 1", "frame 2") + " not set, 1 byte follows, secondary set"
    );
    assert_eq!(reason(&[end("bye")], &[open("bye")]), at(103) + " set, secondary not set");
    let both = reason(&[end("bye")], &[end("goodbye")]);
    assert!(both.starts_with("TCP payload, byte 0 of the stream as recorded (sequence number 100, "), "{both}");
    let both = reason(&[end("bye")], &[end("bye, bye")]);
    let text = "TCP FIN (sequence number 103, frame 1, frame 2): primary at sequence number 103, secondary at sequence number 108";
    assert_eq!(both, text);
    // The first difference in the stream is the reason.
    let found = differences(&[end("bye")], &[open("bye"), segment(103).payload(b"!").frame()]);
    assert_eq!(found[0].field, "FIN");
    let reset = segment(103).rst().frame();
    let text = "TCP 10.0.0.1:80 > 10.0.0.2:4000 RST, sequence number 103, acknowledges 9";
    assert_eq!(
        reason(&[open("bye"), reset.clone()], &[open("bye")]),
        format!("the secondary did not send this: {text}")
    );
    assert_eq!(reason(&[open("bye")], from_ref(&reset)), format!("the primary did not send this: {text}"));
    // How far a machine had got when it reset the connection is of the moment.
    assert_eq!(differences(&[reset], &[Tcp::new(80, 4000).seq(90).ack(9).rst().frame()]), []);
    let reset = |text: &str| segment(103).rst().payload(text.as_bytes()).frame();
    assert!(reason(&[reset("why")], &[reset("who")]).starts_with("TCP payload, byte 2 (byte 56 of frame 1"));
}

#[test]
fn handshakes() {
    let syn = |seq: u32, options: &[u8]| Tcp::new(80, 4000).seq(seq).ack(9).syn().options(options).frame();
    let offered = [2, 4, 5, 0xB4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7];
    let offer = |change: &dyn Fn(&mut [u8; 20])| {
        let mut options = offered;
        change(&mut options);
        reason(&[syn(100, &offered)], &[syn(777_777, &options)])
    };
    let differ = |field: &str| format!("TCP {field} (frame 1, frame 2): primary ");
    let same = "what was recorded is the same in everything that is compared";
    assert_eq!(offer(&|_| {}), same, "its number is its own");
    assert_eq!(offer(&|options| options[9] = 77), same, "the clock's value");
    assert_eq!(offer(&|options| options[3] = 0xB0), differ("option maximum segment size") + "1460, secondary 1456");
    assert_eq!(offer(&|options| options[19] = 9), differ("option window scale") + "7, secondary 9");
    assert_eq!(offer(&|options| options[4..6].fill(1)), differ("option SACK permitted") + "there, secondary nothing");
    let swapped = [4, 2, 2, 4, 5, 0xB4, 1, 1];
    let text = differ("order of options")
        + "maximum segment size, SACK permitted, secondary SACK permitted, maximum segment size";
    assert_eq!(reason(&[syn(1, &[2, 4, 5, 0xB4, 4, 2, 1, 1])], &[syn(2, &swapped)]), text);
    let other = Tcp::new(80, 4000).seq(5).ack(8).syn().options(&offered).frame();
    assert_eq!(reason(&[syn(1, &offered)], &[other]), differ("acknowledgement number") + "9, secondary 8");
    let other = syn(3, &offered).edit(|bytes| bytes[47] |= 0x40);
    assert_eq!(reason(&[syn(1, &offered)], &[other]), differ("ECE") + "not set, secondary set");
    let early = |text: &[u8]| Tcp::new(80, 4000).seq(5).syn().payload(text).frame();
    assert!(reason(&[early(b"ab")], &[early(b"ac")]).starts_with("TCP payload, byte 1 (byte 55"));
    // What one of them has sent besides.
    assert!(
        reason(&[syn(1, &[]), segment(2).payload(b"x").frame()], &[syn(3, &[])]).starts_with("TCP payload, byte 0")
    );
    let alone = reason(&[syn(1, &[]), segment(2).payload(b"x").frame()], &[segment(2).payload(b"x").frame()]);
    assert!(alone.starts_with("the secondary did not send this: TCP 10.0.0.1:80 > 10.0.0.2:4000 SYN, "), "{alone}");
}

#[test]
fn connections_that_follow_each_other_are_told_apart() {
    let syn = |seq: u32| Tcp::new(80, 4000).seq(seq).ack(9).syn().frame();
    let data = |seq: u32, text: &str| segment(seq).payload(text.as_bytes()).frame();
    // The secondary's SYN has a number of its own, the rest the primary's; sent again it has that, too.
    let primary = [syn(100), data(101, "one"), syn(9000), data(9001, "two")];
    let secondary = [syn(5), syn(100), data(101, "one"), syn(6), data(9001, "twO")];
    let found = differences(&primary, &secondary);
    assert_eq!((found.len(), found[0].place.sequence_number), (1, Some(Seq(9003))));
    // The rest of an earlier connection, which the other has ended.
    let found = differences(&[data(50, "rest"), syn(100), data(101, "x")], &[syn(5), data(101, "x")]);
    assert!(
        found[0]
            .to_string()
            .starts_with("the secondary did not send this: TCP 10.0.0.1:80 > 10.0.0.2:4000, sequence number 50"),
        "{}",
        found[0]
    );
    let found = differences(&[syn(5), data(6, "x")], &[data(50, "rest"), syn(100), data(6, "x")]);
    assert!(found[0].to_string().starts_with("the primary did not send this"), "{}", found[0]);
}

#[test]
fn what_one_machine_has_not_said_so_far() {
    let data = |seq: u32, text: &str| segment(seq).payload(text.as_bytes()).frame();
    let text = reason(&[data(100, "hello"), data(105, "world")], &[data(100, "hel")]);
    assert_eq!(
        text,
        "TCP payload, byte 3 of the stream as recorded (sequence number 103, byte 57 of frame 1): primary 2 bytes \"lo\", \
         secondary nothing"
    );
    let text = reason(&[data(100, "hel")], &[data(100, "hello")]);
    assert!(
        text.ends_with("(sequence number 103, byte 57 of frame 2): primary nothing, secondary 2 bytes \"lo\""),
        "{text}"
    );
    // In a gap.
    let text = reason(&[data(100, "hello")], &[data(100, "h"), data(103, "lo")]);
    assert!(
        text.ends_with("(sequence number 101, byte 55 of frame 1): primary 2 bytes \"el\", secondary nothing"),
        "{text}"
    );
    // What has left before is no reason if there is another.
    let ahead = Tcp::new(80, 4000).seq(100).ack(50).payload(b"hello").frame();
    let text = reason(from_ref(&ahead), &[data(103, "lo")]);
    assert_eq!(text, "TCP acknowledgement number (frame 1, frame 2): primary 50, secondary at most 9");
    let text = reason(&[data(100, "hello")], &[data(103, "lo")]);
    assert!(
        text.contains("(sequence number 100, byte 54 of frame 1): primary 3 bytes \"hel\", secondary nothing"),
        "{text}"
    );
    assert_eq!(differences(&[data(100, "hello")], &[ahead]), [], "the secondary may acknowledge more");
    let urgent = |pointer| segment(100).urgent(pointer).payload(b"hello").frame();
    let text = reason(&[urgent(5)], &[urgent(3)]);
    assert_eq!(text, "TCP urgent data up to sequence number (frame 1, frame 2): primary 105, secondary at most 103");
}

#[test]
fn numbers_that_have_nothing_to_do_with_each_other() {
    let data = |seq: u32| segment(seq).payload(b"hello").frame();
    let text = "TCP sequence number (frame 1, frame 2): primary 4294967290, secondary 1000000000";
    assert_eq!(reason(&[data(u32::MAX - 5)], &[data(1_000_000_000)]), text);
    // Round the end of the numbers they are neighbours.
    assert!(reason(&[data(u32::MAX - 5)], &[data(10)]).starts_with("TCP payload, "));
}

#[test]
fn who_sends_something_else_again_is_found_out() {
    let data = |text: &[u8]| segment(100).payload(text).frame();
    let text = "TCP payload that was sent again, byte 1 of the stream as recorded (sequence number 101, ";
    let found = reason(&[data(b"abc"), data(b"aXc")], &[data(b"abc")]);
    assert_eq!(found, format!("{text}byte 55 of frame 3, byte 55 of frame 2): primary 0x58 'X', secondary 0x62 'b'"));
    let found = reason(&[data(b"abc")], &[data(b"abc"), data(b"aXc")]);
    assert_eq!(found, format!("{text}byte 55 of frame 1, byte 55 of frame 3): primary 0x62 'b', secondary 0x58 'X'"));
}

/// A stream, and the places at which two machines cut it; some pieces are sent twice, and the order is arbitrary.
fn cut(bytes: &[u8], first: u32, cuts: &[usize], again: &[usize], swaps: &[usize], way: usize) -> Vec<Frame> {
    let mut cuts: Vec<usize> = cuts.iter().map(|at| at % bytes.len()).chain([0, bytes.len()]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut pieces: Vec<(usize, usize)> = cuts.windows(2).map(|ends| (ends[0], ends[1])).collect();
    for at in again {
        // From the beginning of one piece to the end of the next.
        let at = at % pieces.len();
        pieces.push((pieces[at].0, pieces[(at + 1).min(pieces.len() - 1)].1.max(pieces[at].1)));
    }
    for at in swaps {
        let count = pieces.len();
        pieces.swap(at % count, at / count % count);
    }
    let frame = |(from, to): (usize, usize)| {
        carried(way, &segment(first.wrapping_add(from as u32)).payload(&bytes[from..to]).frame())
    };
    pieces.into_iter().map(frame).collect()
}

prop_compose! {
    fn cutting()(
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        again in prop::collection::vec(any::<usize>(), 0..4),
        swaps in prop::collection::vec(any::<usize>(), 0..6),
    ) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
        (cuts, again, swaps)
    }
}

proptest! {
    #[test]
    fn a_changed_byte_of_a_stream_is_named(
        bytes in prop::collection::vec(any::<u8>(), 1..400),
        first: u32,
        at: prop::sample::Index,
        xor in 1..=u8::MAX,
        (ours, theirs) in (cutting(), cutting()),
        way in 0..CARRIERS,
    ) {
        let at = at.index(bytes.len());
        let mut other = bytes.clone();
        other[at] ^= xor;
        let primary = cut(&bytes, first, &ours.0, &ours.1, &ours.2, way);
        let secondary = cut(&other, first, &theirs.0, &theirs.1, &theirs.2, way);
        let explanation = explain(&miscompare("", &primary, &secondary));
        let found = &explanation.differences[0];
        prop_assert_eq!((found.protocol, found.field.as_str()), ("TCP", "payload"));
        prop_assert_eq!(found.place.sequence_number, Some(Seq(first.wrapping_add(at as u32))));
        prop_assert_eq!(found.place.payload_offset, Some(at as u64));
        prop_assert_eq!((&found.primary, &found.secondary), (&Some(byte(bytes[at])), &Some(byte(other[at]))));
        // It is where it is said to be.
        let pairs = primary.len().min(secondary.len());
        let index = |number: usize| if number <= 2 * pairs { (number - 1) / 2 } else { number - 1 - pairs };
        let frame = |frames: &[Frame], number: Option<usize>, offset: Option<usize>| frames[index(number.unwrap())][offset.unwrap()];
        prop_assert_eq!(frame(&primary, found.place.primary_frame, found.place.primary_offset), bytes[at]);
        prop_assert_eq!(frame(&secondary, found.place.secondary_frame, found.place.secondary_offset), other[at]);
        let [in_ours, in_theirs] = found.excerpts.as_ref().unwrap();
        prop_assert_eq!((in_ours.bytes[in_ours.at], in_theirs.bytes[in_theirs.at]), (bytes[at], other[at]));
        prop_assert_eq!(explanation.differences.len(), 1);
    }

    #[test]
    fn equal_streams_are_equal_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 1..400),
        first: u32,
        (ours, theirs) in (cutting(), cutting()),
        way in 0..CARRIERS,
    ) {
        let primary = cut(&bytes, first, &ours.0, &ours.1, &ours.2, way);
        let secondary = cut(&bytes, first, &theirs.0, &theirs.1, &theirs.2, way);
        prop_assert_eq!(differences(&primary, &secondary), []);
    }

    #[test]
    fn a_changed_byte_of_a_datagram_is_named(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..5),
        (frame, at) in any::<(prop::sample::Index, prop::sample::Index)>(),
        xor in 1..=u8::MAX,
        is_v6: bool,
        is_tagged: bool,
    ) {
        let frame = frame.index(payloads.len());
        let at = at.index(payloads[frame].len());
        let frames = |payloads: &[Vec<u8>]| -> Vec<Frame> {
            let udp = |payload: &Vec<u8>| if is_v6 { udp6(53, 4000, payload) } else { udp(53, 4000, payload) };
            payloads.iter().map(udp).map(|frame| if is_tagged { tagged(&frame, &[(0x8100, 5)]) } else { frame }).collect()
        };
        let mut others = payloads.clone();
        others[frame][at] ^= xor;
        let found = &differences(&frames(&payloads), &frames(&others))[0];
        prop_assert_eq!((found.protocol, found.field.as_str()), ("UDP", "payload"));
        prop_assert_eq!((found.place.primary_frame, found.place.payload_offset), (Some(2 * frame + 1), Some(at as u64)));
        prop_assert_eq!((&found.primary, &found.secondary), (&Some(byte(payloads[frame][at])), &Some(byte(others[frame][at]))));
    }

    #[test]
    fn arbitrary_frames_are_no_danger(
        primary in prop::collection::vec(frame(), 0..5),
        secondary in prop::collection::vec(frame(), 0..5),
        what in "(payload differs at [0-9]{0,4})?",
    ) {
        let _ = explain(&miscompare(&what, &primary, &secondary)).to_string();
        let _ = explain(&miscompare(&what, &primary, &primary)).to_string();
    }
}

/// Arbitrary bytes, or a good frame with some of it changed.
fn frame() -> impl Strategy<Value = Frame> {
    let good = prop::sample::select(vec![
        udp(53, 4000, b"answer"),
        udp6(53, 4000, b"answer"),
        segment(100).payload(b"hello").frame(),
        Tcp::new(80, 4000).seq(1).syn().options(&[2, 4, 5, 0xB4]).frame(),
        segment(u32::MAX).fin().payload(b"bye").frame(),
        segment(0x8000_0000).urgent(7).payload(b"bye").frame(),
        segment(5).rst().frame(),
        echo_reply(1, 2, b"ping"),
        echo_reply6(1, 2, b"ping"),
        arp_request(CLIENT),
    ]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let changed = (good, changes).prop_map(|(frame, changes)| {
        frame.edit(|bytes| changes.iter().for_each(|(at, byte)| bytes[at.index(bytes.len())] = *byte))
    });
    prop_oneof![4 => changed, 1 => prop::collection::vec(any::<u8>(), 0..80).prop_map(Frame::from)]
}
