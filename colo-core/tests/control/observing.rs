//! Those who only ask: what disks are doing, and whether both hosts have the same.

use super::hostile::{hear, join, packet, send_with};
use super::rig::{PATIENCE, Rig, SIZE, channels};
use colo_core::disk::control::{Comparing, ControlError, ControlledPrimary, Observer};
use colo_core::disk::{
    Backend, Compared, CopyProgress, Difference, DiskEvent, DiskState, DiskStatus, PrimaryDisks, SecondaryDisks,
    TapConfig,
};
use colo_core::ids::Epoch;
use colo_core::peer::{FrameEncoder, Message, StateChannel};
use crossbeam_channel::{Receiver, unbounded};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

const PART: u64 = 64 << 10;

impl Rig {
    fn observer(&self, name: &str) -> Observer {
        Observer::connect(&self.path(name)).unwrap()
    }

    fn status(&self, name: &str) -> (bool, DiskStatus) {
        let reported = self.observer(name).status().unwrap();
        (reported.is_driven, reported.disks)
    }

    fn verify(&self) -> Result<Compared, ControlError> {
        self.observer("primary.control").verify(|_| {})
    }

    /// Both disks are full of ones before anything is copied.
    fn make_same(&self) {
        std::fs::write(self.path("secondary"), vec![1; SIZE as usize]).unwrap();
    }
}

#[test]
fn a_flipped_byte_is_found_where_it_is() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.guest.write(0, &[3; 100_000]).unwrap();
    rig.checkpoint();
    let equal = Compared { compared_bytes: SIZE, ..Compared::default() };
    assert_eq!(rig.verify().unwrap(), equal);
    let file = OpenOptions::new().write(true).open(rig.path("secondary")).unwrap();
    for at in [10 * PART + 7, 11 * PART, SIZE - 1] {
        file.write_all_at(&[9], at).unwrap();
    }
    let difference = |range| Difference { disk: 0, range, is_unreadable: false };
    let differences = vec![difference(10 * PART..12 * PART), difference(SIZE / PART * PART..SIZE)];
    let found = Compared { compared_bytes: SIZE, differing_parts: 3, differences };
    assert_eq!(rig.verify().unwrap(), found);
    // It was told, and not put right; and protection goes on.
    rig.guest.write(10 * PART, &[4; 2 * PART as usize]).unwrap();
    rig.guest.write(SIZE - PART, &[4; PART as usize]).unwrap();
    assert_eq!(rig.verify().unwrap(), equal, "what waits for its checkpoint is seen");
    rig.checkpoint();
    assert_eq!(rig.verify().unwrap(), equal);
}

#[test]
fn a_part_that_cannot_be_read_there_is_told_and_ends_nothing() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    OpenOptions::new().write(true).open(rig.path("secondary")).unwrap().set_len(20 * PART + 5).unwrap();
    let differences = vec![Difference { disk: 0, range: 20 * PART..SIZE, is_unreadable: true }];
    let parts = SIZE.div_ceil(PART) - 20;
    assert_eq!(rig.verify().unwrap(), Compared { compared_bytes: SIZE, differing_parts: parts, differences });
    rig.checkpoint();
}

/// A part is compared as it is at one place of what the primary says: writers that come back to the same few parts all the time, epochs that
/// end and count meanwhile, and what the secondary's own guest writes change nothing in that.
#[test]
fn nothing_is_found_while_guests_write_and_checkpoints_are_taken() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..3_u64 {
            let (disk, is_over) = (rig.guest.clone(), &is_over);
            scope.spawn(move || write_few_parts(&disk, seed, is_over));
        }
        let (own, is_over, mut observer) = (rig.own.clone(), &is_over, rig.observer("primary.control"));
        scope.spawn(move || write_few_parts(&own, 3, is_over));
        let comparing = scope.spawn(move || {
            let found = (0..20).map(|_| observer.verify(|_| {}).unwrap()).find(|compared| !compared.is_equal());
            is_over.store(true, Ordering::SeqCst);
            found
        });
        while !is_over.load(Ordering::SeqCst) {
            rig.checkpoint();
        }
        assert_eq!(comparing.join().unwrap(), None);
    });
    rig.checkpoint();
    assert!(rig.verify().unwrap().is_equal());
}

fn write_few_parts(disk: &dyn Backend, seed: u64, is_over: &AtomicBool) {
    let mut number = seed;
    while !is_over.load(Ordering::SeqCst) {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (offset, length) = ((number >> 40) % (3 * PART), 1 + (number >> 24) % 5000);
        match number >> 62 {
            0 => disk.write_zeroes(offset, length, true).unwrap(),
            _ => disk.write(offset, &vec![(number >> 32) as u8; length as usize]).unwrap(),
        }
    }
}

