//! Ports: who gets which frame, hang-ups, and ports that do not read.

use crate::running::Running;
use colo_core::net::{Frame, MAX_FRAME_BYTES, Port};
use colo_embedded::switch::{Switch, SwitchConfig, SwitchError, SwitchPort};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;

const BROADCAST: [u8; 6] = [0xff; 6];

fn address(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

fn frame(destination: [u8; 6], source: [u8; 6], payload: &[u8]) -> Frame {
    // A type that nobody's stack handles (IEEE 802: local experiments).
    [&destination[..], &source, &[0x88, 0xb5], payload].concat().into()
}

/// The next frames, at least one.
fn wait(port: &mut SwitchPort) -> io::Result<Vec<Frame>> {
    let mut frames = Vec::new();
    while port.receive(&mut frames)? == 0 {
        poll(&mut [PollFd::new(&port.poll_fd(), PollFlags::IN)], None)?;
    }
    Ok(frames)
}

fn send(port: &mut SwitchPort, frame: &Frame) {
    assert_eq!(port.send(std::slice::from_ref(frame)).unwrap(), 1);
}

/// Makes `to` known to the switch, by a frame that `witness` gets.
fn introduce(port: &mut SwitchPort, who: u8, witness: &mut SwitchPort) {
    let hello = frame(BROADCAST, address(who), b"hello");
    send(port, &hello);
    while wait(witness).unwrap().last() != Some(&hello) {}
}

#[test]
fn known_addresses_get_their_frames_alone_and_in_order() {
    let switch = Running::start(&[]);
    let (mut a, mut b, mut c) = (switch.plug_in(), switch.plug_in(), switch.plug_in());
    // Each port is known to be accepted once it has got a frame; the first broadcast may come before the others are.
    let meet = |from: &mut SwitchPort, who: u8, to: &mut SwitchPort| {
        let hello = frame(BROADCAST, address(who), &[who]);
        send(from, &hello);
        poll(&mut [PollFd::new(&to.poll_fd(), PollFlags::IN)], None).unwrap();
    };
    meet(&mut a, 1, &mut c);
    meet(&mut b, 2, &mut c);
    wait(&mut c).unwrap();
    let first = frame(address(1), address(2), b"to a alone");
    send(&mut b, &first);
    while wait(&mut a).unwrap().last() != Some(&first) {}

    let frames: Vec<Frame> = (0..500_u32).map(|number| frame(address(2), address(1), &number.to_le_bytes())).collect();
    let mut sent = 0;
    let mut got: Vec<Frame> = Vec::new();
    while got.len() < frames.len() {
        sent += a.send(&frames[sent..]).unwrap();
        got.extend(wait(&mut b).unwrap().into_iter().filter(|frame| frame[..6] == address(2)));
    }
    assert_eq!(got, frames);
    // Nothing of all that came to c: the next that it gets is the next broadcast.
    let last = frame(BROADCAST, address(1), b"the end");
    send(&mut a, &last);
    let at_c = wait(&mut c).unwrap();
    assert!(at_c.iter().all(|frame| frame[..6] == BROADCAST), "{at_c:?}");
    let counters = switch.stop();
    assert_eq!(counters.frames_dropped, 0);
}

#[test]
fn an_address_moves_with_its_frames() {
    let switch = Running::start(&[]);
    let (mut client, mut old) = (switch.plug_in(), switch.plug_in());
    introduce(&mut client, 9, &mut old);
    introduce(&mut old, 1, &mut client);
    let mut new = switch.plug_in();
    introduce(&mut new, 1, &mut client);
    let question = frame(address(1), address(9), b"who is it?");
    send(&mut client, &question);
    assert_eq!(wait(&mut new).unwrap(), [question]);
    // The old port got the new one's broadcast, and nothing else.
    let at_old = wait(&mut old).unwrap();
    assert!(at_old.iter().all(|frame| frame[..6] == BROADCAST));
}

#[test]
fn a_hang_up_forgets_the_addresses_behind_the_port() {
    let switch = Running::start(&[]);
    let (mut client, mut machine) = (switch.plug_in(), switch.plug_in());
    introduce(&mut client, 9, &mut machine);
    introduce(&mut machine, 1, &mut client);
    let mut spare = switch.plug_in();
    introduce(&mut spare, 2, &mut client);
    drop(machine);
    // Flooded again once the hang-up has been seen, which is at once, but not by any promise.
    let question = frame(address(1), address(9), b"anybody?");
    let mut frames = Vec::new();
    while frames.is_empty() {
        send(&mut client, &question);
        let fd = spare.poll_fd();
        let mut ready = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut ready, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap();
        spare.receive(&mut frames).unwrap();
    }
    assert_eq!(frames[0], question);
}

#[test]
fn a_port_that_does_not_read_loses_its_own_frames_only() {
    let switch = Running::start(&[]);
    let (mut a, mut b, mut deaf) = (switch.plug_in(), switch.plug_in(), switch.plug_in());
    introduce(&mut deaf, 3, &mut b);
    introduce(&mut b, 2, &mut a);
    let mut received = 0;
    let batch: Vec<Frame> = vec![frame(BROADCAST, address(1), &[7; 1400]); 64];
    // 20 MB: more than the queue and the socket's buffer together take.
    for _ in 0..224 {
        let mut sent = 0;
        while sent < batch.len() {
            sent += a.send(&batch[sent..]).unwrap();
            if sent < batch.len() {
                poll(&mut [PollFd::new(&a.poll_fd(), PollFlags::OUT)], None).unwrap();
            }
        }
        let goal = received + batch.len();
        while received < goal {
            received += wait(&mut b).unwrap().iter().filter(|frame| frame.len() > 1400).count();
        }
    }
    assert!(switch.stop().frames_dropped > 0);
}

#[test]
fn the_longest_frame_passes_and_longer_ones_do_not() {
    let switch = Running::start(&[]);
    let (mut a, mut b) = (switch.plug_in(), switch.plug_in());
    introduce(&mut b, 2, &mut a);
    let longest = frame(BROADCAST, address(1), &vec![5; MAX_FRAME_BYTES - 14]);
    let longer = frame(BROADCAST, address(1), &vec![6; MAX_FRAME_BYTES - 13]);
    let short = frame(BROADCAST, address(1), b"");
    assert_eq!(a.send(&[longer, longest.clone(), Frame::from_static(b"runt"), short.clone()]).unwrap(), 4);
    let mut got = Vec::new();
    while got.len() < 2 {
        got.extend(wait(&mut b).unwrap());
    }
    assert!(got == [longest, short]);
}

#[test]
fn the_end_of_the_switch_is_seen_and_its_file_removed() {
    let switch = Running::start(&[]);
    let path = switch.path.clone();
    let mut port = switch.plug_in();
    let second = Switch::new(&SwitchConfig::new(&path));
    assert!(matches!(second, Err(SwitchError::Socket { source, .. }) if source.kind() == io::ErrorKind::AddrInUse));
    assert!(path.exists());
    switch.stop();
    assert!(!path.exists());
    let gone = wait(&mut port).unwrap_err().kind();
    assert!(matches!(gone, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{gone:?}");
}

#[test]
fn senseless_settings_are_refused() {
    let path = crate::running::directory().join("lan.sock");
    let with = |change: &dyn Fn(&mut SwitchConfig)| {
        let mut config = SwitchConfig::new(&path);
        change(&mut config);
        Switch::new(&config).err().unwrap()
    };
    let outside = with(&|config| {
        config.forwards.push("127.0.0.1:0=10.78.0.1:80".parse().unwrap());
    });
    assert!(matches!(outside, SwitchError::Target { .. }));
    assert!(matches!(with(&|config| config.prefix_len = 33), SwitchError::Address { .. }));
    assert!(matches!(with(&|config| config.mac.0[0] = 3), SwitchError::Mac(_)));
    assert!(matches!(with(&|config| config.tap = Some("a/b".into())), SwitchError::Tap { .. }));
    assert!(!path.exists());
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}
