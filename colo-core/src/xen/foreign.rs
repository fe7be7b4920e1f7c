//! `libxenforeignmemory`: a domain's pages in our address space.
//!
//! Making a mapping costs ten times what copying its pages does: keep mappings.
//!
//! What is mapped is another machine's memory. While that runs, it changes under our hands, so there is no reference to it but by
//! `unsafe` methods that say when they are sound; everything else copies. A copy of a page that is being written may be torn.
//!
//! ```no_run
//! use colo_core::ids::{DomId, PAGE_SIZE};
//! use colo_core::xen::{Xen, foreign::{Access, ForeignMemory}};
//!
//! let memory = ForeignMemory::open(Xen::open()?)?;
//! let mapping = memory.map(DomId(3), Access::Read, &[0x100, 0x101])?;
//! let mut page = [0; PAGE_SIZE];
//! mapping.read_page(1, &mut page);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use super::mapping::{Access, Mapping};

use super::error::domid_16;
use super::mapping::Owner;
use super::{Xen, XenError, log};
use crate::ids::DomId;
use std::cell::Cell;
use std::marker::PhantomData;
use std::os::raw::{c_int, c_ulong, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use xen_sys::foreignmemory as c;

/// The highest frame that a page table's entry has room for (52 bits of address). Of a higher one the kernel would map another frame,
/// with no error; there is no machine that has this one.
const MAX_FRAME: u64 = (1 << 40) - 1;

/// Which of a domain's resources is mapped by [`ForeignMemory::map_resource`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Resource {
    /// The grant table: entries of version 1 or 2, as the domain uses.
    GrantTable,
    /// The status words of a grant table of version 2.
    GrantStatus,
}

/// A handle of `libxenforeignmemory`. It may move between threads; its mappings may be used while it is used, and live on when
/// it is gone.
pub struct ForeignMemory {
    handle: Arc<Handle>,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl ForeignMemory {
    /// Opens the device. Needs to be root in dom0.
    ///
    /// # Errors
    /// `xenforeignmemory_open`: `ENOENT` or `EACCES` where this is no dom0, or not root.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, foreign::ForeignMemory};
    /// let memory = ForeignMemory::open(Xen::open()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(xen: Xen) -> Result<ForeignMemory, XenError> {
        // SAFETY: the logger lives as long as the process.
        let pointer = unsafe { xen.0.foreignmemory.xenforeignmemory_open(log::logger(), 0) };
        let pointer = NonNull::new(pointer).ok_or_else(|| XenError::last("xenforeignmemory_open", None))?;
        Ok(ForeignMemory { handle: Arc::new(Handle { xen: xen.0, pointer }), not_sync: PhantomData })
    }

