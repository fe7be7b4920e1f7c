//! The network of two hosts, or three, or of one: a bridge with all of them and the clients, in a network namespace of its own, and between each
//! two hosts a link for nothing but replication.
//!
//! ```text
//!   clients 10.9.0.254 --+-- tap -- eth0 of A -- xenbr0 10.9.0.1 -- guests 10.9.0.N
//!     (a bridge)         +-- tap -- eth0 of B -- xenbr0 10.9.0.2 -- guests
//!                        +-- tap -- eth0 of C -- xenbr0 10.9.0.3 -- guests
//!
//!   eth1 of A 10.8.0.1 ---- datagrams ---- eth1 of B 10.8.0.2
//!   eth2 of A 10.8.0.1 ---- datagrams ---- eth1 of C 10.8.0.3
//!   eth2 of B 10.8.0.2 ---- datagrams ---- eth2 of C 10.8.0.3
//! ```
//!
//! A third host has links of its own because one wire for all would need a hub, through which every frame would be copied once more.

use crate::context::Context;
use crate::host::{Host, HostConfig, Starting};
use crate::process::{Stopper, tied};
use crate::qemu::{Card, CardEnd};
use anyhow::{Context as _, Result, anyhow, ensure};
use colo_testbed_inside::ports;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

/// The clients' own address.
pub(crate) const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);

const NAMES: [&str; 3] = ["A", "B", "C"];
const PREFIX: &str = "colo-testbed-";
const NAMESPACES: &str = "/run/netns";
const LIMIT: Duration = Duration::from_secs(30);
/// How the sockets of a link are called while it is cut.
const CUT: &str = "cut";

/// A network for hosts. Dropped, it is gone; the hosts must be gone by then.
pub(crate) struct Network {
    namespace: String,
    /// `ip`, out of the packages.
    ip: Vec<OsString>,
    /// This, too: it has a `ping`.
    busybox: String,
    stopper: Stopper,
    hosts: usize,
    /// Where the links' sockets are.
    sockets: PathBuf,
}

impl Network {
    /// Makes a network for so many hosts, which are at most three.
    pub(crate) fn new(context: &Context, hosts: usize) -> Result<Network> {
        let network = Network {
            // The process's number keeps two testbeds apart.
            namespace: format!("{PREFIX}{}", std::process::id()),
            ip: context.packages().words("/bin/ip")?,
            busybox: context.packages().path("/bin/busybox")?.display().to_string(),
            stopper: context.stopper().clone(),
            hosts,
            sockets: context.socket(""),
        };
        network.remove_ended()?;
        network.run(&["netns", "add", &network.namespace])?;
        network.within(&["link", "set", "lo", "up"])?;
        network.within(&["link", "add", "br0", "type", "bridge", "forward_delay", "0"])?;
        network.within(&["link", "set", "br0", "up"])?;
        network.within(&["addr", "add", &format!("{CLIENTS}/24"), "dev", "br0"])?;
        for name in &NAMES[..hosts] {
            let tap = &tap(name);
            network.within(&["tuntap", "add", tap, "mode", "tap"])?;
            network.within(&["link", "set", tap, "master", "br0", "up"])?;
        }
        Ok(network)
    }

    /// Boots all hosts at once.
    pub(crate) fn boot<const HOSTS: usize>(&self, context: &Context) -> Result<[Host; HOSTS]> {
        ensure!(HOSTS == self.hosts, "a network for {} hosts", self.hosts);
        let started: Vec<Starting> = (0..HOSTS).map(|index| self.start(context, index)).collect::<Result<_>>()?;
        let hosts: Vec<Host> = started.into_iter().map(Starting::wait).collect::<Result<_>>()?;
        hosts.try_into().map_err(|_| anyhow!("as many hosts as were started"))
    }

    /// Starts a host, by its index, from 0 on: also in the place of one that was killed.
    pub(crate) fn start(&self, context: &Context, index: usize) -> Result<Starting> {
        Starting::start(context, self.host(index))
    }

    /// Cuts the link between two hosts, by their indices: both live, and neither sees anything but silence.
    pub(crate) fn cut_link(&self, one: usize, other: usize) -> Result<()> {
        // To QEMU a socket that is not where it was is a frame that is lost.
        let ends = [(one, other), (other, one)].map(|(from, to)| self.link(from, to));
        ends.iter().try_for_each(|end| fs::rename(end, end.with_extension(CUT)).context("a link that is there"))
    }

