use super::{Export, serve};
use crate::disk::{Backend, FileBackend, backend};
use crate::net::socket_file::{SocketFile, SocketKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is served, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// A file or a block device.
    pub backing: PathBuf,
    /// Where clients connect: the path of a Unix socket.
    pub socket: PathBuf,
    /// The export's name. A client that names none gets it, too.
    pub name: String,
    /// Nothing may be written.
    pub is_read_only: bool,
}

/// Why a disk cannot be served. Nothing was changed.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk cannot be opened.
    #[error("{}: {source}", path.display())]
    Backing {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{}: neither a file nor a block device", .0.display())]
    NoDisk(PathBuf),
    /// It has no bytes.
    #[error("{}: it is empty; give it its size first (truncate -s SIZE)", .0.display())]
    Empty(PathBuf),
    /// Another serves it.
    #[error("{}: another process has locked it; a disk has one server, or several that only read", .0.display())]
    InUse(PathBuf),
    /// Clients cannot connect there.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A disk that is served to whoever may connect to its socket: this user.
pub struct Server {
    export: Arc<Export>,
    disk: Arc<dyn Backend>,
    socket: SocketFile,
}

impl Server {
    /// Opens and locks the disk (`flock`), and listens.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &ServerConfig) -> Result<Server, OpenError> {
        let (disk, size) = Server::open_disk(config)?;
        Server::over(Arc::new(disk), size, config)
    }

    /// Opens and locks the disk, and no more. Returns its size in bytes, too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_disk(config: &ServerConfig) -> Result<(FileBackend, u64), OpenError> {
        let path = &config.backing;
        let failed = |source| OpenError::Backing { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(!config.is_read_only).open(path).map_err(failed)?;
        let size = size_of(&file, path)?;
        let lock = if config.is_read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        match flock(&file, lock) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenError::InUse(path.clone())),
            Err(errno) => return Err(failed(errno.into())),
        }
        Ok((FileBackend::new(file), size))
    }

    /// Listens, for clients of this disk, which has so many bytes: one that stands between them and the disk that the configuration names.
    ///
    /// # Errors
    /// [`OpenError::Empty`], [`OpenError::Socket`].
    pub fn over(disk: Arc<dyn Backend>, size: u64, config: &ServerConfig) -> Result<Server, OpenError> {
        if size == 0 {
            return Err(OpenError::Empty(config.backing.clone()));
        }
        let socket = SocketFile::bind(&config.socket, SocketKind::Stream);
        let socket = socket.map_err(|source| OpenError::Socket { path: config.socket.clone(), source })?;
        let export = Export { is_read_only: config.is_read_only, ..Export::new(&config.name, size) };
        Ok(Server { export: Arc::new(export), disk, socket })
    }

    /// What clients see.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Serves until `stop` can be read. What clients still want then they do not get; what they were answered is done.
    ///
    /// # Errors
    /// When nobody can be accepted any more.
    pub fn run(&self, stop: impl AsFd) -> io::Result<()> {
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if !fds[1].revents().is_empty() {
                return Ok(());
            }
            while let Some(connection) = self.socket.accept()? {
                self.serve(connection)?;
            }
        }
    }

    fn serve(&self, connection: OwnedFd) -> io::Result<()> {
        let connection = UnixStream::from(connection);
        connection.set_nonblocking(false)?;
        let (export, disk) = (self.export.clone(), self.disk.clone());
        std::thread::Builder::new().name("nbd".into()).spawn(move || match serve(connection, &export, &*disk) {
            Ok(()) => tracing::debug!("a client of {} has gone", export.name),
            Err(error) => tracing::warn!("a client of {} is left: {error}", export.name),
        })?;
        Ok(())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("export", &self.export).field("socket", &self.socket).finish_non_exhaustive()
    }
}

fn size_of(file: &File, path: &Path) -> Result<u64, OpenError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |source| OpenError::Backing { path: path.to_owned(), source };
    let kind = file.metadata().map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(OpenError::NoDisk(path.to_owned()));
    }
    match backend::size_of(file).map_err(failed)? {
        0 => Err(OpenError::Empty(path.to_owned())),
        size => Ok(size),
    }
}
