use super::abi::{MAX_DISK_BYTES, MAX_RAM_BYTES, MIN_DISK_BYTES, MIN_RAM_BYTES, PAGE_BYTES};
use super::dirty::DirtyLogChoice;
use colo_core::domain::{DiskSpec, DomainError, DomainSpec, MacAddr, NicSpec};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::Ipv4Addr;

/// The hypervisor's name, as [`DomainSpec::hypervisor`] carries it.
pub const HYPERVISOR: &str = "embedded";

/// The version of the layout of [`DomainSpec::config`].
const CONFIG_VERSION: u32 = 1;
/// Its length: version, prefix length, gateway, seed.
const CONFIG_BYTES: usize = 20;

/// What an embedded machine is to be.
///
/// ```
/// use colo_embedded::machine::EmbeddedConfig;
///
/// let config = EmbeddedConfig { ram_bytes: 16 << 20, ..EmbeddedConfig::named("web") };
/// let spec = config.to_spec()?;
/// assert_eq!(spec.pfn_limit, 4096);
/// assert_eq!(EmbeddedConfig::from_spec(&spec)?, config);
/// # Ok::<(), colo_core::domain::DomainError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmbeddedConfig {
    /// The domain's name: 1 to 255 bytes.
    pub name: String,
    /// Guest memory in bytes: whole pages, from [`MIN_RAM_BYTES`] to [`MAX_RAM_BYTES`].
    pub ram_bytes: u64,
    /// The network card's address; not a multicast one.
    pub mac: MacAddr,
    /// The guest's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Length of its network's prefix: at most 32 bits.
    pub prefix_len: u32,
    /// The gateway's IPv4 address.
    pub gateway: Ipv4Addr,
    /// Seed of the guest's random numbers.
    pub seed: u64,
    /// Its disk in bytes: whole pages, from [`MIN_DISK_BYTES`] to [`MAX_DISK_BYTES`]; 0 for none.
    pub disk_bytes: u64,
    /// How dirty pages are found on this host. A choice of the host's, so no part of the specification.
    pub dirty_log: DirtyLogChoice,
}

impl EmbeddedConfig {
    /// The defaults: 64 MiB, no disk, `10.77.0.10/24` behind `10.77.0.1`, MAC address `02:43:4f:4c:4f:0a`, a seed by chance.
    pub fn named(name: &str) -> EmbeddedConfig {
        EmbeddedConfig {
            name: name.into(),
            ram_bytes: 64 << 20,
            mac: MacAddr([0x02, 0x43, 0x4f, 0x4c, 0x4f, 0x0a]),
            ipv4: Ipv4Addr::new(10, 77, 0, 10),
            prefix_len: 24,
            gateway: Ipv4Addr::new(10, 77, 0, 1),
            // The standard library keys its hash maps by chance: enough for a guest's port numbers.
            seed: RandomState::new().build_hasher().finish(),
            disk_bytes: 0,
            dirty_log: DirtyLogChoice::Auto,
        }
    }

    /// The specification that another host makes the same machine from.
    ///
    /// [`DomainSpec::config`] is, with numbers in little-endian order: version (`u32`, 1), prefix length (`u32`), the gateway's
    /// four bytes, seed (`u64`).
    ///
    /// # Errors
    /// [`DomainError::BadSpec`] when a field is out of its range.
    pub fn to_spec(&self) -> Result<DomainSpec, DomainError> {
        self.check()?;
        let mut config = Vec::with_capacity(CONFIG_BYTES);
        config.extend_from_slice(&CONFIG_VERSION.to_le_bytes());
        config.extend_from_slice(&self.prefix_len.to_le_bytes());
        config.extend_from_slice(&self.gateway.octets());
        config.extend_from_slice(&self.seed.to_le_bytes());
        Ok(DomainSpec {
            name: self.name.clone(),
            hypervisor: HYPERVISOR.into(),
            pfn_limit: self.ram_bytes / PAGE_BYTES,
            nics: vec![NicSpec { mac: self.mac, ipv4: Some(self.ipv4) }],
            disks: Vec::from_iter((self.disk_bytes > 0).then_some(DiskSpec { size_bytes: self.disk_bytes })),
            config,
        })
    }

