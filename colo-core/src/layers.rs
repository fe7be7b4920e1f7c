//! What the layers around save and restore callbacks share: [`Timings`], [`Faults`], and the hash of a guest's memory.
//!
//! ```
//! use colo_core::layers::{Faults, Timings};
//! use std::time::Duration;
//!
//! let timings = Timings::default();
//! timings.pause(Duration::from_millis(3));
//! assert_eq!(timings.last_pause(), Some(Duration::from_millis(3)));
//!
//! let mut faults = Faults::default().at("suspend", 2, || Err("no".into()));
//! assert!(faults.reach("suspend").is_ok());
//! assert!(faults.reach("suspend").is_err());
//! ```

use crate::domain::{DirtyBitmap, Domain, DomainError, MAX_BATCH_PAGES, StateRecord};
use crate::ids::{PAGE_SIZE, Pfn};
use crate::save::CallbackError;
use crate::stream::PfnRanges;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::Xxh3;

/// How long callbacks took. A handle: clones share their figures.
#[derive(Clone, Default, Debug)]
pub struct Timings(Arc<Mutex<TimingsInner>>);

#[derive(Default, Debug)]
struct TimingsInner {
    calls: BTreeMap<&'static str, CallTime>,
    last_pause: Option<Duration>,
}

/// How long one callback took, over all calls.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CallTime {
    /// Calls.
    pub calls: u64,
    /// All of them together.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Timings {
    /// Runs `call` and books its time under `name`.
    pub fn time<T>(&self, name: &'static str, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = call();
        self.book(name, began.elapsed());
        result
    }

    /// Books what was measured elsewhere.
    pub fn book(&self, name: &'static str, took: Duration) {
        let mut inner = self.lock();
        let entry = inner.calls.entry(name).or_default();
        *entry = CallTime { calls: entry.calls + 1, total: entry.total + took, longest: entry.longest.max(took) };
    }

    /// Books a pause.
    pub fn pause(&self, pause: Duration) {
        self.lock().last_pause = Some(pause);
    }

    /// How long the guest's vCPUs stood still at the last checkpoint.
    pub fn last_pause(&self) -> Option<Duration> {
        self.lock().last_pause
    }

    /// The figures of each callback that was called.
    pub fn calls(&self) -> Vec<(&'static str, CallTime)> {
        self.lock().calls.iter().map(|(&name, &time)| (name, time)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, TimingsInner> {
        // A panic while the figures were being booked leaves figures, which is all they are.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Action = Box<dyn FnMut() -> Result<(), CallbackError> + Send>;

/// What shall go wrong, and when.
#[derive(Default)]
pub struct Faults {
    faults: Vec<(&'static str, u64, Action)>,
    calls: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// Just before call number `call` (from 1) of that callback, does `action`: which may fail, or kill, or wait.
    #[must_use]
    pub fn at(
        mut self,
        callback: &'static str,
        call: u64,
        action: impl FnMut() -> Result<(), CallbackError> + Send + 'static,
    ) -> Self {
        self.faults.push((callback, call, Box::new(action)));
        self
    }

    /// A call of that callback is about to be made.
    ///
    /// # Errors
    /// What the action says.
    pub fn reach(&mut self, callback: &'static str) -> Result<(), CallbackError> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let calls = self.calls.entry(callback).or_default();
        *calls += 1;
        for (name, call, action) in &mut self.faults {
            if *name == callback && call == calls {
                action()?;
            }
        }
        Ok(())
    }
}

/// Hashes a suspended guest (XXH3, 128 bits).
#[derive(Default)]
pub(crate) struct GuestHasher {
    pages: Vec<u8>,
}

impl GuestHasher {
    /// Over the whole memory but for the pages that are left out. A page that a guest has not is as good as one of zeroes, so none of
    /// these counts.
    pub(crate) fn memory(&mut self, domain: &dyn Domain, left_out: &PfnRanges) -> Result<u128, DomainError> {
        let mut hash = Xxh3::new();
        let mut populated = DirtyBitmap::new(domain.spec().pfn_limit);
        domain.populated(&mut populated)?;
        let mut pfns = populated.iter().filter(|pfn| !left_out.contains(*pfn));
        loop {
            let batch: Vec<Pfn> = pfns.by_ref().take(MAX_BATCH_PAGES).collect();
            if batch.is_empty() {
                return Ok(hash.digest128());
            }
            self.pages.resize(batch.len() * PAGE_SIZE, 0);
            domain.read_normalised(&batch, &mut self.pages)?;
            for (pfn, page) in batch.iter().zip(self.pages.chunks_exact(PAGE_SIZE)) {
                if page != [0; PAGE_SIZE] {
                    hash.update(&pfn.0.to_le_bytes());
                    hash.update(page);
                }
            }
        }
    }

    /// Over vCPUs and devices.
    pub(crate) fn state(state: &[StateRecord]) -> u128 {
        let mut hash = Xxh3::new();
        for record in state {
            hash.update(&record.kind.to_le_bytes());
            hash.update(&(record.body.len() as u64).to_le_bytes());
            hash.update(&record.body);
        }
        hash.digest128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::model::ModelDomain;

    fn hash(domain: &ModelDomain, left_out: &[u64]) -> u128 {
        let left_out = left_out.iter().copied().map(Pfn).collect();
        GuestHasher::default().memory(domain, &left_out).unwrap()
    }

    #[test]
    fn every_byte_and_every_place_counts() {
        let mut domain = ModelDomain::new("hashed", 3000);
        let empty = hash(&domain, &[]);
        let mut seen = vec![empty];
        for at in [0, 5 * PAGE_SIZE + 4095, 2999 * PAGE_SIZE + 1] {
            domain.store(at, &[1]);
            seen.push(hash(&domain, &[]));
        }
        // The same bytes in another page.
        domain.store(2999 * PAGE_SIZE + 1, &[0]);
        domain.store(2998 * PAGE_SIZE + 1, &[1]);
        seen.push(hash(&domain, &[]));
        let different: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len());
    }

    #[test]
    fn what_is_left_out_does_not_count_and_zeroes_are_as_good_as_nothing() {
        let mut domain = ModelDomain::new("hashed", 16);
        domain.store(3 * PAGE_SIZE, &[1]);
        let before = hash(&domain, &[7]);
        domain.store(7 * PAGE_SIZE, &[1]);
        assert_eq!(hash(&domain, &[7]), before);
        assert_ne!(hash(&domain, &[8]), before);
        domain.store(7 * PAGE_SIZE, &[0]);
        assert_eq!(hash(&domain, &[]), before);
    }
}
