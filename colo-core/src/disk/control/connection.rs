use super::packet::{self, try_recv, try_send};
use super::served::{ServedDisks, answer_of};
use super::wire::{MAX_PACKET_BYTES, Reported, Request, Role, Said};
use super::{ANSWER_WITHIN, ControlError};
use crate::disk::{DiskError, DiskEvent, OnDiskEvent, OnVerifyEvent, Verification, VerifyEvent};
use crate::peer::{Handover, PeerError, StateChannel};
use rustix::net::Shutdown;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Somebody at a control socket: who drives the disks, or only asks.
pub(super) struct Connection {
    socket: Arc<OwnedFd>,
    /// Whose disks it was told that they are.
    role: Role,
    /// The last request's number.
    number: u64,
    /// The comparison that it has asked for, and those before it that are not quite over.
    comparisons: Vec<Verification>,
}

/// So many comparisons may be there whose end was not taken yet.
const MAX_COMPARISONS: usize = 4;

/// What has been heard.
pub(super) enum Heard {
    Nothing,
    /// Something that is done.
    Request,
    /// It wants to drive, and must be told whether it does.
    Drive,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, role: Role) -> Connection {
        Connection { socket: Arc::new(socket), role, number: 0, comparisons: Vec::new() }
    }

    /// Whether a comparison for it goes on.
    pub(super) fn compares(&self) -> bool {
        self.comparisons.iter().any(|comparison| !comparison.is_over())
    }

    /// Ends it. What of its comparisons is not over by now is told to end, and given back: it may have to wait for a disk.
    pub(super) fn leave(mut self) -> Vec<Verification> {
        let mut comparisons = std::mem::take(&mut self.comparisons);
        comparisons.iter().for_each(Verification::stop);
        comparisons.retain(|comparison| !comparison.is_over());
        comparisons
    }

    /// Does what whoever drives asks for next.
    pub(super) fn hear_driver(&mut self, disks: &mut ServedDisks) -> Result<Heard, ControlError> {
        let Some((request, descriptor)) = self.next()? else { return Ok(Heard::Nothing) };
        let answer = match (request, descriptor) {
            (Request::Attach { patience, sent, received }, Some(socket)) => {
                let handover = Handover { socket: TcpStream::from(socket), patience, sent, received };
                answer_of(self.attach(disks, handover))
            }
            (Request::Attach { .. }, None) => return Err(ControlError::Unexpected("no descriptor")),
            (_, Some(_)) => return Err(ControlError::Unexpected("a descriptor")),
            (Request::Drive, None) => return Err(ControlError::Unexpected("a second request to drive")),
            (request @ (Request::Status | Request::Verify), None) => {
                self.tell_or_compare(&request, disks, true)?;
                return Ok(Heard::Request);
            }
            (request, None) => disks.carry_out(self.role, &request)?,
        };
        // One that does not take its answers is left. It has a bounded number of them to take: it waits for most.
        packet::send(&*self.socket, &Said::Answer(self.number, answer).encode(), None, ANSWER_WITHIN)?;
        Ok(Heard::Request)
    }

    /// Does what somebody asks for next who does not drive. Whoever drives does not wait for that.
    pub(super) fn hear_observer(&mut self, disks: &ServedDisks, is_driven: bool) -> Result<Heard, ControlError> {
        match self.next()? {
            None => Ok(Heard::Nothing),
            Some((_, Some(_))) => Err(ControlError::Unexpected("a descriptor")),
            Some((Request::Drive, None)) if self.role == disks.role() => Ok(Heard::Drive),
            // They have taken over since: it may come again.
            Some((Request::Drive, None)) => Err(ControlError::Closed),
            Some((request @ (Request::Status | Request::Verify), None)) => {
                self.tell_or_compare(&request, disks, is_driven)?;
                Ok(Heard::Request)
            }
            Some(_) => Err(ControlError::Unexpected("a request of one that does not drive")),
        }
    }

    /// Says that, if there is room for it.
    pub(super) fn say(&self, said: &Said) -> Result<(), ControlError> {
        match try_send(&*self.socket, &said.encode(), None)? {
            true => Ok(()),
            false => Err(ControlError::Unexpected("a question before an answer was taken")),
        }
    }

    /// The last request's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn next(&mut self) -> Result<Option<(Request, Option<OwnedFd>)>, ControlError> {
        let mut buffer = [0; MAX_PACKET_BYTES];
        let Some((length, descriptor)) = try_recv(&*self.socket, &mut buffer)? else { return Ok(None) };
        let (number, request) = Request::decode(&buffer[..length])?;
        if number != self.number.wrapping_add(1) {
            return Err(ControlError::Unexpected("a request's number"));
        }
        self.number = number;
        Ok(Some((request, descriptor)))
    }

    fn tell_or_compare(&mut self, request: &Request, disks: &ServedDisks, is_driven: bool) -> Result<(), ControlError> {
        if *request == Request::Status {
            return self.say(&Said::Status(self.number, Reported { is_driven, disks: disks.status() }));
        }
        self.comparisons.retain(|comparison| !comparison.is_over());
        if self.comparisons.len() >= MAX_COMPARISONS {
            return Err(ControlError::Unexpected("a question before an answer was taken"));
        }
        match disks.verify(compared_to(self.socket.clone(), self.number)) {
            Ok(comparison) => self.comparisons.push(comparison),
            Err((is_unprotected, why)) => {
                self.say(&Said::NotCompared { number: self.number, is_unprotected, why })?;
            }
        }
        Ok(())
    }

    fn attach(&self, disks: &mut ServedDisks, handover: Handover) -> Result<(), DiskError> {
        let told = |error: PeerError| {
            tracing::warn!("the connection for disks: {error}");
            DiskError::Invalid
        };
        let channel = StateChannel::from_handover(handover).map_err(told)?;
        disks.attach(self.role, channel, || events_to(self.socket.clone()))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Nothing that goes on for it waits for its end.
impl Drop for Connection {
    fn drop(&mut self) {
        hang_up(&self.socket);
    }
}

fn hang_up(socket: &OwnedFd) {
    // Fails only when it has ended.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

/// Tells whoever drives what the disks have to say, and does not wait. One that does not take it is left, but the progress of a copy may be
/// missed.
fn events_to(socket: Arc<OwnedFd>) -> OnDiskEvent {
    Box::new(move |event| {
        let may_be_missed = matches!(event, DiskEvent::Copying { .. });
        let is_sent = matches!(try_send(socket.as_fd(), &Said::Event(event).encode(), None), Ok(true));
        if !is_sent && !may_be_missed {
            hang_up(&socket);
        }
    })
}

/// Tells whoever has asked for a comparison of its progress, which may be missed, and what it has found.
fn compared_to(socket: Arc<OwnedFd>, number: u64) -> OnVerifyEvent {
    Box::new(move |event| {
        let said = match event {
            VerifyEvent::Progress { done_bytes, all_bytes, differing_parts } => {
                let said = Said::Comparing { number, done_bytes, all_bytes, differing_parts };
                // One that is gone is heard of elsewhere.
                let _ = try_send(socket.as_fd(), &said.encode(), None);
                return;
            }
            VerifyEvent::Ended(Ok(compared)) => Said::Compared(number, compared),
            VerifyEvent::Ended(Err(error)) => {
                Said::NotCompared { number, is_unprotected: error.is_unprotected(), why: error.to_string() }
            }
        };
        if packet::send(socket.as_fd(), &said.encode(), None, ANSWER_WITHIN).is_err() {
            hang_up(&socket);
        }
    })
}
