//! A client: a disk that another process serves, maybe on another host.

mod asked;
mod connection;
mod handshake;
mod kept;
mod line;
mod location;
mod replies;
#[cfg(test)]
mod tests;

pub use handshake::{ClientHandshake, ClientProgress, NegotiationError, Offer};
pub use location::{Address, Location, LocationError, NBD_PORT};
pub use replies::{Answer, Answered, Lie, Replies};

use super::Export;
use super::request::{Command, Request};
use crate::disk::{Allocation, Backend, DiskError};
use line::Line;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a client waits, and what it remembers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientConfig {
    /// A request that is not answered within that time fails, whatever the reason: the server may be slow, or its host be gone. Until then
    /// the client connects again as often as it takes. Connecting for the first time is tried once, and takes no longer either.
    pub answer_within: Duration,
    /// What was written and not flushed is kept, up to about so many bytes; then the client flushes.
    pub kept_bytes: usize,
}

impl Default for ClientConfig {
    fn default() -> ClientConfig {
        ClientConfig { answer_within: Duration::from_secs(30), kept_bytes: 64 << 20 }
    }
}

/// Nobody waits longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl ClientConfig {
    fn deadline(&self) -> Instant {
        Instant::now() + self.answer_within.min(LONGEST)
    }
}

/// Why there is no connection.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// It cannot be made, or it broke.
    #[error("the connection to the server: {0}")]
    Connection(#[from] io::Error),
    /// The server does not want this client, or has no such export.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// The server does not keep to the protocol.
    #[error(transparent)]
    Lie(#[from] Lie),
    /// Behind the connection there is another disk than before.
    #[error("the server has another disk than before: it was {was:?}, and is {is:?}")]
    Changed {
        /// As it was.
        was: Box<Export>,
        /// As it is.
        is: Box<Export>,
    },
    /// What was acknowledged could not be written again.
    #[error("what the server had acknowledged before its connection broke cannot be written again: {0}")]
    Rewrite(DiskError),
}

impl ClientError {
    /// No other connection would be better.
    fn is_final(&self) -> bool {
        match self {
            ClientError::Connection(_) => false,
            // A server that was started again may not have all of its exports yet.
            ClientError::Negotiation(error) => {
                matches!(error, NegotiationError::NotNbd | NegotiationError::Senseless(_))
            }
            ClientError::Lie(_) | ClientError::Changed { .. } | ClientError::Rewrite(_) => true,
        }
    }
}

/// The longest piece of what has no data: a multiple of each possible block size.
const MAX_PIECE: u64 = 1 << 30;

/// A disk that a server has. Requests of several threads are in flight together over one connection; there is no thread of its own: one
/// of those that wait for an answer receives for all.
///
/// **When the connection breaks**, the client connects again, and sends again what was not answered. What was acknowledged since the last
/// flush is written again before: the server's host may have crashed, and a flush that is told to be done must cover that, too. So a
/// server may be stopped and started again, or its host, and a guest that has its disk there does not notice but for the time that it
/// takes. The price is memory (see [`ClientConfig::kept_bytes`]), and a flush whenever so much was written without one. A flush that fails
/// is followed by a new connection, over which all that it should have covered is written again: a server's second flush would succeed
/// without what the first one has lost.
///
/// If the server is found not to keep to the protocol, or to have another disk than before, everything fails from then on;
/// [`Client::failure`] tells why.
///
/// Two things that no client can do: a server that still *works* on a request of a connection that is broken may do so after the same
/// request, and a later one to the same place, were done over the next one; NBD has no word against that. And nobody else may write to the
/// disk meanwhile: what is written again is as old as its first writing. Requests in flight together that overlap are done in any order,
/// by a server as by a disk.
///
/// ```no_run
/// use colo_core::disk::Backend;
/// use colo_core::disk::nbd::{Client, ClientConfig};
///
/// let client = Client::connect(&"nbd://backup.example/disk".parse()?, ClientConfig::default())?;
/// let mut bytes = [0; 512];
/// client.read(client.export().size - 512, &mut bytes)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    line: Line,
    offer: Offer,
}

