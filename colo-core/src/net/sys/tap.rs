use super::done;
use super::name::LinkName;
use super::slot::Slot;
use crate::net::{Frame, MAX_BATCH_FRAMES, Offload, Port};
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, read, retry_on_intr, writev};
use std::ffi::{c_int, c_short, c_uint};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A TAP device: a network card of the host's whose cable ends in this process.
///
/// It is there as long as this is open, unless it was made to persist before. It comes up with neither address nor bridge: see
/// [`Links`](super::Links).
///
/// What the host sends is [received](Port::receive). Frames that are sent while the device is down are lost, as on a cable that is
/// not plugged in, and counted.
#[derive(Debug)]
pub struct Tap {
    device: OwnedFd,
    slot: Slot,
    lost_frames: u64,
}

/// What the host may leave for this side to do, in frames that are received. In frames that are sent anything may be left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offloads {
    /// Segments of TCP and UDP up to 64 KiB, and checksums.
    On,
    /// Nothing: every frame is on the cable as it stands.
    Off,
}

impl Tap {
    /// Opens the TAP device of this name, and makes it if there is none.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN`; `ResourceBusy` when another process has it; `InvalidInput` when it is no TAP.
    ///
    /// ```no_run
    /// use colo_core::net::Port;
    /// use colo_core::net::sys::{Offloads, Tap};
    ///
    /// let mut tap = Tap::open(&"colo0".parse()?, Offloads::On)?;
    /// tap.send(&[vec![0xff; 60].into()])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(name: &LinkName, offloads: Offloads) -> io::Result<Tap> {
        let device = attach(name, libc::IFF_VNET_HDR)?;
        set(&device, libc::TUNSETVNETHDRSZ, Offload::HEADER_BYTES as c_int)?;
        set(&device, libc::TUNSETVNETLE, 1)?;
        offload(&device, offloads)?;
        Ok(Tap { device, slot: Slot::new(), lost_frames: 0 })
    }

    /// How many frames were sent that the device did not want: it was down, or they were malformed.
    pub fn lost_frames(&self) -> u64 {
        self.lost_frames
    }
}

impl Port for Tap {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// # Errors
    /// When the device was removed.
    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let mut count = 0;
        while count < MAX_BATCH_FRAMES {
            match retry_on_intr(|| read(&self.device, spare_capacity(self.slot.room()))) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(_) => {}
                // What came before comes first; the next call says the rest.
                Err(_) if count > 0 => break,
                Err(errno) => return Err(errno.into()),
            }
            if let Some(frame) = self.slot.take(None) {
                frames.push(frame);
                count += 1;
            }
        }
        Ok(count)
    }

    /// # Errors
    /// When the device was removed.
    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        for (sent, frame) in frames.iter().enumerate() {
            let header = frame.offload.to_header();
            let parts = [IoSlice::new(&header), IoSlice::new(frame)];
            match retry_on_intr(|| writev(&self.device, &parts)) {
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(sent),
                // The device is down; or this is no frame, or its header lies. No poll would say when that ends.
                Err(Errno::IO | Errno::INVAL | Errno::MSGSIZE | Errno::NOBUFS | Errno::NOMEM) => self.lost_frames += 1,
                Err(_) if sent > 0 => return Ok(sent),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(frames.len())
    }
}

/// Opens a TAP device for somebody who reads and writes frames, one by each call, without virtio's header: they are on the cable as
/// they stand. Neither call blocks.
///
/// # Errors
/// As [`Tap::open`].
pub fn open_bare_tap(name: &LinkName) -> io::Result<OwnedFd> {
    attach(name, 0)
}

/// See the kernel's `Documentation/networking/tuntap.rst`.
fn attach(name: &LinkName, flags: c_int) -> io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: plain C data, for which all bits zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name is shorter than its place: a zero remains at the end.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | flags) as c_short;
    // SAFETY: the request takes a pointer to an `ifreq`, which lives over the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(device)
}

/// Says what may be left in the frames that are read.
fn offload(device: &OwnedFd, offloads: Offloads) -> io::Result<()> {
    const TCP: c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // Since Linux 6.2.
    const UDP: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    let request = |what: c_uint| {
        // SAFETY: the request takes its argument by value.
        done(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(what)) })
    };
    match offloads {
        Offloads::On => request(TCP | UDP).or_else(|_| request(TCP)),
        Offloads::Off => request(0),
    }
}

fn set(device: &OwnedFd, request: libc::Ioctl, value: c_int) -> io::Result<()> {
    // SAFETY: the requests that are made here take a pointer to an `int`, which lives over the call.
    done(unsafe { libc::ioctl(device.as_raw_fd(), request, &raw const value) })
}
