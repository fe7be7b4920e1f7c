//! Sessions with a peer that does not behave: the test speaks the protocol itself.

use crate::machine::{Guest, ModelHost};
use crate::rig::{Setup, Watch, answer, deadline, start_primary, unprotected};
use colo_core::domain::RunState;
use colo_core::failover::{Fence, FenceError};
use colo_core::ids::Epoch;
use colo_core::peer::{Channel, GoodbyeReason, Hello, Message, Mode, NetChannel, Queued, StateChannel};
use colo_core::session::{
    Event, Outcome, PrimarySession, PrimarySessionConfig, SecondarySession, SecondarySessionConfig,
};
use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A session's other side, played by the test.
struct Fake {
    state: StateChannel,
    net: NetChannel,
}

impl Fake {
    fn say_on_net(&mut self, message: &Message) {
        assert_eq!(self.net.queue(message).unwrap(), Queued::Yes);
        self.net.flush().unwrap();
        assert!(!self.net.wants_write());
    }

    /// The next message on the state channel.
    fn next(&mut self) -> Message {
        self.state.recv(deadline()).unwrap().expect("a message in time")
    }

    /// Takes the stream until the end of an epoch.
    fn take_epoch(&mut self) -> Epoch {
        loop {
            if let Message::EpochEnd { epoch, .. } = self.next() {
                return epoch;
            }
        }
    }
}

/// A primary whose secondary is a fake.
fn with_fake_secondary(config: PrimarySessionConfig) -> (PrimarySession, Fake, Guest, crate::machine::End) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let greeting = std::thread::spawn(move || {
        let welcome = || {
            let mut channel = StateChannel::new(listener.accept().unwrap().0, PATIENCE).unwrap();
            assert!(matches!(channel.recv(deadline()).unwrap(), Some(Message::Hello(_))));
            channel.send(&Message::Welcome).unwrap();
            channel
        };
        Fake { state: welcome(), net: welcome().into_net() }
    });
    let (primary, pvm, client) = start_primary(&address, config).map_err(|e| e.error).unwrap();
    (primary, greeting.join().unwrap(), pvm, client)
}

/// A secondary whose primary is a fake.
fn with_fake_primary(heartbeat_ms: u32) -> (SecondarySession, Fake, Guest) {
    let (host, view) = ModelHost::new("model");
    let secondary = SecondarySession::listen("127.0.0.1:0", Box::new(host), SecondarySessionConfig::default()).unwrap();
    let open = |channel| {
        let address = secondary.local_addr().to_string();
        let mut connection = StateChannel::connect(&address, PATIENCE, deadline()).unwrap();
        let spec = crate::machine::spec();
        connection
            .send(&Message::Hello(Hello { channel, session: 7, mode: Mode::Colo, heartbeat_ms, rehearse: false, spec }))
            .unwrap();
        assert_eq!(connection.recv(deadline()).unwrap(), Some(Message::Welcome));
        connection
    };
    let fake = Fake { state: open(Channel::State), net: open(Channel::Net).into_net() };
    let svm = view.guest();
    (secondary, fake, svm)
}

#[test]
fn a_secondary_that_falls_silent_is_lost() {
    let mut config = Setup::colo().primary;
    config.heartbeat = Duration::from_millis(10);
    let (primary, _fake, mut pvm, mut client) = with_fake_secondary(config);
    let mut events = Watch::new(primary.events());
    assert_eq!(events.peer_lost(), "no heartbeat");
    unprotected(&mut events);
    pvm.say(&answer("alone"));
    assert_eq!(client.next(), answer("alone"));
    primary.controller().stop();
    assert_eq!(primary.wait(), Outcome::Stopped);
}

#[test]
fn a_primary_that_falls_silent_is_lost() {
    let heartbeat_ms = 10;
    let (secondary, _fake, svm) = with_fake_primary(heartbeat_ms);
    let mut events = Watch::new(secondary.events());
    assert_eq!(events.peer_lost(), "no heartbeat");
    unprotected(&mut events);
    assert!(svm.is_destroyed(), "it had no checkpoint to go on from");
}

#[test]
fn a_primary_that_hears_that_the_secondary_serves_stands_down() {
    let (primary, mut fake, mut pvm, mut client) = with_fake_secondary(Setup::colo().primary);
    let epoch = fake.take_epoch();
    fake.state.send(&Message::EpochStaged(epoch)).unwrap();
    fake.state.send(&Message::EpochApplied(epoch)).unwrap();
    Watch::new(primary.events()).find(|event| matches!(event, Event::Protected(_)));
    pvm.say(&answer("held"));
    fake.say_on_net(&Message::Goodbye(GoodbyeReason::Promoted));
    assert_eq!(primary.wait(), Outcome::StoodDown);
    assert!(pvm.is_destroyed());
    assert!(client.is_silent());
}

#[test]
fn a_secondary_that_acknowledges_what_was_not_sent_is_not_believed() {
    for wrong in [
        Message::EpochStaged(Epoch(2)),
        Message::EpochApplied(Epoch(1)),
        Message::HeldReleased(Epoch(1)),
        Message::Heartbeat { number: 0 },
    ] {
        let (primary, mut fake, pvm, _client) = with_fake_secondary(Setup::remus().primary);
        assert_eq!(fake.take_epoch(), Epoch(1));
        fake.state.send(&wrong).unwrap();
        let mut events = Watch::new(primary.events());
        let how = events.peer_lost();
        assert!(how.starts_with("the peer misbehaves: "), "{wrong:?}: {how}");
        unprotected(&mut events);
        assert!(!pvm.is_destroyed());
    }
}