    /// Mends a link that was cut.
    pub(crate) fn mend_link(&self, one: usize, other: usize) -> Result<()> {
        let ends = [(one, other), (other, one)].map(|(from, to)| self.link(from, to));
        ends.iter().try_for_each(|end| fs::rename(end.with_extension(CUT), end).context("a link that was cut"))
    }

    /// Whether a host or a guest answers a client's pings.
    pub(crate) fn ping(&self, address: Ipv4Addr) -> Result<()> {
        let arguments = ["netns", "exec", &self.namespace, &self.busybox, "ping", "-c", "3", "-W", "10"];
        self.run(&[&arguments[..], &[&address.to_string()]].concat())
    }

    /// What a client says to TCP's echo at this address, and hears.
    pub(crate) fn echo(&self, address: Ipv4Addr, text: &str) -> Result<String> {
        let text = text.to_owned();
        self.as_client(move || {
            let mut connection = TcpStream::connect_timeout(&(address, ports::ECHO).into(), LIMIT)?;
            connection.set_read_timeout(Some(LIMIT))?;
            connection.write_all(text.as_bytes())?;
            connection.shutdown(Shutdown::Write)?;
            let mut heard = String::new();
            connection.read_to_string(&mut heard)?;
            Ok(heard)
        })
        .with_context(|| format!("a client of {address}"))
    }

    /// A command that runs where the clients are.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let words = self.words();
        let mut command = tied(&words[0]);
        command.args(&words[1..]).arg(program);
        command
    }

    /// Does something where the clients are.
    pub(crate) fn as_client<T: Send + 'static>(&self, what: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.client(what)?.join().map_err(|_| anyhow!("a client panicked"))?
    }

    /// A thread that does something where the clients are. It is one of its own, for it does not come back.
    pub(crate) fn client<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let namespace = File::open(Path::new(NAMESPACES).join(&self.namespace))?;
        Ok(std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            what()
        }))
    }

    fn host(&self, index: usize) -> HostConfig {
        let number = host_number(index);
        let mut cards = vec![Card { address: [0, number], end: CardEnd::Tap(tap(NAMES[index])) }];
        let others = (0..self.hosts).filter(|other| *other != index);
        for other in others.clone() {
            let end = CardEnd::Link { own: self.link(index, other), other: self.link(other, index) };
            cards.push(Card { address: [cards.len() as u8, number], end });
        }
        HostConfig {
            name: NAMES[index],
            number,
            cards,
            linked: others.map(host_number).collect(),
            within: self.words(),
            ..HostConfig::alone()
        }
    }

    /// What a program is run with in the namespace.
    fn words(&self) -> Vec<OsString> {
        [&self.ip[..], &["netns", "exec", &self.namespace].map(OsString::from)].concat()
    }

    /// The socket at one end of a link.
    fn link(&self, own: usize, other: usize) -> PathBuf {
        self.sockets.join(format!("{}{}.link", NAMES[own], NAMES[other]))
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut command = tied(&self.ip[0]);
        command.args(&self.ip[1..]).args(arguments);
        self.stopper.run(command, &format!("ip {}", arguments.join(" ")), LIMIT)?;
        Ok(())
    }

    fn within(&self, arguments: &[&str]) -> Result<()> {
        self.run(&[&["-n", &self.namespace], arguments].concat())
    }

    /// Removes the networks of testbeds that were killed.
    fn remove_ended(&self) -> Result<()> {
        let Ok(namespaces) = fs::read_dir(NAMESPACES) else { return Ok(()) };
        for namespace in namespaces.flatten() {
            let name = namespace.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                self.run(&["netns", "del", &name.to_string_lossy()])?;
            }
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Not by way of the stopper: it may have stopped everything, and this must be done all the same.
        let mut command = std::process::Command::new(&self.ip[0]);
        let _ = command.args(&self.ip[1..]).args(["netns", "del", &self.namespace]).output();
    }
}

/// A host's number, from 1.
fn host_number(index: usize) -> u8 {
    index as u8 + 1
}

/// The name of a host's tap.
fn tap(name: &str) -> String {
    format!("tap{name}")
}
