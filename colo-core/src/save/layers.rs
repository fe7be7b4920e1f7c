//! Layers around any [`SaveCallbacks`], to be stacked as wanted. What they share with [`crate::restore::layers`] is in
//! [`crate::layers`].
//!
//! ```
//! use colo_core::layers::Timings;
//! use colo_core::save::layers::{Timed, Traced};
//! use colo_core::save::{PlainSave, SaveCallbacks};
//!
//! let timings = Timings::default();
//! let callbacks: Box<dyn SaveCallbacks> = Box::new(Timed::new(Traced(PlainSave::default()), timings.clone()));
//! # drop(callbacks);
//! assert!(timings.last_pause().is_none(), "nothing was suspended yet");
//! ```

use super::{CallbackError, Ready, SaveCallbacks, Trigger};
use crate::domain::{DirtyBitmap, Domain, StateRecord};
use crate::ids::Epoch;
use crate::layers::{Faults, GuestHasher, Timings};
use crate::stream::MemoryHash;
use std::time::Instant;

/// In a layer's `impl SaveCallbacks`: hands the callbacks that are named on to those that it wraps, which are in the field that is named
/// first. Whatever a layer has nothing to say to must be handed on: a default of the trait's would say something else than what is wrapped.
///
/// ```
/// use colo_core::domain::{Domain, StateRecord};
/// use colo_core::ids::Epoch;
/// use colo_core::save::{CallbackError, SaveCallbacks};
///
/// /// Tells which epoch is captured.
/// struct Told<C> {
///     inner: C,
/// }
///
/// impl<C: SaveCallbacks> SaveCallbacks for Told<C> {
///     colo_core::hand_on_save!(inner: is_checkpointed, wait_checkpoint, suspend, saved, postcopy, checkpoint);
///
///     fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
///         println!("{epoch}");
///         self.inner.capture(domain, epoch)
///     }
/// }
/// ```
#[macro_export]
macro_rules! hand_on_save {
    ($field:tt: $($callback:ident),+ $(,)?) => {
        $($crate::hand_on_save!(@ $callback $field);)+
    };
    (@ is_checkpointed $field:tt) => {
        fn is_checkpointed(&self) -> bool {
            self.$field.is_checkpointed()
        }
    };
    (@ wait_checkpoint $field:tt) => {
        fn wait_checkpoint(
            &mut self,
            now: std::time::Instant,
        ) -> Result<$crate::save::Ready<$crate::save::Trigger>, $crate::save::CallbackError> {
            self.$field.wait_checkpoint(now)
        }
    };
    (@ suspend $field:tt) => {
        fn suspend(&mut self, domain: &mut dyn $crate::domain::Domain) -> Result<(), $crate::save::CallbackError> {
            self.$field.suspend(domain)
        }
    };
    (@ saved $field:tt) => {
        fn saved(&mut self, state: &[$crate::domain::StateRecord]) {
            self.$field.saved(state);
        }
    };
    (@ capture $field:tt) => {
        fn capture(
            &mut self,
            domain: &mut dyn $crate::domain::Domain,
            epoch: $crate::ids::Epoch,
        ) -> Result<Vec<$crate::domain::StateRecord>, $crate::save::CallbackError> {
            self.$field.capture(domain, epoch)
        }
    };
    (@ postcopy $field:tt) => {
        fn postcopy(
            &mut self,
            domain: &mut dyn $crate::domain::Domain,
            epoch: $crate::ids::Epoch,
        ) -> Result<(), $crate::save::CallbackError> {
            self.$field.postcopy(domain, epoch)
        }
    };
    (@ checkpoint $field:tt) => {
        fn checkpoint(
            &mut self,
            epoch: $crate::ids::Epoch,
            now: std::time::Instant,
        ) -> Result<$crate::save::Ready<bool>, $crate::save::CallbackError> {
            self.$field.checkpoint(epoch, now)
        }
    };
}

impl<C: SaveCallbacks + ?Sized> SaveCallbacks for Box<C> {
    fn is_checkpointed(&self) -> bool {
        (**self).is_checkpointed()
    }

    fn wait_checkpoint(&mut self, now: Instant) -> Result<Ready<Trigger>, CallbackError> {
        (**self).wait_checkpoint(now)
    }

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        (**self).suspend(domain)
    }

    fn saved(&mut self, state: &[StateRecord]) {
        (**self).saved(state);
    }

    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        (**self).capture(domain, epoch)
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<(), CallbackError> {
        (**self).postcopy(domain, epoch)
    }

    fn checkpoint(&mut self, epoch: Epoch, now: Instant) -> Result<Ready<bool>, CallbackError> {
        (**self).checkpoint(epoch, now)
    }
}

