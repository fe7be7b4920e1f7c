use super::ControlError;
use super::wire::MAX_PACKET_BYTES;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Sends a packet, and with it a descriptor, if there is room for it now; false otherwise.
pub(super) fn try_send(socket: impl AsFd, packet: &[u8], with: Option<BorrowedFd<'_>>) -> Result<bool, ControlError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let descriptors = with.as_slice();
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(ControlError::Unexpected("a descriptor"));
        }
        match sendmsg(&socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(ControlError::Closed),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sends it before the deadline.
pub(super) fn send(
    socket: impl AsFd,
    packet: &[u8],
    with: Option<BorrowedFd<'_>>,
    within: Duration,
) -> Result<(), ControlError> {
    let deadline = Instant::now() + within;
    while !try_send(&socket, packet, with)? {
        if !wait(&socket, PollFlags::OUT, Some(deadline))? {
            return Err(ControlError::Silent(within));
        }
    }
    Ok(())
}

/// The next packet, if one has come, and the descriptor that came with it. The room is for one: more of them are an error, and closed.
pub(super) fn try_recv(
    socket: impl AsFd,
    buffer: &mut [u8; MAX_PACKET_BYTES],
) -> Result<Option<(usize, Option<OwnedFd>)>, ControlError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(ControlError::Closed),
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    // There are no empty packets.
    if received.bytes == 0 {
        return Err(ControlError::Closed);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || descriptors.len() > 1 {
        return Err(ControlError::Unexpected("a longer packet, or more than one descriptor,"));
    }
    Ok(Some((received.bytes, descriptors.pop())))
}

/// Waits until the socket is ready, or has ended; false when the deadline passes first.
pub(super) fn wait(socket: impl AsFd, flags: PollFlags, deadline: Option<Instant>) -> Result<bool, ControlError> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&socket, flags)], timeout.as_ref()) {
            Ok(0) if left.is_none_or(|left| left.is_zero()) => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}
