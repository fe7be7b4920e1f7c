// Made by regenerate.sh: do not edit.

#[repr(C)]
#[derive(Debug)]
pub struct libxl__ctx {
    _unused: [u8; 0],
}
pub type libxl_ctx = libxl__ctx;
pub type libxl_ev_user = u64;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct libxl_asyncop_how {
    pub callback: ::std::option::Option<
        unsafe extern "C" fn(ctx: *mut libxl_ctx, rc: ::std::os::raw::c_int, for_callback: *mut ::std::os::raw::c_void),
    >,
    pub u: libxl_asyncop_how__bindgen_ty_1,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union libxl_asyncop_how__bindgen_ty_1 {
    pub for_event: libxl_ev_user,
    pub for_callback: *mut ::std::os::raw::c_void,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of libxl_asyncop_how__bindgen_ty_1"][::std::mem::size_of::<libxl_asyncop_how__bindgen_ty_1>() - 8usize];
    ["Alignment of libxl_asyncop_how__bindgen_ty_1"]
        [::std::mem::align_of::<libxl_asyncop_how__bindgen_ty_1>() - 8usize];
    ["Offset of field: libxl_asyncop_how__bindgen_ty_1::for_event"]
        [::std::mem::offset_of!(libxl_asyncop_how__bindgen_ty_1, for_event) - 0usize];
    ["Offset of field: libxl_asyncop_how__bindgen_ty_1::for_callback"]
        [::std::mem::offset_of!(libxl_asyncop_how__bindgen_ty_1, for_callback) - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of libxl_asyncop_how"][::std::mem::size_of::<libxl_asyncop_how>() - 16usize];
    ["Alignment of libxl_asyncop_how"][::std::mem::align_of::<libxl_asyncop_how>() - 8usize];
    ["Offset of field: libxl_asyncop_how::callback"][::std::mem::offset_of!(libxl_asyncop_how, callback) - 0usize];
    ["Offset of field: libxl_asyncop_how::u"][::std::mem::offset_of!(libxl_asyncop_how, u) - 8usize];
};
pub struct XenLight {
    __library: ::libloading::Library,
    pub libxl_ctx_alloc: unsafe extern "C" fn(
        pctx: *mut *mut libxl_ctx,
        version: ::std::os::raw::c_int,
        flags: ::std::os::raw::c_uint,
        lg: *mut xentoollog_logger,
    ) -> ::std::os::raw::c_int,
    pub libxl_ctx_free: unsafe extern "C" fn(ctx: *mut libxl_ctx) -> ::std::os::raw::c_int,
    pub libxl_domain_destroy: unsafe extern "C" fn(
        ctx: *mut libxl_ctx,
        domid: u32,
        ao_how: *const libxl_asyncop_how,
    ) -> ::std::os::raw::c_int,
}
impl XenLight {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = ::libloading::Library::new(path)?;
        Self::from_library(library)
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let libxl_ctx_alloc = __library.get(b"libxl_ctx_alloc\0").map(|sym| *sym)?;
        let libxl_ctx_free = __library.get(b"libxl_ctx_free\0").map(|sym| *sym)?;
        let libxl_domain_destroy = __library.get(b"libxl_domain_destroy\0").map(|sym| *sym)?;
        Ok(XenLight { __library, libxl_ctx_alloc, libxl_ctx_free, libxl_domain_destroy })
    }
    pub unsafe fn libxl_ctx_alloc(
        &self,
        pctx: *mut *mut libxl_ctx,
        version: ::std::os::raw::c_int,
        flags: ::std::os::raw::c_uint,
        lg: *mut xentoollog_logger,
    ) -> ::std::os::raw::c_int {
        (self.libxl_ctx_alloc)(pctx, version, flags, lg)
    }
    pub unsafe fn libxl_ctx_free(&self, ctx: *mut libxl_ctx) -> ::std::os::raw::c_int {
        (self.libxl_ctx_free)(ctx)
    }
    pub unsafe fn libxl_domain_destroy(
        &self,
        ctx: *mut libxl_ctx,
        domid: u32,
        ao_how: *const libxl_asyncop_how,
    ) -> ::std::os::raw::c_int {
        (self.libxl_domain_destroy)(ctx, domid, ao_how)
    }
}