#[test]
fn a_comparison_ends_with_protection_and_there_is_one_at_a_time() {
    let mut rig = Rig::new(TapConfig { copy_bytes_per_second: PART, ..TapConfig::default() });
    rig.make_same();
    assert_eq!(rig.verify().unwrap_err().to_string(), "not protected: there is nothing to compare with");
    rig.protect();
    // It takes half a minute, or until somebody ends it.
    let (sender, began) = unbounded();
    let compare = |mut observer: Observer| {
        let sender = sender.clone();
        std::thread::spawn(move || observer.verify(|progress| sender.send(progress).unwrap_or_default()))
    };
    let comparing = compare(rig.observer("primary.control"));
    let first = Comparing { done_bytes: 0, all_bytes: SIZE, differing_parts: 0 };
    assert_eq!(began.recv_timeout(PATIENCE), Ok(first));
    assert_eq!(rig.verify().unwrap_err().to_string(), "another comparison is under way");
    rig.checkpoint();
    rig.primary().detach();
    let why = comparing.join().unwrap().unwrap_err();
    assert!(matches!(why, ControlError::NotProtected(_)), "{why}");
    assert_eq!(why.to_string(), "not protected any more: there is nothing to compare with");

    // One that goes ends its comparison, and the next may have one.
    rig.protect();
    let gone = join(&rig.path("primary.control"));
    send_with(&gone, &packet(50, 1, &[]), &[]);
    assert_eq!(hear(&gone)[1], 68);
    drop(gone);
    let comparing = compare(rig.observer("primary.control"));
    assert_eq!(began.recv_timeout(PATIENCE), Ok(first));
    // The server ends, and whatever goes on there.
    drop(rig.primary_server.take());
    assert!(comparing.join().unwrap().is_err());
    let why = rig.observer("secondary.control").verify(|_| {}).unwrap_err();
    assert!(matches!(why, ControlError::NotCompared(_)), "{why}");
}

#[test]
fn what_disks_are_doing_is_told_whoever_drives_them() {
    let mut rig = Rig::new(TapConfig { pending_bytes: 1 << 20, ..TapConfig::default() });
    let alone = |limit_bytes| DiskStatus {
        state: DiskState::Alone(None),
        epoch: Epoch::NONE,
        whole_epoch: Epoch::NONE,
        waiting_bytes: 0,
        limit_bytes,
        journal_bytes: 0,
    };
    assert_eq!(rig.status("primary.control"), (true, alone(1 << 20)));
    assert_eq!(rig.status("secondary.control"), (true, alone(1 << 30)));
    assert_eq!(rig.observer("secondary.control").sizes(), [SIZE]);

    // A secondary that takes its time.
    let (channel, silent) = channels();
    rig.primary().attach(channel, Box::new(|_| {})).unwrap();
    let DiskState::Copying(progress) = rig.status("primary.control").1.state else { panic!("no copy") };
    assert_eq!(progress, CopyProgress { took: progress.took, ..CopyProgress::default() });
    assert_eq!(rig.verify().unwrap_err().to_string(), "the first copy is under way: wait until it is over");
    let (channel, receiving) = channels();
    rig.secondary().attach(receiving).unwrap();
    assert_eq!(rig.status("secondary.control").1.state, DiskState::Receiving);
    drop((silent, channel));

    rig.protect();
    rig.guest.write(0, &[3; 4096]).unwrap();
    rig.stage();
    let (_, primary) = rig.status("primary.control");
    let in_step = DiskStatus { state: DiskState::InStep, epoch: Epoch(1), whole_epoch: Epoch(2), ..alone(1 << 20) };
    assert_eq!(primary, DiskStatus { waiting_bytes: 4096, ..in_step.clone() });
    let (_, secondary) = rig.status("secondary.control");
    assert!(secondary.journal_bytes >= 4096, "{secondary:?}");
    let journal_bytes = secondary.journal_bytes;
    assert_eq!(secondary, DiskStatus { waiting_bytes: 4096, limit_bytes: 1 << 30, journal_bytes, ..in_step.clone() });
    rig.apply();
    assert_eq!(rig.status("primary.control").1, DiskStatus { epoch: Epoch(2), ..in_step });

    rig.secondary = None;
    rig.wait(|event| matches!(event, DiskEvent::Lost(_)));
    let (_, primary) = rig.status("primary.control");
    assert!(matches!(&primary.state, DiskState::Alone(Some(why)) if why.starts_with("the secondary's disks: ")));
    rig.primary = None;
    assert!(!rig.status("primary.control").0);
    let (is_driven, secondary) = rig.status("secondary.control");
    assert_eq!((is_driven, secondary.state, secondary.epoch), (false, DiskState::Alone(None), Epoch(2)));
    rig.connect_secondary();
    rig.secondary().fail_over().unwrap();
    assert_eq!(rig.status("secondary.control").1.state, DiskState::Serving);
}

