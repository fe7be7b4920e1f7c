//! The disk ring of [`crate::abi`] as a [`BlockDevice`].

use alloc::{collections::VecDeque, vec::Vec};
use core::sync::atomic::Ordering;

use crate::{
    abi::{
        DISK_FLUSH, DISK_OK, DISK_READ, DISK_RING_OFFSET, DISK_SLOTS, DISK_WRITE, DISK_ZEROES,
        DiskRequest, Shared,
    },
    disk::{BlockDevice, DiskFailed, Operation, Outcome, Request},
};

/// The ring. A request's buffer is memory of the machine already, so the monitor reads and fills it where it is.
pub struct RingDisk {
    shared: &'static Shared,
    slots: *mut DiskRequest,
    bytes: u64,
    doorbell: fn(),
    /// What the monitor has, oldest first: the slots before `disk_produced`.
    under_way: VecDeque<Request>,
}

impl RingDisk {
    /// The ring of the machine whose memory begins at `base`, and whose disk has `bytes`; `doorbell` tells the monitor of requests.
    ///
    /// # Safety
    /// `base` is the start of memory laid out as [`crate::abi`] says, aligned to a page, which stays. Nothing but this value and
    /// the monitor touches the disk ring and its positions.
    pub unsafe fn new(base: *mut u8, shared: &'static Shared, bytes: u64, doorbell: fn()) -> Self {
        #[allow(clippy::cast_ptr_alignment, reason = "a page's start")]
        // SAFETY: the ring lies in the memory that the caller vouches for.
        let slots = unsafe { base.add(DISK_RING_OFFSET as usize) }.cast();
        Self {
            shared,
            slots,
            bytes,
            doorbell,
            under_way: VecDeque::with_capacity(DISK_SLOTS as usize),
        }
    }

    fn slot(&self, position: u32) -> *mut DiskRequest {
        // SAFETY: the masked position is a slot of the ring, which `new`'s caller vouched for.
        unsafe { self.slots.add((position % DISK_SLOTS) as usize) }
    }

    /// The position of the oldest request that was not handed out.
    fn oldest(&self) -> u32 {
        let produced = self.shared.disk_produced.load(Ordering::Relaxed);
        produced.wrapping_sub(self.under_way.len() as u32)
    }
}

impl BlockDevice for RingDisk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn has_room(&self) -> bool {
        self.under_way.len() < DISK_SLOTS as usize
    }

    fn submit(&mut self, mut request: Request) {
        let position = self.shared.disk_produced.load(Ordering::Relaxed);
        let operation = match request.operation {
            Operation::Read => DISK_READ,
            Operation::Write => DISK_WRITE,
            Operation::Zeroes => DISK_ZEROES,
            Operation::Flush => DISK_FLUSH,
        };
        let slot = DiskRequest {
            operation,
            status: DISK_OK,
            offset: request.offset,
            bytes: request.bytes,
            buffer: request.buffer.as_mut_ptr().expose_provenance() as u64,
        };
        // SAFETY: the slot is the guest's until `disk_produced` moves beyond it.
        unsafe { self.slot(position).write_volatile(slot) };
        // Moving the request moves no byte of its buffer.
        self.under_way.push_back(request);
        let shared = self.shared;
        shared
            .disk_produced
            .store(position.wrapping_add(1), Ordering::SeqCst);
        // The monitor sets `disk_wake`, then looks at `disk_produced`; here it is the other way round.
        if shared.disk_wake.load(Ordering::SeqCst) != 0
            && shared.disk_wake.swap(0, Ordering::SeqCst) != 0
        {
            (self.doorbell)();
        }
    }

    fn has_done(&self) -> bool {
        let consumed = self.shared.disk_consumed.load(Ordering::Acquire);
        let done = consumed.wrapping_sub(self.oldest()) as usize;
        (1..=self.under_way.len()).contains(&done)
    }

    fn take_done(&mut self) -> Option<Outcome> {
        if !self.has_done() {
            return None;
        }
        let position = self.oldest();
        let request = self.under_way.pop_front()?;
        // SAFETY: a slot of the ring that the monitor is through with, as `disk_consumed` said.
        let status = unsafe { (&raw const (*self.slot(position)).status).read_volatile() };
        Some(if status == DISK_OK {
            Ok(filled(request.buffer))
        } else {
            Err(DiskFailed)
        })
    }
}

