//! Pause, shut down, resume, destroy.

use super::{Control, ShutdownReason, check};
use crate::ids::DomId;
use crate::xen::XenError;
use xen_sys::ctrl;

/// Calls that take a domain and nothing else.
macro_rules! simple {
    ($($(#[$doc:meta])* $name:ident => $call:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self, domid: DomId) -> Result<(), XenError> {
            // SAFETY: the handle is open.
            let result = unsafe { self.xen.ctrl.$call(self.handle(), domid.0) };
            check(stringify!($call), domid, result).map(drop)
        }
    )*};
}

impl Control {
    simple! {
        /// Stops the domain's vCPUs (`xc_domain_pause`). Pauses are counted; while one is left none of them runs.
        ///
        /// # Errors
        /// `ESRCH`: no such domain.
        ///
        /// ```no_run
        /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
        /// # let control = Control::open(Xen::open()?)?;
        /// control.pause(DomId(3))?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        pause => xc_domain_pause;

        /// Takes a pause back (`xc_domain_unpause`).
        ///
        /// # Errors
        /// `ESRCH`: no such domain. `EINVAL`: it is not paused.
        ///
        /// ```no_run
        /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
        /// # let control = Control::open(Xen::open()?)?;
        /// control.unpause(DomId(3))?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        unpause => xc_domain_unpause;

        /// Ends the domain at once and frees its memory (`xc_domain_destroy`). It stays, without a vCPU, as long as somebody maps a
        /// page of it.
        ///
        /// # Errors
        /// `ESRCH`: no such domain.
        ///
        /// ```no_run
        /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
        /// # let control = Control::open(Xen::open()?)?;
        /// control.destroy(DomId(3))?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        destroy => xc_domain_destroy;

        /// Puts event channels and grant table of a suspended HVM or PVH domain back to how they are in a new domain, and resumes it
        /// (`xc_domain_soft_reset`). A PV domain is crashed instead, as far as the hypervisor is concerned.
        ///
        /// # Errors
        /// `ESRCH`: no such domain. `EINVAL`: it is not in a state for it, or is PV.
        ///
        /// ```no_run
        /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
        /// # let control = Control::open(Xen::open()?)?;
        /// control.soft_reset(DomId(3))?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        soft_reset => xc_domain_soft_reset;
    }

    /// Makes the domain stop as if it had asked for it (`xc_domain_shutdown`). Returns before it has: [`DomainInfo::shutdown`]
    /// tells when. With [`ShutdownReason::SUSPEND`] this is the suspension that needs no help of the guest.
    ///
    /// [`DomainInfo::shutdown`]: super::DomainInfo::shutdown
    ///
    /// # Errors
    /// `ESRCH`: no such domain.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen, control::ShutdownReason}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.shutdown(DomId(3), ShutdownReason::SUSPEND)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(&self, domid: DomId, reason: ShutdownReason) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.ctrl.xc_domain_shutdown(self.handle(), domid.0, reason.0.into()) };
        check("xc_domain_shutdown", domid, result).map(drop)
    }

    /// Lets a suspended domain go on (`xc_domain_resume`).
    ///
    /// * `fast`: the guest's call to suspend returns 1, "cancelled", and nothing else changes. For a guest that suspended itself; after
    ///   a forced suspension it would change a register under the guest's feet.
    /// * else: the call returns 0, "you are somewhere else now", and the guest connects its devices anew. For PV domains this also resets
    ///   all vCPUs but the first: set their contexts again before unpausing. For HVM and PVH domains it is
    ///   [`Control::resume_as_it_is`].
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: it is not suspended.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.resume(DomId(3), true)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&self, domid: DomId, fast: bool) -> Result<(), XenError> {
        // SAFETY: the handle is open.
        let result = unsafe { self.xen.guest.xc_domain_resume(self.handle(), domid.0, fast.into()) };
        match result {
            0 => Ok(()),
            // Parts of it report failures by a positive number.
            _ => Err(XenError::last("xc_domain_resume", domid)),
        }
    }

    /// Lets a domain that has shut down go on, with nothing changed in it (`XEN_DOMCTL_resumedomain`).
    ///
    /// # Errors
    /// `ESRCH`: no such domain. `EINVAL`: it has not shut down.
    ///
    /// ```no_run
    /// # use colo_core::{ids::DomId, xen::{Control, Xen}};
    /// # let control = Control::open(Xen::open()?)?;
    /// control.resume_as_it_is(DomId(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume_as_it_is(&self, domid: DomId) -> Result<(), XenError> {
        // SAFETY: this domctl takes no arguments.
        unsafe { self.domctl("XEN_DOMCTL_resumedomain", ctrl::XEN_DOMCTL_resumedomain, domid, ()) }
    }
}
