//! The secondary's side of the packets, until it serves and after.
//!
//! Input from the primary waits here for its epoch; what the guest says goes to the primary, to be compared, and is kept
//! until the primary reports that it has left: were the primary to die, it is sent at once, so that no client waits for a
//! retransmission and no answer is missing.
//!
//! Sans-IO, and the same in lock-step and under Remus (where the guest says nothing before it serves).
//!
//! ```
//! use colo_core::ids::Epoch;
//! use colo_core::net::Frame;
//! use colo_core::net::standby::Standby;
//! use colo_core::peer::NetFrame;
//! use colo_core::stream::NetState;
//!
//! let mut standby = Standby::default();
//! let frame = NetFrame { nic: 0, frame: Frame::from_static(&[0; 60]) };
//! standby.handle_input(Epoch(1), false, vec![frame.clone()]);
//! assert!(standby.next_input(0).is_empty(), "the guest is not there yet");
//! standby.begin_epoch(Epoch(1), NetState::default());
//! assert_eq!(standby.next_input(0).len(), 1);
//!
//! let (number, sent) = standby.handle_output(frame);
//! assert_eq!((number, sent.frame.len()), (0, 60));
//! assert_eq!(standby.take_unreleased().len(), 1);
//! ```

use super::announce::{Address, AddressBook};
use super::rewrite::Rewriter;
use super::{Frame, MAX_BATCH_FRAMES};
use crate::ids::Epoch;
use crate::peer::NetFrame;
use crate::stream::NetState;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// The most bytes of input that wait for their epoch or for room in the guest's ring. Beyond it input is dropped, the
/// secondary will differ, and a checkpoint is asked for.
pub const MAX_INPUT_BYTES: usize = 32 << 20;

/// The most bytes of output that are kept until the primary reports them. Beyond it a checkpoint is asked for; the guest's
/// output is left in its ring meanwhile.
pub const MAX_UNRELEASED_BYTES: usize = 64 << 20;

/// See the module.
#[derive(Default)]
pub struct Standby {
    epoch: Epoch,
    /// By card: one that takes nothing must not keep the others waiting.
    input: BTreeMap<u8, VecDeque<Input>>,
    input_bytes: usize,
    rewriter: Rewriter,
    /// Out of the rewriter, on its way to the guest; by card.
    kept: BTreeMap<u8, VecDeque<Frame>>,
    next_number: u64,
    unreleased: BTreeMap<u64, NetFrame>,
    unreleased_bytes: usize,
    /// The primary's output that came with the last checkpoint, until it is reported.
    held: Vec<NetFrame>,
    /// Those that the guest is to have, whatever it says.
    specified: AddressBook,
    addresses: AddressBook,
    input_lost: bool,
}

/// What waits for the guest, or for its epoch.
struct Input {
    epoch: Epoch,
    /// It was input of the epoch before, too.
    again: bool,
    frame: Frame,
}

impl Standby {
    /// The epoch that the guest is in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The addresses that the guest is known to use.
    pub fn addresses(&self) -> &AddressBook {
        &self.addresses
    }

    /// Adds an address that the guest is known to have, though it may not have spoken yet.
    pub fn add_address(&mut self, address: Address) {
        self.specified.add(address);
        self.addresses.add(address);
    }

    /// Frames from the clients for the primary's guest in that epoch; `again`, if it had not taken them in the one before.
    pub fn handle_input(&mut self, epoch: Epoch, again: bool, frames: Vec<NetFrame>) {
        if epoch < self.epoch {
            return;
        }
        for NetFrame { nic, frame } in frames {
            if self.input_bytes + frame.len() > MAX_INPUT_BYTES {
                self.input_lost = true;
                return;
            }
            self.push_input(nic, Input { epoch, again, frame });
        }
    }

    fn push_input(&mut self, nic: u8, input: Input) {
        self.input_bytes += input.frame.len();
        self.input.entry(nic).or_default().push_back(input);
    }

    /// The next frames for that card of the guest, rewritten to its sequence numbers; at most [`MAX_BATCH_FRAMES`].
    pub fn next_input(&mut self, nic: u8) -> Vec<Frame> {
        let mut batch = Vec::new();
        while batch.len() < MAX_BATCH_FRAMES {
            if let Some(kept) = self.next_kept(nic) {
                batch.push(kept);
                continue;
            }
            let Some(frame) = self.pop_input(nic) else {
                break;
            };
            batch.extend(self.rewriter.handle_input(nic, frame));
        }
        batch
    }

    fn pop_input(&mut self, nic: u8) -> Option<Frame> {
        let waiting = self.input.get_mut(&nic)?;
        if waiting.front()?.epoch > self.epoch {
            return None;
        }
        let frame = waiting.pop_front()?.frame;
        self.input_bytes -= frame.len();
        self.specified.hear(nic, &frame);
        self.addresses.hear(nic, &frame);
        Some(frame)
    }

