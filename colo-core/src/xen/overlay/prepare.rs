use super::is_without_pv_drivers;
use super::reset::{Reset, reset};
use crate::domain::{Control as _, DomainError};
use crate::ids::Pfn;
use crate::stream::TwinPorts;
use crate::xen::GuestType;
use crate::xen::domain::XenDomain;
use crate::xen::frontends::Frontends;
use crate::xen::tables::{first_difference, read_ports};
use std::time::{Duration, Instant};
use xen_sys::ctrl;

/// How long a guest may take to suspend itself and to connect its devices anew.
const ANEW_LIMIT: Duration = Duration::from_secs(20);

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

/// What a primary of this type of guest must be like, for this domain to be given its state without the guest's noticing.
pub(super) fn likeness(domain: &XenDomain) -> Result<Vec<u8>, DomainError> {
    if domain.guest_type() != GuestType::Pvh {
        return Ok(Vec::new());
    }
    let (control, ..) = domain.handles();
    let ports = read_ports(control, domain.domid())?;
    ports.to_record().map(|record| record.body).map_err(|error| DomainError::BadState(error.to_string()))
}

/// Makes the event channels of a primary that runs what its twin's are, by sending it once through its resume path, where they differ.
/// Its twin has gone through that, as every restored guest has. The guest's devices connect anew, which takes half a second; it is
/// waited for.
pub(in crate::xen) fn become_like(domain: &mut XenDomain, likeness: &[u8]) -> Result<Option<String>, DomainError> {
    let twin = TwinPorts::parse(likeness).map_err(|error| DomainError::BadState(error.to_string()))?;
    if domain.guest_type() != GuestType::Pvh {
        return Ok(None);
    }
    let (domid, deadline) = (domain.domid(), Instant::now() + ANEW_LIMIT);
    let (control, ..) = domain.handles();
    let Some(difference) = first_difference(&read_ports(control, domid)?, &twin, false) else {
        return Ok(None);
    };
    let params = [ctrl::HVM_PARAM_STORE_PFN, ctrl::HVM_PARAM_CONSOLE_PFN];
    let [store, console] = params.map(|param| control.hvm_param(domid, param).map(Pfn));
    let rings = Reset { store: store?, console: console?, context: None };
    let mut frontends = Frontends::open(domain.xen(), domid)?;
    frontends.check_known()?;
    domain.suspend()?;
    let published = frontends.published()?;
    if let Err(error) = frontends.disconnect(deadline) {
        // The guest knows nothing of it yet.
        frontends.connect(&published, Instant::now() + ANEW_LIMIT)?;
        return Err(error);
    }
    let anew = reset(domain, &mut frontends, rings, deadline);
    domain.forget_tables();
    let (control, ..) = domain.handles();
    // Also one that is not whole: paused nobody would look after it.
    control.unpause(domid)?;
    anew?;
    domain.has_gone_on();
    frontends.wait_connected(deadline)?;
    Ok(Some(difference))
}