    /// What that specification, which may come from another host, asks for.
    ///
    /// # Errors
    /// [`DomainError::BadSpec`] when it is not for this hypervisor, or a field is out of its range.
    pub fn from_spec(spec: &DomainSpec) -> Result<EmbeddedConfig, DomainError> {
        if spec.hypervisor != HYPERVISOR {
            return Err(bad(format!("it is for the hypervisor {:?}", spec.hypervisor)));
        }
        let [NicSpec { mac, ipv4: Some(ipv4) }] = spec.nics[..] else {
            return Err(bad("an embedded machine has one network card, with an IPv4 address".into()));
        };
        let disk_bytes = match spec.disks[..] {
            [] => 0,
            [DiskSpec { size_bytes }] if size_bytes > 0 => size_bytes,
            _ => return Err(bad("an embedded machine has at most one disk, which is not empty".into())),
        };
        let fields = ConfigFields::decode(&spec.config)?;
        let config = EmbeddedConfig {
            name: spec.name.clone(),
            ram_bytes: spec.pfn_limit.checked_mul(PAGE_BYTES).ok_or_else(|| bad("more memory than can be".into()))?,
            mac,
            ipv4,
            prefix_len: fields.prefix_len,
            gateway: fields.gateway,
            seed: fields.seed,
            disk_bytes,
            dirty_log: DirtyLogChoice::Auto,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), DomainError> {
        if self.name.is_empty() || self.name.len() > DomainSpec::MAX_NAME_BYTES {
            return Err(bad(format!("a name of {} bytes", self.name.len())));
        }
        if self.ram_bytes % PAGE_BYTES != 0 || !(MIN_RAM_BYTES..=MAX_RAM_BYTES).contains(&self.ram_bytes) {
            return Err(bad(format!(
                "{} bytes of memory; must be whole pages, from {MIN_RAM_BYTES} to {MAX_RAM_BYTES} bytes",
                self.ram_bytes
            )));
        }
        let disk_fits =
            self.disk_bytes % PAGE_BYTES == 0 && (MIN_DISK_BYTES..=MAX_DISK_BYTES).contains(&self.disk_bytes);
        if self.disk_bytes != 0 && !disk_fits {
            return Err(bad(format!(
                "a disk of {} bytes; must be whole pages, from {MIN_DISK_BYTES} to {MAX_DISK_BYTES} bytes",
                self.disk_bytes
            )));
        }
        if self.mac.is_multicast() {
            return Err(bad(format!("{} is a multicast address", self.mac)));
        }
        if self.prefix_len > 32 {
            return Err(bad(format!("a network prefix of {} bits", self.prefix_len)));
        }
        Ok(())
    }
}

struct ConfigFields {
    prefix_len: u32,
    gateway: Ipv4Addr,
    seed: u64,
}

impl ConfigFields {
    fn decode(bytes: &[u8]) -> Result<ConfigFields, DomainError> {
        let bytes: &[u8; CONFIG_BYTES] =
            bytes.try_into().map_err(|_| bad(format!("a configuration of {} bytes", bytes.len())))?;
        let [v0, v1, v2, v3, p0, p1, p2, p3, g0, g1, g2, g3, seed @ ..] = *bytes;
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version != CONFIG_VERSION {
            return Err(bad(format!("a configuration of version {version}; this host knows {CONFIG_VERSION}")));
        }
        Ok(ConfigFields {
            prefix_len: u32::from_le_bytes([p0, p1, p2, p3]),
            gateway: Ipv4Addr::new(g0, g1, g2, g3),
            seed: u64::from_le_bytes(seed),
        })
    }
}

fn bad(reason: String) -> DomainError {
    DomainError::BadSpec(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> EmbeddedConfig {
        EmbeddedConfig::named("test")
    }

    proptest! {
        #[test]
        fn a_spec_carries_the_whole_configuration(
            name in "[a-z]{1,255}", pages in 4096_u64..=1 << 20, mac: [u8; 6], ipv4: [u8; 4], gateway: [u8; 4], prefix_len in 0_u32..=32, seed: u64,
            disk_pages in prop_oneof![Just(0), 256_u64..=1 << 32],
        ) {
            let disk_bytes = disk_pages * PAGE_BYTES;
            let mac = MacAddr([mac[0] & !1, mac[1], mac[2], mac[3], mac[4], mac[5]]);
            let config = EmbeddedConfig {
                name, ram_bytes: pages * PAGE_BYTES, mac, ipv4: ipv4.into(), prefix_len, gateway: gateway.into(), seed, disk_bytes, dirty_log: DirtyLogChoice::Auto,
            };
            prop_assert_eq!(EmbeddedConfig::from_spec(&config.to_spec().unwrap()).unwrap(), config);
        }

        #[test]
        fn no_bytes_of_a_configuration_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..64), pfn_limit: u64) {
            let mut spec = config().to_spec().unwrap();
            spec.config = bytes;
            spec.pfn_limit = pfn_limit;
            let _ = EmbeddedConfig::from_spec(&spec);
        }
    }

