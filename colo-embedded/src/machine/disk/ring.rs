use crate::abi::{
    DISK_FLUSH, DISK_OK, DISK_READ, DISK_RING_OFFSET, DISK_SLOT_BYTES, DISK_SLOTS, DISK_WRITE, DISK_ZEROES,
    DiskRequest, IMAGE_BASE, MAX_DISK_TRANSFER_BYTES, MAX_DISK_ZEROES_BYTES, RAM_BASE,
};
use crate::machine::ram::{GuestRam, SHARED_PFN};
use colo_core::disk::{Backend, DiskError};
use colo_core::ids::{PAGE_SIZE, Pfn};
use std::mem::offset_of;
use std::sync::atomic::Ordering::SeqCst;

/// The first request in the ring that is not done, and its position. Asks for the doorbell when there is none.
pub(super) fn next(ram: &GuestRam) -> Option<(u32, DiskRequest)> {
    if let Some(position) = first_pending(ram) {
        return Some((position, read_slot(ram, position)?));
    }
    if ram.shared().disk_wake.swap(1, SeqCst) == 0 {
        ram.mark_device_dirty(SHARED_PFN);
    }
    // A request may have come just before that; one that comes from here on rings.
    let position = first_pending(ram)?;
    Some((position, read_slot(ram, position)?))
}

/// Does a request, whatever the guest wrote into it. Returns what it is to be told.
pub(super) fn perform(
    request: &DiskRequest,
    backend: &dyn Backend,
    disk_bytes: u64,
    ram: &GuestRam,
    buffer: &mut Vec<u8>,
) -> u32 {
    let done = match check(request, disk_bytes, ram.bytes()) {
        Ok(Work::Flush) => backend.flush(),
        Ok(Work::Zeroes) => backend.write_zeroes(request.offset, request.bytes, true),
        Ok(Work::Write { at }) => {
            buffer.resize(request.bytes as usize, 0);
            if ram.read_bytes(at, buffer) { backend.write(request.offset, buffer) } else { Err(DiskError::Invalid) }
        }
        Ok(Work::Read { at }) => {
            buffer.resize(request.bytes as usize, 0);
            backend.read(request.offset, buffer).and_then(|()| fill(ram, at, buffer))
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => DISK_OK,
        Err(error) => {
            tracing::debug!(?request, %error, "a request of the guest's to its disk is not done");
            error as u32
        }
    }
}

/// The request is done: the guest may know, and is told.
pub(super) fn complete(ram: &GuestRam, position: u32, status: u32) {
    let slot = slot_offset(position);
    // Always there: the ring lies within the smallest memory.
    let _ = ram.write_bytes(slot + offset_of!(DiskRequest, status) as u64, &status.to_ne_bytes());
    ram.mark_device_dirty(Pfn(slot / PAGE_SIZE as u64));
    ram.shared().disk_consumed.store(position.wrapping_add(1), SeqCst);
    ram.notify_guest();
}

/// What a request comes to, with the buffer's place in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Read { at: u64 },
    Write { at: u64 },
    Zeroes,
    Flush,
}

fn check(request: &DiskRequest, disk_bytes: u64, ram_bytes: u64) -> Result<Work, DiskError> {
    let most = match request.operation {
        DISK_FLUSH => return Ok(Work::Flush),
        DISK_READ | DISK_WRITE => MAX_DISK_TRANSFER_BYTES,
        DISK_ZEROES => MAX_DISK_ZEROES_BYTES,
        _ => return Err(DiskError::NotSupported),
    };
    if request.bytes == 0 {
        return Err(DiskError::Invalid);
    }
    if request.bytes > most {
        return Err(DiskError::Overflow);
    }
    if !lies_within(request.offset, request.bytes, disk_bytes) {
        return Err(DiskError::NoSpace);
    }
    if request.operation == DISK_ZEROES {
        return Ok(Work::Zeroes);
    }
    // Rings and shared words are no place for data.
    let at = request.buffer.checked_sub(RAM_BASE).ok_or(DiskError::Invalid)?;
    if request.buffer < IMAGE_BASE || !lies_within(at, request.bytes, ram_bytes) {
        return Err(DiskError::Invalid);
    }
    Ok(if request.operation == DISK_READ { Work::Read { at } } else { Work::Write { at } })
}

fn lies_within(offset: u64, bytes: u64, limit: u64) -> bool {
    offset.checked_add(bytes).is_some_and(|end| end <= limit)
}

/// Puts what was read into guest memory.
fn fill(ram: &GuestRam, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
    if !ram.write_bytes(at, bytes) {
        return Err(DiskError::Invalid);
    }
    let end = at + bytes.len() as u64;
    for page in at / PAGE_SIZE as u64..end.div_ceil(PAGE_SIZE as u64) {
        ram.mark_device_dirty(Pfn(page));
    }
    Ok(())
}

