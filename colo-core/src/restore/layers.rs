//! Layers around any [`RestoreCallbacks`], to be stacked as wanted. What they share with [`crate::save::layers`] is in
//! [`crate::layers`].
//!
//! ```
//! use colo_core::layers::{Faults, Timings};
//! use colo_core::restore::layers::{Faulty, Timed};
//! use colo_core::restore::{ColoRestore, RestoreCallbacks};
//!
//! let broken = Faults::default().at("flush_memory", 3, || Err("the third flush fails".into()));
//! let callbacks: Box<dyn RestoreCallbacks> =
//!     Box::new(Timed::new(Faulty::new(ColoRestore::default(), broken), Timings::default()));
//! # drop(callbacks);
//! ```

use super::{Flushed, RestoreCallbacks};
use crate::domain::{Domain, DomainSpec, StateRecord};
use crate::ids::{Page, Pfn};
use crate::layers::{Faults, GuestHasher, Timings};
use crate::save::CallbackError;
use crate::stream::{MemoryHash, kind};
use std::time::Instant;

/// In a layer's `impl RestoreCallbacks`: as [`hand_on_save`](crate::hand_on_save) does for the callbacks of a save. The example
/// `own_callbacks` has a layer.
#[macro_export]
macro_rules! hand_on_restore {
    ($field:tt: $($callback:ident),+ $(,)?) => {
        $($crate::hand_on_restore!(@ $callback $field);)+
    };
    (@ init $field:tt) => {
        fn init(&mut self, spec: &$crate::domain::DomainSpec) -> Result<(), $crate::save::CallbackError> {
            self.$field.init(spec)
        }
    };
    (@ get_page $field:tt) => {
        fn get_page<'a>(
            &'a mut self,
            domain: &'a mut dyn $crate::domain::Domain,
            pfn: $crate::ids::Pfn,
        ) -> Result<&'a mut $crate::ids::Page, $crate::save::CallbackError> {
            self.$field.get_page(domain, pfn)
        }
    };
    (@ get_pages $field:tt) => {
        fn get_pages<'a>(
            &'a mut self,
            domain: &'a mut dyn $crate::domain::Domain,
            pfns: &[$crate::ids::Pfn],
        ) -> Result<&'a mut [$crate::ids::Page], $crate::save::CallbackError> {
            self.$field.get_pages(domain, pfns)
        }
    };
    (@ clear_pages $field:tt) => {
        fn clear_pages(
            &mut self,
            domain: &mut dyn $crate::domain::Domain,
            pfns: &[$crate::ids::Pfn],
        ) -> Result<(), $crate::save::CallbackError> {
            self.$field.clear_pages(domain, pfns)
        }
    };
    (@ record $field:tt) => {
        fn record(&mut self, kind: u32, body: &[u8]) -> Result<(), $crate::save::CallbackError> {
            self.$field.record(kind, body)
        }
    };
    (@ verify $field:tt) => {
        fn verify(&mut self, domain: &mut dyn $crate::domain::Domain) -> Result<(), $crate::save::CallbackError> {
            self.$field.verify(domain)
        }
    };
    (@ flush_memory $field:tt) => {
        fn flush_memory(
            &mut self,
            domain: &mut dyn $crate::domain::Domain,
        ) -> Result<$crate::restore::Flushed, $crate::save::CallbackError> {
            self.$field.flush_memory(domain)
        }
    };
    (@ update_p2m $field:tt) => {
        fn update_p2m(&mut self, domain: &mut dyn $crate::domain::Domain) -> Result<(), $crate::save::CallbackError> {
            self.$field.update_p2m(domain)
        }
    };
    (@ finish_restore $field:tt) => {
        fn finish_restore(
            &mut self,
            domain: &mut dyn $crate::domain::Domain,
            state: &[$crate::domain::StateRecord],
        ) -> Result<(), $crate::save::CallbackError> {
            self.$field.finish_restore(domain, state)
        }
    };
}

impl<C: RestoreCallbacks + ?Sized> RestoreCallbacks for Box<C> {
    fn init(&mut self, spec: &DomainSpec) -> Result<(), CallbackError> {
        (**self).init(spec)
    }

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        (**self).get_page(domain, pfn)
    }

    fn get_pages<'a>(&'a mut self, domain: &'a mut dyn Domain, pfns: &[Pfn]) -> Result<&'a mut [Page], CallbackError> {
        (**self).get_pages(domain, pfns)
    }

    fn clear_pages(&mut self, domain: &mut dyn Domain, pfns: &[Pfn]) -> Result<(), CallbackError> {
        (**self).clear_pages(domain, pfns)
    }

    fn record(&mut self, kind: u32, body: &[u8]) -> Result<(), CallbackError> {
        (**self).record(kind, body)
    }

    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        (**self).verify(domain)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        (**self).flush_memory(domain)
    }

    fn update_p2m(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        (**self).update_p2m(domain)
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        (**self).finish_restore(domain, state)
    }
}

