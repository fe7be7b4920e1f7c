use super::reply::Reply;
use super::request::{Command, Request};
use super::{Export, Handshake, HandshakeError, MAX_REQUEST_BYTES, Progress, Session};
use crate::disk::{Backend, DiskError};
use std::io::{self, ErrorKind, IoSlice, Read, Write};

/// Why a connection ended otherwise than by the client's word.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The connection broke.
    #[error("the connection: {0}")]
    Connection(#[from] io::Error),
    /// The negotiation failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Something else than a request came.
    #[error("the client sends what is no request")]
    NoRequest,
}

/// What has come behind the negotiation.
type Early = io::Cursor<Vec<u8>>;

/// Serves a disk over one connection, until the client goes: one request after the other, so that its order is the disk's. For more at
/// once a client opens more connections, as it may.
///
/// # Errors
/// [`ServeError`]; what was answered before is done.
pub fn serve(mut connection: impl Read + Write, export: &Export, disk: &dyn Backend) -> Result<(), ServeError> {
    let Some((session, mut early)) = negotiate(&mut connection, export)? else { return Ok(()) };
    let mut buffer = Vec::new();
    loop {
        let mut head = [0; Request::BYTES];
        match take(&mut early, &mut connection, &mut head) {
            Ok(()) => {}
            // Without a word, but between two requests.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let request = Request::decode(&head).ok_or(ServeError::NoRequest)?;
        if request.command == Command::Disconnect {
            return Ok(());
        }
        if request.data_bytes() > MAX_REQUEST_BYTES {
            // It would have to be read to its end before the next request is found.
            return Err(ServeError::NoRequest);
        }
        buffer.resize(request.data_bytes() as usize, 0);
        take(&mut early, &mut connection, &mut buffer)?;
        let is_structured_read = session.is_structured && request.command == Command::Read;
        let (head, data) = match answer(&request, export, &session, disk, &mut buffer) {
            Ok(answer) => answer,
            Err(error) => (Reply::error(request.cookie, error, is_structured_read), &[][..]),
        };
        write_all(&mut connection, &head, data)?;
    }
}

/// Does what is asked for. Returns the reply, and the data behind it.
fn answer<'a>(
    request: &Request,
    export: &Export,
    session: &Session,
    disk: &dyn Backend,
    buffer: &'a mut Vec<u8>,
) -> Result<(Vec<u8>, &'a [u8]), DiskError> {
    request.check(export, session)?;
    let Request { cookie, offset, length, .. } = *request;
    match request.command {
        Command::Read => {
            buffer.resize(length as usize, 0);
            disk.read(offset, buffer)?;
            return Ok((Reply::data_head(cookie, offset, length, session.is_structured), buffer));
        }
        Command::BlockStatus => {
            let mut parts = disk.allocation(offset, length)?;
            if request.wants_one_extent() {
                parts.truncate(1);
            }
            return Ok((Reply::block_status(cookie, &parts), &[]));
        }
        Command::Write => disk.write(offset, buffer)?,
        Command::Trim => disk.trim(offset, length.into())?,
        Command::WriteZeroes => disk.write_zeroes(offset, length.into(), request.may_unmap())?,
        Command::Flush => disk.flush()?,
        Command::Cache => {}
        Command::Disconnect | Command::Unknown(_) => return Err(DiskError::Invalid),
    }
    if request.is_durable() {
        disk.flush()?;
    }
    Ok((Reply::done(cookie), &[]))
}

/// Negotiates. Returns what was agreed upon and what has come behind it, or nothing if the client has gone.
fn negotiate(connection: &mut (impl Read + Write), export: &Export) -> Result<Option<(Session, Early)>, ServeError> {
    let mut handshake = Handshake::new(vec![export.clone()]);
    let mut bytes = [0; 4096];
    loop {
        connection.write_all(&handshake.take_output())?;
        let count = match connection.read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        match handshake.feed(&bytes[..count]) {
            Progress::More => {}
            Progress::Chosen(session) => {
                connection.write_all(&handshake.take_output())?;
                return Ok(Some((session, io::Cursor::new(handshake.into_rest()))));
            }
            Progress::Aborted => {
                connection.write_all(&handshake.take_output())?;
                return Ok(None);
            }
            Progress::Broken(error) => return Err(error.into()),
        }
    }
}

/// Fills the buffer, from what came early first.
fn take(early: &mut Early, connection: &mut impl Read, bytes: &mut [u8]) -> io::Result<()> {
    early.chain(connection).read_exact(bytes)
}

/// Writes a reply and its data, by one call if that is enough.
fn write_all(connection: &mut impl Write, head: &[u8], data: &[u8]) -> io::Result<()> {
    let mut parts = [IoSlice::new(head), IoSlice::new(data)];
    let mut parts = &mut parts[..];
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match connection.write_vectored(parts) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut parts, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
