//! Which pages a domain has, and of what type.

use super::{Control, check};
use crate::ids::DomId;
use crate::xen::XenError;
use rustix::io::Errno;
use std::io;
use std::os::raw::{c_int, c_ulong};
use xen_sys::ctrl;

/// Pages whose types are asked for in one hypercall.
const BATCH_PAGES: usize = 1024;

impl Control {
    /// How many guest frames there may be: one more than the highest that the domain has (`xc_domain_nr_gpfns`). For HVM and PVH it
    /// counts the holes, and the frames of devices near 4 GiB.
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let pfn_limit = control.nr_gpfns(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn nr_gpfns(&self, domid: DomId) -> Result<u64, XenError> {
        let mut frames = 0;
        // SAFETY: the handle is open, and the number is ours.
        let result = unsafe { self.xen.ctrl.xc_domain_nr_gpfns(self.handle(), domid.0, &raw mut frames) };
        check("xc_domain_nr_gpfns", domid, result)?;
        Ok(frames)
    }

    /// The highest guest frame (`xc_domain_maximum_gpfn`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let highest = control.max_gpfn(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_gpfn(&self, domid: DomId) -> Result<u64, XenError> {
        let mut frame = 0;
        // SAFETY: the handle is open, and the number is ours.
        let result = unsafe { self.xen.ctrl.xc_domain_maximum_gpfn(self.handle(), domid.0, &raw mut frame) };
        check("xc_domain_maximum_gpfn", domid, result)?;
        Ok(frame)
    }

