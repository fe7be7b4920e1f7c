// Made by regenerate.sh: do not edit.

#[repr(C)]
#[derive(Debug)]
pub struct xencall_handle {
    _unused: [u8; 0],
}
pub struct XenCall {
    __library: ::libloading::Library,
    pub xencall_open:
        unsafe extern "C" fn(logger: *mut xentoollog_logger, open_flags: ::std::os::raw::c_uint) -> *mut xencall_handle,
    pub xencall_close: unsafe extern "C" fn(xcall: *mut xencall_handle) -> ::std::os::raw::c_int,
    pub xencall1: unsafe extern "C" fn(
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
    ) -> ::std::os::raw::c_int,
    pub xencall2: unsafe extern "C" fn(
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
        arg2: u64,
    ) -> ::std::os::raw::c_int,
    pub xencall3: unsafe extern "C" fn(
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
        arg2: u64,
        arg3: u64,
    ) -> ::std::os::raw::c_int,
    pub xencall4: unsafe extern "C" fn(
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
        arg2: u64,
        arg3: u64,
        arg4: u64,
    ) -> ::std::os::raw::c_int,
    pub xencall5: unsafe extern "C" fn(
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
        arg2: u64,
        arg3: u64,
        arg4: u64,
        arg5: u64,
    ) -> ::std::os::raw::c_int,
}
impl XenCall {
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
        let xencall_open = __library.get(b"xencall_open\0").map(|sym| *sym)?;
        let xencall_close = __library.get(b"xencall_close\0").map(|sym| *sym)?;
        let xencall1 = __library.get(b"xencall1\0").map(|sym| *sym)?;
        let xencall2 = __library.get(b"xencall2\0").map(|sym| *sym)?;
        let xencall3 = __library.get(b"xencall3\0").map(|sym| *sym)?;
        let xencall4 = __library.get(b"xencall4\0").map(|sym| *sym)?;
        let xencall5 = __library.get(b"xencall5\0").map(|sym| *sym)?;
        Ok(XenCall { __library, xencall_open, xencall_close, xencall1, xencall2, xencall3, xencall4, xencall5 })
    }
    pub unsafe fn xencall_open(
        &self,
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xencall_handle {
        (self.xencall_open)(logger, open_flags)
    }
    pub unsafe fn xencall_close(&self, xcall: *mut xencall_handle) -> ::std::os::raw::c_int {
        (self.xencall_close)(xcall)
    }
    pub unsafe fn xencall1(
        &self,
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
    ) -> ::std::os::raw::c_int {
        (self.xencall1)(xcall, op, arg1)
    }
    pub unsafe fn xencall2(
        &self,
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
        arg2: u64,
    ) -> ::std::os::raw::c_int {
        (self.xencall2)(xcall, op, arg1, arg2)
    }
    pub unsafe fn xencall3(
        &self,
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
        arg2: u64,
        arg3: u64,
    ) -> ::std::os::raw::c_int {
        (self.xencall3)(xcall, op, arg1, arg2, arg3)
    }
    pub unsafe fn xencall4(
        &self,
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
        arg2: u64,
        arg3: u64,
        arg4: u64,
    ) -> ::std::os::raw::c_int {
        (self.xencall4)(xcall, op, arg1, arg2, arg3, arg4)
    }
    pub unsafe fn xencall5(
        &self,
        xcall: *mut xencall_handle,
        op: ::std::os::raw::c_uint,
        arg1: u64,
        arg2: u64,
        arg3: u64,
        arg4: u64,
        arg5: u64,
    ) -> ::std::os::raw::c_int {
        (self.xencall5)(xcall, op, arg1, arg2, arg3, arg4, arg5)
    }
}
