//! The system calls that this machine has (`abi.rs`), and nothing else of the outside world.

use colo_guest::abi::{DOORBELL_FD, HYPERCALL_CONSOLE, HYPERCALL_SHUTDOWN};
use core::arch::asm;
use core::sync::atomic::AtomicU32;

const SYS_WRITE: u64 = 1;
const SYS_FUTEX: u64 = 202;
const SYS_CLOCK_GETTIME: u64 = 228;
const FUTEX_WAIT: u64 = 0;
const CLOCK_MONOTONIC: u64 = 1;

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// Waits until `word` is no longer `value` and somebody says so, or until the time has passed, or for no reason at all.
pub(crate) fn wait(word: &AtomicU32, value: u32, timeout_ns: u64) {
    let timeout =
        Timespec { seconds: (timeout_ns / 1_000_000_000) as i64, nanoseconds: (timeout_ns % 1_000_000_000) as i64 };
    let (word, timeout) = (&raw const *word as u64, &raw const timeout as u64);
    // SAFETY: both addresses are valid during the call, which reads them and changes nothing.
    unsafe { system_call(SYS_FUTEX, [word, FUTEX_WAIT, u64::from(value), timeout]) };
}

/// Rings the doorbell.
pub(crate) fn ring() {
    let one = 1_u64;
    // SAFETY: eight bytes at this address are read.
    unsafe { system_call(SYS_WRITE, [DOORBELL_FD as u64, &raw const one as u64, 8, 0]) };
}

/// The host's monotonic clock, in ns.
pub(crate) fn host_clock_ns() -> i64 {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the structure at this address is written.
    unsafe { system_call(SYS_CLOCK_GETTIME, [CLOCK_MONOTONIC, &raw mut now as u64, 0, 0]) };
    now.seconds * 1_000_000_000 + now.nanoseconds
}

/// Writes text to the console.
pub(crate) fn console(text: &str) {
    for part in text.as_bytes().chunks(4096) {
        // SAFETY: so many bytes at this address are read.
        unsafe { system_call(HYPERCALL_CONSOLE, [part.as_ptr() as u64, part.len() as u64, 0, 0]) };
    }
}

/// Ends the machine: 0 in order, anything else a crash.
pub(crate) fn shut_down(reason: u64) -> ! {
    loop {
        // SAFETY: the machine ends; nothing is read or written.
        unsafe { system_call(HYPERCALL_SHUTDOWN, [reason, 0, 0, 0]) };
    }
}

/// # Safety
/// As the call with that number asks of its arguments.
unsafe fn system_call(number: u64, arguments: [u64; 4]) -> i64 {
    let result: i64;
    // SAFETY: the caller answers for the arguments; the instruction itself changes rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
