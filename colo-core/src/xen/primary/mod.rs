//! A domain of this host, made ready to be protected: its network cards are taken over, and a guard sees to what must become of it when
//! this process dies.
//!
//! What that is depends on what the other host may do by then:
//!
//! | the other host | if this process dies |
//! | --- | --- |
//! | cannot take over yet, or any more | the guest runs on, its cards go back into their bridges |
//! | perhaps can: the first checkpoint to take over from is on its way | the guest is paused, its cards stay out: an operator must look |
//! | can | the guest is destroyed; its cards stay out until it is |
//!
//! The session tells what of this holds: [`Protected::layer`], [`Protected::set_protected`], [`Protected::on_unprotected`].

mod cards;
mod guard;

pub use guard::PrimaryGuard;

use super::disks::Replicated;
use super::domain::XenDomain;
use super::host::HYPERVISOR;
use super::overlay::is_without_pv_drivers;
use super::plan::DomainPlan;
use super::role::Role;
use super::save_lock::SaveLock;
use super::toolstack::Xl;
use super::{GuestType, XenStore};
use crate::domain::{
    Control as _, DiskSpec, Disks, Domain, DomainError, DomainSpec, MacAddr, Machine, NicSpec, StateRecord,
};
use crate::ids::{DomId, Epoch};
use crate::net::Port;
use crate::net::takeover::Orphan;
use crate::peer::Mode;
use crate::save::{CallbackError, SaveCallbacks};
use crate::session::{Outcome, SaveLayer};
use cards::Cards;
use guard::Stage;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A domain that is ready to be protected, or is.
pub struct Protected {
    shared: Arc<Mutex<Shared>>,
    /// Nobody else saves it meanwhile.
    _lock: SaveLock,
}

struct Shared {
    name: String,
    domid: DomId,
    store: XenStore,
    guard: PrimaryGuard,
    cards: Cards,
    /// What was told last.
    stage: Stage,
}

/// What a session is started with.
pub struct Parts {
    /// The domain, and the guest's sides of its cards.
    pub machine: Machine,
    /// The clients' sides.
    pub lans: Vec<Box<dyn Port>>,
}

impl Protected {
    /// Takes a running domain's cards over. The guard is started before there are other threads. `disks` are those that are replicated with
    /// it.
    ///
    /// # Errors
    /// When a card cannot be taken over, or the domain does not tell what it is. Everything is as it was before, then.
    pub fn new(
        mut domain: XenDomain,
        mode: Mode,
        xl: &Xl,
        disks: Option<Replicated>,
        store: XenStore,
        lock: SaveLock,
        mut guard: PrimaryGuard,
    ) -> Result<(Protected, Parts), DomainError> {
        let mut config = domain.config(xl).map_err(failed)?;
        // The guest's memory holds its backends' paths, and with them its number.
        config.set_number(Some(domain.domid()));
        let has_emulated_cards = domain.guest_type() == GuestType::Hvm && is_without_pv_drivers(&domain)?;
        let plan = DomainPlan { config, has_emulated_cards, is_twin: mode == Mode::Colo };
        let nics = plan.config.nics().iter().map(|nic| spec_of(nic.mac.as_deref())).collect::<Result<_, _>>()?;
        let disk_specs = disks.iter().flat_map(|replicated| &replicated.disks);
        let disk_specs = disk_specs.map(|disk| DiskSpec { size_bytes: disk.size_bytes }).collect();
        let disks = disks.map_or(Disks::None, |replicated| Disks::Primary(replicated.server));
        let spec = DomainSpec {
            name: domain.spec().name.clone(),
            hypervisor: HYPERVISOR.into(),
            pfn_limit: domain.spec().pfn_limit,
            nics,
            disks: disk_specs,
            config: plan.to_bytes(),
        };
        // What a twin needs; a device model's state is needed in any case.
        if mode == Mode::Colo || domain.guest_type() == GuestType::Hvm {
            domain.set_has_twin();
        }
        guard.begin(domain.domid(), &lock)?;
        let (cards, guests, lans) = Cards::take(&store, domain.domid(), &plan)?;
        domain.set_spec(spec);
        let (name, domid) = (domain.spec().name.clone(), domain.domid());
        let shared = Shared { name, domid, store, guard, cards, stage: Stage::Begun };
        let protected = Protected { shared: Arc::new(Mutex::new(shared)), _lock: lock };
        Ok((protected, Parts { machine: Machine { domain: Box::new(domain), nics: guests, disks }, lans }))
    }

