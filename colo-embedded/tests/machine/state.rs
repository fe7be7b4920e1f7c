//! A machine's state, moved to another.

use crate::programs::{CONTROL, DATA, caller, echo, walker};
use crate::support::TestVm;
use colo_core::domain::{Control, DomainError, RunState, State, StateRecord};
use colo_core::ids::Pfn;
use colo_core::net::Port;
use colo_embedded::machine::{EMBEDDED_DEVICES, EMBEDDED_VCPU};

/// Where the vCPU's record has `rax`.
const RAX: usize = 8 + 10 * 8;
/// The page that differs between machines by design: event counts and the clock's offset.
const SHARED: Pfn = Pfn(1);

#[test]
fn a_copy_goes_on_with_the_same_computation() {
    let mut original = TestVm::boot(&walker());
    original.poke(CONTROL + 8, &[20_000_000]);
    original.domain.resume().unwrap();
    original.wait_until(|vm| vm.peek(CONTROL + 16) > 1000);
    original.domain.suspend().unwrap();
    let mut copy = TestVm::empty();
    copy.become_copy_of(&mut original);
    for vm in [&mut original, &mut copy] {
        vm.domain.resume().unwrap();
    }
    for vm in [&original, &copy] {
        // In order only if vector and general registers agreed throughout.
        assert_eq!(vm.wait_until_ended(), RunState::ShutDown);
        assert_eq!(vm.peek(CONTROL + 16), 20_000_000);
    }
    let differing = original.differing_pages(&copy);
    assert!(differing.iter().all(|&pfn| pfn == SHARED), "{differing:?}");
}

#[test]
fn a_running_copy_is_put_back_again_and_again() {
    let mut original = TestVm::boot(&walker());
    original.poke(CONTROL + 8, &[u64::MAX]);
    let mut copy = TestVm::empty();
    for _ in 0..10 {
        original.domain.resume().unwrap();
        let before = original.peek(CONTROL + 16);
        original.wait_until(|vm| vm.peek(CONTROL + 16) > before + 10_000);
        original.domain.suspend().unwrap();
        copy.domain.suspend().unwrap();
        copy.become_copy_of(&mut original);
        copy.domain.resume().unwrap();
        let before = copy.peek(CONTROL + 16);
        copy.wait_until(|vm| vm.peek(CONTROL + 16) > before);
    }
    assert_eq!(original.domain.run_state(), RunState::Suspended);
    assert_eq!(copy.domain.run_state(), RunState::Running);
}

#[test]
fn an_interrupted_sleep_ends_alike_on_both_sides() {
    // Without a time-out, and with one of 1000 s: the kernel would restart the two in different ways.
    for timeout in [0, CONTROL + 64] {
        let mut original = TestVm::boot(&echo());
        original.poke(CONTROL + 8, &[timeout]);
        original.poke(CONTROL + 64, &[1000, 0]);
        original.domain.resume().unwrap();
        original.wait_until_asleep();
        original.domain.suspend().unwrap();

        let state = original.domain.save_state().unwrap();
        let rax = i64::from_le_bytes(*state[0].body[RAX..].first_chunk().unwrap());
        assert_eq!(rax, -4, "EINTR");

        let mut copy = TestVm::empty();
        copy.become_copy_of(&mut original);
        for vm in [&mut original, &mut copy] {
            vm.domain.resume().unwrap();
            vm.wait_until(|vm| vm.peek(CONTROL + 24) > 0);
            vm.port.send(&[b"wake up, machine".to_vec().into()]).unwrap();
            assert_eq!(vm.receive().unwrap(), [&b"wake up, machine"[..]]);
        }
    }
}

#[test]
fn a_copy_in_the_middle_of_a_hypercall_returns_from_it() {
    // The guest makes hypercalls all the time: many of the stops are in one.
    let mut original = TestVm::boot(&caller());
    let mut copy = TestVm::empty();
    for round in 0..100 {
        original.poke(CONTROL, &[1, colo_embedded::abi::HYPERCALL_CONSOLE, DATA, 0, 0, 0, 99]);
        original.domain.resume().unwrap();
        if round % 3 == 0 {
            original.wait_until(|vm| vm.peek(CONTROL + 48) == 0);
        }
        original.domain.suspend().unwrap();
        copy.domain.suspend().unwrap();
        copy.become_copy_of(&mut original);
        for vm in [&mut original, &mut copy] {
            vm.domain.resume().unwrap();
            vm.wait_until(|vm| vm.peek(CONTROL) == 0);
            assert_eq!(vm.peek(CONTROL + 48), 0);
        }
        original.domain.suspend().unwrap();
    }
}

#[test]
fn time_goes_on_from_where_it_was_saved() {
    let mut original = TestVm::boot(&caller());
    let before = guest_time(&mut original);
    let state = original.domain.save_state().unwrap();
    let saved = i64::from_le_bytes(*state[1].body[8..].first_chunk().unwrap());
    assert!(saved >= before);

    let mut copy = TestVm::empty();
    copy.become_copy_of(&mut original);
    assert_eq!(copy.domain.save_state().unwrap(), state, "not resumed yet: the same state");
    assert!(guest_time(&mut copy) >= saved);
    // Another host's clock: the guest's time is far from this host's.
    for far in [1_i64 << 60, -(1 << 60)] {
        let mut state = copy.domain.save_state().unwrap();
        state[1].body[8..].copy_from_slice(&far.to_le_bytes());
        copy.domain.load_state(&state).unwrap();
        let now = guest_time(&mut copy);
        assert!(now >= far && now < far + 600_000_000_000, "{far}: {now}");
        let later = guest_time(&mut copy);
        assert!(later >= now, "time goes on across a suspension");
    }
}

/// What the guest thinks the time is: the host's clock by a system call, and the offset in its memory.
fn guest_time(vm: &mut TestVm) -> i64 {
    vm.run_once(1, &[228, 1, DATA]);
    assert_eq!(vm.peek(CONTROL + 48), 0);
    let host = vm.peek(DATA) as i64 * 1_000_000_000 + vm.peek(DATA + 8) as i64;
    host + vm.peek(colo_embedded::abi::RAM_BASE + 0x1000 + 40) as i64
}

#[test]
fn refuses_state_that_is_not_its_own() {
    let mut vm = TestVm::boot(&caller());
    let good = vm.domain.save_state().unwrap();
    assert_eq!(good.iter().map(|record| record.kind).collect::<Vec<_>>(), [EMBEDDED_VCPU, EMBEDDED_DEVICES]);
    let mut longer = good.clone();
    longer[0].body.extend([0; 64]);
    let longer_xstate = u32::from_le_bytes(*longer[0].body[4..].first_chunk().unwrap()) + 64;
    longer[0].body[4..8].copy_from_slice(&longer_xstate.to_le_bytes());
    let mut later = good.clone();
    later[0].body[0] = 2;
    let mut features = good.clone();
    features[0].body[8 + 160 + 512 + 7] = 0x40;
    let bad: [Vec<StateRecord>; 5] = [Vec::new(), good[..1].to_vec(), longer, later, features];
    for state in bad {
        assert!(matches!(vm.domain.check_state(&state), Err(DomainError::BadState(_))));
        assert!(matches!(vm.domain.load_state(&state), Err(DomainError::BadState(_))));
    }
    assert_eq!(vm.domain.save_state().unwrap(), good, "nothing has changed");
    vm.domain.resume().unwrap();
    assert!(matches!(vm.domain.load_state(&good), Err(DomainError::NotSuspended(_))));
}
