//! The LAN between machines and clients: a learning Ethernet switch in one process and one thread.
//!
//! ```text
//!   machine ──┐ SOCK_SEQPACKET: one packet, one frame        ┌── host TCP listener (--forward)
//!   machine ──┤                                              │
//!   machine ──┼── ports ── fabric (who is where) ── stack ───┼── relay: one per connection
//!   TAP     ──┘    queues                            nic     └── ...
//! ```
//!
//! * [`fabric`]: the address table and the decision, without input or output.
//! * Ports: connections to a Unix socket ([`SwitchPort`] is the other end), and for root a TAP. Each has a bounded queue; a
//!   full one loses frames, counts them, and holds up nobody.
//! * The forward: each connection to a host's TCP listener is relayed to a guest through a small TCP/IP stack of the
//!   switch's own, which needs no privilege.
//!
//! ```
//! use colo_core::net::Port;
//! use colo_embedded::switch::{Switch, SwitchConfig, SwitchPort};
//! use std::os::unix::net::UnixStream;
//!
//! let path = std::env::temp_dir().join(format!("colo-doc-{}.sock", std::process::id()));
//! let mut switch = Switch::new(&SwitchConfig::new(&path))?;
//! let (stop, stopper) = UnixStream::pair()?;
//! let running = std::thread::spawn(move || switch.run(&stop));
//!
//! let mut card = SwitchPort::connect(&path)?;
//! let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 6], &[0; 46]].concat();
//! assert_eq!(card.send(&[frame.into()])?, 1);
//!
//! drop(stopper); // readable: end of file
//! running.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod fabric;

mod config;
mod engine;
mod ephemeral;
mod forward;
mod nic;
mod nudge;
mod packet_io;
mod port;
mod ports;
mod queue;
mod relay;

pub use config::{Forward, ForwardParseError, SwitchConfig};
pub use forward::MAX_CONNECTIONS;
pub use port::SwitchPort;
pub use ports::MAX_PORTS;

use colo_core::domain::MacAddr;
use colo_core::net::socket_file::{SocketFile, SocketKind};
use colo_core::net::sys::open_bare_tap;
use engine::Engine;
use forward::Forwarder;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

/// What is asked of the kernel for the buffer of each end of a port; it gives less unless its `net.core.wmem_max` allows.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Why a switch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The socket could not be made; `AddrInUse`: another switch is there.
    #[error("cannot listen at {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A forward's address could not be listened at.
    #[error("cannot listen at {listen}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The TAP could not be opened.
    #[error("cannot open TAP device {name}")]
    Tap {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A forward leads out of the LAN, or to the switch itself.
    #[error("{forward} does not lead to a machine on {address}/{prefix_len}")]
    Target {
        /// The forward.
        forward: Forward,
        /// The switch's address.
        address: std::net::Ipv4Addr,
        /// Length of the LAN's prefix.
        prefix_len: u8,
    },
    /// The address cannot be a machine's: not unicast, or a prefix of more than 32 bits.
    #[error("{address}/{prefix_len} is not the address of a machine")]
    Address {
        /// The address.
        address: std::net::Ipv4Addr,
        /// Length of the prefix.
        prefix_len: u8,
    },
    /// The Ethernet address cannot be a machine's.
    #[error("{0} is not the Ethernet address of a machine")]
    Mac(MacAddr),
    /// The kernel refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What has passed through a switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in, at ports and from the switch's own stack.
    pub frames_in: u64,
    /// Frames that went out through ports.
    pub frames_out: u64,
    /// Frames sent to every port, because they were meant for all or nobody knew where their destination is.
    pub frames_flooded: u64,
    /// Frames that went nowhere by the rules of a bridge: malformed, or at home where they came from.
    pub frames_filtered: u64,
    /// Frames lost because a port did not read and its queue was full.
    pub frames_dropped: u64,
    /// Forwarded connections that were accepted.
    pub connections: u64,
    /// Those of them that ended by a refusal, a time-out or a reset.
    pub connections_broken: u64,
}

/// A switch. See the [module](self).
pub struct Switch {
    engine: Engine,
}

impl Switch {
    /// Makes the socket, the listeners and the TAP; from here on, clients can connect.
    ///
    /// # Errors
    /// When the settings make no sense or the kernel refuses; what was made is removed again.
    pub fn new(config: &SwitchConfig) -> Result<Self, SwitchError> {
        let &SwitchConfig { address, prefix_len, mac, .. } = config;
        if prefix_len > 32 || address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return Err(SwitchError::Address { address, prefix_len });
        }
        if mac.is_multicast() || mac == MacAddr([0; 6]) {
            return Err(SwitchError::Mac(mac));
        }
        if let Some(&forward) = config.forwards.iter().find(|forward| !config.is_neighbour(*forward.target.ip())) {
            return Err(SwitchError::Target { forward, address, prefix_len });
        }
        let path = config.socket.clone();
        let socket =
            SocketFile::bind(&path, SocketKind::Packets).map_err(|source| SwitchError::Socket { path, source })?;
        let tap = config.tap.as_ref().map(|name| {
            let parsed = name.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error));
            parsed
                .and_then(|name| open_bare_tap(&name))
                .map_err(|source| SwitchError::Tap { name: name.clone(), source })
        });
        let tap = tap.transpose()?;
        let forwarder = Forwarder::new(mac, address, prefix_len, &config.forwards, Instant::now())
            .map_err(|(listen, source)| SwitchError::Listen { listen, source })?;
        Ok(Self { engine: Engine::new(config, socket, tap, forwarder)? })
    }

    /// Where the forwards listen, in the order of [`SwitchConfig::forwards`], with the port numbers that the kernel chose.
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    pub fn forward_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.engine.forwarder().listeners().iter().map(|listener| listener.socket.local_addr()).collect()
    }

    /// Carries frames until `stop` is readable (an eventfd, a pipe, a signalfd; it is not read), and returns what has
    /// passed so far. The socket file is removed when the switch is dropped.
    ///
    /// # Errors
    /// When `stop` cannot be watched or the poll fails. A broken port or connection is no error.
    pub fn run(&mut self, stop: impl AsFd) -> io::Result<Counters> {
        self.engine.run(stop.as_fd())?;
        let counters = self.engine.counters();
        tracing::info!(?counters, "switch stopped");
        Ok(counters)
    }
}
