//! The guest program: where the machine starts, and where it sleeps. What it does is in the library.

#![no_std]
#![no_main]

extern crate alloc;

mod clock;
mod heap;
mod hypercall;
mod runtime;

use core::{
    arch::global_asm,
    fmt::Write,
    panic::PanicInfo,
    sync::atomic::{Ordering, fence},
};

use colo_guest::{
    abi::{BOOT_MAGIC, BootInfo, MAX_RAM_BYTES, MIN_RAM_BYTES, PAGE_BYTES, RAM_BASE, Shared},
    arena::Arena,
    device::Card,
    disk::Disk,
    kv::Kv,
    layout::{Layout, STACK_BYTES},
    machine::{Machine, Next},
    ring::RingDisk,
    service::State,
    store::Store,
};

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();

/// The longest sleep: nothing depends on it.
const SLEEP_LIMIT_NS: u64 = 3_600_000_000_000;

// The first instruction. `rdi` is `RAM_BASE`, the stack is at the top of memory; the ABI wants `rsp` a multiple of 16 before
// a call, and the direction flag clear.
global_asm!(
    ".globl _start",
    "_start:",
    "cld",
    "and rsp, -16",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    main = sym main,
);

extern "C" fn main(base: *mut u8) -> ! {
    #[allow(clippy::cast_ptr_alignment, reason = "the start of a page")]
    // SAFETY: the monitor wrote a `BootInfo` at the start of memory before the first instruction, and it does not change.
    let boot = unsafe { &*base.cast::<BootInfo>() };
    let (layout, arena) = divide_memory(base, boot);
    // SAFETY: the rings lie where `abi.rs` says; the program, which holds the only card, leaves them alone elsewhere.
    let mut card = unsafe { Card::new(base, shared(), hypercall::ring_doorbell) };
    // SAFETY: likewise the disk ring.
    let mut disk = (boot.disk_bytes > 0).then(|| unsafe { make_disk(base, boot.disk_bytes) });
    let state = State {
        kv: Kv::new(Store::new(layout.store_bytes), disk.as_mut()),
        arena,
        boot_ns: clock::now_ns(),
        disk,
    };
    let mut machine = Machine::new(boot, &layout, state, &mut card, clock::now_ns);
    hypercall::console("colo-guest: up\n");
    loop {
        if let Next::Sleep(limit_ns) = machine.round(&mut card) {
            sleep(
                &card,
                &machine,
                limit_ns.unwrap_or(SLEEP_LIMIT_NS).min(SLEEP_LIMIT_NS),
            );
        }
    }
}

/// Sleeps until the card or the disk has work, or for `timeout_ns`.
///
/// The monitor puts a frame into the ring (or does a request), counts `event` up, and wakes us if `sleeping`. We say that we sleep, then look
/// at the ring: either we see the frame, or the monitor sees that we sleep and has changed `event` since we read it.
fn sleep(card: &Card, machine: &Machine, timeout_ns: u64) {
    if timeout_ns == 0 && card.transmit_has_room() {
        return;
    }
    let shared = shared();
    let event = shared.event.load(Ordering::SeqCst);
    shared.sleeping.store(1, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    // With no room to send there is nothing to do until there is, whatever time it is.
    let (awake, timeout_ns) = if card.transmit_has_room() {
        (card.has_work() || machine.has_disk_work(), timeout_ns)
    } else {
        (false, SLEEP_LIMIT_NS)
    };
    if !awake {
        hypercall::wait(&shared.event, event, timeout_ns);
    }
    shared.sleeping.store(0, Ordering::SeqCst);
}

/// The disk, of so many bytes.
///
/// # Safety
/// As for [`RingDisk::new`].
unsafe fn make_disk(base: *mut u8, bytes: u64) -> Disk {
    // SAFETY: as the caller says.
    let ring = unsafe { RingDisk::new(base, shared(), bytes, hypercall::ring_disk_doorbell) };
    Disk::new(alloc::boxed::Box::new(ring))
}

/// Divides what lies between the program and the stack into arena and heap.
fn divide_memory(base: *mut u8, boot: &BootInfo) -> (Layout, Arena) {
    let start = boot.heap_start.wrapping_sub(RAM_BASE);
    let end = boot.ram_bytes.saturating_sub(STACK_BYTES as u64);
    let sound = boot.magic == BOOT_MAGIC
        && (MIN_RAM_BYTES..=MAX_RAM_BYTES).contains(&boot.ram_bytes)
        && start % PAGE_BYTES == 0
        && start < end;
    let layout = if sound {
        Layout::new(boot.ram_bytes as usize, (end - start) as usize)
    } else {
        None
    };
    let layout = layout.map(|layout| match boot.disk_bytes {
        0 => layout,
        _ => layout.with_disk(),
    });
    let Some(layout) = layout else {
        hypercall::console("colo-guest: the boot information is of no use\n");
        hypercall::shutdown(1);
    };
    let (start, bytes) = (start as usize, (end - start) as usize);
    // SAFETY: this memory, between program and stack, is nobody else's, and zero; the arena takes whole pages of it, which
    // are aligned for words, and the heap takes the rest.
    let arena = unsafe {
        HEAP.claim(
            base.add(start + layout.arena_bytes),
            bytes - layout.arena_bytes,
        );
        #[allow(clippy::cast_ptr_alignment, reason = "a page's start")]
        core::slice::from_raw_parts_mut(
            base.add(start).cast::<u64>(),
            layout.arena_bytes / size_of::<u64>(),
        )
    };
    (layout, Arena::new(arena))
}

/// The page that the monitor writes too.
fn shared() -> &'static Shared {
    // SAFETY: the page is there for the machine's whole life, and has atomics only.
    unsafe { &*((RAM_BASE + PAGE_BYTES) as *const Shared) }
}

/// A panic ends the machine, with its message on the console.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    /// Text without the heap, which may be what failed.
    struct Console;
    impl Write for Console {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            hypercall::console(text);
            Ok(())
        }
    }
    // The console does not fail.
    let _ = writeln!(Console, "colo-guest: {info}");
    hypercall::shutdown(1)
}
