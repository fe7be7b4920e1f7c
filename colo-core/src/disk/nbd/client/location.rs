use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The port that NBD has.
pub const NBD_PORT: u16 = 10809;

/// Where an export is: what `nbd://HOST:PORT/NAME` and `nbd+unix:///NAME?socket=PATH` say.
///
/// ```
/// use colo_core::disk::nbd::{Address, Location};
///
/// let location: Location = "nbd://[::1]/a%20disk".parse()?;
/// assert_eq!(location.address, Address::Tcp { host: "::1".into(), port: 10809 });
/// assert_eq!(location.export, "a disk");
/// assert_eq!(location.to_string(), "nbd://[::1]:10809/a%20disk");
/// let location: Location = "nbd+unix:///?socket=/run/disk.socket".parse()?;
/// assert_eq!(location.address, Address::Unix("/run/disk.socket".into()));
/// # Ok::<(), colo_core::disk::nbd::LocationError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// The server's.
    pub address: Address,
    /// The export's name. An empty one is the server's choice.
    pub export: String,
}

/// Where a server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A port of a host.
    Tcp {
        /// Its name or its address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

/// What is wrong with a location.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LocationError {
    /// It begins with something else.
    #[error("{0:?} is neither nbd://HOST:PORT/NAME nor nbd+unix:///NAME?socket=PATH")]
    Scheme(String),
    /// There is no encryption here.
    #[error("{0:?} asks for TLS, which colo does not speak")]
    Tls(String),
    /// A part makes no sense, or is missing.
    #[error("{location:?}: {what}")]
    Part {
        /// The whole.
        location: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Location, LocationError> {
        let wrong = |what| LocationError::Part { location: text.to_owned(), what };
        if text.starts_with("nbds://") || text.starts_with("nbds+unix://") {
            return Err(LocationError::Tls(text.to_owned()));
        }
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let name = |encoded: &str| decode(encoded).ok_or(wrong("the export's name is not UTF-8 in %XX"));
        if let Some(rest) = path.strip_prefix("nbd+unix://") {
            let export = rest.strip_prefix('/').ok_or(wrong("no host belongs there: nbd+unix:///NAME"))?;
            let mut sockets = query.unwrap_or("").split('&').filter_map(|part| part.strip_prefix("socket="));
            let socket = sockets.next_back().filter(|path| !path.is_empty()).ok_or(wrong("no ?socket=PATH"))?;
            let socket = decode(socket).ok_or(wrong("the socket's path is not UTF-8 in %XX"))?;
            return Ok(Location { address: Address::Unix(socket.into()), export: name(export)? });
        }
        let rest = path.strip_prefix("nbd://").ok_or(LocationError::Scheme(text.to_owned()))?;
        if query.is_some_and(|query| !query.is_empty()) {
            return Err(wrong("nothing is known behind the question mark"));
        }
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = host_and_port(authority).ok_or(wrong("not HOST, HOST:PORT or [ADDRESS]:PORT"))?;
        Ok(Location { address: Address::Tcp { host, port }, export: name(export)? })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let export = encode(&self.export);
        match &self.address {
            Address::Unix(path) => write!(f, "nbd+unix:///{export}?socket={}", encode(&path.to_string_lossy())),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "nbd://[{host}]:{port}/{export}"),
            Address::Tcp { host, port } => write!(f, "nbd://{host}:{port}/{export}"),
        }
    }
}

fn host_and_port(authority: &str) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) = rest.split_once(']')?;
        (host, if behind.is_empty() { None } else { Some(behind.strip_prefix(':')?) })
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = port.map_or(Some(NBD_PORT), |port| port.parse().ok().filter(|port| *port > 0))?;
    (!host.is_empty() && !host.contains(['@', '%'])).then(|| (host.to_owned(), port))
}

fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.first_chunk::<2>().filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_location_is_refused() {
        for wrong in [
            "",
            "disk",
            "http://host/disk",
            "nbds://host",
            "nbds+unix:///?socket=/a",
            "nbd://",
            "nbd:///disk",
            "nbd://host:0/disk",
            "nbd://host:70000",
            "nbd://host:/disk",
            "nbd://[::1/disk",
            "nbd://[::1]7/disk",
            "nbd://::1/disk",
            "nbd://host/a%2",
            "nbd://host/%ff",
            "nbd://host/disk?socket=/a",
            "nbd+unix:///disk",
            "nbd+unix:///disk?socket=",
            "nbd+unix://host/disk?socket=/a",
        ] {
            assert!(wrong.parse::<Location>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_is_read(export in ".*", path in ".+", port in 1..=u16::MAX, is_unix in any::<bool>()) {
            let tcp = Address::Tcp { host: "host.example".into(), port };
            let address = if is_unix { Address::Unix(path.into()) } else { tcp };
            let location = Location { address, export };
            prop_assert_eq!(location.to_string().parse(), Ok(location));
        }
    }
}
