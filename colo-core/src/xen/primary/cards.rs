use super::failed;
use crate::domain::DomainError;
use crate::ids::DomId;
use crate::net::Port;
use crate::net::takeover::{Orphan, Takeover};
use crate::xen::XenStore;
use crate::xen::host::{card_name, set_backlog, tap_name};
use crate::xen::plan::DomainPlan;

/// A domain's cards, taken over.
pub(super) struct Cards(Vec<Takeover>);

/// The guests' sides of cards, and the clients'.
type Sides = Vec<Box<dyn Port>>;

impl Cards {
    /// Takes all cards over, or none.
    pub(super) fn take(
        store: &XenStore,
        domid: DomId,
        plan: &DomainPlan,
    ) -> Result<(Cards, Sides, Sides), DomainError> {
        let (mut cards, mut guests, mut clients) = (Cards(Vec::new()), Sides::new(), Sides::new());
        for nic in plan.config.nics() {
            let (vif, tap) = (card_name(store, domid, nic.devid, plan)?, tap_name(domid, nic.devid)?);
            let (takeover, mut guest, lan) = Takeover::start(&vif, &tap).map_err(failed)?;
            cards.0.push(takeover);
            set_backlog(&mut guest, store, domid, &vif, plan)?;
            guests.push(Box::new(guest));
            clients.push(Box::new(lan));
        }
        Ok((cards, guests, clients))
    }

    pub(super) fn set_orphan(&mut self, orphan: Orphan) -> Result<(), DomainError> {
        self.0.iter_mut().try_for_each(|card| card.set_orphan(orphan)).map_err(failed)
    }

    /// Puts all of them back, whatever goes wrong with one.
    pub(super) fn put_back(self) -> Result<(), DomainError> {
        let ended: Vec<_> = self.0.into_iter().map(Takeover::stop).collect();
        ended.into_iter().collect::<Result<(), _>>().map_err(failed)
    }
}
