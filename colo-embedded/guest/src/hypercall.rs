//! What the machine offers: the calls of [`abi`], and nothing else.
//!
//! The processor's state is saved and restored at any instruction, a call's too, so each may end with `EINTR` though nothing
//! happened: callers look again.

use colo_guest::abi;
use core::arch::asm;
use core::sync::atomic::AtomicU32;

const SYS_WRITE: u64 = 1;
const SYS_FUTEX: u64 = 202;
const SYS_CLOCK_GETTIME: u64 = 228;
const FUTEX_WAIT: u64 = 0;
const CLOCK_MONOTONIC: u64 = 1;
const EINTR: i64 = -4;
const MAX_CONSOLE_BYTES: usize = 4096;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// The host's `CLOCK_MONOTONIC`, in ns, without the machine's own offset.
pub(crate) fn host_clock_ns() -> i64 {
    let mut time = Timespec {
        seconds: 0,
        nanoseconds: 0,
    };
    loop {
        // SAFETY: the kernel writes one `Timespec` to an address that is good for it.
        let result = unsafe {
            call(
                SYS_CLOCK_GETTIME,
                CLOCK_MONOTONIC,
                &raw mut time as u64,
                0,
                0,
            )
        };
        if result == 0 {
            return time.seconds * 1_000_000_000 + time.nanoseconds;
        }
    }
}

/// Sleeps until somebody wakes `word`, if it still is `seen`, or until the time is over, or for less.
pub(crate) fn wait(word: &AtomicU32, seen: u32, timeout_ns: Option<u64>) {
    let timeout = timeout_ns.map(|ns| Timespec {
        seconds: (ns / 1_000_000_000) as i64,
        nanoseconds: (ns % 1_000_000_000) as i64,
    });
    let timeout_address = timeout
        .as_ref()
        .map_or(0, |timeout| &raw const *timeout as u64);
    // SAFETY: the word and the time-out live until the call returns. All results mean the same: look again.
    unsafe {
        call(
            SYS_FUTEX,
            word.as_ptr() as u64,
            FUTEX_WAIT,
            u64::from(seen),
            timeout_address,
        )
    };
}

/// Rings the doorbell.
pub(crate) fn ring_doorbell() {
    let one = 1_u64;
    // SAFETY: the kernel reads eight bytes that live until the call returns.
    while unsafe {
        call(
            SYS_WRITE,
            abi::DOORBELL_FD as u64,
            &raw const one as u64,
            8,
            0,
        )
    } == EINTR
    {}
}

/// Shows a text to the machine's operator.
pub(crate) fn console(text: &str) {
    for chunk in text.as_bytes().chunks(MAX_CONSOLE_BYTES) {
        // SAFETY: the monitor reads `chunk`, which lives until the call returns.
        unsafe {
            call(
                abi::HYPERCALL_CONSOLE,
                chunk.as_ptr() as u64,
                chunk.len() as u64,
                0,
                0,
            )
        };
    }
}

/// Ends the machine.
pub(crate) fn shutdown(code: u64) -> ! {
    loop {
        // SAFETY: takes no memory; and if it returns, it is called again.
        unsafe { call(abi::HYPERCALL_SHUTDOWN, code, 0, 0, 0) };
    }
}

/// # Safety
/// The arguments must be what the call asks for.
unsafe fn call(number: u64, a: u64, b: u64, c: u64, d: u64) -> i64 {
    let result;
    // SAFETY: the caller vouches for the arguments; the kernel changes rax, rcx and r11, and the memory that they name.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
