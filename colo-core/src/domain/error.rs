use crate::ids::Pfn;

/// Why a hypervisor did not do as it was asked.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum DomainError {
    /// The domain has shut down or crashed.
    #[error("domain {0} is not running any more")]
    NotRunning(String),
    /// The call needs a suspended domain.
    #[error("domain {0} must be suspended first")]
    NotSuspended(String),
    /// The domain has been suspended by somebody else, whose it is to resume: its image may be what is left to be used.
    #[error("{0} has been suspended by another, who may not be done with it")]
    SuspendedByAnother(String),
    /// Dirty pages were asked for while nobody logs them.
    #[error("the dirty log is off")]
    DirtyLogOff,
    /// A page beyond the end of guest memory.
    #[error("{pfn} is beyond the end of guest memory ({pfn_limit} pages)")]
    PfnOutOfRange {
        /// The page asked for.
        pfn: Pfn,
        /// The first page number that does not exist.
        pfn_limit: u64,
    },
    /// A batch too long, or with a buffer of another length.
    #[error("a batch of {pages} pages does not fit a buffer of {bytes} bytes")]
    BadBatch {
        /// Pages in the batch.
        pages: usize,
        /// Bytes in the buffer.
        bytes: usize,
    },
    /// State that this hypervisor cannot load.
    #[error("cannot load this state: {0}")]
    BadState(String),
    /// A specification that this hypervisor cannot build.
    #[error("cannot make this domain: {0}")]
    BadSpec(String),
    /// A call into the system failed.
    #[error("{call}: {source}")]
    Sys {
        /// What was tried.
        call: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The hypervisor's own word.
    #[error(transparent)]
    Hypervisor(Box<dyn std::error::Error + Send + Sync>),
    /// Anything else a hypervisor may say.
    #[error("{0}")]
    Other(String),
}

impl DomainError {
    /// For `map_err`: wraps the system's word on `call`.
    pub fn sys(call: &'static str) -> impl FnOnce(std::io::Error) -> DomainError {
        move |source| DomainError::Sys { call, source }
    }
}
