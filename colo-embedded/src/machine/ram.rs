use super::abi::{PAGE_BYTES, Shared};
use super::page_set::AtomicPageSet;
use colo_core::domain::{DirtyBitmap, DomainError};
use colo_core::ids::{PAGE_SIZE, Page, Pfn};
use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering::SeqCst;

/// The page that [`Shared`] fills.
pub(crate) const SHARED_PFN: Pfn = Pfn(1);

/// Guest memory: one memory file, mapped here and in the guest's process. A page that nobody ever touched takes no memory, and
/// nothing here makes it take some by reading it.
///
/// The guest may write any byte at any moment, so no Rust reference to its bytes is ever made: they are copied in and out
/// through raw pointers. Only the words of [`Shared`] are referred to, as atomics.
pub(crate) struct GuestRam {
    file: OwnedFd,
    base: NonNull<u8>,
    bytes: usize,
    /// Pages that are known to have memory behind them; a page never loses it but by [`GuestRam::release_page`].
    populated: AtomicPageSet,
    /// Pages that the monitor's devices wrote, which the guest's dirty log does not see.
    device_dirty: AtomicPageSet,
}

// SAFETY: the mapping is valid for the life of the value from any thread, and is only touched by copies and atomics.
unsafe impl Send for GuestRam {}
// SAFETY: as above; a copy that races with a writer gives torn bytes, which callers allow for, as they must for the guest.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// Memory of that many bytes (a multiple of the page size), all zero.
    pub(crate) fn new(bytes: u64) -> Result<GuestRam, DomainError> {
        let file = make_file(bytes).map_err(|errno| sys("memfd of guest memory", errno))?;
        let bytes = bytes as usize;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            use std::os::fd::AsRawFd;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED | libc::MAP_NORESERVE, file.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(DomainError::Sys { call: "mmap of guest memory", source: io::Error::last_os_error() });
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| DomainError::Other("guest memory mapped at 0".into()))?;
        let pages = bytes as u64 / PAGE_BYTES;
        let (populated, device_dirty) = (AtomicPageSet::new(pages), AtomicPageSet::new(pages));
        Ok(GuestRam { file, base, bytes, populated, device_dirty })
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    pub(crate) fn pfn_limit(&self) -> u64 {
        self.bytes() / PAGE_BYTES
    }

    /// The words that both sides write.
    pub(crate) fn shared(&self) -> &Shared {
        let at = self.base.as_ptr().wrapping_add(SHARED_PFN.byte_offset() as usize);
        // SAFETY: page 1 is inside the mapping (the least memory is larger), aligned to a page, and all of `Shared` are
        // atomics, for which any bytes are a value and any concurrent writer is allowed.
        #[allow(clippy::cast_ptr_alignment)]
        unsafe {
            &*at.cast::<Shared>()
        }
    }

    /// Whether the page has memory behind it. One without reads as zeroes.
    pub(crate) fn is_populated(&self, pfn: Pfn) -> Result<bool, DomainError> {
        if self.populated.contains(pfn) {
            return Ok(true);
        }
        let here = self.next_data(pfn.byte_offset())? == Some(pfn.byte_offset());
        if here {
            self.populated.insert(pfn);
        }
        Ok(here)
    }

    /// Calls `f` with every run of pages that have memory behind them: the first, and how many.
    pub(crate) fn for_each_populated_run(&self, mut f: impl FnMut(Pfn, u64)) -> Result<(), DomainError> {
        let mut from = 0;
        while from < self.bytes() {
            let Some(start) = self.next_data(from)? else {
                break;
            };
            let end = self.seek(SeekFrom::Hole(start))?.unwrap_or(self.bytes()).min(self.bytes());
            if end <= start {
                break;
            }
            f(Pfn(start / PAGE_BYTES), (end - start).div_ceil(PAGE_BYTES));
            from = end;
        }
        Ok(())
    }

    /// Copies a page out.
    pub(crate) fn read_page(&self, pfn: Pfn, out: &mut [u8; PAGE_SIZE]) -> Result<(), DomainError> {
        if !self.is_populated(pfn)? {
            out.fill(0);
            return Ok(());
        }
        // SAFETY: `page_pointer` gives a whole page of the mapping, and `out` is another whole page.
        unsafe { ptr::copy_nonoverlapping(self.page_pointer(pfn), out.as_mut_ptr(), PAGE_SIZE) };
        Ok(())
    }

    /// Overwrites a page; writing zeroes to one without memory leaves it without.
    pub(crate) fn write_page(&self, pfn: Pfn, data: &Page) -> Result<(), DomainError> {
        if !self.is_populated(pfn)? && data.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        // SAFETY: as in `read_page`, the other way round.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), self.page_pointer(pfn), PAGE_SIZE) };
        Ok(())
    }

    /// Copies bytes out of guest memory, or says `false` when they do not all lie in it.
    #[must_use]
    pub(crate) fn read_bytes(&self, offset: u64, out: &mut [u8]) -> bool {
        let Some(at) = self.range_pointer(offset, out.len()) else {
            return false;
        };
        // SAFETY: `range_pointer` has checked that all the bytes lie in the mapping, which `out` is no part of.
        unsafe { ptr::copy_nonoverlapping(at, out.as_mut_ptr(), out.len()) };
        true
    }

    /// Copies bytes into guest memory, or does nothing and says `false` when they would not all lie in it.
    #[must_use]
    pub(crate) fn write_bytes(&self, offset: u64, data: &[u8]) -> bool {
        let Some(at) = self.range_pointer(offset, data.len()) else {
            return false;
        };
        // SAFETY: as in `read_bytes`, the other way round.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), at, data.len()) };
        true
    }

    /// Gives a page's memory back: it reads as zeroes again.
    pub(crate) fn release_page(&self, pfn: Pfn) -> Result<(), DomainError> {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, pfn.byte_offset(), PAGE_BYTES)
            .map_err(|errno| sys("fallocate of guest memory", errno))?;
        self.populated.remove(pfn);
        Ok(())
    }

    /// Compares a page with `other`, which is a whole page.
    pub(crate) fn page_differs(&self, pfn: Pfn, other: &Page) -> bool {
        // SAFETY: both are whole pages; a writer that races with the comparison is found by the next one.
        unsafe { libc::memcmp(self.page_pointer(pfn).cast(), other.as_ptr().cast(), PAGE_SIZE) != 0 }
    }

    /// Marks a page that the monitor has just written for the guest. Call it after the write, so that a dirty log that is taken in
    /// between reports the page again.
    pub(crate) fn mark_device_dirty(&self, pfn: Pfn) {
        self.device_dirty.insert(pfn);
    }

    /// Tells the guest that there may be something to do.
    pub(crate) fn notify_guest(&self) {
        let shared = self.shared();
        shared.event.fetch_add(1, SeqCst);
        self.mark_device_dirty(SHARED_PFN);
        if shared.sleeping.load(SeqCst) != 0 {
            // Not `PRIVATE`: the sleeper is another process. Fails only for an address that is not mapped.
            let _ = rustix::thread::futex::wake(&shared.event, rustix::thread::futex::Flags::empty(), 1);
        }
    }

    /// Moves the marks into `into`, which has the limit of this memory.
    pub(crate) fn take_device_dirty(&self, into: &mut DirtyBitmap) {
        self.device_dirty.drain(|pfn| into.set(pfn));
    }

    /// Forgets the marks.
    pub(crate) fn clear_device_dirty(&self) {
        self.device_dirty.drain(|_| ());
    }

    fn page_pointer(&self, pfn: Pfn) -> *mut u8 {
        assert!(pfn.0 < self.pfn_limit(), "{pfn} of {}", self.pfn_limit());
        self.base.as_ptr().wrapping_add(pfn.byte_offset() as usize)
    }

    fn range_pointer(&self, offset: u64, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len as u64)?;
        (end <= self.bytes()).then(|| self.base.as_ptr().wrapping_add(offset as usize))
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>, DomainError> {
        self.seek(SeekFrom::Data(offset))
    }

    /// `None` when there is no such place up to the end. The file's position means nothing to anybody.
    fn seek(&self, to: SeekFrom) -> Result<Option<u64>, DomainError> {
        match rustix::fs::seek(&self.file, to) {
            Ok(offset) => Ok(Some(offset)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(sys("lseek of guest memory", errno)),
        }
    }
}

