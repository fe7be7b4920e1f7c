//! The machine's hypercalls, as `abi.rs` lists them: system calls of Linux on x86-64, by number.

use core::{arch::asm, ptr, sync::atomic::AtomicU32};

use colo_guest::abi::{DISK_DOORBELL_FD, DOORBELL_FD, HYPERCALL_CONSOLE, HYPERCALL_SHUTDOWN};

const SYS_WRITE: u64 = 1;
const SYS_FUTEX: u64 = 202;
const SYS_CLOCK_GETTIME: u64 = 228;
const FUTEX_WAIT: u64 = 0;
const CLOCK_MONOTONIC: u64 = 1;
/// The longest text of one console call, in bytes.
const CONSOLE_BYTES: usize = 4096;
const NS_PER_S: u64 = 1_000_000_000;

/// `struct timespec` of the kernel's 64-bit interface.
#[repr(C)]
struct Timespec {
    seconds: i64,
    ns: i64,
}

/// The host's `CLOCK_MONOTONIC`, in ns.
pub(crate) fn clock_monotonic_ns() -> u64 {
    let mut time = Timespec { seconds: 0, ns: 0 };
    loop {
        // SAFETY: the call writes one `Timespec` where the pointer says.
        let result = unsafe {
            syscall(
                SYS_CLOCK_GETTIME,
                CLOCK_MONOTONIC,
                ptr::from_mut(&mut time) as u64,
                0,
                0,
            )
        };
        // A suspension may end any call early: look again.
        if result == 0 {
            return time.seconds as u64 * NS_PER_S + time.ns as u64;
        }
    }
}

/// Sleeps while `word` is `value`, for at most `timeout_ns`. May return early.
pub(crate) fn wait(word: &AtomicU32, value: u32, timeout_ns: u64) {
    let time = Timespec {
        seconds: (timeout_ns / NS_PER_S) as i64,
        ns: (timeout_ns % NS_PER_S) as i64,
    };
    // SAFETY: the call reads the word and the time, both of which outlive it.
    unsafe {
        syscall(
            SYS_FUTEX,
            word.as_ptr() as u64,
            FUTEX_WAIT,
            u64::from(value),
            ptr::from_ref(&time) as u64,
        )
    };
}

/// Tells the monitor of frames to take.
pub(crate) fn ring_doorbell() {
    ring(DOORBELL_FD);
}

/// Tells the monitor of requests to the disk.
pub(crate) fn ring_disk_doorbell() {
    ring(DISK_DOORBELL_FD);
}

fn ring(doorbell: i32) {
    let count = 1u64;
    // The one error that leaves the bell unrung is an interruption: the counter of an eventfd does not fill up so soon.
    const EINTR: i64 = -4;
    // SAFETY: the call reads 8 bytes where the pointer says.
    while unsafe {
        syscall(
            SYS_WRITE,
            doorbell as u64,
            ptr::from_ref(&count) as u64,
            8,
            0,
        )
    } == EINTR
    {}
}

/// Shows text on the console.
pub(crate) fn console(text: &str) {
    for chunk in text.as_bytes().chunks(CONSOLE_BYTES) {
        // SAFETY: the monitor reads the chunk, which outlives the call.
        unsafe {
            syscall(
                HYPERCALL_CONSOLE,
                chunk.as_ptr() as u64,
                chunk.len() as u64,
                0,
                0,
            )
        };
    }
}

/// Ends the machine: `code` 0 in order, anything else a crash.
pub(crate) fn shutdown(code: u64) -> ! {
    loop {
        // SAFETY: the call touches no memory.
        unsafe { syscall(HYPERCALL_SHUTDOWN, code, 0, 0, 0) };
    }
}

/// A system call.
///
/// # Safety
/// The caller vouches for the memory that the call reads and writes.
unsafe fn syscall(number: u64, a: u64, b: u64, c: u64, d: u64) -> i64 {
    let result: i64;
    // SAFETY: the kernel keeps all registers but `rax`, `rcx` and `r11`; memory is the caller's responsibility.
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