/// Measures how long each callback takes, and the pause.
pub struct Timed<C> {
    inner: C,
    timings: Timings,
    suspended_at: Option<Instant>,
}

impl<C> Timed<C> {
    /// Around `inner`; the figures go to `timings`.
    pub fn new(inner: C, timings: Timings) -> Self {
        Timed { inner, timings, suspended_at: None }
    }
}

impl<C: SaveCallbacks> SaveCallbacks for Timed<C> {
    crate::hand_on_save!(inner: is_checkpointed, wait_checkpoint, saved, checkpoint);

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.suspended_at = Some(Instant::now());
        self.timings.time("suspend", || self.inner.suspend(domain))
    }

    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        self.timings.time("capture", || self.inner.capture(domain, epoch))
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<(), CallbackError> {
        let result = self.timings.time("postcopy", || self.inner.postcopy(domain, epoch));
        if let Some(at) = self.suspended_at.take() {
            self.timings.pause(at.elapsed());
        }
        result
    }
}

/// Writes a line of trace at each callback.
pub struct Traced<C>(pub C);

impl<C: SaveCallbacks> SaveCallbacks for Traced<C> {
    crate::hand_on_save!(0: is_checkpointed, saved);

    fn wait_checkpoint(&mut self, now: Instant) -> Result<Ready<Trigger>, CallbackError> {
        let ready = self.0.wait_checkpoint(now);
        if let Ok(Ready::Now(trigger)) = ready {
            tracing::trace!(%trigger, "a checkpoint is due");
        }
        ready
    }

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        tracing::trace!("suspend");
        self.0.suspend(domain)
    }

    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        tracing::trace!(%epoch, "capture");
        self.0.capture(domain, epoch)
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<(), CallbackError> {
        tracing::trace!(%epoch, "postcopy");
        self.0.postcopy(domain, epoch)
    }

    fn checkpoint(&mut self, epoch: Epoch, now: Instant) -> Result<Ready<bool>, CallbackError> {
        let ready = self.0.checkpoint(epoch, now);
        if matches!(ready, Ok(Ready::Now(_))) {
            tracing::trace!(%epoch, "checkpoint done");
        }
        ready
    }
}

/// Sends a hash of the guest's whole memory (but for pages that others [write to](crate::domain::Pages::shared_pages)) and state with each checkpoint, for [`crate::restore::layers::Verified`] to check. The guest
/// waits while it is computed.
pub struct Verified<C> {
    inner: C,
    hasher: GuestHasher,
    /// Of the state that was saved last.
    state: u128,
}

impl<C> Verified<C> {
    /// Around `inner`.
    pub fn new(inner: C) -> Self {
        Verified { inner, hasher: GuestHasher::default(), state: 0 }
    }
}

impl<C: SaveCallbacks> SaveCallbacks for Verified<C> {
    crate::hand_on_save!(inner: is_checkpointed, wait_checkpoint, suspend, postcopy, checkpoint);

    fn saved(&mut self, state: &[StateRecord]) {
        self.state = GuestHasher::state(state);
        self.inner.saved(state);
    }

    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        let mut records = self.inner.capture(domain, epoch)?;
        let mut shared = DirtyBitmap::new(domain.spec().pfn_limit);
        domain.shared_pages(&mut shared)?;
        let left_out = shared.iter().collect();
        let memory = self.hasher.memory(domain, &left_out)?;
        records.push(MemoryHash { memory, state: self.state, left_out }.to_record()?);
        Ok(records)
    }
}

/// Makes things go wrong on purpose, just before chosen calls.
pub struct Faulty<C> {
    inner: C,
    faults: Faults,
}

impl<C> Faulty<C> {
    /// Around `inner`.
    pub fn new(inner: C, faults: Faults) -> Self {
        Faulty { inner, faults }
    }
}

impl<C: SaveCallbacks> SaveCallbacks for Faulty<C> {
    crate::hand_on_save!(inner: is_checkpointed, saved);

    fn wait_checkpoint(&mut self, now: Instant) -> Result<Ready<Trigger>, CallbackError> {
        self.faults.reach("wait_checkpoint")?;
        self.inner.wait_checkpoint(now)
    }

    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.faults.reach("suspend")?;
        self.inner.suspend(domain)
    }

    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        self.faults.reach("capture")?;
        self.inner.capture(domain, epoch)
    }

    fn postcopy(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<(), CallbackError> {
        self.faults.reach("postcopy")?;
        self.inner.postcopy(domain, epoch)
    }

    fn checkpoint(&mut self, epoch: Epoch, now: Instant) -> Result<Ready<bool>, CallbackError> {
        self.faults.reach("checkpoint")?;
        self.inner.checkpoint(epoch, now)
    }
}
