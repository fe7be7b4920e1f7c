//! `libxenctrl` and `libxenguest`: what a toolstack may do with domains.
//!
//! * [`info`]: which domains there are, and how they are.
//! * [`run`]: pause, shut down, resume, destroy.
//! * [`dirty`]: which pages a domain wrote. [`memory`]: which pages it has.
//! * [`hvm`]: devices and vCPUs of HVM and PVH domains. [`pv`], [`page_tables`]: the same of PV domains. [`policy`]: the
//!   clock and the CPU that a domain believes to have.
//! * [`channels`]: a domain's event channels and grant table, from outside.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::{Control, Xen};
//!
//! let control = Control::open(Xen::open()?)?;
//! let domid = DomId(3);
//! control.pause(domid)?;
//! println!("{} pages", control.domain_info(domid)?.map_or(0, |info| info.total_pages));
//! control.unpause(domid)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod buffer;
pub mod channels;
pub mod dirty;
pub mod hvm;
pub mod info;
pub mod memory;
pub mod page_tables;
pub mod policy;
pub mod pv;
pub mod run;

pub use channels::{ChannelStatus, GrantSeed};
pub use dirty::LogDirtyStats;
pub use info::{DomainInfo, GuestType, Scheduler, ShutdownReason};
pub use page_tables::{MachToPhys, MmuextOp};
pub use policy::CpuPolicy;
pub use pv::VcpuInfo;

use super::error::domid_16;
use super::{Xen, XenError, log};
use crate::ids::DomId;
use buffer::KeptBuffer;
use page_tables::Hypercalls;
use std::cell::{OnceCell, RefCell};
use std::ffi::CStr;
use std::os::raw::c_int;
use std::ptr::{NonNull, null_mut};
use xen_sys::ctrl;

/// A handle of `libxenctrl`. It may move between threads, but is not shared by them: what it keeps between calls is not locked.
///
/// All methods take `&self`. For which of them a domain must be paused or suspended, their descriptions say.
pub struct Control {
    pub(super) xen: &'static xen_sys::Xen,
    handle: NonNull<ctrl::xc_interface>,
    /// Frames in, types out.
    types: RefCell<KeptBuffer>,
    bitmap: RefCell<KeptBuffer>,
    /// For whatever is done with before the call returns.
    scratch: RefCell<KeptBuffer>,
    /// Opened when it is needed.
    hypercalls: OnceCell<Hypercalls>,
}

// SAFETY: the library keeps nothing that belongs to the thread that opened the handle; what it, and we, keep in it is used by one
// thread at a time, as there is no `Sync`.
unsafe impl Send for Control {}

