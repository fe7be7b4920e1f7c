use crate::domain::DomainError;
use crate::ids::DomId;
use crate::net::late::LateEnd;
use crate::net::sys::{Backlog, LinkName, PacketSocket, Tap};
use crate::net::takeover::{CardGuard, Orphan, Takeover};
use crate::net::{Port, late};
use crate::xen::XenStore;
use crate::xen::plan::DomainPlan;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The network cards of the domain that this host takes in: out of their bridges until it serves.
#[derive(Default)]
pub(super) struct Cards {
    /// Where the session waits for them, and who will put them back.
    expected: Vec<(LateEnd, CardGuard)>,
    taken: Vec<Card>,
    /// Whose they are, once it is known.
    domid: Option<DomId>,
    serves: bool,
}

struct Card {
    takeover: Takeover,
    /// `None` once the session has it.
    clients: Option<Tap>,
}

impl Cards {
    /// For a new domain with so many cards: the guest's sides of them, which are not there yet.
    pub(super) fn expect(&mut self, count: usize) -> Result<Vec<Box<dyn Port>>, DomainError> {
        self.clear();
        let mut ports: Vec<Box<dyn Port>> = Vec::new();
        for _ in 0..count {
            let (port, end) = late::port().map_err(DomainError::sys("making a port"))?;
            ports.push(Box::new(port));
            // Now, while this process has nothing yet of the domain's memory.
            self.expected.push((end, CardGuard::start().map_err(failed)?));
        }
        Ok(ports)
    }

    /// The toolstack has made the cards and put them into their bridges: takes them out, before the guest can say anything.
    pub(super) fn take_aside(&mut self, store: &XenStore, domid: DomId, plan: &DomainPlan) -> Result<(), DomainError> {
        for (nic, (end, guard)) in plan.config.nics().iter().zip(std::mem::take(&mut self.expected)) {
            let (vif, tap) = (card_name(store, domid, nic.devid, plan)?, tap_name(domid, nic.devid)?);
            let (takeover, mut guest, clients) = Takeover::start_aside(&vif, &tap, guard).map_err(failed)?;
            set_backlog(&mut guest, store, domid, &vif, plan)?;
            self.taken.push(Card { takeover, clients: Some(clients) });
            end.connect(Box::new(guest)).map_err(DomainError::sys("watching a card"))?;
        }
        Ok(())
    }

    /// The toolstack has given the domain this number.
    pub(super) fn set_domid(&mut self, domid: DomId) {
        self.domid = Some(domid);
    }

    /// From here on the domain must outlive the session. Returns its number.
    pub(super) fn set_serves(&mut self) -> Option<DomId> {
        self.serves = true;
        self.domid
    }

    /// The domain serves: card number `nic` enters its bridge, and goes back there by itself when this process ends.
    pub(super) fn join(&mut self, nic: usize) -> Result<Box<dyn Port>, DomainError> {
        let card = self.taken.get_mut(nic).ok_or_else(|| DomainError::BadSpec(format!("no network card {nic}")))?;
        let clients = card.clients.take().ok_or_else(|| DomainError::BadSpec(format!("card {nic} is in use")))?;
        card.takeover.set_orphan(Orphan::PutBack).map_err(failed)?;
        card.takeover.join().map_err(failed)?;
        Ok(Box::new(clients))
    }

    /// Whether the domain serves, and must outlive the session.
    pub(super) fn serves(&self) -> bool {
        self.serves
    }

    /// The domain is gone, and its cards with it.
    pub(super) fn clear(&mut self) {
        *self = Cards::default();
    }
}

/// What a panic has left of it is still to be put back.
pub(super) fn lock(cards: &Mutex<Cards>) -> MutexGuard<'_, Cards> {
    cards.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a domain's network card on this host: the backend's, or that of the TAP beside it by which the device model emulates one.
pub(in crate::xen) fn card_name(
    store: &XenStore,
    domid: DomId,
    devid: u32,
    plan: &DomainPlan,
) -> Result<LinkName, DomainError> {
    let path = format!("/local/domain/0/backend/vif/{}/{devid}/vifname", domid.0);
    let name = store.read_text(&path)?.unwrap_or_else(|| format!("vif{}.{devid}", domid.0));
    let emulated = if plan.has_emulated_cards { "-emu" } else { "" };
    format!("{}{emulated}", name.trim()).parse().map_err(failed)
}

/// What a device model has not read of what its guest's card was sent can be taken back.
pub(in crate::xen) fn set_backlog(
    card: &mut PacketSocket,
    store: &XenStore,
    domid: DomId,
    vif: &LinkName,
    plan: &DomainPlan,
) -> Result<(), DomainError> {
    if !plan.has_emulated_cards {
        return Ok(());
    }
    let process = store.read_text(&format!("{}/image/device-model-pid", store.domain_path(domid)?))?;
    let process = process.and_then(|process| process.trim().parse().ok()).unwrap_or_default();
    match Backlog::open(process, vif) {
        Ok(backlog) => card.set_backlog(backlog),
        // What one guest reads in this epoch and the other in the next is found by comparing what they say.
        Err(error) => {
            tracing::warn!("{vif}: what its device model has not read is not known, {error}: more checkpoints");
        }
    }
    Ok(())
}

/// The name of the TAP in its place.
pub(in crate::xen) fn tap_name(domid: DomId, devid: u32) -> Result<LinkName, DomainError> {
    format!("{}{devid}", tap_prefix(domid)).parse().map_err(failed)
}

/// Whether this TAP is, or was, in the place of a card of that domain's. The card itself may have any name: its configuration can give
/// it one.
pub fn is_tap_of(domid: DomId, tap: &LinkName) -> bool {
    tap.as_str().starts_with(&tap_prefix(domid))
}

fn tap_prefix(domid: DomId) -> String {
    format!("colo{}.", domid.0)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> DomainError {
    DomainError::Hypervisor(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_known_by_its_taps() {
        let tap = tap_name(DomId(5), 12).unwrap();
        assert_eq!(tap.as_str(), "colo5.12");
        assert!(is_tap_of(DomId(5), &tap));
        for other in [0, 1, 12, 51, 55] {
            assert!(!is_tap_of(DomId(other), &tap), "{other}");
            assert!(!is_tap_of(DomId(5), &tap_name(DomId(other), 5).unwrap()), "{other}");
        }
    }
}
