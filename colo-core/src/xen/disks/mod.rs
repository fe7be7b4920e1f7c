//! A domain's disks that are on both hosts: each is an NBD device of dom0, behind which is a disk server of colo's
//! (`colo disk serve --control`, [`ControlServer`](crate::disk::control::ControlServer)).
//!
//! ```text
//! guest -- blkfront -- blkback ----------------\
//! guest -- emulated disk -- device model -------+-- /dev/nbd0 -- disk server -- file or device
//!                                               |                    |
//!                         this host's page cache|     colo primary, colo secondary: epochs
//! ```
//!
//! blkback goes past the page cache, a device model through it; [`Uncached`] is what that takes on the secondary's host.
//!
//! ```no_run
//! use colo_core::disk::PrimaryDisks as _;
//! use colo_core::disk::control::ControlledPrimary;
//! use colo_core::xen::disks::replicated;
//! use colo_core::xen::toolstack::DomainConfig;
//!
//! # fn run(config: &DomainConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let server = ControlledPrimary::connect("/run/colo-web.control".as_ref())?;
//! for disk in replicated(config, server.sizes(), &server)? {
//!     println!("{} goes through {}", disk.vdev, disk.device.display());
//! }
//! # Ok(())
//! # }
//! ```

mod page_cache;
mod proof;

pub use page_cache::Uncached;

use super::toolstack::{Disk, DomainConfig};
use crate::disk::PrimaryDisks;
use crate::disk::control::Witness;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The major number of Linux' NBD devices.
const NBD_MAJOR: u32 = 43;

/// A disk of a domain's that is replicated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestDisk {
    /// Its name within the domain: `xvda`.
    pub vdev: String,
    /// The NBD device, the same on both hosts.
    pub device: PathBuf,
    /// Its size.
    pub size_bytes: u64,
}

/// The disks of a domain that is to be protected, and who has them.
pub struct Replicated {
    /// As [`replicated`] has found them.
    pub disks: Vec<GuestDisk>,
    /// Their disk server.
    pub server: Box<dyn PrimaryDisks>,
}

/// Why a domain's disks are not those that a disk server has.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DisksError {
    /// One does not go through a disk server.
    #[error(
        "disk {vdev} is on {path}, not on an NBD device: serve {path} by `colo disk serve --control`, connect an NBD device to that, and \
         give the guest this one (docs/disks.md)"
    )]
    NotServed {
        /// Its name within the domain.
        vdev: String,
        /// What it is on.
        path: String,
    },
    /// One has a backend whose state is not in a checkpoint.
    #[error("disk {vdev} has the backend {backend}: write `backendtype=phy` into its line, and boot the guest anew")]
    Backend {
        /// Its name within the domain.
        vdev: String,
        /// The backend, in the toolstack's words.
        backend: String,
    },
    /// There are more or fewer.
    #[error("the guest has {writable} writable disks, and the disk server has {served}")]
    Count {
        /// The guest's.
        writable: usize,
        /// The server's.
        served: usize,
    },
    /// It is another disk, or was made larger since.
    #[error(
        "{} has {device_bytes} bytes, and what the disk server has for disk {vdev} has {served_bytes}: is it connected to that server?",
        device.display()
    )]
    Size {
        /// Its name within the domain.
        vdev: String,
        /// The device.
        device: PathBuf,
        /// The device's size.
        device_bytes: u64,
        /// The server's.
        served_bytes: u64,
    },
    /// It is connected to something else.
    #[error(
        "{} does not go through this disk server: what is read from it is not seen there; connect it (nbd-client), or name the server of \
         disk {vdev}",
        device.display()
    )]
    Elsewhere {
        /// Its name within the domain.
        vdev: String,
        /// The device.
        device: PathBuf,
    },
    /// It cannot be read.
    #[error("{}: {why}", device.display())]
    Device {
        /// The device.
        device: PathBuf,
        /// Why not.
        why: String,
    },
    /// The disk server does not answer.
    #[error("the disk server: {0}")]
    Server(String),
}