    /// The next frame that the rewriter kept until the guest had answered.
    fn next_kept(&mut self, nic: u8) -> Option<Frame> {
        while let Some((nic, frame)) = self.rewriter.poll_input() {
            self.kept.entry(nic).or_default().push_back(frame);
        }
        self.kept.get_mut(&nic)?.pop_front()
    }

    /// A frame that the guest has said. Returns its number in the epoch, and the frame with the primary's sequence numbers, for
    /// the primary to compare.
    pub fn handle_output(&mut self, frame: NetFrame) -> (u64, NetFrame) {
        self.addresses.learn(frame.nic, &frame.frame);
        let frame = NetFrame { nic: frame.nic, frame: self.rewriter.handle_output(frame.nic, frame.frame) };
        let number = self.next_number;
        self.next_number += 1;
        self.unreleased_bytes += frame.frame.len();
        self.unreleased.insert(number, frame.clone());
        (number, frame)
    }

    /// A frame that the guest has said and that nobody shall have, in a rehearsal. Only learns from it.
    pub fn pass_over(&mut self, frame: NetFrame) {
        self.addresses.learn(frame.nic, &frame.frame);
        let _ = self.rewriter.handle_output(frame.nic, frame.frame);
    }

    /// What these frames say has left.
    pub fn handle_released(&mut self, epoch: Epoch, numbers: &[u64]) {
        if epoch != self.epoch {
            return;
        }
        for number in numbers {
            if let Some(frame) = self.unreleased.remove(number) {
                self.unreleased_bytes -= frame.frame.len();
            }
        }
    }

    /// The primary's output that came with that epoch's checkpoint has left.
    pub fn handle_held_released(&mut self, epoch: Epoch) {
        if epoch == self.epoch {
            self.held.clear();
        }
    }

    /// The guest stands where `epoch` begins. `state` holds the primary's output that had not left then.
    pub fn begin_epoch(&mut self, epoch: Epoch, state: NetState) {
        self.epoch = epoch;
        self.held = state.held;
        // The primary has seen and heard whatever came to be known here, too: what it does not tell any more does not hold any more.
        self.addresses = self.specified.clone();
        state.addresses.into_iter().for_each(|address| self.addresses.add(address));
        self.rewriter.reset();
        self.kept.clear();
        self.next_number = 0;
        self.unreleased.clear();
        self.unreleased_bytes = 0;
        self.input_lost = false;
        self.keep_input(|input| input.epoch >= epoch);
    }

    fn keep_input(&mut self, is_kept: impl Fn(&Input) -> bool) {
        for waiting in self.input.values_mut() {
            waiting.retain(|input| {
                let is_kept = is_kept(input);
                self.input_bytes -= if is_kept { 0 } else { input.frame.len() };
                is_kept
            });
        }
    }

    /// Whether the guest's output must be left where it is for now.
    pub fn is_full(&self) -> bool {
        self.unreleased_bytes >= MAX_UNRELEASED_BYTES
    }

    /// Whether this side needs a checkpoint: its input is incomplete, or too much of its output waits.
    pub fn wants_checkpoint(&self) -> bool {
        self.input_lost || self.is_full()
    }

    /// For the moment of taking over: the output that clients may be missing, in the order in which it was produced. The
    /// primary's of the last checkpoint first, then the guest's own.
    pub fn take_unreleased(&mut self) -> Vec<NetFrame> {
        let own = std::mem::take(&mut self.unreleased).into_values();
        self.unreleased_bytes = 0;
        std::mem::take(&mut self.held).into_iter().chain(own).collect()
    }

    /// How many connections break if nobody rewrites their numbers any more, once this side serves. See
    /// [`Rewriter::flows_to_rewrite`].
    pub fn flows_to_rewrite(&mut self, now: Instant) -> usize {
        self.rewriter.flows_to_rewrite(now)
    }

    /// This side serves from here on.
    pub fn go_live(&mut self) {
        // What the primary's guest was given after a checkpoint that never came here is for this guest now: there will be no other
        // epoch, and what clients say waits behind it. But not what this one has had already.
        let epoch = self.epoch;
        self.keep_input(|input| input.epoch <= epoch || !input.again);
        self.input.values_mut().flatten().for_each(|input| input.epoch = epoch);
        self.rewriter.go_live();
    }

    /// A frame of the clients once this side serves. It goes to the guest as the mirror's did. Whoever calls this bounds what waits for a card.
    pub fn live_input(&mut self, NetFrame { nic, frame }: NetFrame) {
        self.push_input(nic, Input { epoch: self.epoch, again: false, frame });
    }