impl Control {
    /// Opens the hypercall device. Needs to be root in dom0.
    ///
    /// # Errors
    /// `xc_interface_open`: `ENOENT` or `EACCES` where this is no dom0, or not root.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Control, Xen};
    /// let control = Control::open(Xen::open()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(xen: Xen) -> Result<Control, XenError> {
        let libraries = xen.0;
        // Our logger twice: without the second the library would write a file of its own.
        // SAFETY: the logger lives as long as the process.
        let handle = unsafe { libraries.ctrl.xc_interface_open(log::logger(), log::logger(), 0) };
        let handle = NonNull::new(handle).ok_or_else(|| XenError::last("xc_interface_open", None))?;
        Ok(Control {
            xen: libraries,
            handle,
            types: RefCell::default(),
            bitmap: RefCell::default(),
            scratch: RefCell::default(),
            hypercalls: OnceCell::new(),
        })
    }

    /// The version that the hypervisor itself tells (`xc_version`), as (4, 17).
    ///
    /// # Errors
    /// Any; none is to be expected.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Control, Xen};
    /// # let control = Control::open(Xen::open()?)?;
    /// let (major, minor) = control.version()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn version(&self) -> Result<(u32, u32), XenError> {
        let library = &self.xen.ctrl;
        // SAFETY: the handle is open; this query takes no argument.
        let version = unsafe { library.xc_version(self.handle(), ctrl::XENVER_version as c_int, null_mut()) };
        // Never negative after this.
        let version = check("xc_version", None, version)? as u32;
        Ok((version >> 16, version & 0xffff))
    }

    /// What the hypervisor can run, as in "xen-3.0-x86_64 hvm-3.0-x86_32 ..." (`xc_version`).
    ///
    /// # Errors
    /// Any; none is to be expected.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Control, Xen};
    /// # let control = Control::open(Xen::open()?)?;
    /// let has_pv = control.capabilities()?.contains("xen-3.0-x86_64");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capabilities(&self) -> Result<String, XenError> {
        // The size of `xen_capabilities_info_t`, and one more so that it ends.
        let mut text = [0_u8; 1024 + 1];
        // SAFETY: the handle is open, and the buffer is as large as this query wants.
        let result = unsafe {
            self.xen.ctrl.xc_version(self.handle(), ctrl::XENVER_capabilities as c_int, text.as_mut_ptr().cast())
        };
        check("xc_version", None, result)?;
        let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
        Ok(text.to_string_lossy().trim_end().to_owned())
    }

    /// Where the hypervisor's part of the address space begins, for PV guests of its own width (`xc_version`).
    ///
    /// # Errors
    /// Any; none is to be expected.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Control, Xen};
    /// # let control = Control::open(Xen::open()?)?;
    /// assert_eq!(control.virt_start()?, 0xffff_8000_0000_0000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn virt_start(&self) -> Result<u64, XenError> {
        let mut parameters = ctrl::xen_platform_parameters { virt_start: 0 };
        let query = ctrl::XENVER_platform_parameters as c_int;
        // SAFETY: the handle is open, and the structure is the one that this query fills in.
        let result = unsafe { self.xen.ctrl.xc_version(self.handle(), query, (&raw mut parameters).cast()) };
        check("xc_version", None, result)?;
        Ok(parameters.virt_start)
    }

    pub(super) fn handle(&self) -> *mut ctrl::xc_interface {
        self.handle.as_ptr()
    }

    /// `xc_domctl`: `arguments` go in, and what the hypervisor made of them comes out.
    ///
    /// # Safety
    /// `T` is the member of the domctl's union that `command` takes, and every address in it is of a hypercall buffer that is as
    /// large as the hypervisor believes by the other members.
    unsafe fn domctl<T: Copy>(
        &self,
        call: &'static str,
        command: u32,
        domid: DomId,
        arguments: T,
    ) -> Result<T, XenError> {
        const { assert!(size_of::<T>() <= size_of::<ctrl::xen_domctl__bindgen_ty_1>()) };
        const { assert!(align_of::<T>() <= align_of::<ctrl::xen_domctl__bindgen_ty_1>()) };
        let domain = domid_16(call, domid)?;
        // SAFETY: numbers and bytes; the library fills in the interface's version.
        let mut domctl: ctrl::xen_domctl = unsafe { std::mem::zeroed() };
        domctl.cmd = command;
        domctl.domain = domain;
        let union = (&raw mut domctl.u).cast::<T>();
        // SAFETY: all members of the union begin where it begins; it is large enough, by the assertions above.
        unsafe { union.write(arguments) };
        // SAFETY: the handle is open; the rest is our caller's promise.
        let result = unsafe { self.xen.ctrl.xc_domctl(self.handle(), &raw mut domctl) };
        check(call, domid, result)?;
        // SAFETY: it was written above, and the hypervisor writes bytes.
        Ok(unsafe { union.read() })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.types.get_mut().release(self.xen, self.handle);
        self.bitmap.get_mut().release(self.xen, self.handle);
        self.scratch.get_mut().release(self.xen, self.handle);
        // SAFETY: it is open, and is not used after.
        unsafe { self.xen.ctrl.xc_interface_close(self.handle()) };
    }
}

/// A negative result means that the call failed, and `errno` says why.
fn check(call: &'static str, domid: impl Into<Option<DomId>>, result: c_int) -> Result<c_int, XenError> {
    match result {
        0.. => Ok(result),
        _ => Err(XenError::last(call, domid)),
    }
}
