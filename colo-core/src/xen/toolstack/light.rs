use crate::ids::DomId;
use crate::xen::{Xen, XenError, XenOpenError, log};
use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ptr::{NonNull, null, null_mut};
use xen_sys::light;

/// Xen's toolstack library in this process, for what it does best: ending a domain with all that belongs to it. Starting `xl` for that
/// would cost more than the deed.
///
/// libxl minds the processes that it starts (hotplug scripts), and for that takes SIGCHLD over during a call: have no children of
/// your own that end then.
pub struct Libxl {
    library: &'static light::XenLight,
    context: NonNull<light::libxl_ctx>,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

/// `LIBXL_VERSION` of `libxl.h`.
const LIBXL_VERSION: i32 = 0;

impl Libxl {
    /// Loads the library and opens a context. Needs to be root in dom0.
    ///
    /// # Errors
    /// When it is not installed, or Xen refuses.
    ///
    /// ```no_run
    /// use colo_core::ids::DomId;
    /// use colo_core::xen::{Xen, toolstack::Libxl};
    ///
    /// Libxl::open(Xen::open()?)?.destroy(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(xen: Xen) -> Result<Libxl, LibxlError> {
        let library = xen_sys::load_light(xen.0)?;
        let mut context = null_mut();
        // SAFETY: the logger lives as long as the process, and the pointer is ours to receive.
        let result = unsafe { library.libxl_ctx_alloc(&raw mut context, LIBXL_VERSION, 0, log::logger()) };
        check("libxl_ctx_alloc", None, result)?;
        let context = NonNull::new(context).ok_or_else(|| XenError::last("libxl_ctx_alloc", None))?;
        Ok(Libxl { library, context, not_sync: PhantomData })
    }

    /// Destroys a domain with all that libxl made for it (`libxl_domain_destroy`), as `xl destroy` does.
    ///
    /// # Errors
    /// [`LibxlError::Xen`]; what went wrong is in the log.
    pub fn destroy(&self, domid: DomId) -> Result<(), LibxlError> {
        // SAFETY: the context is open; without a way to be told the call returns when it is done.
        let result = unsafe { self.library.libxl_domain_destroy(self.context.as_ptr(), domid.0, null()) };
        check("libxl_domain_destroy", Some(domid), result)
    }
}

impl Drop for Libxl {
    fn drop(&mut self) {
        // SAFETY: it is open, and is not used after.
        unsafe { self.library.libxl_ctx_free(self.context.as_ptr()) };
    }
}

/// Why libxl did not do it.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum LibxlError {
    /// It could not be loaded.
    #[error(transparent)]
    Load(#[from] XenOpenError),
    /// It failed.
    #[error(transparent)]
    Xen(#[from] XenError),
}

/// libxl's error numbers are its own (`ERROR_*` of `libxl_types.idl`).
fn check(call: &'static str, domid: Option<DomId>, result: i32) -> Result<(), LibxlError> {
    match result {
        0 => Ok(()),
        error => Err(XenError::new(call, domid, io::Error::other(format!("libxl's error {error}"))).into()),
    }
}
