//! What no honest side says.

use super::rig::{PATIENCE, Rig, channels, read_all};
use crate::folder::Folder;
use colo_core::disk::control::{ControlError, ControlledPrimary, ControlledSecondary, VERSION};
use colo_core::disk::{DiskError, DiskEvent, PrimaryDisks, SecondaryDisks, TapConfig};
use colo_core::ids::Epoch;
use colo_core::net::socket_file::{self, SocketFile, SocketKind};
use crossbeam_channel::unbounded;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg};
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// So long an answer is waited for that never comes.
const MOMENT: Duration = Duration::from_millis(300);

pub(crate) fn packet(kind: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    [&[VERSION, kind][..], &number.to_le_bytes(), rest].concat()
}

fn attach(number: u64, patience_ms: u32, sent: u64) -> Vec<u8> {
    packet(1, number, &[&patience_ms.to_le_bytes()[..], &sent.to_le_bytes(), &0_u64.to_le_bytes()].concat())
}

pub(crate) fn send_with(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
}

/// The next packet; empty at the end.
pub(crate) fn hear(socket: &OwnedFd) -> Vec<u8> {
    poll(&mut [PollFd::new(socket, PollFlags::IN)], None).unwrap();
    let mut bytes = [0; 4096];
    match recv(socket, &mut bytes[..], RecvFlags::empty()) {
        Ok((_, count)) => bytes[..count].to_vec(),
        Err(rustix::io::Errno::CONNRESET) => Vec::new(),
        Err(errno) => panic!("{errno}"),
    }
}

/// Somebody who has not said yet what it wants.
pub(crate) fn join(path: &Path) -> OwnedFd {
    let socket = socket_file::connect(path, SocketKind::Packets).unwrap();
    assert_eq!(hear(&socket)[..2], [VERSION, 64]);
    socket
}

/// Somebody who drives.
fn drive(path: &Path) -> OwnedFd {
    let socket = join(path);
    send_with(&socket, &packet(48, 1, &[]), &[]);
    assert_eq!(hear(&socket), done(1));
    socket
}

fn done(number: u64) -> Vec<u8> {
    packet(66, number, &[1, 0, 0, 0, 0, 0, 0, 0])
}

