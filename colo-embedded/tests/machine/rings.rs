//! The network card.

use crate::programs::{CONTROL, caller, echo, scribbler};
use crate::support::{DEADLINE, TestVm};
use colo_core::domain::{Control, RunState};
use colo_core::net::{Frame, MAX_BATCH_FRAMES, Port};
use colo_embedded::abi::{HYPERCALL_SHUTDOWN, MAX_SLOT_FRAME_BYTES, RAM_BASE, RING_SLOTS, TX_RING_OFFSET};
use std::time::Duration;

const SHARED: u64 = RAM_BASE + 0x1000;
/// Offsets of pairs of words in it.
const TX_WAKE_AND_FULL: u64 = SHARED + 8;
const RX_POSITIONS: u64 = SHARED + 16;
const TX_POSITIONS: u64 = SHARED + 24;

fn frame(index: usize) -> Frame {
    let len = 14 + index * 7 % 1500;
    Frame::from((0..len).map(|at| (at + index) as u8).collect::<Vec<u8>>())
}

/// Two 32-bit words as the 64-bit word that `poke` writes.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[test]
fn frames_come_back_in_order() {
    let mut vm = TestVm::boot(&echo());
    vm.domain.resume().unwrap();
    let frames: Vec<Frame> = (0..5000).map(frame).collect();
    let (mut sent, mut received) = (0, Vec::new());
    while received.len() < frames.len() {
        sent += vm.port.send(&frames[sent..frames.len().min(sent + 300)]).unwrap();
        received.extend(vm.receive().unwrap());
    }
    assert_eq!(received, frames);
}

#[test]
fn a_sleeping_guest_is_woken_and_a_sleeping_host_as_well() {
    let mut vm = TestVm::boot(&echo());
    vm.domain.resume().unwrap();
    for index in 0..50 {
        vm.wait_until_asleep();
        assert_eq!(vm.port.receive(&mut Vec::new()).unwrap(), 0);
        assert!(!vm.is_readable(Duration::ZERO));
        vm.port.send(&[frame(index)]).unwrap();
        assert_eq!(vm.receive().unwrap(), [frame(index)]);
    }
}

#[test]
fn a_full_ring_takes_no_more_and_goes_on_when_there_is_room() {
    let mut vm = TestVm::boot(&echo());
    vm.domain.resume().unwrap();
    // Nobody takes what comes back, so both rings fill: the guest finds no room, and sleeps.
    let frames: Vec<Frame> = (0..2000).map(frame).collect();
    let mut sent = 0;
    while sent < 2 * RING_SLOTS as usize {
        sent += vm.port.send(&frames[sent..]).unwrap();
    }
    assert_eq!(vm.port.send(&frames[sent..]).unwrap(), 0);
    vm.wait_until_asleep();
    let mut received = Vec::new();
    assert_eq!(vm.port.receive(&mut received).unwrap(), MAX_BATCH_FRAMES);
    while received.len() < sent {
        received.extend(vm.receive().unwrap());
    }
    assert_eq!(received, frames[..sent]);
}

#[test]
fn a_suspended_machine_neither_hears_nor_speaks() {
    let mut vm = TestVm::boot(&echo());
    vm.domain.resume().unwrap();
    vm.port.send(&[frame(1)]).unwrap();
    vm.wait_until(|vm| vm.peek(TX_POSITIONS) as u32 == 1);
    vm.domain.suspend().unwrap();
    let mut before = TestVm::empty();
    before.become_copy_of(&mut vm);
    assert_eq!(vm.port.receive(&mut Vec::new()).unwrap(), 0);
    assert_eq!(vm.port.send(&[frame(2)]).unwrap(), 0);
    assert_eq!(vm.differing_pages(&before), []);
    // Both have the frame that was not taken.
    for vm in [&mut vm, &mut before] {
        vm.domain.resume().unwrap();
        assert!(vm.is_readable(DEADLINE));
        assert_eq!(vm.receive().unwrap(), [frame(1)]);
    }
}

#[test]
fn positions_wrap_around() {
    let mut vm = TestVm::boot(&echo());
    vm.poke(RX_POSITIONS, &[pair(u32::MAX - 3, u32::MAX - 3)]);
    vm.poke(TX_POSITIONS, &[pair(u32::MAX - 1, u32::MAX - 1)]);
    vm.domain.resume().unwrap();
    for index in 0..10 {
        vm.port.send(&[frame(index)]).unwrap();
        assert_eq!(vm.receive().unwrap(), [frame(index)]);
    }
}

