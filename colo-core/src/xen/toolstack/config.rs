//! A domain's configuration as libxl keeps it: the JSON that stands at the beginning of a saved image, and after which `xl restore`
//! builds the domain again.
//!
//! libxl stores it when it has built a domain (`/var/lib/xen/userdata-d.DOMID.UUID.libxl-json`), and when devices come and go;
//! the rest of what changes it looks up when it is asked: the name, the memory, the online vCPUs, devices that are gone.
//! [`DomainConfig::refresh`] does the same, so that an image can be written without running `xl`.
//!
//! ```
//! use colo_core::xen::toolstack::DomainConfig;
//!
//! let json = br#"{ "c_info": { "type": "pvh", "name": "web", "uuid": "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e" },
//!     "b_info": { "max_vcpus": 2, "max_memkb": 131072, "target_memkb": 131072 },
//!     "nics": [ { "devid": 0, "mac": "00:16:3e:00:00:01", "bridge": "xenbr0" } ] }"#;
//! let mut config = DomainConfig::parse(json)?;
//! assert_eq!((config.name(), config.vcpus(), config.nics()[0].bridge.as_deref()), ("web", 2, Some("xenbr0")));
//! config.set_name("web-restored");
//! assert_eq!(DomainConfig::parse(&config.to_json())?, config);
//! # Ok::<(), colo_core::xen::toolstack::ConfigError>(())
//! ```

mod refresh;
#[cfg(test)]
mod tests;

pub use refresh::{LiveState, XenstoreView};

use super::userdata::{DomainLock, DomainUuid, LIBXL_FOLDER, LockError, LockKind, userdata_path};
use super::xl::{Xl, XlError};
use crate::ids::DomId;
use crate::xen::qmp::QmpError;
use crate::xen::{GuestType, ShutdownReason};
use serde_json::Value;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The longest configuration that is accepted. A usual one has a few kilobytes; a CPU policy or a hundred disks make some more.
pub const MAX_CONFIG_BYTES: usize = 1 << 20;

/// A virtual network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// Its number within the domain.
    pub devid: u32,
    /// Its address, as text.
    pub mac: Option<String>,
    /// The bridge that its backend is on.
    pub bridge: Option<String>,
    /// The emulated card's model, when there is one.
    pub model: Option<String>,
    /// The program that connects its backend; none for the usual one.
    pub script: Option<String>,
}

/// A virtual disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Its name within the domain: `xvda`.
    pub vdev: String,
    /// The file or device behind it; none for an empty drive.
    pub path: Option<String>,
    /// `raw`, `qcow2`, ...
    pub format: Option<String>,
    /// Who is behind it: `phy`, `qdisk`, ...
    pub backend: Option<String>,
    /// Whether the guest may write.
    pub read_write: bool,
}

