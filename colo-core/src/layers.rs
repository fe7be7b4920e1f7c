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

use crate::domain::{Domain, DomainError, MAX_BATCH_PAGES, StateRecord};
use crate::ids::{PAGE_SIZE, Pfn};
use crate::save::CallbackError;
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
        let took = began.elapsed();
        let mut inner = self.lock();
        let entry = inner.calls.entry(name).or_default();
        *entry = CallTime { calls: entry.calls + 1, total: entry.total + took, longest: entry.longest.max(took) };
        result
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
    /// Over the whole memory, page after page.
    pub(crate) fn memory(&mut self, domain: &dyn Domain) -> Result<u128, DomainError> {
        let mut hash = Xxh3::new();
        let pfn_limit = domain.spec().pfn_limit;
        let mut first = 0;
        while first < pfn_limit {
            let pfns: Vec<Pfn> = (first..pfn_limit).take(MAX_BATCH_PAGES).map(Pfn).collect();
            self.pages.resize(pfns.len() * PAGE_SIZE, 0);
            domain.read_pages(&pfns, &mut self.pages)?;
            hash.update(&self.pages);
            first += pfns.len() as u64;
        }
        Ok(hash.digest128())
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
