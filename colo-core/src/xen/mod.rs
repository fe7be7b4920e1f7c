//! Xen: safe handles over its C libraries, one for each library.
//!
//! ```text
//! Xen            the libraries themselves, loaded for the running hypervisor; nothing is opened
//!  ├ Control         libxenctrl, libxenguest: domains, their memory's pages, dirty log, vCPUs and devices
//!  ├ ForeignMemory   libxenforeignmemory: a domain's pages in our address space
//!  ├ EventChannels   libxenevtchn: notifications
//!  ├ GrantTable      libxengnttab: pages that a domain has granted
//!  ├ XenStore        libxenstore: the store that domains and toolstack share
//!  ├ DeviceModel     libxendevicemodel: what a device model may do
//!  └ Suspender       a guest suspended by its own way, over several of them
//! ```
//!
//! * [`pv`]: what PV guests know of their machine, in bytes.
//! * [`toolstack`]: what `xl` and libxl do for us, above all to build a domain that is to be restored. [`qmp`]: the device model's monitor.
//! * [`snapshot`]: a device model's state into one that runs.
//! * [`check`]: whether a domain can be protected towards another host.
//! * [`disks`]: those of a domain that are on both hosts.
//! * [`save_lock`]: one saver of a domain at a time.
//! * [`overlay`]: a running domain is given another's state. For that, [`tables`]: event channels, grants; [`frontends`]: PV devices.
//!
//! Of the handles:
//!
//! * A handle is closed when it is dropped. It may move to another thread, but serves one at a time: open one for each thread.
//! * Every failed call is a [`XenError`]: the call, the domain and the error number. Nothing is retried.
//! * What the libraries have to say goes to [`tracing`], target `xen`.
//! * Frame numbers are bare `u64`s here, as the calls take arrays of them: guest frames (`gfn`) for HVM and PVH domains, machine frames
//!   (`mfn`) for PV ones.
//!
//! ```no_run
//! use colo_core::xen::{Control, Xen};
//!
//! let xen = Xen::open()?;
//! let control = Control::open(xen)?;
//! for domain in control.domains()? {
//!     println!("{}: {} pages", domain.domid, domain.total_pages);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod check;
pub mod cleanup;
pub mod control;
pub mod device_model;
pub mod disks;
pub mod domain;
mod error;
pub mod evtchn;
pub mod foreign;
pub mod frontends;
pub mod gnttab;
pub mod host;
pub mod image;
mod log;
mod mapping;
pub mod overlay;
pub mod plan;
mod poll;
pub mod primary;
pub mod pv;
pub mod qmp;
pub mod role;
pub mod save_lock;
pub mod snapshot;
pub mod suspend;
pub mod tables;
pub mod toolstack;
pub mod xenstore;

pub use control::{Control, DomainInfo, GuestType, ShutdownReason};
pub use device_model::DeviceModel;
pub use error::XenError;
pub use evtchn::EventChannels;
pub use foreign::{Access, ForeignMemory, Mapping};
pub use gnttab::GrantTable;
pub use suspend::Suspender;
pub use xen_sys::{LoadError as XenOpenError, Version};
pub use xenstore::XenStore;

/// Xen's libraries, loaded. Copies are the same libraries; they are never unloaded.
#[derive(Clone, Copy, Debug)]
pub struct Xen(&'static xen_sys::Xen);

impl Xen {
    /// Loads the libraries that fit the running hypervisor. Opens nothing else, so it needs no privilege.
    ///
    /// # Errors
    /// [`XenOpenError`]: one line that says what is missing.
    ///
    /// ```no_run
    /// # use colo_core::xen::Xen;
    /// match Xen::open() {
    ///     Ok(xen) => println!("libraries of Xen {}", xen.version()),
    ///     Err(error) => println!("{error}"),
    /// }
    /// ```
    pub fn open() -> Result<Xen, XenOpenError> {
        xen_sys::load().map(Xen)
    }

    /// The release of the libraries: the hypervisor's.
    pub fn version(self) -> Version {
        self.0.version
    }
}

/// No handle is shared by threads: this must not compile.
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<colo_core::xen::Control>();
/// ```
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<colo_core::xen::ForeignMemory>();
/// ```
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<colo_core::xen::XenStore>();
/// ```
#[cfg(doctest)]
pub struct NotShared;

/// Whether this machine runs on Xen, as dom0 or as a guest. Loads nothing.
///
/// ```
/// if !colo_core::xen::is_xen_host() {
///     println!("no Xen here");
/// }
/// ```
pub fn is_xen_host() -> bool {
    std::fs::read_to_string("/sys/hypervisor/type").is_ok_and(|kind| kind.trim_end() == "xen")
}

#[cfg(test)]
mod tests;
