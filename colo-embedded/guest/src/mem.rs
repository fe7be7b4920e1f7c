//! Copying, filling and comparing memory: what compilers call and C libraries have, and a program without a C library brings
//! itself. `main.rs` gives them their well-known names.
//!
//! Short lengths, by far the most, take two loads and two stores that overlap in the middle; longer ones the processor's string
//! instructions, which are as fast as anything from a few hundred bytes on.

use core::arch::asm;

/// Up to this length two overlapping halves do.
const SHORT_BYTES: usize = 32;

/// Copies `len` bytes forwards: right for memory that does not overlap, or whose destination lies below its source.
///
/// # Safety
/// `from` is good for reading and `to` for writing `len` bytes.
#[inline(always)]
pub unsafe fn copy_forwards(to: *mut u8, from: *const u8, len: usize) {
    if len <= SHORT_BYTES {
        // SAFETY: the caller's.
        unsafe { copy_short(to, from, len) };
    } else {
        // SAFETY: the caller's; the direction flag is clear, as the ABI has it.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
        };
    }
}

/// Copies `len` bytes, whether the two overlap or not.
///
/// # Safety
/// `from` is good for reading and `to` for writing `len` bytes.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    if len <= SHORT_BYTES || (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: the caller's; short copies load all before they store.
        unsafe { copy_forwards(to, from, len) };
        return;
    }
    // From the end, in words, until a short beginning is left.
    let mut left = len;
    while left > SHORT_BYTES {
        left -= 16;
        // SAFETY: the caller's; `left` and 15 bytes more lie in both. Volatile, so that no compiler makes this loop a call of
        // itself.
        unsafe {
            let high = from.add(left + 8).cast::<u64>().read_unaligned();
            let low = from.add(left).cast::<u64>().read_unaligned();
            asm!("mov [{0}], {1}", "mov [{0} + 8], {2}", in(reg) to.add(left), in(reg) low, in(reg) high, options(nostack, preserves_flags));
        }
    }
    // SAFETY: the caller's.
    unsafe { copy_short(to, from, left) };
}

/// Sets `len` bytes to `value`.
///
/// # Safety
/// `to` is good for writing `len` bytes.
#[inline(always)]
pub unsafe fn set(to: *mut u8, value: u8, len: usize) {
    let word = u64::from(value).wrapping_mul(0x0101_0101_0101_0101);
    // SAFETY: the caller's: each store lies within `len` bytes; the direction flag is clear, as the ABI has it.
    unsafe {
        match len {
            0 => {}
            1..=3 => {
                to.write(value);
                to.add(len / 2).write(value);
                to.add(len - 1).write(value);
            }
            4..=7 => {
                to.cast::<u32>().write_unaligned(word as u32);
                to.add(len - 4).cast::<u32>().write_unaligned(word as u32);
            }
            8..=16 => {
                to.cast::<u64>().write_unaligned(word);
                to.add(len - 8).cast::<u64>().write_unaligned(word);
            }
            _ => {
                asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") value, options(nostack, preserves_flags));
            }
        }
    }
}

/// Below, at or above zero, as the first byte that differs in `a` is below or above the one in `b`, or none does.
///
/// # Safety
/// Both are good for reading `len` bytes.
#[inline(always)]
pub unsafe fn compare(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut at = 0;
    while at + 8 <= len {
        // SAFETY: the caller's; `at` and 7 bytes more lie in both.
        let (x, y) = unsafe {
            (
                a.add(at).cast::<u64>().read_unaligned(),
                b.add(at).cast::<u64>().read_unaligned(),
            )
        };
        if x != y {
            return if x.swap_bytes() < y.swap_bytes() {
                -1
            } else {
                1
            };
        }
        at += 8;
    }
    while at < len {
        // SAFETY: the caller's; `at` lies in both.
        let difference = unsafe { i32::from(a.add(at).read()) - i32::from(b.add(at).read()) };
        if difference != 0 {
            return difference;
        }
        at += 1;
    }
    0
}

/// # Safety
/// As [`copy`], with `len` at most [`SHORT_BYTES`].
#[inline(always)]
unsafe fn copy_short(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's: each load and store lies within `len` bytes, and all loads come first.
    unsafe {
        match len {
            0 => {}
            1..=3 => {
                let (first, middle, last) = (
                    from.read(),
                    from.add(len / 2).read(),
                    from.add(len - 1).read(),
                );
                to.write(first);
                to.add(len / 2).write(middle);
                to.add(len - 1).write(last);
            }
            4..=7 => copy_ends::<u32>(to, from, len),
            8..=15 => copy_ends::<u64>(to, from, len),
            _ => copy_ends::<u128>(to, from, len),
        }
    }
}

/// # Safety
/// Both are good for `len` bytes; `len` is from one to two sizes of `T`.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(to: *mut u8, from: *const u8, len: usize) {
    let last = len - size_of::<T>();
    // SAFETY: the caller's.
    unsafe {
        let (head, tail) = (
            from.cast::<T>().read_unaligned(),
            from.add(last).cast::<T>().read_unaligned(),
        );
        to.cast::<T>().write_unaligned(head);
        to.add(last).cast::<T>().write_unaligned(tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn pattern() -> Vec<u8> {
        (0..400_u32).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn copies_like_the_slices_do() {
        for len in 0..150 {
            for (to, from) in [
                (0, 200),
                (200, 0),
                (100, 101),
                (101, 100),
                (100, 117),
                (117, 100),
                (100, 140),
                (140, 100),
                (50, 50),
            ] {
                let mut ours = pattern();
                let mut theirs = pattern();
                theirs.copy_within(from..from + len, to);
                let base = ours.as_mut_ptr();
                // SAFETY: both ranges lie in the vector.
                unsafe { copy(base.add(to), base.add(from), len) };
                assert_eq!(ours, theirs, "{len} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn sets_exactly() {
        for len in 0..150 {
            let mut ours = pattern();
            let mut theirs = pattern();
            theirs[11..11 + len].fill(0xa5);
            // SAFETY: the range lies in the vector.
            unsafe { set(ours.as_mut_ptr().add(11), 0xa5, len) };
            assert_eq!(ours, theirs, "{len} bytes");
        }
    }

    #[test]
    fn compares_like_the_slices_do() {
        let a = pattern();
        for len in 0..70 {
            for at in 0..70 {
                for change in [0, 1, 0x80] {
                    let mut b = a.clone();
                    b[at] ^= change;
                    // SAFETY: both vectors are longer than `len`.
                    let ours = unsafe { compare(a.as_ptr(), b.as_ptr(), len) };
                    assert_eq!(ours.cmp(&0), a[..len].cmp(&b[..len]));
                }
            }
        }
    }
}
