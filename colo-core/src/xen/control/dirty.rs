//! Which pages a domain wrote: the hypervisor's log.

use super::buffer::describe;
use super::{Control, check};
use crate::ids::DomId;
use crate::xen::XenError;
use std::ptr::null_mut;
use xen_sys::ctrl;

impl Control {
    /// Starts the log of written pages (`xc_shadow_control`, `ENABLE_LOGDIRTY`). All pages count as clean from here. What a device model
    /// writes is logged only if it was told to, too.
    ///
    /// # Errors
    /// [`XenError::is_unsupported`]: a PV domain, and a hypervisor without shadow paging (Debian's, for one): dirty pages must be found by
    /// comparing. `EINVAL`: the log is on already, or the domain is dying; turn it off first.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// match control.enable_log_dirty(DomId(3)) {
    ///     Err(error) if error.is_unsupported() => println!("no dirty log here"),
    ///     other => other?,
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enable_log_dirty(&self, domid: DomId) -> Result<(), XenError> {
        self.shadow_control("XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY", domid, ctrl::XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY)
    }

    /// Stops the log (`xc_shadow_control`, `OFF`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL` or [`XenError::is_unsupported`]: it was not on.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.disable_log_dirty(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn disable_log_dirty(&self, domid: DomId) -> Result<(), XenError> {
        self.shadow_control("XEN_DOMCTL_SHADOW_OP_OFF", domid, ctrl::XEN_DOMCTL_SHADOW_OP_OFF)
    }

    fn shadow_control(&self, call: &'static str, domid: DomId, operation: u32) -> Result<(), XenError> {
        // SAFETY: the handle is open; these operations take no size.
        let result = unsafe { self.xen.ctrl.xc_shadow_control(self.handle(), domid.0, operation, null_mut(), 0) };
        check(call, domid, result).map(drop)
    }

    /// The pages written since the log was enabled or last cleaned, one bit each from page 0 on, and cleans the log
    /// (`xc_logdirty_control`, `CLEAN`). `words` is overwritten. The buffer that this takes is kept for the next call.
    ///
    /// `last` says that the log is not needed after this, as before the last round of a migration: what was written afterwards may
    /// then be missing from a later call.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: the log was never on; one that was turned off answers with nothing of use. `InvalidData`: the
    /// domain has fewer pages than asked for (the log has been cleaned all the same).
    ///
    /// # Panics
    /// When `words` does not hold exactly the words that `pages` bits take.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let pages = control.nr_gpfns(DomId(3))?;
    /// let mut words = vec![0; pages.div_ceil(64) as usize];
    /// let dirty = control.clean_log_dirty(DomId(3), pages, &mut words, false)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clean_log_dirty(
        &self,
        domid: DomId,
        pages: u64,
        words: &mut [u64],
        last: bool,
    ) -> Result<LogDirtyStats, XenError> {
        let mode = if last { ctrl::XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL } else { 0 };
        let operation = ctrl::XEN_DOMCTL_SHADOW_OP_CLEAN;
        self.log_dirty("XEN_DOMCTL_SHADOW_OP_CLEAN", operation, domid, pages, words, mode)
    }

    /// As [`Control::clean_log_dirty`], but the log stays as it is (`PEEK`).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// let mut words = [0; 4];
    /// control.peek_log_dirty(DomId(3), 256, &mut words)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peek_log_dirty(&self, domid: DomId, pages: u64, words: &mut [u64]) -> Result<LogDirtyStats, XenError> {
        let operation = ctrl::XEN_DOMCTL_SHADOW_OP_PEEK;
        self.log_dirty("XEN_DOMCTL_SHADOW_OP_PEEK", operation, domid, pages, words, 0)
    }

    fn log_dirty(
        &self,
        call: &'static str,
        operation: u32,
        domid: DomId,
        pages: u64,
        words: &mut [u64],
        mode: u32,
    ) -> Result<LogDirtyStats, XenError> {
        assert_eq!(words.len() as u64, pages.div_ceil(64), "one bit for each page");
        let mut kept = self.bitmap.borrow_mut();
        let buffer = kept.at_least(size_of_val(words), self.xen, self.handle)?;
        // The hypervisor may fill no more than it has pages for.
        // SAFETY: the buffer is that large, and nobody else uses it while it is borrowed.
        unsafe { buffer.cast::<u64>().write_bytes(0, words.len()) };
        let mut description = describe(buffer.as_ptr());
        let mut stats = ctrl::xc_shadow_op_stats_t { fault_count: 0, dirty_count: 0 };
        // SAFETY: the handle is open, the buffer has a bit for each page, and the rest is ours.
        let answered = unsafe {
            self.xen.ctrl.xc_logdirty_control(
                self.handle(),
                domid.0,
                operation,
                &raw mut description,
                pages,
                mode,
                &raw mut stats,
            )
        };
        let answered = u64::try_from(answered).map_err(|_| XenError::last(call, domid))?;
        if answered != pages {
            return Err(XenError::bad_answer(call, domid, format!("{answered} pages of {pages}")));
        }
        // SAFETY: the buffer is that large, and the hypervisor is done with it.
        unsafe { words.as_mut_ptr().copy_from_nonoverlapping(buffer.as_ptr().cast(), words.len()) };
        Ok(LogDirtyStats { dirty_pages: stats.dirty_count, faults: stats.fault_count })
    }
}

/// What the hypervisor counted since the log was last cleaned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogDirtyStats {
    /// Pages written, as the hypervisor counts them: those beyond the pages that were asked for, too.
    pub dirty_pages: u32,
    /// Writes that it had to look at.
    pub faults: u32,
}
