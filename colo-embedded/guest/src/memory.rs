//! The heap, and the four functions that compiled code takes for granted.

use core::arch::asm;
use talc::{ErrOnOom, Span, Talc, Talck, locking::AssumeUnlockable};

#[global_allocator]
// The machine has one vCPU, and nothing interrupts it: there is nobody to lock out.
static HEAP: Talck<AssumeUnlockable, ErrOnOom> = Talc::new(ErrOnOom).lock();

/// Gives the allocator this memory.
///
/// # Safety
/// Nobody else may use it, ever.
pub(crate) unsafe fn give_heap(start: u64, end: u64) {
    // SAFETY: as the caller promises.
    let claimed = unsafe { HEAP.lock().claim(Span::new(start as *mut u8, end as *mut u8)) };
    if claimed.is_err() {
        crate::hypercall::shut_down(1);
    }
}

/// # Safety
/// That of C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: as the caller promises; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags))
    };
    to
}

/// # Safety
/// That of C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: forwards, nothing is overwritten before it is read.
        return unsafe { memcpy(to, from, count) };
    }
    let (last_to, last_from) = (to.wrapping_add(count).wrapping_sub(1), from.wrapping_add(count).wrapping_sub(1));
    // SAFETY: backwards, nothing is overwritten before it is read; the direction flag is cleared again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") last_to => _, inout("rsi") last_from => _, options(nostack))
    };
    to
}

/// # Safety
/// That of C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: as the caller promises; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags))
    };
    to
}

/// # Safety
/// That of C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: both have `count` bytes; volatile, so that the loop does not become a call of itself.
        let (one, other) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if one != other {
            return i32::from(one) - i32::from(other);
        }
    }
    0
}

/// # Safety
/// That of `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the same.
    unsafe { memcmp(one, other, count) }
}