impl Client {
    /// Connects, once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(location: &Location, config: ClientConfig) -> Result<Client, ClientError> {
        let (line, offer) = Line::connect(location, config)?;
        Ok(Client { line, offer })
    }

    /// What the server has, as far as it tells.
    pub fn export(&self) -> &Export {
        &self.offer.export
    }

    /// What can be asked of it.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Why everything fails, if it does.
    pub fn failure(&self) -> Option<Arc<ClientError>> {
        self.line.failure()
    }

    /// Looks whether it can be asked for: whole blocks of the disk.
    fn check(&self, offset: u64, length: u64, writes: bool) -> Result<(), DiskError> {
        let Export { size, minimum_block, is_read_only, .. } = self.offer.export;
        if writes && is_read_only {
            return Err(DiskError::NotPermitted);
        }
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(if writes { DiskError::NoSpace } else { DiskError::Invalid });
        }
        let block = u64::from(minimum_block);
        if offset % block != 0 || length % block != 0 { Err(DiskError::Invalid) } else { Ok(()) }
    }

    fn change(&self, request: Request, data: Option<&[u8]>) -> Result<(), DiskError> {
        self.line.make_room()?;
        self.line.run(request, data.map(Arc::from)).map(|_| ())
    }

    /// The same request for each piece of a part.
    fn in_pieces(&self, offset: u64, length: u64, request: impl Fn(u64, u32) -> Request) -> Result<(), DiskError> {
        self.check(offset, length, true)?;
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(MAX_PIECE);
            self.change(request(offset + done, piece as u32), None)?;
            done += piece;
        }
        Ok(())
    }

    fn longest(&self) -> usize {
        self.offer.maximum_block as usize
    }
}

impl Backend for Client {
    fn read(&self, mut offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len() as u64, false)?;
        for piece in bytes.chunks_mut(self.longest()) {
            match self.line.run(Request::new(Command::Read, 0, offset, piece.len() as u32), None)? {
                Answered::Data(data) => piece.copy_from_slice(&data),
                // No answer to a read; the replies see to that.
                Answered::Done | Answered::Parts(_) => return Err(DiskError::Io),
            }
            offset += piece.len() as u64;
        }
        Ok(())
    }

    fn write(&self, mut offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check(offset, bytes.len() as u64, true)?;
        for piece in bytes.chunks(self.longest()) {
            self.change(Request::new(Command::Write, 0, offset, piece.len() as u32), Some(piece))?;
            offset += piece.len() as u64;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> Result<(), DiskError> {
        if self.offer.can_write_zeroes() {
            return self.in_pieces(offset, length, |offset, length| {
                let request = Request::new(Command::WriteZeroes, 0, offset, length);
                if may_unmap { request } else { request.keeping_space() }
            });
        }
        self.check(offset, length, true)?;
        let zeroes = vec![0; self.longest().min(1 << 20).min(length as usize)];
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(zeroes.len() as u64);
            self.write(offset + done, &zeroes[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    /// A server that cannot be told keeps it.
    fn trim(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        if !self.offer.can_trim() {
            return self.check(offset, length, true);
        }
        self.in_pieces(offset, length, |offset, length| Request::new(Command::Trim, 0, offset, length))
    }

    /// A server that cannot flush promises nothing: there it fails with [`DiskError::NotSupported`].
    fn flush(&self) -> Result<(), DiskError> {
        if !self.offer.can_flush() {
            return Err(DiskError::NotSupported);
        }
        self.line.run(Request::new(Command::Flush, 0, 0, 0), None).map(|_| ())
    }

    fn allocation(&self, offset: u64, length: u32) -> Result<Vec<Allocation>, DiskError> {
        self.check(offset, length.into(), false)?;
        if self.offer.allocation_id.is_none() || length == 0 {
            return Ok(vec![Allocation { length, is_hole: false, is_zero: false }]);
        }
        match self.line.run(Request::new(Command::BlockStatus, 0, offset, length), None)? {
            Answered::Parts(parts) => Ok(parts),
            Answered::Done | Answered::Data(_) => Err(DiskError::Io),
        }
    }
}
