//! Who may begin a session, and who may not.

use crate::machine::{ModelHost, machine, spec};
use crate::rig::{PATIENCE, Setup, Watch, start_primary};
use colo_core::domain::DomainSpec;
use colo_core::net::Port;
use colo_core::net::memory::pair;
use colo_core::peer::{FrameDecoder, FrameEncoder, MAJOR_VERSION, MINOR_VERSION, Message};
use colo_core::session::{
    Event, Outcome, PrimarySession, SecondarySession, SecondarySessionConfig, SessionError, inquire,
};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn listen(hypervisor: &'static str) -> (SecondarySession, crate::machine::HostView) {
    let (host, view) = ModelHost::new(hypervisor);
    (SecondarySession::listen("127.0.0.1:0", Box::new(host), SecondarySessionConfig::default()).unwrap(), view)
}

fn error_of(address: &str) -> SessionError {
    match start_primary(address, Setup::colo().primary) {
        Ok(_) => panic!("the session began"),
        Err(not_started) => {
            assert_eq!(not_started.lans.len(), 1);
            not_started.error
        }
    }
}

/// A primary finds its way to that secondary, and is protected.
fn is_protected(secondary: &SecondarySession) {
    let address = secondary.local_addr().to_string();
    let (primary, _pvm, _client) = start_primary(&address, Setup::colo().primary).map_err(|e| e.error).unwrap();
    Watch::new(primary.events()).find(|event| matches!(event, Event::Protected(_)));
    primary.controller().stop();
    assert_eq!(primary.wait(), Outcome::Stopped);
}

/// Given up only when the test says so.
struct Slow(Sender<()>, Receiver<()>);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
        self.1.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn the_end_is_told_when_the_host_has_put_everything_back() {
    let ((begins, begun), (done, is_done)) = (bounded(1), bounded(1));
    let host = ModelHost::new("model").0.holding(Slow(begins, is_done));
    let secondary = SecondarySession::listen("127.0.0.1:0", Box::new(host), SecondarySessionConfig::default()).unwrap();
    secondary.controller().stop();
    begun.recv_timeout(PATIENCE).unwrap();
    let told: Vec<Event> = secondary.events().try_iter().collect();
    assert!(!told.iter().any(|event| matches!(event, Event::Ended(_))), "{told:?}");
    done.send(()).unwrap();
    Watch::new(secondary.events()).find(|event| matches!(event, Event::Ended(Outcome::Stopped)));
}

#[test]
fn another_hypervisor_is_refused() {
    let (secondary, _view) = listen("another");
    let error = error_of(&secondary.local_addr().to_string());
    let SessionError::Refused { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(reason, "this host runs another, domain web needs model");
    secondary.controller().stop();
    assert_eq!(secondary.wait(), Outcome::Stopped);
}

#[test]
fn a_machine_that_was_refused_is_as_it_was() {
    let (refusing, _view) = listen("another");
    let (willing, view) = listen("model");
    let (machine, pvm) = machine(spec());
    pvm.store(0, b"precious");
    let lans: Vec<Box<dyn Port>> = vec![Box::new(pair(8).unwrap().0)];
    let address = refusing.local_addr().to_string();
    let Err(refused) = PrimarySession::start(machine, lans, &address, Setup::colo().primary) else {
        panic!("the session began");
    };
    assert!(!pvm.is_destroyed());
    let address = willing.local_addr().to_string();
    let again = PrimarySession::start(refused.machine, refused.lans, &address, Setup::colo().primary);
    let again = again.map_err(|refused| refused.error).unwrap();
    Watch::new(again.events()).find(|event| matches!(event, Event::Protected(_)));
    Watch::new(willing.events()).applied();
    assert_eq!(&view.guest().ram()[..8], b"precious");
}

#[test]
fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = error_of(&address);
    assert!(matches!(error, SessionError::Peer { .. }), "{error}");
}

#[test]
fn a_listener_that_closes_at_once_is_no_secondary() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let closing = std::thread::spawn(move || drop(listener.accept()));
    let error = error_of(&address);
    assert!(matches!(error, SessionError::Peer { .. }), "{error}");
    closing.join().unwrap();
}

