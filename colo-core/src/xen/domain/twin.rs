//! What a domain with a twin keeps from checkpoint to checkpoint, and what overlays need of a domain's inside.

use super::{GuestType, XenDomain};
use crate::domain::{DirtyBitmap, DomainError, MAX_BATCH_PAGES, Pages, StateRecord};
use crate::ids::{DomId, PAGE_SIZE, Page, Pfn};
use crate::stream::{PfnRanges, StreamError, TwinFrontends, TwinGrants};
use crate::xen::frontends::{Frontends, disk_rings, is_answered};
use crate::xen::suspend::SuspendWay;
use crate::xen::tables::{
    GrantFrames, is_event_array, is_writable, is_written, linked_port, mask_all, mask_shared_info, read_ports,
    read_shared_info,
};
use crate::xen::{Control, ForeignMemory, Xen, XenStore};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use xen_sys::ctrl;

/// How often a guest is let go on because it was suspended while an event was on its way between its own vCPUs.
const MAX_RETRIES: u32 = 8;

/// How long a disk may take for what the guest has asked of it.
const DISKS_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether it has. The hypervisor tells the guest of that, and nobody else.
const DISKS_LOOK: Duration = Duration::from_micros(200);

/// Of an HVM or PVH guest.
pub(super) struct TwinSide {
    grants: GrantFrames,
    frontends: Frontends,
    /// What its drivers had told when it was suspended.
    published: Option<TwinFrontends>,
    /// Its store's and its console's ring.
    rings: [Pfn; 2],
    /// Pages that are in others' hands, as they were when the dirty log was taken: others go on writing to them.
    held: BTreeMap<Pfn, Box<Page>>,
    /// Where its events are, once that is known; nowhere, of a guest that has the smaller interface.
    events: Option<Option<Pfn>>,
    populated: PfnRanges,
}

/// The page of a guest's events, while it is given another's state: the hypervisor writes there, too, and to others by what it finds.
pub(super) struct HeldBack {
    pub(super) pfn: Pfn,
    /// What is to come there.
    pub(super) page: Option<Box<Page>>,
}

impl TwinSide {
    fn open(domain: &XenDomain) -> Result<TwinSide, DomainError> {
        Ok(TwinSide {
            grants: GrantFrames::new(domain.domid),
            frontends: Frontends::open(domain.xen, domain.domid)?,
            published: None,
            rings: rings(&domain.control, domain.domid)?,
            held: BTreeMap::new(),
            events: None,
            populated: PfnRanges::default(),
        })
    }

    /// A page as it was when the dirty log was taken, if others may have written to it since.
    pub(super) fn held(&self, pfn: Pfn) -> Option<&Page> {
        self.held.get(&pfn).map(|page| &**page)
    }
}

impl XenDomain {
    /// What this guest's way needs, where it needs anything.
    fn twin_side(&mut self) -> Result<Option<Box<TwinSide>>, DomainError> {
        if !self.has_twin || self.guest_type != GuestType::Pvh {
            return Ok(None);
        }
        match self.twin.take() {
            Some(twin) => Ok(Some(twin)),
            None => Ok(Some(Box::new(TwinSide::open(self)?))),
        }
    }

    /// Does something with it, with the domain at hand.
    fn with_twin_side<T: Default>(
        &mut self,
        with: impl FnOnce(&mut Self, &mut TwinSide) -> Result<T, DomainError>,
    ) -> Result<T, DomainError> {
        let Some(mut twin) = self.twin_side()? else { return Ok(T::default()) };
        let done = with(self, &mut twin);
        self.twin = Some(twin);
        done
    }

