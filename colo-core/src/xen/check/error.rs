use crate::domain::DomainError;
use crate::xen::XenError;
use crate::xen::plan::PlanError;
use crate::xen::toolstack::{ConfigError, XlError};
use std::io;

/// Why something could not be found out.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum CheckError {
    /// A call to Xen or xenstore.
    #[error(transparent)]
    Xen(#[from] XenError),
    /// Xen's toolstack.
    #[error(transparent)]
    Xl(#[from] XlError),
    /// The domain's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The specification by which a peer is asked.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The system.
    #[error("{what}: {source}")]
    Io {
        /// What was looked at.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something does not say what it always says.
    #[error("{from} does not tell {what}")]
    Lacks {
        /// Who.
        from: &'static str,
        /// What.
        what: &'static str,
    },
    /// A domain with more devices than can be told of.
    #[error("{got} network cards and disks: the limit is {limit}")]
    TooManyDevices {
        /// How many.
        got: usize,
        /// The limit.
        limit: usize,
    },
}

impl From<CheckError> for DomainError {
    fn from(error: CheckError) -> DomainError {
        DomainError::Hypervisor(Box::new(error))
    }
}

/// What a peer told of itself makes no sense.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("the peer's answer has no valid {0}: run the same release of colo on both hosts")]
pub struct FactsError(pub String);
