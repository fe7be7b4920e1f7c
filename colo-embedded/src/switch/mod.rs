//! The LAN between machines and their clients: an Ethernet switch in a process of its own.
//!
//! Its ports are Unix sockets (`SOCK_SEQPACKET`, one frame a packet), a TAP device for root, and a relay: TCP connections to
//! an address of this host are carried, by a TCP/IP stack inside the switch, to a guest ([`Forward`]). So the client's
//! connection ends in the switch, and outlives the machine that serves it.
//!
//! * [`fabric`]: which port a frame goes to. Learns addresses from every frame, a gratuitous ARP among them.
//! * [`Switch`]: one thread, one `poll`, bounded queues. A port that does not keep up loses frames, as at any switch.
//!
//! ```
//! use colo_embedded::machine::SwitchPort;
//! use colo_embedded::switch::{Switch, SwitchConfig};
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! let socket = std::env::temp_dir().join(format!("colo-doc-{}.switch", std::process::id()));
//! let mut switch = Switch::new(&SwitchConfig { socket: socket.clone(), forwards: Vec::new(), tap: None })?;
//! let stop = AtomicBool::new(false);
//! std::thread::scope(|scope| {
//!     scope.spawn(|| switch.run(&stop));
//!     let connected = SwitchPort::connect(&socket);
//!     stop.store(true, Ordering::SeqCst);
//!     connected.map(drop)
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod fabric;
mod mac;
mod packet_io;
mod ports;
mod queue;
mod relay;
mod socket_file;
mod stack;
mod tap;

pub use mac::{MacAddr, ParseError};
pub use relay::Forward;

use fabric::{Delivery, Fabric, PortId};
use packet_io::{Batch, Received};
use ports::{Kind, MAX_PORTS, Port, Ports};
use relay::Relay;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket_file::SocketFile;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// After so long without a frame from it an address is forgotten: IEEE 802.1D's default.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How often old addresses are looked for, and how soon a call to stop is heard.
const LOOK_UP: Duration = Duration::from_millis(100);
/// The port behind which the relay is.
const RELAY: PortId = PortId(0);

/// What a switch is to be.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// The socket that machines connect to. Made with mode 0600; one that nobody listens at is replaced.
    pub socket: PathBuf,
    /// What is relayed from addresses of this host to guests.
    pub forwards: Vec<Forward>,
    /// A TAP device to be one more port.
    pub tap: Option<String>,
}

/// The switch.
pub struct Switch {
    fabric: Fabric,
    listener: SocketFile,
    ports: Ports,
    next_port: u32,
    relay: Relay,
    batch: Batch,
    aged: Instant,
}

/// Who is behind an entry of the poll set.
enum Source {
    Listener,
    Port(PortId),
    Relay,
}

impl Switch {
    /// Opens the sockets and the device.
    ///
    /// # Errors
    /// When one of them is not to be had: an address in use, no right to a TAP.
    pub fn new(config: &SwitchConfig) -> io::Result<Switch> {
        let now = Instant::now();
        let mut switch = Switch {
            fabric: Fabric::new(MAX_AGE),
            relay: Relay::new(&config.forwards, now)?,
            listener: SocketFile::bind(&config.socket)?,
            ports: Ports::default(),
            next_port: RELAY.0 + 1,
            batch: Batch::new(),
            aged: now,
        };
        if let Some(name) = &config.tap {
            switch.add_port(Port::new(tap::open(name)?, Kind::Tap));
        }
        Ok(switch)
    }

    /// Frames that were lost because a port did not keep up.
    pub fn dropped_frames(&self) -> u64 {
        self.ports.dropped_frames
    }

    /// Switches until `stop` is set.
    ///
    /// # Errors
    /// When polling fails, which it does only for want of memory.
    pub fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut readable = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            self.sleep()?;
            let now = Instant::now();
            loop {
                self.ports.readable(&mut readable);
                let mut moved = false;
                for &id in &readable {
                    moved |= self.read_port(id, now);
                }
                moved |= self.turn_relay(now);
                self.flush();
                if !moved {
                    break;
                }
            }
            if now.saturating_duration_since(self.aged) >= LOOK_UP {
                self.aged = now;
                self.fabric.handle_age(now);
            }
        }
        Ok(())
    }

    /// Waits for something to do, and notes what it is.
    fn sleep(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let timeout = self.relay.poll_delay(now).unwrap_or(LOOK_UP).min(LOOK_UP);
        let mut sources = vec![Source::Listener];
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for (id, port) in self.ports.iter() {
            sources.push(Source::Port(id));
            let flags = if port.writable { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            fds.push(PollFd::from_borrowed_fd(port.as_fd(), flags));
        }
        for (fd, flags) in self.relay.poll_fds() {
            sources.push(Source::Relay);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<(Source, PollFlags)> = sources.into_iter().zip(fds.iter().map(PollFd::revents)).collect();
        for (source, events) in ready.into_iter().filter(|(_, events)| !events.is_empty()) {
            match source {
                Source::Listener => self.accept(),
                Source::Port(id) => {
                    if let Some(port) = self.ports.get_mut(id) {
                        port.readable |= events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
                    }
                    if events.contains(PollFlags::OUT) {
                        self.ports.set_writable(id);
                    }
                }
                // All its connections are looked at in each turn.
                Source::Relay => {}
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        // An error concerns the one who connected, and he knows.
        while let Ok(Some(socket)) = self.listener.accept() {
            if self.ports.len() < MAX_PORTS {
                self.add_port(Port::new(socket, Kind::Packets));
            } else {
                tracing::warn!("all {MAX_PORTS} ports are taken; a connection was refused");
            }
        }
    }

    fn add_port(&mut self, port: Port) {
        self.ports.insert(PortId(self.next_port), port);
        self.next_port += 1;
    }

    /// Takes a batch of frames from a port. Returns whether there was any.
    fn read_port(&mut self, id: PortId, now: Instant) -> bool {
        let Some(port) = self.ports.get_mut(id) else { return false };
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        let received = port.receive(&mut batch);
        let mut any = false;
        for frame in batch.iter() {
            any = true;
            self.switch_frame(id, frame, now);
        }
        self.batch = batch;
        if !matches!(received, Ok(Received::More | Received::Drained)) {
            self.remove_port(id);
        }
        any
    }

    fn switch_frame(&mut self, from: PortId, frame: &[u8], now: Instant) {
        match self.fabric.handle_frame(now, from, frame).delivery {
            Delivery::To(RELAY) => self.relay.handle_frame(frame),
            Delivery::To(to) => self.ports.enqueue(to, frame),
            Delivery::Flood => {
                if from != RELAY {
                    self.relay.handle_frame(frame);
                }
                self.ports.enqueue_all(from, frame);
            }
            Delivery::Drop => {}
        }
    }

    /// Lets the relay do what it can. Returns whether it did anything.
    fn turn_relay(&mut self, now: Instant) -> bool {
        let moved = self.relay.turn(now);
        let frames = self.relay.take_frames();
        for frame in &frames {
            self.switch_frame(RELAY, frame, now);
        }
        self.relay.give_back(frames);
        moved
    }

    fn flush(&mut self) {
        let mut broken = Vec::new();
        self.ports.flush(&mut broken);
        broken.into_iter().for_each(|id| self.remove_port(id));
    }

    fn remove_port(&mut self, id: PortId) {
        self.ports.remove(id);
        self.fabric.remove_port(id);
    }
}
