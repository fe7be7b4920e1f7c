//! Connections that come and go, and those that carry what they should not.

use crate::frames::nothing_else_has_left;
use crate::rig::{Rig, is_socket};
use colo_core::net::Frame;
use colo_core::net::qemu::{MAX_FRAME_BYTES, NotifyMessage};
use colo_core::net::testing::udp;
use colo_core::standalone::{Address, Server, ServerConfig};
use std::io::Write;
use std::os::unix::net::UnixListener;

fn numbered(count: u16) -> Vec<Frame> {
    (0..count).map(|number| udp(53, 4000, &[&number.to_be_bytes()[..], &[7; 1000]].concat())).collect()
}

#[test]
fn bad_framing_ends_that_connection_alone() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let mut toolstack = rig.toolstack();
    let frames = numbered(4);
    let too_long = (MAX_FRAME_BYTES as u32 + 1).to_be_bytes();
    for bad in [[0; 4], too_long, [0xff; 4]] {
        // What came before counts, and what was held is held on.
        primary.send(&frames[..1]);
        primary.send_bytes(&[&bad[..], b"whatever follows"].concat());
        primary.expect_end();
        primary = rig.connect("primary-in");
        secondary.send(&frames[..1]);
        out.expect(&frames[..1]);

        secondary.send(&frames[1..2]);
        secondary.send_bytes(&bad);
        secondary.expect_end();
        secondary = rig.connect("secondary-in");
        primary.send(&frames[1..]);
        secondary.send(&frames[2..]);
        out.expect(&frames[1..]);

        toolstack.socket.write_all(&bad).unwrap();
        assert_eq!(std::io::Read::read(&mut toolstack.socket, &mut [0]).unwrap(), 0);
        toolstack = rig.toolstack();
    }
    assert_eq!(rig.totals().bad_framings, 9);
}

#[test]
fn vnet_headers_where_there_are_none_and_none_where_there_are() {
    let frame = [udp(53, 4000, b"a datagram")];
    for has_vnet_header in [false, true] {
        let rig = Rig::start(|config| config.vnet_header = has_vnet_header);
        let mut wrong = crate::rig::Link::connect(rig.address("primary-in"), !has_vnet_header);
        wrong.vnet_header_bytes = 12;
        // A length is read from the wrong place, and makes no sense there.
        wrong.send(&frame);
        wrong.expect_end();
        assert_eq!(rig.totals().bad_framings, 1);
    }
}

#[test]
fn a_frame_that_was_cut_off_never_comes() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let frames = numbered(3);
    let wire = primary.encode(&frames[..1]);
    primary.send_bytes(&wire[..wire.len() - 1]);
    drop(primary);
    let mut primary = rig.connect("primary-in");
    // Were the old bytes still there, these would be one frame with them.
    primary.send(&frames[1..]);
    secondary.send(&frames[1..]);
    out.expect(&frames[1..]);
}

#[test]
fn what_is_held_of_the_primary_leaves_without_it() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let frames = numbered(6);
    primary.send(&frames[..3]);
    rig.wait_for(|totals| totals.held_frames() == 3);
    drop(primary);
    secondary.send(&frames[..2]);
    out.expect(&frames[..2]);
    let mut primary = rig.connect("primary-in");
    primary.send(&frames[3..]);
    secondary.send(&frames[2..]);
    out.expect(&frames[2..]);
}

#[test]
fn what_out_did_not_get_goes_to_the_next() {
    let rig = Rig::start(|config| config.compare.max_flow_bytes = config.compare.max_held_bytes);
    let (mut primary, mut secondary, out) = rig.machines();
    let frames = numbered(10_000);
    std::thread::scope(|scope| {
        scope.spawn(|| primary.send(&frames));
        scope.spawn(|| secondary.send(&frames));
        // It has backed up, and the socket is full, hardly at the end of a frame.
        let totals = rig.wait_for(|totals| totals.waiting_frames > 1000);
        drop(out);
        let mut out = rig.connect("out");
        let first = out.receive().unwrap();
        let number = frames.iter().position(|frame| *frame == first).expect("the beginning of a frame");
        // What the old connection had got is gone with it, and no more.
        assert!(number > 0 && number as u64 <= totals.sent_frames + 1, "{number}, {totals}");
        out.expect(&frames[number + 1..]);
    });
}

#[test]
fn who_comes_second_waits() {
    let rig = Rig::start(|_| {});
    let (mut primary, mut secondary, mut out) = rig.machines();
    let frames = numbered(2);
    let mut next = rig.connect("primary-in");
    next.send(&frames[1..]);
    primary.send(&frames[..1]);
    secondary.send(&frames[..1]);
    out.expect(&frames[..1]);
    secondary.send(&frames[1..]);
    nothing_else_has_left(&mut primary, &mut secondary, &mut out, 1);
    drop(primary);
    out.expect(&frames[1..]);
}

#[test]
fn strangers_do_no_harm() {
    let rig = Rig::start(|_| {});
    for name in ["primary", "secondary", "out", "notify"] {
        assert!(is_socket(&rig.path(name)));
    }
    // One that has nothing to say where nothing is to be said.
    let mut talker = rig.connect("out");
    talker.send_bytes(b"hello");
    talker.expect_end();
    let (mut primary, mut secondary, mut out) = rig.machines();
    nothing_else_has_left(&mut primary, &mut secondary, &mut out, 1);
    rig.toolstack();
}

#[test]
fn a_message_that_is_not_known_is_left_aside() {
    let rig = Rig::start(|_| {});
    let mut toolstack = rig.toolstack();
    toolstack.say(&NotifyMessage::Other("COLO_FAILOVER".into()));
    toolstack.say(&NotifyMessage::ProxyInit);
    assert_eq!(toolstack.hear(), NotifyMessage::XenInit);
    // With the second length, as QEMU wants it when there are vnet headers.
    toolstack.socket.write_all(b"\0\0\0\x19\0\0\0\0COLO_USERSPACE_PROXY_INIT").unwrap();
    assert_eq!(toolstack.hear(), NotifyMessage::XenInit);
}

#[test]
fn sockets_of_others_are_left_alone() {
    let rig = Rig::start(|_| {});
    let (mine, foreign) = (rig.path("mine"), rig.path("foreign"));
    std::fs::write(&foreign, "precious").unwrap();
    let unix = |path: &std::path::Path| Address::Unix(path.into());
    let taken = rig.address("out").clone();
    let config = ServerConfig::new(unix(&mine), taken.clone(), unix(&foreign));
    let error = Server::bind(&config).unwrap_err();
    assert_eq!(
        (error.name, &error.address, error.source.kind()),
        ("secondary-in", &taken, std::io::ErrorKind::AddrInUse)
    );
    assert!(!mine.exists(), "what was made is removed again");
    // One that is left from a process that was killed is replaced.
    drop(UnixListener::bind(&mine).unwrap());
    let config = ServerConfig::new(unix(&mine), unix(&rig.path("other")), unix(&foreign));
    let error = Server::bind(&config).unwrap_err();
    assert_eq!((error.name, error.source.kind()), ("out", std::io::ErrorKind::AlreadyExists));
    assert_eq!(std::fs::read(&foreign).unwrap(), b"precious");
    std::fs::remove_file(&foreign).unwrap();
    assert!(is_socket(&rig.path("out")));
}
