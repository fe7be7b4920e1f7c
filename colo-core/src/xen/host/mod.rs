//! A Xen host that takes machines in: the secondary's side of the seam.
//!
//! A domain is made by `xl` from the configuration of its primary, which came with the greeting: of the same number where that is free,
//! of the same identity, under another name until it serves. Its network cards are taken out of their bridges before it runs, and enter
//! them when it serves. If this process dies before that, its guard destroys the domain; after that it goes on by itself.
//!
//! ```no_run
//! use colo_core::session::{SecondarySession, SecondarySessionConfig};
//! use colo_core::xen::Xen;
//! use colo_core::xen::host::XenHost;
//!
//! // Before there are other threads.
//! let host = XenHost::open(Xen::open()?)?;
//! let session = SecondarySession::listen("0.0.0.0:8002", Box::new(host), SecondarySessionConfig::default())?;
//! for event in session.events() {
//!     println!("{event}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arriving;
mod cards;
mod tail;

pub use cards::is_tap_of;
pub(super) use cards::{card_name, set_backlog, tap_name};

use super::check::{DiskServerFit, Guest, HostFacts, colo_way};
use super::disks::{GuestDisk, Uncached, replicated};
use super::plan::DomainPlan;
use super::role::Role;
use super::toolstack::{RestoreGuard, Xl};
use super::{Xen, XenStore};
use crate::disk::SecondaryDisks;
use crate::disk::control::{ControlledSecondary, Witness};
use crate::domain::{Disks, DomainError, DomainSpec, Host, Machine};
use crate::net::Port;
use arriving::Arriving;
use cards::{Cards, lock};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// What is added to the name of a domain that does not serve yet.
pub const SUFFIX: &str = "--secondary";

/// The hypervisor's name, as [`DomainSpec::hypervisor`] has it.
pub const HYPERVISOR: &str = "xen";

/// See the module.
pub struct XenHost {
    xen: Xen,
    guard: RestoreGuard,
    cards: Arc<Mutex<Cards>>,
    /// Where the disk server is driven that has the disks of a machine that has some.
    disk_control: Option<PathBuf>,
}

impl XenHost {
    /// A host that takes machines in. To be made before there are other threads: it starts its guard, which is a copy of this process.
    ///
    /// # Errors
    /// When there can be no more processes.
    pub fn open(xen: Xen) -> io::Result<XenHost> {
        Ok(XenHost { xen, guard: RestoreGuard::start_lasting()?, cards: Arc::default(), disk_control: None })
    }

    /// Takes in machines with disks, too: those of the disk server that is driven at that socket
    /// ([`ControlServer`](crate::disk::control::ControlServer)).
    #[must_use]
    pub fn with_disk_control(self, path: PathBuf) -> XenHost {
        XenHost { disk_control: Some(path), ..self }
    }

    /// The disks of a machine that has some.
    fn disks(&self, spec: &DomainSpec, plan: &DomainPlan) -> Result<Disks, DomainError> {
        if spec.disks.is_empty() {
            return Ok(Disks::None);
        }
        let path = self.disk_control.as_ref().ok_or_else(|| {
            DomainError::Other(
                "the guest has a disk: start `colo secondary` with --disk-control (docs/disks.md)".into(),
            )
        })?;
        let failed = |error: String| DomainError::Other(format!("on the secondary's host: {error}"));
        let disks = ControlledSecondary::connect(path).map_err(|error| failed(error.to_string()))?;
        let own = replicated(&plan.config, disks.sizes(), &disks).map_err(|error| failed(error.to_string()))?;
        if own.len() != spec.disks.len() {
            return Err(DomainError::BadSpec("its disks are not those of its configuration".into()));
        }
        for (GuestDisk { vdev, device, size_bytes: ours }, theirs) in own.iter().zip(&spec.disks) {
            if *ours != theirs.size_bytes {
                let device = device.display();
                let why = format!("disk {vdev}: {device} has {ours} bytes, the primary's {}", theirs.size_bytes);
                return Err(failed(format!("{why}: make what is served as large")));
            }
        }
        let disks = Uncached::new(disks, &own).map_err(|error| failed(error.to_string()))?;
        let disks: Box<dyn SecondaryDisks> = Box::new(disks);
        Ok(Disks::Secondary(disks))
    }
}

