use super::{ConfigError, DomainConfig};
use crate::ids::DomId;
use crate::xen::XenStore;
use crate::xen::control::{GuestType, Scheduler};
use crate::xen::toolstack::userdata::DomainUuid;
use serde_json::{Value, json};
use std::io;

/// What libxl keeps apart for a guest that has less memory than it may have, in KiB (`LIBXL_MAXMEM_CONSTANT`).
const MAXMEM_KIB: u64 = 1024;
/// The most devices of one kind that are looked at.
const MAX_DEVICES: usize = 4096;

/// Xenstore, to be read.
pub trait XenstoreView {
    /// The value of a node; none when the node does not exist.
    ///
    /// # Errors
    /// When xenstore cannot be asked.
    fn read(&self, path: &str) -> io::Result<Option<String>>;

    /// The names of a node's children; empty when the node does not exist.
    ///
    /// # Errors
    /// When xenstore cannot be asked.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;
}

impl XenstoreView for XenStore {
    fn read(&self, path: &str) -> io::Result<Option<String>> {
        self.read_text(path).map_err(|error| error.source)
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.directory(path).map(Option::unwrap_or_default).map_err(|error| error.source)
    }
}

/// What of a domain's configuration neither libxl's file nor xenstore knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveState {
    /// The domain's handle, by Xen.
    pub uuid: DomainUuid,
    /// The vCPUs that an HVM domain's device model has (`QmpClient::query_cpus`); `None` leaves those of the stored
    /// configuration. Of other domains xenstore knows it.
    pub device_model_cpus: Option<Vec<u32>>,
    /// The scheduler's parameters, by Xen; `None` leaves those of the stored configuration, which are those that were given when
    /// the domain was created.
    pub scheduler: Option<Scheduler>,
}

impl DomainConfig {
    /// Brings a stored configuration up to date with the running domain, as `libxl_retrieve_domain_configuration` does: name,
    /// UUID, online vCPUs, memory, scheduler; devices that xenstore does not have any more are dropped, drives without a medium
    /// emptied. USB devices stay as they are stored. On an error the configuration is half changed.
    ///
    /// # Errors
    /// [`ConfigError::NoNode`], [`ConfigError::BadNode`], [`ConfigError::Xenstore`].
    pub fn refresh(&mut self, domain: DomId, live: &LiveState, xenstore: &dyn XenstoreView) -> Result<(), ConfigError> {
        let store = Store { xenstore, domid: domain.0 };
        self.uuid = live.uuid;
        let name = store.need(&store.guest("name"))?;
        let online = match (self.guest_type, &live.device_model_cpus) {
            (GuestType::Hvm, Some(cpus)) => cpus.clone(),
            (GuestType::Hvm, None) => self.online_vcpus(),
            _ => store.online_vcpus(self.vcpus())?,
        };
        let memory = self.memory(&store)?;
        self.set_name(&name);
        self.json["c_info"]["uuid"] = live.uuid.to_string().into();
        self.forget_number();
        let build = &mut self.json["b_info"];
        build["avail_vcpus"] = online.into();
        (build["target_memkb"], build["max_memkb"]) = (memory.0.into(), memory.1.into());
        if let Some(Scheduler { name, weight, cap }) = &live.scheduler {
            build["sched_params"] = json!({ "sched": name, "weight": weight, "cap": cap });
        }
        self.drop_devices(&store)
    }

    /// Target and limit in KiB. Xenstore's target is without the video memory and without what libxl keeps apart.
    fn memory(&self, store: &Store<'_>) -> Result<(u64, u64), ConfigError> {
        let apart = self.guest_type == GuestType::Hvm && self.max_memory_kib() > self.target_memory_kib();
        let fudge = self.build("video_memkb").saturating_add(if apart { MAXMEM_KIB } else { 0 });
        let target = store.number(&store.guest("memory/target"))?;
        Ok((target.saturating_add(fudge), store.number(&store.guest("memory/static-max"))?))
    }

    fn drop_devices(&mut self, store: &Store<'_>) -> Result<(), ConfigError> {
        let vifs = store.devices("vif", |path, number| {
            Ok(store
                .read(&format!("{path}/handle"))?
                .map_or(Some(0), |handle| handle.parse::<u64>().ok().or(Some(number))))
        })?;
        self.keep("nics", |nic| vifs.contains(&nic["devid"].as_u64().unwrap_or(0)));
        for (list, kind) in [("vtpms", "vtpm"), ("usbctrls", "vusb"), ("vdispls", "vdispl"), ("vsnds", "vsnd")] {
            if self.json[list].is_array() {
                let present = store.devices(kind, |_, number| Ok(Some(number)))?;
                self.keep(list, |device| present.contains(&device["devid"].as_u64().unwrap_or(0)));
            }
        }
        if self.json["pcidevs"].is_array() {
            let present = store.pci_devices()?;
            self.keep("pcidevs", |device| {
                let number = |key: &str| device[key].as_u64().unwrap_or(0);
                present.contains(&(number("domain"), number("bus"), number("dev"), number("func")))
            });
        }
        self.drop_disks(store)
    }

