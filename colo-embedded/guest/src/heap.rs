//! The heap: talc over the free memory, without a lock.

use core::alloc::{GlobalAlloc, Layout};

use talc::{TalcCell, source::Manual};

/// The global allocator. Empty until [`Heap::claim`].
pub(crate) struct Heap(TalcCell<Manual>);

// SAFETY: the machine has one thread, and nothing interrupts it that allocates.
unsafe impl Sync for Heap {}

impl Heap {
    pub(crate) const fn new() -> Self {
        Self(TalcCell::new(Manual))
    }

    /// Gives `bytes` of memory at `start` to the heap.
    ///
    /// # Safety
    /// Nothing else uses that memory, ever.
    pub(crate) unsafe fn claim(&self, start: *mut u8, bytes: usize) {
        // SAFETY: as the caller says.
        let _end = unsafe { self.0.claim(start, bytes) };
    }
}

// SAFETY: all is passed on to an allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: likewise.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: likewise.
        unsafe { self.0.realloc(pointer, layout, new_bytes) }
    }
}
