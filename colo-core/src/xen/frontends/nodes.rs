use crate::domain::DomainError;
use crate::xen::XenStore;
use std::collections::BTreeMap;

/// Nodes of a device that are the toolstack's, or each host's own. All others are the driver's.
const NOT_THE_DRIVERS: [&str; 10] =
    ["backend", "backend-id", "state", "handle", "mac", "mtu", "bridge", "virtual-device", "device-type", "trusted"];

/// Whether a node below a device, by its path there, tells what the guest's driver has set up: rings, event channels, features.
///
/// ```
/// use colo_core::xen::frontends::is_live;
///
/// assert!(is_live("queue-0/tx-ring-ref") && is_live("event-channel"));
/// assert!(!is_live("backend") && !is_live("state"));
/// ```
pub fn is_live(path: &str) -> bool {
    !NOT_THE_DRIVERS.contains(&path)
}

/// A device that has a backend.
pub(super) struct Found {
    pub(super) class: String,
    pub(super) handle: u32,
    pub(super) path: String,
    pub(super) backend: String,
}

/// The devices below a domain's home, in the order of their classes and numbers.
pub(super) fn find(store: &XenStore, home: &str) -> Result<Vec<Found>, DomainError> {
    let mut found = Vec::new();
    let mut classes = store.directory(&format!("{home}/device"))?.unwrap_or_default();
    classes.sort();
    for class in classes {
        let handles = store.directory(&format!("{home}/device/{class}"))?.unwrap_or_default();
        let mut handles: Vec<u32> = handles.iter().filter_map(|handle| handle.parse().ok()).collect();
        handles.sort_unstable();
        for handle in handles {
            let path = format!("{home}/device/{class}/{handle}");
            // What has no backend is not connected with anything.
            if let Some(backend) = store.read_text(&format!("{path}/backend"))?.filter(|backend| !backend.is_empty()) {
                found.push(Found { class: class.clone(), handle, path, backend });
            }
        }
    }
    Ok(found)
}

/// What the driver of a device has told: paths below the device, and values.
pub(super) fn read_live(store: &XenStore, device: &str) -> Result<BTreeMap<String, String>, DomainError> {
    let mut nodes = BTreeMap::new();
    for name in store.directory(device)?.unwrap_or_default().into_iter().filter(|name| is_live(name)) {
        let below = store.directory(&format!("{device}/{name}"))?.unwrap_or_default();
        if below.is_empty() {
            insert(store, device, name, &mut nodes)?;
            continue;
        }
        // A queue of several.
        for node in below {
            insert(store, device, format!("{name}/{node}"), &mut nodes)?;
        }
    }
    Ok(nodes)
}

fn insert(
    store: &XenStore,
    device: &str,
    path: String,
    nodes: &mut BTreeMap<String, String>,
) -> Result<(), DomainError> {
    if let Some(value) = store.read_text(&format!("{device}/{path}"))? {
        nodes.insert(path, value);
    }
    Ok(())
}
