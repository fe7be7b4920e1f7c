//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address, first byte on the wire first.
///
/// ```
/// use colo_embedded::switch::MacAddr;
///
/// let address: MacAddr = "02:63:6f:6c:6f:01".parse()?;
/// assert_eq!(address.0[5], 1);
/// assert_eq!(address.to_string(), "02:63:6f:6c:6f:01");
/// # Ok::<(), colo_embedded::switch::ParseError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Whether it names a group: broadcast or multicast (the lowest bit of the first byte, IEEE 802).
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it is one of the sixteen that no bridge forwards: pause, spanning tree, LLDP (IEEE 802.1Q, table 8-1).
    pub fn is_link_local(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct ParseError {
    /// The text.
    pub text: String,
    /// What was wanted, with an example.
    pub what: &'static str,
}

impl FromStr for MacAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError { text: text.to_owned(), what: "an Ethernet address such as 02:63:6f:6c:6f:01" };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(error)?;
            // `from_str_radix` takes a sign.
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "02:63:6f:6c:6f", "02:63:6f:6c:6f:01:02", "+2:63:6f:6c:6f:01", "2:63:6f:6c:6f:01", "gg:63:6f:6c:6f:01"]
        {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
