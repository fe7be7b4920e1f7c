use super::packet::{self, try_recv};
use super::wire::{MAX_PACKET_BYTES, Request, Role, Said};
use super::{ANSWER_WITHIN, ControlError};
use crate::net::socket_file::{self, SocketKind};
use rustix::event::PollFlags;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a disk server says of itself.
pub(super) struct Greeting {
    pub(super) role: Role,
    pub(super) is_shared: bool,
    pub(super) sizes: Vec<u64>,
}

/// A connection to a disk server, heard by whoever has it.
pub(super) struct Line {
    socket: OwnedFd,
}

impl Line {
    /// Connects, and returns what the server says of itself, which has so much time for it.
    pub(super) fn connect(path: &Path, within: Duration) -> Result<(Line, Greeting), ControlError> {
        let failed = |source| ControlError::Connect { path: path.to_owned(), source };
        let line = Line { socket: socket_file::connect(path, SocketKind::Packets).map_err(failed)? };
        match line.hear(Some(within))? {
            Said::Hello { role, is_shared, sizes } => Ok((line, Greeting { role, is_shared, sizes })),
            _ => Err(ControlError::Unexpected("a message before the first")),
        }
    }

    pub(super) fn ask(&self, number: u64, request: &Request) -> Result<(), ControlError> {
        packet::send(&self.socket, &request.encode(number), None, ANSWER_WITHIN)
    }

    /// Waits for what the server says next; for ever, if no time is given.
    pub(super) fn hear(&self, within: Option<Duration>) -> Result<Said, ControlError> {
        let deadline = within.map(|within| Instant::now() + within);
        let mut buffer = [0; MAX_PACKET_BYTES];
        loop {
            if let Some(said) = next(&self.socket, &mut buffer)? {
                return Ok(said);
            }
            if !packet::wait(&self.socket, PollFlags::IN, deadline)? {
                return Err(ControlError::Silent(within.unwrap_or_default()));
            }
        }
    }

    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

/// What the server says next, if it has. Descriptors are none of it.
pub(super) fn next(socket: &OwnedFd, buffer: &mut [u8; MAX_PACKET_BYTES]) -> Result<Option<Said>, ControlError> {
    match try_recv(socket, buffer)? {
        None => Ok(None),
        Some((length, None)) => Said::decode(&buffer[..length]).map(Some),
        Some((_, Some(_))) => Err(ControlError::Unexpected("a descriptor")),
    }
}