    /// Of a guest that has just been suspended: waits until its disks have answered all that it has asked for. A backend answers in the
    /// order in which it gets done, over requests that are not: what is under way is in no ring, and the twin's backend would not know of it.
    pub(super) fn settle_disks(&mut self) -> Result<(), DomainError> {
        self.with_twin_side(|domain, twin| {
            let rings = disk_rings(twin.published.insert(twin.frontends.published()?));
            if rings.is_empty() {
                return Ok(());
            }
            let grants = twin.grants.read(&domain.control, &domain.foreign)?;
            let page = |ring: &u32| grants.entries.get(*ring as usize).map(|entry| Pfn(entry.frame.into()));
            let pages: Option<Vec<Pfn>> = rings.iter().map(page).collect();
            let pages = pages.ok_or_else(|| DomainError::BadState("a disk's ring is granted to nobody".into()))?;
            let (mut ring, deadline) = ([0; PAGE_SIZE], Instant::now() + DISKS_LIMIT);
            for pfn in pages {
                loop {
                    domain.read_pages(&[pfn], &mut ring)?;
                    if is_answered(&ring) {
                        break;
                    }
                    if Instant::now() >= deadline {
                        let why = format!("a disk has not answered for {} s", DISKS_LIMIT.as_secs());
                        return Err(DomainError::Other(why));
                    }
                    std::thread::sleep(DISKS_LOOK);
                }
            }
            Ok(())
        })
    }

    /// Before the dirty log is taken: copies what is in others' hands. What they write later is not of this moment, and their rings must
    /// not say more than what the guest's other pages hold.
    pub(super) fn hold_shared_pages(&mut self) -> Result<(), DomainError> {
        let stands_still = self.suspended_at.is_some();
        self.with_twin_side(|domain, twin| {
            twin.held.clear();
            if !stands_still {
                return Ok(());
            }
            let grants = twin.grants.read(&domain.control, &domain.foreign)?;
            let mut pfns = twin.rings.to_vec();
            pfns.extend(grants.entries.iter().filter(|entry| is_written(**entry)).map(|entry| Pfn(entry.frame.into())));
            pfns.sort_unstable();
            pfns.dedup();
            let memory = domain.memory.get_mut();
            memory.map(&domain.foreign, domain.access, pfns.iter().map(|pfn| (*pfn, pfn.0)))?;
            for pfn in pfns {
                let mut page = Box::new([0; PAGE_SIZE]);
                if memory.read(pfn, &mut page) {
                    twin.held.insert(pfn, page);
                }
            }
            Ok(())
        })
    }

    /// After the dirty log was taken: what is in others' hands is in no log, and what the guest has got is new.
    pub(super) fn add_unlogged(&mut self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.with_twin_side(|domain, twin| {
            // The hypervisor's writes to the guest's events are in no log either.
            set_all(into, twin.held.keys().copied().chain(twin.events.flatten()));
            if domain.suspended_at.is_some() && (twin.populated.is_empty() || domain.mapped_total.is_none()) {
                let before = domain.map_populated(twin)?;
                if !before.is_empty() {
                    set_all(into, twin.populated.without(&before));
                }
            }
            Ok(())
        })
    }

    /// Maps all of a domain that does not run yet, before anybody waits for that. (PV: a page that may become a table must not be mapped.)
    pub(in crate::xen) fn map_ahead(&mut self) -> Result<(), DomainError> {
        self.with_twin_side(|domain, twin| domain.map_populated(twin).map(drop))
    }

    /// Maps all pages that there are, so that the next change shows in their number. Returns which there were before.
    fn map_populated(&mut self, twin: &mut TwinSide) -> Result<PfnRanges, DomainError> {
        let mut populated = DirtyBitmap::new(self.spec.pfn_limit);
        self.populated(&mut populated)?;
        let populated: PfnRanges = populated.iter().collect();
        self.memory.get_mut().map(&self.foreign, self.access, populated.iter().map(|pfn| (pfn, pfn.0)))?;
        self.mapped_total = Some(self.info()?.total_pages);
        Ok(std::mem::replace(&mut twin.populated, populated))
    }

    /// Adds what others may write to while the guest stands still. Its store's and its console's ring have each host's own servers at their
    /// other ends, even where the guest knows neither.
    pub(super) fn shared_pages_of(&self, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        let mut grants = GrantFrames::new(self.domid);
        let grants = grants.read(&self.control, &self.foreign)?;
        let lent = grants.entries.iter().filter(|entry| is_writable(**entry)).map(|entry| Pfn(entry.frame.into()));
        let events = self.twin.as_ref().and_then(|twin| twin.events.flatten());
        set_all(into, lent.chain(rings(&self.control, self.domid)?).chain(events));
        Ok(())
    }

