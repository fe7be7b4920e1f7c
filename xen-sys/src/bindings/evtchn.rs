// Made by regenerate.sh: do not edit.

pub type evtchn_port_t = u32;
pub type xenevtchn_port_or_error_t = ::std::os::raw::c_int;
#[repr(C)]
#[derive(Debug)]
pub struct xenevtchn_handle {
    _unused: [u8; 0],
}
pub struct XenEvtchn {
    __library: ::libloading::Library,
    pub xenevtchn_open:
        unsafe extern "C" fn(logger: *mut xentoollog_logger, flags: ::std::os::raw::c_uint) -> *mut xenevtchn_handle,
    pub xenevtchn_close: unsafe extern "C" fn(xce: *mut xenevtchn_handle) -> ::std::os::raw::c_int,
    pub xenevtchn_fd: unsafe extern "C" fn(xce: *mut xenevtchn_handle) -> ::std::os::raw::c_int,
    pub xenevtchn_notify:
        unsafe extern "C" fn(xce: *mut xenevtchn_handle, port: evtchn_port_t) -> ::std::os::raw::c_int,
    pub xenevtchn_bind_unbound_port:
        unsafe extern "C" fn(xce: *mut xenevtchn_handle, domid: u32) -> xenevtchn_port_or_error_t,
    pub xenevtchn_bind_interdomain: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
        domid: u32,
        remote_port: evtchn_port_t,
    ) -> xenevtchn_port_or_error_t,
    pub xenevtchn_bind_virq:
        unsafe extern "C" fn(xce: *mut xenevtchn_handle, virq: ::std::os::raw::c_uint) -> xenevtchn_port_or_error_t,
    pub xenevtchn_unbind:
        unsafe extern "C" fn(xce: *mut xenevtchn_handle, port: evtchn_port_t) -> ::std::os::raw::c_int,
    pub xenevtchn_pending: unsafe extern "C" fn(xce: *mut xenevtchn_handle) -> xenevtchn_port_or_error_t,
    pub xenevtchn_unmask:
        unsafe extern "C" fn(xce: *mut xenevtchn_handle, port: evtchn_port_t) -> ::std::os::raw::c_int,
}
impl XenEvtchn {
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
        let xenevtchn_open = __library.get(b"xenevtchn_open\0").map(|sym| *sym)?;
        let xenevtchn_close = __library.get(b"xenevtchn_close\0").map(|sym| *sym)?;
        let xenevtchn_fd = __library.get(b"xenevtchn_fd\0").map(|sym| *sym)?;
        let xenevtchn_notify = __library.get(b"xenevtchn_notify\0").map(|sym| *sym)?;
        let xenevtchn_bind_unbound_port = __library.get(b"xenevtchn_bind_unbound_port\0").map(|sym| *sym)?;
        let xenevtchn_bind_interdomain = __library.get(b"xenevtchn_bind_interdomain\0").map(|sym| *sym)?;
        let xenevtchn_bind_virq = __library.get(b"xenevtchn_bind_virq\0").map(|sym| *sym)?;
        let xenevtchn_unbind = __library.get(b"xenevtchn_unbind\0").map(|sym| *sym)?;
        let xenevtchn_pending = __library.get(b"xenevtchn_pending\0").map(|sym| *sym)?;
        let xenevtchn_unmask = __library.get(b"xenevtchn_unmask\0").map(|sym| *sym)?;
        Ok(XenEvtchn {
            __library,
            xenevtchn_open,
            xenevtchn_close,
            xenevtchn_fd,
            xenevtchn_notify,
            xenevtchn_bind_unbound_port,
            xenevtchn_bind_interdomain,
            xenevtchn_bind_virq,
            xenevtchn_unbind,
            xenevtchn_pending,
            xenevtchn_unmask,
        })
    }
    pub unsafe fn xenevtchn_open(
        &self,
        logger: *mut xentoollog_logger,
        flags: ::std::os::raw::c_uint,
    ) -> *mut xenevtchn_handle {
        (self.xenevtchn_open)(logger, flags)
    }
    pub unsafe fn xenevtchn_close(&self, xce: *mut xenevtchn_handle) -> ::std::os::raw::c_int {
        (self.xenevtchn_close)(xce)
    }
    pub unsafe fn xenevtchn_fd(&self, xce: *mut xenevtchn_handle) -> ::std::os::raw::c_int {
        (self.xenevtchn_fd)(xce)
    }
    pub unsafe fn xenevtchn_notify(&self, xce: *mut xenevtchn_handle, port: evtchn_port_t) -> ::std::os::raw::c_int {
        (self.xenevtchn_notify)(xce, port)
    }
    pub unsafe fn xenevtchn_bind_unbound_port(
        &self,
        xce: *mut xenevtchn_handle,
        domid: u32,
    ) -> xenevtchn_port_or_error_t {
        (self.xenevtchn_bind_unbound_port)(xce, domid)
    }
    pub unsafe fn xenevtchn_bind_interdomain(
        &self,
        xce: *mut xenevtchn_handle,
        domid: u32,
        remote_port: evtchn_port_t,
    ) -> xenevtchn_port_or_error_t {
        (self.xenevtchn_bind_interdomain)(xce, domid, remote_port)
    }
    pub unsafe fn xenevtchn_bind_virq(
        &self,
        xce: *mut xenevtchn_handle,
        virq: ::std::os::raw::c_uint,
    ) -> xenevtchn_port_or_error_t {
        (self.xenevtchn_bind_virq)(xce, virq)
    }
    pub unsafe fn xenevtchn_unbind(&self, xce: *mut xenevtchn_handle, port: evtchn_port_t) -> ::std::os::raw::c_int {
        (self.xenevtchn_unbind)(xce, port)
    }
    pub unsafe fn xenevtchn_pending(&self, xce: *mut xenevtchn_handle) -> xenevtchn_port_or_error_t {
        (self.xenevtchn_pending)(xce)
    }
    pub unsafe fn xenevtchn_unmask(&self, xce: *mut xenevtchn_handle, port: evtchn_port_t) -> ::std::os::raw::c_int {
        (self.xenevtchn_unmask)(xce, port)
    }
}
