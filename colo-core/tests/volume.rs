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
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const DISKS: u8 = 2;
const SIZE: u64 = 1 << 20;
const KILLS: u64 = 12;
/// A part of each disk for each of a guest's threads.
const PART: usize = 8192;
const THREADS: u8 = 4;
/// What makes this test's program the one that is killed.
const WRITER: &str = "COLO_VOLUME_WRITER";
const SERVER: &str = "COLO_VOLUME_SERVER";

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
        behind_bytes: 1 << 20,
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

/// The same after a takeover: each thread of the guest counts in its part, and says what it was told. Nothing is flushed.
fn serve_for_ever(folder: &Path) -> ! {
    let journal = open(&folder.join("journal"));
    let volume = match journal.metadata().unwrap().len() {
        0 => Volume::create(config(), journal, disks(folder), Epoch::NONE).unwrap(),
        _ => Volume::recover(config(), journal, disks(folder)).unwrap(),
    };
    let volume = Arc::new(volume);
    if !volume.serves() {
        for thread in 0..THREADS {
            write_part(&volume, thread, 1);
        }
        volume.fail_over().unwrap();
        (0..THREADS).for_each(|thread| println!("told {thread} 1"));
    }
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let volume = volume.clone();
            std::thread::spawn(move || {
                // What may be there in part comes first.
                for number in read_part(&volume, thread).into_iter().max().unwrap().. {
                    write_part(&volume, thread, number);
                    println!("told {thread} {number}");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    unreachable!("there are numbers enough");
}

fn write_part(volume: &Volume, thread: u8, number: u64) {
    let (offset, bytes) = (u64::from(thread) * PART as u64, number.to_le_bytes().repeat(PART / 8));
    volume.write_guest(thread % DISKS, offset..offset + PART as u64, bytes.into()).unwrap();
}

fn read_part(volume: &Volume, thread: u8) -> Vec<u64> {
    let mut bytes = vec![0; PART];
    volume.read(thread % DISKS, u64::from(thread) * PART as u64, &mut bytes).unwrap();
    bytes.chunks(8).map(|number| u64::from_le_bytes(number.try_into().unwrap())).collect()
}

/// Not a test: what others run, and kill.
#[test]
fn writer() {
    if let Some(folder) = std::env::var_os(WRITER) {
        write_for_ever(Path::new(&folder));
    }
    if let Some(folder) = std::env::var_os(SERVER) {
        serve_for_ever(Path::new(&folder));
    }
}

/// This program once more, as one of these.
fn run(what: &str, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "writer", "--nocapture"]).env(what, folder).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn after_a_kill_all_disks_are_at_one_epoch() {
    let folder = Folder::new();
    disks(&folder.0).iter().for_each(|disk| disk.set_len(SIZE).unwrap());
    let mut model: Vec<Vec<u8>> = vec![vec![0; SIZE as usize]; usize::from(DISKS)];
    let mut at = Epoch::NONE;
    for kill in 0..KILLS {
        let mut writer = run(WRITER, &folder.0);
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
fn a_guest_that_serves_loses_nothing_with_the_process_that_has_its_disk() {
    let folder = Folder::new();
    disks(&folder.0).iter().for_each(|disk| disk.set_len(SIZE).unwrap());
    let mut told = [0; THREADS as usize];
    for kill in 0..KILLS {
        let mut server = run(SERVER, &folder.0);
        let mut hear = |line: String| {
            let (thread, number) = line.strip_prefix("told ")?.split_once(' ')?;
            told[thread.parse::<usize>().ok()?] = number.parse::<u64>().ok()?;
            Some(())
        };
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
        let some = 4 + (kill * 37 % 200) as usize;
        assert_eq!(lines.by_ref().filter_map(&mut hear).take(some).count(), some);
        server.kill().unwrap();
        server.wait().unwrap();
        lines.filter_map(hear).for_each(drop);

        let volume = Volume::recover(config(), open(&folder.0.join("journal")), disks(&folder.0)).unwrap();
        assert!(volume.serves());
        for thread in 0..THREADS {
            let (found, told) = (read_part(&volume, thread), told[usize::from(thread)]);
            // One more may be there, or a part of it, of which nobody has been told.
            assert!(found.iter().all(|number| (told..=told + 1).contains(number)), "{told}, but there is {found:?}");
        }
    }
    assert!(told.iter().sum::<u64>() > 1000, "they have got on: {told:?}");
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
