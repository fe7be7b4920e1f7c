// Made by regenerate.sh: do not edit.

pub const XENMEM_resource_ioreq_server: u32 = 0;
pub const XENMEM_resource_grant_table: u32 = 1;
pub const XENMEM_resource_vmtrace_buf: u32 = 2;
pub const XENMEM_resource_grant_table_id_shared: u32 = 0;
pub const XENMEM_resource_grant_table_id_status: u32 = 1;
pub const XENMEM_resource_ioreq_server_frame_bufioreq: u32 = 0;
pub type xen_pfn_t = ::std::os::raw::c_ulong;
pub type domid_t = u16;
#[repr(C)]
#[derive(Debug)]
pub struct xenforeignmemory_handle {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct xenforeignmemory_resource_handle {
    _unused: [u8; 0],
}
pub struct XenForeignMemory {
    __library: ::libloading::Library,
    pub xenforeignmemory_open: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xenforeignmemory_handle,
    pub xenforeignmemory_close: unsafe extern "C" fn(fmem: *mut xenforeignmemory_handle) -> ::std::os::raw::c_int,
    pub xenforeignmemory_map: unsafe extern "C" fn(
        fmem: *mut xenforeignmemory_handle,
        dom: u32,
        prot: ::std::os::raw::c_int,
        pages: usize,
        arr: *const xen_pfn_t,
        err: *mut ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void,
    pub xenforeignmemory_unmap: unsafe extern "C" fn(
        fmem: *mut xenforeignmemory_handle,
        addr: *mut ::std::os::raw::c_void,
        pages: usize,
    ) -> ::std::os::raw::c_int,
    pub xenforeignmemory_map_resource: unsafe extern "C" fn(
        fmem: *mut xenforeignmemory_handle,
        domid: domid_t,
        type_: ::std::os::raw::c_uint,
        id: ::std::os::raw::c_uint,
        frame: ::std::os::raw::c_ulong,
        nr_frames: ::std::os::raw::c_ulong,
        paddr: *mut *mut ::std::os::raw::c_void,
        prot: ::std::os::raw::c_int,
        flags: ::std::os::raw::c_int,
    ) -> *mut xenforeignmemory_resource_handle,
    pub xenforeignmemory_unmap_resource: unsafe extern "C" fn(
        fmem: *mut xenforeignmemory_handle,
        fres: *mut xenforeignmemory_resource_handle,
    ) -> ::std::os::raw::c_int,
}
impl XenForeignMemory {
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
        let xenforeignmemory_open = __library.get(b"xenforeignmemory_open\0").map(|sym| *sym)?;
        let xenforeignmemory_close = __library.get(b"xenforeignmemory_close\0").map(|sym| *sym)?;
        let xenforeignmemory_map = __library.get(b"xenforeignmemory_map\0").map(|sym| *sym)?;
        let xenforeignmemory_unmap = __library.get(b"xenforeignmemory_unmap\0").map(|sym| *sym)?;
        let xenforeignmemory_map_resource = __library.get(b"xenforeignmemory_map_resource\0").map(|sym| *sym)?;
        let xenforeignmemory_unmap_resource = __library.get(b"xenforeignmemory_unmap_resource\0").map(|sym| *sym)?;
        Ok(XenForeignMemory {
            __library,
            xenforeignmemory_open,
            xenforeignmemory_close,
            xenforeignmemory_map,
            xenforeignmemory_unmap,
            xenforeignmemory_map_resource,
            xenforeignmemory_unmap_resource,
        })
    }
    pub unsafe fn xenforeignmemory_open(
        &self,
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xenforeignmemory_handle {
        (self.xenforeignmemory_open)(logger, open_flags)
    }
    pub unsafe fn xenforeignmemory_close(&self, fmem: *mut xenforeignmemory_handle) -> ::std::os::raw::c_int {
        (self.xenforeignmemory_close)(fmem)
    }
    pub unsafe fn xenforeignmemory_map(
        &self,
        fmem: *mut xenforeignmemory_handle,
        dom: u32,
        prot: ::std::os::raw::c_int,
        pages: usize,
        arr: *const xen_pfn_t,
        err: *mut ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void {
        (self.xenforeignmemory_map)(fmem, dom, prot, pages, arr, err)
    }
    pub unsafe fn xenforeignmemory_unmap(
        &self,
        fmem: *mut xenforeignmemory_handle,
        addr: *mut ::std::os::raw::c_void,
        pages: usize,
    ) -> ::std::os::raw::c_int {
        (self.xenforeignmemory_unmap)(fmem, addr, pages)
    }
    pub unsafe fn xenforeignmemory_map_resource(
        &self,
        fmem: *mut xenforeignmemory_handle,
        domid: domid_t,
        type_: ::std::os::raw::c_uint,
        id: ::std::os::raw::c_uint,
        frame: ::std::os::raw::c_ulong,
        nr_frames: ::std::os::raw::c_ulong,
        paddr: *mut *mut ::std::os::raw::c_void,
        prot: ::std::os::raw::c_int,
        flags: ::std::os::raw::c_int,
    ) -> *mut xenforeignmemory_resource_handle {
        (self.xenforeignmemory_map_resource)(fmem, domid, type_, id, frame, nr_frames, paddr, prot, flags)
    }
    pub unsafe fn xenforeignmemory_unmap_resource(
        &self,
        fmem: *mut xenforeignmemory_handle,
        fres: *mut xenforeignmemory_resource_handle,
    ) -> ::std::os::raw::c_int {
        (self.xenforeignmemory_unmap_resource)(fmem, fres)
    }
}
