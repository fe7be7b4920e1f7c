use super::name::LinkName;
use super::netlink::{Attributes, LinkHeader, Netlink, RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK, Request};
use crate::domain::MacAddr;
use std::fmt;
use std::io;

// Attributes of a device, of its kind, and of a bridge's port (`linux/if_link.h`, `linux/if_bridge.h`).
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const RTEXT_FILTER_BRVLAN: u32 = 2;
const BRIDGE: &[u8] = b"bridge";

/// What of a port's settings is an operator's: priority, cost, hairpin, guard, root block, fast leave, learning, flooding of unicast,
/// proxy ARP, the same for Wi-Fi, multicast router, flooding of multicast, multicast to unicast, flooding of broadcast, forwarded
/// groups, suppressed neighbours, isolation, locking. The others say how the port is doing.
const SETTINGS: [u16; 18] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 25, 27, 28, 30, 31, 32, 33, 39];

/// The kernel's number of a network device: its name may change, and may be another's later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u32);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A network device, as it was when it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its number.
    pub id: LinkId,
    /// Its name.
    pub name: LinkName,
    /// What it is, where the kernel says so: `bridge`, `tun` (a TAP, too), `veth`.
    pub kind: Option<String>,
    /// Whether it is meant to be up.
    pub is_up: bool,
    /// Whether frames pass: it is up, and its cable plugged in at both ends. Some moments after it was taken up.
    pub is_running: bool,
    /// Whether the host answers ARP there, and asks.
    pub has_arp: bool,
    /// The longest packet, without the Ethernet header.
    pub mtu: u32,
    /// Its Ethernet address, where it has one.
    pub address: Option<MacAddr>,
    /// The bridge that it is a port of, or whatever else it belongs to.
    pub master: Option<LinkId>,
}

impl Link {
    /// Whether it is a bridge of Linux' own.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref().is_some_and(|kind| kind.as_bytes() == BRIDGE)
    }
}

/// What an operator has set of a bridge's port: learning, hairpin, spanning tree, its VLANs. Goes from one port to another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BridgePort {
    /// Attributes as the kernel has them, by number.
    pub settings: Vec<(u16, Vec<u8>)>,
    /// The VLANs that it is in: the kernel's flags, and the number.
    pub vlans: Vec<(u16, u16)>,
}

/// The network devices of the namespace in which this was opened.
///
/// Looking needs no privilege; every change needs `CAP_NET_ADMIN`.
///
/// ```
/// use colo_core::net::sys::Links;
///
/// let mut links = Links::open()?;
/// let loopback = links.find(&"lo".parse()?)?;
/// assert_eq!(links.get(loopback.id)?.name.as_str(), "lo");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Links(Netlink);

impl Links {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    /// Those of `socket(2)`.
    pub fn open() -> io::Result<Links> {
        Netlink::open().map(Links)
    }

    /// The device of this name.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn find(&mut self, name: &LinkName) -> io::Result<Link> {
        let mut request = Request::new(RTM_GETLINK, LinkHeader::default());
        let name = [name.as_str().as_bytes(), &[0]].concat();
        request.put(IFLA_IFNAME, &name);
        self.0.get(request, link_of)?.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The device of this number.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn get(&mut self, id: LinkId) -> io::Result<Link> {
        let request = Request::new(RTM_GETLINK, LinkHeader::of(id.0));
        self.0.get(request, link_of)?.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Takes a device up or down.
    ///
    /// # Errors
    /// What the kernel says, as for all that follow.
    pub fn set_up(&mut self, id: LinkId, up: bool) -> io::Result<()> {
        self.set_flag(id, libc::IFF_UP as u32, up)
    }

    /// Lets the host speak ARP there, or not.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_arp(&mut self, id: LinkId, arp: bool) -> io::Result<()> {
        self.set_flag(id, libc::IFF_NOARP as u32, !arp)
    }

