//! The guest: a small machine whose memory holds everything that it is, rings and the log of all that it ever said included. It
//! answers requests by UDP and TCP, and its two copies differ as real ones do: in pace, in what they leave in memory, in what
//! chance tells them.

use crate::frames::{Answer, Kind, Packet, TCP_FLOWS, TICK_FLOW, UDP_FLOWS, le32, parse};
use crate::rng::{Rng, mix};
use colo_core::domain::model::ModelDomain;
use colo_core::domain::{Control, RunState};
use colo_core::ids::PAGE_SIZE;
use colo_core::net::Frame;

/// Pages of memory.
pub const PAGES: u64 = 24;

/// How this seed's guest behaves; in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Nature {
    pub scribble: usize,
    pub tick: usize,
    pub idle: usize,
}

// Page 0 holds words; the rest a page each.
const STEPS: usize = 0;
/// What it was asked until now.
const STATE: usize = 1;
/// Answers in each flow.
const ANSWERS: usize = 8;
/// A page each, with its two counters behind its slots.
const RX_RING: usize = PAGE_SIZE;
const TX_RING: usize = 2 * PAGE_SIZE;
const RX_HEAD: usize = head_of(RX_RING);
const RX_TAIL: usize = RX_HEAD + 1;
const TX_HEAD: usize = head_of(TX_RING);
const TX_TAIL: usize = TX_HEAD + 1;
/// A page for each flow's answers.
const LOG: usize = 3 * PAGE_SIZE;
const LOG_ENTRY_BYTES: usize = 16;
/// As many answers of a flow as its page holds.
const MAX_ANSWERS: u64 = (PAGE_SIZE / LOG_ENTRY_BYTES) as u64;
/// See [`super::guest_tcp`].
pub(crate) const CONNECTIONS: usize = 7 * PAGE_SIZE;
pub(crate) const STREAMS: usize = 8 * PAGE_SIZE;
/// Pages written by what it was asked, and pages written by its own pace.
const ASKED: usize = (8 + TCP_FLOWS) * PAGE_SIZE;
const ASKED_PAGES: usize = 6;
const SCRIBBLES: usize = ASKED + ASKED_PAGES * PAGE_SIZE;
const SCRIBBLE_PAGES: usize = PAGES as usize - SCRIBBLES / PAGE_SIZE;

const SLOTS: u64 = 15;
const SLOT_BYTES: usize = 256;

const fn head_of(ring: usize) -> usize {
    (ring + SLOTS as usize * SLOT_BYTES) / 8
}

/// Free slots without which it does nothing that might need them.
const SPARE_SLOTS: u64 = 6;

/// A running guest, for one step or for what the host does to its rings.
pub struct Guest<'a>(pub &'a mut ModelDomain);