/// Measures how long each callback takes, and the pause (from the flush to the end of `finish_restore`).
pub struct Timed<C> {
    inner: C,
    timings: Timings,
    flush_began: Option<Instant>,
}

impl<C> Timed<C> {
    /// Around `inner`; the figures go to `timings`.
    pub fn new(inner: C, timings: Timings) -> Self {
        Timed { inner, timings, flush_began: None }
    }
}

impl<C: RestoreCallbacks> RestoreCallbacks for Timed<C> {
    crate::hand_on_restore!(inner: get_pages, clear_pages, record);

    fn init(&mut self, spec: &DomainSpec) -> Result<(), CallbackError> {
        self.timings.time("init", || self.inner.init(spec))
    }

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        // Not timed: reading the clock would cost more than the call.
        self.inner.get_page(domain, pfn)
    }

    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.timings.time("verify", || self.inner.verify(domain))
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        self.flush_began = Some(Instant::now());
        self.timings.time("flush_memory", || self.inner.flush_memory(domain))
    }

    fn update_p2m(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.timings.time("update_p2m", || self.inner.update_p2m(domain))
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        let result = self.timings.time("finish_restore", || self.inner.finish_restore(domain, state));
        if let Some(began) = self.flush_began.take() {
            self.timings.pause(began.elapsed());
        }
        result
    }
}

/// Writes a line of trace at each callback but those for single pages.
pub struct Traced<C>(pub C);

impl<C: RestoreCallbacks> RestoreCallbacks for Traced<C> {
    crate::hand_on_restore!(0: get_page, get_pages, clear_pages);

    fn init(&mut self, spec: &DomainSpec) -> Result<(), CallbackError> {
        tracing::trace!(domain = %spec.name, pages = spec.pfn_limit, "init");
        self.0.init(spec)
    }

    fn record(&mut self, kind: u32, body: &[u8]) -> Result<(), CallbackError> {
        tracing::trace!("record {kind:#x}, {} bytes", body.len());
        self.0.record(kind, body)
    }

    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        tracing::trace!("verify");
        self.0.verify(domain)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        let flushed = self.0.flush_memory(domain);
        tracing::trace!(?flushed, "flush_memory");
        flushed
    }

    fn update_p2m(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        tracing::trace!("update_p2m");
        self.0.update_p2m(domain)
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        tracing::trace!("finish_restore");
        self.0.finish_restore(domain, state)
    }
}

/// Checks the guest's whole memory after each flush, and the state that is loaded, against the hash that the primary sent
/// ([`crate::save::layers::Verified`]); a checkpoint without one passes.
pub struct Verified<C> {
    inner: C,
    hasher: GuestHasher,
    expected: Option<MemoryHash>,
}

impl<C> Verified<C> {
    /// Around `inner`.
    pub fn new(inner: C) -> Self {
        Verified { inner, hasher: GuestHasher::default(), expected: None }
    }
}

impl<C: RestoreCallbacks> RestoreCallbacks for Verified<C> {
    crate::hand_on_restore!(inner: init, get_page, get_pages, clear_pages, verify, update_p2m);

