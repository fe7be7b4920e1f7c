use super::config::{EmbeddedConfig, HYPERVISOR};
use super::dirty::DirtyLogChoice;
use super::domain::EmbeddedDomain;
use crate::switch::SwitchPort;
use colo_core::disk::{Backend, Replica, ReplicaConfig};
use colo_core::domain::{DiskSpec, Disks, DomainError, DomainSpec, Host, Machine};
use colo_core::net::Port;
use std::path::PathBuf;
use std::sync::Arc;

/// A host that makes embedded machines, and reaches the clients through the switch on a Unix socket.
///
/// ```
/// use colo_core::domain::{Host, RunState};
/// use colo_embedded::machine::{EmbeddedConfig, EmbeddedHost};
///
/// let spec = EmbeddedConfig::named("web").to_spec()?;
/// let machine = EmbeddedHost::new("/run/colo/switch").create(&spec)?;
/// assert_eq!(machine.domain.run_state(), RunState::Suspended);
/// assert_eq!(machine.nics.len(), 1);
/// # Ok::<(), colo_core::domain::DomainError>(())
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddedHost {
    switch: PathBuf,
    dirty_log: DirtyLogChoice,
    disk: Option<ReplicaConfig>,
}

impl EmbeddedHost {
    /// A host whose clients' network is the switch that listens at that path.
    pub fn new(switch: impl Into<PathBuf>) -> EmbeddedHost {
        EmbeddedHost { switch: switch.into(), dirty_log: DirtyLogChoice::Auto, disk: None }
    }

    /// Has the machines find their dirty pages in that way.
    #[must_use]
    pub fn with_dirty_log(self, dirty_log: DirtyLogChoice) -> EmbeddedHost {
        EmbeddedHost { dirty_log, ..self }
    }

    /// Gives that disk to a machine that has one.
    #[must_use]
    pub fn with_disk(self, disk: ReplicaConfig) -> EmbeddedHost {
        EmbeddedHost { disk: Some(disk), ..self }
    }

    /// What a machine's disk is made like, where it has one.
    fn replica(&self, spec: &DomainSpec) -> Result<Option<Replica>, DomainError> {
        let [DiskSpec { size_bytes }] = spec.disks[..] else { return Ok(None) };
        let config = self.disk.clone();
        let config =
            config.ok_or_else(|| DomainError::Other("the machine has a disk, and this host none for it".into()))?;
        let replica = Replica::open(config).map_err(|error| DomainError::Other(error.to_string()))?;
        match replica.sizes().first().copied().unwrap_or(0) {
            ours if ours == size_bytes => Ok(Some(replica)),
            ours => Err(DomainError::Other(format!(
                "the machine's disk has {size_bytes} bytes, this host's {ours}: make it as large (truncate -s {size_bytes})"
            ))),
        }
    }
}

impl Host for EmbeddedHost {
    fn hypervisor(&self) -> &str {
        HYPERVISOR
    }

    fn create(&mut self, spec: &DomainSpec) -> Result<Machine, DomainError> {
        let config = EmbeddedConfig { dirty_log: self.dirty_log, ..EmbeddedConfig::from_spec(spec)? };
        let replica = self.replica(spec)?;
        let disk = replica.as_ref().map(|replica| Arc::new(replica.disk(0)) as Arc<dyn Backend>);
        let (domain, port) = EmbeddedDomain::empty_with(&config, disk)?;
        let disks = replica.map_or(Disks::None, |replica| Disks::Secondary(Box::new(replica)));
        Ok(Machine { domain: Box::new(domain), nics: vec![Box::new(port)], disks })
    }

    fn open_lan(&mut self, spec: &DomainSpec, nic: usize) -> Result<Box<dyn Port>, DomainError> {
        if nic >= spec.nics.len() {
            return Err(DomainError::BadSpec(format!("it has no network card {nic}")));
        }
        let port = SwitchPort::connect(&self.switch).map_err(DomainError::sys("connecting to the switch"))?;
        Ok(Box::new(port))
    }

    fn facts(&mut self, spec: &DomainSpec) -> Result<Vec<(String, String)>, DomainError> {
        let ram_bytes = EmbeddedConfig::from_spec(spec)?.ram_bytes;
        let switch = if self.switch.exists() { "there" } else { "missing" };
        Ok(vec![("ram_bytes".into(), ram_bytes.to_string()), ("switch".into(), switch.into())])
    }
}
