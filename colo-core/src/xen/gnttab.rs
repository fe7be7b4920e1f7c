//! `libxengnttab`: pages that a domain has granted to ours, as a backend maps them.
//!
//! ```no_run
//! use colo_core::ids::{DomId, PAGE_SIZE};
//! use colo_core::xen::{Xen, foreign::Access, gnttab::GrantTable};
//!
//! let grants = GrantTable::open(Xen::open()?)?;
//! let ring = grants.map(DomId(3), Access::Read, &[8])?;
//! let mut page = [0; PAGE_SIZE];
//! ring.read_page(0, &mut page);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::mapping::{Access, Mapping, Owner};
use super::{Xen, XenError, log};
use crate::ids::DomId;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use xen_sys::gnttab as c;

/// A handle of `libxengnttab`. It may move between threads; its mappings live on when it is gone.
pub struct GrantTable {
    handle: Arc<Handle>,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl GrantTable {
    /// Opens the device. Needs to be root.
    ///
    /// # Errors
    /// `xengnttab_open`: `ENOENT` or `EACCES` where there is no Xen, or not root.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, gnttab::GrantTable};
    /// let grants = GrantTable::open(Xen::open()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(xen: Xen) -> Result<GrantTable, XenError> {
        // SAFETY: the logger lives as long as the process.
        let pointer = NonNull::new(unsafe { xen.0.gnttab.xengnttab_open(log::logger(), 0) });
        let pointer = pointer.ok_or_else(|| XenError::last("xengnttab_open", None))?;
        Ok(GrantTable { handle: Arc::new(Handle { xen: xen.0, pointer }), not_sync: PhantomData })
    }

    /// Maps pages one after the other by their grant references (`xengnttab_map_domain_grant_refs`): all of them, or none.
    ///
    /// # Errors
    /// `EINVAL` and others: one of them is not granted to us, or not to be written. `InvalidInput`: no references.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, foreign::Access, gnttab::GrantTable}};
    /// # let grants = GrantTable::open(Xen::open()?)?;
    /// let pages = grants.map(DomId(3), Access::ReadWrite, &[8, 9])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map(&self, domid: DomId, access: Access, references: &[u32]) -> Result<Mapping, XenError> {
        let call = "xengnttab_map_domain_grant_refs";
        let count = u32::try_from(references.len()).ok().filter(|count| *count > 0);
        let count = count.ok_or_else(|| XenError::invalid(call, domid, format!("{} references", references.len())))?;
        // The library takes them as if it could write.
        let mut references = references.to_vec();
        let (pointer, array, protection) = (self.handle.pointer.as_ptr(), references.as_mut_ptr(), access.protection());
        // SAFETY: the handle is open, and the array has so many references.
        let memory = unsafe {
            let library = &self.handle.xen.gnttab;
            library.xengnttab_map_domain_grant_refs(pointer, count, domid.0, array, protection)
        };
        let memory = NonNull::new(memory).ok_or_else(|| XenError::last(call, domid))?;
        Ok(Mapping::new(Owner::Grants(self.handle.clone()), memory.cast(), references.len(), access))
    }
}

/// Closed when the last mapping is gone, too.
pub(super) struct Handle {
    xen: &'static xen_sys::Xen,
    pointer: NonNull<c::xengnttab_handle>,
}

// SAFETY: on Linux a handle is a file descriptor that never changes, and the logger, which any thread may call; the kernel's driver
// locks.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// # Safety
    /// So many pages were mapped there by this handle, and nobody uses them any more.
    pub(super) unsafe fn unmap(&self, memory: NonNull<u8>, pages: usize) {
        // SAFETY: as our caller promises. The count was a u32.
        unsafe { self.xen.gnttab.xengnttab_unmap(self.pointer.as_ptr(), memory.as_ptr().cast(), pages as u32) };
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody has it any more.
        unsafe { self.xen.gnttab.xengnttab_close(self.pointer.as_ptr()) };
    }
}
