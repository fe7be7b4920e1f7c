//! What goes through: all kinds of frames, in order, byte for byte.

use crate::rig::{Link, Rig};
use colo_core::net::testing::{Tcp, arp_request, echo_reply, echo_reply6, tagged, udp, udp6};
use colo_core::net::{Frame, Offload};
use colo_core::standalone::Address;
use std::net::Ipv4Addr;

/// Frames of several flows of each kind, mixed; all different, those of one flow too.
pub(crate) fn mixture(count: usize) -> Vec<Frame> {
    (0..count)
        .map(|number| {
            let text = format!("number {number}").repeat(1 + number % 40);
            let payload = text.as_bytes();
            let flow = (number / 8 % 3) as u16;
            match number % 8 {
                0 => udp(53, 4000 + flow, payload),
                1 => echo_reply(flow, number as u16, payload),
                2 => Tcp::new(80, 4000 + flow).seq(1000 * number as u32).ack(1).payload(payload).frame(),
                3 => arp_request(Ipv4Addr::from((10 << 24) + number as u32)),
                4 => tagged(&udp(53, 4000 + flow, payload), &[(0x8100, 5 + flow)]),
                5 => udp6(53, 4000 + flow, payload),
                6 => echo_reply6(flow, number as u16, payload),
                _ => [&[2; 12], &[0x88, 0xb5][..], payload].concat().into(),
            }
        })
        .collect()
}

fn all_comes_in_order(rig: &Rig) {
    let (mut primary, mut secondary, mut out) = rig.machines();
    let frames = mixture(400);
    primary.send(&frames);
    secondary.send(&frames);
    out.expect(&frames);
    // The secondary first.
    let more: Vec<Frame> = mixture(800).split_off(400);
    secondary.send(&more);
    rig.wait_for(|totals| totals.counters.secondary_frames == 800);
    primary.send(&more);
    out.expect(&more);
}

#[test]
fn in_order_over_unix_sockets() {
    all_comes_in_order(&Rig::start(|_| {}));
}

#[test]
fn in_order_over_tcp() {
    let rig = Rig::start(|config| {
        let port = |host: &str| Address::Tcp { host: host.into(), port: 0 };
        (config.primary_in, config.secondary_in) = (port("127.0.0.1"), port("localhost"));
        (config.out, config.notify) = (port("127.0.0.1"), Some(port("127.0.0.1")));
    });
    all_comes_in_order(&rig);
    rig.toolstack();
}

#[test]
fn however_the_bytes_are_cut() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let frames = mixture(16);
    for byte in primary.encode(&frames) {
        primary.send_bytes(&[byte]);
    }
    let wire = secondary.encode(&frames);
    for piece in wire.chunks(1001) {
        secondary.send_bytes(piece);
    }
    out.expect(&frames);
}

#[test]
fn as_long_as_a_card_that_segments_makes_them() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let frames: Vec<Frame> = (0..20)
        .map(|number: u32| Tcp::new(80, 4000).seq(60_000 * number).ack(1).payload(&[number as u8; 60_000]).frame())
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| primary.send(&frames));
        scope.spawn(|| secondary.send(&frames));
        out.expect(&frames);
    });
}

/// QEMU gives them out last first.
#[test]
fn datagrams_keep_their_order_when_out_backs_up() {
    // The one machine may be far ahead of the other.
    let rig = Rig::start(|config| config.compare.max_flow_bytes = config.compare.max_held_bytes);
    let (mut primary, mut secondary, mut out) = rig.machines();
    let datagram = |number: u16| match number % 2 {
        0 => udp(53, 4000, &[&number.to_be_bytes()[..], &[7; 1400]].concat()),
        _ => echo_reply(1, number, &[7; 1400]),
    };
    // More than all sockets take, and less than its queue.
    let frames: Vec<Frame> = (0..8000).map(datagram).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| primary.send(&frames));
        scope.spawn(|| secondary.send(&frames));
        // Nothing is read from `out` before it has backed up.
        rig.wait_for(|totals| totals.waiting_frames > 1000);
        out.expect(&frames);
    });
    let totals = rig.totals();
    assert_eq!((totals.sent_frames, totals.divergences, totals.held_frames()), (8000, 0, 0), "{totals}");
}