    fn record(&mut self, kind: u32, body: &[u8]) -> Result<(), CallbackError> {
        if kind == kind::MEMORY_HASH {
            self.expected = Some(MemoryHash::parse(body)?);
        }
        self.inner.record(kind, body)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        let flushed = self.inner.flush_memory(domain)?;
        match &self.expected {
            Some(expected) if self.hasher.memory(domain, &expected.left_out)? != expected.memory => {
                Err("the guest's memory differs from the primary's".into())
            }
            _ => Ok(flushed),
        }
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        match self.expected.take() {
            Some(expected) if GuestHasher::state(state) != expected.state => {
                Err("the guest's state differs from the primary's".into())
            }
            _ => self.inner.finish_restore(domain, state),
        }
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

impl<C: RestoreCallbacks> RestoreCallbacks for Faulty<C> {
    fn init(&mut self, spec: &DomainSpec) -> Result<(), CallbackError> {
        self.faults.reach("init")?;
        self.inner.init(spec)
    }

    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError> {
        self.faults.reach("get_page")?;
        self.inner.get_page(domain, pfn)
    }

    fn record(&mut self, kind: u32, body: &[u8]) -> Result<(), CallbackError> {
        self.faults.reach("record")?;
        self.inner.record(kind, body)
    }

    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.faults.reach("verify")?;
        self.inner.verify(domain)
    }

    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError> {
        self.faults.reach("flush_memory")?;
        self.inner.flush_memory(domain)
    }

    fn update_p2m(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        self.faults.reach("update_p2m")?;
        self.inner.update_p2m(domain)
    }

    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError> {
        self.faults.reach("finish_restore")?;
        self.inner.finish_restore(domain, state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Control as _;
    use crate::domain::model::ModelDomain;
    use crate::ids::{Epoch, PAGE_SIZE};
    use crate::restore::{ColoRestore, Progress, RestoreError, Restorer};
    use crate::save::layers::Verified as VerifiedSave;
    use crate::save::{Ready, SaveCallbacks, SaveConfig, SaveLoop, Step, Trigger};
    use crate::stream::StreamUse;

    /// Checkpoints without end.
    struct Always;

    impl SaveCallbacks for Always {
        fn wait_checkpoint(&mut self, _: Instant) -> Result<Ready<Trigger>, CallbackError> {
            Ok(Ready::Now(Trigger::Requested))
        }

        fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
            Ok(domain.suspend()?)
        }

        fn capture(&mut self, _: &mut dyn Domain, _: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
            Ok(Vec::new())
        }

        fn postcopy(&mut self, domain: &mut dyn Domain, _: Epoch) -> Result<(), CallbackError> {
            Ok(domain.resume()?)
        }

        fn checkpoint(&mut self, _: Epoch, _: Instant) -> Result<Ready<bool>, CallbackError> {
            Ok(Ready::Now(true))
        }
    }

    struct Pair {
        primary: ModelDomain,
        secondary: ModelDomain,
        save: SaveLoop,
        sent: VerifiedSave<Always>,
        restorer: Restorer,
        restore: Verified<ColoRestore>,
    }

    impl Pair {
        fn new() -> Pair {
            let (primary, secondary) = (ModelDomain::new("one", 700), ModelDomain::new("other", 700));
            Pair {
                save: SaveLoop::new(SaveConfig::default()),
                sent: VerifiedSave::new(Always),
                restorer: Restorer::new(primary.spec(), StreamUse::Checkpointed),
                restore: Verified::new(ColoRestore::default()),
                primary,
                secondary,
            }
        }

        /// One checkpoint; `between` is what goes wrong after it was staged.
        fn checkpoint(&mut self, between: impl FnOnce(&mut ModelDomain)) -> Result<(), RestoreError> {
            let mut stream = Vec::new();
            while !matches!(
                self.save.step(Instant::now(), &mut self.primary, &mut self.sent, &mut stream).unwrap(),
                Step::Written(_)
            ) {}
            let progress = self.restorer.handle_stream(&stream, &mut self.secondary, &mut self.restore)?;
            assert_eq!(progress, Progress::Staged);
            between(&mut self.secondary);
            self.restorer.apply(&mut self.secondary, &mut self.restore).map(drop)
        }
    }

    /// A byte of the guest, changed so that no log knows it.
    fn corrupt(domain: &mut ModelDomain, pfn: u64) {
        let mut page = [0; PAGE_SIZE];
        crate::domain::Pages::read_pages(domain, &[Pfn(pfn)], &mut page).unwrap();
        page[77] ^= 1;
        crate::domain::Pages::write_pages(domain, &[Pfn(pfn)], &page).unwrap();
    }

    #[test]
    fn one_wrong_byte_is_found() {
        for pfn in [0, 5, 511, 512, 699] {
            let mut pair = Pair::new();
            pair.primary.store(5 * PAGE_SIZE, &[1; PAGE_SIZE]);
            pair.checkpoint(|_| ()).unwrap();
            pair.primary.store(6 * PAGE_SIZE, b"more");
            pair.checkpoint(|_| ()).unwrap();
            let error = pair.checkpoint(|secondary| corrupt(secondary, pfn)).unwrap_err();
            let RestoreError::HalfWritten { callback: "flush_memory", source } = error else { panic!("{error}") };
            assert_eq!(source.to_string(), "the guest's memory differs from the primary's");
        }
    }

    #[test]
    fn what_is_in_others_hands_may_differ() {
        let mut pair = Pair::new();
        pair.primary.shared = vec![Pfn(9)];
        pair.primary.store(8 * PAGE_SIZE, b"memory");
        pair.checkpoint(|_| ()).unwrap();
        pair.checkpoint(|secondary| corrupt(secondary, 9)).unwrap();
        assert!(pair.checkpoint(|secondary| corrupt(secondary, 8)).is_err());
    }
}
