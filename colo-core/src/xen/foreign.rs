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

use super::{Xen, XenError, log};
use crate::ids::{DomId, PAGE_SIZE, Page};
use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::os::raw::{c_int, c_ulong, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use xen_sys::foreignmemory as c;

/// What may be done with mapped pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read them.
    Read,
    /// Read and write them.
    ReadWrite,
}

impl Access {
    /// As mmap(2) wants it: PROT_READ is 1, PROT_WRITE 2.
    fn protection(self) -> c_int {
        match self {
            Access::Read => 1,
            Access::ReadWrite => 1 | 2,
        }
    }
}

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
            mapping.errors = errors;
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
        let (pointer, protection) = (self.handle.pointer.as_ptr(), access.protection());
        // SAFETY: the handle is open, and the arrays have as many elements as told.
        let memory = unsafe {
            let library = &self.handle.xen.foreignmemory;
            library.xenforeignmemory_map(pointer, domid.0, protection, frames.len(), frames.as_ptr(), errors)
        };
        let memory = NonNull::new(memory).ok_or_else(|| XenError::last(call, domid))?;
        Ok(Mapping {
            handle: self.handle.clone(),
            resource: None,
            memory: memory.cast(),
            pages: frames.len(),
            access,
            errors: Vec::new(),
        })
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
        let domain = u16::try_from(domid.0).ok().filter(|_| count > 0);
        let domain = domain.ok_or_else(|| XenError::invalid(call, domid, format!("{count} pages")))?;
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
            (Some(mapped), Some(memory)) => Ok(Mapping {
                handle: self.handle.clone(),
                resource: Some(mapped),
                memory: memory.cast(),
                pages: count,
                access,
                errors: Vec::new(),
            }),
            _ => Err(XenError::last(call, domid)),
        }
    }
}

/// Closed when the last mapping is gone, too.
struct Handle {
    xen: &'static xen_sys::Xen,
    pointer: NonNull<c::xenforeignmemory_handle>,
}

// SAFETY: on Linux a handle is a file descriptor that never changes, and the logger, which any thread may call. Mappings only use it to
// unmap, which is munmap(2).
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody has it any more.
        unsafe { self.xen.foreignmemory.xenforeignmemory_close(self.pointer.as_ptr()) };
    }
}

/// Pages of a domain, mapped one after the other; unmapped when dropped. They stay what they are whatever the domain does: a frame
/// that it gives back while it is mapped is not used by others before it is unmapped.
///
/// A method panics when it is given a page that is beyond the end or could not be mapped, and when it writes to what may only be read.
pub struct Mapping {
    handle: Arc<Handle>,
    resource: Option<NonNull<c::xenforeignmemory_resource_handle>>,
    memory: NonNull<u8>,
    pages: usize,
    access: Access,
    /// For each page what went wrong, as a negative error number; empty when nothing did.
    errors: Vec<c_int>,
}

// SAFETY: the pages may be reached by any thread, as they may be by the domain at the same time: shared access copies, and
// only exclusive access writes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.pages
    }

    /// Never: a mapping has pages.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Why page `index` could not be mapped ([`ForeignMemory::map_partial`]).
    pub fn page_error(&self, index: usize) -> Option<io::Error> {
        let error = self.errors.get(index).copied().filter(|error| *error != 0)?;
        Some(io::Error::from_raw_os_error(error.wrapping_abs()))
    }

    /// Copies a page out.
    pub fn read_page(&self, index: usize, into: &mut Page) {
        // SAFETY: the page is mapped, and `into` is not: nothing that is mapped is given out as a reference but by promise. Bytes
        // that change meanwhile are still bytes.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(self.page_ptr(index), PAGE_SIZE) };
    }

    /// Copies a page in.
    pub fn write_page(&mut self, index: usize, from: &Page) {
        // SAFETY: as for `read_page`; the page may be written.
        unsafe { self.page_mut_ptr(index).copy_from_nonoverlapping(from.as_ptr(), PAGE_SIZE) };
    }

    /// Copies pages out, from page `first` on: as many as `into` holds.
    ///
    /// # Panics
    /// Also when `into` does not hold whole pages.
    pub fn read_pages(&self, first: usize, into: &mut [u8]) {
        assert_eq!(into.len() % PAGE_SIZE, 0, "whole pages");
        for (index, page) in into.chunks_exact_mut(PAGE_SIZE).enumerate() {
            self.read_page(first + index, page.try_into().expect("chunks are pages"));
        }
    }

    /// Copies a part of a page out.
    ///
    /// # Panics
    /// Also when the part is not within the page.
    pub fn read_bytes(&self, index: usize, offset: usize, into: &mut [u8]) {
        assert!(offset <= PAGE_SIZE && into.len() <= PAGE_SIZE - offset, "within the page");
        // SAFETY: as for `read_page`; the part lies within it.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(self.page_ptr(index).add(offset), into.len()) };
    }

    /// Copies bytes into a part of a page.
    ///
    /// # Panics
    /// Also when the part is not within the page.
    pub fn write_bytes(&mut self, index: usize, offset: usize, from: &[u8]) {
        assert!(offset <= PAGE_SIZE && from.len() <= PAGE_SIZE - offset, "within the page");
        // SAFETY: as for `write_page`; the part lies within it.
        unsafe { self.page_mut_ptr(index).add(offset).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }

    /// Fills a page with zeroes.
    pub fn zero_page(&mut self, index: usize) {
        // SAFETY: the page is mapped, and may be written.
        unsafe { self.page_mut_ptr(index).write_bytes(0, PAGE_SIZE) };
    }

    /// Where a page is.
    pub fn page_ptr(&self, index: usize) -> *const u8 {
        assert!(index < self.pages, "page {index} of {}", self.pages);
        assert!(self.errors.get(index).is_none_or(|error| *error == 0), "page {index} could not be mapped");
        // SAFETY: within the mapping.
        unsafe { self.memory.as_ptr().add(index * PAGE_SIZE) }
    }

    /// Where a page is, to be written.
    pub fn page_mut_ptr(&mut self, index: usize) -> *mut u8 {
        assert_eq!(self.access, Access::ReadWrite, "the mapping is for reading");
        self.page_ptr(index).cast_mut()
    }

    /// The page itself, with no copy.
    ///
    /// # Safety
    /// Nobody writes to the page while the reference lives: the domain does not run, its device model and its backends do not
    /// write to it, and there is no other mapping of it through which somebody does.
    pub unsafe fn page(&self, index: usize) -> &Page {
        // SAFETY: it is mapped for as long as `self`; that it does not change is our caller's promise.
        unsafe { &*self.page_ptr(index).cast() }
    }

    /// The page itself, to be written.
    ///
    /// # Safety
    /// As for [`Mapping::page`], and nobody reads it either.
    pub unsafe fn page_mut(&mut self, index: usize) -> &mut Page {
        // SAFETY: it is mapped for as long as `self`, and may be written; the rest is our caller's promise.
        unsafe { &mut *self.page_mut_ptr(index).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (library, handle) = (&self.handle.xen.foreignmemory, self.handle.pointer.as_ptr());
        match self.resource {
            // SAFETY: it comes from this handle, and is not used after.
            Some(resource) => unsafe { library.xenforeignmemory_unmap_resource(handle, resource.as_ptr()) },
            // SAFETY: it was mapped with so many pages, and is not used after.
            None => unsafe { library.xenforeignmemory_unmap(handle, self.memory.as_ptr().cast(), self.pages) },
        };
    }
}
