use super::{Address, Export, Limits, Location, serve_one_of};
use crate::disk::{Backend, FileBackend, SharedFile, backend};
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
    /// The disks: at least one.
    pub disks: Vec<DiskConfig>,
    /// Where clients connect: the path of a Unix socket, for this user alone.
    pub socket: Option<PathBuf>,
    /// And an address and a port, for whoever reaches them: NBD knows neither passwords nor encryption here. Port 0 is any that is free.
    pub tcp: Option<SocketAddr>,
    /// Nothing may be written.
    pub is_read_only: bool,
}

/// A disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskConfig {
    /// A file or a block device.
    pub backing: PathBuf,
    /// The export's name. A client that names none gets the first.
    pub name: String,
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
    /// Clients could not tell them apart.
    #[error("{} and {}: two disks that are called {name:?}", first.display(), second.display())]
    SameName {
        /// The name.
        name: String,
        /// The first of them.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
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

/// Disks that are served to whoever may connect to its socket (this user), or to its port (anybody).
pub struct Server {
    disks: Arc<Vec<(Export, Arc<dyn Backend>)>>,
    socket: Option<(SocketFile, PathBuf)>,
    tcp: Option<(TcpListener, SocketAddr)>,
    clients: Arc<AtomicUsize>,
}

impl Server {
    /// Opens and locks the disks (`flock`), and listens.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &ServerConfig) -> Result<Server, OpenError> {
        let disks = Server::open_disks(config)?.into_iter();
        Server::over(disks.map(|(disk, size)| (Arc::new(disk) as Arc<dyn Backend>, size)).collect(), config)
    }

    /// Opens and locks the disks, and no more. Returns their sizes in bytes, too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_disks(config: &ServerConfig) -> Result<Vec<(FileBackend, u64)>, OpenError> {
        config.disks.iter().map(|disk| open_disk(&disk.backing, config.is_read_only)).collect()
    }

    /// The same for disks that another host has, too.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_shared_disks(config: &ServerConfig) -> Result<Vec<(SharedFile, u64)>, OpenError> {
        config.disks.iter().map(|disk| open_shared_disk(&disk.backing)).collect()
    }

    /// Listens, for clients of these disks, each of which has so many bytes: those that stand between them and the disks that the
    /// configuration names, in its order.
    ///
    /// # Errors
    /// [`OpenError::Empty`], [`OpenError::SameName`], [`OpenError::Nowhere`], [`OpenError::Socket`], [`OpenError::Tcp`].
    ///
    /// # Panics
    /// When they are none, or not as many as the configuration has.
    pub fn over(disks: Vec<(Arc<dyn Backend>, u64)>, config: &ServerConfig) -> Result<Server, OpenError> {
        assert!(!disks.is_empty() && disks.len() == config.disks.len(), "one disk for each that is configured");
        for (number, DiskConfig { backing, name }) in config.disks.iter().enumerate() {
            if disks[number].1 == 0 {
                return Err(OpenError::Empty(backing.clone()));
            }
            if let Some(first) = config.disks[..number].iter().find(|first| first.name == *name) {
                let (first, second) = (first.backing.clone(), backing.clone());
                return Err(OpenError::SameName { name: name.clone(), first, second });
            }
        }
        let socket = config.socket.as_deref().map(listen_at).transpose()?;
        let tcp = config.tcp.map(listen_on).transpose()?;
        if socket.is_none() && tcp.is_none() {
            return Err(OpenError::Nowhere);
        }
        let export = |name: &str, size| Export { is_read_only: config.is_read_only, ..Export::new(name, size) };
        let named = config.disks.iter().zip(disks);
        let disks = named.map(|(named, (disk, size))| (export(&named.name, size), disk)).collect();
        Ok(Server { disks: Arc::new(disks), socket, tcp, clients: Arc::default() })
    }

    /// What clients see.
    pub fn exports(&self) -> impl Iterator<Item = &Export> {
        self.disks.iter().map(|(export, _)| export)
    }

    /// Where clients find the disks: one or two places for each.
    pub fn locations(&self) -> Vec<Location> {
        let socket = self.socket.as_ref().map(|(_, path)| Address::Unix(path.clone()));
        let tcp = self.tcp.as_ref().map(|(_, at)| Address::Tcp { host: at.ip().to_string(), port: at.port() });
        let addresses: Vec<Address> = socket.into_iter().chain(tcp).collect();
        let at =
            |export: &Export, address: &Address| Location { address: address.clone(), export: export.name.clone() };
        self.exports().flat_map(|export| addresses.iter().map(move |address| at(export, address))).collect()
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
                    tracing::warn!("a client is not served: {error}");
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
        let disks = self.disks.clone();
        std::thread::Builder::new().name("nbd".into()).spawn(move || {
            let disks: Vec<(&Export, &dyn Backend)> = disks.iter().map(|(export, disk)| (export, &**disk)).collect();
            match serve_one_of(connection, &disks, &Limits::default()) {
                Ok(()) => tracing::debug!("a client has gone"),
                Err(error) => tracing::warn!("a client is left: {error}"),
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

fn open_disk(path: &Path, is_read_only: bool) -> Result<(FileBackend, u64), OpenError> {
    let failed = |source| OpenError::Backing { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(!is_read_only).open(path).map_err(failed)?;
    let size = size_of(&file, path)?;
    let lock =
        if is_read_only { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
    match flock(&file, lock) {
        Ok(()) => Ok((FileBackend::new(file), size)),
        Err(Errno::WOULDBLOCK) => Err(OpenError::InUse(path.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn open_shared_disk(path: &Path) -> Result<(SharedFile, u64), OpenError> {
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::ResourceBusy => OpenError::InUse(path.to_owned()),
        _ => OpenError::Backing { path: path.to_owned(), source },
    };
    size_of(&File::open(path).map_err(failed)?, path)?;
    SharedFile::open(path).map_err(failed)
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
        let exports: Vec<&Export> = self.exports().collect();
        f.debug_struct("Server").field("exports", &exports).field("socket", &self.socket).finish_non_exhaustive()
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