fn first_pending(ram: &GuestRam) -> Option<u32> {
    let shared = ram.shared();
    let consumed = shared.disk_consumed.load(SeqCst);
    let pending = shared.disk_produced.load(SeqCst).wrapping_sub(consumed);
    if pending > DISK_SLOTS {
        tracing::debug!(pending, "the guest's disk ring makes no sense; what is in it is dropped");
        shared.disk_consumed.store(consumed.wrapping_add(pending), SeqCst);
        ram.mark_device_dirty(SHARED_PFN);
        return None;
    }
    (pending > 0).then_some(consumed)
}

/// A copy: the guest may change the slot at any moment. `None` never, for the ring lies within the smallest memory.
fn read_slot(ram: &GuestRam, position: u32) -> Option<DiskRequest> {
    let mut bytes = [0; DISK_SLOT_BYTES as usize];
    if !ram.read_bytes(slot_offset(position), &mut bytes) {
        return None;
    }
    let half = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    Some(DiskRequest {
        operation: half(offset_of!(DiskRequest, operation)),
        status: half(offset_of!(DiskRequest, status)),
        offset: word(offset_of!(DiskRequest, offset)),
        bytes: word(offset_of!(DiskRequest, bytes)),
        buffer: word(offset_of!(DiskRequest, buffer)),
    })
}

/// The masked position makes any number that the guest may have left there a slot of the ring.
fn slot_offset(position: u32) -> u64 {
    DISK_RING_OFFSET + u64::from(position % DISK_SLOTS) * DISK_SLOT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: u64 = 1 << 20;
    const RAM: u64 = 16 << 20;

    fn request(operation: u32, offset: u64, bytes: u64, buffer: u64) -> DiskRequest {
        DiskRequest { operation, status: 7, offset, bytes, buffer }
    }

    #[test]
    fn the_ring_is_a_page_below_the_program() {
        const { assert!(DISK_RING_OFFSET + DISK_SLOTS as u64 * DISK_SLOT_BYTES <= IMAGE_BASE - RAM_BASE) };
        const { assert!(size_of::<DiskRequest>() as u64 == DISK_SLOT_BYTES) };
    }

    #[test]
    fn the_limits_are_exact() {
        let good = [
            (request(DISK_READ, DISK - 1, 1, RAM_BASE + RAM - 1), Work::Read { at: RAM - 1 }),
            (request(DISK_WRITE, 0, DISK, IMAGE_BASE), Work::Write { at: IMAGE_BASE - RAM_BASE }),
            (request(DISK_ZEROES, 0, DISK, 0), Work::Zeroes),
            (request(DISK_FLUSH, u64::MAX, u64::MAX, u64::MAX), Work::Flush),
        ];
        for (request, work) in good {
            assert_eq!(check(&request, DISK, RAM), Ok(work), "{request:?}");
        }
        let bad = [
            (request(0, 0, 1, IMAGE_BASE), DiskError::NotSupported),
            (request(5, 0, 1, IMAGE_BASE), DiskError::NotSupported),
            (request(DISK_READ, 0, 0, IMAGE_BASE), DiskError::Invalid),
            (request(DISK_READ, DISK, 1, IMAGE_BASE), DiskError::NoSpace),
            (request(DISK_ZEROES, u64::MAX, 1, 0), DiskError::NoSpace),
            (request(DISK_WRITE, 1, DISK, IMAGE_BASE), DiskError::NoSpace),
            (request(DISK_WRITE, 0, MAX_DISK_TRANSFER_BYTES + 1, IMAGE_BASE), DiskError::Overflow),
            (request(DISK_ZEROES, 0, MAX_DISK_ZEROES_BYTES + 1, 0), DiskError::Overflow),
            (request(DISK_READ, 0, 1, IMAGE_BASE - 1), DiskError::Invalid),
            (request(DISK_READ, 0, 1, 0), DiskError::Invalid),
            (request(DISK_READ, 0, 2, RAM_BASE + RAM - 1), DiskError::Invalid),
            (request(DISK_READ, 0, 2, u64::MAX), DiskError::Invalid),
        ];
        for (request, error) in bad {
            assert_eq!(check(&request, DISK, RAM), Err(error), "{request:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_out_of_range_gets_through(
            operation in 0_u32..6, offset: u64, bytes: u64, buffer: u64, small: bool,
        ) {
            let (offset, bytes) = if small { (offset % (2 * DISK), bytes % (2 * DISK)) } else { (offset, bytes) };
            let buffer = if small { RAM_BASE + buffer % (2 * RAM) } else { buffer };
            match check(&request(operation, offset, bytes, buffer), DISK, RAM) {
                Ok(Work::Read { at } | Work::Write { at }) => {
                    prop_assert!(offset + bytes <= DISK && at + bytes <= RAM && at >= IMAGE_BASE - RAM_BASE);
                    prop_assert!((1..=MAX_DISK_TRANSFER_BYTES).contains(&bytes));
                }
                Ok(Work::Zeroes) => prop_assert!(offset + bytes <= DISK),
                Ok(Work::Flush) => prop_assert_eq!(operation, DISK_FLUSH),
                Err(_) => (),
            }
        }
    }
}
