//! What a host has, as far as a domain needs it.

use super::{CheckError, CpuFacts, Features};
use crate::disk::control::Witness;
use crate::domain::DomainSpec;
use crate::ids::DomId;
use crate::net::sys::{LinkName, Links};
use crate::xen::disks::{replicated, size_bytes};
use crate::xen::plan::DomainPlan;
use crate::xen::role::Role;
use crate::xen::toolstack::{DomainConfig, DomainUuid, Xl};
use crate::xen::{Control, Xen, XenStore};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::Path;

/// What is asked of a host: what the domain's configuration names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The domain's name.
    pub name: String,
    /// Its identity.
    pub uuid: DomainUuid,
    /// The bridges of its network cards.
    pub bridges: Vec<LinkName>,
    /// What is behind its disks, by their names within the domain; drives without a medium are left out.
    pub disks: BTreeMap<String, String>,
}

/// A host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostFacts {
    /// The release of colo.
    pub colo: String,
    /// The hypervisor's version, major and minor.
    pub xen: (u32, u32),
    /// Whether the hypervisor can run PV domains.
    pub has_pv: bool,
    /// Whether it can run HVM and PVH domains.
    pub has_hvm: bool,
    /// Whether it has shadow paging, by which the pages that a PV guest writes are logged.
    pub has_shadow: bool,
    /// Memory that is no domain's, in KiB.
    pub free_kib: u64,
    /// Memory that dom0's programs can still have, in KiB.
    pub dom0_available_kib: u64,
    /// The CPU.
    pub cpu: CpuFacts,
    /// The domain that has the asked name.
    pub name_taken_by: Option<DomId>,
    /// The domain that has the asked identity.
    pub uuid_taken_by: Option<DomId>,
    /// The numbers of its domains, in ascending order.
    pub domids: Vec<u32>,
    /// Those of the asked bridges that there are.
    pub bridges: BTreeMap<String, BridgeFacts>,
    /// The sizes in bytes of what is behind the asked disks, where it is there.
    pub disks: BTreeMap<String, u64>,
    /// Whether what its disk server has is what the domain writes to; none when no disk server was named.
    pub disk_server: Option<DiskServerFit>,
}

/// Whether the disks of a disk server are those that a domain writes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskServerFit {
    /// They are.
    Fits,
    /// They are, and the other host's disk server must have the very same.
    Shared,
    /// Why they are not, or cannot be had.
    Not(String),
}

impl DiskServerFit {
    /// What follows from the sizes that a disk server says, and from what it sees; or from why it cannot be asked.
    pub fn of(config: &DomainConfig, server: Result<(&[u64], &dyn Witness), impl Display>) -> DiskServerFit {
        let proven = server.map_err(|error| error.to_string()).and_then(|(sizes, server)| {
            let disks = replicated(config, sizes, server);
            disks.map(|_| server.is_shared()).map_err(|error| error.to_string())
        });
        match proven {
            Ok(false) => DiskServerFit::Fits,
            Ok(true) => DiskServerFit::Shared,
            Err(why) => DiskServerFit::Not(why),
        }
    }
}

/// A bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BridgeFacts {
    /// Whether it is up.
    pub is_up: bool,
    /// The longest packet that it carries.
    pub mtu: u32,
}

impl Asked {
    /// The most bridges and disks that are asked for: more than any domain has, and few enough to be told of.
    pub const MAX_DEVICES: usize = 400;
    /// The longest name of a disk.
    const MAX_VDEV_BYTES: usize = 64;

    /// What is to be asked for a domain of this configuration.
    ///
    /// # Errors
    /// [`CheckError::TooManyDevices`], [`CheckError::Lacks`] for a disk without a sane name.
    pub fn about(config: &DomainConfig) -> Result<Asked, CheckError> {
        let (nics, disks) = (config.nics(), config.disks());
        let got = nics.len() + disks.len();
        if got > Self::MAX_DEVICES {
            return Err(CheckError::TooManyDevices { got, limit: Self::MAX_DEVICES });
        }
        if disks.iter().any(|disk| disk.vdev.is_empty() || disk.vdev.len() > Self::MAX_VDEV_BYTES) {
            return Err(CheckError::Lacks { from: "the domain's configuration", what: "the name of a disk" });
        }
        // What cannot be a bridge's name is found by who has the domain.
        let mut bridges: Vec<LinkName> = nics.iter().filter_map(|nic| nic.bridge.as_ref()?.parse().ok()).collect();
        bridges.sort();
        bridges.dedup();
        Ok(Asked {
            name: config.name().to_owned(),
            uuid: config.uuid(),
            bridges,
            disks: disks.into_iter().filter_map(|disk| Some((disk.vdev, disk.path?))).collect(),
        })
    }
}