    /// For [`PrimarySessionConfig::layer`](crate::session::PrimarySessionConfig::layer): says so before the other host can take over,
    /// which it can from epoch `first` on.
    pub fn layer(&self, first: Epoch) -> SaveLayer {
        let shared = Arc::clone(&self.shared);
        Box::new(move |inner| Box::new(Watched { inner, first, shared }))
    }

    /// For [`PrimarySessionConfig::on_unprotected`](crate::session::PrimarySessionConfig::on_unprotected): the guest here is the only one
    /// from there on.
    pub fn on_unprotected(&self) -> Box<dyn FnOnce() + Send> {
        let shared = Arc::clone(&self.shared);
        Box::new(move || {
            if let Err(error) = lock(&shared).tell(Stage::Begun) {
                tracing::error!("nobody will put this right if this process dies: {error}");
            }
        })
    }

    /// The session has said that the guest is [protected](crate::session::Event::Protected). When it is not any more by now, nothing
    /// happens.
    ///
    /// # Errors
    /// When the guard is not there any more, or a card's record cannot be written.
    pub fn set_protected(&self) -> Result<(), DomainError> {
        lock(&self.shared).tell(Stage::Protected)
    }

    /// The session is over, in this way, and its ports are closed: the cards go back, if their guest is still there, and it is a guest
    /// like any other again, unless another host may serve it.
    ///
    /// # Errors
    /// When a card cannot be put back, or xenstore refuses.
    pub fn end(self, outcome: &Outcome) -> Result<(), DomainError> {
        let shared =
            Arc::into_inner(self.shared).ok_or_else(|| DomainError::Other("the session is not over".into()))?;
        let Shared { domid, store, guard, cards, .. } = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        cards.put_back()?;
        // While the guard is there: what it would do is right still.
        let told = if is_free(outcome) { Role::write(None, &store, domid) } else { Ok(()) };
        guard.dismiss();
        Ok(told?)
    }
}

impl Shared {
    fn tell(&mut self, stage: Stage) -> Result<(), DomainError> {
        if !stage.holds_after(self.stage) {
            return Ok(());
        }
        self.stage = stage;
        let orphan = stage.orphan();
        tracing::debug!("{}: if this process dies: {stage:?}, cards {orphan:?}", self.name);
        // Cards first where they must stay out: a guest that is paused, or gone, with its card in the bridge, is the lesser evil.
        self.cards.set_orphan(orphan)?;
        self.guard.tell(stage)?;
        let role = (orphan == Orphan::StayOut).then_some(Role::Primary);
        Ok(Role::write(role, &self.store, self.domid)?)
    }
}

/// Whether nobody but the host here has to do with the guest after that. One that was to be destroyed has taken its role with it, and if it
/// is there still, `colo cleanup` is to find it.
fn is_free(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Left | Outcome::Unprotected(_) | Outcome::GuestShutDown | Outcome::GuestCrashed => true,
        Outcome::LeftSuspended(_) | Outcome::StoodDown | Outcome::Stopped | Outcome::Ended(_) | Outcome::Failed(_) => {
            false
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Around the callbacks of the save.
struct Watched {
    inner: Box<dyn SaveCallbacks>,
    first: Epoch,
    shared: Arc<Mutex<Shared>>,
}

impl SaveCallbacks for Watched {
    crate::hand_on_save!(inner: is_checkpointed, wait_checkpoint, suspend, saved, postcopy, checkpoint);

    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        if epoch == self.first {
            lock(&self.shared).tell(Stage::Unsure)?;
        }
        self.inner.capture(domain, epoch)
    }
}

fn spec_of(mac: Option<&str>) -> Result<NicSpec, DomainError> {
    let text = mac.unwrap_or_default();
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = part.ok_or_else(|| DomainError::BadSpec(format!("{text:?} is no card's address")))?;
    }
    Ok(NicSpec { mac: MacAddr(bytes), ipv4: None })
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> DomainError {
    DomainError::Hypervisor(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_another_host_may_serve_keeps_its_role() {
        let why = String::new;
        let free = [Outcome::Left, Outcome::Unprotected(why()), Outcome::GuestShutDown, Outcome::GuestCrashed];
        assert!(free.iter().all(is_free));
        let kept = [Outcome::LeftSuspended(why()), Outcome::StoodDown, Outcome::Stopped, Outcome::Failed(why())];
        assert!(!kept.iter().any(is_free));
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(spec_of(Some("00:16:3e:00:00:0c")).unwrap().mac, MacAddr([0, 0x16, 0x3e, 0, 0, 12]));
        for bad in [None, Some(""), Some("00:16:3e:00:00"), Some("00:16:3e:00:00:xx")] {
            assert!(spec_of(bad).is_err(), "{bad:?}");
        }
    }
}
