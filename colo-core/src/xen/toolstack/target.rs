use super::device_model::end_device_model;
use super::restore_error::RestoreToolstackError;
use super::userdata::{DomainUuid, LIBXL_FOLDER, userdata_path};
use super::xl::{ListedDomain, NO_NAME, Xl, XlError};
use crate::ids::DomId;
use std::path::Path;

/// The domain of a restore, which must not be left behind half made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) uuid: DomainUuid,
    /// As soon as it is known.
    pub(super) domid: Option<DomId>,
}

impl Target {
    /// Destroys the domain if it is still there: `xl` may have been killed. As long as its number is not known, only one that libxl has
    /// not finished can be meant.
    pub(super) fn destroy_left_over(&self, xl: &Xl) -> Result<(), RestoreToolstackError> {
        let folder = Path::new(LIBXL_FOLDER);
        self.remove_state(folder);
        for domain in xl.domains()? {
            if self.is(&domain) && (self.domid.is_some() || !is_finished(folder, &domain)) {
                destroy(xl, domain.domid)?;
            }
        }
        Ok(())
    }

    /// Destroys the domain if libxl has not finished it, and returns its number if it has. Nobody may be at work on it any more.
    pub(super) fn destroy_unfinished(&self, xl: &Xl) -> Result<Option<DomId>, RestoreToolstackError> {
        let folder = Path::new(LIBXL_FOLDER);
        for domain in xl.domains()? {
            match self.is(&domain) {
                true if is_finished(folder, &domain) => return Ok(Some(domain.domid)),
                true => destroy(xl, domain.domid)?,
                false => {}
            }
        }
        self.remove_state(folder);
        Ok(None)
    }

    /// Whether this is the domain. Only one with our UUID is ours, and as long as its number is not known, only one that has our name,
    /// too, or none yet.
    fn is(&self, domain: &ListedDomain) -> bool {
        domain.uuid == self.uuid
            && match self.domid {
                Some(domid) => domain.domid == domid,
                None => domain.name == self.name || domain.name == NO_NAME,
            }
    }

    /// Removes the device model's state, written by libxl for a device model that did not come.
    fn remove_state(&self, folder: &Path) {
        if let Some(DomId(domid)) = self.domid {
            let _ = std::fs::remove_file(folder.join(format!("qemu-resume.{domid}")));
        }
    }

    /// For [`Self::from_bytes`] in another process: the UUID, the number, the name.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let domid = self.domid.map_or(UNKNOWN, |domid| domid.0);
        [&self.uuid.0[..], &domid.to_le_bytes(), self.name.as_bytes()].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Target> {
        let (uuid, rest) = bytes.split_first_chunk()?;
        let (domid, name) = rest.split_first_chunk()?;
        let domid = Some(u32::from_le_bytes(*domid)).filter(|domid| *domid != UNKNOWN).map(DomId);
        Some(Target { name: String::from_utf8(name.to_vec()).ok()?, uuid: DomainUuid(*uuid), domid })
    }
}

/// No domain's number.
const UNKNOWN: u32 = u32::MAX;

/// Whether libxl has finished it: the last that it does is to store the configuration.
fn is_finished(folder: &Path, domain: &ListedDomain) -> bool {
    userdata_path(folder, 'd', domain.domid, domain.uuid, "libxl-json").exists()
}

fn destroy(xl: &Xl, domid: DomId) -> Result<(), RestoreToolstackError> {
    // Of no interest to who only wants to know why it has failed.
    tracing::info!(domid = domid.0, "destroying the domain that a failed restore has left");
    xl.destroy(domid).map_err(|error: XlError| RestoreToolstackError::LeftBehind { domid: domid.0, error })?;
    end_device_model(domid);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: DomainUuid = DomainUuid([7; 16]);

    fn target(domid: Option<u32>) -> Target {
        Target { name: "web".into(), uuid: UUID, domid: domid.map(DomId) }
    }

    fn domain(domid: u32, uuid: DomainUuid, name: &str) -> ListedDomain {
        ListedDomain { domid: DomId(domid), uuid, name: name.into() }
    }

    #[test]
    fn no_other_domain_is_meant() {
        let unknown = target(None);
        assert!(unknown.is(&domain(3, UUID, "web")) && unknown.is(&domain(3, UUID, NO_NAME)));
        assert!(!unknown.is(&domain(3, UUID, "db")) && !unknown.is(&domain(3, DomainUuid([8; 16]), "web")));
        let known = target(Some(3));
        // What is half destroyed has lost its name.
        assert!(known.is(&domain(3, UUID, "web")) && known.is(&domain(3, UUID, NO_NAME)));
        assert!(!known.is(&domain(4, UUID, "web")) && !known.is(&domain(3, DomainUuid([8; 16]), "web")));
    }

    #[test]
    fn what_libxl_has_finished_has_a_configuration() {
        let folder = std::env::temp_dir().join(format!("colo-target-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (domain, other) = (domain(3, UUID, "web"), domain(4, UUID, "web"));
        assert!(!is_finished(&folder, &domain));
        std::fs::write(folder.join(format!("userdata-d.3.{UUID}.libxl-json")), "{}").unwrap();
        assert!(is_finished(&folder, &domain) && !is_finished(&folder, &other));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_target_for_another_process() {
        for target in [target(None), target(Some(3)), Target { name: String::new(), ..target(None) }] {
            assert_eq!(Target::from_bytes(&target.to_bytes()), Some(target));
        }
        assert_eq!(Target::from_bytes(&[0; 19]), None);
        assert_eq!(Target::from_bytes(&[0xff; 21]), None);
    }
}
