use super::done;
use super::name::LinkName;
use super::slot::Slot;
use crate::net::{Frame, Offload};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// What was sent to a TAP and the process that has it open, such as a device model, has not read yet.
///
/// Linux keeps up to a thousand frames there for it (`txqueuelen`), and does not tell how many.
#[derive(Debug)]
pub struct Backlog {
    /// The process (a pidfd), and by which number it knows the TAP. Its descriptor is borrowed for each look only: a TAP is there as long as
    /// anybody has it open, and this one is to go with its process.
    holder: OwnedFd,
    number: c_int,
    /// Whether virtio's header is before each frame.
    has_header: bool,
    slot: Slot,
}

impl Backlog {
    /// That of the TAP of this name, which this process has open.
    ///
    /// # Errors
    /// `NotFound` when it has not, or is not there; `Unsupported` when it is no plain card's; `PermissionDenied` to whoever may not debug that process.
    ///
    /// ```no_run
    /// use colo_core::net::sys::Backlog;
    ///
    /// let device_model = 4711;
    /// let mut backlog = Backlog::open(device_model, &"vif5.0-emu".parse()?)?;
    /// let mut frames = Vec::new();
    /// backlog.take(&mut frames)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(process: u32, name: &LinkName) -> io::Result<Backlog> {
        let not_found =
            || io::Error::new(io::ErrorKind::NotFound, format!("process {process} does not have {name} open"));
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or_else(not_found)?;
        // From here on it is this process, or none.
        let holder = pidfd_open(pid, PidfdFlags::empty())?;
        let number = descriptor_of(process, name)?.ok_or_else(not_found)?;
        let has_header = match header_bytes(&pidfd_getfd(&holder, number, PidfdGetfdFlags::empty())?)? {
            0 => false,
            Offload::HEADER_BYTES => true,
            // A device model asks for more only on behalf of a guest that has such a card.
            more => return Err(io::Error::new(io::ErrorKind::Unsupported, format!("frames behind {more} bytes"))),
        };
        Ok(Backlog { holder, number, has_header, slot: Slot::new() })
    }

    /// Appends all of it to `frames`, and returns how many that is. Its reader is not to read meanwhile.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn take(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let device = pidfd_getfd(&self.holder, self.number, PidfdGetfdFlags::empty())?;
        let before = frames.len();
        loop {
            let room = self.slot.room();
            if !self.has_header {
                room.extend([0; Offload::HEADER_BYTES]);
            }
            match retry_on_intr(|| read(&device, spare_capacity(room))) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(frames.len() - before),
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            frames.extend(self.slot.take(None));
        }
    }
}

/// By which number the process knows the TAP. (The kernel tells whose a descriptor of `/dev/net/tun` is by its `iff`.)
fn descriptor_of(process: u32, name: &LinkName) -> io::Result<Option<c_int>> {
    for entry in std::fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        let entry = entry?;
        let about = match std::fs::read_to_string(entry.path()) {
            Ok(about) => about,
            // Closed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_it = about.lines().filter_map(|line| line.strip_prefix("iff:")).any(|iff| iff.trim() == name.as_str());
        if is_it {
            return Ok(entry.file_name().to_str().and_then(|number| number.parse().ok()));
        }
    }
    Ok(None)
}

/// How many bytes are before each frame that is read.
fn header_bytes(device: &OwnedFd) -> io::Result<usize> {
    // SAFETY: plain C data, for which all bits zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the request takes a pointer to an `ifreq`, which lives over the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: the request has filled in the flags.
    if c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_VNET_HDR == 0 {
        return Ok(0);
    }
    let mut bytes: c_int = 0;
    // SAFETY: the request takes a pointer to an `int`, which lives over the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNGETVNETHDRSZ, &raw mut bytes) })?;
    Ok(bytes as usize)
}
