//! A protected machine whose disk fails: nobody waits for the request, which is not done, and is done anew.

use crate::disk::{DISK_BYTES, TestDisk, all_done, poke_requests, request, status};
use crate::programs::{DATA, caller};
use crate::support::TestVm;
use colo_core::disk::{DiskEvent, PrimaryDisks, Replica, ReplicaConfig, SecondaryDisks, StoreConfig, Tap, TapConfig};
use colo_core::domain::Control;
use colo_core::ids::Epoch;
use colo_core::peer::StateChannel;
use colo_embedded::abi::{DISK_OK, DISK_WRITE};
use colo_embedded::machine::{DirtyLogChoice, GatedTap};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A secondary for a machine's disk, which holds zeroes as that does.
fn secondary() -> (Replica, StateChannel) {
    let folder = std::env::temp_dir().join(format!("colo-failing-disk-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (disk, journal) = (folder.join("disk"), folder.join("journal"));
    std::fs::File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    let config = ReplicaConfig { disks: vec![disk], journal, store: StoreConfig::default() };
    let mut replica = Replica::open(config).unwrap();
    // It has them open.
    std::fs::remove_dir_all(&folder).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let primary = StateChannel::connect(&address, PATIENCE, Instant::now() + PATIENCE).unwrap();
    replica.attach(StateChannel::new(listener.accept().unwrap().0, PATIENCE).unwrap()).unwrap();
    (replica, primary)
}

fn wait_for(events: &Receiver<DiskEvent>, is_awaited: impl Fn(&DiskEvent) -> bool) {
    while !is_awaited(&events.recv_timeout(PATIENCE).expect("an event")) {}
}

#[test]
fn a_request_that_fails_while_the_other_side_can_take_over_holds_nobody_up_and_is_done_anew() {
    let disk = TestDisk::new();
    let tap = Tap::new(vec![(disk.clone(), DISK_BYTES)], TapConfig::default());
    let mut vm = TestVm::boot_with_disk(&caller(), DISK_BYTES, Arc::new(tap.disk(0)), DirtyLogChoice::Auto);
    let mut gated = GatedTap::new(vm.domain.disk_gate().unwrap(), tap);
    let (mut replica, channel) = secondary();
    let (sender, events) = mpsc::channel();
    gated.attach(channel, Box::new(move |event| drop(sender.send(event)))).unwrap();
    wait_for(&events, |event| *event == DiskEvent::InStep);
    gated.freeze();
    gated.barrier(Epoch(1));
    gated.thaw();

    vm.poke(DATA, &[99]);
    poke_requests(&mut vm, &[request(DISK_WRITE, 3, 1, DATA), request(DISK_WRITE, 4, 1, DATA)]);
    disk.fails.store(true, SeqCst);
    vm.domain.resume().unwrap();
    wait_for(&events, |event| matches!(event, DiskEvent::Failed(_)));
    // A checkpoint has the request as one that is not done, and so does the guest that goes on after it.
    gated.freeze();
    vm.domain.suspend().unwrap();
    gated.barrier(Epoch(2));
    assert!(replica.wait_barrier(Epoch(2), Instant::now() + PATIENCE));
    vm.domain.resume().unwrap();
    gated.thaw();
    assert!(!all_done(&vm));
    vm.domain.suspend().unwrap();
    // Not even its failure is told to a guest that stands still.
    gated.detach();
    assert_eq!((status(&vm, 0), status(&vm, 1)), (0xAAAA_AAAA, 0xAAAA_AAAA));
    vm.domain.resume().unwrap();
    vm.wait_until(all_done);
    assert!([status(&vm, 0), status(&vm, 1)].iter().all(|status| ![DISK_OK, 0xAAAA_AAAA].contains(status)));
    // Once, and then each of them anew.
    assert_eq!(disk.failures.load(SeqCst), 3);
}
