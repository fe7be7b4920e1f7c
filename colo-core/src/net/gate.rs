//! The primary's gate: what its guest says is held here until it may be said.
//!
//! The rule of output commit lives in this file. A frame leaves
//! * at once, while the machine is not protected (before the first checkpoint, in a rehearsal, or after the secondary was lost);
//! * in lock-step, when the comparator finds that the secondary has produced the same;
//! * or when the checkpoint taken after it was acknowledged, whole and verified.
//!
//! Sans-IO: frames in, frames out. Output keeps its order within an epoch's ways: what a checkpoint ended leaves before anything
//! later does.
//!
//! ```
//! use colo_core::compare::CompareConfig;
//! use colo_core::ids::Epoch;
//! use colo_core::net::Frame;
//! use colo_core::net::gate::Gate;
//! use colo_core::peer::Mode;
//! use std::time::Instant;
//!
//! let now = Instant::now();
//! let mut gate = Gate::new(Mode::Remus, CompareConfig::default());
//! gate.begin_epoch(Epoch(1));
//! gate.commit(Epoch(1));
//! gate.handle_primary(0, Frame::from_static(&[0; 60]), now);
//! assert!(gate.next_batch().is_empty(), "held");
//! gate.begin_epoch(Epoch(2));
//! assert!(gate.next_batch().is_empty(), "the checkpoint is not acknowledged");
//! gate.commit(Epoch(2));
//! assert_eq!(gate.next_batch().len(), 1);
//! ```

use super::announce::AddressBook;
use super::{Frame, MAX_BATCH_FRAMES};
use crate::compare::{Comparator, CompareConfig, Counters, Divergence, Reason, Release};
use crate::ids::Epoch;
use crate::peer::{Mode, NetFrame};
use crate::save::Trigger;
use std::collections::VecDeque;
use std::time::Instant;

/// The most bytes that wait at the gate outside the comparator (Remus' output, an ended epoch's, and what the network does not
/// take): beyond it the guest's output is left in its ring, and the guest sees a slow card.
pub const MAX_WAITING_BYTES: usize = 64 << 20;

/// What the secondary is to be told about output that has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// What frame `number` of the secondary's epoch says.
    Frame {
        /// The epoch.
        epoch: Epoch,
        /// The frame's number in it.
        number: u64,
    },
    /// All output that came with that epoch's checkpoint.
    Held(Epoch),
}

/// See the module.
pub struct Gate {
    mode: Mode,
    config: CompareConfig,
    rehearse: bool,
    way: Way,
    shut: bool,
    epoch: Epoch,
    /// Output of the epoch before, waiting for this epoch's acknowledgement.
    ended: Option<(Epoch, Vec<Release>)>,
    ready: VecDeque<Release>,
    waiting_bytes: usize,
    /// Frames put into `ready` and taken out of it, since the beginning.
    put: u64,
    left: u64,
    /// What is to be reported once so many frames have left.
    reports: VecDeque<(u64, Report)>,
    addresses: AddressBook,
    divergence: Option<Divergence>,
    full_reported: bool,
}

enum Way {
    Open,
    Hold(Vec<Release>),
    Compare(Box<Comparator>),
}

impl Gate {
    /// An open gate: nothing is protected yet.
    pub fn new(mode: Mode, config: CompareConfig) -> Self {
        Gate {
            mode,
            config,
            rehearse: false,
            way: Way::Open,
            shut: false,
            epoch: Epoch::NONE,
            ended: None,
            ready: VecDeque::new(),
            waiting_bytes: 0,
            put: 0,
            left: 0,
            reports: VecDeque::new(),
            addresses: AddressBook::default(),
            divergence: None,
            full_reported: false,
        }
    }

    /// The first two epochs are a rehearsal (or not, which is the default): the gate stays open in them.
    #[must_use]
    pub fn with_rehearsal(mut self, rehearse: bool) -> Self {
        self.rehearse = rehearse;
        self
    }

    /// The epoch that the guest is in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The addresses that the guest was seen to use.
    pub fn addresses(&self) -> &AddressBook {
        &self.addresses
    }

