//! What libxl, `xl` and xenstore say: messages of a save helper, configurations, lists of domains.

use colo_core::ids::DomId;
use colo_core::xen::toolstack::emulator::physmap;
use colo_core::xen::toolstack::messages::{MAX_STRING_BYTES, Message};
use colo_core::xen::toolstack::{DomainConfig, DomainUuid, ListedDomain, LiveState, XenstoreView};
use std::collections::BTreeMap;
use std::io;

/// Reads `data` as each of them.
pub fn fuzz(data: &[u8]) {
    message(data);
    let text = String::from_utf8_lossy(data);
    if let Ok(domains) = ListedDomain::parse_list(&text) {
        assert!(domains.len() <= text.lines().count());
    }
    if let Ok(config) = DomainConfig::parse_list(data) {
        check(&config);
    }
    // Behind a configuration, xenstore: a path, its value, and so on, each ended by a NUL.
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (json, store) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let store = Store::new(store);
    let _ = physmap(DOMID, &store);
    if let Ok(mut config) = DomainConfig::parse(json) {
        check(&config);
        for device_model_cpus in [None, Some(vec![0, 2])] {
            let live = LiveState { uuid: DomainUuid([7; 16]), device_model_cpus, scheduler: None };
            if config.refresh(DOMID, &live, &store).is_ok() {
                assert_eq!(config.uuid(), live.uuid);
                assert!(store.0.values().any(|value| value == config.name()));
                if !config.name().is_empty() {
                    check(&config);
                }
            }
        }
    }
}

const DOMID: DomId = DomId(3);

fn message(data: &[u8]) {
    let Ok(message) = Message::decode(data) else {
        return;
    };
    let again = message.encode();
    assert_eq!(usize::from(u16::from_le_bytes([again[0], again[1]])), again.len() - 2);
    // Longer strings are cut.
    if data.len() <= MAX_STRING_BYTES {
        assert_eq!(&again[2..], data);
    }
}

/// What it is made into is the same configuration.
fn check(config: &DomainConfig) {
    let json = config.to_json();
    assert_eq!(DomainConfig::parse(&json).as_ref().ok(), Some(config));
    assert!(config.vcpus() > 0 && !config.name().is_empty());
    let (_, _, _) = (config.nics(), config.disks(), config.online_vcpus());
    let _ = (config.max_memory_kib(), config.target_memory_kib(), config.guest_type());
}

/// Xenstore, as far as anybody has written it.
struct Store(BTreeMap<String, String>);

impl Store {
    fn new(bytes: &[u8]) -> Store {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let words: Vec<String> = bytes.split(|byte| *byte == 0).map(text).collect();
        Store(words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
    }
}

impl XenstoreView for Store {
    fn read(&self, path: &str) -> io::Result<Option<String>> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let below = self.0.keys().filter_map(|key| key.strip_prefix(path)?.strip_prefix('/'));
        let mut names: Vec<String> = below.filter_map(|rest| Some(rest.split('/').next()?.to_owned())).collect();
        names.dedup();
        Ok(names)
    }
}

/// One of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let messages = [
        Message::Log { level: 8, errno: 5, context: "xc".into(), text: "no".into() },
        Message::Progress { context: "xc".into(), doing: "Frames".into(), done: 1, total: 2 },
        Message::Suspend,
        Message::SwitchQemuLogdirty { domid: 3, enable: 1 },
        Message::StaticDataDone { missing: 3 },
        Message::RestoreResults { store_gfn: 0xfeffc, console_gfn: 0xfefff },
        Message::Complete { retval: -1, errno: 22 },
    ];
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(|message| message.encode()[2..].to_vec()).collect();
    let list = "UUID                                  ID    name\n\
        00000000-0000-0000-0000-000000000000  0    Domain-0                      \n\
        c68e58a4-e8f9-11f1-9b12-2bf4439fb59e  12    a guest                       \n";
    seeds.push(list.into());
    let config = |kind: &str| {
        format!(
            r#"{{"c_info":{{"type":"{kind}","name":"web","uuid":"c68e58a4-e8f9-11f1-9b12-2bf4439fb59e","domid":3}},
            "b_info":{{"max_vcpus":2,"avail_vcpus":[0,1],"max_memkb":131072,"target_memkb":65536,"video_memkb":8}},
            "disks":[{{"pdev_path":"/dev/x","vdev":"xvda","format":"raw","readwrite":1}},{{"vdev":"hdc"}}],
            "nics":[{{"devid":0,"mac":"00:16:3e:00:00:01","bridge":"xenbr0"}}],"vsnds":[{{"devid":1}}],
            "pcidevs":[{{"bus":3}}]}}"#
        )
    };
    seeds.push(format!(r#"[{{"domid":3,"config":{}}}]"#, config("pvh")).into());
    let store = [
        ("/local/domain/3/name", "web"),
        ("/local/domain/3/memory/target", "65528"),
        ("/local/domain/3/memory/static-max", "131072"),
        ("/local/domain/3/cpu/0/availability", "online"),
        ("/local/domain/3/cpu/1/availability", "offline"),
        ("/libxl/3/device/vif/0/handle", "0"),
        ("/libxl/3/device/vbd/51712/dev", "xvda"),
        ("/libxl/3/device/vbd/51712/params", "aio:/dev/x"),
        ("/libxl/3/device/vbd/5632/dev", "hdc"),
        ("/libxl/3/device/vbd/5632/removable", "1"),
        ("/libxl/3/device/vsnd/1/x", ""),
        ("/libxl/3/device/pci/0/backend", "/b"),
        ("/b/num_devs", "1"),
        ("/b/dev-0", "0000:03:00.0"),
        ("/local/domain/0/device-model/3/physmap/f0000000/start_addr", "f1000000"),
        ("/local/domain/0/device-model/3/physmap/f0000000/size", "1000000"),
        ("/local/domain/0/device-model/3/physmap/f0000000/name", "vga.vram"),
    ];
    let store: Vec<u8> = store.iter().flat_map(|(path, value)| format!("{path}\0{value}\0").into_bytes()).collect();
    for kind in ["pv", "pvh", "hvm"] {
        seeds.push([config(kind).as_bytes(), &[0], &store].concat());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_is_taken() {
        let seeds = seeds();
        assert!(seeds[..7].iter().all(|seed| Message::decode(seed).is_ok()));
        assert_eq!(ListedDomain::parse_list(&String::from_utf8_lossy(&seeds[7])).unwrap().len(), 2);
        assert!(DomainConfig::parse_list(&seeds[8]).is_ok());
        for seed in &seeds[9..] {
            let (json, store) = seed.split_at(seed.iter().position(|byte| *byte == 0).unwrap());
            let (mut config, store) = (DomainConfig::parse(json).unwrap(), Store::new(&store[1..]));
            let live = LiveState { uuid: DomainUuid([7; 16]), device_model_cpus: None, scheduler: None };
            config.refresh(DOMID, &live, &store).unwrap();
            assert_eq!((config.nics().len(), config.disks().len()), (1, 2));
            assert_eq!(physmap(DOMID, &store).unwrap().len(), 3);
        }
    }
}
