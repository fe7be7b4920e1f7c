//! The network of two hosts: a bridge with both of them and a client, in a network namespace of its own, and between the hosts a link
//! for nothing but replication.
//!
//! ```text
//!   client 10.9.0.254 --+-- tap -- eth0 of A -- xenbr0 10.9.0.1 -- guests 10.9.0.N
//!     (a bridge)        +-- tap -- eth0 of B -- xenbr0 10.9.0.2 -- guests
//!                   eth1 of A 10.8.0.1 ---- datagrams ---- eth1 of B 10.8.0.2
//! ```

use crate::context::Context;
use crate::host::{Host, HostConfig, Starting};
use crate::process::{Stopper, tied};
use crate::qemu::{Card, CardEnd};
use anyhow::{Context as _, Result, anyhow};
use colo_testbed_inside::ports;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

const PREFIX: &str = "colo-testbed-";
const NAMESPACES: &str = "/run/netns";
const LIMIT: Duration = Duration::from_secs(30);

/// A network for two hosts. Dropped, it is gone; the hosts must be gone by then.
pub(crate) struct Network {
    namespace: String,
    /// `ip`, out of the packages.
    ip: Vec<OsString>,
    /// This, too: it has a `ping`.
    busybox: String,
    stopper: Stopper,
    /// Where the link's sockets are.
    links: [PathBuf; 2],
}

impl Network {
    /// Makes the network.
    pub(crate) fn new(context: &Context) -> Result<Network> {
        let network = Network {
            // The process's number keeps two testbeds apart.
            namespace: format!("{PREFIX}{}", std::process::id()),
            ip: context.packages().words("/bin/ip")?,
            busybox: context.packages().path("/bin/busybox")?.display().to_string(),
            stopper: context.stopper().clone(),
            links: ["A.link", "B.link"].map(|name| context.socket(name)),
        };
        network.remove_ended()?;
        network.run(&["netns", "add", &network.namespace])?;
        network.within(&["link", "set", "lo", "up"])?;
        network.within(&["link", "add", "br0", "type", "bridge", "forward_delay", "0"])?;
        network.within(&["link", "set", "br0", "up"])?;
        network.within(&["addr", "add", "10.9.0.254/24", "dev", "br0"])?;
        for tap in ["tapA", "tapB"] {
            network.within(&["tuntap", "add", tap, "mode", "tap"])?;
            network.within(&["link", "set", tap, "master", "br0", "up"])?;
        }
        Ok(network)
    }

    /// Boots both hosts at once.
    pub(crate) fn boot(&self, context: &Context) -> Result<(Host, Host)> {
        let a = Starting::start(context, self.host(0))?;
        let b = Starting::start(context, self.host(1))?;
        Ok((a.wait()?, b.wait()?))
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
        let number = index as u8 + 1;
        let link = CardEnd::Link { own: self.links[index].clone(), other: self.links[1 - index].clone() };
        let name = ["A", "B"][index];
        HostConfig {
            name,
            number,
            cards: vec![
                Card { address: [0, number], end: CardEnd::Tap(format!("tap{name}")) },
                Card { address: [1, number], end: link },
            ],
            within: [&self.ip[..], &["netns", "exec", &self.namespace].map(OsString::from)].concat(),
            ..HostConfig::alone()
        }
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
