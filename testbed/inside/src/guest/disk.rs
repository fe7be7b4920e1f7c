//! The guest's disk: waited for, mounted, and given back before the guest ends in an orderly way. On it is a ledger.

use crate::ledger::Ledger;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

const AT: &str = "/disk";
/// What the kernel itself says of devices.
const KERNEL_GROUP: u32 = 1;
/// How long a disk may take: its other end lies in dom0, and is set up there by scripts.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hears of devices that appear, from its making on.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn new() -> io::Result<Watch> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Watch(socket))
    }

    /// Waits until a device's file is there.
    fn wait(&self, device: &Path) -> io::Result<()> {
        while !device.exists() {
            // What the message says does not matter, nor whether some were lost: the file is looked for again.
            match recv(&self.0, &mut [0; 4096], RecvFlags::TRUNC) {
                Ok(_) | Err(Errno::NOBUFS) => (),
                Err(error) => return Err(io::Error::other(format!("no disk {}: {error}", device.display()))),
            }
        }
        Ok(())
    }
}

/// A disk that is mounted, until it is put away.
pub(crate) struct Disk(Mutex<Option<Ledger>>);

impl Disk {
    /// Waits for the disk with this name, mounts its file system, and opens the ledger on it.
    pub(crate) fn mount(watch: &Watch, name: &str) -> io::Result<Disk> {
        mount("dev", "/dev", "devtmpfs", MountFlags::empty(), None)?;
        let device = PathBuf::from("/dev").join(name);
        watch.wait(&device)?;
        fs::create_dir_all(AT)?;
        mount(&device, AT, "ext4", MountFlags::empty(), None)
            .map_err(|error| io::Error::other(format!("{} cannot be mounted: {error}", device.display())))?;
        Ok(Disk(Mutex::new(Some(Ledger::open(Path::new(AT))?))))
    }

    /// Does something with the ledger. An error if the disk has been put away.
    pub(crate) fn with<T>(&self, what: impl FnOnce(&mut Ledger) -> io::Result<T>) -> io::Result<T> {
        let mut ledger = self.0.lock().expect("no thread panics with the ledger");
        what(ledger.as_mut().ok_or_else(|| io::Error::other("the disk has been put away"))?)
    }

    /// Closes the ledger and unmounts the file system: nothing is left to be written then.
    pub(crate) fn put_away(&self) -> io::Result<()> {
        let Some(ledger) = self.0.lock().expect("no thread panics with the ledger").take() else { return Ok(()) };
        ledger.close()?;
        Ok(unmount(AT, UnmountFlags::empty())?)
    }
}
