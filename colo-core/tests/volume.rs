//! Disks on files, and deaths at any moment: a process that is killed, and a file that fails.

#[path = "support/folder.rs"]
mod folder;

use colo_core::disk::Backend;
use colo_core::disk::{Change, StoreConfig, Volume, VolumeDisk, VolumeError};
use colo_core::ids::Epoch;
use folder::Folder;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

const DISKS: u8 = 2;
const SIZE: u64 = 1 << 20;
const KILLS: u64 = 12;
/// What makes this test's program the one that is killed.
const WRITER: &str = "COLO_VOLUME_WRITER";

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn disks(folder: &Path) -> Vec<File> {
    (0..DISKS).map(|disk| open(&folder.join(format!("disk{disk}")))).collect()
}

fn config() -> StoreConfig {
    StoreConfig {
        memory_bytes: 256 << 10,
        long_bytes: 16 << 10,
        pending_bytes: 64 << 20,
        fold_bytes: 128 << 10,
        segment_bytes: 64 << 10,
        journal_bytes: 1 << 20,
        is_shared: false,
    }
}

/// What an epoch changes: always the same for its number.
fn changes(epoch: Epoch) -> Vec<(u8, Range<u64>, u8)> {
    let mut state = epoch.0;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (0..20)
        .map(|_| {
            let start = next() % SIZE;
            ((next() % u64::from(DISKS)) as u8, start..(start + 1 + next() % 40_000).min(SIZE), next() as u8)
        })
        .collect()
}

fn apply(model: &mut [Vec<u8>], epoch: Epoch) {
    for (disk, range, value) in changes(epoch) {
        let value = if value % 8 == 0 { 0 } else { value };
        model[usize::from(disk)][range.start as usize..range.end as usize].fill(value);
    }
}

fn write_epoch(volume: &Volume, epoch: Epoch) {
    for (disk, range, value) in changes(epoch) {
        let bytes = (range.end - range.start) as usize;
        let change =
            if value % 8 == 0 { Change::Zeroes { may_unmap: value % 16 == 0 } } else { vec![value; bytes].into() };
        volume.write(disk, range, change).unwrap();
    }
    volume.barrier(epoch).unwrap();
    volume.commit(epoch).unwrap();
}

/// The process that is killed: writes epoch after epoch, and says which are durable.
fn write_for_ever(folder: &Path) -> ! {
    let journal = open(&folder.join("journal"));
    let volume = match journal.metadata().unwrap().len() {
        0 => Volume::create(config(), journal, disks(folder), Epoch::NONE).unwrap(),
        _ => Volume::recover(config(), journal, disks(folder)).unwrap(),
    };
    println!("durable {}", volume.durable_epoch().0);
    for epoch in volume.epoch().0 + 1.. {
        write_epoch(&volume, Epoch(epoch));
        if epoch % 3 == 0 {
            volume.wait_durable().unwrap();
        }
        println!("durable {}", volume.durable_epoch().0);
    }
    unreachable!("there are epochs enough");
}

/// Not a test: what the next one runs, and kills.
#[test]
fn writer() {
    if let Some(folder) = std::env::var_os(WRITER) {
        write_for_ever(Path::new(&folder));
    }
}

#[test]
fn after_a_kill_all_disks_are_at_one_epoch() {
    let folder = Folder::new();
    disks(&folder.0).iter().for_each(|disk| disk.set_len(SIZE).unwrap());
    let mut model: Vec<Vec<u8>> = vec![vec![0; SIZE as usize]; usize::from(DISKS)];
    let mut at = Epoch::NONE;
    for kill in 0..KILLS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(WRITER, &folder.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
        let durable = |line: String| line.strip_prefix("durable ")?.parse::<u64>().ok();
        // At another place each time, and in the midst of whatever it does then.
        let mut promised = lines.by_ref().filter_map(durable).take(2 + (kill * 7 % 23) as usize).last().unwrap();
        writer.kill().unwrap();
        writer.wait().unwrap();
        promised = lines.filter_map(durable).last().unwrap_or(promised);

        let volume = Volume::recover(config(), open(&folder.0.join("journal")), disks(&folder.0)).unwrap();
        let epoch = volume.epoch();
        assert!(epoch.0 >= promised, "{epoch}, but {promised} was promised");
        (at.0 + 1..=epoch.0).for_each(|epoch| apply(&mut model, Epoch(epoch)));
        at = epoch;
        for disk in 0..DISKS {
            let mut bytes = vec![0; SIZE as usize];
            volume.read(disk, 0, &mut bytes).unwrap();
            assert!(bytes == model[usize::from(disk)], "disk {disk} is not at {epoch}");
        }
    }
    assert!(at.0 > KILLS, "it has got on");
}

#[test]
fn a_guests_disk_before_and_after_its_primary_is_lost() {
    let folder = Folder::new();
    let files = disks(&folder.0);
    files.iter().for_each(|disk| disk.set_len(SIZE).unwrap());
    let journal = open(&folder.0.join("journal"));
    let volume = Arc::new(Volume::create(config(), journal, files, Epoch::NONE).unwrap());
    let disk = VolumeDisk::new(volume.clone(), 1);
    let read = |offset| {
        let mut bytes = [0; 4];
        disk.read(offset, &mut bytes).unwrap();
        bytes
    };
    disk.write(0, b"mine").unwrap();
    volume.write(1, 0..4, b"prim".to_vec().into()).unwrap();
    assert_eq!(&read(0), b"mine");
    volume.barrier(Epoch(1)).unwrap();
    volume.commit(Epoch(1)).unwrap();
    assert_eq!(&read(0), b"prim", "it was thrown away");
    disk.write(2, b"own").unwrap();
    volume.write(1, 0..4, b"lost".to_vec().into()).unwrap();
    volume.barrier(Epoch(2)).unwrap();

    volume.fail_over().unwrap();
    assert_eq!((&read(0), &read(1)), (b"prow", b"rown"));
    disk.write(8, b"more").unwrap();
    disk.flush().unwrap();
    assert!(matches!(volume.write(1, 0..1, vec![1].into()), Err(VolumeError::Store(_))), "there is no primary");
    drop((disk, volume));

    let journal = open(&folder.0.join("journal"));
    let volume = Volume::recover(config(), journal, disks(&folder.0)).unwrap();
    let mut bytes = [0; 12];
    volume.read(1, 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"prown\0\0\0more");
}

#[test]
fn a_file_that_fails_ends_it_all() {
    let folder = Folder::new();
    open(&folder.0.join("disk")).set_len(SIZE).unwrap();
    // Nothing can be written to it.
    let disk = File::open(folder.0.join("disk")).unwrap();
    let volume = Volume::create(config(), open(&folder.0.join("journal")), vec![disk], Epoch::NONE).unwrap();
    volume.write(0, 0..10, vec![1; 10].into()).unwrap();
    volume.barrier(Epoch(1)).unwrap();
    volume.commit(Epoch(1)).unwrap();
    // What is durable in the journal is written to the disk by and by.
    while volume.wait_durable().is_ok() {
        std::thread::yield_now();
    }
    assert!(matches!(volume.barrier(Epoch(2)), Err(VolumeError::Failed(_))));
    assert!(matches!(volume.wait_durable(), Err(VolumeError::Failed(_))));
    assert!(matches!(volume.read(0, 0, &mut [0; 1]), Err(VolumeError::Failed(_))));
}
