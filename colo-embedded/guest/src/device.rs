//! The network card: smoltcp's device over the rings in memory.
//!
//! Frames are read where the monitor put them and written where it takes them. Positions live in [`Shared`] alone, as the ABI
//! asks. Orderings: a slot's bytes are published by a release of `*_produced` and given back by a release of `*_consumed`; where
//! one side writes a word and then reads another's (`tx_produced` and `tx_wake`, `tx_full` and `tx_consumed`, `sleeping` and
//! `rx_produced`), both sides do so with a sequentially consistent fence between, so that at least one of them sees the other.

use crate::hypercall;
use colo_guest::abi::{
    MAX_SLOT_FRAME_BYTES, RAM_BASE, RING_SLOTS, RX_RING_OFFSET, SLOT_BYTES, Shared, TX_RING_OFFSET,
};
use core::sync::atomic::{Ordering, fence};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// The longest frame that is sent: Ethernet's usual 1500 bytes and its header, for any network behind the switch.
const MAX_FRAME_BYTES: usize = 1514;

/// The card.
pub(crate) struct Card {
    shared: &'static Shared,
    /// Sent since the doorbell was last considered.
    unannounced: bool,
    /// The transmit ring had no room for something that wanted to be sent.
    blocked: bool,
}

impl Card {
    /// # Safety
    /// The memory at `RAM_BASE` is a machine's as the ABI describes it, and there is one `Card` at a time.
    pub(crate) unsafe fn new(shared: &'static Shared) -> Self {
        Self {
            shared,
            unannounced: false,
            blocked: false,
        }
    }

    /// The next frame that has arrived, left where it is.
    pub(crate) fn peek(&self) -> Option<&[u8]> {
        peek(self.shared)
    }

    /// Drops the next frame.
    pub(crate) fn skip(&mut self) {
        skip(self.shared);
    }

    /// Rings, if something was sent and the monitor wants to hear.
    pub(crate) fn announce(&mut self) {
        if !core::mem::take(&mut self.unannounced) {
            return;
        }
        fence(Ordering::SeqCst);
        if self.shared.tx_wake.load(Ordering::Relaxed) != 0
            && self.shared.tx_wake.swap(0, Ordering::SeqCst) != 0
        {
            hypercall::ring_doorbell();
        }
    }

    /// Whether something could not be sent, and still cannot.
    pub(crate) fn blocked(&mut self) -> bool {
        if self.blocked && self.tx_has_room() {
            self.blocked = false;
        }
        self.blocked
    }

    /// Sleeps until a frame comes, a blocked one can go, or the time is over, or for less.
    pub(crate) fn sleep(&mut self, timeout_ns: Option<u64>) {
        self.announce();
        let seen = self.shared.event.load(Ordering::SeqCst);
        self.shared.sleeping.store(1, Ordering::SeqCst);
        if self.blocked {
            self.shared.tx_full.store(1, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        // What arrives cannot be taken without room for the answer.
        let something_to_do = if self.blocked {
            self.tx_has_room()
        } else {
            self.peek().is_some()
        };
        if !something_to_do {
            hypercall::wait(&self.shared.event, seen, timeout_ns);
        }
        self.shared.sleeping.store(0, Ordering::SeqCst);
    }

    fn tx_has_room(&self) -> bool {
        let produced = self.shared.tx_produced.load(Ordering::Relaxed);
        produced.wrapping_sub(self.shared.tx_consumed.load(Ordering::Acquire)) < RING_SLOTS
    }

    fn room(&mut self) -> bool {
        self.blocked = !self.tx_has_room();
        !self.blocked
    }
}

impl Device for Card {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Room<'_>)> {
        if self.peek().is_none() || !self.room() {
            return None;
        }
        let Self {
            shared,
            unannounced,
            ..
        } = self;
        Some((
            Received { shared },
            Room {
                shared,
                unannounced,
            },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Room<'_>> {
        if !self.room() {
            return None;
        }
        Some(Room {
            shared: self.shared,
            unannounced: &mut self.unannounced,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME_BYTES;
        capabilities
    }
}

/// A frame that has arrived, in its slot.
pub(crate) struct Received<'a> {
    shared: &'a Shared,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(peek(self.shared).unwrap_or(&[]));
        skip(self.shared);
        result
    }
}

/// A free slot of the transmit ring.
pub(crate) struct Room<'a> {
    shared: &'a Shared,
    unannounced: &'a mut bool,
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let len = len.min(MAX_SLOT_FRAME_BYTES);
        let produced = self.shared.tx_produced.load(Ordering::Relaxed);
        let slot = slot(TX_RING_OFFSET, produced);
        // SAFETY: the slot lies in the transmit ring, is aligned to its size, and is the guest's until it is published.
        unsafe { slot.cast::<u32>().write(len as u32) };
        // SAFETY: as above; `len` bytes after the length lie in the slot, and were written before (memory begins as zeros).
        let result = f(unsafe { core::slice::from_raw_parts_mut(slot.cast::<u8>().add(4), len) });
        self.shared
            .tx_produced
            .store(produced.wrapping_add(1), Ordering::Release);
        *self.unannounced = true;
        result
    }
}

fn peek(shared: &Shared) -> Option<&[u8]> {
    let consumed = shared.rx_consumed.load(Ordering::Relaxed);
    if shared.rx_produced.load(Ordering::Acquire) == consumed {
        return None;
    }
    let slot = slot(RX_RING_OFFSET, consumed);
    // SAFETY: the slot lies in the receive ring, is aligned to its size, and is the guest's until it is consumed.
    let len = unsafe { slot.cast::<u32>().read() } as usize;
    // A length beyond the slot's end reads as an empty frame, which smoltcp drops.
    let len = if len <= MAX_SLOT_FRAME_BYTES { len } else { 0 };
    // SAFETY: as above; `len` bytes after the length lie in the slot.
    Some(unsafe { core::slice::from_raw_parts(slot.cast::<u8>().add(4), len) })
}

fn skip(shared: &Shared) {
    let consumed = shared.rx_consumed.load(Ordering::Relaxed);
    shared
        .rx_consumed
        .store(consumed.wrapping_add(1), Ordering::Release);
}

/// A slot's address. Positions count on for ever; the ring's size is a power of two.
fn slot(ring_offset: u64, position: u32) -> *mut u64 {
    (RAM_BASE + ring_offset + u64::from(position % RING_SLOTS) * SLOT_BYTES) as *mut u64
}
