use super::RestoreImageError;
use crate::domain::DomainError;
use crate::ids::DomId;
use crate::xen::toolstack::DomainUuid;
use crate::xen::{Control, Xen, XenError, XenStore};

/// Looks whether a domain is there that has this name or this UUID. The toolstack would say the one in words of its own, late, and not
/// see the other at all.
///
/// By the hypervisor and the store, which answer in less time than `xl` takes to start.
pub(in crate::xen) fn ensure_free(xen: Xen, name: &str, uuid: DomainUuid) -> Result<(), RestoreImageError> {
    match domains(xen).map_err(DomainError::from)?.into_iter().find_map(|domain| domain.takes(name, uuid)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Those that live: of one that is being destroyed only memory is left, which somebody still has mapped.
fn domains(xen: Xen) -> Result<Vec<Living>, XenError> {
    let (control, store) = (Control::open(xen)?, XenStore::open(xen)?);
    let living = control.domains()?.into_iter().filter(|info| !info.dying);
    let named = living.map(|info| {
        let name = store.read_text(&format!("/local/domain/{}/name", info.domid.0))?;
        Ok(Living { domid: info.domid, uuid: DomainUuid(info.uuid), name })
    });
    named.collect()
}

struct Living {
    domid: DomId,
    uuid: DomainUuid,
    /// None as long as it is being built.
    name: Option<String>,
}

impl Living {
    fn takes(self, name: &str, uuid: DomainUuid) -> Option<RestoreImageError> {
        // First: to one that has both, another name would be no help.
        if self.uuid == uuid {
            let name = self.name.unwrap_or_else(|| "(null)".into());
            return Some(RestoreImageError::UuidTaken { domid: self.domid, name, uuid });
        }
        (self.name.as_deref() == Some(name)).then(|| RestoreImageError::NameTaken(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_a_uuid() {
        let takes = |name: Option<&str>, uuid| {
            let living = Living { domid: DomId(3), uuid: DomainUuid([uuid; 16]), name: name.map(str::to_owned) };
            living.takes("web", DomainUuid([1; 16])).map(|error| error.to_string())
        };
        assert_eq!(takes(Some("db"), 2), None);
        assert_eq!(takes(None, 2), None);
        assert_eq!(takes(Some("web"), 2).unwrap(), "there is a domain web already");
        let uuid = "01010101-0101-0101-0101-010101010101";
        for name in ["web", "db"] {
            let told = format!("its domain is there already: {name} (domain 3) has its UUID, {uuid}");
            assert_eq!(takes(Some(name), 1), Some(told));
        }
        assert!(takes(None, 1).unwrap().contains("(null)"));
    }
}