/// The disks of a domain that are replicated: all that its guest may write to, in the order of its configuration, which is the order of
/// those of the disk server, whose sizes these are. Each must be an NBD device of this host, and is proven to go through that server by a
/// read that it must have seen.
///
/// # Errors
/// [`DisksError`]: one line that says what must change.
pub fn replicated(
    config: &DomainConfig,
    served_sizes: &[u64],
    server: &dyn Witness,
) -> Result<Vec<GuestDisk>, DisksError> {
    let disks = named(config, served_sizes)?;
    proof::prove(&disks, server)?;
    Ok(disks)
}

/// What a configuration says of them, and the devices' sizes.
fn named(config: &DomainConfig, served_sizes: &[u64]) -> Result<Vec<GuestDisk>, DisksError> {
    let writable: Vec<Disk> = config.disks().into_iter().filter(|disk| disk.read_write).collect();
    let mut disks = Vec::with_capacity(writable.len());
    for (number, Disk { vdev, path, backend, .. }) in writable.iter().enumerate() {
        let (vdev, path) = (vdev.clone(), path.clone().unwrap_or_default());
        let device = PathBuf::from(&path);
        let Some(device_bytes) = is_nbd(&device).then(|| size_bytes(&device)).flatten() else {
            return Err(DisksError::NotServed { vdev, path });
        };
        if let Some(backend) = backend.clone().filter(|backend| backend != "phy") {
            return Err(DisksError::Backend { vdev, backend });
        }
        match served_sizes.get(number) {
            Some(served_bytes) if *served_bytes != device_bytes => {
                return Err(DisksError::Size { vdev, device, device_bytes, served_bytes: *served_bytes });
            }
            _ => disks.push(GuestDisk { vdev, device, size_bytes: device_bytes }),
        }
    }
    if disks.len() != served_sizes.len() {
        return Err(DisksError::Count { writable: disks.len(), served: served_sizes.len() });
    }
    Ok(disks)
}

/// The size of a file or a block device in bytes; nothing of what is neither.
pub(super) fn size_bytes(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.is_file() {
        return Some(metadata.len());
    }
    if !metadata.file_type().is_block_device() {
        return None;
    }
    File::open(path).ok()?.seek(SeekFrom::End(0)).ok()
}

fn is_nbd(path: &Path) -> bool {
    let is_nbd = |metadata: fs::Metadata| {
        metadata.file_type().is_block_device() && rustix::fs::major(metadata.rdev()) == NBD_MAJOR
    };
    fs::metadata(path).is_ok_and(is_nbd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::check::testing::config;

    #[test]
    fn only_files_and_disks_have_a_size() {
        assert_eq!(size_bytes(Path::new("/proc/self/no-such")), None);
        // A folder, and a device that is no disk.
        assert_eq!(size_bytes(Path::new("/")), None);
        assert_eq!(size_bytes(Path::new("/dev/null")), None);
        let file = std::env::temp_dir().join(format!("colo-disk-size-{}", std::process::id()));
        fs::write(&file, [0; 77]).unwrap();
        assert_eq!(size_bytes(&file), Some(77));
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn only_what_is_served_is_replicated() {
        let read_only = r#"{ "vdev": "xvdb", "pdev_path": "/images/tools", "readwrite": 0 }"#;
        assert_eq!(named(&config(&format!(r#""disks": [ {read_only} ]"#)), &[]), Ok(Vec::new()));
        // A device that is none of NBD's, one that is not there, and none at all.
        for path in ["/dev/null", "/dev/no-such", ""] {
            let disk = format!(r#"{{ "vdev": "xvda", "pdev_path": "{path}", "readwrite": 1 }}"#);
            let error = named(&config(&format!(r#""disks": [ {read_only}, {disk} ]"#)), &[5]).unwrap_err();
            assert_eq!(error, DisksError::NotServed { vdev: "xvda".into(), path: path.into() });
        }
        let error = named(&config(r#""disks": []"#), &[5]).unwrap_err();
        assert_eq!(error, DisksError::Count { writable: 0, served: 1 });
    }
}