    /// What the comparator has counted, in lock-step.
    pub fn counters(&self) -> Option<Counters> {
        match &self.way {
            Way::Compare(comparator) => Some(comparator.counters()),
            Way::Open | Way::Hold(_) => None,
        }
    }

    /// A frame from the primary's guest.
    pub fn handle_primary(&mut self, nic: u8, frame: Frame, now: Instant) {
        self.addresses.learn(nic, &frame);
        match &mut self.way {
            Way::Open => self.make_ready(Release { nic, frame }),
            Way::Hold(held) => {
                self.waiting_bytes += frame.len();
                held.push(Release { nic, frame });
            }
            Way::Compare(comparator) => comparator.handle_primary(nic, frame, now),
        }
    }

    /// A client's frame, which both guests are given.
    pub fn handle_input(&mut self, nic: u8, frame: &Frame) {
        self.addresses.hear(nic, frame);
        if let Way::Compare(comparator) = &mut self.way {
            comparator.handle_input(nic, frame);
        }
    }

    /// A frame of the secondary's guest. One of another epoch than the primary's says nothing any more.
    pub fn handle_secondary(&mut self, epoch: Epoch, number: u64, frame: NetFrame, now: Instant) {
        if let (Way::Compare(comparator), true) = (&mut self.way, epoch == self.epoch) {
            comparator.handle_secondary(frame.nic, number, frame.frame, now);
        }
    }

    /// The primary was captured: what it says from here on belongs to `epoch`. Returns its output that has not left, which the
    /// checkpoint must carry.
    pub fn begin_epoch(&mut self, epoch: Epoch) -> Vec<Release> {
        // What both machines have said by now may leave by that right, without waiting for the checkpoint.
        self.pump();
        self.epoch = epoch;
        if epoch < Epoch::first_protected(self.rehearse) {
            // Nobody will take over from this checkpoint: nothing need travel with it, and nothing waits for it.
            return Vec::new();
        }
        self.divergence = None;
        self.full_reported = false;
        let held = self.end_epoch(epoch);
        if matches!(self.way, Way::Open) {
            self.way = match self.mode {
                Mode::Colo => Way::Compare(Box::new(Comparator::new(self.config.clone()))),
                Mode::Remus => Way::Hold(Vec::new()),
            };
        }
        let ended = self.ended.get_or_insert_with(|| (epoch, Vec::new()));
        ended.0 = epoch;
        ended.1.extend(held);
        // Also what may leave and has not: the secondary forgets its own copies of it when it gets this checkpoint.
        self.ready.iter().chain(&ended.1).cloned().collect()
    }

    /// The secondary has this epoch, whole and verified: what the primary said before it may leave.
    pub fn commit(&mut self, epoch: Epoch) {
        if self.ended.as_ref().is_some_and(|(ended, _)| *ended == epoch) {
            if let Some((_, held)) = self.ended.take() {
                self.put += held.len() as u64;
                self.ready.extend(held);
                self.reports.push_back((self.put, Report::Held(epoch)));
            }
        }
    }

    /// The secondary stands where this epoch begins, and runs.
    pub fn applied(&mut self, epoch: Epoch, now: Instant) {
        if let (Way::Compare(comparator), true) = (&mut self.way, epoch == self.epoch) {
            comparator.secondary_running(now);
        }
    }

    /// Nothing may leave until [`Gate::open`]: it is not known who serves.
    pub fn shut(&mut self) {
        self.shut = true;
    }

    /// The machine is not protected (any more): everything leaves, in order.
    pub fn open(&mut self) {
        self.shut = false;
        let held = self.end_epoch(self.epoch.next());
        self.way = Way::Open;
        let ended = self.ended.take().map(|(_, held)| held).unwrap_or_default();
        self.put += (ended.len() + held.len()) as u64;
        self.ready.extend(ended.into_iter().chain(held));
        self.reports.clear();
    }