impl HostFacts {
    /// What this host has to say to a primary that asks about a domain of this specification ([`Host::facts`](crate::domain::Host::facts)),
    /// but for its disk server.
    ///
    /// # Errors
    /// When the specification makes no sense, or something cannot be found out.
    pub fn answer(xen: Xen, spec: &DomainSpec) -> Result<HostFacts, CheckError> {
        let asked = Asked::about(&DomainPlan::parse(&spec.config)?.config)?;
        let (control, store) = (Control::open(xen)?, XenStore::open(xen)?);
        HostFacts::gather(xen, &control, &store, &Xl::find()?, &asked)
    }

    /// Looks at this host.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn gather(
        xen: Xen,
        control: &Control,
        store: &XenStore,
        xl: &Xl,
        asked: &Asked,
    ) -> Result<HostFacts, CheckError> {
        // Libraries of another release than the hypervisor's are not loaded at all.
        tracing::debug!("libraries of Xen {}", xen.version());
        let info = XlInfo(xl.run(["info"], Xl::COMMAND_LIMIT)?);
        let capabilities = info.need("virt_caps")?;
        let has = |capability| capabilities.split_whitespace().any(|word| word == capability);
        let mut facts = HostFacts {
            colo: env!("CARGO_PKG_VERSION").to_owned(),
            xen: control.version()?,
            has_pv: has("pv"),
            has_hvm: has("hvm"),
            has_shadow: has("shadow"),
            free_kib: info.number("free_memory")?.saturating_mul(1024),
            dom0_available_kib: available_kib(&read("/proc/meminfo")?)?,
            cpu: cpu(&read("/proc/cpuinfo")?, info.need("hw_caps")?)?,
            name_taken_by: None,
            uuid_taken_by: None,
            domids: Vec::new(),
            bridges: bridges(&asked.bridges)?,
            disks: BTreeMap::new(),
            disk_server: None,
        };
        for domain in control.domains()? {
            facts.domids.push(domain.domid.0);
            // One that is held here goes as soon as another session begins.
            if Role::of(store, domain.domid)? == Some(Role::Secondary) {
                continue;
            }
            if domain.uuid == asked.uuid.0 {
                facts.uuid_taken_by = Some(domain.domid);
            }
            let name = store.read_text(&format!("/local/domain/{}/name", domain.domid.0))?;
            if name.is_some_and(|name| name == asked.name) {
                facts.name_taken_by = Some(domain.domid);
            }
        }
        let size = |(vdev, path): (&String, &String)| Some((vdev.clone(), size_bytes(Path::new(path))?));
        facts.disks = asked.disks.iter().filter_map(size).collect();
        Ok(facts)
    }
}

/// What `xl info` prints.
struct XlInfo(String);

impl XlInfo {
    fn need(&self, key: &'static str) -> Result<&str, CheckError> {
        value_of(&self.0, key).ok_or(CheckError::Lacks { from: "xl info", what: key })
    }

    fn number(&self, key: &'static str) -> Result<u64, CheckError> {
        self.need(key)?.parse().map_err(|_| CheckError::Lacks { from: "xl info", what: key })
    }
}

/// The value of the first line `key : value`.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let pair = |line: &'a str| line.split_once(':').filter(|(name, _)| name.trim() == key);
    text.lines().find_map(pair).map(|(_, value)| value.trim())
}

fn read(path: &str) -> Result<String, CheckError> {
    fs::read_to_string(path).map_err(|source| CheckError::Io { what: path.to_owned(), source })
}

