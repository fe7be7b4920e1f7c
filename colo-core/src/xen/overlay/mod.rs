//! The secondary's domain: given the primary's state again and again, while it stays the domain that the toolstack has made.
//!
//! ```text
//! Twin (what the engine drives)      Overlay (how, for this type of guest)
//!   suspend                            stop      the guest stands still, by force; its devices let go of its memory
//!   take_dirty                         unlogged  pages that the hypervisor's log does not know
//!   write_pages                                  into the mapped memory
//!   load_state                         load      what is not memory: registers, event channels, grants, devices
//!   resume                             go
//! ```
//!
//! What travels beside memory and registers for that is made by [`twin_state`], on the primary, while its guest stands still.

mod emulated;
mod prepare;
mod pv;
mod pvh;
mod records;
mod reset;
mod steps;
mod twin;

pub use emulated::is_without_pv_drivers;
pub(super) use prepare::become_like;
pub use prepare::wait_connected;
pub use twin::Twin;

use super::GuestType;
use super::domain::XenDomain;
use super::frontends::Frontends;
use super::tables::{GrantFrames, is_any_in_use};
use crate::domain::{Control as _, DirtyBitmap, DomainError, StateRecord};
use crate::layers::Timings;
use std::time::{Duration, Instant};

/// How often it is looked whether a disk's backend has let go: only the guest would be told.
const LET_GO_LOOK: Duration = Duration::from_micros(500);

/// How a running domain is given another's state. Called in the order in which they stand here, for each checkpoint; after an error the
/// domain is of no use any more.
pub trait Overlay: Send {
    /// Checks that [`Overlay::load`] would take these records, while the guest runs, and changes nothing.
    ///
    /// # Errors
    /// [`DomainError::BadState`], with the reason.
    fn check(&self, domain: &XenDomain, state: &[StateRecord]) -> Result<(), DomainError> {
        let _ = (domain, state);
        Ok(())
    }

    /// Stops the guest by force, since what it is doing is thrown away. On return nothing touches its memory.
    ///
    /// # Errors
    /// When the hypervisor or a backend does not do what it is told.
    fn stop(&mut self, domain: &mut XenDomain) -> Result<(), DomainError>;

    /// Adds pages that may have been written since the last time without the hypervisor's log knowing it.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    fn unlogged(&mut self, domain: &mut XenDomain, into: &mut DirtyBitmap) -> Result<(), DomainError>;

    /// The guest's memory is the primary's: gives it the rest of the primary's state.
    ///
    /// # Errors
    /// [`DomainError::BadState`] when the records do not fit; else as for [`Overlay::stop`].
    fn load(&mut self, domain: &mut XenDomain, state: &[StateRecord]) -> Result<(), DomainError>;

    /// Lets the guest go on.
    ///
    /// # Errors
    /// As for [`Overlay::stop`].
    fn go(&mut self, domain: &mut XenDomain) -> Result<(), DomainError>;

    /// What has been done so far.
    fn stats(&self) -> OverlayStats {
        OverlayStats::default()
    }

    /// How long each step took.
    fn timings(&self) -> Timings {
        Timings::default()
    }
}

/// How checkpoints were loaded.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OverlayStats {
    /// So that the guest did not notice.
    pub transparent: u64,
    /// So that the guest connected its devices anew.
    pub resets: u64,
    /// Why, the last time.
    pub last_reset: Option<String>,
}

/// The way that fits this guest.
///
/// # Errors
/// When there is none.
pub fn overlay_for(domain: &XenDomain) -> Result<Box<dyn Overlay>, DomainError> {
    match domain.guest_type() {
        GuestType::Pvh => Ok(Box::new(pvh::PvhOverlay::new(domain)?)),
        GuestType::Hvm if is_without_pv_drivers(domain)? => Ok(Box::new(emulated::Emulated::open(domain)?)),
        GuestType::Hvm => Err(DomainError::Other(format!(
            "{} can have Remus only: for COLO an HVM guest must not use Xen's event channels (Linux: `xen_nopv` on its command line)",
            domain.spec().name
        ))),
        GuestType::Pv => Ok(Box::new(pv::PvOverlay::new(domain)?)),
    }
}

/// What an [`Overlay`] on the other host needs of the primary's suspended domain, beside its memory and what [`State::save_state`]
/// gives: records of our own that hold a domain's state.
///
/// [`State::save_state`]: crate::domain::State::save_state
///
/// # Errors
/// When the hypervisor or xenstore refuses.
pub fn twin_state(domain: &mut XenDomain) -> Result<Vec<StateRecord>, DomainError> {
    match domain.guest_type() {
        GuestType::Pvh => domain.twin_records(),
        GuestType::Hvm => match domain.take_emulator_state() {
            Some(state) => state.to_records().map_err(|error| DomainError::BadState(error.fault.to_string())),
            None => Ok(Vec::new()),
        },
        GuestType::Pv => Ok(Vec::new()),
    }
}

/// Of a guest whose devices are disconnected: waits until none of its pages is mapped. A disk's backend says that it has let go when it was
/// told to, and what is under way still writes to the guest's pages, and to its disk.
fn wait_let_go(
    frontends: &Frontends,
    grants: &mut GrantFrames,
    domain: &XenDomain,
    deadline: Instant,
) -> Result<(), DomainError> {
    if !frontends.has_disk() {
        return Ok(());
    }
    let (control, foreign, _) = domain.handles();
    while is_any_in_use(&grants.read(control, foreign)?) {
        if Instant::now() >= deadline {
            return Err(DomainError::Other(format!("a disk of {} does not let go of it", domain.domid())));
        }
        frontends.close_disks_again()?;
        std::thread::sleep(LET_GO_LOOK);
    }
    Ok(())
}