    /// The next frames that may leave, in order, at most [`MAX_BATCH_FRAMES`], all of one card. Tell [`Gate::released`] how
    /// many of them did.
    pub fn next_batch(&mut self) -> Vec<Release> {
        if self.shut {
            return Vec::new();
        }
        self.pump();
        let nic = self.ready.front().map(|release| release.nic);
        self.ready.iter().take(MAX_BATCH_FRAMES).take_while(|release| Some(release.nic) == nic).cloned().collect()
    }

    /// Whether the gate is open, and everything has left.
    pub fn is_empty(&self) -> bool {
        matches!(self.way, Way::Open) && self.ready.is_empty()
    }

    /// So many of the frames of [`Gate::next_batch`] have left.
    ///
    /// # Panics
    /// When there were not so many.
    pub fn released(&mut self, frames: usize) {
        for release in self.ready.drain(..frames) {
            self.waiting_bytes -= release.frame.len();
            self.left += 1;
        }
    }

    /// What is to be told to the secondary now.
    pub fn poll_report(&mut self) -> Option<Report> {
        let &(after, report) = self.reports.front()?;
        if self.left < after {
            return None;
        }
        self.reports.pop_front();
        Some(report)
    }

    /// Why a checkpoint is needed, once for each epoch.
    pub fn poll_trigger(&mut self) -> Option<Trigger> {
        if let Way::Compare(comparator) = &mut self.way {
            if let Some(divergence) = comparator.poll_divergence() {
                let trigger = trigger_of(&divergence);
                self.divergence = Some(divergence);
                return Some(trigger);
            }
        }
        let full = !matches!(self.way, Way::Open) && self.is_full() && !self.full_reported;
        self.full_reported |= full;
        full.then_some(Trigger::QueueFull)
    }

    /// The divergence behind the last trigger, for the log.
    pub fn divergence(&self) -> Option<&Divergence> {
        self.divergence.as_ref()
    }

    /// The divergence behind the last trigger with what both machines had said, if that was kept; once. The rest of it stays.
    pub fn take_evidence(&mut self) -> Option<Divergence> {
        let divergence = self.divergence.as_mut()?;
        let evidence = divergence.evidence.take()?;
        Some(Divergence { evidence: Some(evidence), ..divergence.clone() })
    }

    /// Whether the guest's output must be left where it is for now.
    pub fn is_full(&self) -> bool {
        let compare_full = matches!(&self.way, Way::Compare(comparator) if comparator.is_full());
        compare_full || self.waiting_bytes >= MAX_WAITING_BYTES
    }

    /// When [`Gate::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.way {
            Way::Compare(comparator) => comparator.poll_timeout(),
            Way::Open | Way::Hold(_) => None,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Way::Compare(comparator) = &mut self.way {
            comparator.handle_timeout(now);
        }
    }

    fn make_ready(&mut self, release: Release) {
        self.waiting_bytes += release.frame.len();
        self.put += 1;
        self.ready.push_back(release);
    }

    /// Takes from the comparator what may leave; not before what an ended epoch still holds, which comes first.
    fn pump(&mut self) {
        let (Way::Compare(comparator), None) = (&mut self.way, &self.ended) else {
            return;
        };
        while let Some(release) = comparator.poll_release() {
            self.waiting_bytes += release.frame.len();
            self.put += 1;
            self.ready.push_back(release);
        }
        while let Some(number) = comparator.poll_consumed() {
            self.reports.push_back((self.put, Report::Frame { epoch: self.epoch, number }));
        }
    }

    /// Takes everything that is held; what comes from here on belongs to `next`.
    fn end_epoch(&mut self, next: Epoch) -> Vec<Release> {
        match &mut self.way {
            Way::Open => Vec::new(),
            Way::Hold(held) => std::mem::take(held),
            Way::Compare(comparator) => {
                let held = comparator.begin_epoch(next);
                self.waiting_bytes += held.iter().map(|release| release.frame.len()).sum::<usize>();
                held
            }
        }
    }
}

