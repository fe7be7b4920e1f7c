//! What a killed `colo`, whose guards were killed, too, has left of domains.
//!
//! A secondary that does not serve and that nobody holds is destroyed: it can never be of use. A primary's guest that is cut off is left
//! alone and told of: it may be the only one that there is. Network cards are [`crate::net::takeover::repair`]'s business.
//!
//! ```no_run
//! use colo_core::xen::Xen;
//! use colo_core::xen::cleanup::{clean_up, end};
//! use colo_core::xen::toolstack::Xl;
//!
//! for found in clean_up(Xen::open()?, &Xl::find()?)? {
//!     println!("{}: {:?}", found.name, found.state);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::domain::XenDomain;
use super::role::Role;
use super::save_lock::{SaveLock, SaveLockError};
use super::toolstack::{Xl, XlError};
use super::{Control, Xen, XenError, XenStore};
use crate::domain::DomainError;
use crate::ids::DomId;
use std::time::Duration;

/// A domain that has a [`Role`].
#[derive(Debug)]
pub struct Found {
    /// Its number.
    pub domid: DomId,
    /// Its name.
    pub name: String,
    /// What it is, or what became of it.
    pub state: FoundState,
}

/// See [`Found`].
#[derive(Debug)]
pub enum FoundState {
    /// Its process is there: left alone.
    InUse,
    /// A secondary that nobody held: it is gone.
    Destroyed,
    /// A primary's guest whose process is gone. Its cards are out of their bridges; it may be paused. The other host may serve it.
    CutOff,
    /// It could not be destroyed.
    Failed(XlError),
}

/// Why it was not even looked, or not done what was asked.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum CleanupError {
    /// Xen or xenstore refused.
    #[error(transparent)]
    Xen(#[from] XenError),
    /// The toolstack refused.
    #[error(transparent)]
    Xl(#[from] XlError),
    /// The domain cannot be let go on.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// Another is at the domain.
    #[error(transparent)]
    Lock(#[from] SaveLockError),
    /// The domain is none that was cut off.
    #[error("{0} is not cut off: no colo that protected it has died")]
    NotCutOff(String),
}

/// Looks for domains that are left, and destroys those that can be of no use.
///
/// # Errors
/// When Xen or xenstore refuses.
pub fn clean_up(xen: Xen, xl: &Xl) -> Result<Vec<Found>, CleanupError> {
    let store = XenStore::open(xen)?;
    let mut found = Vec::new();
    for info in Control::open(xen)?.domains()?.into_iter().filter(|info| !info.dying) {
        let domid = info.domid;
        if Role::of(&store, domid)?.is_none() {
            continue;
        }
        let name = store.read_text(&format!("/local/domain/{}/name", domid.0))?.unwrap_or_else(|| "(null)".into());
        let state = match SaveLock::take(domid, &name) {
            Err(SaveLockError::Busy { .. }) => FoundState::InUse,
            Err(error) => return Err(error.into()),
            // What it was before nobody else had it says nothing: it may have taken over since, and been left.
            Ok(_lock) => match Role::of(&store, domid)? {
                None => continue,
                Some(Role::Primary) => FoundState::CutOff,
                Some(Role::Secondary) => match xl.destroy(domid) {
                    Ok(()) => FoundState::Destroyed,
                    Err(error) => FoundState::Failed(error),
                },
            },
        };
        found.push(Found { domid, name, state });
    }
    Ok(found)
}

/// The other host serves this guest, which is cut off here: destroys it.
///
/// # Errors
/// [`CleanupError::NotCutOff`]; else when something refuses.
pub fn end(xen: Xen, xl: &Xl, domid: DomId, name: &str) -> Result<(), CleanupError> {
    let _lock = cut_off(&XenStore::open(xen)?, domid, name)?;
    Ok(xl.destroy(domid)?)
}

/// No other host serves this guest, which is cut off here: it runs on. Its cards are to be put back after that.
///
/// # Errors
/// As for [`end`].
pub fn keep(xen: Xen, domid: DomId, name: &str) -> Result<(), CleanupError> {
    let store = XenStore::open(xen)?;
    let _lock = cut_off(&store, domid, name)?;
    let control = Control::open(xen)?;
    if control.domain_info(domid)?.is_some_and(|info| info.paused) {
        control.unpause(domid)?;
    }
    XenDomain::open(xen, domid, SUSPEND_LIMIT)?.rescue(true)?;
    Ok(Role::write(None, &store, domid)?)
}

/// For a guest that was asked to suspend itself and has not done so yet.
const SUSPEND_LIMIT: Duration = Duration::from_secs(60);

fn cut_off(store: &XenStore, domid: DomId, name: &str) -> Result<SaveLock, CleanupError> {
    let lock = SaveLock::take(domid, name)?;
    match Role::of(store, domid)? {
        Some(Role::Primary) => Ok(lock),
        Some(Role::Secondary) | None => Err(CleanupError::NotCutOff(name.into())),
    }
}
