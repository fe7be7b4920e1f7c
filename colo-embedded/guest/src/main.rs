//! The embedded hypervisor's guest: a program without an operating system, whose machine is described in `abi.rs`. It speaks
//! TCP/IP by smoltcp and serves what [`colo_guest::service`] lists, and an echo on port 7, TCP and UDP.
//!
//! Everything it is lies in its RAM and its registers, and it may be stopped, copied and continued elsewhere at any
//! instruction. So there is nothing here that the monitor would have to know about: no thread, no file, no signal.
#![no_std]
#![no_main]

extern crate alloc;

mod clock;
mod connection;
mod device;
mod hypercall;
mod network;
mod symbols;

use colo_guest::abi::{BOOT_MAGIC, BootInfo, PAGE_BYTES, RAM_BASE, Shared};
use colo_guest::plan::Plan;
use colo_guest::service::Service;
use colo_guest::store::Store;
use core::fmt::Write;
use core::panic::PanicInfo;
use device::Card;
use network::Network;
use talc::{ErrOnOom, Span, Talc, Talck, locking::AssumeUnlockable};

/// What the stack may take of the memory's end. The deepest path, through smoltcp, takes some 16 KiB.
const STACK_BYTES: u64 = 1 << 20;

// SAFETY: the lock is never asked for twice, for there is one thread, and no signal handler.
#[global_allocator]
static ALLOCATOR: Talck<AssumeUnlockable, ErrOnOom> = Talc::new(ErrOnOom).lock();

core::arch::global_asm!(
    ".globl _start",
    "_start:",
    // The outermost frame; and the stack as the C ABI wants it at a call.
    "xor ebp, ebp",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym start,
);

extern "C" fn start(ram_base: u64) -> ! {
    assert_eq!(ram_base, RAM_BASE, "linked for another address");
    // SAFETY: page 0 is the monitor's boot information, and does not change.
    let boot = unsafe { &*(RAM_BASE as *const BootInfo) };
    // SAFETY: page 1 is atomic words, there for as long as the machine.
    let shared = unsafe { &*((RAM_BASE + PAGE_BYTES) as *const Shared) };
    assert_eq!(boot.magic, BOOT_MAGIC, "no boot information");

    let heap_bytes = (RAM_BASE + boot.ram_bytes - STACK_BYTES)
        .checked_sub(boot.heap_start)
        .expect("too little memory");
    let heap = Span::from_base_size(boot.heap_start as *mut u8, heap_bytes as usize);
    // SAFETY: the memory between the image and the stack is nobody else's.
    unsafe { ALLOCATOR.lock().claim(heap) }.expect("no heap");

    let plan = Plan::for_memory(boot.ram_bytes, heap_bytes);
    let mut service = Service::new(Store::new(plan.store_bytes, plan.arena_pages));
    service.booted_ns = clock::now_ns(shared);
    // SAFETY: the memory is as the ABI says, and this is the only card.
    let card = unsafe { Card::new(shared) };
    let mut network = Network::new(boot, card, plan, service.booted_ns);
    hypercall::console("colo's guest is up\n");
    loop {
        network.run_once(&mut service, || clock::now_ns(shared));
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Without the heap: it may be what failed.
    let mut text = Text {
        bytes: [0; 512],
        len: 0,
    };
    let _ = writeln!(text, "{info}");
    hypercall::console(core::str::from_utf8(&text.bytes[..text.len]).unwrap_or("panic\n"));
    hypercall::shutdown(1)
}

/// A short text on the stack; what is too long is cut off.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for character in text.chars() {
            let mut encoded = [0; 4];
            let encoded = character.encode_utf8(&mut encoded).as_bytes();
            let Some(place) = self.bytes.get_mut(self.len..self.len + encoded.len()) else {
                return Err(core::fmt::Error);
            };
            place.copy_from_slice(encoded);
            self.len += encoded.len();
        }
        Ok(())
    }
}
