use std::fmt;
use std::net::Ipv4Addr;

/// What a domain is: enough for another host to make one that its state can be loaded into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainSpec {
    /// Its name, unique on a host. At most 255 bytes.
    pub name: String,
    /// The hypervisor that can make it ("embedded", "xen"). At most 32 bytes.
    pub hypervisor: String,
    /// The first page number that does not exist: for a domain without holes, its memory in pages.
    pub pfn_limit: u64,
    /// Its network cards. At most 16.
    pub nics: Vec<NicSpec>,
    /// Those of its disks that are protected with it. At most [`MAX_DISKS`](crate::disk::MAX_DISKS).
    pub disks: Vec<DiskSpec>,
    /// What else the hypervisor must know; only it reads this. At most 64 KiB.
    pub config: Vec<u8>,
}

impl DomainSpec {
    /// The most network cards of a domain.
    pub const MAX_NICS: usize = 16;
    /// The longest name, in bytes.
    pub const MAX_NAME_BYTES: usize = 255;
    /// The longest name of a hypervisor, in bytes.
    pub const MAX_HYPERVISOR_BYTES: usize = 32;
    /// The longest configuration, in bytes.
    pub const MAX_CONFIG_BYTES: usize = 64 * 1024;
    /// The most pages: 16 TiB, more than any Xen gives a domain.
    pub const MAX_PFN_LIMIT: u64 = crate::stream::MAX_PFN_LIMIT;

    /// Guest memory in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.pfn_limit * crate::ids::PAGE_SIZE as u64
    }
}

/// One network card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NicSpec {
    /// Its address, the same on both hosts.
    pub mac: MacAddr,
    /// The guest's IPv4 address there, where the host knows it; else it is learnt from what the guest sends.
    pub ipv4: Option<Ipv4Addr>,
}

/// A disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpec {
    /// Its size, the same on both hosts.
    pub size_bytes: u64,
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of everybody.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// Whether the address means many: broadcast or multicast.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
