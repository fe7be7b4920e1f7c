use crate::ids::DomId;
use std::fmt;
use std::io;

/// A call to Xen that failed: `xc_domain_pause(domain 3): No such process (os error 3)`.
#[derive(Debug)]
pub struct XenError {
    /// The C function or the operation.
    pub call: &'static str,
    /// The domain that it was for, where it was for one.
    pub domid: Option<DomId>,
    /// The path in the store that it was for, where it was for one.
    pub path: Option<Box<str>>,
    /// What the hypervisor or the system said.
    pub source: io::Error,
}

impl XenError {
    /// By the thread's `errno`: to be called right after the call that failed.
    pub(super) fn last(call: &'static str, domid: impl Into<Option<DomId>>) -> Self {
        Self::new(call, domid, io::Error::last_os_error())
    }

    pub(super) fn new(call: &'static str, domid: impl Into<Option<DomId>>, source: io::Error) -> Self {
        XenError { call, domid: domid.into(), path: None, source }
    }

    /// A call that was not made because its arguments cannot be right.
    pub(super) fn invalid(call: &'static str, domid: impl Into<Option<DomId>>, why: String) -> Self {
        Self::new(call, domid, io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    /// A call whose answer cannot be right.
    pub(super) fn bad_answer(call: &'static str, domid: impl Into<Option<DomId>>, why: String) -> Self {
        Self::new(call, domid, io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// For a path in the store.
    pub(super) fn at(mut self, path: &str) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The error number, where the system gave one.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// Whether this hypervisor cannot do it at all: a second try is of no use, another way may be (`EOPNOTSUPP`, `ENOSYS`). So
    /// answers a hypervisor without shadow paging when the dirty log of a PV domain is enabled.
    pub fn is_unsupported(&self) -> bool {
        self.is(rustix::io::Errno::OPNOTSUPP) || self.is(rustix::io::Errno::NOSYS)
    }

    /// Whether the domain does not exist (`ESRCH`).
    pub fn is_no_such_domain(&self) -> bool {
        self.is(rustix::io::Errno::SRCH)
    }

    fn is(&self, errno: rustix::io::Errno) -> bool {
        self.errno() == Some(errno.raw_os_error())
    }
}

impl fmt::Display for XenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.domid, &self.path) {
            (Some(domid), _) => write!(f, "{}({domid}): {}", self.call, self.source),
            (None, Some(path)) => write!(f, "{}({path}): {}", self.call, self.source),
            (None, None) => write!(f, "{}: {}", self.call, self.source),
        }
    }
}

impl std::error::Error for XenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Where an interface has 16 bits for a domain.
pub(super) fn domid_16(call: &'static str, domid: DomId) -> Result<u16, XenError> {
    u16::try_from(domid.0).map_err(|_| XenError::invalid(call, domid, "domain ids have 15 bits".into()))
}
