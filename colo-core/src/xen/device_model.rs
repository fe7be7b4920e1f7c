//! `libxendevicemodel`: what a device model may do with its domain.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::{Xen, device_model::DeviceModel};
//!
//! let model = DeviceModel::open(Xen::open()?)?;
//! // Vector 0xf3 to the local APIC 0: wakes a halted vCPU.
//! model.inject_msi(DomId(3), 0xfee0_0000, 0xf3)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::error::domid_16;
use super::evtchn::EventPort;
use super::{ShutdownReason, Xen, XenError, log};
use crate::ids::DomId;
use std::cell::Cell;
use std::marker::PhantomData;
use std::os::raw::c_int;
use std::ptr::{NonNull, null_mut};
use xen_sys::devicemodel as c;

/// A handle of `libxendevicemodel`. It may move between threads.
pub struct DeviceModel {
    xen: &'static xen_sys::Xen,
    handle: NonNull<c::xendevicemodel_handle>,
    /// One thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the library keeps nothing that belongs to the thread that opened the handle.
unsafe impl Send for DeviceModel {}

impl DeviceModel {
    /// Opens the device. Needs to be root in dom0.
    ///
    /// # Errors
    /// `xendevicemodel_open`: `ENOENT` or `EACCES` where this is no dom0, or not root.
    ///
    /// ```no_run
    /// # use colo_core::xen::{Xen, device_model::DeviceModel};
    /// let model = DeviceModel::open(Xen::open()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(xen: Xen) -> Result<DeviceModel, XenError> {
        // SAFETY: the logger lives as long as the process.
        let handle = NonNull::new(unsafe { xen.0.devicemodel.xendevicemodel_open(log::logger(), 0) });
        let handle = handle.ok_or_else(|| XenError::last("xendevicemodel_open", None))?;
        Ok(DeviceModel { xen: xen.0, handle, not_sync: PhantomData })
    }

    /// Sends an interrupt as a device would, by writing `data` to `address` (`xendevicemodel_inject_msi`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: no HVM or PVH domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, device_model::DeviceModel}};
    /// # let model = DeviceModel::open(Xen::open()?)?;
    /// model.inject_msi(DomId(3), 0xfee0_0000, 0xf3)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn inject_msi(&self, domid: DomId, address: u64, data: u32) -> Result<(), XenError> {
        let call = "xendevicemodel_inject_msi";
        let domain = domid_16(call, domid)?;
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.devicemodel.xendevicemodel_inject_msi(self.handle(), domain, address, data) };
        done(call, domid, result)
    }

    /// The port on which a device model is told of buffered requests, or none when there is no such server
    /// (`xendevicemodel_get_ioreq_server_info`). Numbers of servers go from 0 to 7.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: no HVM or PVH domain. `EPERM`: the device model runs in another domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, device_model::DeviceModel}};
    /// # let model = DeviceModel::open(Xen::open()?)?;
    /// let there = (0..8).filter(|id| matches!(model.ioreq_server(DomId(3), *id), Ok(Some(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ioreq_server(&self, domid: DomId, id: u16) -> Result<Option<EventPort>, XenError> {
        let call = "xendevicemodel_get_ioreq_server_info";
        let (domain, mut port) = (domid_16(call, domid)?, 0);
        // Asking for the frames of the requests would be refused: today's device models map them in another way.
        let (library, nothing) = (&self.xen.devicemodel, null_mut());
        // SAFETY: the handle is open, the number is ours, and what is null is not wanted.
        let result = unsafe {
            library.xendevicemodel_get_ioreq_server_info(self.handle(), domain, id, nothing, nothing, &raw mut port)
        };
        match done(call, domid, result) {
            Ok(()) => Ok(Some(EventPort(port))),
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the guest's accesses go to this server (`xendevicemodel_set_ioreq_server_state`). The guest must not have one in flight.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `ENOENT`: no such server. `EPERM`: it is another domain's.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, device_model::DeviceModel}};
    /// # let model = DeviceModel::open(Xen::open()?)?;
    /// model.set_ioreq_server_state(DomId(3), 1, false)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_ioreq_server_state(&self, domid: DomId, id: u16, enabled: bool) -> Result<(), XenError> {
        let call = "xendevicemodel_set_ioreq_server_state";
        let domain = domid_16(call, domid)?;
        let (library, enabled) = (&self.xen.devicemodel, enabled.into());
        // SAFETY: the handle is open.
        let result = unsafe { library.xendevicemodel_set_ioreq_server_state(self.handle(), domain, id, enabled) };
        done(call, domid, result)
    }

    /// Marks pages as written in the dirty log (`xendevicemodel_modified_memory`), for who writes to the guest's memory from outside.
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: pages beyond the end.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, device_model::DeviceModel}};
    /// # let model = DeviceModel::open(Xen::open()?)?;
    /// model.modified_memory(DomId(3), 0x100, 2)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn modified_memory(&self, domid: DomId, first_pfn: u64, pages: u32) -> Result<(), XenError> {
        let call = "xendevicemodel_modified_memory";
        let domain = domid_16(call, domid)?;
        let library = &self.xen.devicemodel;
        // SAFETY: the handle is open.
        let result = unsafe { library.xendevicemodel_modified_memory(self.handle(), domain, first_pfn, pages) };
        done(call, domid, result)
    }

    /// Makes the domain stop, for a reason (`xendevicemodel_shutdown`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{ShutdownReason, Xen, device_model::DeviceModel}};
    /// # let model = DeviceModel::open(Xen::open()?)?;
    /// model.shutdown(DomId(3), ShutdownReason::CRASH)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self, domid: DomId, reason: ShutdownReason) -> Result<(), XenError> {
        let call = "xendevicemodel_shutdown";
        let domain = domid_16(call, domid)?;
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.devicemodel.xendevicemodel_shutdown(self.handle(), domain, reason.0.into()) };
        done(call, domid, result)
    }

    /// How many vCPUs the domain may have (`xendevicemodel_nr_vcpus`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: no HVM or PVH domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Xen, device_model::DeviceModel}};
    /// # let model = DeviceModel::open(Xen::open()?)?;
    /// let vcpus = model.nr_vcpus(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn nr_vcpus(&self, domid: DomId) -> Result<u32, XenError> {
        let call = "xendevicemodel_nr_vcpus";
        let (domain, mut vcpus) = (domid_16(call, domid)?, 0);
        // SAFETY: the handle is open, and the number is ours.
        let result = unsafe { self.xen.devicemodel.xendevicemodel_nr_vcpus(self.handle(), domain, &raw mut vcpus) };
        done(call, domid, result)?;
        Ok(vcpus)
    }

    fn handle(&self) -> *mut c::xendevicemodel_handle {
        self.handle.as_ptr()
    }
}

impl Drop for DeviceModel {
    fn drop(&mut self) {
        // SAFETY: it is open, and is not used after.
        unsafe { self.xen.devicemodel.xendevicemodel_close(self.handle()) };
    }
}

fn done(call: &'static str, domid: DomId, result: c_int) -> Result<(), XenError> {
    if result < 0 { Err(XenError::last(call, domid)) } else { Ok(()) }
}
