//! Putting a [`crate::stream`] into a domain.
//!
//! [`Restorer`] takes the stream apart and knows the order of things; where a page goes, and when the guest is touched, is in
//! its [`RestoreCallbacks`]. They have the life of COLO's restore: `init` once, then for every checkpoint `get_page` for each
//! page, `flush_memory`, `update_p2m`, `finish_restore`.
//!
//! * [`PlainRestore`]: pages go into the guest as they come; one checkpoint, and it runs.
//! * [`RemusRestore`]: pages are staged; the suspended guest stands at the last whole checkpoint.
//! * [`ColoRestore`]: pages go into a cache; the guest runs, and is put back to the primary's state at each checkpoint.
//! * [`layers`] wrap any of them, or yours: timing, tracing, verification, fault injection.
//!
//! Until [`Restorer::apply`] is called nothing that arrives touches a guest that could serve: a stream may break off anywhere.
//!
//! ```
//! use colo_core::domain::{Control, Domain, model::ModelDomain};
//! use colo_core::restore::{PlainRestore, Progress, Restorer};
//! use colo_core::save::{PlainSave, SaveConfig, SaveLoop, Step};
//! use colo_core::stream::StreamUse;
//! use std::time::Instant;
//!
//! let mut source = ModelDomain::new("demo", 64);
//! source.store(5000, b"hello");
//! let mut image = Vec::new();
//! let mut save = SaveLoop::new(SaveConfig::default());
//! while !matches!(save.step(Instant::now(), &mut source, &mut PlainSave::default(), &mut image)?, Step::Done) {}
//!
//! let mut copy = ModelDomain::new("demo", 64);
//! let mut callbacks = PlainRestore::default();
//! let mut restorer = Restorer::new(copy.spec(), StreamUse::Plain);
//! assert_eq!(restorer.handle_stream(&image, &mut copy, &mut callbacks)?, Progress::Staged);
//! restorer.apply(&mut copy, &mut callbacks)?;
//! assert_eq!(source.ram(), copy.ram());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod cache;
mod colo;
pub mod layers;
mod plain;
mod remus;
mod run;

pub use colo::ColoRestore;
pub use plain::PlainRestore;
pub use remus::RemusRestore;
pub use run::{Progress, Restorer};

use crate::domain::{Domain, DomainError, DomainSpec, StateRecord};
use crate::ids::{Page, Pfn};
use crate::save::CallbackError;
use crate::stream::image::ImageReadError;
use crate::stream::{DomainKind, StreamError};

/// What a flush wrote into the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flushed {
    /// Pages that came with the checkpoint.
    pub received_pages: u64,
    /// Pages written into the guest: those, and in lock-step those that the secondary itself had dirtied.
    pub written_pages: u64,
}

/// Where a checkpoint goes. Called in the order in which they stand here; all but `init` again for each checkpoint. Resources
/// are given back by `Drop`.
pub trait RestoreCallbacks {
    /// The stream's headers fit the domain; pages will come.
    ///
    /// # Errors
    /// Any error ends the restore; the guest has not been touched.
    fn init(&mut self, spec: &DomainSpec) -> Result<(), CallbackError>;

    /// Where the page's content is to be put: a cache, a stage, or what will be written into the guest itself. The caller fills
    /// all of it before the next call. A page may come more than once; the last content counts.
    ///
    /// # Errors
    /// Any error ends the restore; the guest has not been touched, if it could serve.
    fn get_page<'a>(&'a mut self, domain: &'a mut dyn Domain, pfn: Pfn) -> Result<&'a mut Page, CallbackError>;

    /// As [`RestoreCallbacks::get_page`], for the first of these pages (there is one), and for as many that follow it as can be put
    /// side by side: at least one comes back. The others are likely to be asked for next, and may be made ready for that.
    ///
    /// # Errors
    /// As for [`RestoreCallbacks::get_page`].
    fn get_pages<'a>(&'a mut self, domain: &'a mut dyn Domain, pfns: &[Pfn]) -> Result<&'a mut [Page], CallbackError> {
        Ok(std::slice::from_mut(self.get_page(domain, pfns[0])?))
    }

    /// Instead of [`RestoreCallbacks::get_page`] for pages that are known to be nothing but zeroes.
    ///
    /// # Errors
    /// As for [`RestoreCallbacks::get_page`].
    fn clear_pages(&mut self, domain: &mut dyn Domain, pfns: &[Pfn]) -> Result<(), CallbackError> {
        for pfn in pfns {
            self.get_page(domain, *pfn)?.fill(0);
        }
        Ok(())
    }

    /// A record of the stream's optional range that is not the domain's own. Unknown ones are ignored.
    ///
    /// # Errors
    /// Any error ends the restore; the guest has not been touched.
    fn record(&mut self, kind: u32, body: &[u8]) -> Result<(), CallbackError> {
        let _ = (kind, body);
        Ok(())
    }

    /// What has been received is to be compared with what comes again: it must be in the guest. Only in a plain stream, before its
    /// end.
    ///
    /// # Errors
    /// Any error ends the restore.
    fn verify(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        let _ = domain;
        Ok(())
    }

    /// The checkpoint is whole and verified: brings guest memory to its state.
    ///
    /// # Errors
    /// Any error leaves the guest half-written: it must be destroyed.
    fn flush_memory(&mut self, domain: &mut dyn Domain) -> Result<Flushed, CallbackError>;

    /// Brings the guest's table of frames up to date, for machines that have one (Xen PV).
    ///
    /// # Errors
    /// As for [`RestoreCallbacks::flush_memory`].
    fn update_p2m(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError> {
        Ok(domain.update_p2m()?)
    }

    /// Loads vCPU and device state and, where the guest shall run, lets it. The next checkpoint may follow.
    ///
    /// # Errors
    /// As for [`RestoreCallbacks::flush_memory`].
    fn finish_restore(&mut self, domain: &mut dyn Domain, state: &[StateRecord]) -> Result<(), CallbackError>;
}

/// Why a restore ended.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum RestoreError {
    /// The stream is not what it should be.
    #[error("the stream: {0}")]
    Stream(#[from] StreamError),
    /// The pages' bytes could not be read.
    #[error(transparent)]
    Image(#[from] ImageReadError),
    /// The stream is of another machine than the domain.
    #[error("the stream is of a machine of type {theirs:?}, the domain is of type {ours:?}")]
    OtherMachine {
        /// What the stream says.
        theirs: DomainKind,
        /// What the domain is.
        ours: DomainKind,
    },
    /// The domain cannot take what the stream carries.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// A callback failed before the guest was touched.
    #[error("{callback}: {source}")]
    Callback {
        /// Which.
        callback: &'static str,
        /// What it said.
        source: CallbackError,
    },
    /// A callback failed while the guest was being changed: it is neither in its old state nor in the new one.
    #[error("{callback} failed with the guest half-written: {source}")]
    HalfWritten {
        /// Which.
        callback: &'static str,
        /// What it said.
        source: CallbackError,
    },
    /// The stream was made to be verified, and a page that came again is another.
    #[error("{pfn} came twice, with different contents")]
    NotTheSame {
        /// The page.
        pfn: Pfn,
    },
    /// A checkpoint with more than pages than makes sense.
    #[error("a checkpoint with more than {limit_bytes} bytes beside its pages")]
    TooMuch {
        /// The limit.
        limit_bytes: usize,
    },
    /// More of the stream came while a whole checkpoint waited to be applied.
    #[error("a checkpoint was followed by more before it was applied")]
    NotApplied,
}
