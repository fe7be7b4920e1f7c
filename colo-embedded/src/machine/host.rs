//! A host for embedded machines, and the wire from it to the switch.

use super::config::{EmbeddedConfig, HYPERVISOR};
use super::dirty::DirtyLogChoice;
use super::domain::EmbeddedDomain;
use bytes::Bytes;
use colo_core::domain::{DomainError, DomainSpec, Host, Machine};
use colo_core::net::{Frame, MAX_BATCH_FRAMES, MAX_FRAME_BYTES, Port};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes machines on this host, and connects them to one switch.
pub struct EmbeddedHost {
    switch: PathBuf,
    dirty_log: DirtyLogChoice,
}

impl EmbeddedHost {
    /// A host whose machines are behind the switch at this socket.
    pub fn new(switch: impl Into<PathBuf>) -> Self {
        EmbeddedHost { switch: switch.into(), dirty_log: DirtyLogChoice::Auto }
    }

    /// The same, with dirty pages found in this way.
    #[must_use]
    pub fn with_dirty_log(mut self, choice: DirtyLogChoice) -> Self {
        self.dirty_log = choice;
        self
    }
}

impl Host for EmbeddedHost {
    fn hypervisor(&self) -> &str {
        HYPERVISOR
    }

    fn create(&mut self, spec: &DomainSpec) -> Result<Machine, DomainError> {
        let config = EmbeddedConfig { dirty_log: self.dirty_log, ..EmbeddedConfig::from_spec(spec)? };
        let (domain, port) = EmbeddedDomain::create(&config)?;
        Ok(Machine { domain: Box::new(domain), nics: vec![Box::new(port)] })
    }

    fn open_lan(&mut self, _spec: &DomainSpec, _nic: usize) -> Result<Box<dyn Port>, DomainError> {
        let port = SwitchPort::connect(&self.switch).map_err(DomainError::sys("connecting to the switch"))?;
        Ok(Box::new(port))
    }
}

/// A port of the switch, from the machine's side: a Unix socket, one frame a packet.
pub struct SwitchPort {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl SwitchPort {
    /// Connects to the switch at this socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: &Path) -> io::Result<SwitchPort> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(SwitchPort { socket, buffer: vec![0; MAX_FRAME_BYTES] })
    }
}

impl Port for SwitchPort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let mut count = 0;
        while count < MAX_BATCH_FRAMES {
            match rustix::net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((0, _)) if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((0, _)) | Err(Errno::AGAIN) => break,
                Ok((length, _)) => {
                    frames.push(Bytes::copy_from_slice(&self.buffer[..length]));
                    count += 1;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(count)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        for (sent, frame) in frames.iter().enumerate() {
            match rustix::net::send(&self.socket, frame, SendFlags::NOSIGNAL) {
                Ok(_) => {}
                // The switch has no room now, or the host has none.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => return Ok(sent),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(frames.len())
    }
}
