//! Starting, stopping, ending; sizes; what is refused.

use crate::programs::{CONTROL, DATA, caller, echo, elf, walker, wide_counter};
use crate::support::{DEADLINE, TestVm, pfn_of, small_config};
use colo_core::domain::{Control, DirtyBitmap, DirtyLog, DomainError, Host, MAX_BATCH_PAGES, Pages, RunState, State};
use colo_core::ids::{PAGE_SIZE, Pfn};
use colo_core::net::Port;
use colo_embedded::abi::{HYPERCALL_CONSOLE, HYPERCALL_SHUTDOWN, IMAGE_BASE, RAM_BASE};
use colo_embedded::machine::{EmbeddedConfig, EmbeddedDomain, EmbeddedHost};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn survives_being_stopped_at_any_instruction() {
    let mut vm = TestVm::boot(&walker());
    vm.poke(CONTROL + 8, &[u64::MAX]);
    stop_200_times(&mut vm);
}

#[test]
fn keeps_wide_registers_through_stops() {
    if !std::arch::is_x86_feature_detected!("avx") {
        eprintln!("this processor has no registers wider than 128 bits");
        return;
    }
    stop_200_times(&mut TestVm::boot(&wide_counter()));
}

/// Stops a counting guest again and again; it goes on from where it was each time, and not while it is stopped.
fn stop_200_times(vm: &mut TestVm) {
    let mut last = 0;
    for round in 0..200 {
        vm.domain.resume().unwrap();
        assert_eq!(vm.domain.run_state(), RunState::Running);
        if round % 2 == 0 {
            vm.wait_until(|vm| vm.peek(CONTROL + 16) > last);
        }
        vm.domain.suspend().unwrap();
        assert_eq!(vm.domain.run_state(), RunState::Suspended);
        let count = vm.peek(CONTROL + 16);
        assert!(count >= last);
        let state = vm.domain.save_state().unwrap();
        vm.domain.load_state(&state).unwrap();
        assert_eq!(vm.peek(CONTROL + 16), count);
        last = count;
    }
}

#[test]
fn suspend_and_resume_may_be_repeated() {
    let mut vm = TestVm::boot(&caller());
    vm.domain.suspend().unwrap();
    vm.domain.resume().unwrap();
    vm.domain.resume().unwrap();
    vm.domain.suspend().unwrap();
    vm.domain.suspend().unwrap();
    assert_eq!(vm.domain.run_state(), RunState::Suspended);
}

#[test]
fn a_signal_from_outside_does_not_harm_the_guest() {
    let mut vm = TestVm::boot(&echo());
    vm.domain.resume().unwrap();
    for signal in ["-USR1", "-TERM", "-SEGV", "-STOP", "-TSTP", "-CONT", "-INT"] {
        let killed = Command::new("kill").args([signal, &vm.domain.pid().to_string()]).status().unwrap();
        assert!(killed.success());
        vm.port.send(&[b"are you there?".to_vec().into()]).unwrap();
        assert_eq!(vm.receive().unwrap().len(), 1, "after {signal}");
    }
}

#[test]
fn writes_to_its_console() {
    let mut vm = TestVm::boot(&caller());
    vm.poke(DATA, &[u64::from_le_bytes(*b"hello, c"), u64::from_le_bytes(*b"onsole!\n")]);
    vm.run_once(1, &[HYPERCALL_CONSOLE, DATA, 16]);
    assert_eq!(vm.peek(CONTROL + 48), 0);
    assert_eq!(vm.domain.console(), ["hello, console!"]);
    for (address, len) in [(DATA, 4097), (RAM_BASE - 1, 2), (RAM_BASE + (16 << 20) - 1, 2), (u64::MAX, 2), (0, 1)] {
        vm.run_once(1, &[HYPERCALL_CONSOLE, address, len]);
        assert!((vm.peek(CONTROL + 48) as i64) < 0, "{len} bytes at {address:#x}");
    }
    assert_eq!(vm.domain.console(), ["hello, console!"]);
}

#[test]
fn a_domain_that_shuts_down_is_no_crash() {
    let mut vm = TestVm::boot(&caller());
    vm.poke(CONTROL, &[1, HYPERCALL_SHUTDOWN, 0]);
    vm.domain.resume().unwrap();
    assert_eq!(vm.wait_until_ended(), RunState::ShutDown);
    assert!(vm.is_readable(DEADLINE));
    let error = vm.receive().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(matches!(vm.domain.suspend(), Err(DomainError::NotRunning(_))));
    assert!(matches!(vm.domain.resume(), Err(DomainError::NotRunning(_))));
    assert!(matches!(vm.domain.save_state(), Err(DomainError::NotRunning(_))));
    vm.domain.destroy();
    assert_eq!(vm.domain.run_state(), RunState::ShutDown);
}

