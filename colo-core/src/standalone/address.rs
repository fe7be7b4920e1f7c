use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to listen: a Unix socket, or a TCP port.
///
/// ```
/// use colo_core::standalone::Address;
///
/// assert_eq!("/run/colo/out".parse(), Ok(Address::Unix("/run/colo/out".into())));
/// assert_eq!("tcp:10.0.0.1:9004".parse(), Ok(Address::Tcp { host: "10.0.0.1".into(), port: 9004 }));
/// // A file of that name, or a port? It does not guess.
/// assert!("10.0.0.1:9004".parse::<Address>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A path in the file system.
    Unix(PathBuf),
    /// A port.
    Tcp {
        /// The host's own address or name, without brackets.
        host: String,
        /// The port; 0 for one that the system chooses.
        port: u16,
    },
}

/// Why a text is no [`Address`].
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error, Debug)]
pub enum AddressParseError {
    /// It is empty.
    #[error("give a path, or tcp:HOST:PORT")]
    Empty,
    /// It begins with `tcp:`, and no host and port follow.
    #[error("give tcp:HOST:PORT, with a host (0.0.0.0 or [::] for all) and a port")]
    Tcp,
    /// It could be both.
    #[error("for a TCP port write tcp:HOST:PORT; for a file of that name, put ./ before it")]
    Ambiguous,
}

impl FromStr for Address {
    type Err = AddressParseError;

    fn from_str(text: &str) -> Result<Self, AddressParseError> {
        if let Some(rest) = text.strip_prefix("tcp:") {
            let (host, port) = rest.rsplit_once(':').ok_or(AddressParseError::Tcp)?;
            let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            // An address of IPv6 without brackets may have lost its last part to the port.
            if host.is_empty() || inner.is_none() && host.contains(':') {
                return Err(AddressParseError::Tcp);
            }
            let port = port.parse().map_err(|_| AddressParseError::Tcp)?;
            return Ok(Address::Tcp { host: inner.unwrap_or(host).to_owned(), port });
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        let looks_like_port = |(_, port): (&str, &str)| port.parse::<u16>().is_ok();
        if path.is_empty() {
            Err(AddressParseError::Empty)
        } else if path == text && !path.contains('/') && path.rsplit_once(':').is_some_and(looks_like_port) {
            Err(AddressParseError::Ambiguous)
        } else {
            Ok(Address::Unix(path.into()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => path.display().fmt(f),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_clear_or_refused() {
        let tcp = |host: &str, port| Ok(Address::Tcp { host: host.into(), port });
        let unix = |path: &str| Ok(Address::Unix(path.into()));
        let cases = [
            ("tcp:localhost:9001", tcp("localhost", 9001)),
            ("tcp:[::1]:9001", tcp("::1", 9001)),
            ("tcp:0.0.0.0:0", tcp("0.0.0.0", 0)),
            ("tcp:::1:9001", Err(AddressParseError::Tcp)),
            ("tcp::9001", Err(AddressParseError::Tcp)),
            ("tcp:9001", Err(AddressParseError::Tcp)),
            ("tcp:host:port", Err(AddressParseError::Tcp)),
            ("tcp:host:65536", Err(AddressParseError::Tcp)),
            ("a.sock", unix("a.sock")),
            ("./a:1", unix("./a:1")),
            ("/run/a:1", unix("/run/a:1")),
            ("unix:a:1", unix("a:1")),
            ("unix:tcp:a:1", unix("tcp:a:1")),
            ("name:x", unix("name:x")),
            ("localhost:9001", Err(AddressParseError::Ambiguous)),
            ("[::1]:9001", Err(AddressParseError::Ambiguous)),
            ("", Err(AddressParseError::Empty)),
            ("unix:", Err(AddressParseError::Empty)),
        ];
        for (text, meant) in cases {
            assert_eq!(text.parse(), meant, "{text}");
        }
        for text in ["tcp:[::1]:9001", "tcp:a:1", "/a/b"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }
}
