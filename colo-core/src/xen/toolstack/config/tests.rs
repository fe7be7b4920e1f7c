//! The configuration, against one that Xen 4.17 stored and what its `xl save` made of it.

use super::*;
use crate::xen::control::Scheduler;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Xenstore as a map of paths.
#[derive(Default)]
struct FakeXenstore(BTreeMap<String, String>);

impl FakeXenstore {
    fn with(nodes: &[(&str, &str)]) -> FakeXenstore {
        FakeXenstore(nodes.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect())
    }
}

impl XenstoreView for FakeXenstore {
    fn read(&self, path: &str) -> io::Result<Option<String>> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let inside = |node: &String| Some(node.strip_prefix(path)?.strip_prefix('/')?.split('/').next()?.to_owned());
        let mut names: Vec<String> = self.0.keys().filter_map(inside).collect();
        names.dedup();
        Ok(names)
    }
}

const UUID: &str = "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e";

fn live() -> LiveState {
    let scheduler = Some(Scheduler { name: "credit2", weight: 256, cap: 0 });
    LiveState { uuid: DomainUuid::parse(UUID).unwrap(), device_model_cpus: None, scheduler }
}

/// As Xen 4.17's libxl stores it for a PVH guest, with devices.
fn stored() -> Value {
    json!({
        "c_info": { "type": "pvh", "name": "pvh", "domid": 4294967295_u64, "uuid": UUID, "run_hotplug_scripts": "True" },
        "b_info": {
            "max_vcpus": 2, "avail_vcpus": [0], "tsc_mode": "native", "max_memkb": 131072, "target_memkb": 131072,
            "video_memkb": 0, "sched_params": {}, "claim_mode": "True", "kernel": "/boot/vmlinux",
            "type.pvh": {}, "arch_arm": {}, "arch_x86": { "msr_relaxed": "False" }
        },
        "disks": [
            { "pdev_path": "/dev/vg/web", "vdev": "xvda", "format": "raw", "readwrite": 1 },
            { "pdev_path": "/cd.iso", "vdev": "hdc", "format": "raw", "removable": 1, "is_cdrom": 1 },
            { "pdev_path": "/gone", "vdev": "xvdb", "format": "raw", "readwrite": 1 }
        ],
        "nics": [{ "devid": 0, "mac": "00:16:3e:00:00:01", "bridge": "xenbr0" }, { "devid": 1, "mac": "00:16:3e:00:00:02" }],
        "pcidevs": [{ "bus": 3, "func": 1 }, { "bus": 4 }],
        "vtpms": [{ "devid": 0 }],
        "on_crash": "preserve"
    })
}

const NODES: [(&str, &str); 22] = [
    ("/local/domain/7/name", "renamed"),
    ("/local/domain/7/cpu/0/availability", "online"),
    ("/local/domain/7/cpu/1/availability", "online"),
    ("/local/domain/7/memory/target", "98304"),
    ("/local/domain/7/memory/static-max", "131072"),
    ("/libxl/7/device/vbd/51712/dev", "xvda"),
    ("/libxl/7/device/vbd/51712/params", "/dev/vg/web"),
    ("/libxl/7/device/vbd/51712/removable", "0"),
    ("/libxl/7/device/vbd/5632/dev", "hdc"),
    ("/libxl/7/device/vbd/5632/params", "aio:"),
    ("/libxl/7/device/vbd/5632/removable", "1"),
    ("/libxl/7/device/vif/1/handle", "1"),
    ("/libxl/7/device/vif/x/handle", "0"),
    ("/libxl/7/device/pci/0/backend", "/local/domain/0/backend/pci/7/0"),
    ("/local/domain/0/backend/pci/7/0/num_devs", "1"),
    ("/local/domain/0/backend/pci/7/0/dev-0", "0000:03:00.1"),
    ("/libxl/70/device/vif/0/handle", "0"),
    ("/local/domain/70/name", "another"),
    ("/local/domain/70/memory/target", "1"),
    ("/libxl/7/device/console/0", ""),
    ("/libxl/7/type", "pvh"),
    ("/libxl/7/dm-version", "qemu_xen"),
];

#[test]
fn a_stored_configuration_becomes_what_xl_would_save() {
    let mut config = DomainConfig::from_value(stored()).unwrap();
    config.refresh(DomId(7), &live(), &FakeXenstore::with(&NODES)).unwrap();
    let mut expected = stored();
    expected["c_info"] = json!({ "type": "pvh", "name": "renamed", "uuid": UUID, "run_hotplug_scripts": "True" });
    expected["b_info"]["avail_vcpus"] = json!([0, 1]);
    expected["b_info"]["target_memkb"] = 98304.into();
    expected["b_info"]["sched_params"] = json!({ "sched": "credit2", "weight": 256, "cap": 0 });
    expected["disks"] = json!([
        { "pdev_path": "/dev/vg/web", "vdev": "xvda", "format": "raw", "readwrite": 1 },
        { "pdev_path": "", "vdev": "hdc", "format": "empty", "removable": 1, "is_cdrom": 1 }
    ]);
    expected["nics"] = json!([{ "devid": 1, "mac": "00:16:3e:00:00:02" }]);
    expected["pcidevs"] = json!([{ "bus": 3, "func": 1 }]);
    expected.as_object_mut().unwrap().remove("vtpms");
    assert_eq!(config.json, expected);

    // A domain without any device gets no empty lists either.
    let mut bare = stored();
    for list in ["disks", "nics", "pcidevs", "vtpms"] {
        bare.as_object_mut().unwrap().remove(list);
    }
    let keys = bare.as_object().unwrap().len();
    let mut config = DomainConfig::from_value(bare).unwrap();
    config.refresh(DomId(7), &live(), &FakeXenstore::with(&NODES)).unwrap();
    assert_eq!(config.json.as_object().unwrap().len(), keys);
}