    /// Maps the frames one after the other (`xenforeignmemory_map`): all of them, or none.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`, `ENOENT` and others: one of the frames is not there. `InvalidInput`: no frames.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, foreign::{Access, ForeignMemory}}};
    /// # let memory = ForeignMemory::open(Xen::open()?)?;
    /// let mapping = memory.map(DomId(3), Access::ReadWrite, &[0xfeffc])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map(&self, domid: DomId, access: Access, frames: &[u64]) -> Result<Mapping, XenError> {
        self.map_frames(domid, access, frames, null_mut())
    }

    /// As [`ForeignMemory::map`], but frames that are not there are left out: [`Mapping::page_error`] tells which.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `InvalidInput`: no frames.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, foreign::{Access, ForeignMemory}}};
    /// # let memory = ForeignMemory::open(Xen::open()?)?;
    /// let mapping = memory.map_partial(DomId(3), Access::Read, &[0x100, 0xffff_ffff])?;
    /// assert!(mapping.page_error(1).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_partial(&self, domid: DomId, access: Access, frames: &[u64]) -> Result<Mapping, XenError> {
        let mut errors = vec![0; frames.len()];
        let mut mapping = self.map_frames(domid, access, frames, errors.as_mut_ptr())?;
        if errors.iter().any(|error| *error != 0) {
            mapping.set_errors(errors);
        }
        Ok(mapping)
    }

    fn map_frames(
        &self,
        domid: DomId,
        access: Access,
        frames: &[u64],
        errors: *mut c_int,
    ) -> Result<Mapping, XenError> {
        let call = "xenforeignmemory_map";
        if frames.is_empty() {
            return Err(XenError::invalid(call, domid, "no frames".into()));
        }
        let clamped: Vec<u64>;
        let frames = if frames.iter().any(|frame| *frame > MAX_FRAME) {
            clamped = frames.iter().map(|frame| (*frame).min(MAX_FRAME)).collect();
            &clamped
        } else {
            frames
        };
        let (pointer, protection) = (self.handle.pointer.as_ptr(), access.protection());
        // SAFETY: the handle is open, and the arrays have as many elements as told.
        let memory = unsafe {
            let library = &self.handle.xen.foreignmemory;
            library.xenforeignmemory_map(pointer, domid.0, protection, frames.len(), frames.as_ptr(), errors)
        };
        let memory = NonNull::new(memory).ok_or_else(|| XenError::last(call, domid))?;
        Ok(Mapping::new(Owner::Frames(self.handle.clone()), memory.cast(), frames.len(), access))
    }

    /// Maps `count` pages of a resource from page `first` on (`xenforeignmemory_map_resource`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: it has not so many. [`XenError::is_unsupported`]: the kernel cannot.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, foreign::{Access, ForeignMemory, Resource}}};
    /// # let memory = ForeignMemory::open(Xen::open()?)?;
    /// let grants = memory.map_resource(DomId(3), Resource::GrantTable, 0, 1, Access::ReadWrite)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_resource(
        &self,
        domid: DomId,
        resource: Resource,
        first: u64,
        count: usize,
        access: Access,
    ) -> Result<Mapping, XenError> {
        let call = "xenforeignmemory_map_resource";
        let id = match resource {
            Resource::GrantTable => c::XENMEM_resource_grant_table_id_shared,
            Resource::GrantStatus => c::XENMEM_resource_grant_table_id_status,
        };
        let domain = domid_16(call, domid)?;
        if count == 0 {
            return Err(XenError::invalid(call, domid, "no pages".into()));
        }
        let mut memory: *mut c_void = null_mut();
        // SAFETY: the handle is open, the kernel chooses the address, and it is ours to receive.
        let mapped = unsafe {
            self.handle.xen.foreignmemory.xenforeignmemory_map_resource(
                self.handle.pointer.as_ptr(),
                domain,
                c::XENMEM_resource_grant_table,
                id,
                first as c_ulong,
                count as c_ulong,
                &raw mut memory,
                access.protection(),
                0,
            )
        };
        match (NonNull::new(mapped), NonNull::new(memory)) {
            (Some(mapped), Some(memory)) => {
                Ok(Mapping::new(Owner::Resource(self.handle.clone(), mapped), memory.cast(), count, access))
            }
            _ => Err(XenError::last(call, domid)),
        }
    }
}

/// Closed when the last mapping is gone, too.
pub(super) struct Handle {
    xen: &'static xen_sys::Xen,
    pointer: NonNull<c::xenforeignmemory_handle>,
}

// SAFETY: on Linux a handle is a file descriptor that never changes, and the logger, which any thread may call. Mappings only use it to
// unmap, which is munmap(2).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// # Safety
    /// So many pages were mapped there by this handle, and nobody uses them any more.
    pub(super) unsafe fn unmap(&self, memory: NonNull<u8>, pages: usize) {
        let (library, handle) = (&self.xen.foreignmemory, self.pointer.as_ptr());
        // SAFETY: as our caller promises.
        unsafe { library.xenforeignmemory_unmap(handle, memory.as_ptr().cast(), pages) };
    }

    /// # Safety
    /// The resource was mapped by this handle, and nobody uses it any more.
    pub(super) unsafe fn unmap_resource(&self, resource: NonNull<c::xenforeignmemory_resource_handle>) {
        let (library, handle) = (&self.xen.foreignmemory, self.pointer.as_ptr());
        // SAFETY: as our caller promises.
        unsafe { library.xenforeignmemory_unmap_resource(handle, resource.as_ptr()) };
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody has it any more.
        unsafe { self.xen.foreignmemory.xenforeignmemory_close(self.pointer.as_ptr()) };
    }
}
