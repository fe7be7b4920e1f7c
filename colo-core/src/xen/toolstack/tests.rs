//! The handover and the channel, with libxl and the helper played by the test.

use super::messages::{MISSING_CPUID, Message};
use super::*;
use crate::ids::DomId;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, sendmsg, socket_with, socketpair,
};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A pair of sockets in the place of libxl's two pipes: the test's end, and the two that a helper would pass.
fn pipes() -> (UnixStream, OwnedFd, OwnedFd) {
    let (libxl, helper) = UnixStream::pair().unwrap();
    (libxl, helper.try_clone().unwrap().into(), helper.into())
}

fn helper_pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn channel() -> (UnixStream, OwnedFd, LibxlChannel) {
    let (libxl, stdout, stdin) = pipes();
    let (ours, helper) = helper_pair();
    (libxl, helper, LibxlChannel::new(stdout, stdin, ours).unwrap())
}

fn next_message(libxl: &mut UnixStream) -> Message {
    let mut length = [0; 2];
    libxl.read_exact(&mut length).unwrap();
    let mut body = vec![0; u16::from_le_bytes(length).into()];
    libxl.read_exact(&mut body).unwrap();
    Message::decode(&body).unwrap()
}

fn exit_code(helper: &OwnedFd) -> Option<u8> {
    let mut code = [0];
    match recv(helper, &mut code, rustix::net::RecvFlags::DONTWAIT) {
        Ok((1, _)) => Some(code[0]),
        Ok(_) | Err(Errno::AGAIN) => None,
        Err(errno) => panic!("{errno}"),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn a_restore_that_succeeds() {
    let (mut libxl, helper, mut channel) = channel();
    // libxl's replies are there before they are asked for; the channel takes one at a time.
    libxl.write_all(&[0; 8]).unwrap();
    channel.static_data_done(MISSING_CPUID).unwrap();
    channel.results(1, 2).unwrap();
    assert_eq!(exit_code(&helper), None);
    assert!(!channel.is_complete());
    channel.complete_ok().unwrap();
    assert_eq!(exit_code(&helper), Some(0));
    assert!(channel.is_complete());

    assert_eq!(next_message(&mut libxl), Message::StaticDataDone { missing: 1 });
    assert_eq!(next_message(&mut libxl), Message::RestoreResults { store_gfn: 1, console_gfn: 2 });
    assert_eq!(next_message(&mut libxl), Message::Complete { retval: 0, errno: 0 });
}

#[test]
fn a_restore_that_fails_sends_results_all_the_same() {
    let (mut libxl, helper, mut channel) = channel();
    libxl.write_all(&[0; 4]).unwrap();
    channel.complete_failed(Errno::NOMEM).unwrap();
    assert_eq!((exit_code(&helper), channel.is_complete()), (Some(0), false));
    assert_eq!(next_message(&mut libxl), Message::RestoreResults { store_gfn: 0, console_gfn: 0 });
    assert_eq!(next_message(&mut libxl), Message::Complete { retval: -1, errno: 12 });
}

#[test]
fn nothing_is_said_out_of_order() {
    let out_of_order = |result| assert!(matches!(result, Err(ChannelError::OutOfOrder { .. })), "{result:?}");
    let (mut libxl, _helper, mut channel) = channel();
    libxl.write_all(&[0; 4]).unwrap();
    out_of_order(channel.complete_ok());
    channel.results(1, 2).unwrap();
    out_of_order(channel.results(1, 2));
    out_of_order(channel.static_data_done(0));
    channel.complete_ok().unwrap();
    out_of_order(channel.complete_ok());
    out_of_order(channel.complete_failed(Errno::IO));
}

#[test]
fn libxl_that_refuses_dies_or_stops_the_helper() {
    let (mut libxl, _helper, mut channel) = channel();
    libxl.write_all(&(-3_i32).to_le_bytes()).unwrap();
    assert!(matches!(channel.static_data_done(0), Err(ChannelError::Refused { reply: -3, .. })));

    // Half a reply, then nothing more.
    let (mut libxl, _helper, mut channel) = self::channel();
    libxl.write_all(&[0; 3]).unwrap();
    libxl.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(channel.static_data_done(0), Err(ChannelError::Gone { .. })));

    let (libxl, _helper, mut channel) = self::channel();
    drop(libxl);
    assert!(matches!(channel.results(0, 0), Err(ChannelError::Gone { .. })));

    let (_libxl, helper, mut channel) = self::channel();
    drop(helper);
    assert!(matches!(channel.static_data_done(0), Err(ChannelError::HelperGone { .. })));
}

#[test]
fn a_channel_that_is_dropped_fails_the_helper() {
    let (mut libxl, helper, channel) = channel();
    drop(channel);
    let mut byte = [0];
    assert_eq!(
        recv(&helper, &mut byte, rustix::net::RecvFlags::empty()).unwrap().0,
        0,
        "the end, without an exit code"
    );
    assert_eq!(libxl.read(&mut byte).unwrap(), 0);
}

/// Sends what a helper would.
fn hand_over(handover: &Handover, words: &[u64], fds: &[BorrowedFd<'_>]) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(handover.path()).unwrap()).unwrap();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
    socket
}

const MAGIC: u64 = u64::from_le_bytes(*b"COLO-RH1");

#[test]
fn a_request_arrives_whole() {
    let place = std::env::temp_dir().join(format!("colo-handover-{}", std::process::id()));
    std::fs::create_dir(&place).unwrap();
    let handover = Handover::listen_in(&place).unwrap();
    // Nothing is left there, whatever becomes of this process.
    std::fs::remove_dir(&place).unwrap();
    let (mut libxl, stdout, stdin) = pipes();
    let (stream, mut feed) = UnixStream::pair().unwrap();
    let (toolstack, _alive) = helper_pair();
    let fds = [stdin.as_fd(), stdout.as_fd(), stream.as_fd()];
    let helper = hand_over(&handover, &[MAGIC, 7, 1, 0, 2, 3, 0x300, 0], &fds);

    let (request, mut channel) = handover.accept(toolstack.as_fd(), soon()).unwrap();
    drop(handover);
    assert_eq!((request.domid, request.console_domid, request.callbacks), (DomId(7), DomId(3), 0x300));
    assert_eq!((request.store_evtchn, request.store_domid), (1, DomId(0)));
    assert_eq!((request.console_evtchn, request.checkpointed), (2, 0));
    feed.write_all(b"image").unwrap();
    let mut image = [0; 5];
    UnixStream::from(request.stream).read_exact(&mut image).unwrap();
    assert_eq!(&image, b"image");
    libxl.write_all(&[0; 4]).unwrap();
    channel.complete_failed(Errno::IO).unwrap();
    assert_eq!(exit_code(&helper), Some(0));
}

#[test]
fn what_is_no_helper_is_refused() {
    let (toolstack, _alive) = helper_pair();
    let fd = toolstack.as_fd();
    let good = [MAGIC, 7, 1, 0, 2, 0, 0, 0];
    let mut other_magic = good;
    other_magic[0] += 1;
    let mut large = good;
    large[3] = 1 << 32;
    let cases: [(&[u64], &[BorrowedFd<'_>]); 7] = [
        (&good, &[]),
        (&good, &[fd, fd]),
        (&good, &[fd; 5]),
        (&good[..7], &[fd; 3]),
        (&[&good[..], &[0]].concat(), &[fd; 3]),
        (&other_magic, &[fd; 3]),
        (&large, &[fd; 3]),
    ];
    for (words, fds) in cases {
        let handover = Handover::listen_in(&std::env::temp_dir()).unwrap();
        let _helper = hand_over(&handover, words, fds);
        let answer = handover.accept(fd, soon());
        assert!(matches!(answer, Err(HandoverError::NotOurs(_))), "{words:?} with {}: {answer:?}", fds.len());
    }
}

#[test]
fn a_toolstack_that_ends_or_hangs_before_the_helper() {
    let handover = Handover::listen_in(&std::env::temp_dir()).unwrap();
    let (toolstack, alive) = helper_pair();
    let now = Instant::now();
    assert!(matches!(handover.accept(toolstack.as_fd(), now), Err(HandoverError::TimedOut)));
    drop(alive);
    assert!(matches!(handover.accept(toolstack.as_fd(), soon()), Err(HandoverError::Ended)));
    assert!(matches!(Handover::listen_in("/nonexistent".as_ref()), Err(HandoverError::NoSocket { .. })));
}
