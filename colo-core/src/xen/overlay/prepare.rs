use super::is_without_pv_drivers;
use super::reset::{Reset, reset};
use crate::domain::{Control as _, DomainError};
use crate::ids::Pfn;
use crate::stream::TwinPorts;
use crate::xen::domain::XenDomain;
use crate::xen::frontends::Frontends;
use crate::xen::tables::{first_difference, read_ports};
use std::time::Instant;
use xen_sys::ctrl;

/// Waits until a domain that has just been restored has connected its devices: before that it is no twin. The toolstack prepares PV
/// devices for an HVM guest without PV drivers, too; they are not waited for.
///
/// # Errors
/// When it does not before the deadline.
pub fn wait_connected(domain: &XenDomain, deadline: Instant) -> Result<(), DomainError> {
    if is_without_pv_drivers(domain)? {
        return Ok(());
    }
    Frontends::open(domain.xen(), domain.domid())?.wait_connected(deadline)
}

/// Makes the event channels of a primary that runs what its twin's are, by sending it once through its resume path, where they differ;
/// tells the difference then. Its twin has gone through that, as every restored guest has. The guest's devices connect anew, which takes
/// half a second; it is waited for.
///
/// # Errors
/// When the guest does not suspend itself, or something does not happen before the deadline. The guest may be in any state then.
pub fn prepare_primary(
    domain: &mut XenDomain,
    twin: &TwinPorts,
    deadline: Instant,
) -> Result<Option<String>, DomainError> {
    if is_without_pv_drivers(domain)? {
        return Ok(None);
    }
    let domid = domain.domid();
    let (control, ..) = domain.handles();
    let Some(difference) = first_difference(&read_ports(control, domid)?, twin, false) else {
        return Ok(None);
    };
    let params = [ctrl::HVM_PARAM_STORE_PFN, ctrl::HVM_PARAM_CONSOLE_PFN];
    let [store, console] = params.map(|param| control.hvm_param(domid, param).map(Pfn));
    let rings = Reset { store: store?, console: console?, context: None };
    let mut frontends = Frontends::open(domain.xen(), domid)?;
    domain.suspend()?;
    frontends.disconnect(deadline)?;
    reset(domain, &mut frontends, rings, deadline)?;
    let (control, ..) = domain.handles();
    control.unpause(domid)?;
    domain.has_gone_on();
    frontends.wait_connected(deadline)?;
    Ok(Some(difference))
}
