//! vCPUs of PV domains.
//!
//! The states are bytes exactly as the stream's records carry them, without the records' own header.

use super::{Control, check};
use crate::ids::DomId;
use crate::xen::XenError;
use std::ptr::null_mut;
use xen_sys::ctrl;

/// The largest XSAVE area that is believed: with every extension of today it is 11 KiB.
const MAX_XSAVE_BYTES: usize = 1 << 20;
/// The most MSRs of a vCPU that are believed; there are below 10.
const MAX_MSRS: usize = 4096;
/// `struct xen_domctl_ext_vcpucontext` takes "up to 128 bytes".
const EXT_CONTEXT_WORDS: usize = 128 / 8;

/// A vCPU, as the hypervisor sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuInfo {
    /// Whether the guest has brought it up.
    pub online: bool,
    /// Whether it waits for an event.
    pub blocked: bool,
    /// Whether it runs at this moment.
    pub running: bool,
    /// How long it has run, in nanoseconds.
    pub cpu_time_ns: u64,
}

impl Control {
    /// A vCPU of a domain of any kind (`xc_vcpu_getinfo`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain, or no such vCPU.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let online = control.vcpu_info(DomId(3), 0)?.online;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn vcpu_info(&self, domid: DomId, vcpu: u32) -> Result<VcpuInfo, XenError> {
        // SAFETY: numbers only.
        let mut info: ctrl::xc_vcpuinfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the handle is open, and the structure is ours.
        let result = unsafe { self.xen.ctrl.xc_vcpu_getinfo(self.handle(), domid.0, vcpu, &raw mut info) };
        check("xc_vcpu_getinfo", domid, result)?;
        Ok(VcpuInfo {
            online: info.online != 0,
            blocked: info.blocked != 0,
            running: info.running != 0,
            cpu_time_ns: info.cpu_time,
        })
    }

    /// The bytes of an address in the guest: 8, or 4 for 32-bit PV guests (`xc_domain_get_guest_width`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let levels = if control.guest_width(DomId(3))? == 8 { 4 } else { 3 };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn guest_width(&self, domid: DomId) -> Result<u32, XenError> {
        let call = "xc_domain_get_guest_width";
        let mut width = 0;
        // SAFETY: the handle is open, and the number is ours.
        let result = unsafe { self.xen.ctrl.xc_domain_get_guest_width(self.handle(), domid.0, &raw mut width) };
        match (result, width) {
            (0, 4 | 8) => Ok(width),
            (0, _) => Err(XenError::bad_answer(call, domid, format!("{width} bytes"))),
            _ => Err(XenError::last(call, domid)),
        }
    }

    /// Makes a PV domain that has no memory yet one of that width, in bytes (`XEN_DOMCTL_set_address_size`).
    ///
    /// # Errors
    /// `EEXIST`: it has memory. `EINVAL`: no such width, or no PV domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.set_guest_width(DomId(4), 4)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_guest_width(&self, domid: DomId, bytes: u32) -> Result<(), XenError> {
        let arguments = ctrl::xen_domctl_address_size { size: bytes.saturating_mul(8) };
        let call = "XEN_DOMCTL_set_address_size";
        // SAFETY: the arguments are this domctl's.
        unsafe { self.domctl(call, ctrl::XEN_DOMCTL_set_address_size, domid, arguments) }.map(drop)
    }

    /// A vCPU's registers, as X86_PV_VCPU_BASIC carries them but for the frames in them, which are machine frames here
    /// (`xc_vcpu_getcontext`): 5,168 bytes, or 2,800 for a guest whose `width` is 4. The domain must be suspended.
    ///
    /// # Errors
    /// `ESRCH`: no such domain or vCPU. `ENODATA`: the vCPU has never been started.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let width = control.guest_width(DomId(3))?;
    /// let context = control.vcpu_context(DomId(3), 0, width)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn vcpu_context(&self, domid: DomId, vcpu: u32, width: u32) -> Result<Vec<u8>, XenError> {
        let mut context = empty_context();
        let pointer = &raw mut *context;
        // SAFETY: the handle is open, and the library fills in a union of this type.
        let result = unsafe { self.xen.ctrl.xc_vcpu_getcontext(self.handle(), domid.0, vcpu, pointer) };
        check("xc_vcpu_getcontext", domid, result)?;
        let length = match width {
            4 => size_of::<ctrl::vcpu_guest_context_x86_32_t>(),
            _ => size_of::<ctrl::vcpu_guest_context_x86_64_t>(),
        };
        // SAFETY: the union is at least that large, and all of it is bytes that were written (it began as zeroes).
        Ok(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) }.to_vec())
    }

    /// Sets a vCPU's registers; with none, stops it until somebody sets them again (`xc_vcpu_setcontext`). The domain must be
    /// paused or suspended.
    ///
    /// # Errors
    /// `ESRCH`: no such domain or vCPU. `EINVAL` and others: the hypervisor does not take them. `InvalidInput`: more bytes than a
    /// context has.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let context = control.vcpu_context(DomId(3), 0, 8)?;
    /// control.set_vcpu_context(DomId(4), 0, Some(&context))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_vcpu_context(&self, domid: DomId, vcpu: u32, context: Option<&[u8]>) -> Result<(), XenError> {
        let call = "xc_vcpu_setcontext";
        let mut copy = empty_context();
        let mut pointer = null_mut();
        if let Some(context) = context {
            if context.len() > size_of_val(&*copy) {
                return Err(XenError::invalid(call, domid, format!("{} bytes of registers", context.len())));
            }
            pointer = &raw mut *copy;
            // SAFETY: the union is that large, and any bytes will do.
            unsafe { pointer.cast::<u8>().copy_from_nonoverlapping(context.as_ptr(), context.len()) };
        }
        // SAFETY: the handle is open, and the union is whole, or null.
        let result = unsafe { self.xen.ctrl.xc_vcpu_setcontext(self.handle(), domid.0, vcpu, pointer) };
        check(call, domid, result).map(drop)
    }

    /// What the registers leave out, as X86_PV_VCPU_EXTENDED carries it (`XEN_DOMCTL_get_ext_vcpucontext`). Empty: there is nothing to
    /// carry. The domain must be suspended.
    ///
    /// # Errors
    /// `ESRCH`: no such domain or vCPU.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let extended = control.vcpu_ext_context(DomId(3), 0)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn vcpu_ext_context(&self, domid: DomId, vcpu: u32) -> Result<Vec<u8>, XenError> {
        let call = "XEN_DOMCTL_get_ext_vcpucontext";
        let mut words = [0; EXT_CONTEXT_WORDS];
        // Its first members are the vCPU and the size, 32 bits each.
        words[0] = u64::from(vcpu);
        // SAFETY: the structure is smaller than these words, and has no addresses.
        let words = unsafe { self.domctl(call, ctrl::XEN_DOMCTL_get_ext_vcpucontext, domid, words)? };
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let size = (words[0] >> 32) as usize;
        if size > bytes.len() {
            return Err(XenError::bad_answer(call, domid, format!("{size} bytes")));
        }
        bytes.truncate(size);
        Ok(bytes)
    }

    /// Sets what [`Control::vcpu_ext_context`] gives, for this vCPU whatever the bytes say (`XEN_DOMCTL_set_ext_vcpucontext`). The
    /// hypervisor changes selectors to a guest's privilege: what it gives afterwards may differ in that.
    ///
    /// # Errors
    /// `ESRCH`: no such domain or vCPU. `EINVAL`: the hypervisor does not take them. `InvalidInput`: fewer bytes than 8, or more than
    /// 128.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let extended = control.vcpu_ext_context(DomId(3), 0)?;
    /// control.set_vcpu_ext_context(DomId(4), 0, &extended)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_vcpu_ext_context(&self, domid: DomId, vcpu: u32, bytes: &[u8]) -> Result<(), XenError> {
        let call = "XEN_DOMCTL_set_ext_vcpucontext";
        let mut all = [0; EXT_CONTEXT_WORDS * 8];
        if bytes.len() < 8 || bytes.len() > all.len() {
            return Err(XenError::invalid(call, domid, format!("{} bytes", bytes.len())));
        }
        all[..bytes.len()].copy_from_slice(bytes);
        all[..4].copy_from_slice(&vcpu.to_le_bytes());
        all[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        let mut words = [0; EXT_CONTEXT_WORDS];
        for (word, bytes) in words.iter_mut().zip(all.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        // SAFETY: the structure is smaller than these words, and has no addresses.
        unsafe { self.domctl(call, ctrl::XEN_DOMCTL_set_ext_vcpucontext, domid, words) }.map(drop)
    }

    /// A vCPU's XSAVE area, as X86_PV_VCPU_XSAVE carries it (`XEN_DOMCTL_getvcpuextstate`). Empty: there is nothing to carry, as on a
    /// machine without XSAVE. The domain must be suspended.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: no such vCPU.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let xsave = control.vcpu_xsave(DomId(3), 0)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn vcpu_xsave(&self, domid: DomId, vcpu: u32) -> Result<Vec<u8>, XenError> {
        let call = "XEN_DOMCTL_getvcpuextstate";
        let command = ctrl::XEN_DOMCTL_getvcpuextstate;
        let nowhere = ctrl::__guest_handle_uint64 { p: null_mut() };
        let ask = ctrl::xen_domctl_vcpuextstate { vcpu, xfeature_mask: 0, size: 0, buffer: nowhere };
        // SAFETY: the arguments are this domctl's; without a buffer it tells the size.
        let mut found = unsafe { self.domctl(call, command, domid, ask)? };
        if found.xfeature_mask == 0 || found.size == 0 {
            return Ok(Vec::new());
        }
        let size = believed(call, domid, found.size, MAX_XSAVE_BYTES)?;
        let mut kept = self.scratch.borrow_mut();
        let buffer = kept.at_least(size, self.xen, self.handle)?;
        found.buffer.p = buffer.as_ptr().cast();
        // SAFETY: the arguments are this domctl's, and the buffer has so many bytes.
        let found = unsafe { self.domctl(call, command, domid, found)? };
        let size = believed(call, domid, found.size, size)?;
        // SAFETY: the hypervisor has written so many bytes, and is done.
        Ok(unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), size) }.to_vec())
    }

    /// Sets a vCPU's XSAVE area (`XEN_DOMCTL_setvcpuextstate`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`, [`XenError::is_unsupported`]: this machine's CPU has not what the area needs. `InvalidInput`:
    /// nothing, or more than 1 MiB.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let xsave = control.vcpu_xsave(DomId(3), 0)?;
    /// control.set_vcpu_xsave(DomId(4), 0, &xsave)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_vcpu_xsave(&self, domid: DomId, vcpu: u32, bytes: &[u8]) -> Result<(), XenError> {
        let call = "XEN_DOMCTL_setvcpuextstate";
        if bytes.is_empty() || bytes.len() > MAX_XSAVE_BYTES {
            return Err(XenError::invalid(call, domid, format!("{} bytes", bytes.len())));
        }
        let mut kept = self.scratch.borrow_mut();
        let buffer = kept.filled(bytes, self.xen, self.handle)?;
        let buffer = ctrl::__guest_handle_uint64 { p: buffer.as_ptr().cast() };
        let size = bytes.len() as u64;
        let arguments = ctrl::xen_domctl_vcpuextstate { vcpu, xfeature_mask: 0, size, buffer };
        // SAFETY: the arguments are this domctl's, and the buffer has so many bytes.
        unsafe { self.domctl(call, ctrl::XEN_DOMCTL_setvcpuextstate, domid, arguments) }.map(drop)
    }

    /// A vCPU's MSRs, as X86_PV_VCPU_MSRS carries them, 16 bytes each (`XEN_DOMCTL_get_vcpu_msrs`). Empty: there is nothing to carry. The
    /// domain must be suspended.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: no such vCPU.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let msrs = control.vcpu_msrs(DomId(3), 0)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn vcpu_msrs(&self, domid: DomId, vcpu: u32) -> Result<Vec<u8>, XenError> {
        let call = "XEN_DOMCTL_get_vcpu_msrs";
        let nowhere = ctrl::__guest_handle_xen_domctl_vcpu_msr_t { p: null_mut() };
        let ask = ctrl::xen_domctl_vcpu_msrs { vcpu, msr_count: 0, msrs: nowhere };
        // SAFETY: the arguments are this domctl's; without a buffer it tells how many there may be.
        let mut found = unsafe { self.domctl(call, ctrl::XEN_DOMCTL_get_vcpu_msrs, domid, ask)? };
        if found.msr_count == 0 {
            return Ok(Vec::new());
        }
        let count = believed(call, domid, found.msr_count.into(), MAX_MSRS)?;
        let mut kept = self.scratch.borrow_mut();
        let buffer = kept.at_least(count * size_of::<ctrl::xen_domctl_vcpu_msr_t>(), self.xen, self.handle)?;
        found.msrs.p = buffer.as_ptr().cast();
        // SAFETY: the arguments are this domctl's, and the buffer has room for so many.
        let found = unsafe { self.domctl(call, ctrl::XEN_DOMCTL_get_vcpu_msrs, domid, found)? };
        let count = believed(call, domid, found.msr_count.into(), count)?;
        let size = count * size_of::<ctrl::xen_domctl_vcpu_msr_t>();
        // SAFETY: the hypervisor has written so many, and is done.
        Ok(unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), size) }.to_vec())
    }

    /// Sets a vCPU's MSRs (`XEN_DOMCTL_set_vcpu_msrs`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: the hypervisor does not take one of them. `InvalidInput`: none, no whole number of them, or too
    /// many.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let msrs = control.vcpu_msrs(DomId(3), 0)?;
    /// control.set_vcpu_msrs(DomId(4), 0, &msrs)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_vcpu_msrs(&self, domid: DomId, vcpu: u32, bytes: &[u8]) -> Result<(), XenError> {
        let call = "XEN_DOMCTL_set_vcpu_msrs";
        let size = size_of::<ctrl::xen_domctl_vcpu_msr_t>();
        if bytes.is_empty() || bytes.len() % size != 0 || bytes.len() / size > MAX_MSRS {
            return Err(XenError::invalid(call, domid, format!("{} bytes", bytes.len())));
        }
        let mut kept = self.scratch.borrow_mut();
        let buffer = kept.filled(bytes, self.xen, self.handle)?;
        let msrs = ctrl::__guest_handle_xen_domctl_vcpu_msr_t { p: buffer.as_ptr().cast() };
        let arguments = ctrl::xen_domctl_vcpu_msrs { vcpu, msr_count: (bytes.len() / size) as u32, msrs };
        // SAFETY: the arguments are this domctl's, and the buffer has so many.
        unsafe { self.domctl(call, ctrl::XEN_DOMCTL_set_vcpu_msrs, domid, arguments) }.map(drop)
    }
}

fn empty_context() -> Box<ctrl::vcpu_guest_context_any_t> {
    // SAFETY: numbers only.
    Box::new(unsafe { std::mem::zeroed() })
}

/// A size that the hypervisor tells, if it is at most so much.
fn believed(call: &'static str, domid: DomId, told: u64, limit: usize) -> Result<usize, XenError> {
    usize::try_from(told)
        .ok()
        .filter(|told| *told <= limit)
        .ok_or_else(|| XenError::bad_answer(call, domid, format!("{told} where at most {limit} can be")))
}