    /// The types of `frames`, into `types` (`XEN_DOMCTL_getpageframeinfo3`, 1,024 at a time): the bits `XEN_DOMCTL_PFINFO_*`, in
    /// their place (bits 28 to 31), and nothing else. A frame that the domain does not have has the type `XTAB` (0xf000_0000). The
    /// buffer that this takes is kept for the next call. A frame that is not there takes the hypervisor as long as one that is, and an HVM
    /// domain's frames are mostly holes: a million of them take a second. Of a frame that is another domain's the hypervisor complains
    /// in its own log.
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// # Panics
    /// Unless the lengths are equal.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let mut types = [0; 3];
    /// control.page_types(DomId(3), &[0x10, 0x11, 0x12], &mut types)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn page_types(&self, domid: DomId, frames: &[u64], types: &mut [u32]) -> Result<(), XenError> {
        assert_eq!(frames.len(), types.len(), "one type for each frame");
        let mut kept = self.types.borrow_mut();
        let buffer = kept.at_least(BATCH_PAGES * size_of::<u64>(), self.xen, self.handle)?.cast::<u64>();
        for (frames, types) in frames.chunks(BATCH_PAGES).zip(types.chunks_mut(BATCH_PAGES)) {
            // SAFETY: the buffer has room for a batch, and nobody else uses it while it is borrowed.
            unsafe { buffer.as_ptr().copy_from_nonoverlapping(frames.as_ptr(), frames.len()) };
            let arguments = ctrl::xen_domctl_getpageframeinfo3 {
                num: frames.len() as u64,
                array: ctrl::__guest_handle_xen_pfn_t { p: buffer.as_ptr() },
            };
            let call = "XEN_DOMCTL_getpageframeinfo3";
            // SAFETY: the arguments are this domctl's, and the buffer holds so many frames.
            unsafe { self.domctl(call, ctrl::XEN_DOMCTL_getpageframeinfo3, domid, arguments)? };
            for (index, kind) in types.iter_mut().enumerate() {
                // SAFETY: within the batch; the hypervisor is done with it.
                let word = unsafe { buffer.add(index).read() };
                // The types lie in bits 28 to 31.
                *kind = word as u32 & ctrl::XEN_DOMCTL_PFINFO_LTAB_MASK;
            }
        }
        Ok(())
    }

    /// Gives the domain memory (`xc_domain_populate_physmap`): `frames.len()` extents of 2^`order` pages. In: the guest's frames. Out, for PV
    /// domains: the machine frames that are there now. Returns how many were done, from the first on; fewer than all when memory is short.
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let mut frames = [0x100, 0x101];
    /// let done = control.populate_physmap(DomId(3), 0, 0, &mut frames)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn populate_physmap(
        &self,
        domid: DomId,
        order: u32,
        flags: u32,
        frames: &mut [u64],
    ) -> Result<usize, XenError> {
        let (count, array) = (frames.len() as c_ulong, frames.as_mut_ptr());
        let library = &self.xen.ctrl;
        // SAFETY: the handle is open, and the array has so many frames.
        let result = unsafe { library.xc_domain_populate_physmap(self.handle(), domid.0, count, order, flags, array) };
        Ok(check("xc_domain_populate_physmap", domid, result)? as usize)
    }

    /// As [`Control::populate_physmap`], all or an error (`xc_domain_populate_physmap_exact`). What was done before the error stays.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. Without a number: memory is short.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.populate_physmap_exact(DomId(3), 0, 0, &mut [0x100, 0x101])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn populate_physmap_exact(
        &self,
        domid: DomId,
        order: u32,
        flags: u32,
        frames: &mut [u64],
    ) -> Result<(), XenError> {
        let (count, array) = (frames.len() as c_ulong, frames.as_mut_ptr());
        // SAFETY: the handle is open, and the array has so many frames.
        let result = unsafe {
            self.xen.ctrl.xc_domain_populate_physmap_exact(self.handle(), domid.0, count, order, flags, array)
        };
        let populated = check("xc_domain_populate_physmap_exact", domid, result).map(drop);
        // By this number the library says that it got less than it asked for, which would tell nobody anything.
        populated.map_err(|error| match error.errno() == Some(Errno::BUSY.raw_os_error()) {
            true => XenError::new(error.call, domid, io::Error::other("the host has not enough free memory")),
            false => error,
        })
    }

    /// Takes memory from the domain (`xc_domain_decrease_reservation`): extents of 2^`order` pages, by guest frames, for PV domains by machine
    /// frames. Returns how many were done, from the first on.
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let done = control.decrease_reservation(DomId(3), 0, &[0x100])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn decrease_reservation(&self, domid: DomId, order: u32, frames: &[u64]) -> Result<usize, XenError> {
        // The library writes back what it read.
        let mut frames = frames.to_vec();
        let (count, array) = (frames.len() as c_ulong, frames.as_mut_ptr());
        let library = &self.xen.ctrl;
        // SAFETY: the handle is open, and the array has so many frames.
        let result = unsafe { library.xc_domain_decrease_reservation(self.handle(), domid.0, count, order, array) };
        Ok(check("xc_domain_decrease_reservation", domid, result)? as usize)
    }

    /// How much memory the domain may have (`xc_domain_setmaxmem`), in KiB.
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.set_max_memory_kib(DomId(3), 256 * 1024)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_max_memory_kib(&self, domid: DomId, kib: u64) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.ctrl.xc_domain_setmaxmem(self.handle(), domid.0, kib) };
        check("xc_domain_setmaxmem", domid, result).map(drop)
    }

    /// Fills `count` pages from frame `first` on with zeroes (`xc_clear_domain_pages`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL` and others: one of the frames is not there.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.clear_pages(DomId(3), 0xfeffc, 1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clear_pages(&self, domid: DomId, first: u64, count: u32) -> Result<(), XenError> {
        let call = "xc_clear_domain_pages";
        // The library counts bytes in an int.
        let fits = c_int::try_from(count).ok().filter(|pages| *pages <= c_int::MAX / 4096);
        let pages = fits.ok_or_else(|| XenError::invalid(call, domid, format!("{count} pages at once")))?;
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.ctrl.xc_clear_domain_pages(self.handle(), domid.0, first, pages) };
        check(call, domid, result).map(drop)
    }
}
