//! A TAP device: a network card of the host's whose cable ends in this process.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Opens the TAP device `name`, and makes it if there is none; it then lives as long as the descriptor. Frames carry no
/// header of the kernel's (`IFF_TAP | IFF_NO_PI`, see the kernel's `Documentation/networking/tuntap.rst`). Reads and writes
/// do not block.
///
/// # Errors
/// `InvalidInput` for a name that no device can have; `PermissionDenied` without `CAP_NET_ADMIN`; `ResourceBusy` when
/// another process has it.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    // The kernel takes 15 bytes and a zero, and reads `%d` as "any number".
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '%', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a network device"));
    }
    let device = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: plain C data, for which all bits zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request takes a pointer to an `ifreq`, which lives over the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(device) }
}
