//! A server that runs, and what the test needs to drive and to watch it.

use colo_core::net::Frame;
use colo_core::net::qemu::{BufferPool, FrameDecoder, NotifyMessage, encode_frame};
use colo_core::standalone::{Address, Server, ServerConfig, Totals};
use socket2::Socket;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Long enough for a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// For times that shall not pass in a test.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A directory that goes when this is dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("colo-standalone-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A server in a thread. Nothing happens by time unless the test says so.
pub(crate) struct Rig {
    addresses: Vec<(&'static str, Address)>,
    has_vnet_header: bool,
    /// A byte asks for the totals; the end of it ends the server.
    wake: Option<UnixStream>,
    totals: Receiver<Totals>,
    thread: Option<JoinHandle<()>>,
    directory: Directory,
}

impl Rig {
    /// With Unix sockets, notify included.
    pub(crate) fn start(adjust: impl FnOnce(&mut ServerConfig)) -> Rig {
        let directory = Directory::new();
        let at = |name: &str| Address::Unix(directory.join(name));
        let mut config = ServerConfig::new(at("primary"), at("secondary"), at("out"));
        config.notify = Some(at("notify"));
        (config.compare.timeout, config.hold_back) = (NEVER, NEVER);
        adjust(&mut config);
        let mut server = Server::bind(&config).unwrap();
        let addresses = server.addresses().to_vec();
        let (wake, mut woken) = UnixStream::pair().unwrap();
        let (sender, totals) = channel();
        let thread = std::thread::spawn(move || {
            loop {
                server.run(&woken).unwrap();
                if woken.read(&mut [0]).unwrap() == 0 {
                    return;
                }
                sender.send(server.totals()).unwrap();
            }
        });
        let has_vnet_header = config.vnet_header;
        Rig { addresses, has_vnet_header, wake: Some(wake), totals, thread: Some(thread), directory }
    }

    pub(crate) fn address(&self, name: &str) -> &Address {
        &self.addresses.iter().find(|(known, _)| *known == name).unwrap().1
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn connect(&self, name: &str) -> Link {
        Link::connect(self.address(name), self.has_vnet_header)
    }

    /// Primary, secondary, and out.
    pub(crate) fn machines(&self) -> (Link, Link, Link) {
        (self.connect("primary-in"), self.connect("secondary-in"), self.connect("out"))
    }

    /// A toolstack that was greeted.
    pub(crate) fn toolstack(&self) -> Toolstack {
        let mut toolstack = Toolstack { socket: self.connect("notify").socket };
        toolstack.say(&NotifyMessage::ProxyInit);
        assert_eq!(toolstack.hear(), NotifyMessage::XenInit);
        toolstack
    }

    pub(crate) fn totals(&self) -> Totals {
        self.wake.as_ref().unwrap().write_all(b"t").unwrap();
        self.totals.recv_timeout(PATIENCE).unwrap()
    }

    /// Asks for the totals again and again until they are as wanted.
    pub(crate) fn wait_for(&self, is_so: impl Fn(&Totals) -> bool) -> Totals {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let totals = self.totals();
            if is_so(&totals) {
                return totals;
            }
            assert!(Instant::now() < deadline, "{totals}");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.wake.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
            // It leaves nothing behind.
            let left: Vec<_> = std::fs::read_dir(self.directory.0.as_path()).unwrap().collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// A connection that frames go through.
pub(crate) struct Link {
    pub(crate) socket: Socket,
    decoder: FrameDecoder,
    has_vnet_header: bool,
    /// Bytes of the vnet headers that are sent.
    pub(crate) vnet_header_bytes: usize,
}

impl Link {
    pub(crate) fn connect(address: &Address, has_vnet_header: bool) -> Link {
        let socket = match address {
            Address::Unix(path) => Socket::from(UnixStream::connect(path).unwrap()),
            Address::Tcp { host, port } => Socket::from(TcpStream::connect((host.as_str(), *port)).unwrap()),
        };
        Link::new(socket, has_vnet_header)
    }

    pub(crate) fn new(socket: Socket, has_vnet_header: bool) -> Link {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let decoder = FrameDecoder::new(has_vnet_header, &BufferPool::new(1 << 20));
        Link { socket, decoder, has_vnet_header, vnet_header_bytes: 0 }
    }

    /// The frames as they are sent.
    pub(crate) fn encode(&self, frames: &[Frame]) -> Vec<u8> {
        let mut wire = Vec::new();
        for frame in frames {
            encode_frame(frame, self.has_vnet_header.then_some(self.vnet_header_bytes), &mut wire);
        }
        wire
    }

    pub(crate) fn send(&mut self, frames: &[Frame]) {
        let wire = self.encode(frames);
        self.send_bytes(&wire);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.socket.read(self.decoder.room()).unwrap() {
                0 => return None,
                count => self.decoder.advance(count),
            }
        }
    }

    /// The next frames are these.
    pub(crate) fn expect(&mut self, frames: &[Frame]) {
        for (number, frame) in frames.iter().enumerate() {
            assert_eq!(self.receive().as_ref(), Some(frame), "frame {number} of {}", frames.len());
        }
    }

    /// Bytes of the vnet header of the frame received last.
    pub(crate) fn received_vnet_header_bytes(&self) -> usize {
        self.decoder.vnet_header_bytes()
    }

    /// The other side closes the connection, without a word.
    pub(crate) fn expect_end(&mut self) {
        match self.socket.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            // What was sent to it was not read.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

/// The notify connection, as libxl has it: one call for the length, one for the text.
pub(crate) struct Toolstack {
    pub(crate) socket: Socket,
}

impl Toolstack {
    pub(crate) fn say(&mut self, message: &NotifyMessage) {
        self.socket.write_all(&message.encode()).unwrap();
    }

    pub(crate) fn hear(&mut self) -> NotifyMessage {
        let mut length = [0; 4];
        assert_eq!(self.socket.read(&mut length).unwrap(), 4);
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        assert_eq!(self.socket.read(&mut text).unwrap(), text.len());
        match &text[..] {
            b"DO_CHECKPOINT" => NotifyMessage::DoCheckpoint,
            b"COLO_COMPARE_GET_XEN_INIT" => NotifyMessage::XenInit,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }

    /// It is asked for a checkpoint, and takes it.
    pub(crate) fn take_checkpoint(&mut self) {
        assert_eq!(self.hear(), NotifyMessage::DoCheckpoint);
        self.say(&NotifyMessage::Checkpoint);
    }
}

/// Something at that path listens.
pub(crate) fn is_socket(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}
