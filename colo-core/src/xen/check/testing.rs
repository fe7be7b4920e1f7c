//! A domain and two hosts between which nothing is in the way.

use super::{BridgeFacts, CpuFacts, DiskFacts, DomainFacts, DomainState, Guest, HostFacts, NicFacts, SuspendSupport};
use crate::ids::DomId;
use crate::xen::GuestType;
use crate::xen::toolstack::DomainConfig;
use std::collections::BTreeMap;

/// A configuration with these lists of devices.
pub(in crate::xen) fn config(devices: &str) -> DomainConfig {
    let json = format!(
        r#"{{ "c_info": {{ "type": "pvh", "name": "web", "uuid": "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e" }},
            "b_info": {{ "max_vcpus": 1, "max_memkb": 131072, "target_memkb": 131072 }}, {devices} }}"#
    );
    DomainConfig::parse(json.as_bytes()).unwrap()
}

/// A PVH guest with a network card and a read-only disk.
pub(super) fn domain() -> DomainFacts {
    DomainFacts {
        name: "web".into(),
        domid: DomId(3),
        state: DomainState::Running,
        guest: Guest { guest_type: GuestType::Pvh, has_pv_drivers: true },
        online_vcpus: 1,
        memory_kib: 128 << 10,
        suspend: SuspendSupport::Announced,
        features: "00000001:12000000:00000000:00000000:00000000:00000000:00000000:00000000".parse().unwrap(),
        nics: vec![NicFacts {
            devid: 0,
            link: "vif3.0".into(),
            mtu: Some(1500),
            master: Some("xenbr0".into()),
            bridge: Some("xenbr0".into()),
            script: Some("/etc/xen/scripts/vif-bridge".into()),
        }],
        disks: vec![DiskFacts { vdev: "xvda".into(), path: Some("/images/web".into()), read_write: false }],
        other_devices: Vec::new(),
        has_other_device_model: false,
    }
}

/// A host that has what that domain needs, and the name and the number of it free.
pub(super) fn host() -> HostFacts {
    HostFacts {
        colo: "0.1.0".into(),
        xen: (4, 17),
        has_pv: true,
        has_hvm: true,
        has_shadow: true,
        free_kib: 1 << 20,
        dom0_available_kib: 1 << 20,
        cpu: CpuFacts {
            vendor: "AuthenticAMD".into(),
            family_model: (15, 107),
            name: "QEMU Virtual CPU".into(),
            features: "00000001:12000000:00000000:00000000:00000000:00000000:00000000:00000000".parse().unwrap(),
        },
        name_taken_by: None,
        uuid_taken_by: None,
        domids: vec![0, 7],
        bridges: BTreeMap::from([("xenbr0".into(), BridgeFacts { is_up: true, mtu: 1500 })]),
        disks: BTreeMap::from([("xvda".into(), 1 << 20)]),
        disk_server: None,
    }
}