#[test]
fn a_controller_that_lies_is_left_and_changes_nothing() {
    let mut rig = Rig::new(TapConfig::default());
    let before = read_all(&rig.guest);
    (rig.primary, rig.secondary) = (None, None);
    let file = File::open("/dev/null").unwrap();
    let file = file.as_fd();
    let lies: [(&str, Vec<u8>, &[BorrowedFd<'_>]); 18] = [
        ("no bytes of a packet", vec![1], &[]),
        ("another version", [&[VERSION - 1][..], &packet(3, 2, &[])[1..]].concat(), &[]),
        ("an unknown kind", packet(99, 2, &[]), &[]),
        ("a message of the server's", packet(66, 2, &[0; 8]), &[]),
        ("number 0", packet(3, 0, &[]), &[]),
        ("a number ahead", packet(3, 3, &[]), &[]),
        ("a byte too many", packet(3, 2, &[0]), &[]),
        ("a byte too few", packet(16, 2, &[0; 7]), &[]),
        ("a packet too long", vec![1; 5000], &[]),
        ("a descriptor with another request", packet(3, 2, &[]), &[file]),
        ("no descriptor", attach(2, 1000, 0), &[]),
        ("two descriptors", attach(2, 1000, 0), &[file, file]),
        ("four descriptors", attach(2, 1000, 0), &[file, file, file, file]),
        ("no patience", attach(2, 0, 0), &[file]),
        ("too much patience", attach(2, u32::MAX, 0), &[file]),
        ("what only a guess could want: a wait of a day", packet(32, 2, &[0xff; 12]), &[]),
        ("to drive twice", packet(48, 2, &[]), &[]),
        ("a request to neither", packet(5, 2, &[]), &[]),
    ];
    for name in ["primary.control", "secondary.control"] {
        for (what, lie, descriptors) in &lies {
            let socket = drive(&rig.path(name));
            send_with(&socket, lie, descriptors);
            assert!(hear(&socket).is_empty(), "{what}");
        }
    }
    for (name, kinds) in [("primary.control", 32..37), ("secondary.control", 16..18)] {
        for kind in kinds {
            let rest: &[u8] = match kind {
                32 => &[0; 12],
                16 | 17 | 35 => &[0; 8],
                _ => &[],
            };
            let socket = drive(&rig.path(name));
            send_with(&socket, &packet(kind, 2, rest), &[]);
            assert!(hear(&socket).is_empty(), "request {kind} to the other part");
        }
    }
    assert!(read_all(&rig.guest) == before);
    rig.connect_primary();
    rig.connect_secondary();
    rig.protect();
}

#[test]
fn a_descriptor_that_is_no_connection_is_an_answer() {
    let mut rig = Rig::new(TapConfig::default());
    (rig.primary, rig.secondary) = (None, None);
    let (file, (channel, _other)) = (File::open("/dev/null").unwrap(), channels());
    let (pipe, _writer) = std::io::pipe().unwrap();
    let (unix, _end) = std::os::unix::net::UnixStream::pair().unwrap();
    let tcp = channel.into_handover().unwrap().socket;
    for name in ["primary.control", "secondary.control"] {
        let socket = drive(&rig.path(name));
        let refused = [(file.as_fd(), 0), (pipe.as_fd(), 0), (unix.as_fd(), 0), (tcp.as_fd(), u64::MAX)];
        for ((descriptor, sent), number) in refused.into_iter().zip(2..) {
            send_with(&socket, &attach(number, 1000, sent), &[descriptor]);
            let invalid = [4_u32.to_le_bytes(), (DiskError::Invalid as u32).to_le_bytes()].concat();
            assert_eq!(hear(&socket), packet(66, number, &invalid));
        }
    }
    rig.connect_primary();
    rig.connect_secondary();
    rig.protect();
}

/// A server that lets whoever comes drive, and says that to the next request.
fn fake(folder: &Folder, role: u8, answers: Vec<Vec<u8>>) -> (std::path::PathBuf, std::thread::JoinHandle<OwnedFd>) {
    let path = folder.0.join("fake");
    let listener = SocketFile::bind(&path, SocketKind::Packets).unwrap();
    let serving = std::thread::spawn(move || {
        poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).unwrap();
        let socket = listener.accept().unwrap().unwrap();
        send(&socket, &packet(64, 0, &[role, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), SendFlags::empty()).unwrap();
        assert_eq!(hear(&socket), packet(48, 1, &[]));
        send(&socket, &done(1), SendFlags::empty()).unwrap();
        hear(&socket);
        for answer in answers {
            send(&socket, &answer, SendFlags::NOSIGNAL).unwrap();
        }
        // It hears no more, and does not go.
        socket
    });
    (path, serving)
}

#[test]
fn a_server_that_hangs_holds_up_nobody() {
    let folder = Folder::new();
    // One that does not even say who it is.
    let silent = SocketFile::bind(&folder.0.join("silent"), SocketKind::Packets).unwrap();
    let why = ControlledPrimary::connect_within(&folder.0.join("silent"), MOMENT).err().expect("silence");
    assert!(matches!(why, ControlError::Silent(MOMENT)), "{why}");
    drop(silent);

    let (path, serving) = fake(&folder, 1, vec![done(2)]);
    let mut primary = ControlledPrimary::connect_within(&path, MOMENT).unwrap();
    let (sender, events) = unbounded();
    let attached = primary.attach(channels().0, Box::new(move |event| drop(sender.send(event))));
    // The answer may come too late on a busy host: lost is lost.
    if attached.is_ok() {
        primary.freeze();
    }
    primary.barrier(Epoch(1));
    primary.thaw();
    assert!(matches!(events.recv_timeout(PATIENCE), Ok(DiskEvent::Lost(_))));
    primary.detach();
    drop((primary, serving.join().unwrap()));

    let (path, serving) = fake(&folder, 2, vec![]);
    let mut secondary = ControlledSecondary::connect_within(&path, MOMENT).unwrap();
    assert_eq!(secondary.attach(channels().1), Err(DiskError::Io));
    secondary.release();
    secondary.freeze();
    assert_eq!(secondary.commit(Epoch(1)), Err(DiskError::Io));
    secondary.thaw();
    assert!(!secondary.wait_barrier(Epoch(1), Instant::now() + PATIENCE));
    drop((secondary, serving.join().unwrap()));
}

#[test]
fn a_takeover_may_take_longer_than_any_other_answer() {
    let folder = Folder::new();
    let (path, serving) = fake(&folder, 2, vec![]);
    let mut secondary = ControlledSecondary::connect_within(&path, MOMENT).unwrap();
    let took_over = std::thread::spawn(move || secondary.fail_over());
    let socket = serving.join().unwrap();
    // Longer than it would be waited for: nothing else is said meanwhile, and nobody hangs up.
    let nothing = poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&(2 * MOMENT).try_into().unwrap())).unwrap();
    assert_eq!(nothing, 0);
    send(&socket, &done(2), SendFlags::NOSIGNAL).unwrap();
    assert_eq!(took_over.join().unwrap(), Ok(()));
}

#[test]
fn a_server_that_lies_is_left() {
    let lies = [
        done(3),
        packet(66, 0, &[1, 0, 0, 0, 0, 0, 0, 0]),
        packet(66, 2, &[4, 0, 0, 0, 77, 0, 0, 0]),
        packet(66, 2, &[1, 0, 0, 0, 1, 0, 0, 0]),
        packet(64, 0, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        packet(83, 0, &[1, 0, 0xff]),
        packet(3, 1, &[]),
        vec![2; 10],
        vec![1; 3000],
    ];
    for lie in lies {
        let folder = Folder::new();
        let (path, serving) = fake(&folder, 1, vec![lie.clone()]);
        let mut primary = ControlledPrimary::connect_within(&path, PATIENCE).unwrap();
        let (sender, events) = unbounded();
        assert!(primary.attach(channels().0, Box::new(move |event| drop(sender.send(event)))).is_err(), "{lie:?}");
        assert!(matches!(events.recv_timeout(PATIENCE), Ok(DiskEvent::Lost(_))), "{lie:?}");
        drop(serving.join().unwrap());
    }
}
