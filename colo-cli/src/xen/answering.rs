//! A host of Xen's that answers `colo check`.

use anyhow::Result;
use colo_core::domain::{DomainError, DomainSpec, Host, Machine};
use colo_core::net::Port;
use colo_core::xen::check::HostFacts;
use colo_core::xen::{Control, Xen, XenStore};

/// It says what the host has, and takes no machine in.
pub(crate) struct AnsweringHost(Xen);

impl AnsweringHost {
    /// # Errors
    /// Where this is no dom0, or its tools are missing: told before anybody asks.
    pub(crate) fn open() -> Result<AnsweringHost> {
        let xen = Xen::open()?;
        Control::open(xen)?;
        XenStore::open(xen)?;
        Ok(AnsweringHost(xen))
    }
}

impl Host for AnsweringHost {
    fn hypervisor(&self) -> &str {
        "xen"
    }

    fn create(&mut self, _spec: &DomainSpec) -> Result<Machine, DomainError> {
        Err(no_machines())
    }

    fn open_lan(&mut self, _spec: &DomainSpec, _nic: usize) -> Result<Box<dyn Port>, DomainError> {
        Err(no_machines())
    }

    fn facts(&mut self, spec: &DomainSpec) -> Result<Vec<(String, String)>, DomainError> {
        Ok(HostFacts::answer(self.0, spec)?)
    }
}

fn no_machines() -> DomainError {
    DomainError::Other("this build takes no Xen domains in yet".into())
}
