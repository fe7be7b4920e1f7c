use std::fmt;
use std::str::FromStr;

/// The name of a network device, such as `eth0` or `vif5.0`.
///
/// ```
/// use colo_core::net::sys::LinkName;
///
/// let name: LinkName = "vif5.0".parse()?;
/// assert_eq!(name.as_str(), "vif5.0");
/// assert!("a/b".parse::<LinkName>().is_err());
/// # Ok::<(), colo_core::net::sys::LinkNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkName(String);

/// Text that cannot be the name of a network device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not the name of a network device: 1 to {max} bytes without space, '/', ':' and '%'", max = LinkName::MAX_BYTES)]
pub struct LinkNameError(pub String);

impl LinkName {
    /// The kernel's `IFNAMSIZ` has a zero at its end, too.
    pub const MAX_BYTES: usize = libc::IFNAMSIZ - 1;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LinkName {
    type Err = LinkNameError;

    /// Beside what the kernel refuses: `%`, as it reads `%d` as "any number", and what is not printable ASCII, which nobody could type.
    fn from_str(text: &str) -> Result<Self, LinkNameError> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len()) && text != "." && text != "..";
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte));
        if fits && plain { Ok(LinkName(text.to_owned())) } else { Err(LinkNameError(text.to_owned())) }
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_device_can_have() {
        for name in ["a", "eth0", "vif5.0", "vif5.0-emu", "fifteen-bytes-x"] {
            assert_eq!(name.parse::<LinkName>().unwrap().to_string(), name);
        }
        for name in ["", ".", "..", "sixteen-bytes-xx", "a/b", "a:1", "tap%d", "a b", "a\0", "ü"] {
            assert_eq!(name.parse::<LinkName>(), Err(LinkNameError(name.to_owned())));
        }
    }
}
