use crate::ids::PAGE_SIZE;
use crate::xen::XenError;
use std::os::raw::{c_int, c_void};
use std::ptr::{NonNull, null_mut};
use xen_sys::ctrl;

/// Memory that the hypervisor can reach during a hypercall whatever the kernel does, kept from call to call: taking it costs more
/// than most calls. It grows and does not shrink; whoever owns the handle releases it before closing that.
#[derive(Default)]
pub(super) struct KeptBuffer {
    memory: Option<NonNull<c_void>>,
    pages: usize,
}

impl KeptBuffer {
    /// The buffer, page-aligned, of at least so many bytes. It has the content that it had, or any.
    pub(super) fn at_least(
        &mut self,
        bytes: usize,
        xen: &'static xen_sys::Xen,
        handle: NonNull<ctrl::xc_interface>,
    ) -> Result<NonNull<c_void>, XenError> {
        let pages = bytes.div_ceil(PAGE_SIZE).max(1);
        if let Some(memory) = self.memory {
            if pages <= self.pages {
                return Ok(memory);
            }
            self.release(xen, handle);
        }
        let call = "xc__hypercall_buffer_alloc_pages";
        let too_large = || XenError::invalid(call, None, format!("{bytes} bytes"));
        let count = c_int::try_from(pages).map_err(|_| too_large())?;
        let mut description = describe(null_mut());
        // SAFETY: the handle is open, and the description is one that the library may fill in.
        let memory = unsafe { xen.ctrl.xc__hypercall_buffer_alloc_pages(handle.as_ptr(), &raw mut description, count) };
        let memory = NonNull::new(memory).ok_or_else(|| XenError::last(call, None))?;
        self.memory = Some(memory);
        self.pages = pages;
        Ok(memory)
    }

    /// The buffer, with these bytes at its beginning.
    pub(super) fn filled(
        &mut self,
        bytes: &[u8],
        xen: &'static xen_sys::Xen,
        handle: NonNull<ctrl::xc_interface>,
    ) -> Result<NonNull<c_void>, XenError> {
        let memory = self.at_least(bytes.len(), xen, handle)?;
        // SAFETY: it is at least that large, and ours alone.
        unsafe { memory.cast::<u8>().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(memory)
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self, xen: &'static xen_sys::Xen, handle: NonNull<ctrl::xc_interface>) {
        if let Some(memory) = self.memory.take() {
            let mut description = describe(memory.as_ptr());
            // SAFETY: the memory comes from this handle, was so many pages (which fitted a c_int), and is not used after.
            unsafe {
                let pages = self.pages as c_int;
                xen.ctrl.xc__hypercall_buffer_free_pages(handle.as_ptr(), &raw mut description, pages);
            }
            self.pages = 0;
        }
    }
}

/// What the header's macro `DECLARE_HYPERCALL_BUFFER` makes: a buffer that the hypervisor uses itself, with nothing to copy.
pub(super) fn describe(memory: *mut c_void) -> ctrl::xc_hypercall_buffer {
    ctrl::xc_hypercall_buffer {
        hbuf: memory,
        param_shadow: null_mut(),
        dir: 0,
        // `(void *)-1` in HYPERCALL_BUFFER_INIT_NO_BOUNCE.
        ubuf: std::ptr::without_provenance_mut(usize::MAX),
        sz: 0,
    }
}