/// Why there is no configuration.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// Longer than [`MAX_CONFIG_BYTES`].
    #[error("the domain's configuration has more than {MAX_CONFIG_BYTES} bytes")]
    TooLong,
    /// Not JSON.
    #[error("the domain's configuration is no JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// JSON, but not what libxl writes.
    #[error("the domain's configuration has no valid {0}")]
    Lacks(&'static str),
    /// A node of xenstore is missing: the domain is gone, or was not built by libxl.
    #[error("xenstore has no {0}: the domain is gone, or half built")]
    NoNode(String),
    /// A node of xenstore has a value that cannot be.
    #[error("xenstore's {path} is {value:?}")]
    BadNode {
        /// The node.
        path: String,
        /// Its value.
        value: String,
    },
    /// Xenstore could not be read.
    #[error("cannot read xenstore's {path}: {source}")]
    Xenstore {
        /// The node.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The stored configuration could not be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The stored configuration could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The device model does not tell which vCPUs it has.
    #[error(transparent)]
    DeviceModel(#[from] QmpError),
    /// There is no stored configuration, and `xl` does not know one either.
    #[error(transparent)]
    Xl(#[from] XlError),
}

/// libxl's lists of devices that are neither network interfaces nor disks, and what `xl.cfg` calls them.
const OTHER_DEVICES: [(&str, &str); 13] = [
    ("pcidevs", "pci"),
    ("dtdevs", "dtdev"),
    ("vfbs", "vfb"),
    ("vkbs", "vkb"),
    ("vtpms", "vtpm"),
    ("p9s", "p9"),
    ("pvcallsifs", "pvcalls"),
    ("vdispls", "vdispl"),
    ("vsnds", "vsnd"),
    ("channels", "channel"),
    ("usbctrls", "usbctrl"),
    ("usbdevs", "usbdev"),
    ("virtios", "virtio"),
];

/// A configuration that has at least a type, a name, a UUID, memory and vCPUs.
#[derive(Clone, PartialEq, Debug)]
pub struct DomainConfig {
    json: Value,
    guest_type: GuestType,
    uuid: DomainUuid,
}

impl DomainConfig {
    /// Reads libxl's JSON, with or without the NUL that ends it in an image.
    ///
    /// # Errors
    /// [`ConfigError::TooLong`], [`ConfigError::NotJson`], [`ConfigError::Lacks`].
    pub fn parse(bytes: &[u8]) -> Result<DomainConfig, ConfigError> {
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLong);
        }
        Self::from_value(serde_json::from_slice(bytes.strip_suffix(&[0]).unwrap_or(bytes))?)
    }

    /// The stored configuration of a domain, as it was when it was last changed; none for a domain that libxl has not finished, or
    /// did not build.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn stored(domain: DomId, uuid: DomainUuid, deadline: Instant) -> Result<Option<DomainConfig>, ConfigError> {
        Self::stored_in(Path::new(LIBXL_FOLDER), domain, uuid, deadline)
    }

    /// The configuration of a domain as it is now: the stored one, brought up to date. Without a stored one `xl` is asked.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn current(
        domain: DomId,
        live: &LiveState,
        xenstore: &dyn XenstoreView,
        xl: &Xl,
        deadline: Instant,
    ) -> Result<DomainConfig, ConfigError> {
        match Self::stored(domain, live.uuid, deadline)? {
            Some(mut config) => {
                config.refresh(domain, live, xenstore)?;
                Ok(config)
            }
            None => Self::parse_list(xl.configuration(domain)?.as_bytes()),
        }
    }

    /// Reads what `xl list -l` prints of one domain, but for its number, which `xl save` leaves out, too.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_list(bytes: &[u8]) -> Result<DomainConfig, ConfigError> {
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLong);
        }
        let mut list: Value = serde_json::from_slice(bytes)?;
        let entry = if list.is_array() { list.get_mut(0) } else { Some(&mut list) };
        let config = entry.and_then(|entry| entry.get_mut("config")).ok_or(ConfigError::Lacks("config"))?;
        let mut config = Self::from_value(config.take())?;
        config.forget_number();
        Ok(config)
    }

    /// The JSON, without a NUL.
    pub fn to_json(&self) -> Vec<u8> {
        self.json.to_string().into_bytes()
    }

    /// The domain's name.
    pub fn name(&self) -> &str {
        self.json["c_info"]["name"].as_str().unwrap_or_default()
    }

    /// Gives it another name, for a domain built after this.
    pub fn set_name(&mut self, name: &str) {
        self.json["c_info"]["name"] = name.into();
    }

    /// The domain's UUID.
    pub fn uuid(&self) -> DomainUuid {
        self.uuid
    }

    /// What kind of guest it is.
    pub fn guest_type(&self) -> GuestType {
        self.guest_type
    }

    /// The most memory that the guest may have, in KiB.
    pub fn max_memory_kib(&self) -> u64 {
        self.build("max_memkb")
    }

    /// The memory that the guest is to have, in KiB, with that of an emulated video card.
    pub fn target_memory_kib(&self) -> u64 {
        self.build("target_memkb")
    }

    /// The number of vCPUs, online or not.
    pub fn vcpus(&self) -> u32 {
        self.build("max_vcpus").max(1) as u32
    }

    /// The vCPUs that are online.
    pub fn online_vcpus(&self) -> Vec<u32> {
        let numbers = self.json["b_info"]["avail_vcpus"].as_array().into_iter().flatten();
        numbers.filter_map(|number| u32::try_from(number.as_u64()?).ok()).collect()
    }

    /// The network interfaces.
    pub fn nics(&self) -> Vec<Nic> {
        let nic = |nic: &Value| Nic {
            devid: nic["devid"].as_u64().and_then(|devid| devid.try_into().ok()).unwrap_or(0),
            mac: text(&nic["mac"]),
            bridge: text(&nic["bridge"]),
            model: text(&nic["model"]),
            script: text(&nic["script"]).filter(|script| !script.is_empty()),
        };
        self.devices("nics").map(nic).collect()
    }

    /// The disks.
    pub fn disks(&self) -> Vec<Disk> {
        let disk = |disk: &Value| Disk {
            vdev: text(&disk["vdev"]).unwrap_or_default(),
            path: text(&disk["pdev_path"]).filter(|path| !path.is_empty()),
            format: text(&disk["format"]),
            backend: text(&disk["backend"]).filter(|backend| backend != "unknown"),
            read_write: disk["readwrite"].as_u64().is_some_and(|flag| flag != 0),
        };
        self.devices("disks").map(disk).collect()
    }

    /// What is to be done with the domain when it stops for this reason, in `xl`'s words (`destroy`, `restart`, `preserve`, ...), if the
    /// configuration says so.
    ///
    /// ```
    /// # use colo_core::xen::{ShutdownReason, toolstack::DomainConfig};
    /// let json = br#"{ "c_info": { "type": "pvh", "name": "web", "uuid": "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e" },
    ///     "b_info": { "max_memkb": 131072, "target_memkb": 131072 }, "on_reboot": "restart" }"#;
    /// let config = DomainConfig::parse(json)?;
    /// assert_eq!(config.action_on(ShutdownReason::REBOOT), Some("restart"));
    /// assert_eq!(config.action_on(ShutdownReason::POWEROFF), None);
    /// # Ok::<(), colo_core::xen::toolstack::ConfigError>(())
    /// ```
    pub fn action_on(&self, reason: ShutdownReason) -> Option<&str> {
        let key = match reason {
            ShutdownReason::POWEROFF => "on_poweroff",
            ShutdownReason::REBOOT => "on_reboot",
            ShutdownReason::CRASH => "on_crash",
            ShutdownReason::WATCHDOG => "on_watchdog",
            ShutdownReason::SOFT_RESET => "on_soft_reset",
            _ => return None,
        };
        self.json[key].as_str()
    }

    /// Wishes for a number, for a domain built after this; `None` for any. One that is taken is an error then.
    pub fn set_number(&mut self, number: Option<DomId>) {
        self.forget_number();
        if let Some(number) = number {
            self.json["c_info"]["domid"] = number.0.into();
        }
    }

    /// The number that is wished for.
    pub fn number(&self) -> Option<DomId> {
        self.json["c_info"]["domid"].as_u64()?.try_into().ok().map(DomId)
    }

    /// The devices that are neither network interfaces nor disks, as `xl.cfg` calls them, with the number of each.
    ///
    /// ```
    /// # use colo_core::xen::toolstack::DomainConfig;
    /// let json = br#"{ "c_info": { "type": "pv", "name": "web", "uuid": "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e" },
    ///     "b_info": { "max_memkb": 131072, "target_memkb": 131072 }, "pcidevs": [ { "bus": 3 } ] }"#;
    /// assert_eq!(DomainConfig::parse(json)?.other_devices(), [("pci", 1)]);
    /// # Ok::<(), colo_core::xen::toolstack::ConfigError>(())
    /// ```
    pub fn other_devices(&self) -> Vec<(&'static str, usize)> {
        let counted = OTHER_DEVICES.iter().map(|(list, name)| (*name, self.devices(list).count()));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Whether its device model runs in a domain of its own, or is the one from before Xen 4.3.
    pub fn has_other_device_model(&self) -> bool {
        let build = &self.json["b_info"];
        let is_set = |flag: &Value| flag.as_bool().unwrap_or_else(|| flag.as_str() == Some("True"));
        is_set(&build["device_model_stubdomain"])
            || build["device_model_version"].as_str() == Some("qemu_xen_traditional")
    }

    /// The number of this domain, which another need not have.
    fn forget_number(&mut self) {
        if let Some(creation) = self.json["c_info"].as_object_mut() {
            creation.remove("domid");
        }
    }

    fn devices(&self, list: &str) -> impl Iterator<Item = &Value> {
        self.json[list].as_array().into_iter().flatten()
    }

    fn build(&self, key: &str) -> u64 {
        self.json["b_info"][key].as_u64().unwrap_or(0)
    }

    fn from_value(json: Value) -> Result<DomainConfig, ConfigError> {
        let guest_type = match json["c_info"]["type"].as_str() {
            Some("pv") => GuestType::Pv,
            Some("pvh") => GuestType::Pvh,
            Some("hvm") => GuestType::Hvm,
            _ => return Err(ConfigError::Lacks("type")),
        };
        let uuid = json["c_info"]["uuid"].as_str().and_then(DomainUuid::parse).ok_or(ConfigError::Lacks("UUID"))?;
        if json["c_info"]["name"].as_str().is_none_or(str::is_empty) {
            return Err(ConfigError::Lacks("name"));
        }
        for (key, name) in [("max_memkb", "memory limit"), ("target_memkb", "memory target")] {
            json["b_info"][key].as_u64().ok_or(ConfigError::Lacks(name))?;
        }
        // libxl fills it in; a configuration that was given to `xl save` has it only if somebody wrote it there.
        let vcpus = json["b_info"].get("max_vcpus").map_or(Some(1), Value::as_u64);
        vcpus.filter(|vcpus| (1..=u32::MAX.into()).contains(vcpus)).ok_or(ConfigError::Lacks("number of vCPUs"))?;
        Ok(DomainConfig { json, guest_type, uuid })
    }

    fn stored_in(
        folder: &Path,
        domain: DomId,
        uuid: DomainUuid,
        deadline: Instant,
    ) -> Result<Option<DomainConfig>, ConfigError> {
        let path = userdata_path(folder, 'd', domain, uuid, "libxl-json");
        // Looked for first: a lock must not leave a file for a domain that is not libxl's.
        if !path.exists() {
            return Ok(None);
        }
        let lock = DomainLock::acquire_in(folder, LockKind::Userdata, domain, uuid, deadline)?;
        let bytes = read_limited(&path).map_err(|source| ConfigError::Io { path, source })?;
        drop(lock);
        bytes.map(|bytes| Self::parse(&bytes)).transpose()
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Reads a file, if it is there; no more of it than shows that it is too long.
fn read_limited(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
