//! What the embedded hypervisor and its guests agree on. Compiled into both sides (the guest includes this very file), so it
//! uses `core` alone.
//!
//! Guest memory is one range of [`RAM_BASE`]`..RAM_BASE + ram_bytes`. Its first pages are fixed:
//!
//! ```text
//! page 0                          BootInfo      written by the monitor before the first instruction
//! page 1                          Shared        words that both sides write while the guest runs
//! page 2 ..                       receive ring  RING_SLOTS slots of SLOT_BYTES (monitor -> guest)
//!        + RING_PAGES             transmit ring likewise (guest -> monitor)
//!        + RING_PAGES             disk ring      DISK_SLOTS requests (guest -> monitor, and back)
//! IMAGE_BASE ..                   the guest program: text, data, bss; above it, heap and stack as the guest likes
//! ```
//!
//! Everything that the machine is lies in this memory and in the vCPU's registers: ring positions too. Neither side keeps a
//! copy of a position across a suspension. Each side treats what the other wrote as hostile: positions are masked, lengths
//! checked.
//!
//! # Hypercalls
//! The guest may make these system calls, for real, and no others (a seccomp filter sees to it):
//! * `futex(FUTEX_WAIT)` on [`Shared::event`], with a time-out: the idle wait. A suspension ends it with `EINTR`.
//! * `write(DOORBELL_FD, 8 bytes)`: the card's doorbell, when [`Shared::tx_wake`] asks for it.
//! * `write(DISK_DOORBELL_FD, 8 bytes)`: the disk's, when [`Shared::disk_wake`] asks for it.
//! * `clock_gettime(CLOCK_MONOTONIC)`: to be corrected by [`Shared::clock_offset_ns`].
//!
//! Two more are trapped and answered by the monitor: [`HYPERCALL_CONSOLE`] and [`HYPERCALL_SHUTDOWN`].
//!
//! # The disk
//! A machine with [`BootInfo::disk_bytes`] has a disk. The guest fills the [`DiskRequest`] at [`Shared::disk_produced`] and moves that
//! on; the monitor does the requests one after the other, in order. A request is done when [`Shared::disk_consumed`] has moved beyond
//! it: then its status is there, and what it read. Until then its slot and its buffer are to be left as they are. For a machine that is
//! copied in between, it is not done: the copy's monitor does it again, from the start. Writes and zeroes are durable when a flush
//! that follows them is done.

use core::sync::atomic::{AtomicI64, AtomicU32};

/// Where guest memory begins in the guest's address space.
pub const RAM_BASE: u64 = 0x1_0000_0000;
/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;
/// The smallest memory of a domain.
pub const MIN_RAM_BYTES: u64 = 16 << 20;
/// The largest memory of a domain.
pub const MAX_RAM_BYTES: u64 = 4 << 30;

/// Slots in each ring. A power of two.
pub const RING_SLOTS: u32 = 512;
/// Bytes in a slot: a `u32` length, then the frame.
pub const SLOT_BYTES: u64 = 2048;
/// The longest frame that a slot takes.
pub const MAX_SLOT_FRAME_BYTES: usize = SLOT_BYTES as usize - 4;
/// Pages of each ring.
pub const RING_PAGES: u64 = RING_SLOTS as u64 * SLOT_BYTES / PAGE_BYTES;
/// Where the receive ring begins, from `RAM_BASE`.
pub const RX_RING_OFFSET: u64 = 2 * PAGE_BYTES;
/// Where the transmit ring begins, from `RAM_BASE`.
pub const TX_RING_OFFSET: u64 = RX_RING_OFFSET + RING_PAGES * PAGE_BYTES;

/// Requests in the disk ring. A power of two.
pub const DISK_SLOTS: u32 = 64;
/// Bytes in a slot of the disk ring: a [`DiskRequest`].
pub const DISK_SLOT_BYTES: u64 = 32;
/// Where the disk ring begins, from `RAM_BASE`: a page of its own, filled by half.
pub const DISK_RING_OFFSET: u64 = TX_RING_OFFSET + RING_PAGES * PAGE_BYTES;
/// The most bytes that one request reads or writes.
pub const MAX_DISK_TRANSFER_BYTES: u64 = 1 << 20;
/// The most bytes that one request makes zeroes.
pub const MAX_DISK_ZEROES_BYTES: u64 = 16 << 20;
/// The smallest disk.
pub const MIN_DISK_BYTES: u64 = 1 << 20;
/// The largest disk: 16 TiB.
pub const MAX_DISK_BYTES: u64 = 16 << 40;

