//! Calls that may be part of a transaction, and what they allocate.

use super::XenStore;
use crate::ids::DomId;
use crate::xen::XenError;
use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_uint, c_void};
use std::ptr::NonNull;
use xen_sys::store as c;

impl XenStore {
    pub(super) fn read_in(&self, transaction: c::xs_transaction_t, path: &str) -> Result<Option<Vec<u8>>, XenError> {
        let (name, mut length) = (c_path("xs_read", path)?, 0);
        // SAFETY: the handle is open, the path is a C string, and the number is ours.
        let value = unsafe { self.xen.store.xs_read(self.handle(), transaction, name.as_ptr(), &raw mut length) };
        let Some(value) = self.answer("xs_read", path, value)? else { return Ok(None) };
        // SAFETY: the value that was just received has so many bytes, and lives until `value` is dropped.
        Ok(Some(unsafe { std::slice::from_raw_parts(value.0.as_ptr().cast::<u8>(), length as usize) }.to_vec()))
    }

    pub(super) fn write_in(&self, transaction: c::xs_transaction_t, path: &str, value: &[u8]) -> Result<(), XenError> {
        let name = c_path("xs_write", path)?;
        let length = c_uint::try_from(value.len());
        let length = length.map_err(|_| XenError::new("xs_write", None, rustix::io::Errno::TOOBIG.into()).at(path))?;
        // SAFETY: the handle is open, the path is a C string, and the value has so many bytes.
        let done = unsafe {
            self.xen.store.xs_write(self.handle(), transaction, name.as_ptr(), value.as_ptr().cast(), length)
        };
        self.done("xs_write", path, done)
    }

    pub(super) fn mkdir_in(&self, transaction: c::xs_transaction_t, path: &str) -> Result<(), XenError> {
        let name = c_path("xs_mkdir", path)?;
        // SAFETY: the handle is open, and the path is a C string.
        let done = unsafe { self.xen.store.xs_mkdir(self.handle(), transaction, name.as_ptr()) };
        self.done("xs_mkdir", path, done)
    }

    pub(super) fn rm_in(&self, transaction: c::xs_transaction_t, path: &str) -> Result<bool, XenError> {
        let name = c_path("xs_rm", path)?;
        // SAFETY: the handle is open, and the path is a C string.
        let done = unsafe { self.xen.store.xs_rm(self.handle(), transaction, name.as_ptr()) };
        match self.done("xs_rm", path, done) {
            Err(error) if is_absent(&error) => Ok(false),
            other => other.map(|()| true),
        }
    }

    pub(super) fn directory_in(
        &self,
        transaction: c::xs_transaction_t,
        path: &str,
    ) -> Result<Option<Vec<String>>, XenError> {
        let call = "xs_directory";
        let (name, mut count) = (c_path(call, path)?, 0);
        // SAFETY: the handle is open, the path is a C string, and the number is ours.
        let names = unsafe { self.xen.store.xs_directory(self.handle(), transaction, name.as_ptr(), &raw mut count) };
        let Some(names) = self.answer(call, path, names.cast())? else { return Ok(None) };
        let array = names.0.as_ptr().cast::<*const c_char>();
        // SAFETY: the array that was just received has so many C strings; they lie in the same piece of memory, and live until
        // `names` is dropped.
        let text = |index| unsafe { CStr::from_ptr(*array.add(index)) }.to_string_lossy().into_owned();
        Ok(Some((0..count as usize).map(text).collect()))
    }

    /// What a call allocated; none when the node is not there.
    pub(super) fn answer(
        &self,
        call: &'static str,
        path: &str,
        memory: *mut c_void,
    ) -> Result<Option<Allocated>, XenError> {
        if let Some(memory) = Allocated::new(memory) {
            return Ok(Some(memory));
        }
        let error = XenError::last(call, None).at(path);
        if is_absent(&error) { Ok(None) } else { Err(error) }
    }

    pub(super) fn done(&self, call: &'static str, path: &str, done: bool) -> Result<(), XenError> {
        if done { Ok(()) } else { Err(XenError::last(call, None).at(path)) }
    }

    pub(super) fn done_for(&self, call: &'static str, domid: DomId, done: bool) -> Result<(), XenError> {
        if done { Ok(()) } else { Err(XenError::last(call, domid)) }
    }
}

/// Memory of C's allocator, freed when dropped. Arrays of strings are one piece.
pub(super) struct Allocated(pub(super) NonNull<c_void>);

impl Allocated {
    pub(super) fn new(memory: *mut c_void) -> Option<Self> {
        NonNull::new(memory).map(Allocated)
    }
}

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: it comes from C's allocator, and is not used after.
        unsafe { xen_sys::sys::free(self.0.as_ptr()) };
    }
}

pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn is_absent(error: &XenError) -> bool {
    error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error())
}

pub(super) fn c_path(call: &'static str, path: &str) -> Result<CString, XenError> {
    CString::new(path).map_err(|_| XenError::invalid(call, None, "a zero byte".into()).at(path))
}