    /// Of a guest that has just been suspended: whether it must be let go on and suspended again. An event in a queue between its vCPUs
    /// cannot be given to another domain; there is none in nearly all cases, as a guest masks its devices' events before.
    pub(super) fn must_retry(&mut self, retries: u32) -> Result<bool, DomainError> {
        let port = self.with_twin_side(|domain, twin| domain.linked_port(twin))?;
        match port {
            Some(port) if retries >= MAX_RETRIES => {
                let why = format!("{}: an event of port {port} is in a queue each time", self.spec.name);
                Err(DomainError::Other(why))
            }
            Some(port) => {
                tracing::debug!("{}: an event of port {port} is in a queue: once more", self.spec.name);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Finds out, of a guest that may run, where its events are. It may take a second.
    pub(super) fn find_events(&mut self) -> Result<(), DomainError> {
        self.with_twin_side(|domain, twin| {
            twin.events = Some(domain.event_array()?);
            Ok(())
        })
    }

    fn linked_port(&mut self, twin: &mut TwinSide) -> Result<Option<u32>, DomainError> {
        let mut page = [0; PAGE_SIZE];
        let mut at = match twin.events {
            Some(at) => at,
            None => self.event_array()?,
        };
        if let Some(pfn) = at {
            self.read_pages(&[pfn], &mut page)?;
            if !is_event_array(&page) {
                at = self.event_array()?;
                at.map_or(Ok(()), |pfn| self.read_pages(&[pfn], &mut page))?;
            }
        }
        twin.events = Some(at);
        Ok(at.and_then(|_| linked_port(&page)))
    }

    /// Where the guest's events are. A guest with the smaller interface has no such page, and no queues either.
    pub(in crate::xen) fn event_array(&self) -> Result<Option<Pfn>, DomainError> {
        let mut populated = DirtyBitmap::new(self.spec.pfn_limit);
        self.populated(&mut populated)?;
        let mut pages = vec![0; MAX_BATCH_PAGES * PAGE_SIZE];
        let mut pfns = populated.iter();
        loop {
            let batch: Vec<Pfn> = pfns.by_ref().take(MAX_BATCH_PAGES).collect();
            if batch.is_empty() {
                return Ok(None);
            }
            let pages = &mut pages[..batch.len() * PAGE_SIZE];
            self.read_pages(&batch, pages)?;
            let is_array = |page: &[u8]| page.try_into().is_ok_and(is_event_array);
            if let Some(index) = pages.chunks_exact(PAGE_SIZE).position(is_array) {
                return Ok(Some(batch[index]));
            }
        }
    }

    /// What the twin of a PVH guest needs beside its memory and registers.
    pub(in crate::xen) fn twin_records(&mut self) -> Result<Vec<StateRecord>, DomainError> {
        self.with_twin_side(|domain, twin| {
            let began = Instant::now();
            let ports = read_ports(&domain.control, domain.domid)?;
            let after_ports = began.elapsed();
            let grants: TwinGrants = twin.grants.read(&domain.control, &domain.foreign)?;
            let shared = read_shared_info(&domain.control, &domain.foreign, domain.domid)?;
            let after_tables = began.elapsed();
            let frontends = match twin.published.take() {
                Some(published) => published,
                None => twin.frontends.published()?,
            };
            tracing::debug!(
                "{}: ports {after_ports:?}, grants and shared info {:?}, devices {:?}",
                domain.spec.name,
                after_tables - after_ports,
                began.elapsed() - after_tables
            );
            let records = [ports.to_record(), grants.to_record(), frontends.to_record(), twin.populated.to_record()];
            let records: Result<Vec<StateRecord>, StreamError> = records.into_iter().collect();
            let mut records = records.map_err(|error| DomainError::Other(error.fault.to_string()))?;
            records.push(shared.to_record());
            Ok(records)
        })
    }

    /// Masks all events of a guest that was stopped, so that one that comes later changes nothing but its own word (its timer is still
    /// set), and keeps what is written to their page from now on until [`XenDomain::release_events`]. Where that page is, which is most
    /// likely where it was before: nowhere, of a guest with the smaller interface.
    pub(in crate::xen) fn hold_back_events(&mut self, before: Option<Pfn>) -> Result<Option<Pfn>, DomainError> {
        let mut page = [0; PAGE_SIZE];
        let mut at = before;
        self.held_back = None;
        at.map_or(Ok(()), |pfn| self.read_pages(&[pfn], &mut page))?;
        if !is_event_array(&page) {
            at = self.event_array()?;
            at.map_or(Ok(()), |pfn| self.read_pages(&[pfn], &mut page))?;
        }
        match at {
            Some(pfn) => {
                mask_all(&mut page);
                self.write_pages(&[pfn], &page)?;
                self.held_back = Some(HeldBack { pfn, page: None });
            }
            None => mask_shared_info(&self.control, &self.foreign, self.domid)?,
        }
        Ok(at)
    }

    /// Writes what was held back. Whether it is a page of events again.
    pub(in crate::xen) fn release_events(&mut self) -> Result<bool, DomainError> {
        let Some(HeldBack { pfn, page: Some(page) }) = self.held_back.take() else { return Ok(true) };
        self.write_pages(&[pfn], &*page)?;
        Ok(is_event_array(&page))
    }

    /// What it is reached by.
    pub(in crate::xen) fn handles(&self) -> (&Control, &ForeignMemory, &XenStore) {
        (&self.control, &self.foreign, &self.store)
    }

    /// The libraries that it uses.
    pub(in crate::xen) fn xen(&self) -> Xen {
        self.xen
    }

    /// Stops the guest by force.
    pub(in crate::xen) fn force_suspend(&mut self, limit: Duration) -> Result<SuspendWay, DomainError> {
        Ok(self.suspender()?.force(limit)?)
    }

    /// The guest was resumed by another way than this domain's own.
    pub(in crate::xen) fn has_gone_on(&mut self) {
        self.is_asked = false;
        self.suspended_at = None;
        self.suspender = None;
    }

    /// Its event channels, its grants and its devices' rings are others than before.
    pub(in crate::xen) fn forget_tables(&mut self) {
        self.twin = None;
    }

    /// The guest has other pages than before under the same numbers.
    pub(in crate::xen) fn forget_memory(&mut self) -> Result<(), DomainError> {
        self.memory.get_mut().forget();
        self.mapped_total = Some(self.info()?.total_pages);
        Ok(())
    }

    /// Gives pages to a whole domain that it has not, or takes them.
    pub(in crate::xen) fn change_pages(&mut self, give: &[Pfn], take: &[Pfn]) -> Result<(), DomainError> {
        if give.is_empty() && take.is_empty() {
            return Ok(());
        }
        self.memory.get_mut().forget();
        let numbers = |pfns: &[Pfn]| pfns.iter().map(|pfn| pfn.0).collect::<Vec<_>>();
        let taken = numbers(take);
        if !taken.is_empty() && self.control.decrease_reservation(self.domid, 0, &taken)? != taken.len() {
            return Err(DomainError::Other(format!("{} does not give its memory back", self.spec.name)));
        }
        self.populate_pfns(&numbers(give), |_, _| ())?;
        self.mapped_total = Some(self.info()?.total_pages);
        tracing::debug!("{} has got {} pages and given {} back", self.spec.name, give.len(), take.len());
        Ok(())
    }
}

/// Where a guest's store's and its console's ring are.
fn rings(control: &Control, domid: DomId) -> Result<[Pfn; 2], DomainError> {
    let params = [ctrl::HVM_PARAM_STORE_PFN, ctrl::HVM_PARAM_CONSOLE_PFN];
    let [store, console] = params.map(|param| control.hvm_param(domid, param));
    Ok([Pfn(store?), Pfn(console?)])
}

fn set_all(into: &mut DirtyBitmap, pfns: impl Iterator<Item = Pfn>) {
    let limit = into.pfn_limit();
    pfns.filter(|pfn| pfn.0 < limit).for_each(|pfn| into.set(pfn));
}
