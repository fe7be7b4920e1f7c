//! The primary's disk fails: the guest is not told while there is a secondary whose disk can take over.

use crate::{PATIENCE, Rig, SIZE, channels};
use colo_core::disk::{
    Backend, DiskError, DiskEvent, DiskState, PrimaryDisks, SecondaryDisks, TapConfig, TapDisk, VerifyEvent,
};
use crossbeam_channel::{Receiver, unbounded};

type Done = Result<(), DiskError>;

type Request = fn(&TapDisk) -> Done;

const REQUESTS: [(&str, Request); 4] = [
    ("write to", |disk| disk.write(70_000, &[9; 512])),
    ("write to", |disk| disk.write_zeroes(70_000, 512, true)),
    ("flush of", |disk| disk.flush()),
    ("read from", |disk| disk.read(70_000, &mut [0; 512])),
];

impl Rig {
    /// Has a guest's thread do that. What it is answered is to be heard there.
    fn request(&self, request: fn(&TapDisk) -> Done) -> Receiver<Done> {
        let (sender, done) = unbounded();
        let disk = self.tap.disk(0);
        std::thread::spawn(move || sender.send(request(&disk)));
        done
    }

    fn failed(&self) -> String {
        match self.wait(|event| matches!(event, DiskEvent::Failed(_))) {
            DiskEvent::Failed(why) => why,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_guest_hears_of_it_when_there_is_no_secondary_any_more() {
    for (what, request) in REQUESTS {
        let mut rig = Rig::new(TapConfig::default());
        rig.protect();
        let before = rig.guest_bytes();
        rig.disk.fail(usize::MAX);
        let first = rig.request(request);
        let why = rig.failed();
        assert_eq!(why, format!("a {what} disk 0 failed on this host: the disk has failed"));
        // Another one fares no better, and is not told again.
        let second = rig.request(request);
        // Neither a checkpoint nor anything else waits for them.
        rig.checkpoint();
        assert_eq!(rig.tap.status().state, DiskState::InStep);
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        rig.tap.detach();
        for done in [first, second] {
            assert_eq!(done.recv_timeout(PATIENCE).unwrap(), Err(DiskError::Io));
        }
        let more: Vec<_> = rig.events.try_iter().collect();
        assert!(more.is_empty(), "{more:?}");
        assert_eq!(rig.tap.status().state, DiskState::Alone(Some(why)));
        rig.replica().fail_over().unwrap();
        assert!(rig.guest_bytes() == before, "what failed was sent");
        // And the next is protected again.
        assert_eq!(request(&rig.tap.disk(0)), Err(DiskError::Io));
        rig.disk.fail(0);
        assert_eq!(request(&rig.tap.disk(0)), Ok(()));
    }
}

#[test]
fn the_guest_hears_of_it_when_the_secondary_is_lost() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.disk.fail(1);
    let done = rig.request(|disk| disk.write(0, b"fails"));
    rig.failed();
    rig.replica = None;
    assert_eq!(done.recv_timeout(PATIENCE).unwrap(), Err(DiskError::Io));
    rig.wait(|event| matches!(event, DiskEvent::Lost(_)));
}

#[test]
fn before_there_is_anything_to_take_over_from_the_guest_hears_of_it_at_once() {
    let mut rig = Rig::new(TapConfig::default());
    // A secondary that is asked for what it has, and does not answer.
    let (primary, _secondary) = channels();
    let (sender, events) = unbounded();
    rig.events = events;
    rig.tap.attach(primary, Box::new(move |event| drop(sender.send(event)))).unwrap();
    rig.disk.fail(3);
    let disk = rig.tap.disk(0);
    assert_eq!(disk.read(0, &mut [0; 8]), Err(DiskError::Io));
    assert_eq!(disk.flush(), Err(DiskError::Io));
    assert_eq!(disk.write(0, b"fails"), Err(DiskError::Io));
    let why = "a write to disk 0 failed on this host";
    assert_eq!(rig.events.recv_timeout(PATIENCE).unwrap(), DiskEvent::Lost(why.into()));
    assert_eq!(rig.tap.status().state, DiskState::Alone(Some(why.into())));
}

#[test]
fn a_read_that_fails_is_tried_once_more() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.disk.fail(1);
    let mut bytes = [0; 8];
    rig.tap.disk(0).read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 8]);
    rig.disk.fail(2);
    let done = rig.request(|disk| disk.read(0, &mut [0; 8]));
    rig.failed();
    rig.tap.detach();
    assert_eq!(done.recv_timeout(PATIENCE).unwrap(), Err(DiskError::Io));
}

#[test]
fn what_the_guest_waits_for_is_not_in_the_way_of_others() {
    let mut rig = Rig::new(TapConfig::default());
    rig.protect();
    rig.disk.fail(1);
    let done = rig.request(|disk| disk.write(0, &[9; 512]));
    rig.failed();
    // All of it, also where that was to be written.
    let (sender, events) = unbounded();
    let verification = rig.tap.verify(Box::new(move |event| drop(sender.send(event)))).unwrap();
    let compared = loop {
        if let VerifyEvent::Ended(compared) = events.recv_timeout(PATIENCE).expect("an event") {
            break compared.unwrap();
        }
    };
    assert_eq!((compared.compared_bytes, compared.differing_parts), (SIZE, 0));
    drop(verification);
    rig.write(0..512, 7);
    rig.checkpoint();
    assert!(done.try_recv().is_err());
    rig.tap.detach();
    assert_eq!(done.recv_timeout(PATIENCE).unwrap(), Err(DiskError::Io));
    assert!(rig.primary_bytes() == rig.settled_bytes());
}