impl Guest<'_> {
    /// Does a little, if it runs.
    pub fn step(&mut self, nature: &Nature, entropy: &mut Rng) {
        if self.0.run_state() != RunState::Running {
            return;
        }
        let steps = self.word(STEPS) + 1;
        self.set_word(STEPS, steps);
        self.0.registers = mix(steps).to_le_bytes().to_vec();
        if entropy.per_mille(nature.scribble) {
            self.scribble(entropy, steps);
        }
        if self.tx_room() < SPARE_SLOTS || entropy.per_mille(nature.idle) {
            return;
        }
        if let Some(frame) = self.take_input() {
            self.handle(&frame, entropy);
        } else if entropy.per_mille(nature.tick) {
            let content = mix(self.word(STATE) ^ self.word(ANSWERS + TICK_FLOW));
            self.answer(TICK_FLOW, 0, content);
        }
        self.tcp_timers(entropy);
    }

    /// What the host does: gives as many frames as the ring takes, and returns how many.
    pub fn give(&mut self, frames: &[Frame]) -> usize {
        let (head, tail) = (self.word(RX_HEAD), self.word(RX_TAIL));
        let count = frames.len().min((SLOTS - (head - tail)) as usize);
        for (frame, slot) in frames[..count].iter().zip(head..) {
            self.write_slot(RX_RING, slot, frame);
        }
        if count > 0 {
            self.set_word(RX_HEAD, head + count as u64);
        }
        count
    }

    /// What the host does: takes everything that the guest has said.
    pub fn take(&mut self) -> Vec<Frame> {
        let (head, tail) = (self.word(TX_HEAD), self.word(TX_TAIL));
        let frames = (tail..head).map(|slot| Frame::from(self.read_slot(TX_RING, slot))).collect();
        if head > tail {
            self.set_word(TX_TAIL, head);
        }
        frames
    }

    /// Mixes something into what it was asked; returns the new value.
    pub(crate) fn absorb(&mut self, what: u64) -> u64 {
        let state = mix(self.word(STATE) ^ what);
        self.set_word(STATE, state);
        let at = ASKED + state as usize % (ASKED_PAGES * PAGE_SIZE / 8) * 8;
        self.0.store(at, &state.to_le_bytes());
        state
    }

    /// Says something.
    pub(crate) fn say(&mut self, frame: &[u8]) {
        let head = self.word(TX_HEAD);
        assert!(head - self.word(TX_TAIL) < SLOTS, "the guest overruns its ring");
        self.write_slot(TX_RING, head, frame);
        self.set_word(TX_HEAD, head + 1);
    }

    pub(crate) fn steps(&self) -> u64 {
        self.word(STEPS)
    }

    pub(crate) fn tx_room(&self) -> u64 {
        SLOTS - (self.word(TX_HEAD) - self.word(TX_TAIL))
    }

    fn handle(&mut self, frame: &[u8], entropy: &mut Rng) {
        match parse(frame) {
            Packet::Udp { source, payload, .. } => {
                let flow = usize::from(source - crate::frames::ASK_CLIENT);
                let what = u64::from_le_bytes(payload[5..13].try_into().expect("a request"));
                self.asked(flow, le32(payload), Kind::of(payload[4]), what, entropy);
            }
            Packet::Tcp(segment) => self.tcp_segment(&segment, entropy),
            Packet::Other => {}
        }
    }

    fn asked(&mut self, flow: usize, id: u32, kind: Kind, what: u64, entropy: &mut Rng) {
        let content = match kind {
            Kind::Plain => self.absorb(what),
            Kind::Memory => mix(self.absorb(what) ^ self.scribbles()),
            Kind::Entropy => self.absorb(what ^ entropy.next()),
            Kind::Moody => self.absorb(what),
        };
        if kind != Kind::Moody || entropy.per_mille(600) {
            self.answer(flow, id, content);
        }
    }

    fn answer(&mut self, flow: usize, id: u32, content: u64) {
        let index = self.word(ANSWERS + flow);
        if index == MAX_ANSWERS {
            return;
        }
        let answer = Answer { index: index as u32, id, content };
        let at = LOG + flow * PAGE_SIZE + index as usize * LOG_ENTRY_BYTES;
        self.0.store(at, &[&content.to_le_bytes()[..], &id.to_le_bytes()].concat());
        self.set_word(ANSWERS + flow, index + 1);
        self.say(&answer.frame(flow));
    }

    fn scribble(&mut self, entropy: &mut Rng, steps: u64) {
        let at = SCRIBBLES + entropy.below(SCRIBBLE_PAGES * PAGE_SIZE / 8) * 8;
        self.0.store(at, &mix(steps ^ entropy.next()).to_le_bytes());
    }

    fn scribbles(&self) -> u64 {
        let words = self.0.ram()[SCRIBBLES..].chunks_exact(8);
        words.fold(0, |sum, word| mix(sum ^ u64::from_le_bytes(word.try_into().expect("8 bytes"))))
    }

    fn take_input(&mut self) -> Option<Vec<u8>> {
        let tail = self.word(RX_TAIL);
        (tail < self.word(RX_HEAD)).then(|| {
            self.set_word(RX_TAIL, tail + 1);
            self.read_slot(RX_RING, tail)
        })
    }

    fn read_slot(&self, ring: usize, slot: u64) -> Vec<u8> {
        let at = ring + (slot % SLOTS) as usize * SLOT_BYTES;
        let length = usize::from(self.0.ram()[at]);
        self.0.ram()[at + 1..at + 1 + length].to_vec()
    }

    fn write_slot(&mut self, ring: usize, slot: u64, frame: &[u8]) {
        let at = ring + (slot % SLOTS) as usize * SLOT_BYTES;
        let length = u8::try_from(frame.len()).expect("frames of the simulation are short");
        self.0.store(at, &[&[length], frame].concat());
    }

    fn word(&self, index: usize) -> u64 {
        Memory(self.0.ram()).word(index)
    }

    fn set_word(&mut self, index: usize, value: u64) {
        self.0.store(index * 8, &value.to_le_bytes());
    }
}

/// A guest's memory, to look into.
#[derive(Clone, Copy)]
pub struct Memory<'a>(pub &'a [u8]);

impl Memory<'_> {
    /// How many answers it has given in that flow.
    pub fn answer_count(&self, flow: usize) -> u32 {
        assert!(flow < UDP_FLOWS);
        self.word(ANSWERS + flow) as u32
    }

    /// One of them.
    pub fn answer(&self, flow: usize, index: u32) -> Option<Answer> {
        (index < self.answer_count(flow)).then(|| {
            let at = LOG + flow * PAGE_SIZE + index as usize * LOG_ENTRY_BYTES;
            let content = u64::from_le_bytes(self.0[at..at + 8].try_into().expect("8 bytes"));
            Answer { index, id: le32(&self.0[at + 8..]), content }
        })
    }

    pub(crate) fn word(&self, index: usize) -> u64 {
        u64::from_le_bytes(self.0[index * 8..index * 8 + 8].try_into().expect("8 bytes"))
    }
}
