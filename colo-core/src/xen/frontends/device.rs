use super::{nodes, state};
use crate::domain::DomainError;
use crate::xen::XenStore;
use std::collections::BTreeMap;

/// A device that has a backend.
pub(super) struct Device {
    pub(super) class: String,
    pub(super) handle: u32,
    /// `/local/domain/3/device/vif/0`.
    pub(super) path: String,
    /// `/local/domain/0/backend/vif/3/0`.
    pub(super) backend: String,
    /// None when it may have told something since that was read. Only who asks for it has it read, for that is many nodes.
    pub(super) told: Option<Told>,
}

/// What a guest's driver has told.
pub(super) struct Told {
    pub(super) nodes: BTreeMap<String, String>,
    pub(super) is_connected: bool,
}

impl Device {
    /// What its driver has told, as it is now.
    pub(super) fn told(&mut self, store: &XenStore) -> Result<&mut Told, DomainError> {
        let told = match self.told.take() {
            Some(told) => told,
            None => {
                let nodes = nodes::read_live(store, &self.path)?;
                let state = store.read_text(&format!("{}/state", self.path))?;
                Told { nodes, is_connected: state.is_some_and(|state| state == state::CONNECTED.to_string()) }
            }
        };
        Ok(self.told.insert(told))
    }

    /// Whether it is known how such a device is taken down and comes back.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.class.as_str(), "vif" | "vbd")
    }

    pub(super) fn is_disk(&self) -> bool {
        self.class == "vbd"
    }
}

/// Something has changed at a path below a domain's devices, or at one of them. Returns whether there may be others now.
pub(super) fn note(devices: &mut [Device], path: &str) -> bool {
    for device in devices {
        match path.strip_prefix(&device.path).and_then(|rest| rest.strip_prefix('/')) {
            Some("backend") => return true,
            // Of a device that is connected we write that one ourselves.
            Some("state") if device.told.as_ref().is_some_and(|told| told.is_connected) => return false,
            Some(_) => {
                device.told = None;
                return false;
            }
            None => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(handle: u32, is_connected: bool) -> Device {
        Device {
            class: "vif".into(),
            handle,
            path: format!("/local/domain/3/device/vif/{handle}"),
            backend: format!("/local/domain/0/backend/vif/3/{handle}"),
            told: Some(Told { nodes: BTreeMap::new(), is_connected }),
        }
    }

    /// Of three cards 1, 10 and 2, of which the last is not connected: which are to be read again, and whether there may be others.
    fn noted(path: &str) -> (Vec<u32>, bool) {
        let mut devices = [card(1, true), card(10, true), card(2, false)];
        let are_others = note(&mut devices, path);
        (devices.iter().filter(|device| device.told.is_none()).map(|device| device.handle).collect(), are_others)
    }

    #[test]
    fn what_a_driver_tells_is_read_again_of_its_own_device_only() {
        assert_eq!(noted("/local/domain/3/device/vif/10/queue-0/tx-ring-ref"), (vec![10], false));
        assert_eq!(noted("/local/domain/3/device/vif/1/event-channel"), (vec![1], false));
    }

    #[test]
    fn the_state_of_a_connected_device_is_ours() {
        assert_eq!(noted("/local/domain/3/device/vif/1/state"), (vec![], false));
        assert_eq!(noted("/local/domain/3/device/vif/2/state"), (vec![2], false), "it may be connected now");
    }

    #[test]
    fn devices_that_come_go_or_get_another_backend_are_looked_for() {
        for path in ["/local/domain/3/device", "/local/domain/3/device/vif/1", "/local/domain/3/device/vif/3/mac"] {
            assert_eq!(noted(path), (vec![], true), "{path}");
        }
        assert_eq!(noted("/local/domain/3/device/vif/1/backend"), (vec![], true));
    }
}
