//! A machine's disks in a session: their epochs are the checkpoints'.

use crate::checkpoint::PrimaryNet;
use crate::disk::{DiskEvent, OnDiskEvent, PrimaryDisks, SecondaryDisks};
use crate::domain::{Domain, DomainError, StateRecord};
use crate::ids::Epoch;
use crate::restore::{Flushed, RestoreCallbacks};
use crate::save::CallbackError;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// How many events of the disks may wait: there are a few of each epoch, and the progress of a copy, of which some may be left out.
const MAX_EVENTS: usize = 256;

/// The events of disks, and how they are told.
pub(super) fn disk_events() -> (OnDiskEvent, Receiver<DiskEvent>, Sender<DiskEvent>) {
    let (sender, receiver) = bounded(MAX_EVENTS);
    let kept = sender.clone();
    let tell = move |event| {
        if !matches!(event, DiskEvent::Copying { .. }) || sender.len() < MAX_EVENTS / 2 {
            let _ = sender.try_send(event);
        }
    };
    (Box::new(tell), receiver, kept)
}

/// The disks of a machine that serves, if it has any.
#[derive(Clone, Default)]
pub(super) struct Primaries(Rc<RefCell<Option<Box<dyn PrimaryDisks>>>>);

impl Primaries {
    pub(super) fn set(&self, disks: Box<dyn PrimaryDisks>) {
        *self.0.borrow_mut() = Some(disks);
    }

    pub(super) fn with(&self, with: impl FnOnce(&mut dyn PrimaryDisks)) {
        if let Some(disks) = &mut *self.0.borrow_mut() {
            with(&mut **disks);
        }
    }

    /// Whether the secondary's host has the same ones.
    pub(super) fn are_shared(&self) -> bool {
        self.0.borrow().as_ref().is_some_and(|disks| disks.is_shared())
    }
}

/// The packets' side, and the disks beside it.
pub(super) struct WithDisks<N> {
    pub(super) net: N,
    pub(super) disks: Primaries,
}

impl<N: PrimaryNet> PrimaryNet for WithDisks<N> {
    fn freeze(&mut self) -> Result<(), CallbackError> {
        self.net.freeze()?;
        self.disks.with(|disks| disks.freeze());
        Ok(())
    }

    fn begin_epoch(&mut self, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        self.disks.with(|disks| disks.barrier(epoch));
        self.net.begin_epoch(epoch)
    }

    fn thaw(&mut self) -> Result<(), CallbackError> {
        self.disks.with(|disks| disks.thaw());
        self.net.thaw()
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), CallbackError> {
        self.net.commit(epoch)
    }

    fn applied(&mut self, epoch: Epoch) -> Result<(), CallbackError> {
        self.disks.with(|disks| disks.committed(epoch));
        self.net.applied(epoch)
    }
}

/// The disks of a machine that follows, if it has any, and the epoch that is about to be applied.
#[derive(Clone, Default)]
pub(super) struct Secondaries {
    disks: Rc<RefCell<Option<Box<dyn SecondaryDisks>>>>,
    applying: Rc<Cell<Epoch>>,
}

impl Secondaries {
    pub(super) fn new(disks: Option<Box<dyn SecondaryDisks>>) -> Secondaries {
        Secondaries { disks: Rc::new(RefCell::new(disks)), applying: Rc::default() }
    }

    pub(super) fn set_applying(&self, epoch: Epoch) {
        self.applying.set(epoch);
    }

    /// What that says of the disks; nothing where there are none.
    pub(super) fn with<T>(&self, with: impl FnOnce(&mut dyn SecondaryDisks) -> T) -> Option<T> {
        self.disks.borrow_mut().as_mut().map(|disks| with(&mut **disks))
    }
}

/// Around the callbacks of a restore: memory and disks come from one epoch, or the machine does not go on.
pub(super) struct CommitsDisks {
    inner: Box<dyn RestoreCallbacks>,
    disks: Secondaries,
}

impl CommitsDisks {
    pub(super) fn new(inner: Box<dyn RestoreCallbacks>, disks: Secondaries) -> Self {
        CommitsDisks { inner, disks }
    }
}

impl RestoreCallbacks for CommitsDisks {
    crate::hand_on_restore!(inner: init, get_page, get_pages, clear_pages, record, verify, update_p2m);

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        self.disks.with(|disks| disks.release());
        domain.suspend()?;
        self.disks.with(|disks| disks.freeze());
        let flushed = self.inner.flush_memory(domain)?;
        let epoch = self.disks.applying.get();
        match self.disks.with(|disks| disks.commit(epoch)) {
            None | Some(Ok(())) => Ok(flushed),
            Some(Err(error)) => Err(DomainError::Other(format!("the disks, at {epoch}: {error}")).into()),
        }
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        self.disks.with(|disks| disks.thaw());
        self.inner.finish_restore(domain, state)
    }
}