#[test]
fn crashes_are_reported_with_their_place() {
    // ud2; a load from 0; a division by 0; int3; a system call of 32-bit programs; a jump out of memory
    let crashes: [(&[u8], &str, u64); 6] = [
        (&[0x0F, 0x0B], "illegal instruction", 0),
        (&[0x31, 0xC0, 0x8B, 0x00], "bad address (0x0)", 2),
        (&[0x31, 0xC9, 0xF7, 0xF1], "arithmetic error", 2),
        (&[0xCC], "breakpoint", 1),
        (&[0xCD, 0x80], "forbidden system call", 2),
        (&[0xE9, 0x00, 0x00, 0x00, 0x80], "bad address", 0u64.wrapping_sub(0x8000_0000) + 5),
    ];
    for (code, what, offset) in crashes {
        let mut vm = TestVm::boot(&elf(code));
        vm.domain.resume().unwrap();
        assert_eq!(vm.wait_until_ended(), RunState::Crashed, "{what}");
        let report = vm.domain.end_report().unwrap();
        assert!(report.reason.contains(what), "{}", report.reason);
        assert_eq!(report.rip, Some(IMAGE_BASE.wrapping_add(offset)), "{what}");
    }
}

#[test]
fn system_calls_outside_the_contract_end_the_guest() {
    let event = RAM_BASE + 0x1000;
    // getpid; a write to another file; a futex on another word; a wake; open; another clock; execve; restart_syscall
    let calls = [
        [39, 0, 0, 0],
        [1, 1, DATA, 8],
        [202, event + 4, 0, 0],
        [202, event, 1, 1],
        [2, DATA, 0, 0],
        [228, 0, DATA, 0],
        [59, DATA, 0, 0],
        [219, 0, 0, 0],
    ];
    for [number, a, b, c] in calls {
        let mut vm = TestVm::boot(&caller());
        vm.poke(CONTROL, &[1, number, a, b, c]);
        vm.domain.resume().unwrap();
        assert_eq!(vm.wait_until_ended(), RunState::Crashed, "call {number}");
        assert!(vm.domain.end_report().unwrap().reason.contains(&format!("system call {number}")));
    }
}

#[test]
fn giving_up_is_a_crash() {
    let mut vm = TestVm::boot(&caller());
    vm.poke(CONTROL, &[1, HYPERCALL_SHUTDOWN, 3]);
    vm.domain.resume().unwrap();
    assert_eq!(vm.wait_until_ended(), RunState::Crashed);
    assert!(vm.domain.end_report().unwrap().reason.contains("code 3"));
}

#[test]
fn a_destroyed_domain_does_nothing_more() {
    for running in [false, true] {
        let mut vm = TestVm::boot(&echo());
        if running {
            vm.domain.resume().unwrap();
            vm.port.send(&[b"a last question".to_vec().into()]).unwrap();
        }
        let pid = vm.domain.pid();
        vm.domain.destroy();
        vm.domain.destroy();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        assert!(vm.port.receive(&mut Vec::new()).is_err());
        assert!(vm.port.send(&[]).is_err());
        assert!(vm.domain.resume().is_err());
    }
}

#[test]
fn has_nothing_in_its_process_but_its_memory() {
    let vm = TestVm::boot(&caller());
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", vm.domain.pid())).unwrap();
    let mut others: Vec<&str> = maps.lines().filter(|line| !line.contains("colo-guest-ram")).collect();
    // What is the kernel's own, and cannot write to anything.
    others.retain(|line| !line.ends_with("[vsyscall]") && !line.contains("[vvar") && !line.ends_with("[vdso]"));
    assert_eq!(others, [""; 0]);
    let files = std::fs::read_dir(format!("/proc/{}/fd", vm.domain.pid())).unwrap();
    for file in files {
        let target = std::fs::read_link(file.unwrap().path()).unwrap();
        assert!(target.to_string_lossy().contains("anon_inode:"), "{target:?}");
    }
}