/// Any bytes, so that nothing is made up.
fn offload(number: u8) -> Offload {
    Offload::from_header(std::array::from_fn(|at| number.wrapping_mul(31).wrapping_add(at as u8)))
}

#[test]
fn vnet_headers_are_kept() {
    let rig = Rig::start(|config| config.vnet_header = true);
    let (mut primary, mut secondary, mut out) = rig.machines();
    for (number, header_bytes) in [10, 10, 12, 20, 0, 12].into_iter().enumerate() {
        let number = number as u8;
        let header = if header_bytes == 0 { Offload::default() } else { offload(number) };
        let frame = udp(53, 4000, &[number; 100]).with_offload(header);
        (primary.vnet_header_bytes, secondary.vnet_header_bytes) = (header_bytes, header_bytes);
        primary.send(std::slice::from_ref(&frame));
        // The secondary's may have other things to do, but is cut into as many.
        let other = Offload { gso_type: header.gso_type, gso_size: header.gso_size, ..offload(number + 1) };
        secondary.send(&[frame.clone().with_offload(other)]);
        out.expect(&[frame]);
        assert_eq!(out.received_vnet_header_bytes(), header_bytes);
    }
}

/// The one guest leaves the checksum to the card, the other does not.
#[test]
fn checksums_that_are_left_to_the_card_make_no_difference() {
    let rig = Rig::start(|config| config.vnet_header = true);
    let (mut primary, mut secondary, mut out) = rig.machines();
    (primary.vnet_header_bytes, secondary.vnet_header_bytes) = (12, 12);
    let whole = [
        Tcp::new(80, 4000).seq(7).ack(1).payload(b"a segment").frame(),
        Tcp::new(80, 4000).seq(16).ack(1).payload(b"another").frame(),
        udp(53, 4000, b"a datagram"),
        udp(53, 4000, b"another"),
    ];
    let partial = |frame: &Frame, checksum_offset: u16| {
        let offload = Offload { flags: 1, checksum_start: 34, checksum_offset, ..Offload::default() };
        let at = usize::from(34 + checksum_offset);
        frame.clone().edit(|bytes| bytes[at..at + 2].copy_from_slice(&[0x12, 0x34])).with_offload(offload)
    };
    let partly = [partial(&whole[0], 16), partial(&whole[1], 16), partial(&whole[2], 6), partial(&whole[3], 6)];
    let one = [partly[0].clone(), whole[1].clone(), partly[2].clone(), whole[3].clone()];
    let other = [whole[0].clone(), partly[1].clone(), whole[2].clone(), partly[3].clone()];
    primary.send(&one);
    secondary.send(&other);
    out.expect(&one);
}

/// A frame that nobody understands is compared all the same.
#[test]
fn malformed_frames_are_compared_whole() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    let frames: Vec<Frame> = [1, 5, 13, 14, 20].map(|bytes| Frame::from(vec![bytes as u8; bytes])).into();
    primary.send(&frames);
    secondary.send(&frames);
    out.expect(&frames);
    primary.send(&frames[..1]);
    secondary.send(&[Frame::from(vec![2])]);
    toolstack.take_checkpoint();
    out.expect(&frames[..1]);
}

/// What is held does not leave with what follows it, whatever flow that is of.
pub(crate) fn nothing_else_has_left(primary: &mut Link, secondary: &mut Link, out: &mut Link, mark: u16) {
    let marker = [udp(9, mark, b"a mark")];
    primary.send(&marker);
    secondary.send(&marker);
    out.expect(&marker);
}
