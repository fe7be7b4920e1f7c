//! Which pages the guest wrote: two ways to find out behind one small trait. What the monitor's own devices write is kept apart,
//! in the guest memory's marks.

mod shadow;
mod userfaultfd;

pub(crate) use shadow::ShadowLog;
pub(crate) use userfaultfd::{UserfaultfdLog, constants as userfaultfd_constants};

use super::ram::GuestRam;
use colo_core::domain::{DirtyBitmap, DomainError};
use colo_core::ids::{Page, Pfn};

/// How dirty pages are to be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DirtyLogChoice {
    /// The better one that the kernel offers.
    #[default]
    Auto,
    /// userfaultfd write-protection, asynchronous, and PAGEMAP_SCAN: Linux 6.7 or later. Making a domain fails where the kernel has
    /// them not.
    Userfaultfd,
    /// Comparing with a second copy of memory: any kernel, but it costs that copy, and reading all of memory for each
    /// checkpoint. A page that was given the content it already had does not count as written.
    Shadow,
}

/// One way to find dirty pages.
pub(crate) trait DirtyTracker: Send {
    /// Its name for people.
    fn kind(&self) -> &'static str;

    /// Starts, or starts anew: all pages count as clean.
    fn enable(&mut self, ram: &GuestRam) -> Result<(), DomainError>;

    /// Adds the pages that the guest wrote since the last call, and starts anew.
    fn take(&mut self, ram: &GuestRam, into: &mut DirtyBitmap) -> Result<(), DomainError>;

    /// Stops.
    fn disable(&mut self);

    /// Hears that the engine has read a page while the guest may have been running.
    fn page_was_read(&self, ram: &GuestRam, pfn: Pfn, content: &Page);

    /// Hears, before it happens, that the engine is going to overwrite a page of the suspended domain.
    fn page_will_be_written(&mut self, ram: &GuestRam, pfn: Pfn, content: &Page);
}