#[test]
fn those_who_ask_are_in_nobodys_way() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    let path = rig.path("primary.control");
    // More than there is room for, of which none says what it wants.
    let many: Vec<_> = (0..100).map(|_| join(&path)).collect();
    rig.checkpoint();
    assert!(matches!(ControlledPrimary::connect(&path), Err(ControlError::InUse(_))));
    assert!(rig.verify().unwrap().is_equal());
    drop(rig.primary.take());
    rig.connect_primary();
    drop(many);

    rig.protect();
    let mut observer = rig.observer("primary.control");
    // What only whoever drives may ask for, and what makes no sense: it is left, and has changed nothing.
    let lies = [packet(3, 1, &[]), packet(2, 1, &[]), packet(16, 1, &[0; 8]), packet(49, 2, &[]), packet(49, 1, &[0])];
    for lie in lies {
        let liar = join(&path);
        send_with(&liar, &lie, &[]);
        assert!(hear(&liar).is_empty(), "{lie:?}");
    }
    rig.checkpoint();
    assert_eq!(observer.status().unwrap().disks.epoch, Epoch(2));
    assert!(observer.verify(|_| {}).unwrap().is_equal(), "the same may ask again");
    assert_eq!(observer.status().unwrap().disks.state, DiskState::InStep);
}

/// A secondary of our own, full of ones, that speaks this minor version, and answers a comparison with that.
fn pretend(channel: StateChannel, minor: u8, answers: Vec<Message>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let handover = channel.into_handover().unwrap();
        let mut socket = handover.socket.try_clone().unwrap();
        let mut channel = StateChannel::from_handover(handover).unwrap();
        let mut encoder = FrameEncoder::new();
        // The greeting, which has been sent.
        encoder.encode(&Message::Welcome, &mut Vec::new()).unwrap();
        let mut say = |message: &Message| {
            let mut frame = Vec::new();
            encoder.encode(message, &mut frame).unwrap();
            frame[5] = minor;
            let crc = crc32c::crc32c(&[&frame[..20], &frame[24..]].concat());
            frame[20..24].copy_from_slice(&crc.to_le_bytes());
            // The other side may have left by now.
            let _ = socket.write_all(&frame);
        };
        while let Ok(Some(message)) = channel.recv(Instant::now() + PATIENCE) {
            match message {
                Message::DiskHashesWanted { disk, offset, length, seed } if u64::from(length) > PART => {
                    let ones = vec![1; length as usize];
                    let hash = |part| xxhash_rust::xxh3::xxh3_128_with_seed(part, seed);
                    say(&Message::DiskHashes { disk, offset, hashes: ones.chunks(PART as usize).map(hash).collect() });
                }
                Message::DiskHashesWanted { offset: 0, .. } => answers.iter().for_each(&mut say),
                _ => {}
            }
        }
    })
}

fn protect_with(rig: &mut Rig, minor: u8, answers: Vec<Message>) -> (JoinHandle<()>, Receiver<DiskEvent>) {
    let (channel, secondary) = channels();
    let pretending = pretend(secondary, minor, answers);
    let (sender, events) = unbounded();
    rig.primary().attach(channel, Box::new(move |event| drop(sender.send(event)))).unwrap();
    while events.recv_timeout(PATIENCE).expect("an event") != DiskEvent::InStep {}
    (pretending, events)
}

#[test]
fn a_secondary_of_an_older_release_is_not_asked() {
    let mut rig = Rig::new(TapConfig::default());
    let (pretending, events) = protect_with(&mut rig, 0, vec![]);
    let why = rig.verify().unwrap_err().to_string();
    assert!(why.starts_with("the other host runs an older release of colo"), "{why}");
    rig.primary().detach();
    pretending.join().unwrap();
    assert!(events.try_iter().all(|event| !matches!(event, DiskEvent::Lost(_))));
}

#[test]
fn a_secondary_that_lies_in_a_comparison_is_left() {
    let hashes = |offset, count| Message::DiskHashes { disk: 0, offset, hashes: vec![7; count] };
    for lie in [vec![hashes(PART, 1)], vec![hashes(0, 2)], vec![hashes(0, 1); 20]] {
        let mut rig = Rig::new(TapConfig::default());
        let (pretending, events) = protect_with(&mut rig, 1, lie.clone());
        let why = rig.verify().unwrap_err();
        assert!(matches!(why, ControlError::NotProtected(_)), "{lie:?}: {why}");
        let lost = events.iter().find(|event| matches!(event, DiskEvent::Lost(_)));
        let expected = "the secondary's disks answered what nobody asked";
        assert_eq!(lost, Some(DiskEvent::Lost(expected.into())));
        pretending.join().unwrap();
    }
}
