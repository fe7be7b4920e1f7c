//! Taking a domain's state into a [`crate::stream`].
//!
//! [`SaveLoop`] is the order of things; what differs between a plain save, Remus and COLO is in its [`SaveCallbacks`]:
//!
//! ```text
//! headers -> pages while the guest runs (precopy rounds) ->
//!   +-> wait_checkpoint -> suspend -> dirty pages, state, capture -> postcopy -> CHECKPOINT -> checkpoint -+
//!   +-----------------------------------------------------------------------------------------------------+
//! ```
//!
//! * [`PlainSave`] goes round once: the guest's state at one moment, for a file or a move.
//! * [`crate::checkpoint::Primary`] goes round for as long as the machine is protected.
//! * [`layers`] wrap any callbacks: timing, tracing, verification, fault injection.
//!
//! The loop neither waits nor reads a clock: [`SaveLoop::step`] does one thing and returns. A callback may answer "not yet".
//!
//! ```
//! use colo_core::domain::{Control, model::ModelDomain};
//! use colo_core::save::{PlainSave, SaveConfig, SaveLoop, Step};
//! use std::time::Instant;
//!
//! let mut domain = ModelDomain::new("demo", 64);
//! domain.store(5000, b"hello");
//! domain.resume()?;
//! let mut image = Vec::new();
//! let mut save = SaveLoop::new(SaveConfig::default());
//! while !matches!(save.step(Instant::now(), &mut domain, &mut PlainSave::default(), &mut image)?, Step::Done) {}
//! assert!(image.windows(5).any(|bytes| bytes == b"hello"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod capture;
mod image_file;
pub mod layers;
mod plain;
mod run;
mod sink;

pub use image_file::ImageFile;
pub use plain::PlainSave;
pub use run::{CheckpointStats, CopyStats, SaveConfig, SaveLoop, Step};
pub use sink::StreamSink;

use crate::domain::{Domain, DomainError, StateRecord};
use crate::ids::Epoch;
use crate::stream::StreamError;
use std::fmt;
use std::time::Instant;

/// Why a callback failed; whatever its implementer has to say.
pub type CallbackError = Box<dyn std::error::Error + Send + Sync>;

/// A callback's answer: now, or not before something happens, to be asked again at that time at the latest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ready<T> {
    /// The answer.
    Now(T),
    /// Not yet: step again when something has happened, and at this time at the latest.
    NotBefore(Instant),
}

/// Why a checkpoint is taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Trigger {
    /// The first of all, and in a rehearsal each up to the one that protection begins with.
    First,
    /// The interval has passed.
    Interval,
    /// The outputs of the two machines differ.
    Miscompare,
    /// One machine said something that the other did not say in time.
    Unmatched,
    /// A queue is full.
    QueueFull,
    /// The caller asked for it.
    Requested,
}

impl Trigger {
    /// Every trigger, in the order in which statistics show them.
    pub const ALL: [Trigger; 6] = [
        Trigger::First,
        Trigger::Interval,
        Trigger::Miscompare,
        Trigger::Unmatched,
        Trigger::QueueFull,
        Trigger::Requested,
    ];

    /// One word for people and machines: also the name in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Trigger::First => "first",
            Trigger::Interval => "interval",
            Trigger::Miscompare => "miscompare",
            Trigger::Unmatched => "unmatched",
            Trigger::QueueFull => "queue-full",
            Trigger::Requested => "requested",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What [`SaveLoop`] does not know: when to take a checkpoint, how to stop the guest and its network, what must be true before
/// the next one. Called in the order in which they stand here, again for each checkpoint.
pub trait SaveCallbacks {
    /// Whether the stream goes on after a checkpoint. A plain image has one, and ends with it.
    fn is_checkpointed(&self) -> bool {
        true
    }

    /// Whether a checkpoint is due, and why.
    ///
    /// # Errors
    /// Any error ends the loop.
    fn wait_checkpoint(&mut self, now: Instant) -> Result<Ready<Trigger>, CallbackError>;

    /// Suspends the domain. On return nothing touches its memory.
    ///
    /// # Errors
    /// Any error ends the loop; the domain is resumed.
    fn suspend(&mut self, domain: &mut dyn Domain) -> Result<(), CallbackError>;

    /// The suspended domain's own state is in hand: these records will travel. Whoever needs to know them has no need to take them
    /// again.
    fn saved(&mut self, state: &[StateRecord]) {
        let _ = state;
    }

    /// The domain is suspended and its dirty pages are in hand: what else belongs to this moment? The records travel with the
    /// checkpoint, after the domain's own; each must be of the optional range.
    ///
    /// # Errors
    /// Any error ends the loop; the domain is resumed.
    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError>;

    /// Everything is captured: the domain may go on, if it shall.
    ///
    /// # Errors
    /// Any error ends the loop; the domain is resumed.
    fn postcopy(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<(), CallbackError>;

    /// The whole checkpoint has been written. Says whether there will be another (`true`), once the other side has it.
    ///
    /// # Errors
    /// Any error ends the loop.
    fn checkpoint(&mut self, epoch: Epoch, now: Instant) -> Result<Ready<bool>, CallbackError>;
}

/// Why a save ended before its time. The domain runs again, unless it has ended by itself.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum SaveError {
    /// The hypervisor refused.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The stream could not be written.
    #[error("writing the stream: {0}")]
    Sink(#[from] std::io::Error),
    /// A record that cannot be written.
    #[error("the stream: {0}")]
    Record(#[from] StreamError),
    /// A callback failed.
    #[error("{callback}: {source}")]
    Callback {
        /// Which.
        callback: &'static str,
        /// What it said.
        source: CallbackError,
    },
}

impl SaveError {
    fn callback(callback: &'static str) -> impl FnOnce(CallbackError) -> SaveError {
        move |source| SaveError::Callback { callback, source }
    }
}