#[test]
fn makes_domains_of_all_sizes_without_filling_them() {
    for ram_bytes in [16 << 20, 4 << 30] {
        let config = EmbeddedConfig { ram_bytes, ..small_config() };
        let (domain, port) = EmbeddedDomain::boot_program(&config, &caller()).unwrap();
        let mut vm = TestVm { domain, port };
        vm.domain.enable_dirty_log().unwrap();
        vm.run_once(1, &[HYPERCALL_CONSOLE, DATA, 0]);
        let pfn_limit = ram_bytes / PAGE_SIZE as u64;
        let last = Pfn(pfn_limit - 1);
        vm.domain.write_pages(&[last], &[1; PAGE_SIZE]).unwrap();
        assert_eq!(vm.page(last), [1; PAGE_SIZE]);
        let populated = vm.populated();
        assert!(populated.contains(last) && populated.count() < 20, "{}", populated.count());
        // Reading takes no memory, and neither does writing what is there.
        let mut buffer = vec![0; MAX_BATCH_PAGES * PAGE_SIZE];
        for first in (0..pfn_limit).step_by(MAX_BATCH_PAGES) {
            let pfns: Vec<Pfn> = (first..first + MAX_BATCH_PAGES as u64).map(Pfn).collect();
            vm.domain.read_pages(&pfns, &mut buffer).unwrap();
            vm.domain.write_pages(&pfns, &buffer).unwrap();
        }
        assert_eq!(vm.populated(), populated);
    }
}

#[test]
fn refuses_batches_that_do_not_fit() {
    let mut vm = TestVm::boot(&caller());
    let pfn_limit = vm.domain.spec().pfn_limit;
    let mut page = vec![0; PAGE_SIZE];
    for pfn in [pfn_limit, u64::MAX / PAGE_SIZE as u64, u64::MAX] {
        let read = vm.domain.read_pages(&[Pfn(pfn)], &mut page);
        assert!(matches!(read, Err(DomainError::PfnOutOfRange { .. })), "{read:?}");
        let write = vm.domain.write_pages(&[Pfn(pfn)], &page);
        assert!(matches!(write, Err(DomainError::PfnOutOfRange { .. })), "{write:?}");
    }
    assert!(matches!(vm.domain.read_pages(&[Pfn(0), Pfn(1)], &mut page), Err(DomainError::BadBatch { .. })));
    assert!(matches!(vm.domain.write_pages(&[Pfn(0)], &page[1..]), Err(DomainError::BadBatch { .. })));
    let many = vec![Pfn(0); MAX_BATCH_PAGES + 1];
    let mut buffer = vec![0; many.len() * PAGE_SIZE];
    assert!(matches!(vm.domain.read_pages(&many, &mut buffer), Err(DomainError::BadBatch { .. })));
    // One bad page spoils the batch: none is written.
    let data = [vec![7; PAGE_SIZE], vec![7; PAGE_SIZE]].concat();
    assert!(vm.domain.write_pages(&[pfn_of(DATA), Pfn(pfn_limit)], &data).is_err());
    assert_eq!(vm.page(pfn_of(DATA)), [0; PAGE_SIZE]);
    assert!(vm.domain.populated(&mut DirtyBitmap::new(1)).is_err());
    vm.domain.resume().unwrap();
    assert!(matches!(vm.domain.write_pages(&[Pfn(9)], &page), Err(DomainError::NotSuspended(_))));
    assert!(matches!(vm.domain.save_state(), Err(DomainError::NotSuspended(_))));
}

#[test]
fn a_host_makes_an_empty_machine_to_a_specification() {
    let spec = small_config().to_spec().unwrap();
    let mut host = EmbeddedHost::new("/nonexistent/switch");
    assert_eq!(host.hypervisor(), spec.hypervisor);
    let machine = host.create(&spec).unwrap();
    assert_eq!(machine.domain.run_state(), RunState::Suspended);
    assert_eq!(machine.domain.spec(), &spec);
    assert_eq!(machine.nics.len(), 1);
    let mut populated = DirtyBitmap::new(spec.pfn_limit);
    machine.domain.populated(&mut populated).unwrap();
    assert!(populated.is_empty());
    assert!(matches!(host.open_lan(&spec, 0), Err(DomainError::Sys { .. })));
    assert!(matches!(host.open_lan(&spec, 1), Err(DomainError::BadSpec(_))));
}

/// No test by itself: the monitor that `a_guest_dies_with_its_monitor` kills.
#[test]
#[ignore = "a process for another test"]
fn monitor_to_be_killed() {
    let mut vm = TestVm::boot(&caller());
    vm.domain.resume().unwrap();
    println!("guest {}", vm.domain.pid());
    vm.wait_until_ended();
}

#[test]
fn a_guest_dies_with_its_monitor() {
    let mut monitor = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::monitor_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let pid = lines.find_map(|line| line.unwrap().split_once("guest ").map(|(_, pid)| pid.parse().unwrap())).unwrap();
    let guest = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let timeout = Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
    let dead = poll(&mut [PollFd::new(&guest, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(dead, 1, "the guest lives on");
}
