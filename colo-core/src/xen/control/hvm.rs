//! Devices and vCPUs of HVM and PVH domains: one blob, and some parameters.

use super::{Control, check};
use crate::ids::DomId;
use crate::xen::XenError;
use std::ptr::null_mut;

/// The largest context that is believed: a vCPU takes less than 20 KiB, and there are at most 128.
const MAX_CONTEXT_BYTES: usize = 4 << 20;

impl Control {
    /// The context of all vCPUs and of the devices that the hypervisor emulates, into `into`, which is overwritten
    /// (`xc_domain_hvm_getcontext`). The domain must be paused or suspended for it to be of one moment.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: a PV domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let mut context = Vec::new();
    /// control.hvm_context(DomId(3), &mut context)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hvm_context(&self, domid: DomId, into: &mut Vec<u8>) -> Result<(), XenError> {
        let call = "xc_domain_hvm_getcontext";
        into.clear();
        // SAFETY: the handle is open; without a buffer the call only tells the size.
        let size = unsafe { self.xen.ctrl.xc_domain_hvm_getcontext(self.handle(), domid.0, null_mut(), 0) };
        let size = check(call, domid, size)? as usize;
        if size > MAX_CONTEXT_BYTES {
            return Err(XenError::bad_answer(call, domid, format!("{size} bytes")));
        }
        into.resize(size, 0);
        let library = &self.xen.ctrl;
        // SAFETY: the handle is open, and the buffer has `size` bytes, which fit a u32.
        let used = unsafe { library.xc_domain_hvm_getcontext(self.handle(), domid.0, into.as_mut_ptr(), size as u32) };
        // What it tells beforehand is what it may take at most.
        into.truncate(check(call, domid, used)? as usize);
        Ok(())
    }

    /// Puts a paused or suspended domain into this context (`xc_domain_hvm_setcontext`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL` and others: the hypervisor does not take it, or a PV domain; the domain is then of no further
    /// use.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// # let context = Vec::new();
    /// control.set_hvm_context(DomId(4), &context)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_hvm_context(&self, domid: DomId, context: &[u8]) -> Result<(), XenError> {
        let call = "xc_domain_hvm_setcontext";
        if context.is_empty() || context.len() > MAX_CONTEXT_BYTES {
            return Err(XenError::invalid(call, domid, format!("{} bytes", context.len())));
        }
        let (bytes, size) = (context.as_ptr().cast_mut(), context.len() as u32);
        // SAFETY: the handle is open, and the library reads so many bytes (it copies them, and nothing back).
        let result = unsafe { self.xen.ctrl.xc_domain_hvm_setcontext(self.handle(), domid.0, bytes, size) };
        check(call, domid, result).map(drop)
    }

    /// How many pages of an HVM domain get their memory when they are touched first, from what it was given (*populate on demand*:
    /// a domain that was built with less memory than it may have, and has not yet given the rest back)
    /// (`xc_domain_get_pod_target`). To ask for such a page's type, or to map it, touches it.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: a PV domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let untouched = control.pod_pages(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pod_pages(&self, domid: DomId) -> Result<u64, XenError> {
        let (mut total, mut kept, mut untouched) = (0, 0, 0);
        let library = &self.xen.ctrl;
        // SAFETY: the handle is open, and the numbers are ours.
        let result = unsafe {
            library.xc_domain_get_pod_target(self.handle(), domid.0, &raw mut total, &raw mut kept, &raw mut untouched)
        };
        check("xc_domain_get_pod_target", domid, result)?;
        Ok(untouched)
    }

    /// A parameter, by its number `HVM_PARAM_*` (`xc_hvm_param_get`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: no such parameter, or a PV domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// // HVM_PARAM_STORE_PFN
    /// let store_gfn = control.hvm_param(DomId(3), 1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hvm_param(&self, domid: DomId, index: u32) -> Result<u64, XenError> {
        let mut value = 0;
        // SAFETY: the handle is open, and the value is ours.
        let result = unsafe { self.xen.ctrl.xc_hvm_param_get(self.handle(), domid.0, index, &raw mut value) };
        check("xc_hvm_param_get", domid, result)?;
        Ok(value)
    }

    /// Sets a parameter (`xc_hvm_param_set`).
    ///
    /// # Errors
    /// As for [`Control::hvm_param`]; `EEXIST`: it can be set once only.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.set_hvm_param(DomId(3), 1, 0xfeffc)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_hvm_param(&self, domid: DomId, index: u32, value: u64) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.ctrl.xc_hvm_param_set(self.handle(), domid.0, index, value) };
        check("xc_hvm_param_set", domid, result).map(drop)
    }
}