/// Where the guest program is linked to begin: 4 MiB into memory.
pub const IMAGE_BASE: u64 = RAM_BASE + (4 << 20);

/// The file descriptor of the card's doorbell in the guest's process: an eventfd.
pub const DOORBELL_FD: i32 = 3;
/// The file descriptor of the disk's doorbell: another eventfd.
pub const DISK_DOORBELL_FD: i32 = 4;
/// Trapped: `rdi` = address of text in guest memory, `rsi` = its length in bytes (at most 4096). Returns 0 in `rax`.
pub const HYPERCALL_CONSOLE: u64 = 0x1000;
/// Trapped: the machine ends; `rdi` = 0 in order, anything else a crash.
pub const HYPERCALL_SHUTDOWN: u64 = 0x1001;

/// [`BootInfo::magic`]: "COLOBOOT", least significant byte first.
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"COLOBOOT");

/// Page 0: constant over the machine's life.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// Guest memory in bytes.
    pub ram_bytes: u64,
    /// The first byte above the loaded image (page-aligned): free memory begins here.
    pub heap_start: u64,
    /// Seed of the guest's random numbers.
    pub seed: u64,
    /// The card's Ethernet address; two bytes of padding follow.
    pub mac: [u8; 8],
    /// The guest's IPv4 address, in network order.
    pub ipv4: [u8; 4],
    /// The gateway's.
    pub gateway: [u8; 4],
    /// Length of the network's prefix, in bits.
    pub prefix_len: u32,
    /// Zero.
    pub reserved: u32,
    /// The disk in bytes; 0 for a machine without one.
    pub disk_bytes: u64,
}

/// [`DiskRequest::operation`]: fill the buffer from the disk.
pub const DISK_READ: u32 = 1;
/// [`DiskRequest::operation`]: write the buffer to the disk.
pub const DISK_WRITE: u32 = 2;
/// [`DiskRequest::operation`]: make that part of the disk zeroes. It has no buffer.
pub const DISK_ZEROES: u32 = 3;
/// [`DiskRequest::operation`]: make durable what was written before. It has no buffer, offset or length.
pub const DISK_FLUSH: u32 = 4;

/// [`DiskRequest::status`] of a request that was done as it says. Any other is a number of `errno`: why it was not, or not as a whole.
pub const DISK_OK: u32 = 0;

/// A slot of the disk ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskRequest {
    /// What is to be done: [`DISK_READ`] and its like.
    pub operation: u32,
    /// What became of it, by the monitor.
    pub status: u32,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How many bytes: at least one, at most [`MAX_DISK_TRANSFER_BYTES`], or [`MAX_DISK_ZEROES_BYTES`].
    pub bytes: u64,
    /// The buffer's address: that many bytes of guest memory, from [`IMAGE_BASE`] on.
    pub buffer: u64,
}

/// Page 1. Positions count slots from 0 and wrap at 2^32; a ring is empty when they are equal, full when they are
/// [`RING_SLOTS`] apart (the disk's: [`DISK_SLOTS`]).
#[repr(C)]
pub struct Shared {
    /// Counted up by the monitor, with a `FUTEX_WAKE` if [`Shared::sleeping`], whenever the guest may have something to do.
    pub event: AtomicU32,
    /// 1 while the guest is in its idle wait, or about to be.
    pub sleeping: AtomicU32,
    /// 1 when the monitor wants the doorbell at the next frame sent. The guest clears it when it rings.
    pub tx_wake: AtomicU32,
    /// 1 when the guest found the transmit ring full and wants an event when there is room. The monitor clears it.
    pub tx_full: AtomicU32,
    /// Receive ring: the next slot that the monitor fills.
    pub rx_produced: AtomicU32,
    /// Receive ring: the next slot that the guest takes.
    pub rx_consumed: AtomicU32,
    /// Transmit ring: the next slot that the guest fills.
    pub tx_produced: AtomicU32,
    /// Transmit ring: the next slot that the monitor takes.
    pub tx_consumed: AtomicU32,
    /// Counted up by the monitor before and after it changes `clock_offset_ns`: odd while it does. Read, use, read again.
    pub clock_version: AtomicU32,
    /// 1 when the monitor wants the disk's doorbell at the next request. The guest clears it when it rings.
    pub disk_wake: AtomicU32,
    /// The guest's time is the host's `CLOCK_MONOTONIC` plus this, in ns: 0 at boot, and continuous across suspensions and
    /// moves to another host.
    pub clock_offset_ns: AtomicI64,
    /// Disk ring: the next slot that the guest fills.
    pub disk_produced: AtomicU32,
    /// Disk ring: the first slot whose request is not done.
    pub disk_consumed: AtomicU32,
}
