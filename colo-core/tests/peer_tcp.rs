//! The two channels over real TCP connections.

use colo_core::ids::{Epoch, PAGE_SIZE};
use colo_core::peer::{
    FRAME_HEADER_BYTES, FrameEncoder, MAX_QUEUED_BYTES, MAX_STREAM_BYTES, Message, NetChannel, NetFrame, PeerError,
    Queued, StateChannel,
};
use std::io::{ErrorKind, IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any of these tests takes, so that none passes by running out of time.
const PATIENCE: Duration = Duration::from_secs(60);

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// A primary's and a secondary's end of one connection.
fn pair() -> (StateChannel, StateChannel) {
    let (primary, secondary) = sockets();
    (StateChannel::new(primary, PATIENCE).unwrap(), StateChannel::new(secondary, PATIENCE).unwrap())
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let primary = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (primary, listener.accept().unwrap().0)
}

/// Waits until there is something to read.
fn wait(channel: &NetChannel) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&channel.poll_fd(), PollFlags::IN)], Some(&timeout)).unwrap();
    assert_ne!(ready, 0, "nothing happens on the connection");
}

#[test]
fn a_checkpoint_goes_over_in_more_slices_than_the_system_takes() {
    let (primary, mut secondary) = pair();
    let (mut primary, _) = primary.split();
    let pages: Vec<[u8; PAGE_SIZE]> = (0..1500_u32).map(|page| [page as u8; PAGE_SIZE]).collect();
    let whole = pages.concat();
    let sender = thread::spawn(move || {
        let parts: Vec<_> = pages.iter().map(|page| IoSlice::new(page)).collect();
        primary.send_stream(&parts).unwrap();
        let sum = primary.take_sent_sum();
        primary.send(&Message::EpochEnd { epoch: Epoch(1), stream_bytes: sum.bytes(), crc: sum.crc() }).unwrap();
    });
    let Some(Message::Stream(bytes)) = secondary.recv(deadline()).unwrap() else { panic!("no stream") };
    assert!(bytes == whole);
    let end = Message::EpochEnd { epoch: Epoch(1), stream_bytes: whole.len() as u64, crc: crc32c::crc32c(&whole) };
    assert_eq!(secondary.recv(deadline()).unwrap(), Some(end));
    assert!(matches!(secondary.recv(deadline()), Err(PeerError::Closed)));
    sender.join().unwrap();
}

#[test]
fn a_message_is_not_lost_when_its_second_half_comes_after_the_deadline() {
    let (mut raw, secondary) = sockets();
    let mut secondary = StateChannel::new(secondary, PATIENCE).unwrap();
    let mut bytes = Vec::new();
    FrameEncoder::new().encode(&Message::Refused("not today".into()), &mut bytes).unwrap();
    for half in bytes.chunks(FRAME_HEADER_BYTES + 3) {
        assert_eq!(secondary.recv(Instant::now() + Duration::from_millis(20)).unwrap(), None);
        raw.write_all(half).unwrap();
    }
    assert_eq!(secondary.recv(deadline()).unwrap(), Some(Message::Refused("not today".into())));
}

#[test]
fn a_connection_that_ends_within_a_message() {
    let (mut raw, secondary) = sockets();
    let mut secondary = StateChannel::new(secondary, PATIENCE).unwrap();
    let mut bytes = Vec::new();
    FrameEncoder::new().encode(&Message::Heartbeat { number: 1 }, &mut bytes).unwrap();
    raw.write_all(&bytes[..FRAME_HEADER_BYTES + 1]).unwrap();
    drop(raw);
    let error = secondary.recv(deadline()).unwrap_err();
    assert!(matches!(error, PeerError::Truncated { needed: 32, got: 25 }), "{error}");
}

#[test]
fn whoever_waits_can_be_woken_by_ending_the_connection() {
    let (_primary, mut secondary) = pair();
    let handle = secondary.shutdown_handle().unwrap();
    let waiting = thread::spawn(move || secondary.recv(deadline()));
    handle.shutdown();
    assert!(matches!(waiting.join().unwrap(), Err(PeerError::Closed)));
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let (primary, _secondary) = sockets();
    let mut primary = StateChannel::new(primary, Duration::from_millis(50)).unwrap();
    let records = vec![0; MAX_STREAM_BYTES];
    // More than any kernel buffers for one connection.
    let error = (0..100).find_map(|_| primary.send_stream(&[IoSlice::new(&records)]).err()).unwrap();
    assert!(matches!(error, PeerError::Stalled(_)), "{error}");
}

