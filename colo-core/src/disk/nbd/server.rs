use super::{Address, Export, Location, serve};
use crate::disk::{Backend, FileBackend, backend};
use crate::net::socket_file::{SocketFile, SocketKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_nodelay};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most clients at a time: each has a thread, and may have a few more. Further ones find their connections closed.
const MAX_CLIENTS: usize = 128;

/// What is served, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// A file or a block device.
    pub backing: PathBuf,
    /// Where clients connect: the path of a Unix socket, for this user alone.
    pub socket: Option<PathBuf>,
    /// And an address and a port, for whoever reaches them: NBD knows neither passwords nor encryption here. Port 0 is any that is free.
    pub tcp: Option<SocketAddr>,
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
    /// Neither a socket nor an address is given.
    #[error("nobody could connect: there is neither a socket nor an address")]
    Nowhere,
    /// Clients cannot connect to that address.
    #[error("{address}: {source}")]
    Tcp {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Clients cannot connect there.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A disk that is served to whoever may connect to its socket (this user), or to its port (anybody).
pub struct Server {
    export: Arc<Export>,
    disk: Arc<dyn Backend>,
    socket: Option<(SocketFile, PathBuf)>,
    tcp: Option<(TcpListener, SocketAddr)>,
    clients: Arc<AtomicUsize>,
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
        let socket = config.socket.as_deref().map(listen_at).transpose()?;
        let tcp = config.tcp.map(listen_on).transpose()?;
        if socket.is_none() && tcp.is_none() {
            return Err(OpenError::Nowhere);
        }
        let export = Export { is_read_only: config.is_read_only, ..Export::new(&config.name, size) };
        Ok(Server { export: Arc::new(export), disk, socket, tcp, clients: Arc::default() })
    }

    /// What clients see.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Where clients find it: one or two places.
    pub fn locations(&self) -> Vec<Location> {
        let socket = self.socket.as_ref().map(|(_, path)| Address::Unix(path.clone()));
        let tcp = self.tcp.as_ref().map(|(_, at)| Address::Tcp { host: at.ip().to_string(), port: at.port() });
        let location = |address| Location { address, export: self.export.name.clone() };
        socket.into_iter().chain(tcp).map(location).collect()
    }

    /// Serves until `stop` can be read. What clients still want then they do not get; what they were answered is done.
    ///
    /// # Errors
    /// When nobody can be accepted any more.
    pub fn run(&self, stop: impl AsFd) -> io::Result<()> {
        loop {
            let mut fds = vec![PollFd::new(&stop, PollFlags::IN)];
            fds.extend(self.socket.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::IN)));
            fds.extend(self.tcp.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            while let Some(connection) = self.accept()? {
                if let Err(error) = self.serve(connection) {
                    tracing::warn!("a client of {} is not served: {error}", self.export.name);
                }
            }
        }
    }

    /// A client that waits, if any does; its connection blocks.
    fn accept(&self) -> io::Result<Option<OwnedFd>> {
        if let Some((socket, _)) = &self.socket {
            if let Some(connection) = socket.accept()? {
                let connection = UnixStream::from(connection);
                connection.set_nonblocking(false)?;
                return Ok(Some(connection.into()));
            }
        }
        let Some((listener, _)) = &self.tcp else { return Ok(None) };
        match listener.accept() {
            Ok((connection, _)) => {
                connection.set_nonblocking(false)?;
                set_tcp_nodelay(&connection, true)?;
                // A host that is gone says nothing.
                set_socket_keepalive(&connection, true)?;
                Ok(Some(connection.into()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            // Gone again before it was accepted: the next call tells more.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn serve(&self, connection: OwnedFd) -> io::Result<()> {
        let counted = Counted::new(&self.clients);
        if self.clients.load(Ordering::Relaxed) > MAX_CLIENTS {
            return Err(io::Error::other(format!("{MAX_CLIENTS} others are")));
        }
        let (export, disk) = (self.export.clone(), self.disk.clone());
        std::thread::Builder::new().name("nbd".into()).spawn(move || {
            match serve(connection, &export, &*disk) {
                Ok(()) => tracing::debug!("a client of {} has gone", export.name),
                Err(error) => tracing::warn!("a client of {} is left: {error}", export.name),
            }
            drop(counted);
        })?;
        Ok(())
    }
}

/// One of the clients, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(clients: &Arc<AtomicUsize>) -> Counted {
        clients.fetch_add(1, Ordering::Relaxed);
        Counted(clients.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn listen_at(path: &Path) -> Result<(SocketFile, PathBuf), OpenError> {
    match SocketFile::bind(path, SocketKind::Stream) {
        Ok(socket) => Ok((socket, path.to_owned())),
        Err(source) => Err(OpenError::Socket { path: path.to_owned(), source }),
    }
}

fn listen_on(address: SocketAddr) -> Result<(TcpListener, SocketAddr), OpenError> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|source| OpenError::Tcp { address, source })
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
