//! What a domain is like, as far as protecting it goes.

use super::{CheckError, Features, Guest};
use crate::domain::{DomainSpec, MacAddr, NicSpec};
use crate::ids::DomId;
use crate::net::sys::{Link, LinkName, Links};
use crate::xen::control::{DomainInfo, GuestType, ShutdownReason};
use crate::xen::plan::DomainPlan;
use crate::xen::toolstack::{Disk, DomainConfig, Nic};
use crate::xen::{Control, XenStore};
use xen_sys::ctrl;

/// A domain of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainFacts {
    /// Its name.
    pub name: String,
    /// Its number.
    pub domid: DomId,
    /// What it is doing.
    pub state: DomainState,
    /// What kind of guest it is.
    pub guest: Guest,
    /// vCPUs that are online.
    pub online_vcpus: u32,
    /// The memory that it may have, in KiB.
    pub memory_kib: u64,
    /// Whether it can suspend itself.
    pub suspend: SuspendSupport,
    /// What it is told that its CPU can do.
    pub features: Features,
    /// Its network cards.
    pub nics: Vec<NicFacts>,
    /// Its disks and drives.
    pub disks: Vec<DiskFacts>,
    /// Its other devices, as `xl.cfg` calls them, with the number of each.
    pub other_devices: Vec<(&'static str, usize)>,
    /// Whether its device model is one whose state `colo` cannot have.
    pub has_other_device_model: bool,
}

/// What a domain is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DomainState {
    /// It runs, or waits for something to do.
    Running,
    /// The toolstack has paused it.
    Paused,
    /// It stands still to be saved.
    Suspended,
    /// It has ended in another way.
    Ended(ShutdownReason),
    /// It is being destroyed.
    Dying,
}

/// Whether a guest can suspend itself when it is asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuspendSupport {
    /// It has said so, or has an event channel for it.
    Announced,
    /// It need not: the hypervisor stops it.
    NotNeeded,
    /// It has not said; it will turn out when it is asked.
    Unknown,
}

/// A network card of the domain's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NicFacts {
    /// Its number within the domain.
    pub devid: u32,
    /// Its backend's device in dom0: `vif3.0`.
    pub link: String,
    /// The longest packet that the device carries; none when there is no such device.
    pub mtu: Option<u32>,
    /// What the device belongs to now, by name.
    pub master: Option<String>,
    /// The bridge that it is to be in.
    pub bridge: Option<String>,
    /// The program that connected it, where it is not the usual one.
    pub script: Option<String>,
}

/// A disk of the domain's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskFacts {
    /// Its name within the domain: `xvda`.
    pub vdev: String,
    /// The file or device behind it; none for an empty drive.
    pub path: Option<String>,
    /// Whether the guest may write.
    pub read_write: bool,
}

impl DomainFacts {
    /// Looks at a domain. `config` is its configuration, as it is now.
    ///
    /// # Errors
    /// [`CheckError`].
    pub fn gather(
        control: &Control,
        store: &XenStore,
        info: &DomainInfo,
        config: &DomainConfig,
    ) -> Result<DomainFacts, CheckError> {
        let guest = guest(control, info)?;
        let mut links = Links::open().map_err(|source| CheckError::Io { what: "netlink".into(), source })?;
        let nics = config.nics().into_iter().map(|nic| card(store, &mut links, info.domid, nic));
        let disk = |disk: Disk| DiskFacts { vdev: disk.vdev, path: disk.path, read_write: disk.read_write };
        Ok(DomainFacts {
            name: config.name().to_owned(),
            domid: info.domid,
            state: DomainState::of(info),
            guest,
            online_vcpus: info.online_vcpus,
            memory_kib: config.max_memory_kib(),
            suspend: suspend_support(store, info.domid, guest)?,
            features: Features::of_policy(&control.cpu_policy(info.domid)?.cpuid),
            nics: nics.collect::<Result<_, _>>()?,
            disks: config.disks().into_iter().map(disk).collect(),
            other_devices: config.other_devices(),
            has_other_device_model: config.has_other_device_model(),
        })
    }