#[test]
fn the_same_acknowledgement_twice_is_not_believed() {
    let (primary, mut fake, _pvm, _client) = with_fake_secondary(Setup::remus().primary);
    let epoch = fake.take_epoch();
    fake.state.send(&Message::EpochStaged(epoch)).unwrap();
    fake.state.send(&Message::EpochStaged(epoch)).unwrap();
    let how = Watch::new(primary.events()).peer_lost();
    assert!(how.starts_with("the peer misbehaves: "), "{how}");
}

#[test]
fn a_message_of_the_state_channel_on_the_net_channel_is_not_believed() {
    let (primary, mut fake, _pvm, _client) = with_fake_secondary(Setup::colo().primary);
    fake.say_on_net(&Message::EpochStaged(Epoch(1)));
    let how = Watch::new(primary.events()).peer_lost();
    assert!(how.starts_with("the peer misbehaves: "), "{how}");
}

#[test]
fn a_secondary_that_does_not_acknowledge_is_given_up() {
    let mut config = Setup::colo().primary;
    config.checkpoints.ack_timeout = Duration::from_millis(10);
    let (primary, mut fake, _pvm, _client) = with_fake_secondary(config);
    let why = unprotected(&mut Watch::new(primary.events()));
    assert!(why.contains("no acknowledgement of epoch 1"), "{why}");
    fake.take_epoch();
    assert!(matches!(fake.next(), Message::Goodbye(GoodbyeReason::Failed(_))), "it is told");
}

#[test]
fn a_stream_that_is_none_ends_the_session_and_not_the_host() {
    for wrong in [
        Message::Stream(vec![0; 4096].into()),
        Message::EpochEnd { epoch: Epoch(1), stream_bytes: 0, crc: 0 },
        Message::EpochEnd { epoch: Epoch(u64::MAX), stream_bytes: u64::MAX, crc: 1 },
        Message::EpochApplied(Epoch(1)),
        Message::Welcome,
    ] {
        let (secondary, mut fake, svm) = with_fake_primary(10_000);
        fake.state.send(&wrong).unwrap();
        unprotected(&mut Watch::new(secondary.events()));
        assert!(svm.is_destroyed());
        assert!(matches!(fake.next(), Message::Goodbye(GoodbyeReason::Failed(_))), "{wrong:?}");
        secondary.controller().stop();
        assert_eq!(secondary.wait(), Outcome::Stopped);
    }
}

#[test]
fn a_rehearsal_has_a_patience_of_its_own() {
    let mut config = Setup::colo().primary;
    config.checkpoints.rehearse = true;
    config.checkpoints.rehearsal_timeout = Duration::from_millis(10);
    let (primary, mut fake, _pvm, _client) = with_fake_secondary(config);
    assert_eq!(fake.take_epoch(), Epoch(1));
    fake.state.send(&Message::EpochStaged(Epoch(1))).unwrap();
    let why = unprotected(&mut Watch::new(primary.events()));
    assert!(why.contains("no acknowledgement of epoch 1"), "{why}");
}

/// Says whether it was called.
struct Counting(Sender<()>);

impl Fence for Counting {
    fn fence(&mut self) -> Result<(), FenceError> {
        let _ = self.0.send(());
        Ok(())
    }
}

/// A protected machine whose fence counts, and whose secondary is a fake.
fn protected_with_fence() -> (PrimarySession, Fake, Guest, Receiver<()>) {
    let (called, fenced) = unbounded();
    let mut config = Setup::colo().primary;
    config.fence = Some(Box::new(Counting(called)));
    let (primary, mut fake, pvm, _client) = with_fake_secondary(config);
    let epoch = fake.take_epoch();
    fake.state.send(&Message::EpochStaged(epoch)).unwrap();
    fake.state.send(&Message::EpochApplied(epoch)).unwrap();
    Watch::new(primary.events()).find(|event| matches!(event, Event::Protected(_)));
    (primary, fake, pvm, fenced)
}

/// Waits for the primary's goodbye on the net channel.
fn hear_goodbye(fake: &mut Fake) {
    let is_goodbye = |message: &Message| matches!(message, Message::Goodbye(_));
    let mut messages = Vec::new();
    while !messages.iter().any(is_goodbye) {
        let left = deadline().saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: 0 };
        let fd = fake.net.poll_fd();
        assert_eq!(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap(), 1, "a goodbye in time");
        fake.net.receive(&mut messages).unwrap();
    }
}

#[test]
fn a_secondary_that_hears_the_goodbye_need_not_be_fenced() {
    let (primary, mut fake, _pvm, fenced) = protected_with_fence();
    primary.controller().end_protection();
    hear_goodbye(&mut fake);
    drop(fake);
    assert_eq!(unprotected(&mut Watch::new(primary.events())), "protection was ended");
    assert!(fenced.is_empty());
}

#[test]
fn a_secondary_that_may_not_have_heard_the_goodbye_is_fenced() {
    let (primary, _fake, pvm, fenced) = protected_with_fence();
    primary.controller().end_protection();
    let why = unprotected(&mut Watch::new(primary.events()));
    assert!(why.contains("protection was ended"), "{why}");
    assert_eq!(fenced.len(), 1);
    assert_eq!(pvm.run_state(), RunState::Running);
}

#[test]
fn a_secondary_that_took_over_before_the_goodbye_came_serves_alone() {
    let (primary, mut fake, pvm, fenced) = protected_with_fence();
    primary.controller().end_protection();
    hear_goodbye(&mut fake);
    fake.say_on_net(&Message::Goodbye(GoodbyeReason::Promoted));
    Watch::new(primary.events()).find(|event| *event == Event::Ended(Outcome::StoodDown));
    assert!(pvm.is_destroyed() && fenced.is_empty());
}