    fn drop_disks(&mut self, store: &Store<'_>) -> Result<(), ConfigError> {
        let mut present = Vec::new();
        for kind in ["vbd", "virtio_disk"] {
            present.extend(store.devices(kind, |path, _| {
                let node = |name: &str| store.read(&format!("{path}/{name}"));
                let removable = node("removable")?.is_some_and(|flag| flag != "0");
                // The driver's name may stand in front.
                let medium = node("params")?.map(|params| match params.split_once(':') {
                    Some((_, path)) => path.to_owned(),
                    None => params,
                });
                let empty = removable && medium.is_none_or(|medium| medium.is_empty());
                Ok(node("dev")?.map(|vdev| (vdev, empty)))
            })?);
        }
        let found = |disk: &Value| present.iter().find(|(vdev, _)| disk["vdev"].as_str() == Some(vdev));
        self.keep("disks", |disk| found(disk).is_some());
        for disk in self.json.get_mut("disks").and_then(Value::as_array_mut).into_iter().flatten() {
            if found(disk).is_some_and(|(_, empty)| *empty) {
                disk["pdev_path"] = "".into();
                disk["format"] = "empty".into();
            }
        }
        Ok(())
    }

    /// Keeps the devices that are wanted; libxl writes no empty list.
    fn keep(&mut self, list: &str, wanted: impl Fn(&Value) -> bool) {
        let Some(devices) = self.json.get_mut(list).and_then(Value::as_array_mut) else { return };
        devices.retain(wanted);
        if devices.is_empty() {
            if let Some(config) = self.json.as_object_mut() {
                config.remove(list);
            }
        }
    }
}

/// Xenstore, for one domain.
struct Store<'a> {
    xenstore: &'a dyn XenstoreView,
    domid: u32,
}

impl Store<'_> {
    fn guest(&self, node: &str) -> String {
        format!("/local/domain/{}/{node}", self.domid)
    }

    fn read(&self, path: &str) -> Result<Option<String>, ConfigError> {
        self.xenstore.read(path).map_err(|source| ConfigError::Xenstore { path: path.into(), source })
    }

    fn need(&self, path: &str) -> Result<String, ConfigError> {
        self.read(path)?.ok_or_else(|| ConfigError::NoNode(path.into()))
    }

    fn number(&self, path: &str) -> Result<u64, ConfigError> {
        let value = self.need(path)?;
        value.parse().map_err(|_| ConfigError::BadNode { path: path.into(), value })
    }

    fn online_vcpus(&self, vcpus: u32) -> Result<Vec<u32>, ConfigError> {
        let mut online = Vec::new();
        // A number that cannot be is no reason to ask for so many.
        let known = self.list(&self.guest("cpu"))?.len() as u32;
        for number in 0..vcpus.min(known) {
            if self.read(&self.guest(&format!("cpu/{number}/availability")))?.as_deref() == Some("online") {
                online.push(number);
            }
        }
        Ok(online)
    }

    fn list(&self, path: &str) -> Result<Vec<String>, ConfigError> {
        let names = self.xenstore.list(path);
        let mut names = names.map_err(|source| ConfigError::Xenstore { path: path.into(), source })?;
        names.truncate(MAX_DEVICES);
        Ok(names)
    }

    /// What `found` says of each device of a kind that libxl has for the domain.
    fn devices<T>(
        &self,
        kind: &str,
        found: impl Fn(&str, u64) -> Result<Option<T>, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let folder = format!("/libxl/{}/device/{kind}", self.domid);
        let mut devices = Vec::new();
        for name in self.list(&folder)? {
            let Ok(number) = name.parse() else { continue };
            devices.extend(found(&format!("{folder}/{name}"), number)?);
        }
        Ok(devices)
    }

    /// Domain, bus, device, function of the devices passed through: they are in one node of the backend.
    fn pci_devices(&self) -> Result<Vec<(u64, u64, u64, u64)>, ConfigError> {
        let Some(backend) = self.read(&format!("/libxl/{}/device/pci/0/backend", self.domid))? else {
            return Ok(Vec::new());
        };
        let count = self.number(&format!("{backend}/num_devs"))?.min(MAX_DEVICES as u64);
        let mut devices = Vec::new();
        for number in 0..count {
            let path = format!("{backend}/dev-{number}");
            let value = self.need(&path)?;
            devices.push(pci_address(&value).ok_or(ConfigError::BadNode { path, value })?);
        }
        Ok(devices)
    }
}

/// `0000:03:00.0`.
fn pci_address(text: &str) -> Option<(u64, u64, u64, u64)> {
    let mut parts = text.split([':', '.']).map(|part| u64::from_str_radix(part, 16).ok());
    let address = (parts.next()??, parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(address)
}