fn available_kib(meminfo: &str) -> Result<u64, CheckError> {
    let value = value_of(meminfo, "MemAvailable").and_then(|value| value.strip_suffix("kB")?.trim().parse().ok());
    value.ok_or(CheckError::Lacks { from: "/proc/meminfo", what: "MemAvailable" })
}

fn cpu(cpuinfo: &str, hw_caps: &str) -> Result<CpuFacts, CheckError> {
    let need = |what| value_of(cpuinfo, what).ok_or(CheckError::Lacks { from: "/proc/cpuinfo", what });
    let number = |what| need(what)?.parse().map_err(|_| CheckError::Lacks { from: "/proc/cpuinfo", what });
    let features = hw_caps.parse::<Features>().map_err(|_| CheckError::Lacks { from: "xl info", what: "hw_caps" })?;
    Ok(CpuFacts {
        vendor: need("vendor_id")?.to_owned(),
        family_model: (number("cpu family")?, number("model")?),
        name: need("model name")?.to_owned(),
        features,
    })
}

fn bridges(asked: &[LinkName]) -> Result<BTreeMap<String, BridgeFacts>, CheckError> {
    let mut links = Links::open().map_err(|source| CheckError::Io { what: "netlink".into(), source })?;
    let mut found = BTreeMap::new();
    for name in asked {
        // What is not there, and what is no bridge, is all the same to a card that needs one.
        if let Some(link) = links.find(name).ok().filter(|link| link.is_bridge()) {
            found.insert(name.to_string(), BridgeFacts { is_up: link.is_up, mtu: link.mtu });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::check::testing::config;

    #[test]
    fn what_a_configuration_asks_for() {
        let devices = r#""nics": [ { "devid": 0, "bridge": "xenbr1" }, { "devid": 1, "bridge": "xenbr0" },
              { "devid": 2, "bridge": "xenbr1" }, { "devid": 3, "bridge": "no bridge" } ],
            "disks": [ { "vdev": "xvda", "pdev_path": "/images/web", "readwrite": 1 }, { "vdev": "hdc", "pdev_path": "" } ]"#;
        let asked = Asked::about(&config(devices)).unwrap();
        assert_eq!(asked.name, "web");
        assert_eq!(asked.bridges, ["xenbr0", "xenbr1"].map(|name| name.parse().unwrap()));
        assert_eq!(asked.disks, BTreeMap::from([("xvda".to_owned(), "/images/web".to_owned())]));

        let many = r#"{ "devid": 0 },"#.repeat(Asked::MAX_DEVICES) + r#"{ "devid": 0 }"#;
        let error = Asked::about(&config(&format!(r#""nics": [ {many} ]"#))).unwrap_err();
        assert!(matches!(error, CheckError::TooManyDevices { got: 401, limit: 400 }), "{error}");
    }

    #[test]
    fn what_linux_and_xl_print() {
        let info = XlInfo("host : a\nfree_memory            : 431\nvirt_caps              : pv hvm hap\n".into());
        assert_eq!(info.number("free_memory").unwrap(), 431);
        assert_eq!(info.need("virt_caps").unwrap(), "pv hvm hap");
        assert_eq!(info.need("hw_caps").unwrap_err().to_string(), "xl info does not tell hw_caps");
        assert_eq!(available_kib("MemTotal:  9 kB\nMemAvailable:     512 kB\n").unwrap(), 512);
        assert!(available_kib("MemTotal: 9 kB\n").is_err());

        let text =
            "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 15\nmodel\t\t: 107\nmodel name\t: QEMU: 2.5+\n";
        let caps = "00000001:00000000:00000000:00000000:00000000:00000000:00000000:00000000";
        let cpu = cpu(text, caps).unwrap();
        assert_eq!(
            (cpu.vendor.as_str(), cpu.family_model, cpu.name.as_str()),
            ("AuthenticAMD", (15, 107), "QEMU: 2.5+")
        );
        assert_eq!(cpu.features.to_string(), caps);
    }

    #[test]
    fn a_link_that_is_no_bridge_is_none() {
        assert!(bridges(&["lo".parse().unwrap(), "no-such-link".parse().unwrap()]).unwrap().is_empty());
    }
}
