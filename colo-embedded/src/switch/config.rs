//! What a switch is to be.

use colo_core::domain::MacAddr;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A switch's settings. Start from [`SwitchConfig::new`].
///
/// ```
/// use colo_embedded::switch::SwitchConfig;
///
/// let mut config = SwitchConfig::new("/run/user/1000/lan.sock");
/// config.forwards.push("127.0.0.1:8080=10.77.0.10:80".parse()?);
/// # Ok::<(), colo_embedded::switch::ForwardParseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SwitchConfig {
    /// Where machines connect: a `SOCK_SEQPACKET` Unix socket; each packet is one Ethernet frame.
    pub socket: PathBuf,
    /// Host TCP addresses that lead to guests.
    pub forwards: Vec<Forward>,
    /// A TAP device to make a port of; needs `CAP_NET_ADMIN`.
    pub tap: Option<String>,
    /// The switch's own address on the LAN, from which forwarded connections come.
    pub address: Ipv4Addr,
    /// Length of the LAN's prefix, in bits.
    pub prefix_len: u8,
    /// The switch's own Ethernet address.
    pub mac: MacAddr,
    /// How long an address is remembered after the last frame from it.
    pub max_age: Duration,
}

impl SwitchConfig {
    /// The default LAN, 10.77.0.0/24 with the switch at 10.77.0.1, with its socket at `socket`, and neither forward nor
    /// TAP. Addresses age in 300 s, IEEE 802.1D's default.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            forwards: Vec::new(),
            tap: None,
            address: Ipv4Addr::new(10, 77, 0, 1),
            prefix_len: 24,
            mac: MacAddr([0x02, 0x63, 0x6f, 0x6c, 0x6f, 0x01]),
            max_age: Duration::from_secs(300),
        }
    }

    /// Whether `address` is a machine's on this LAN other than the switch's own.
    pub(super) fn is_neighbour(&self, address: Ipv4Addr) -> bool {
        let host_bits = 32 - u32::from(self.prefix_len);
        let network = |address: Ipv4Addr| u64::from(u32::from(address)) >> host_bits;
        network(address) == network(self.address) && address != self.address && !address.is_unspecified()
    }
}

/// One forward: connections to `listen` on the host go to `target` on the LAN.
///
/// ```
/// use colo_embedded::switch::Forward;
///
/// let forward: Forward = "127.0.0.1:8080=10.77.0.10:80".parse()?;
/// assert_eq!(forward.target.port(), 80);
/// assert_eq!(forward.to_string(), "127.0.0.1:8080=10.77.0.10:80");
/// # Ok::<(), colo_embedded::switch::ForwardParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Where the host listens; port 0 lets it choose, see [`Switch::forward_addrs`](super::Switch::forward_addrs).
    pub listen: SocketAddr,
    /// Where the connections go.
    pub target: SocketAddrV4,
}

/// Text that is no [`Forward`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a forward such as 127.0.0.1:8080=10.77.0.10:80")]
pub struct ForwardParseError {
    /// The text.
    pub text: String,
}

impl FromStr for Forward {
    type Err = ForwardParseError;

    fn from_str(text: &str) -> Result<Self, ForwardParseError> {
        let parse =
            |(listen, target): (&str, &str)| Some(Self { listen: listen.parse().ok()?, target: target.parse().ok()? });
        text.split_once('=')
            .and_then(parse)
            .filter(|forward| forward.target.port() != 0)
            .ok_or_else(|| ForwardParseError { text: text.to_owned() })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.listen, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "127.0.0.1:80", "8080=10.77.0.10:80", "127.0.0.1:80=10.77.0.10:0", "a:1=b:2", "127.0.0.1:1=[::1]:80"]
        {
            assert!(text.parse::<Forward>().is_err(), "{text}");
        }
    }

    #[test]
    fn neighbours() {
        let mut config = SwitchConfig::new("s");
        assert!(config.is_neighbour([10, 77, 0, 10].into()));
        assert!(!config.is_neighbour([10, 77, 0, 1].into()));
        assert!(!config.is_neighbour([10, 78, 0, 10].into()));
        config.prefix_len = 0;
        assert!(config.is_neighbour([1, 2, 3, 4].into()));
        config.prefix_len = 32;
        assert!(!config.is_neighbour([10, 77, 0, 2].into()));
    }
}
