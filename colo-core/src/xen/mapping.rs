use super::{foreign, gnttab};
use crate::ids::{PAGE_SIZE, Page};
use std::io;
use std::os::raw::c_int;
use std::ptr::NonNull;
use std::sync::Arc;
use xen_sys::foreignmemory::xenforeignmemory_resource_handle;

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
    pub(super) fn protection(self) -> c_int {
        match self {
            Access::Read => 1,
            Access::ReadWrite => 1 | 2,
        }
    }
}

/// Who unmaps.
pub(super) enum Owner {
    Frames(Arc<foreign::Handle>),
    Resource(Arc<foreign::Handle>, NonNull<xenforeignmemory_resource_handle>),
    Grants(Arc<gnttab::Handle>),
}

/// Pages of a domain, mapped one after the other; unmapped when dropped. They stay what they are whatever the domain does: a frame
/// that it gives back while it is mapped is not used by others before it is unmapped.
///
/// A method panics when it is given a page that is beyond the end or could not be mapped, and when it writes to what may only be read.
pub struct Mapping {
    owner: Owner,
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
    pub(super) fn new(owner: Owner, memory: NonNull<u8>, pages: usize, access: Access) -> Self {
        Mapping { owner, memory, pages, access, errors: Vec::new() }
    }

    /// One for each page; 0 where it is mapped.
    pub(super) fn set_errors(&mut self, errors: Vec<c_int>) {
        self.errors = errors;
    }

    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.pages
    }

    /// Never: a mapping has pages.
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Why page `index` could not be mapped ([`ForeignMemory::map_partial`](super::ForeignMemory::map_partial)).
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

    /// So many pages themselves, from page `first` on, to be written.
    ///
    /// # Panics
    /// Also when there are not so many, or one of them could not be mapped.
    ///
    /// # Safety
    /// As for [`Mapping::page`], and nobody reads them either.
    pub unsafe fn pages_mut(&mut self, first: usize, count: usize) -> &mut [Page] {
        (first..first + count).for_each(|index| _ = self.page_ptr(index));
        // SAFETY: they are mapped for as long as `self`, and may be written; the rest is our caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.page_mut_ptr(first).cast(), count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped by this owner, with so many pages, and is not used after.
        unsafe {
            match &self.owner {
                Owner::Frames(handle) => handle.unmap(self.memory, self.pages),
                Owner::Resource(handle, resource) => handle.unmap_resource(*resource),
                Owner::Grants(handle) => handle.unmap(self.memory, self.pages),
            }
        }
    }
}
