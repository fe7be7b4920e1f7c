//! The network card: two rings in memory, as a device for smoltcp. Positions are nowhere but in the shared page.

use crate::hypercall;
use colo_guest::abi::{MAX_SLOT_FRAME_BYTES, RAM_BASE, RING_SLOTS, RX_RING_OFFSET, SLOT_BYTES, Shared, TX_RING_OFFSET};
use core::sync::atomic::Ordering::SeqCst;
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// Ethernet header and 1500 bytes.
const MAX_FRAME_BYTES: usize = 1514;

/// The card.
pub(crate) struct Card {
    shared: &'static Shared,
}

impl Card {
    pub(crate) fn new(shared: &'static Shared) -> Self {
        Card { shared }
    }

    /// Sleeps until the monitor has something, at most so long.
    pub(crate) fn wait(&self, timeout_ns: u64) {
        let event = self.shared.event.load(SeqCst);
        self.shared.sleeping.store(1, SeqCst);
        // What came before the monitor could see that nobody is awake.
        if self.received() == 0 {
            hypercall::wait(&self.shared.event, event, timeout_ns);
        }
        self.shared.sleeping.store(0, SeqCst);
    }

    /// Whether a frame can be sent; if not, an event will tell.
    fn can_send(&self) -> bool {
        if self.sent() < RING_SLOTS {
            return true;
        }
        self.shared.tx_full.store(1, SeqCst);
        // The monitor may have made room before it could see that.
        self.sent() < RING_SLOTS
    }

    fn received(&self) -> u32 {
        self.shared.rx_produced.load(SeqCst).wrapping_sub(self.shared.rx_consumed.load(SeqCst))
    }

    fn sent(&self) -> u32 {
        self.shared.tx_produced.load(SeqCst).wrapping_sub(self.shared.tx_consumed.load(SeqCst))
    }
}

impl phy::Device for Card {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken;

    fn receive(&mut self, _now: Instant) -> Option<(RxToken, TxToken)> {
        (self.received() > 0 && self.can_send()).then(|| (RxToken(self.shared), TxToken(self.shared)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<TxToken> {
        self.can_send().then(|| TxToken(self.shared))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME_BYTES;
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}

pub(crate) struct RxToken(&'static Shared);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let position = self.0.rx_consumed.load(SeqCst);
        let slot = slot_address(RX_RING_OFFSET, position);
        // SAFETY: the slot lies in the receive ring, and its length word is aligned to four bytes.
        let length = unsafe { (slot as *const u32).read_volatile() } as usize;
        // SAFETY: so many bytes after the length word are in the slot, which is the guest's until it is consumed.
        let frame = unsafe { core::slice::from_raw_parts((slot + 4) as *const u8, length.min(MAX_SLOT_FRAME_BYTES)) };
        let result = f(frame);
        self.0.rx_consumed.store(position.wrapping_add(1), SeqCst);
        result
    }
}

pub(crate) struct TxToken(&'static Shared);

impl phy::TxToken for TxToken {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let length = length.min(MAX_SLOT_FRAME_BYTES);
        let position = self.0.tx_produced.load(SeqCst);
        let slot = slot_address(TX_RING_OFFSET, position);
        // SAFETY: so many bytes after the length word are in the slot, which is the guest's until it is produced.
        let frame = unsafe { core::slice::from_raw_parts_mut((slot + 4) as *mut u8, length) };
        let result = f(frame);
        // SAFETY: the slot lies in the transmit ring, and its length word is aligned to four bytes.
        unsafe { (slot as *mut u32).write_volatile(length as u32) };
        self.0.tx_produced.store(position.wrapping_add(1), SeqCst);
        if self.0.tx_wake.load(SeqCst) != 0 && self.0.tx_wake.swap(0, SeqCst) != 0 {
            hypercall::ring();
        }
        result
    }
}

fn slot_address(ring_offset: u64, position: u32) -> u64 {
    RAM_BASE + ring_offset + u64::from(position % RING_SLOTS) * SLOT_BYTES
}
