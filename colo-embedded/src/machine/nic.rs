use super::abi::{MAX_SLOT_FRAME_BYTES, RING_SLOTS, RX_RING_OFFSET, SLOT_BYTES, TX_RING_OFFSET};
use super::doorbell::Doorbell;
use super::ram::{GuestRam, SHARED_PFN};
use colo_core::domain::DomainError;
use colo_core::ids::{PAGE_SIZE, Pfn};
use colo_core::net::{Frame, MAX_BATCH_FRAMES, Port};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The shortest Ethernet frame that can be told from noise: its header.
const MIN_FRAME_BYTES: usize = 14;

/// The guest's network card, as the monitor sees it: the rings in guest memory, the doorbell, and a gate that keeps the monitor's
/// hands off guest memory while the domain is suspended.
pub(crate) struct Nic {
    ram: Arc<GuestRam>,
    doorbell: Doorbell,
    gate: Mutex<Gate>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// The guest runs: frames pass.
    Open,
    /// The domain is suspended: guest memory must not change, and what the guest has sent stays in its ring.
    Shut,
    /// The guest has ended by itself: what it had sent may still be taken.
    Ended,
    /// The domain was destroyed: nothing passes ever again.
    Destroyed,
}

impl Nic {
    /// The card of a suspended domain.
    pub(crate) fn new(ram: Arc<GuestRam>) -> Result<Nic, DomainError> {
        Ok(Nic { ram, doorbell: Doorbell::new()?, gate: Mutex::new(Gate::Shut) })
    }

    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// On return no frame is being copied into or out of guest memory, and none will be until [`Nic::open`].
    pub(crate) fn shut(&self) {
        let mut gate = self.lock();
        if *gate == Gate::Open {
            *gate = Gate::Shut;
        }
    }

    /// Lets frames pass again, and makes both sides look at their rings: a doorbell or an event may have been lost.
    pub(crate) fn open(&self) {
        let mut gate = self.lock();
        if *gate == Gate::Shut {
            *gate = Gate::Open;
        }
        self.ram.notify_guest();
        self.doorbell.ring();
    }

    /// The guest has ended by itself.
    pub(crate) fn end(&self) {
        let mut gate = self.lock();
        if *gate != Gate::Destroyed {
            *gate = Gate::Ended;
        }
        self.doorbell.ring();
    }