#[test]
fn what_cannot_be_sent_leaves_the_channel_as_it_was() {
    let (mut primary, mut secondary) = pair();
    let frame = NetFrame { nic: 200, frame: "x".into() };
    let refused = primary.send(&Message::Input { epoch: Epoch(1), again: false, frames: vec![frame] });
    assert!(matches!(refused, Err(PeerError::Payload { .. })));
    let records = vec![0; MAX_STREAM_BYTES + 1];
    assert!(matches!(primary.send_stream(&[IoSlice::new(&records)]), Err(PeerError::TooLong { .. })));
    primary.send(&Message::Welcome).unwrap();
    assert_eq!(secondary.recv(deadline()).unwrap(), Some(Message::Welcome));
}

#[test]
fn a_host_that_does_not_listen_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = StateChannel::connect(&address, PATIENCE, deadline()).unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { .. }));
    assert!(error.to_string().contains(&format!("{address}: ")), "{error}");
    let late = StateChannel::connect(&address, PATIENCE, Instant::now()).unwrap_err();
    assert!(late.to_string().contains("no time left"), "{late}");
}

fn packets(epoch: u64) -> Message {
    let frames = vec![NetFrame { nic: 1, frame: vec![epoch as u8; 1400].into() }; 700];
    Message::Output { epoch: Epoch(epoch), first: 0, frames }
}

#[test]
fn a_full_queue_takes_no_packets_but_the_last_word() {
    let (primary, secondary) = pair();
    let (mut primary, mut secondary) = (primary.into_net(), secondary.into_net());
    let mut sent = Vec::new();
    while primary.queue(&packets(sent.len() as u64)).unwrap() == Queued::Yes {
        sent.push(packets(sent.len() as u64));
    }
    assert!(sent.len() >= 7, "8 MiB hold {} messages of less than 1 MiB", sent.len());
    let last = Message::Heartbeat { number: 1 };
    assert_eq!(primary.queue(&last).unwrap(), Queued::Yes);
    sent.push(last);
    assert!(primary.queued_bytes() <= MAX_QUEUED_BYTES);

    let mut got = Vec::new();
    while got.len() < sent.len() {
        primary.flush().unwrap();
        wait(&secondary);
        secondary.receive(&mut got).unwrap();
    }
    assert!(got == sent);
    assert!(!primary.wants_write());
    assert_eq!(primary.queue(&packets(0)).unwrap(), Queued::Yes, "there is room again");
}

#[test]
fn a_full_queue_has_an_end_for_heartbeats_too() {
    let (primary, _secondary) = pair();
    let mut primary = primary.into_net();
    while primary.queue(&packets(0)).unwrap() == Queued::Yes {}
    let is_taken = |number: &u64| primary.queue(&Message::Heartbeat { number: *number }).unwrap() == Queued::Yes;
    let taken = (0..1_000_000).take_while(is_taken).count();
    assert!((2048..1_000_000).contains(&taken), "64 KiB are kept for them, {taken} fit");
    assert!(primary.queued_bytes() <= MAX_QUEUED_BYTES);
}

#[test]
fn what_came_before_the_end_is_received() {
    let (mut primary, secondary) = pair();
    let mut secondary = secondary.into_net();
    let mut got = Vec::new();
    assert_eq!(secondary.receive(&mut got).unwrap(), 0, "nothing has come, and nothing waits");
    primary.send(&Message::Heartbeat { number: 0 }).unwrap();
    primary.send(&Message::Heartbeat { number: 1 }).unwrap();
    drop(primary);
    let error = loop {
        wait(&secondary);
        if let Err(error) = secondary.receive(&mut got) {
            break error;
        }
    };
    assert!(matches!(error, PeerError::Closed), "{error}");
    assert_eq!(got, [Message::Heartbeat { number: 0 }, Message::Heartbeat { number: 1 }]);
}

#[test]
fn sending_to_a_peer_that_is_gone_is_an_error() {
    let (primary, secondary) = pair();
    let mut primary = primary.into_net();
    drop(secondary);
    let error = loop {
        assert_eq!(primary.queue(&packets(0)).unwrap(), Queued::Yes);
        if let Err(error) = primary.flush() {
            break error;
        }
    };
    let is_gone = |kind| matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
    assert!(matches!(&error, PeerError::Io { source, .. } if is_gone(source.kind())), "{error}");
}

#[test]
fn the_net_channel_goes_on_where_the_handshake_ended() {
    let (mut primary, mut secondary) = pair();
    primary.send(&Message::Welcome).unwrap();
    primary.send(&Message::Heartbeat { number: 0 }).unwrap();
    assert_eq!(secondary.recv(deadline()).unwrap(), Some(Message::Welcome));
    let (mut primary, mut secondary) = (primary.into_net(), secondary.into_net());
    assert_eq!(primary.queue(&Message::Heartbeat { number: 1 }).unwrap(), Queued::Yes);
    primary.flush().unwrap();
    let mut got = Vec::new();
    while got.len() < 2 {
        wait(&secondary);
        secondary.receive(&mut got).unwrap();
    }
    assert_eq!(got, [Message::Heartbeat { number: 0 }, Message::Heartbeat { number: 1 }]);
}
