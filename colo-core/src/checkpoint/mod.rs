//! The two engines: when a checkpoint is taken on the primary, and what becomes of it on the secondary.
//!
//! [`Primary`] is a [`crate::save::SaveCallbacks`] for the save loop, and takes the secondary's messages. [`Secondary`] takes
//! the primary's messages and drives a [`crate::restore::Restorer`]. Both are plain state machines; what they need of the
//! packets' side is in two small traits, [`PrimaryNet`] and [`SecondaryNet`].
//!
//! One checkpoint, from left to right (COLO; under Remus the secondary's guest does not run and is not resumed):
//!
//! ```text
//! PVM    runs in epoch n-1  |freeze, suspend, capture, resume, thaw|  runs in epoch n: output is held
//! P                          \__ pages, state, CHECKPOINT, EpochEnd __            release epoch n-1's output
//!                                                                    \           /                    compare epoch n
//! S                                                        stage, verify, EpochStaged   flush, EpochApplied
//! SVM    runs in epoch n-1 ............................................... |suspended  | runs in epoch n
//! ```
//!
//! See [`Primary`] and [`Secondary`] for running examples.

mod primary;
mod secondary;
mod stats;

pub use primary::{Primary, PrimaryConfig, PrimaryNet};
pub use secondary::{Applied, Secondary, SecondaryNet};
pub use stats::{PauseStats, Stats};

use crate::restore::RestoreError;
use crate::save::CallbackError;

/// Why an engine cannot go on with its peer.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// A message that the peer must not send now.
    #[error("{message} came {when}")]
    Unexpected {
        /// What came.
        message: &'static str,
        /// What it was out of order with.
        when: String,
    },
    /// An epoch arrived that is not what was sent.
    #[error("epoch {epoch} arrived damaged: {what}")]
    Damaged {
        /// Which.
        epoch: u64,
        /// In what way.
        what: String,
    },
    /// The peer did not acknowledge in time.
    #[error("no acknowledgement of epoch {epoch} within {seconds} s")]
    AckTimeout {
        /// Which.
        epoch: u64,
        /// How long was waited.
        seconds: u64,
    },
    /// The stream could not be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The packets' side failed.
    #[error("the network side: {0}")]
    Net(CallbackError),
}