/// A buffer that the monitor may have written to, which the compiler cannot know.
fn filled(mut buffer: Vec<u8>) -> Vec<u8> {
    let (length, capacity) = (buffer.len(), buffer.capacity());
    let address = buffer.as_mut_ptr().expose_provenance();
    core::mem::forget(buffer);
    // SAFETY: the same allocation, by the address that the monitor was given; any bytes are a value.
    unsafe {
        Vec::from_raw_parts(
            core::ptr::with_exposed_provenance_mut(core::hint::black_box(address)),
            length,
            capacity,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{DISK_SLOT_BYTES, PAGE_BYTES};
    use std::vec;

    thread_local! {
        static RUNG: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
    }

    /// Memory of the right size with both positions at `position`; never freed.
    fn ring(position: u32) -> RingDisk {
        let bytes = (DISK_RING_OFFSET + PAGE_BYTES) as usize + PAGE_BYTES as usize;
        let memory = vec![0u64; bytes / 8].leak();
        let aligned = memory.as_ptr().align_offset(PAGE_BYTES as usize);
        let base = memory[aligned..].as_mut_ptr().cast::<u8>();
        RUNG.set(0);
        #[allow(clippy::cast_ptr_alignment, reason = "a page's start")]
        // SAFETY: the memory is large enough, aligned, and leaked; the ring is the only one.
        let ring = unsafe {
            let shared = &*base.add(PAGE_BYTES as usize).cast::<Shared>();
            RingDisk::new(base, shared, 1 << 20, || RUNG.set(RUNG.get() + 1))
        };
        ring.shared.disk_produced.store(position, Ordering::SeqCst);
        ring.shared.disk_consumed.store(position, Ordering::SeqCst);
        ring
    }

    /// The monitor does the next request: a read gets so many sevens.
    fn complete(ring: &RingDisk, status: u32) -> DiskRequest {
        let position = ring.shared.disk_consumed.load(Ordering::SeqCst);
        let slot = ring.slot(position);
        // SAFETY: as the monitor, which has this slot.
        let request = unsafe {
            (*slot).status = status;
            let request = slot.read();
            if request.operation == DISK_READ {
                let buffer = core::ptr::with_exposed_provenance_mut::<u8>(request.buffer as usize);
                buffer.write_bytes(7, request.bytes as usize);
            }
            request
        };
        ring.shared
            .disk_consumed
            .store(position.wrapping_add(1), Ordering::SeqCst);
        request
    }

    #[test]
    fn a_slot_is_what_the_contract_says() {
        assert_eq!(size_of::<DiskRequest>() as u64, DISK_SLOT_BYTES);
    }

    #[test]
    fn requests_come_back_in_order_beyond_the_end_of_numbers() {
        let mut ring = ring(u32::MAX - 3);
        for number in 0..DISK_SLOTS {
            assert!(ring.has_room() && !ring.has_done());
            ring.submit(Request::write(u64::from(number), vec![1; 3]));
        }
        assert!(!ring.has_room());
        for number in 0..DISK_SLOTS {
            let request = complete(&ring, if number == 5 { 28 } else { DISK_OK });
            assert_eq!(
                (request.operation, request.offset, request.bytes),
                (DISK_WRITE, u64::from(number), 3)
            );
            let expected = if number == 5 {
                Err(DiskFailed)
            } else {
                Ok(vec![1; 3])
            };
            assert_eq!(ring.take_done(), Some(expected));
            assert_eq!(ring.take_done(), None);
        }
    }

    #[test]
    fn what_is_read_is_in_the_buffer() {
        let mut ring = ring(0);
        ring.submit(Request::read(4, vec![0; 100]));
        complete(&ring, DISK_OK);
        assert_eq!(ring.take_done(), Some(Ok(vec![7; 100])));
    }

    #[test]
    fn the_bell_rings_when_asked_for_and_once() {
        let mut ring = ring(0);
        ring.submit(Request::flush());
        assert_eq!(RUNG.get(), 0);
        ring.shared.disk_wake.store(1, Ordering::SeqCst);
        ring.submit(Request::zeroes(0, 1));
        ring.submit(Request::flush());
        assert_eq!(RUNG.get(), 1);
    }
}
