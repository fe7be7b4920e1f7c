//! A PVH guest put back to where it is after a migration: event channels and grants of a new domain, the memory that it has. It takes
//! its way through its resume path, with return code 0, and connects its devices anew.

use crate::domain::DomainError;
use crate::ids::{DomId, Pfn};
use crate::xen::domain::XenDomain;
use crate::xen::frontends::Frontends;
use crate::xen::tables::GrantFrames;
use std::time::Instant;
use xen_sys::ctrl;

/// Who serves a guest's store and console.
const DOM0: DomId = DomId(0);

/// What a reset needs to know.
pub(super) struct Reset<'a> {
    pub(super) store: Pfn,
    pub(super) console: Pfn,
    /// Another's vCPUs, if the guest is to become that; else it goes on as itself.
    pub(super) context: Option<&'a [u8]>,
}

/// Resets a suspended guest whose devices are disconnected, and leaves it paused, ready to go on.
pub(super) fn reset(
    domain: &mut XenDomain,
    frontends: &mut Frontends,
    how: Reset<'_>,
    deadline: Instant,
) -> Result<(), DomainError> {
    let domid = domain.domid();
    let Reset { store: store_pfn, console: console_pfn, context } = how;
    {
        // The reset resumes it.
        let (control, ..) = domain.handles();
        control.pause(domid)?;
        control.soft_reset(domid)?;
    }
    // The page that it shared with the hypervisor is one of its own until it asks for it again.
    domain.forget_memory()?;
    let (control, foreign, store) = domain.handles();
    let store_port = control.evtchn_alloc_unbound(domid, DOM0)?;
    let console_port = control.evtchn_alloc_unbound(domid, DOM0)?;
    // The entries of those who have never let go, xenstored and the console, stay; their grants are a new guest's, too.
    GrantFrames::new(domid).clear_unused(control, foreign)?;
    control.set_hvm_param(domid, ctrl::HVM_PARAM_STORE_EVTCHN, store_port.0.into())?;
    control.set_hvm_param(domid, ctrl::HVM_PARAM_CONSOLE_EVTCHN, console_port.0.into())?;
    if let Some(context) = context {
        control.set_hvm_context(domid, context)?;
    }
    control.clear_pages(domid, console_pfn.0, 1)?;
    control.clear_pages(domid, store_pfn.0, 1)?;
    let home = store.domain_path(domid)?;
    // To write the same number is enough: the console's daemon looks at its port then.
    store.write(&format!("{home}/console/port"), console_port.0.to_string().as_bytes())?;
    store.write(&format!("{home}/store/port"), store_port.0.to_string().as_bytes())?;
    frontends.start_over(deadline)?;
    let (.., store) = domain.handles();
    store.introduce_domain(domid, store_pfn.0, store_port)?;
    Ok(store.resume_domain(domid)?)
}