    /// A frame of the guest once it serves, to the numbers that the clients know.
    pub fn live_output(&mut self, frame: NetFrame) -> NetFrame {
        NetFrame { nic: frame.nic, frame: self.rewriter.handle_output(frame.nic, frame.frame) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MacAddr;
    use crate::net::announce::gratuitous_arp;
    use crate::net::testing::{CLIENT_MAC, GUEST, GUEST_MAC, udp};
    use std::net::Ipv4Addr;

    fn given(standby: &mut Standby) -> Vec<u8> {
        standby.next_input(0).iter().map(|frame| frame[0]).collect()
    }

    #[test]
    fn a_card_that_takes_nothing_keeps_no_other_waiting() {
        let mut standby = Standby::default();
        standby.begin_epoch(Epoch(1), NetState::default());
        let frames = [1, 0].map(|nic| NetFrame { nic, frame: Frame::from(vec![nic; 60]) });
        standby.handle_input(Epoch(1), false, frames.to_vec());
        assert_eq!(given(&mut standby), [0]);
        assert_eq!(standby.next_input(1).len(), 1);
    }

    #[test]
    fn what_comes_again_is_given_once_to_whoever_takes_over_and_to_whoever_becomes_the_primary_anew() {
        for takes_over in [false, true] {
            let mut standby = Standby::default();
            let frames = |bytes: &[u8]| {
                bytes.iter().map(|byte| NetFrame { nic: 0, frame: Frame::from(vec![*byte; 60]) }).collect()
            };
            standby.begin_epoch(Epoch(1), NetState::default());
            standby.handle_input(Epoch(1), false, frames(&[1, 2, 3]));
            assert_eq!(given(&mut standby), [1, 2, 3]);
            standby.handle_input(Epoch(2), true, frames(&[2, 3]));
            standby.handle_input(Epoch(2), false, frames(&[4]));
            assert!(given(&mut standby).is_empty());
            match takes_over {
                true => standby.go_live(),
                false => standby.begin_epoch(Epoch(2), NetState::default()),
            }
            assert_eq!(given(&mut standby), if takes_over { vec![4] } else { vec![2, 3, 4] });
            assert_eq!(standby.input_bytes, 0);
        }
    }

    const CARD: Address = Address { nic: 0, mac: GUEST_MAC, ipv4: Some(GUEST) };

    fn checkpoint(addresses: &[Address]) -> NetState {
        NetState { addresses: addresses.to_vec(), ..NetState::default() }
    }

    #[test]
    fn a_checkpoint_takes_the_place_of_what_an_earlier_one_brought() {
        let mut standby = Standby::default();
        standby.add_address(CARD);
        let other = Address { ipv4: Some(Ipv4Addr::new(10, 0, 0, 7)), ..CARD };
        let later = Address { nic: 1, mac: MacAddr([2, 0, 0, 0, 0, 9]), ..CARD };
        standby.begin_epoch(Epoch(1), checkpoint(&[other]));
        assert_eq!(standby.addresses().addresses(), [CARD, other]);
        standby.begin_epoch(Epoch(2), checkpoint(&[later]));
        assert_eq!(standby.addresses().addresses(), [CARD, later]);
    }

    #[test]
    fn an_address_that_another_host_claims_is_not_announced_not_even_a_specified_one() {
        let mut standby = Standby::default();
        standby.add_address(CARD);
        standby.begin_epoch(Epoch(1), checkpoint(&[CARD]));
        let claim = NetFrame { nic: 0, frame: gratuitous_arp(CLIENT_MAC, GUEST) };
        standby.handle_input(Epoch(1), false, vec![claim]);
        assert_eq!(standby.next_input(0).len(), 1);
        let without = Address { ipv4: None, ..CARD };
        assert_eq!(standby.addresses().addresses(), [without]);
        standby.begin_epoch(Epoch(2), checkpoint(&[without]));
        assert_eq!(standby.addresses().addresses(), [without]);
        // Until the guest claims it again.
        standby.handle_output(NetFrame { nic: 0, frame: gratuitous_arp(GUEST_MAC, GUEST) });
        assert_eq!(standby.addresses().addresses(), [CARD]);
    }

    /// Those whose packets the guest forwards go on having their addresses after a failover.
    #[test]
    fn a_router_announces_only_itself() {
        let mut standby = Standby::default();
        let mut primary = AddressBook::default();
        for host in [7, 8] {
            let mut forwarded = udp(1, 2, b"forwarded").to_vec();
            forwarded[26..30].copy_from_slice(&[192, 168, 7, host]);
            primary.learn(0, &forwarded);
            standby.begin_epoch(Epoch(host.into()), checkpoint(&primary.claims()));
        }
        primary.learn(0, &gratuitous_arp(GUEST_MAC, GUEST));
        standby.begin_epoch(Epoch(9), checkpoint(&primary.claims()));
        assert_eq!(standby.addresses().addresses(), [CARD]);
    }
}