#[test]
fn frames_of_impossible_length_are_dropped() {
    let mut vm = TestVm::boot(&echo());
    vm.domain.resume().unwrap();
    let longest = Frame::from(vec![5; MAX_SLOT_FRAME_BYTES]);
    let too_long = Frame::from(vec![6; MAX_SLOT_FRAME_BYTES + 1]);
    assert_eq!(vm.port.send(&[too_long.clone(), longest.clone(), too_long]).unwrap(), 3);
    assert_eq!(vm.receive().unwrap(), [longest]);

    let mut vm = TestVm::boot(&caller());
    let lengths = [0, 13, 2045, u32::MAX, 14, 2044];
    for (slot, len) in lengths.iter().enumerate() {
        vm.poke(RAM_BASE + TX_RING_OFFSET + slot as u64 * 2048, &[u64::from(*len)]);
    }
    vm.poke(TX_POSITIONS, &[pair(lengths.len() as u32, 0)]);
    vm.domain.resume().unwrap();
    let lengths: Vec<usize> = vm.receive().unwrap().iter().map(|frame| frame.len()).collect();
    assert_eq!(lengths, [14, 2044]);
}

#[test]
fn positions_of_nonsense_do_no_harm() {
    let mut vm = TestVm::boot(&caller());
    for (produced, consumed) in [(RING_SLOTS + 1, 0), (0, 1), (5, 1 << 31), (u32::MAX, RING_SLOTS)] {
        vm.poke(TX_POSITIONS, &[pair(produced, consumed)]);
        vm.poke(RX_POSITIONS, &[pair(produced, consumed)]);
        vm.domain.resume().unwrap();
        let mut frames = Vec::new();
        assert_eq!(vm.port.receive(&mut frames).unwrap(), 0);
        assert_eq!(vm.port.send(&[frame(1)]).unwrap(), 0, "no room");
        vm.domain.suspend().unwrap();
        assert_eq!(vm.peek(TX_POSITIONS), pair(produced, produced), "what was there is dropped");
    }
}

#[test]
fn a_ring_of_nonsense_keeps_nobody_and_rings_on() {
    let mut vm = TestVm::boot(&caller());
    // 512 slots without a frame, and the host asks for the doorbell in vain.
    vm.poke(TX_POSITIONS, &[pair(RING_SLOTS, 0)]);
    vm.poke(TX_WAKE_AND_FULL, &[0]);
    vm.domain.resume().unwrap();
    let mut looks = 0;
    while vm.peek(TX_POSITIONS) != pair(RING_SLOTS, RING_SLOTS) {
        assert!(vm.is_readable(DEADLINE));
        assert_eq!(vm.port.receive(&mut Vec::new()).unwrap(), 0);
        looks += 1;
    }
    assert_eq!(looks, RING_SLOTS as usize / MAX_BATCH_FRAMES);
}

#[test]
fn a_guest_that_scribbles_everywhere_harms_nobody() {
    let mut vm = TestVm::boot(&scribbler());
    vm.domain.resume().unwrap();
    let (mut taken, mut rounds) = (0, 0);
    while vm.peek(CONTROL + 16) < 3_000_000 || rounds < 2000 {
        let mut frames = Vec::new();
        let count = vm.port.receive(&mut frames).unwrap();
        assert!(count == frames.len() && count <= MAX_BATCH_FRAMES);
        assert!(frames.iter().all(|frame| (14..=MAX_SLOT_FRAME_BYTES).contains(&frame.len())));
        taken += count;
        vm.port.send(&[frame(rounds)]).unwrap();
        if rounds % 64 == 0 {
            vm.domain.suspend().unwrap();
            vm.domain.resume().unwrap();
        }
        rounds += 1;
    }
    assert!(taken > 0, "the program did not send at all");
    assert_eq!(vm.domain.run_state(), RunState::Running);
}

#[test]
fn what_was_sent_before_the_end_is_handed_out() {
    let mut vm = TestVm::boot(&caller());
    vm.poke(RAM_BASE + TX_RING_OFFSET, &[20]);
    vm.poke(TX_POSITIONS, &[pair(1, 0)]);
    vm.poke(CONTROL, &[1, HYPERCALL_SHUTDOWN, 0]);
    vm.domain.resume().unwrap();
    vm.wait_until_ended();
    assert_eq!(vm.receive().unwrap().len(), 1);
    assert!(vm.is_readable(DEADLINE));
    assert_eq!(vm.receive().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}
