//! What a domain is to `colo`, written in xenstore beside the domain's name, where it goes when the domain goes.
//!
//! It is there only while the domain must not be taken for any other: a secondary's from its making until it serves, a primary's while
//! the other host may be able to take over. So what of these is left when their process is gone is what an operator has to deal with.
//!
//! ```no_run
//! use colo_core::ids::DomId;
//! use colo_core::xen::role::Role;
//! use colo_core::xen::{Xen, XenStore};
//!
//! let store = XenStore::open(Xen::open()?)?;
//! if Role::of(&store, DomId(3))? == Some(Role::Secondary) {
//!     println!("domain 3 does not serve");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::{XenError, XenStore};
use crate::ids::DomId;

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Its guest may be served by another host.
    Primary,
    /// It does not serve.
    Secondary,
}

impl Role {
    /// What is written of a domain; nothing for what is no role.
    ///
    /// # Errors
    /// When xenstore cannot be read.
    pub fn of(store: &XenStore, domid: DomId) -> Result<Option<Role>, XenError> {
        Ok(store.read_text(&path(domid))?.and_then(|text| Self::parse(&text)))
    }

    /// Writes it, or that there is none.
    ///
    /// # Errors
    /// When xenstore cannot be written.
    pub fn write(role: Option<Role>, store: &XenStore, domid: DomId) -> Result<(), XenError> {
        match role {
            Some(role) => store.write(&path(domid), role.name().as_bytes()),
            None => store.rm(&path(domid)).map(drop),
        }
    }

    fn name(self) -> &'static str {
        if self == Role::Primary { "primary" } else { "secondary" }
    }

    fn parse(text: &str) -> Option<Role> {
        [Role::Primary, Role::Secondary].into_iter().find(|role| role.name() == text)
    }
}

fn path(domid: DomId) -> String {
    format!("/local/domain/{}/colo", domid.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for role in [Role::Primary, Role::Secondary] {
            assert_eq!(Role::parse(role.name()), Some(role));
        }
        assert_eq!(Role::parse("primary "), None);
        assert_eq!(path(DomId(3)), "/local/domain/3/colo");
    }
}
