use super::DirtyTracker;
use crate::machine::abi::RAM_BASE;
use crate::machine::ram::GuestRam;
use colo_core::domain::{DirtyBitmap, DomainError};
use colo_core::ids::{PAGE_SIZE, Page, Pfn};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Numbers of the kernel's interface: `include/uapi/linux/userfaultfd.h` and `linux/fs.h`, as documented in
/// `Documentation/admin-guide/mm/{userfaultfd,pagemap}.rst`.
pub(crate) mod constants {
    /// Handle only the faults of user mode, for which no privilege is needed. (With `WP_ASYNC` no fault is ever handled in user
    /// space, so that the kernel's own writes to guest memory are found as well.)
    pub(crate) const UFFD_USER_MODE_ONLY: u64 = 1;
    /// Version of the interface.
    pub(crate) const UFFD_API: u64 = 0xAA;
    /// `_IOWR(0xAA, 0x3F, struct uffdio_api)`.
    pub(crate) const UFFDIO_API: u64 = 0xC018_AA3F;
    /// `_IOWR(0xAA, 0x00, struct uffdio_register)`.
    pub(crate) const UFFDIO_REGISTER: u64 = 0xC020_AA00;
    /// Registration for write-protection.
    pub(crate) const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
    /// `PAGEFAULT_FLAG_WP`, `WP_HUGETLBFS_SHMEM`, `WP_UNPOPULATED`, `WP_ASYNC`: write-protection, on shared memory, of pages
    /// not yet there as well, lifted by the kernel alone at the first write.
    pub(crate) const FEATURES: u64 = 1 | 1 << 12 | 1 << 13 | 1 << 15;

    /// `_IOWR('f', 16, struct pm_scan_arg)`.
    pub(crate) const PAGEMAP_SCAN: u64 = 0xC060_6610;
    /// Write-protect again what is found.
    pub(crate) const PM_SCAN_WP_MATCHING: u64 = 1;
    /// Fail where the range is not under asynchronous write-protection.
    pub(crate) const PM_SCAN_CHECK_WPASYNC: u64 = 2;
    /// The page was written since it was last protected.
    pub(crate) const PAGE_IS_WRITTEN: u64 = 1 << 1;
}

/// Runs of dirty pages fetched by one call: 192 KiB of them, which hold most scans whole.
const REGIONS_PER_SCAN: usize = 8192;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`: addresses in the guest's process.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// The page tables of the guest's process tell what it wrote: its memory is registered with a userfaultfd of its own.
pub(crate) struct UserfaultfdLog {
    pagemap: File,
    regions: Vec<Region>,
}

impl UserfaultfdLog {
    /// For the process, whose guest memory has been registered.
    ///
    /// # Errors
    /// When the kernel does not know PAGEMAP_SCAN, or does not let us see the process.
    pub(crate) fn new(pid: i32) -> io::Result<UserfaultfdLog> {
        let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
        let mut log = UserfaultfdLog { pagemap, regions: vec![Region::default(); REGIONS_PER_SCAN] };
        log.scan(PAGE_SIZE as u64, |_, _| ())?;
        Ok(log)
    }

    /// Calls `found` with each run of written pages in the first `bytes` of memory, and protects them anew, in one step for
    /// each page.
    fn scan(&mut self, bytes: u64, mut found: impl FnMut(Pfn, u64)) -> io::Result<()> {
        let end = RAM_BASE + bytes;
        let mut start = RAM_BASE;
        while start < end {
            let mut arguments = ScanArguments {
                size: size_of::<ScanArguments>() as u64,
                flags: constants::PM_SCAN_WP_MATCHING | constants::PM_SCAN_CHECK_WPASYNC,
                start,
                end,
                vec: self.regions.as_mut_ptr() as u64,
                vec_len: self.regions.len() as u64,
                category_mask: constants::PAGE_IS_WRITTEN,
                return_mask: constants::PAGE_IS_WRITTEN,
                ..ScanArguments::default()
            };
            // SAFETY: the arguments have the layout that this request takes, and point to a vector of `vec_len` regions.
            let count = unsafe { libc::ioctl(self.pagemap.as_raw_fd(), constants::PAGEMAP_SCAN, &raw mut arguments) };
            if count < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            for region in self.regions.iter().take(count as usize) {
                let first = (region.start - RAM_BASE) / PAGE_SIZE as u64;
                found(Pfn(first), (region.end - region.start) / PAGE_SIZE as u64);
            }
            if arguments.walk_end <= start {
                return Err(io::Error::other("PAGEMAP_SCAN made no progress"));
            }
            start = arguments.walk_end;
        }
        Ok(())
    }
}

impl DirtyTracker for UserfaultfdLog {
    fn kind(&self) -> &'static str {
        "userfaultfd-wp"
    }

    fn enable(&mut self, ram: &GuestRam) -> Result<(), DomainError> {
        self.scan(ram.bytes(), |_, _| ()).map_err(DomainError::sys("PAGEMAP_SCAN"))
    }

    fn take(&mut self, ram: &GuestRam, into: &mut DirtyBitmap) -> Result<(), DomainError> {
        self.scan(ram.bytes(), |first, pages| into.set_range(first, pages)).map_err(DomainError::sys("PAGEMAP_SCAN"))
    }

    /// Leaves what is protected as it is: the kernel lifts it page by page, and nobody looks.
    fn disable(&mut self) {}

    fn page_was_read(&self, _: &GuestRam, _: Pfn, _: &Page) {}

    fn page_will_be_written(&mut self, _: &GuestRam, _: Pfn, _: &Page) {}
}
