// Made by regenerate.sh: do not edit.

pub const XS_PERM_NONE: u32 = 0;
pub const XS_PERM_READ: u32 = 1;
pub const XS_PERM_WRITE: u32 = 2;
pub const XS_PERM_ENOENT_OK: u32 = 4;
pub const XS_PERM_OWNER: u32 = 8;
pub const XS_PERM_IGNORE: u32 = 16;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xs_permissions {
    pub id: ::std::os::raw::c_uint,
    pub perms: ::std::os::raw::c_uint,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xs_permissions"][::std::mem::size_of::<xs_permissions>() - 8usize];
    ["Alignment of xs_permissions"][::std::mem::align_of::<xs_permissions>() - 4usize];
    ["Offset of field: xs_permissions::id"][::std::mem::offset_of!(xs_permissions, id) - 0usize];
    ["Offset of field: xs_permissions::perms"][::std::mem::offset_of!(xs_permissions, perms) - 4usize];
};
#[repr(C)]
#[derive(Debug)]
pub struct xs_handle {
    _unused: [u8; 0],
}
pub type xs_transaction_t = u32;
pub struct XenStore {
    __library: ::libloading::Library,
    pub xs_open: unsafe extern "C" fn(flags: ::std::os::raw::c_ulong) -> *mut xs_handle,
    pub xs_close: unsafe extern "C" fn(xsh: *mut xs_handle),
    pub xs_directory: unsafe extern "C" fn(
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        num: *mut ::std::os::raw::c_uint,
    ) -> *mut *mut ::std::os::raw::c_char,
    pub xs_read: unsafe extern "C" fn(
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        len: *mut ::std::os::raw::c_uint,
    ) -> *mut ::std::os::raw::c_void,
    pub xs_write: unsafe extern "C" fn(
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        data: *const ::std::os::raw::c_void,
        len: ::std::os::raw::c_uint,
    ) -> bool,
    pub xs_mkdir:
        unsafe extern "C" fn(h: *mut xs_handle, t: xs_transaction_t, path: *const ::std::os::raw::c_char) -> bool,
    pub xs_rm:
        unsafe extern "C" fn(h: *mut xs_handle, t: xs_transaction_t, path: *const ::std::os::raw::c_char) -> bool,
    pub xs_get_permissions: unsafe extern "C" fn(
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        num: *mut ::std::os::raw::c_uint,
    ) -> *mut xs_permissions,
    pub xs_set_permissions: unsafe extern "C" fn(
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        perms: *mut xs_permissions,
        num_perms: ::std::os::raw::c_uint,
    ) -> bool,
    pub xs_watch: unsafe extern "C" fn(
        h: *mut xs_handle,
        path: *const ::std::os::raw::c_char,
        token: *const ::std::os::raw::c_char,
    ) -> bool,
    pub xs_fileno: unsafe extern "C" fn(h: *mut xs_handle) -> ::std::os::raw::c_int,
    pub xs_check_watch: unsafe extern "C" fn(h: *mut xs_handle) -> *mut *mut ::std::os::raw::c_char,
    pub xs_unwatch: unsafe extern "C" fn(
        h: *mut xs_handle,
        path: *const ::std::os::raw::c_char,
        token: *const ::std::os::raw::c_char,
    ) -> bool,
    pub xs_transaction_start: unsafe extern "C" fn(h: *mut xs_handle) -> xs_transaction_t,
    pub xs_transaction_end: unsafe extern "C" fn(h: *mut xs_handle, t: xs_transaction_t, abort: bool) -> bool,
    pub xs_introduce_domain: unsafe extern "C" fn(
        h: *mut xs_handle,
        domid: ::std::os::raw::c_uint,
        mfn: ::std::os::raw::c_ulong,
        eventchn: ::std::os::raw::c_uint,
    ) -> bool,
    pub xs_resume_domain: unsafe extern "C" fn(h: *mut xs_handle, domid: ::std::os::raw::c_uint) -> bool,
    pub xs_release_domain: unsafe extern "C" fn(h: *mut xs_handle, domid: ::std::os::raw::c_uint) -> bool,
    pub xs_get_domain_path:
        unsafe extern "C" fn(h: *mut xs_handle, domid: ::std::os::raw::c_uint) -> *mut ::std::os::raw::c_char,
    pub xs_is_domain_introduced: unsafe extern "C" fn(h: *mut xs_handle, domid: ::std::os::raw::c_uint) -> bool,
}
impl XenStore {
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
        let xs_open = __library.get(b"xs_open\0").map(|sym| *sym)?;
        let xs_close = __library.get(b"xs_close\0").map(|sym| *sym)?;
        let xs_directory = __library.get(b"xs_directory\0").map(|sym| *sym)?;
        let xs_read = __library.get(b"xs_read\0").map(|sym| *sym)?;
        let xs_write = __library.get(b"xs_write\0").map(|sym| *sym)?;
        let xs_mkdir = __library.get(b"xs_mkdir\0").map(|sym| *sym)?;
        let xs_rm = __library.get(b"xs_rm\0").map(|sym| *sym)?;
        let xs_get_permissions = __library.get(b"xs_get_permissions\0").map(|sym| *sym)?;
        let xs_set_permissions = __library.get(b"xs_set_permissions\0").map(|sym| *sym)?;
        let xs_watch = __library.get(b"xs_watch\0").map(|sym| *sym)?;
        let xs_fileno = __library.get(b"xs_fileno\0").map(|sym| *sym)?;
        let xs_check_watch = __library.get(b"xs_check_watch\0").map(|sym| *sym)?;
        let xs_unwatch = __library.get(b"xs_unwatch\0").map(|sym| *sym)?;
        let xs_transaction_start = __library.get(b"xs_transaction_start\0").map(|sym| *sym)?;
        let xs_transaction_end = __library.get(b"xs_transaction_end\0").map(|sym| *sym)?;
        let xs_introduce_domain = __library.get(b"xs_introduce_domain\0").map(|sym| *sym)?;
        let xs_resume_domain = __library.get(b"xs_resume_domain\0").map(|sym| *sym)?;
        let xs_release_domain = __library.get(b"xs_release_domain\0").map(|sym| *sym)?;
        let xs_get_domain_path = __library.get(b"xs_get_domain_path\0").map(|sym| *sym)?;
        let xs_is_domain_introduced = __library.get(b"xs_is_domain_introduced\0").map(|sym| *sym)?;
        Ok(XenStore {
            __library,
            xs_open,
            xs_close,
            xs_directory,
            xs_read,
            xs_write,
            xs_mkdir,
            xs_rm,
            xs_get_permissions,
            xs_set_permissions,
            xs_watch,
            xs_fileno,
            xs_check_watch,
            xs_unwatch,
            xs_transaction_start,
            xs_transaction_end,
            xs_introduce_domain,
            xs_resume_domain,
            xs_release_domain,
            xs_get_domain_path,
            xs_is_domain_introduced,
        })
    }
    pub unsafe fn xs_open(&self, flags: ::std::os::raw::c_ulong) -> *mut xs_handle {
        (self.xs_open)(flags)
    }
    pub unsafe fn xs_close(&self, xsh: *mut xs_handle) {
        (self.xs_close)(xsh)
    }
    pub unsafe fn xs_directory(
        &self,
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        num: *mut ::std::os::raw::c_uint,
    ) -> *mut *mut ::std::os::raw::c_char {
        (self.xs_directory)(h, t, path, num)
    }
    pub unsafe fn xs_read(
        &self,
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        len: *mut ::std::os::raw::c_uint,
    ) -> *mut ::std::os::raw::c_void {
        (self.xs_read)(h, t, path, len)
    }
    pub unsafe fn xs_write(
        &self,
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        data: *const ::std::os::raw::c_void,
        len: ::std::os::raw::c_uint,
    ) -> bool {
        (self.xs_write)(h, t, path, data, len)
    }
    pub unsafe fn xs_mkdir(&self, h: *mut xs_handle, t: xs_transaction_t, path: *const ::std::os::raw::c_char) -> bool {
        (self.xs_mkdir)(h, t, path)
    }
    pub unsafe fn xs_rm(&self, h: *mut xs_handle, t: xs_transaction_t, path: *const ::std::os::raw::c_char) -> bool {
        (self.xs_rm)(h, t, path)
    }
    pub unsafe fn xs_get_permissions(
        &self,
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        num: *mut ::std::os::raw::c_uint,
    ) -> *mut xs_permissions {
        (self.xs_get_permissions)(h, t, path, num)
    }
    pub unsafe fn xs_set_permissions(
        &self,
        h: *mut xs_handle,
        t: xs_transaction_t,
        path: *const ::std::os::raw::c_char,
        perms: *mut xs_permissions,
        num_perms: ::std::os::raw::c_uint,
    ) -> bool {
        (self.xs_set_permissions)(h, t, path, perms, num_perms)
    }
    pub unsafe fn xs_watch(
        &self,
        h: *mut xs_handle,
        path: *const ::std::os::raw::c_char,
        token: *const ::std::os::raw::c_char,
    ) -> bool {
        (self.xs_watch)(h, path, token)
    }
    pub unsafe fn xs_fileno(&self, h: *mut xs_handle) -> ::std::os::raw::c_int {
        (self.xs_fileno)(h)
    }
    pub unsafe fn xs_check_watch(&self, h: *mut xs_handle) -> *mut *mut ::std::os::raw::c_char {
        (self.xs_check_watch)(h)
    }
    pub unsafe fn xs_unwatch(
        &self,
        h: *mut xs_handle,
        path: *const ::std::os::raw::c_char,
        token: *const ::std::os::raw::c_char,
    ) -> bool {
        (self.xs_unwatch)(h, path, token)
    }
    pub unsafe fn xs_transaction_start(&self, h: *mut xs_handle) -> xs_transaction_t {
        (self.xs_transaction_start)(h)
    }
    pub unsafe fn xs_transaction_end(&self, h: *mut xs_handle, t: xs_transaction_t, abort: bool) -> bool {
        (self.xs_transaction_end)(h, t, abort)
    }
    pub unsafe fn xs_introduce_domain(
        &self,
        h: *mut xs_handle,
        domid: ::std::os::raw::c_uint,
        mfn: ::std::os::raw::c_ulong,
        eventchn: ::std::os::raw::c_uint,
    ) -> bool {
        (self.xs_introduce_domain)(h, domid, mfn, eventchn)
    }
    pub unsafe fn xs_resume_domain(&self, h: *mut xs_handle, domid: ::std::os::raw::c_uint) -> bool {
        (self.xs_resume_domain)(h, domid)
    }
    pub unsafe fn xs_release_domain(&self, h: *mut xs_handle, domid: ::std::os::raw::c_uint) -> bool {
        (self.xs_release_domain)(h, domid)
    }
    pub unsafe fn xs_get_domain_path(
        &self,
        h: *mut xs_handle,
        domid: ::std::os::raw::c_uint,
    ) -> *mut ::std::os::raw::c_char {
        (self.xs_get_domain_path)(h, domid)
    }
    pub unsafe fn xs_is_domain_introduced(&self, h: *mut xs_handle, domid: ::std::os::raw::c_uint) -> bool {
        (self.xs_is_domain_introduced)(h, domid)
    }
}