    /// The domain is destroyed: from here on nothing that it said gets out.
    pub(crate) fn destroy(&self) {
        *self.lock() = Gate::Destroyed;
        self.doorbell.ring();
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what the guest has sent into `frames`, at most a batch, and asks for the doorbell when the ring is empty.
    fn take_sent(&self, frames: &mut Vec<Frame>) -> usize {
        let before = frames.len();
        let mut slots_left = self.drain(frames, MAX_BATCH_FRAMES as u32);
        if slots_left > 0 {
            let shared = self.ram.shared();
            if shared.tx_wake.swap(1, SeqCst) == 0 {
                self.ram.mark_device_dirty(SHARED_PFN);
            }
            // A frame may have been sent just before that; one sent from here on rings.
            slots_left = self.drain(frames, slots_left);
        }
        let taken = frames.len() - before;
        // Slots of nonsense count as looked at, so that a guest cannot keep us here; who polls must then come again.
        if slots_left == 0 && taken < MAX_BATCH_FRAMES {
            self.doorbell.ring();
        }
        taken
    }

    /// Takes at most that many slots of the transmit ring, and returns how many are left of them.
    fn drain(&self, frames: &mut Vec<Frame>, max_slots: u32) -> u32 {
        let shared = self.ram.shared();
        let consumed = shared.tx_consumed.load(SeqCst);
        let pending = shared.tx_produced.load(SeqCst).wrapping_sub(consumed);
        if pending == 0 {
            return max_slots;
        }
        if pending > RING_SLOTS {
            tracing::debug!(pending, "the guest's transmit ring makes no sense; what is in it is dropped");
            shared.tx_consumed.store(consumed.wrapping_add(pending), SeqCst);
            self.ram.mark_device_dirty(SHARED_PFN);
            return max_slots;
        }
        let batch = pending.min(max_slots);
        frames.extend((0..batch).filter_map(|index| self.read_slot(consumed.wrapping_add(index))));
        shared.tx_consumed.store(consumed.wrapping_add(batch), SeqCst);
        self.ram.mark_device_dirty(SHARED_PFN);
        if shared.tx_full.swap(0, SeqCst) != 0 {
            self.ram.notify_guest();
        }
        max_slots - batch
    }

    /// The frame in that slot of the transmit ring; `None` when its length is nonsense.
    fn read_slot(&self, position: u32) -> Option<Frame> {
        let slot = slot_offset(TX_RING_OFFSET, position);
        let mut len = [0; 4];
        if !self.ram.read_bytes(slot, &mut len) {
            return None;
        }
        let len = u32::from_ne_bytes(len) as usize;
        if !(MIN_FRAME_BYTES..=MAX_SLOT_FRAME_BYTES).contains(&len) {
            tracing::debug!(len, "dropped a frame of impossible length");
            return None;
        }
        let mut frame = vec![0; len];
        self.ram.read_bytes(slot + 4, &mut frame).then(|| Frame::from(frame))
    }

    /// Puts frames into the receive ring, as many as there is room for.
    fn give_received(&self, frames: &[Frame]) -> usize {
        let shared = self.ram.shared();
        let produced = shared.rx_produced.load(SeqCst);
        let used = produced.wrapping_sub(shared.rx_consumed.load(SeqCst));
        // A guest that claims to have taken what it was never given has no room.
        let room = RING_SLOTS.saturating_sub(used) as usize;
        let mut filled = 0;
        let mut taken = 0;
        for frame in frames {
            if filled as usize == room {
                break;
            }
            if self.write_slot(produced.wrapping_add(filled), frame) {
                filled += 1;
            }
            taken += 1;
        }
        if filled > 0 {
            shared.rx_produced.store(produced.wrapping_add(filled), SeqCst);
            self.ram.notify_guest();
        }
        taken
    }

    /// Fills a slot of the receive ring; a frame that does not fit is lost, as it would be on a real card.
    fn write_slot(&self, position: u32, frame: &Frame) -> bool {
        if frame.len() > MAX_SLOT_FRAME_BYTES {
            tracing::debug!(len = frame.len(), "dropped a frame longer than a slot");
            return false;
        }
        let slot = slot_offset(RX_RING_OFFSET, position);
        let written =
            self.ram.write_bytes(slot, &(frame.len() as u32).to_ne_bytes()) && self.ram.write_bytes(slot + 4, frame);
        self.ram.mark_device_dirty(Pfn(slot / PAGE_SIZE as u64));
        written
    }
}

/// The masked position makes any number that the guest may have left there a slot of the ring.
fn slot_offset(ring: u64, position: u32) -> u64 {
    ring + u64::from(position % RING_SLOTS) * SLOT_BYTES
}

/// The host's end of the guest's network card.
///
/// Frames that come in while the domain is suspended are not taken, and frames that the guest has sent stay in its memory; when
/// the domain goes on, [`Port::poll_fd`] becomes readable, so that both are looked at again. [`Port::send`] drops frames longer
/// than [`MAX_SLOT_FRAME_BYTES`].
///
/// # Errors of the port
/// `UnexpectedEof` from [`Port::receive`] and `BrokenPipe` from [`Port::send`] when the domain has ended; what it had sent before
/// it ended by itself is handed out first.
pub struct RingPort {
    nic: Arc<Nic>,
}

impl RingPort {
    pub(crate) fn new(nic: Arc<Nic>) -> RingPort {
        RingPort { nic }
    }
}

impl Port for RingPort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.nic.doorbell()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let gate = self.nic.lock();
        match *gate {
            Gate::Shut => {
                self.nic.doorbell.silence();
                Ok(0)
            }
            Gate::Open => {
                self.nic.doorbell.silence();
                Ok(self.nic.take_sent(frames))
            }
            // The doorbell keeps ringing, so that the end is noticed by whoever polls.
            Gate::Ended => match self.nic.take_sent(frames) {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                taken => Ok(taken),
            },
            Gate::Destroyed => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        let gate = self.nic.lock();
        match *gate {
            Gate::Open => Ok(self.nic.give_received(frames)),
            Gate::Shut => Ok(0),
            Gate::Ended | Gate::Destroyed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}