impl Drop for GuestRam {
    fn drop(&mut self) {
        // SAFETY: `new` made this mapping, and nothing refers to it after the value is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// Sealed, so that nobody who gets hold of the file can cut it short under our mapping.
fn make_file(bytes: u64) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create("colo-guest-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// A system call's failure as the seam reports it.
pub(crate) fn sys(call: &'static str, errno: Errno) -> DomainError {
    DomainError::Sys { call, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 1 << 20;

    #[test]
    fn untouched_pages_stay_without_memory() {
        let ram = GuestRam::new(BYTES).unwrap();
        let mut page = [1; PAGE_SIZE];
        ram.read_page(Pfn(5), &mut page).unwrap();
        assert_eq!(page, [0; PAGE_SIZE]);
        ram.write_page(Pfn(6), &[0; PAGE_SIZE]).unwrap();
        let mut runs = Vec::new();
        ram.for_each_populated_run(|first, pages| runs.push((first.0, pages))).unwrap();
        assert_eq!(runs, []);
    }

    #[test]
    fn finds_the_pages_that_have_content() {
        let ram = GuestRam::new(BYTES).unwrap();
        for pfn in [0, 7, 8, 255] {
            ram.write_page(Pfn(pfn), &[9; PAGE_SIZE]).unwrap();
        }
        let mut runs = Vec::new();
        ram.for_each_populated_run(|first, pages| runs.push((first.0, pages))).unwrap();
        assert_eq!(runs, [(0, 1), (7, 2), (255, 1)]);
        ram.release_page(Pfn(7)).unwrap();
        assert!(!ram.is_populated(Pfn(7)).unwrap());
        let mut page = [1; PAGE_SIZE];
        ram.read_page(Pfn(7), &mut page).unwrap();
        assert_eq!(page, [0; PAGE_SIZE]);
    }

    #[test]
    fn bytes_beyond_the_end_are_refused() {
        let ram = GuestRam::new(BYTES).unwrap();
        assert!(ram.write_bytes(BYTES - 2, &[1, 2]));
        assert!(!ram.write_bytes(BYTES - 1, &[1, 2]));
        assert!(!ram.write_bytes(u64::MAX, &[1, 2]));
        let mut out = [0; 2];
        assert!(ram.read_bytes(BYTES - 2, &mut out));
        assert_eq!(out, [1, 2]);
        assert!(!ram.read_bytes(BYTES, &mut out));
    }
}
