//! The network card: the rings of [`crate::abi`] as a device of smoltcp. Frames are read and written where they lie.

use core::sync::atomic::{Ordering, fence};

use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};

use crate::abi::{
    MAX_SLOT_FRAME_BYTES, RING_SLOTS, RX_RING_OFFSET, SLOT_BYTES, Shared, TX_RING_OFFSET,
};

/// The longest frame sent or received: Ethernet's header and 1500 bytes.
const FRAME_BYTES: usize = 1514;

/// The card.
pub struct Card {
    shared: &'static Shared,
    receive: Ring,
    transmit: Ring,
    doorbell: fn(),
}

impl Card {
    /// The card whose memory begins at `base`; `doorbell` tells the monitor of frames sent.
    ///
    /// # Safety
    /// `base` is the start of memory laid out as [`crate::abi`] says, aligned to a page, which stays. Nothing but this card
    /// and the monitor touches its rings and ring positions; the monitor keeps to the slots that are its own.
    pub unsafe fn new(base: *mut u8, shared: &'static Shared, doorbell: fn()) -> Self {
        // SAFETY: both rings lie in the memory that the caller vouches for.
        let (receive, transmit) = unsafe {
            (
                base.add(RX_RING_OFFSET as usize),
                base.add(TX_RING_OFFSET as usize),
            )
        };
        Self {
            shared,
            receive: Ring(receive),
            transmit: Ring(transmit),
            doorbell,
        }
    }

    /// Whether frames can be taken in: one is there, and there is room for an answer.
    pub fn has_work(&self) -> bool {
        self.transmit_has_room() && self.frames_waiting() != 0
    }

    /// Whether the transmit ring has room. If not, asks the monitor for an event when it has: look again afterwards.
    pub fn transmit_has_room(&self) -> bool {
        if self.frames_unsent() < RING_SLOTS {
            return true;
        }
        // The monitor takes frames, then looks at `tx_full`; here it is the other way round, so one of us sees the other.
        self.shared.tx_full.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.frames_unsent() < RING_SLOTS
    }

    fn frames_waiting(&self) -> u32 {
        let produced = self.shared.rx_produced.load(Ordering::Acquire);
        produced.wrapping_sub(self.shared.rx_consumed.load(Ordering::Relaxed))
    }

    fn frames_unsent(&self) -> u32 {
        let produced = self.shared.tx_produced.load(Ordering::Relaxed);
        produced.wrapping_sub(self.shared.tx_consumed.load(Ordering::Acquire))
    }
}

impl Device for Card {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        let card = &*self;
        card.has_work().then_some((Received(card), Transmit(card)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        let card = &*self;
        card.transmit_has_room().then_some(Transmit(card))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }
}

/// The frame at the head of the receive ring.
pub struct Received<'a>(&'a Card);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let shared = self.0.shared;
        let position = shared.rx_consumed.load(Ordering::Relaxed);
        let slot = self.0.receive.slot(position);
        // SAFETY: `slot` is a slot of the ring, aligned to its size; the monitor filled it before it moved `rx_produced`
        // beyond it, and does not touch it before `rx_consumed` moves.
        let frame = unsafe {
            let length = slot.read() as usize;
            // A length that cannot be is a frame that says nothing.
            let length = if length <= MAX_SLOT_FRAME_BYTES {
                length
            } else {
                0
            };
            core::slice::from_raw_parts(slot.add(1).cast::<u8>(), length)
        };
        let result = read(frame);
        shared
            .rx_consumed
            .store(position.wrapping_add(1), Ordering::Release);
        result
    }
}

/// The free slot at the end of the transmit ring.
pub struct Transmit<'a>(&'a Card);

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let shared = self.0.shared;
        let position = shared.tx_produced.load(Ordering::Relaxed);
        let slot = self.0.transmit.slot(position);
        assert!(
            length <= MAX_SLOT_FRAME_BYTES,
            "a frame longer than the capabilities allow"
        );
        // SAFETY: `slot` is a slot of the ring, aligned to its size, and `length` fits behind its first word; the slot is
        // the guest's until `tx_produced` moves beyond it. Whatever bytes it holds are valid.
        let frame = unsafe {
            slot.write(length as u32);
            core::slice::from_raw_parts_mut(slot.add(1).cast::<u8>(), length)
        };
        let result = write(frame);
        shared
            .tx_produced
            .store(position.wrapping_add(1), Ordering::SeqCst);
        // The monitor sets `tx_wake`, then looks at `tx_produced`; here it is the other way round.
        if shared.tx_wake.load(Ordering::SeqCst) != 0
            && shared.tx_wake.swap(0, Ordering::SeqCst) != 0
        {
            (self.0.doorbell)();
        }
        result
    }
}

/// A ring's first slot.
struct Ring(*mut u8);