#[test]
fn an_hvm_domain_has_video_memory_and_its_device_models_processors() {
    let mut json = stored();
    json["c_info"]["type"] = "hvm".into();
    json["b_info"]["video_memkb"] = 16384.into();
    json["b_info"]["target_memkb"] = 100000.into();
    let refreshed = |json: &Value, cpus: Option<Vec<u32>>| {
        let mut config = DomainConfig::from_value(json.clone()).unwrap();
        let live = LiveState { device_model_cpus: cpus, scheduler: None, ..live() };
        config.refresh(DomId(7), &live, &FakeXenstore::with(&NODES)).unwrap();
        (config.target_memory_kib(), config.max_memory_kib(), config.online_vcpus(), config.json)
    };
    let (target, max, online, after) = refreshed(&json, Some(vec![0, 1]));
    assert_eq!((target, max, online), (98304 + 16384 + 1024, 131072, vec![0, 1]));
    assert_eq!(after["b_info"]["sched_params"], json!({}));
    json["b_info"]["target_memkb"] = 131072.into();
    let (target, _, online, _) = refreshed(&json, None);
    assert_eq!((target, online), (98304 + 16384, vec![0]));
}

#[test]
fn what_others_want_to_know() {
    let config = DomainConfig::from_value(stored()).unwrap();
    assert_eq!((config.name(), config.guest_type(), config.vcpus()), ("pvh", GuestType::Pvh, 2));
    assert_eq!((config.uuid().to_string().as_str(), config.max_memory_kib()), (UUID, 131072));
    let disks = config.disks();
    assert_eq!((&*disks[0].vdev, disks[0].path.as_deref(), disks[0].read_write), ("xvda", Some("/dev/vg/web"), true));
    assert_eq!((disks.len(), disks[1].read_write), (3, false));
    let nics = config.nics();
    assert_eq!((nics[0].mac.as_deref(), nics[1].devid), (Some("00:16:3e:00:00:01"), 1));
    assert_eq!(nics[1].bridge, None);
    let list = json!([{ "domid": 7, "config": stored() }]).to_string();
    let mut listed = stored();
    listed["c_info"].as_object_mut().unwrap().remove("domid");
    assert_eq!(DomainConfig::parse_list(list.as_bytes()).unwrap().json, listed);
}

#[test]
fn a_domain_that_is_gone_or_strange() {
    let mut config = DomainConfig::from_value(stored()).unwrap();
    let refresh = |config: &mut DomainConfig, nodes: &[(&str, &str)]| {
        config.refresh(DomId(7), &live(), &FakeXenstore::with(nodes)).unwrap_err().to_string()
    };
    let gone = refresh(&mut config, &[]);
    assert!(gone.contains("/local/domain/7/name"), "{gone}");
    let mut nodes = NODES;
    nodes[3].1 = "-1";
    let strange = refresh(&mut config, &nodes);
    assert!(strange.contains("memory/target"), "{strange}");
    nodes = NODES;
    nodes[15].1 = "03:00.1";
    let strange = refresh(&mut config, &nodes);
    assert!(strange.contains("dev-0"), "{strange}");
}

#[test]
fn the_stored_file() {
    let folder = std::env::temp_dir().join(format!("colo-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let uuid = live().uuid;
    let load = || DomainConfig::stored_in(&folder, DomId(7), uuid, Instant::now() + Duration::from_secs(20));
    assert!(load().unwrap().is_none());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "no lock is left for a domain that is none");
    let path = folder.join(format!("userdata-d.7.{UUID}.libxl-json"));
    std::fs::write(&path, format!("{}\0", stored())).unwrap();
    assert_eq!(load().unwrap().unwrap().json, stored());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nor here");
    std::fs::write(&path, vec![b' '; MAX_CONFIG_BYTES + 2]).unwrap();
    assert!(matches!(load(), Err(ConfigError::TooLong)));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_no_configuration() {
    for key in ["type", "name", "uuid"] {
        let mut json = stored();
        json["c_info"].as_object_mut().unwrap().remove(key);
        assert!(matches!(DomainConfig::from_value(json), Err(ConfigError::Lacks(_))), "{key}");
    }
    for (key, value) in [("max_vcpus", json!(0)), ("max_memkb", json!(-5)), ("target_memkb", json!("1"))] {
        let mut json = stored();
        json["b_info"][key] = value;
        assert!(matches!(DomainConfig::from_value(json), Err(ConfigError::Lacks(_))), "{key}");
    }
    let mut json = stored();
    json["b_info"].as_object_mut().unwrap().remove("max_vcpus");
    assert_eq!(DomainConfig::from_value(json).unwrap().vcpus(), 1, "as libxl has it then");
    for text in ["", "null", "[]", "{", "7"] {
        assert!(DomainConfig::parse(text.as_bytes()).is_err(), "{text}");
        assert!(DomainConfig::parse_list(text.as_bytes()).is_err(), "{text}");
    }
}

proptest! {
    /// Damage of any kind is an error, or another configuration; asking it is no panic.
    #[test]
    fn a_damaged_configuration(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = stored().to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(mut config) = DomainConfig::parse(&bytes) {
            let _ = (config.nics(), config.disks(), config.online_vcpus(), config.vcpus());
            let _ = config.refresh(DomId(7), &live(), &FakeXenstore::with(&NODES));
        }
    }
}
