//! The machine's one program: it finds its memory, and serves. What it serves is in the library; here is what touches the
//! machine.
#![no_std]
#![no_main]

extern crate alloc;

mod clock;
mod device;
mod hypercall;
mod memory;
mod server;

use colo_guest::abi::{BOOT_MAGIC, BootInfo, PAGE_BYTES, RAM_BASE, Shared};
use core::arch::global_asm;

/// Left above the heap for the stack.
const STACK_BYTES: u64 = 1 << 20;

// The first instruction: `rdi` is where memory begins, `rsp` its top. No frame above this one.
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "call {main}", "ud2", main = sym main);

extern "C" fn main(ram_base: u64) -> ! {
    // SAFETY: the first page holds this structure, written before the first instruction and never after.
    let boot = unsafe { &*(ram_base as *const BootInfo) };
    if ram_base != RAM_BASE || boot.magic != BOOT_MAGIC {
        hypercall::shut_down(1);
    }
    // SAFETY: the second page holds this structure, all of it atomics.
    let shared = unsafe { &*((ram_base + PAGE_BYTES) as *const Shared) };
    let heap_end = ram_base + boot.ram_bytes - STACK_BYTES;
    // SAFETY: nothing is loaded between the image's end and the stack.
    unsafe { memory::give_heap(boot.heap_start, heap_end) };
    server::Server::new(boot, shared, heap_end - boot.heap_start).run()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    hypercall::console(&alloc::format!("{info}\n"));
    hypercall::shut_down(1)
}

/// The precompiled `alloc` was built for unwinding and names these two. Nothing here unwinds: a panic ends the machine.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    hypercall::shut_down(1)
}

/// See [`_Unwind_Resume`].
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
