//! Unix sockets in the file system: made without a race for who may connect, and removed at the end.
//!
//! ```
//! use colo_core::net::socket_file::{self, SocketFile, SocketKind};
//!
//! let path = std::env::temp_dir().join(format!("colo-doc-{}.socket", std::process::id()));
//! let socket = SocketFile::bind(&path, SocketKind::Stream)?;
//! assert!(socket.accept()?.is_none());
//! let client = socket_file::connect(&path, SocketKind::Stream)?;
//! assert!(socket.accept()?.is_some());
//!
//! // Somebody listens here: the next one is refused, and the file left alone.
//! assert_eq!(SocketFile::bind(&path, SocketKind::Stream).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
//! drop(socket);
//! assert!(!path.exists());
//! # Ok::<(), std::io::Error>(())
//! ```

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Connections that wait to be accepted: more than a restart of everything makes at once.
const BACKLOG: i32 = 64;

/// What a socket carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketKind {
    /// A stream of bytes (`SOCK_STREAM`).
    Stream,
    /// Packets, in order (`SOCK_SEQPACKET`).
    Packets,
}

/// A listening socket and its file, which is removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file made here: another's file of the same name is left alone.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens at `path`, with access for this user alone. A socket that nobody listens at is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there; `AlreadyExists` when the file is no socket; otherwise the kernel's.
    pub fn bind(path: &Path, kind: SocketKind) -> io::Result<Self> {
        remove_stale(path, kind)?;
        let socket = socket(kind)?;
        // The file gets its mode from the socket's own (Linux), less the process's mask: never open to others, not even
        // between two calls.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let metadata = std::fs::symlink_metadata(path)?;
        let file = Self { socket, path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) };
        rustix::net::listen(&file.socket, BACKLOG)?;
        Ok(file)
    }

    /// The next connection, which does not block; none when nobody waits.
    ///
    /// # Errors
    /// Those of `accept4(2)`.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(connection) => return Ok(Some(connection)),
                Err(Errno::AGAIN) => return Ok(None),
                // Gone again before it was accepted.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for SocketFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours) {
            if let Err(error) = std::fs::remove_file(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "socket not removed");
            }
        }
    }
}

/// A connection to whoever listens at `path`, which does not block.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` when nobody does; otherwise the kernel's.
pub fn connect(path: &Path, kind: SocketKind) -> io::Result<OwnedFd> {
    let socket = socket(kind)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn socket(kind: SocketKind) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let kind = match kind {
        SocketKind::Stream => SocketType::STREAM,
        SocketKind::Packets => SocketType::SEQPACKET,
    };
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?)
}

fn remove_stale(path: &Path, kind: SocketKind) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is not a socket"));
        }
        Ok(_) => {}
    }
    match connect(path, kind) {
        // Nobody has it open: its maker has ended without removing it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Connected, or not for want of room, of rights, or of the right type: alive.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KIND: SocketKind = SocketKind::Packets;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("colo-socket-file-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_is_not() {
        let directory = directory("stale");
        let path = directory.join("s");
        let first = SocketFile::bind(&path, KIND).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SocketFile::bind(&path, KIND).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(first);
        assert!(!path.exists());

        // What a killed process leaves behind: a bound socket's file, and no socket.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = SocketFile::bind(&path, KIND).unwrap();
        connect(&path, KIND).unwrap();
        assert!(second.accept().unwrap().is_some());
        // One of the other kind that listens is alive, too.
        let error = SocketFile::bind(&path, SocketKind::Stream).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(second);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = directory("other");
        let path = directory.join("s");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(SocketFile::bind(&path, KIND).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");

        std::fs::remove_file(&path).unwrap();
        let ours = SocketFile::bind(&path, KIND).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(ours);
        assert_eq!(std::fs::read(&path).unwrap(), b"another's");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