#[test]
fn a_listener_that_says_nothing_is_no_secondary() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = error_of(&listener.local_addr().unwrap().to_string());
    assert!(matches!(error, SessionError::Greeting { .. }), "{error}");
}

#[test]
fn garbage_does_not_end_the_listener() {
    let (secondary, _view) = listen("model");
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0; 4096], &[0xff; 64], b"x"] {
        let mut socket = TcpStream::connect(secondary.local_addr()).unwrap();
        // The listener may have closed before all was sent.
        let _ = socket.write_all(garbage);
    }
    is_protected(&secondary);
    secondary.controller().stop();
    assert_eq!(secondary.wait(), Outcome::Stopped);
}

#[test]
fn another_version_is_told_which_one_is_spoken_here() {
    let (secondary, _view) = listen("model");
    let mut question = Vec::new();
    FrameEncoder::new().encode(&Message::Inquiry(spec()), &mut question).unwrap();
    question[4] += 1;
    let mut socket = TcpStream::connect(secondary.local_addr()).unwrap();
    socket.write_all(&question).unwrap();
    let mut decoder = FrameDecoder::new();
    let answer = loop {
        decoder.read_from(&mut socket).unwrap();
        if let Some(answer) = decoder.next_message().unwrap() {
            break answer;
        }
    };
    let Message::Refused(why) = answer else { panic!("{answer:?}") };
    let theirs = format!("{}.{MINOR_VERSION}", MAJOR_VERSION + 1);
    assert!(why.contains(&theirs) && why.contains(&format!("{MAJOR_VERSION}.{MINOR_VERSION}")), "{why}");
    secondary.controller().stop();
    assert_eq!(secondary.wait(), Outcome::Stopped);
}

/// More of them than the time that a primary waits for its greeting would allow to be served one after the other.
#[test]
fn peers_that_say_nothing_do_not_keep_a_primary_out() {
    let (secondary, _view) = listen("model");
    let silent: Vec<_> = (0..5).map(|_| TcpStream::connect(secondary.local_addr()).unwrap()).collect();
    is_protected(&secondary);
    drop(silent);
}

#[test]
fn a_session_that_listens_can_be_stopped_though_somebody_says_nothing() {
    let (secondary, _view) = listen("model");
    let _silent = TcpStream::connect(secondary.local_addr()).unwrap();
    secondary.controller().stop();
    assert_eq!(secondary.wait(), Outcome::Stopped);
}

#[test]
fn a_question_is_answered_and_nothing_is_begun() {
    let (secondary, _view) = listen("model");
    let address = secondary.local_addr().to_string();
    for config in ["", "as it was asked"] {
        let spec = DomainSpec { config: config.into(), ..spec() };
        let answer = inquire(&address, &spec).unwrap();
        let expected = [("name", "web"), ("config", config)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(answer.facts, expected);
        // The clock is the same: what lies between is the way of the answer, on a machine that may be busy.
        assert!(answer.clock_ahead_ns.unsigned_abs() < Duration::from_secs(60).as_nanos(), "{answer:?}");
    }
    is_protected(&secondary);
    secondary.controller().stop();
    assert_eq!(secondary.wait(), Outcome::Stopped);
}

#[test]
fn a_question_that_has_no_answer_is_told_why() {
    let (secondary, _view) = listen("model");
    let address = secondary.local_addr().to_string();
    let refused = |spec: &DomainSpec| match inquire(&address, spec) {
        Err(SessionError::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let other = DomainSpec { hypervisor: "another".into(), ..spec() };
    assert_eq!(refused(&other), "this host runs model, domain web needs another");
    let unreadable = DomainSpec { config: vec![0xff], ..spec() };
    assert!(refused(&unreadable).starts_with("cannot make this domain: "));
    let endless = DomainSpec { config: vec![b'x'; 10_000], ..spec() };
    assert!(refused(&endless).contains("too long: fact: 10000, but the limit is"));
    is_protected(&secondary);
}