    /// Sets the longest packet, in bytes without the Ethernet header.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_mtu(&mut self, id: LinkId, mtu: u32) -> io::Result<()> {
        self.set(id, IFLA_MTU, &mtu.to_ne_bytes())
    }

    /// Sets how many frames wait for it at most.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_queue_frames(&mut self, id: LinkId, frames: u32) -> io::Result<()> {
        self.set(id, IFLA_TXQLEN, &frames.to_ne_bytes())
    }

    /// Sets the Ethernet address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_address(&mut self, id: LinkId, address: MacAddr) -> io::Result<()> {
        self.set(id, IFLA_ADDRESS, &address.0)
    }

    /// Makes a device a port of a bridge, or takes it out of the one that it is in.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_master(&mut self, id: LinkId, master: Option<LinkId>) -> io::Result<()> {
        self.set(id, IFLA_MASTER, &master.map_or(0, |master| master.0).to_ne_bytes())
    }

    /// Removes a device, such as a TAP.
    ///
    /// # Errors
    /// What the kernel says: `ENODEV` when it is gone, `EOPNOTSUPP` when it cannot be removed.
    pub fn remove(&mut self, id: LinkId) -> io::Result<()> {
        self.0.tell(Request::new(RTM_DELLINK, LinkHeader::of(id.0)))
    }

    /// The settings of a bridge's port; none when the device is not in a bridge.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bridge_port(&mut self, id: LinkId) -> io::Result<Option<BridgePort>> {
        let request = Request::new(RTM_GETLINK, LinkHeader::of(id.0));
        let settings = self.0.get(request, |_, attributes| settings_of(attributes))?;
        let Some(settings) = settings else { return Ok(None) };
        Ok(Some(BridgePort { settings, vlans: self.vlans(id)? }))
    }

    /// Gives a bridge's port these settings.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_bridge_port(&mut self, id: LinkId, port: &BridgePort) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, LinkHeader::of(id.0));
        request.nest(IFLA_LINKINFO, |info| {
            info.put(IFLA_INFO_SLAVE_KIND, BRIDGE).nest(IFLA_INFO_SLAVE_DATA, |data| {
                for (kind, value) in &port.settings {
                    data.put(*kind, value);
                }
            });
        });
        self.0.tell(request)?;
        let now = self.vlans(id)?;
        let superfluous: Vec<_> = now.iter().filter(|vlan| !port.vlans.contains(vlan)).copied().collect();
        let missing: Vec<_> = port.vlans.iter().filter(|vlan| !now.contains(vlan)).copied().collect();
        self.change_vlans(RTM_DELLINK, id, &superfluous)?;
        self.change_vlans(RTM_SETLINK, id, &missing)
    }

    fn vlans(&mut self, id: LinkId) -> io::Result<Vec<(u16, u16)>> {
        let mut request = Request::new(RTM_GETLINK, bridge_header(0));
        request.put(IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN.to_ne_bytes());
        let mut vlans = Vec::new();
        self.0.dump(request, |header, attributes| {
            if header.index == id.0 {
                vlans.extend(attributes.nested(IFLA_AF_SPEC).filter_map(vlan_of));
            }
        })?;
        Ok(vlans)
    }

    fn change_vlans(&mut self, kind: u16, id: LinkId, vlans: &[(u16, u16)]) -> io::Result<()> {
        if vlans.is_empty() {
            return Ok(());
        }
        let mut request = Request::new(kind, bridge_header(id.0));
        request.nest(IFLA_AF_SPEC, |spec| {
            for (flags, number) in vlans {
                spec.put(IFLA_BRIDGE_VLAN_INFO, &[flags.to_ne_bytes(), number.to_ne_bytes()].concat());
            }
        });
        self.0.tell(request)
    }

    fn set(&mut self, id: LinkId, attribute: u16, value: &[u8]) -> io::Result<()> {
        let mut request = Request::new(RTM_SETLINK, LinkHeader::of(id.0));
        request.put(attribute, value);
        self.0.tell(request)
    }

    fn set_flag(&mut self, id: LinkId, flag: u32, value: bool) -> io::Result<()> {
        let header = LinkHeader { flags: if value { flag } else { 0 }, mask: flag, ..LinkHeader::of(id.0) };
        self.0.tell(Request::new(RTM_SETLINK, header))
    }
}

fn bridge_header(index: u32) -> LinkHeader {
    LinkHeader { family: libc::AF_BRIDGE as u8, ..LinkHeader::of(index) }
}

fn link_of(header: LinkHeader, attributes: Attributes<'_>) -> Option<Link> {
    let text = |bytes: &[u8]| Some(std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').to_owned());
    Some(Link {
        id: LinkId(header.index),
        name: text(attributes.find(IFLA_IFNAME)?)?.parse().ok()?,
        kind: attributes.nested(IFLA_LINKINFO).find(IFLA_INFO_KIND).and_then(text),
        is_up: header.flags & libc::IFF_UP as u32 != 0,
        is_running: header.flags & libc::IFF_RUNNING as u32 != 0,
        has_arp: header.flags & libc::IFF_NOARP as u32 == 0,
        mtu: attributes.number(IFLA_MTU)?,
        address: attributes.find(IFLA_ADDRESS).and_then(|bytes| Some(MacAddr(bytes.try_into().ok()?))),
        master: attributes.number(IFLA_MASTER).map(LinkId),
    })
}

fn settings_of(attributes: Attributes<'_>) -> Option<Vec<(u16, Vec<u8>)>> {
    let info = attributes.nested(IFLA_LINKINFO);
    info.find(IFLA_INFO_SLAVE_KIND).filter(|kind| kind.strip_suffix(&[0]).unwrap_or(kind) == BRIDGE)?;
    let data = info.nested(IFLA_INFO_SLAVE_DATA).filter(|(kind, _)| SETTINGS.contains(kind));
    Some(data.map(|(kind, value)| (kind, value.to_vec())).collect())
}

fn vlan_of((kind, value): (u16, &[u8])) -> Option<(u16, u16)> {
    let &[f0, f1, n0, n1] = value else { return None };
    (kind == IFLA_BRIDGE_VLAN_INFO).then_some((u16::from_ne_bytes([f0, f1]), u16::from_ne_bytes([n0, n1])))
}