    /// The domain's specification, by which the peer is asked: `pages` is how many numbers of pages it has. Cards that there may not
    /// be are left out; whoever has these facts knows of them.
    pub fn spec(&self, config: &DomainConfig, pages: u64) -> DomainSpec {
        let macs = config.nics().into_iter().map(|nic| nic.mac.as_deref().and_then(mac));
        let nic = |mac: Option<MacAddr>| NicSpec { mac: mac.unwrap_or(MacAddr([0; 6])), ipv4: None };
        DomainSpec {
            name: self.name.clone(),
            hypervisor: "xen".into(),
            pfn_limit: pages.clamp(1, DomainSpec::MAX_PFN_LIMIT),
            nics: macs.map(nic).take(DomainSpec::MAX_NICS).collect(),
            disks: Vec::new(),
            config: DomainPlan { config: config.clone(), has_emulated_cards: false, is_twin: false }.to_bytes(),
        }
    }
}

impl DomainState {
    fn of(info: &DomainInfo) -> DomainState {
        match info.shutdown {
            _ if info.dying => DomainState::Dying,
            Some(ShutdownReason::SUSPEND) => DomainState::Suspended,
            Some(reason) => DomainState::Ended(reason),
            None if info.paused => DomainState::Paused,
            None => DomainState::Running,
        }
    }
}

/// The kind of guest that a domain has.
fn guest(control: &Control, info: &DomainInfo) -> Result<Guest, CheckError> {
    let guest_type = info.guest_type();
    let has_pv_drivers = match guest_type {
        GuestType::Pv | GuestType::Pvh => true,
        GuestType::Hvm => control.hvm_param(info.domid, ctrl::HVM_PARAM_CALLBACK_IRQ)? != 0,
    };
    Ok(Guest { guest_type, has_pv_drivers })
}

fn suspend_support(store: &XenStore, domid: DomId, guest: Guest) -> Result<SuspendSupport, CheckError> {
    if !guest.has_pv_drivers {
        return Ok(SuspendSupport::NotNeeded);
    }
    let node = |name: &str| store.read_text(&format!("/local/domain/{}/{name}", domid.0));
    let has_channel = node("device/suspend/event-channel")?.is_some_and(|port| port.trim().parse::<u32>().is_ok());
    let has_said = node("control/feature-suspend")?.is_some_and(|value| value.trim() == "1");
    Ok(if has_channel || has_said { SuspendSupport::Announced } else { SuspendSupport::Unknown })
}

fn card(store: &XenStore, links: &mut Links, domid: DomId, nic: Nic) -> Result<NicFacts, CheckError> {
    let backend = format!("/local/domain/0/backend/vif/{}/{}", domid.0, nic.devid);
    let given = store.read_text(&format!("{backend}/vifname"))?.filter(|name| !name.is_empty());
    let name = given.unwrap_or_else(|| format!("vif{}.{}", domid.0, nic.devid));
    let link = name.parse::<LinkName>().ok().and_then(|name| links.find(&name).ok());
    let master = link.as_ref().and_then(|link| links.get(link.master?).ok());
    Ok(NicFacts {
        devid: nic.devid,
        link: name,
        mtu: link.map(|link: Link| link.mtu),
        master: master.map(|master| master.name.to_string()),
        bridge: nic.bridge,
        script: nic.script,
    })
}

/// An Ethernet address as libxl writes it.
fn mac(text: &str) -> Option<MacAddr> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok());
    Some(MacAddr(bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::check::testing::{config, domain};

    #[test]
    fn the_peer_is_asked_about_the_whole_domain() {
        let many = (0..20).map(|n| format!(r#"{{ "devid": {n}, "mac": "00:16:3e:00:00:{n:02x}" }}"#));
        let config = config(&format!(r#""nics": [ {} ]"#, many.collect::<Vec<_>>().join(",")));
        let spec = domain().spec(&config, u64::MAX);
        assert_eq!((spec.name.as_str(), spec.hypervisor.as_str()), ("web", "xen"));
        assert_eq!((spec.pfn_limit, spec.nics.len()), (DomainSpec::MAX_PFN_LIMIT, 16));
        assert_eq!(spec.nics[3].mac, MacAddr([0, 0x16, 0x3e, 0, 0, 3]));
        assert_eq!(DomainPlan::parse(&spec.config).unwrap().config, config);
        // A domain that has no page yet cannot be told of otherwise.
        assert_eq!(domain().spec(&config, 0).pfn_limit, 1);
    }

    #[test]
    fn addresses() {
        assert_eq!(mac("00:16:3e:0a:ff:01"), Some(MacAddr([0, 0x16, 0x3e, 0x0a, 0xff, 1])));
        for bad in ["", "00:16:3e:0a:ff", "00:16:3e:0a:ff:01:02", "00:16:3e:0a:ff:0g", "00:16:3e:0a:ff:100"] {
            assert_eq!(mac(bad), None, "{bad}");
        }
    }
}