impl Host for XenHost {
    fn hypervisor(&self) -> &str {
        HYPERVISOR
    }

    fn create(&mut self, spec: &DomainSpec) -> Result<Machine, DomainError> {
        let mut plan = DomainPlan::parse(&spec.config).map_err(|error| DomainError::BadSpec(error.to_string()))?;
        if plan.config.nics().len() != spec.nics.len() {
            return Err(DomainError::BadSpec("its network cards are not those of its configuration".into()));
        }
        check_mode(&plan)?;
        let disks = self.disks(spec, &plan)?;
        plan.config.set_name(&format!("{}{SUFFIX}", spec.name));
        let nics = lock(&self.cards).expect(spec.nics.len())?;
        let domain = Arriving::new(self.xen, spec, plan, self.guard.clone(), Arc::clone(&self.cards))?;
        Ok(Machine { domain: Box::new(domain), nics, disks })
    }

    fn promote(&mut self, _spec: &DomainSpec) -> Result<(), DomainError> {
        // Before it can say a word: from here on it is its clients' only server, whatever becomes of this process. Were it to run with
        // its guard or its role, a guard or a cleanup would destroy it. If it cannot run after all, the session destroys it.
        let domid = lock(&self.cards).set_serves();
        self.guard.forget();
        match domid {
            Some(domid) => Ok(Role::write(None, &XenStore::open(self.xen)?, domid)?),
            None => Ok(()),
        }
    }

    fn took_over(&mut self, spec: &DomainSpec) {
        let renamed = Xl::find().and_then(|xl| xl.rename(&format!("{}{SUFFIX}", spec.name), &spec.name));
        if let Err(error) = renamed {
            tracing::error!("{} keeps its other name: {error}", spec.name);
        }
    }

    fn facts(&mut self, spec: &DomainSpec) -> Result<Vec<(String, String)>, DomainError> {
        let mut facts = HostFacts::answer(self.xen, spec)?;
        if let Some(path) = &self.disk_control {
            let plan = DomainPlan::parse(&spec.config).map_err(|error| DomainError::BadSpec(error.to_string()))?;
            let server = ControlledSecondary::connect(path);
            let server = server.as_ref().map(|server| (server.sizes(), server as &dyn Witness));
            facts.disk_server = Some(DiskServerFit::of(&plan.config, server));
        }
        Ok(facts.to_facts())
    }

    fn open_lan(&mut self, _spec: &DomainSpec, nic: usize) -> Result<Box<dyn Port>, DomainError> {
        lock(&self.cards).join(nic)
    }
}

/// Refuses a twin for which there is no way, before there is one: of a guest that has just been restored, and has not yet told the
/// hypervisor how it wants its events, the domain itself does not show it.
fn check_mode(plan: &DomainPlan) -> Result<(), DomainError> {
    let guest = Guest { guest_type: plan.config.guest_type(), has_pv_drivers: !plan.has_emulated_cards };
    match colo_way(guest) {
        Err(why) if plan.is_twin => {
            Err(DomainError::BadSpec(format!("{} can have Remus only: {why}", plan.config.name())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::toolstack::DomainConfig;

    #[test]
    fn a_twin_for_which_there_is_no_way_is_refused() {
        for guest_type in ["pv", "pvh", "hvm"] {
            let json = format!(
                r#"{{ "c_info": {{ "type": "{guest_type}", "name": "web", "uuid": "c68e58a4-e8f9-11f1-9b12-2bf4439fb59e" }},
                "b_info": {{ "max_memkb": 131072, "target_memkb": 131072 }} }}"#
            );
            let config = DomainConfig::parse(json.as_bytes()).unwrap();
            for (has_emulated_cards, is_twin) in [(false, false), (false, true), (true, false), (true, true)] {
                let plan = DomainPlan { config: config.clone(), has_emulated_cards, is_twin };
                let is_refused = guest_type == "hvm" && is_twin && !has_emulated_cards;
                assert_eq!(check_mode(&plan).is_err(), is_refused, "{plan:?}");
            }
        }
    }
}
