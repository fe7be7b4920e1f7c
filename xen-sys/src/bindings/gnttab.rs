// Made by regenerate.sh: do not edit.

pub const GNTTAB_RESERVED_CONSOLE: u32 = 0;
pub const GNTTAB_RESERVED_XENSTORE: u32 = 1;
pub const GTF_invalid: u32 = 0;
pub const GTF_permit_access: u32 = 1;
pub const GTF_accept_transfer: u32 = 2;
pub const GTF_transitive: u32 = 3;
pub const GTF_type_mask: u32 = 3;
pub const GTF_readonly: u32 = 4;
pub const GTF_reading: u32 = 8;
pub const GTF_writing: u32 = 16;
pub const GTF_PWT: u32 = 32;
pub const GTF_PCD: u32 = 64;
pub const GTF_PAT: u32 = 128;
pub const GTF_sub_page: u32 = 256;
pub const GTF_transfer_committed: u32 = 4;
pub const GTF_transfer_completed: u32 = 8;
#[repr(C)]
#[derive(Debug)]
pub struct xengntdev_handle {
    _unused: [u8; 0],
}
pub type xengnttab_handle = xengntdev_handle;
pub struct XenGnttab {
    __library: ::libloading::Library,
    pub xengnttab_open: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xengnttab_handle,
    pub xengnttab_close: unsafe extern "C" fn(xgt: *mut xengnttab_handle) -> ::std::os::raw::c_int,
    pub xengnttab_map_domain_grant_refs: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        count: u32,
        domid: u32,
        refs: *mut u32,
        prot: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void,
    pub xengnttab_unmap: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        start_address: *mut ::std::os::raw::c_void,
        count: u32,
    ) -> ::std::os::raw::c_int,
}
impl XenGnttab {
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
        let xengnttab_open = __library.get(b"xengnttab_open\0").map(|sym| *sym)?;
        let xengnttab_close = __library.get(b"xengnttab_close\0").map(|sym| *sym)?;
        let xengnttab_map_domain_grant_refs = __library.get(b"xengnttab_map_domain_grant_refs\0").map(|sym| *sym)?;
        let xengnttab_unmap = __library.get(b"xengnttab_unmap\0").map(|sym| *sym)?;
        Ok(XenGnttab { __library, xengnttab_open, xengnttab_close, xengnttab_map_domain_grant_refs, xengnttab_unmap })
    }
    pub unsafe fn xengnttab_open(
        &self,
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xengnttab_handle {
        (self.xengnttab_open)(logger, open_flags)
    }
    pub unsafe fn xengnttab_close(&self, xgt: *mut xengnttab_handle) -> ::std::os::raw::c_int {
        (self.xengnttab_close)(xgt)
    }
    pub unsafe fn xengnttab_map_domain_grant_refs(
        &self,
        xgt: *mut xengnttab_handle,
        count: u32,
        domid: u32,
        refs: *mut u32,
        prot: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void {
        (self.xengnttab_map_domain_grant_refs)(xgt, count, domid, refs, prot)
    }
    pub unsafe fn xengnttab_unmap(
        &self,
        xgt: *mut xengnttab_handle,
        start_address: *mut ::std::os::raw::c_void,
        count: u32,
    ) -> ::std::os::raw::c_int {
        (self.xengnttab_unmap)(xgt, start_address, count)
    }
}