    #[test]
    fn refuses_what_it_cannot_build() {
        let bad_configs = [
            EmbeddedConfig { name: String::new(), ..config() },
            EmbeddedConfig { name: "x".repeat(256), ..config() },
            EmbeddedConfig { ram_bytes: MIN_RAM_BYTES - PAGE_BYTES, ..config() },
            EmbeddedConfig { ram_bytes: MAX_RAM_BYTES + PAGE_BYTES, ..config() },
            EmbeddedConfig { ram_bytes: MIN_RAM_BYTES + 1, ..config() },
            EmbeddedConfig { mac: MacAddr::BROADCAST, ..config() },
            EmbeddedConfig { prefix_len: 33, ..config() },
            EmbeddedConfig { disk_bytes: PAGE_BYTES, ..config() },
            EmbeddedConfig { disk_bytes: MIN_DISK_BYTES + 1, ..config() },
            EmbeddedConfig { disk_bytes: MAX_DISK_BYTES + PAGE_BYTES, ..config() },
        ];
        for bad in bad_configs {
            assert!(matches!(bad.to_spec(), Err(DomainError::BadSpec(_))), "{bad:?}");
        }
        let good = config().to_spec().unwrap();
        let bad_specs = [
            DomainSpec { hypervisor: "xen".into(), ..good.clone() },
            DomainSpec { nics: Vec::new(), ..good.clone() },
            DomainSpec { nics: vec![good.nics[0], good.nics[0]], ..good.clone() },
            DomainSpec { nics: vec![NicSpec { ipv4: None, ..good.nics[0] }], ..good.clone() },
            DomainSpec { pfn_limit: u64::MAX, ..good.clone() },
            DomainSpec { disks: vec![DiskSpec { size_bytes: 0 }], ..good.clone() },
            DomainSpec { disks: vec![DiskSpec { size_bytes: MIN_DISK_BYTES }; 2], ..good.clone() },
            DomainSpec { disks: vec![DiskSpec { size_bytes: u64::MAX }], ..good.clone() },
            DomainSpec { config: good.config[..19].to_vec(), ..good.clone() },
            DomainSpec { config: [&[2], &good.config[1..]].concat(), ..good.clone() },
        ];
        for bad in bad_specs {
            assert!(matches!(EmbeddedConfig::from_spec(&bad), Err(DomainError::BadSpec(_))), "{bad:?}");
        }
    }
}
