//! Whether a domain of this host can be protected towards another host, and how: told before anything is touched.
//!
//! ```text
//! DomainFacts    the domain, as Xen, its toolstack and the network know it
//! HostFacts      a host, as far as the domain needs it: this one's, and the peer's, which come by the peer protocol
//! judge          what follows from them: one finding a question, each with its remedy; it only thinks
//! modes          which mode is possible for which guest: the one place that knows
//! ```
//!
//! Nothing here changes anything, of the domain or of a host.
//!
//! ```
//! use colo_core::xen::check::{ColoWay, Guest, colo_way};
//! use colo_core::xen::GuestType;
//!
//! let pvh = Guest { guest_type: GuestType::Pvh, has_pv_drivers: true };
//! assert_eq!(colo_way(pvh), Ok(ColoWay::Transparent));
//! ```

mod cpu;
mod domain;
mod error;
mod facts;
mod host;
mod judge;
mod modes;
#[cfg(test)]
pub(super) mod testing;

pub use cpu::{CpuFacts, Features, FeaturesError};
pub use domain::{DiskFacts, DomainFacts, DomainState, NicFacts, SuspendSupport};
pub use error::{CheckError, FactsError};
pub use host::{Asked, BridgeFacts, DiskServerFit, HostFacts};
pub use judge::{ClockDifference, Question, judge};
pub use modes::{ColoWay, Guest, colo_way};

use std::fmt;

/// What was found out about one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The thing, in a word or two: "memory".
    pub about: &'static str,
    /// Whether it is as it must be.
    pub verdict: Verdict,
    /// What was found: one line without a full stop.
    pub text: String,
    /// What to do about it: one line without a full stop.
    pub remedy: Option<String>,
}

impl Finding {
    /// As it must be.
    pub fn ok(about: &'static str, text: impl Into<String>) -> Finding {
        Finding { about, verdict: Verdict::Ok, text: text.into(), remedy: None }
    }

    /// Possible, but to be known.
    pub fn warning(about: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { about, verdict: Verdict::Warning, text: text.into(), remedy: Some(remedy.into()) }
    }

    /// As it is, the domain cannot be protected.
    pub fn failure(about: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { about, verdict: Verdict::Failure, text: text.into(), remedy: Some(remedy.into()) }
    }
}

/// What a finding means for protection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// Nothing is in the way.
    Ok,
    /// It works, but somebody should know.
    Warning,
    /// It does not work before this has been put right.
    Failure,
}

impl Verdict {
    /// "ok", "warning" or "failure".
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failure => "failure",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