impl Ring {
    fn slot(&self, position: u32) -> *mut u32 {
        let offset = (position % RING_SLOTS) as usize * SLOT_BYTES as usize;
        // SAFETY: the offset lies within the ring, which `Card::new`'s caller vouched for.
        unsafe { self.0.add(offset) }.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{PAGE_BYTES, RING_PAGES};
    use proptest::prelude::*;
    use std::{collections::VecDeque, vec, vec::Vec};

    thread_local! {
        static RUNG: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
    }

    /// The other side of the card, with its memory.
    struct Monitor {
        words: &'static mut [u64],
        shared: &'static Shared,
    }

    /// Memory of the right size with both positions at `position`; never freed.
    fn card(position: u32) -> (Card, Monitor) {
        let words = (TX_RING_OFFSET + (RING_PAGES + 1) * PAGE_BYTES) as usize / 8;
        let memory = vec![0u64; words].leak();
        let aligned = memory.as_ptr().align_offset(PAGE_BYTES as usize);
        let base = memory[aligned..].as_mut_ptr().cast::<u8>();
        RUNG.set(0);
        #[allow(
            clippy::cast_ptr_alignment,
            reason = "a page's start, on the next page"
        )]
        // SAFETY: the memory is large enough, aligned, and leaked; the card is the only one.
        let (card, shared, words) = unsafe {
            let shared = &*base.add(PAGE_BYTES as usize).cast::<Shared>();
            let rings = core::slice::from_raw_parts_mut(
                base.add(RX_RING_OFFSET as usize).cast::<u64>(),
                (2 * RING_PAGES * PAGE_BYTES) as usize / 8,
            );
            let ring_bell = || RUNG.set(RUNG.get() + 1);
            (Card::new(base, shared, ring_bell), shared, rings)
        };
        for word in [
            &shared.rx_produced,
            &shared.rx_consumed,
            &shared.tx_produced,
            &shared.tx_consumed,
        ] {
            word.store(position, Ordering::SeqCst);
        }
        (card, Monitor { words, shared })
    }

    impl Monitor {
        fn slot(&mut self, ring: usize, position: u32) -> &mut [u64] {
            let words = SLOT_BYTES as usize / 8;
            let at = (ring * RING_SLOTS as usize + (position % RING_SLOTS) as usize) * words;
            &mut self.words[at..at + words]
        }

        fn put(&mut self, length: u32, frame: &[u8]) -> bool {
            let position = self.shared.rx_produced.load(Ordering::SeqCst);
            if position.wrapping_sub(self.shared.rx_consumed.load(Ordering::SeqCst)) == RING_SLOTS {
                return false;
            }
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(frame);
            bytes.resize(SLOT_BYTES as usize, 0);
            for (word, chunk) in self.slot(0, position).iter_mut().zip(bytes.chunks(8)) {
                *word = u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
            }
            self.shared
                .rx_produced
                .store(position.wrapping_add(1), Ordering::SeqCst);
            true
        }

        fn take(&mut self) -> Option<Vec<u8>> {
            let position = self.shared.tx_consumed.load(Ordering::SeqCst);
            if position == self.shared.tx_produced.load(Ordering::SeqCst) {
                return None;
            }
            let bytes: Vec<u8> = self
                .slot(1, position)
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect();
            let length = u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes")) as usize;
            self.shared
                .tx_consumed
                .store(position.wrapping_add(1), Ordering::SeqCst);
            Some(bytes[4..4 + length].to_vec())
        }
    }

    fn send(card: &mut Card, frame: &[u8]) -> bool {
        let Some(token) = card.transmit(Instant::ZERO) else {
            return false;
        };
        token.consume(frame.len(), |slot| slot.copy_from_slice(frame));
        true
    }

    fn receive(card: &mut Card) -> Option<Vec<u8>> {
        let (token, _) = card.receive(Instant::ZERO)?;
        Some(token.consume(<[u8]>::to_vec))
    }

    #[test]
    fn a_length_that_cannot_be_is_an_empty_frame() {
        let (mut card, mut monitor) = card(u32::MAX);
        for length in [MAX_SLOT_FRAME_BYTES as u32 + 1, u32::MAX] {
            monitor.put(length, b"x");
            assert_eq!(receive(&mut card), Some(vec![]));
        }
        monitor.put(1, b"x");
        assert_eq!(receive(&mut card), Some(b"x".to_vec()));
        assert_eq!(receive(&mut card), None);
    }

    #[test]
    fn the_bell_rings_when_asked_for_and_once() {
        let (mut card, monitor) = card(0);
        send(&mut card, b"a");
        assert_eq!(RUNG.get(), 0);
        monitor.shared.tx_wake.store(1, Ordering::SeqCst);
        send(&mut card, b"b");
        send(&mut card, b"c");
        assert_eq!(RUNG.get(), 1);
        assert_eq!(monitor.shared.tx_wake.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_full_ring_stops_both_directions_and_asks_for_room() {
        let (mut card, mut monitor) = card(u32::MAX - 5);
        monitor.put(1, b"x");
        for _ in 0..RING_SLOTS {
            assert!(send(&mut card, b"y"));
        }
        assert_eq!(monitor.shared.tx_full.load(Ordering::SeqCst), 0);
        assert!(!send(&mut card, b"z") && !card.has_work());
        assert_eq!(
            receive(&mut card),
            None,
            "there would be no room for an answer"
        );
        assert_eq!(monitor.shared.tx_full.load(Ordering::SeqCst), 1);
        assert_eq!(monitor.take(), Some(b"y".to_vec()));
        assert!(card.has_work() && send(&mut card, b"z"));
    }

    proptest! {
        #[test]
        fn both_rings_are_queues(
            start in prop_oneof![Just(0), Just(u32::MAX - 100), any::<u32>()],
            steps in proptest::collection::vec((0..4, 0usize..=MAX_SLOT_FRAME_BYTES), 0..600),
        ) {
            let (mut card, mut monitor) = card(start);
            let (mut inward, mut outward) = (VecDeque::new(), VecDeque::new());
            for (number, (step, length)) in steps.into_iter().enumerate() {
                let frame = vec![number as u8; length];
                match step {
                    0 => if monitor.put(length as u32, &frame) { inward.push_back(frame) },
                    1 => prop_assert_eq!(receive(&mut card), inward.pop_front()),
                    2 => if send(&mut card, &frame) { outward.push_back(frame) },
                    _ => prop_assert_eq!(monitor.take(), outward.pop_front()),
                }
            }
        }
    }
}