fn trigger_of(divergence: &Divergence) -> Trigger {
    match divergence.reason {
        Reason::Unmatched { .. } | Reason::OnlySecondary { .. } => Trigger::Unmatched,
        Reason::QueueFull(_) => Trigger::QueueFull,
        _ => Trigger::Miscompare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Evidence;
    use crate::net::announce::gratuitous_arp;
    use crate::net::testing::{CLIENT_MAC, GUEST, GUEST_MAC};

    fn frame(number: u8) -> Frame {
        vec![number; 60].into()
    }

    fn bytes_of(releases: &[Release]) -> Vec<u8> {
        releases.iter().map(|release| release.frame[0]).collect()
    }

    #[test]
    fn an_address_of_the_guest_is_its_own_until_another_host_claims_it() {
        let mut gate = Gate::new(Mode::Remus, CompareConfig::default());
        gate.handle_primary(0, gratuitous_arp(GUEST_MAC, GUEST), Instant::now());
        assert_eq!(gate.addresses().claims()[0].ipv4, Some(GUEST));
        gate.handle_input(0, &gratuitous_arp(CLIENT_MAC, GUEST));
        assert_eq!(gate.addresses().claims()[0].ipv4, None);
    }

    #[test]
    fn a_rehearsal_holds_nothing_and_its_last_output_leaves_first() {
        for mode in [Mode::Colo, Mode::Remus] {
            let now = Instant::now();
            let mut gate = Gate::new(mode, CompareConfig::default()).with_rehearsal(true);
            gate.handle_primary(0, frame(1), now);
            assert!(gate.begin_epoch(Epoch(1)).is_empty(), "nobody will take over from it");
            gate.handle_primary(0, frame(2), now);
            // The secondary's guest runs, and says what it likes.
            gate.commit(Epoch(1));
            gate.applied(Epoch(1), now);
            gate.handle_secondary(Epoch(1), 0, NetFrame { nic: 0, frame: frame(9) }, now);
            gate.handle_timeout(now + std::time::Duration::from_secs(3600));
            assert_eq!((gate.poll_trigger(), gate.poll_report()), (None, None));
            assert!(gate.begin_epoch(Epoch(2)).is_empty(), "nor from that");
            gate.commit(Epoch(2));
            assert_eq!((gate.poll_trigger(), gate.poll_report()), (None, None));
            assert_eq!(bytes_of(&gate.next_batch()), [1, 2]);
            gate.released(1);
            // What has not left travels with the checkpoint that begins protection, and leaves all the same, before anything later.
            assert_eq!(bytes_of(&gate.begin_epoch(Epoch(3))), [2]);
            gate.handle_primary(0, frame(3), now);
            assert_eq!(bytes_of(&gate.next_batch()), [2]);
            gate.released(1);
            assert!(gate.next_batch().is_empty());
            gate.commit(Epoch(3));
            assert_eq!(gate.poll_report(), Some(Report::Held(Epoch(3))));
            assert!(gate.next_batch().is_empty(), "of the first epoch that is protected");
        }
    }

    #[test]
    fn a_gate_is_empty_when_all_has_left() {
        let now = Instant::now();
        let mut gate = Gate::new(Mode::Remus, CompareConfig::default());
        gate.begin_epoch(Epoch(1));
        gate.handle_primary(0, frame(1), now);
        gate.begin_epoch(Epoch(2));
        gate.handle_primary(0, frame(2), now);
        gate.open();
        assert!(!gate.is_empty());
        assert_eq!(bytes_of(&gate.next_batch()), [1, 2]);
        gate.released(2);
        assert!(gate.is_empty());
    }

    #[test]
    fn evidence_is_taken_once_and_the_words_stay() {
        let mut gate = Gate::new(Mode::Colo, CompareConfig::default());
        assert_eq!(gate.take_evidence(), None);
        let evidence = Evidence { primary: vec![Frame::from_static(b"frame")], secondary: Vec::new() };
        let reason = Reason::PayloadDiffers { offset: 3 };
        let whole = Divergence { flow: None, reason, evidence: Some(Box::new(evidence)) };
        gate.divergence = Some(whole.clone());
        assert_eq!(gate.take_evidence(), Some(whole));
        assert_eq!(gate.take_evidence(), None);
        assert_eq!(gate.divergence().map(ToString::to_string), Some("payload differs at 3".into()));
    }
}
