//! The functions that compiled code calls by name, and expects a C library to have.
//!
//! Long copies are the processor's string instructions, which move whole lines at a time but take a while to begin; short
//! ones are two overlapping words. No loop here is of a kind that the compiler would turn into a call of the same function.

use core::arch::asm;

/// `memcpy` of C.
///
/// # Safety
/// As in C: `count` bytes each, that do not overlap.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both runs. Both words lie within them, and are read before either is written. The
    // direction flag is clear, as the ABI has it.
    unsafe {
        if count > 16 {
            asm!(
                "rep movsb",
                inout("rcx") count => _,
                inout("rdi") to => _,
                inout("rsi") from => _,
                options(nostack, preserves_flags),
            );
        } else if count >= 8 {
            copy_ends::<u64>(to, from, count);
        } else if count >= 4 {
            copy_ends::<u32>(to, from, count);
        } else if count >= 2 {
            copy_ends::<u16>(to, from, count);
        } else if count == 1 {
            to.write(from.read());
        }
    }
    to
}

/// Copies a run of at least one word and at most two: its first word and its last.
///
/// # Safety
/// Both runs of `count` bytes are valid, and `count` is one to two times the size of a word.
#[inline(always)]
unsafe fn copy_ends<Word>(to: *mut u8, from: *const u8, count: usize) {
    let last = count - size_of::<Word>();
    // SAFETY: as the caller says, both words lie within the run.
    unsafe {
        let (first_word, last_word) = (
            from.cast::<Word>().read_unaligned(),
            from.add(last).cast::<Word>().read_unaligned(),
        );
        to.cast::<Word>().write_unaligned(first_word);
        to.add(last).cast::<Word>().write_unaligned(last_word);
    }
}

/// `memmove` of C.
///
/// # Safety
/// As in C: `count` bytes each.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: `to` does not lie within the source, so a copy upwards reads each byte before it is overwritten.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the caller vouches for both runs, of at least one byte here; the flag is clear again afterwards.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") count => _,
            inout("rdi") to.add(count).sub(1) => _,
            inout("rsi") from.add(count).sub(1) => _,
            options(nostack),
        );
    }
    to
}

/// `memset` of C.
///
/// # Safety
/// As in C: `count` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the run.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") value as u8, options(nostack, preserves_flags));
    }
    to
}

/// `memcmp` of C.
///
/// # Safety
/// As in C: `count` bytes each.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller vouches for both runs.
        let (a, b) = unsafe { (a.add(at).read(), b.add(at).read()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// `bcmp` of POSIX.
///
/// # Safety
/// As there: `count` bytes each.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: as the caller says.
    unsafe { memcmp(a, b, count) }
}

/// Named by the tables of code that was compiled to unwind, as `alloc` was.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn rust_eh_personality() {}

/// Called at the end of a landing pad, which nothing enters: a panic ends the machine.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn _Unwind_Resume() -> ! {
    crate::hypercall::shutdown(2)
}
