// Made by regenerate.sh: do not edit.

pub type xen_pfn_t = ::std::os::raw::c_ulong;
pub type domid_t = u16;
pub type evtchn_port_t = u32;
pub type ioservid_t = u16;
#[repr(C)]
#[derive(Debug)]
pub struct xendevicemodel_handle {
    _unused: [u8; 0],
}
pub struct XenDeviceModel {
    __library: ::libloading::Library,
    pub xendevicemodel_open: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xendevicemodel_handle,
    pub xendevicemodel_close: unsafe extern "C" fn(dmod: *mut xendevicemodel_handle) -> ::std::os::raw::c_int,
    pub xendevicemodel_get_ioreq_server_info: unsafe extern "C" fn(
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        id: ioservid_t,
        ioreq_gfn: *mut xen_pfn_t,
        bufioreq_gfn: *mut xen_pfn_t,
        bufioreq_port: *mut evtchn_port_t,
    ) -> ::std::os::raw::c_int,
    pub xendevicemodel_set_ioreq_server_state: unsafe extern "C" fn(
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        id: ioservid_t,
        enabled: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int,
    pub xendevicemodel_inject_msi: unsafe extern "C" fn(
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        msi_addr: u64,
        msi_data: u32,
    ) -> ::std::os::raw::c_int,
    pub xendevicemodel_modified_memory: unsafe extern "C" fn(
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        first_pfn: u64,
        nr: u32,
    ) -> ::std::os::raw::c_int,
    pub xendevicemodel_shutdown: unsafe extern "C" fn(
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        reason: ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int,
    pub xendevicemodel_nr_vcpus: unsafe extern "C" fn(
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        vcpus: *mut ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int,
}
impl XenDeviceModel {
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
        let xendevicemodel_open = __library.get(b"xendevicemodel_open\0").map(|sym| *sym)?;
        let xendevicemodel_close = __library.get(b"xendevicemodel_close\0").map(|sym| *sym)?;
        let xendevicemodel_get_ioreq_server_info =
            __library.get(b"xendevicemodel_get_ioreq_server_info\0").map(|sym| *sym)?;
        let xendevicemodel_set_ioreq_server_state =
            __library.get(b"xendevicemodel_set_ioreq_server_state\0").map(|sym| *sym)?;
        let xendevicemodel_inject_msi = __library.get(b"xendevicemodel_inject_msi\0").map(|sym| *sym)?;
        let xendevicemodel_modified_memory = __library.get(b"xendevicemodel_modified_memory\0").map(|sym| *sym)?;
        let xendevicemodel_shutdown = __library.get(b"xendevicemodel_shutdown\0").map(|sym| *sym)?;
        let xendevicemodel_nr_vcpus = __library.get(b"xendevicemodel_nr_vcpus\0").map(|sym| *sym)?;
        Ok(XenDeviceModel {
            __library,
            xendevicemodel_open,
            xendevicemodel_close,
            xendevicemodel_get_ioreq_server_info,
            xendevicemodel_set_ioreq_server_state,
            xendevicemodel_inject_msi,
            xendevicemodel_modified_memory,
            xendevicemodel_shutdown,
            xendevicemodel_nr_vcpus,
        })
    }
    pub unsafe fn xendevicemodel_open(
        &self,
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xendevicemodel_handle {
        (self.xendevicemodel_open)(logger, open_flags)
    }
    pub unsafe fn xendevicemodel_close(&self, dmod: *mut xendevicemodel_handle) -> ::std::os::raw::c_int {
        (self.xendevicemodel_close)(dmod)
    }
    pub unsafe fn xendevicemodel_get_ioreq_server_info(
        &self,
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        id: ioservid_t,
        ioreq_gfn: *mut xen_pfn_t,
        bufioreq_gfn: *mut xen_pfn_t,
        bufioreq_port: *mut evtchn_port_t,
    ) -> ::std::os::raw::c_int {
        (self.xendevicemodel_get_ioreq_server_info)(dmod, domid, id, ioreq_gfn, bufioreq_gfn, bufioreq_port)
    }
    pub unsafe fn xendevicemodel_set_ioreq_server_state(
        &self,
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        id: ioservid_t,
        enabled: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        (self.xendevicemodel_set_ioreq_server_state)(dmod, domid, id, enabled)
    }
    pub unsafe fn xendevicemodel_inject_msi(
        &self,
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        msi_addr: u64,
        msi_data: u32,
    ) -> ::std::os::raw::c_int {
        (self.xendevicemodel_inject_msi)(dmod, domid, msi_addr, msi_data)
    }
    pub unsafe fn xendevicemodel_modified_memory(
        &self,
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        first_pfn: u64,
        nr: u32,
    ) -> ::std::os::raw::c_int {
        (self.xendevicemodel_modified_memory)(dmod, domid, first_pfn, nr)
    }
    pub unsafe fn xendevicemodel_shutdown(
        &self,
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        reason: ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int {
        (self.xendevicemodel_shutdown)(dmod, domid, reason)
    }
    pub unsafe fn xendevicemodel_nr_vcpus(
        &self,
        dmod: *mut xendevicemodel_handle,
        domid: domid_t,
        vcpus: *mut ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int {
        (self.xendevicemodel_nr_vcpus)(dmod, domid, vcpus)
    }
}
