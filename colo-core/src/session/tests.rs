//! What needs a peer that acts at an exact moment of a net thread's turn: a port that is called in the middle of it.

use super::net_loop::{self, Nic, PORTION};
use super::primary_net::{Ends, PrimaryNetHandle};
use super::secondary_net::SecondaryNetHandle;
use super::{primary, secondary_net};
use crate::checkpoint::{PrimaryNet, SecondaryNet};
use crate::compare::CompareConfig;
use crate::domain::model::ModelDomain;
use crate::domain::{Control, DomainSpec};
use crate::failover::{Detector, Loss};
use crate::ids::Epoch;
use crate::net::gate::Gate;
use crate::net::memory::{MemoryPort, pair};
use crate::net::{Frame, Port};
use crate::peer::{
    Channel, GoodbyeReason, Hello, Message, Mode, NetChannel, NetFrame, Queued, ShutdownHandle, StateChannel,
};
use crate::stream::NetState;
use crossbeam_channel::bounded;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// One that is not lost in this test, and whose first heartbeat comes at once.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(60);

pub(super) fn connection() -> (StateChannel, StateChannel) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let other = listener.accept().unwrap().0;
    (StateChannel::new(one, PATIENCE).unwrap(), StateChannel::new(other, PATIENCE).unwrap())
}

fn state_channel() -> (ShutdownHandle, StateChannel) {
    let (ours, theirs) = connection();
    (ours.shutdown_handle().unwrap(), theirs)
}

/// What the peer has been sent of these, once there is some.
fn heard<T>(peer: &mut NetChannel, pick: impl Fn(Message) -> Option<T>) -> Vec<T> {
    let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let mut picked = Vec::new();
    while picked.is_empty() {
        assert_eq!(poll(&mut [PollFd::from_borrowed_fd(peer.poll_fd(), PollFlags::IN)], Some(&timeout)).unwrap(), 1);
        let mut messages = Vec::new();
        peer.receive(&mut messages).unwrap();
        picked.extend(messages.into_iter().filter_map(&pick));
    }
    picked
}

fn hello() -> Hello {
    Hello { channel: Channel::State, session: 1, mode: Mode::Colo, heartbeat_ms: 100, rehearse: false, spec: spec() }
}

fn spec() -> DomainSpec {
    ModelDomain::new("web", 1).spec().clone()
}

/// A port with one frame. Just before that is taken, the peer says goodbye, and closes its end with something unread in it: what
/// is sent to it from then on is answered with a reset.
struct LeavingPort {
    port: MemoryPort,
    peer: Option<NetChannel>,
}

impl LeavingPort {
    /// The port, and the other end, to be kept.
    fn over(peer: NetChannel) -> (Box<dyn Port>, MemoryPort) {
        let (mut other, port) = pair(8).unwrap();
        assert_eq!(other.send(&[Frame::from_static(&[0; 60])]).unwrap(), 1);
        (Box::new(LeavingPort { port, peer: Some(peer) }), other)
    }
}

impl Port for LeavingPort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.port.poll_fd()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        if let Some(mut peer) = self.peer.take() {
            let has_unread =
                poll(&mut [PollFd::from_borrowed_fd(peer.poll_fd(), PollFlags::IN)], Some(&Timespec::default()))?;
            if has_unread == 0 {
                self.peer = Some(peer);
                return Ok(0);
            }
            assert_eq!(peer.queue(&Message::Goodbye(GoodbyeReason::Stopped)).unwrap(), Queued::Yes);
            peer.flush().unwrap();
        }
        self.port.receive(frames)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        self.port.send(frames)
    }
}

#[test]
fn a_secondary_hears_a_goodbye_though_sending_fails_first() {
    let (ours, theirs) = connection();
    let (guest, _guest_end) = LeavingPort::over(theirs.into_net());
    let (shutdown, _state) = state_channel();
    let (alerts, alerted) = bounded(8);
    let mut net = SecondaryNetHandle::new(&hello(), vec![guest], ours.into_net(), shutdown, HEARTBEAT, alerts).unwrap();
    net.begin_epoch(Epoch::FIRST, Vec::new()).unwrap();
    let running = net.clone();
    let thread = std::thread::spawn(move || running.run().map_err(|error| error.to_string()));
    let alert = alerted.recv_timeout(PATIENCE).unwrap();
    net.stop();
    thread.join().unwrap().unwrap();
    // Taken for a broken connection, this would be a second server.
    assert!(matches!(alert, secondary_net::Alert::Lost(Loss::Goodbye(GoodbyeReason::Stopped))), "{alert:?}");
}

#[test]
fn a_primary_hears_a_goodbye_though_sending_fails_first() {
    let (ours, theirs) = connection();
    let (lan, _clients) = LeavingPort::over(theirs.into_net());
    let (_guest_end, guest) = pair(8).unwrap();
    let (shutdown, _state) = state_channel();
    let (alerts, alerted) = bounded(8);
    let gate = Gate::new(Mode::Colo, CompareConfig::default());
    let ends = Ends { nics: vec![Nic::new(Box::new(guest), Some(lan))], peer: ours.into_net(), state: shutdown };
    let mut net = PrimaryNetHandle::new(Mode::Colo, gate, ends, HEARTBEAT, alerts).unwrap();
    net.begin_epoch(Epoch::FIRST).unwrap();
    let running = net.clone();
    let thread = std::thread::spawn(move || running.run().map_err(|error| error.to_string()));
    let alert = alerted.recv_timeout(PATIENCE).unwrap();
    net.stop();
    thread.join().unwrap().unwrap();
    assert!(matches!(alert, primary::Alert::Lost(Loss::Goodbye(GoodbyeReason::Stopped))), "{alert:?}");
}

/// The peer says goodbye, and it has arrived.
fn says_goodbye(ours: &BorrowedFd<'_>, theirs: &mut NetChannel) {
    assert_eq!(theirs.queue(&Message::Goodbye(GoodbyeReason::Stopped)).unwrap(), Queued::Yes);
    theirs.flush().unwrap();
    let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::from_borrowed_fd(*ours, PollFlags::IN)], Some(&timeout)).unwrap(), 1);
}

#[test]
fn what_came_while_a_secondary_was_held_up_is_heard_before_it_is_alone() {
    let ((ours, theirs), (shutdown, _state), (alerts, alerted)) = (connection(), state_channel(), bounded(8));
    let (ours, mut theirs) = (ours.into_net(), theirs.into_net());
    let socket = ours.poll_fd().try_clone_to_owned().unwrap();
    let net = SecondaryNetHandle::new(&hello(), Vec::new(), ours, shutdown, HEARTBEAT, alerts).unwrap();
    let start = Instant::now();
    net.turn(start).unwrap();
    says_goodbye(&socket.as_fd(), &mut theirs);
    net.turn(start + 2 * HEARTBEAT * Detector::MISSED).unwrap();
    let alert = alerted.try_recv().unwrap();
    assert!(matches!(alert, secondary_net::Alert::Lost(Loss::Goodbye(GoodbyeReason::Stopped))), "{alert:?}");
}

#[test]
fn what_came_while_a_primary_was_held_up_is_heard_before_it_is_alone() {
    let ((ours, theirs), (shutdown, _state), (alerts, alerted)) = (connection(), state_channel(), bounded(8));
    let (ours, mut theirs) = (ours.into_net(), theirs.into_net());
    let socket = ours.poll_fd().try_clone_to_owned().unwrap();
    let gate = Gate::new(Mode::Colo, CompareConfig::default());
    let ends = Ends { nics: Vec::new(), peer: ours, state: shutdown };
    let net = PrimaryNetHandle::new(Mode::Colo, gate, ends, HEARTBEAT, alerts).unwrap();
    let start = Instant::now();
    net.turn(start).unwrap();
    says_goodbye(&socket.as_fd(), &mut theirs);
    net.turn(start + 2 * HEARTBEAT * Detector::MISSED).unwrap();
    let alert = alerted.try_recv().unwrap();
    assert!(matches!(alert, primary::Alert::Lost(Loss::Goodbye(GoodbyeReason::Stopped))), "{alert:?}");
}

/// A port whose frames have left the guest's memory.
struct OutsidePort(MemoryPort);

impl Port for OutsidePort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.0.poll_fd()
    }

    fn has_left_guest(&self) -> bool {
        true
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        self.0.receive(frames)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        self.0.send(frames)
    }
}

#[test]
fn what_has_left_the_guest_before_it_was_captured_is_of_the_ended_epoch() {
    let frame = Frame::from_static(&[7; 60]);
    // A ring in guest memory still has it: whoever gets a copy of that memory will say it.
    for (has_left, held) in [(true, vec![frame.clone()]), (false, Vec::new())] {
        let (mut guest_end, guest) = pair(8).unwrap();
        let guest: Box<dyn Port> = if has_left { Box::new(OutsidePort(guest)) } else { Box::new(guest) };
        let (ours, _theirs) = connection();
        let (shutdown, _state) = state_channel();
        let gate = Gate::new(Mode::Remus, CompareConfig::default());
        let ends = Ends { nics: vec![Nic::new(guest, None)], peer: ours.into_net(), state: shutdown };
        let mut net = PrimaryNetHandle::new(Mode::Remus, gate, ends, HEARTBEAT, bounded(8).0).unwrap();
        net.begin_epoch(Epoch::FIRST).unwrap();
        net.freeze().unwrap();
        assert_eq!(guest_end.send(std::slice::from_ref(&frame)).unwrap(), 1);
        let records = net.begin_epoch(Epoch(2)).unwrap();
        let state = NetState::from_records(&records).unwrap();
        assert_eq!(state.held.into_iter().map(|held| held.frame).collect::<Vec<_>>(), held, "has left: {has_left}");
    }
}

#[test]
fn a_secondary_that_was_stopped_has_said_nothing_yet_in_the_next_epoch() {
    let (mut guest_end, guest) = pair(8).unwrap();
    let (ours, theirs) = connection();
    let (shutdown, _state) = state_channel();
    let guest: Box<dyn Port> = Box::new(OutsidePort(guest));
    let mut net =
        SecondaryNetHandle::new(&hello(), vec![guest], ours.into_net(), shutdown, HEARTBEAT, bounded(8).0).unwrap();
    net.freeze().unwrap();
    assert_eq!(guest_end.send(&[Frame::from_static(&[1; 60])]).unwrap(), 1);
    net.forget_frames().unwrap();
    net.begin_epoch(Epoch::FIRST, Vec::new()).unwrap();
    assert_eq!(guest_end.send(&[Frame::from_static(&[2; 60])]).unwrap(), 1);
    let running = net.clone();
    let thread = std::thread::spawn(move || running.run().map_err(|error| error.to_string()));
    let mut peer = theirs.into_net();
    let said = heard(&mut peer, |message| match message {
        Message::Output { frames, .. } => Some(frames),
        _ => None,
    });
    net.stop();
    thread.join().unwrap().unwrap();
    assert_eq!(said.concat().iter().map(|said| said.frame[0]).collect::<Vec<_>>(), [2]);
}

#[test]
fn what_has_left_is_told_though_nothing_else_is_to_be_said() {
    let frame = Frame::from_static(&[7; 60]);
    let (mut guest_end, guest) = pair(8).unwrap();
    let (_clients, lan) = pair(8).unwrap();
    let (ours, theirs) = connection();
    let (shutdown, _state) = state_channel();
    let gate = Gate::new(Mode::Colo, CompareConfig::default());
    let nics = vec![Nic::new(Box::new(guest), Some(Box::new(lan)))];
    let ends = Ends { nics, peer: ours.into_net(), state: shutdown };
    let mut net = PrimaryNetHandle::new(Mode::Colo, gate, ends, HEARTBEAT, bounded(8).0).unwrap();
    net.begin_epoch(Epoch::FIRST).unwrap();
    net.commit(Epoch::FIRST).unwrap();
    net.applied(Epoch::FIRST).unwrap();
    let running = net.clone();
    let thread = std::thread::spawn(move || running.run().map_err(|error| error.to_string()));
    let mut peer = theirs.into_net();
    assert_eq!(guest_end.send(std::slice::from_ref(&frame)).unwrap(), 1);
    let frames = vec![NetFrame { nic: 0, frame }];
    assert_eq!(peer.queue(&Message::Output { epoch: Epoch::FIRST, first: 0, frames }).unwrap(), Queued::Yes);
    peer.flush().unwrap();
    let told = heard(&mut peer, |message| matches!(message, Message::Released { .. }).then_some(message));
    net.stop();
    thread.join().unwrap().unwrap();
    assert_eq!(told, [Message::Released { epoch: Epoch::FIRST, numbers: vec![0] }]);
}

/// A primary in lock-step, in its first epoch, whose one card has these two sides.
fn lock_step(guest: Box<dyn Port>, lan: MemoryPort, peer: NetChannel) -> PrimaryNetHandle {
    let gate = Gate::new(Mode::Colo, CompareConfig::default());
    let nics = vec![Nic::new(guest, Some(Box::new(lan)))];
    let ends = Ends { nics, peer, state: state_channel().0 };
    let mut net = PrimaryNetHandle::new(Mode::Colo, gate, ends, HEARTBEAT, bounded(8).0).unwrap();
    net.begin_epoch(Epoch::FIRST).unwrap();
    net
}

/// The input of which the secondary has been told, once there is some: in which epoch, and whether again.
fn told_input(peer: &mut NetChannel) -> Vec<(u64, bool, Vec<u8>)> {
    heard(peer, |message| match message {
        Message::Input { epoch, again, frames } => {
            Some((epoch.0, again, frames.iter().map(|one| one.frame[0]).collect()))
        }
        _ => None,
    })
}

/// The way to a guest that takes nothing.
struct FarPort {
    port: MemoryPort,
    /// What is on it.
    sent: Arc<Mutex<Vec<Frame>>>,
}

impl FarPort {
    fn over() -> (Box<dyn Port>, Arc<Mutex<Vec<Frame>>>) {
        let sent = Arc::default();
        (Box::new(FarPort { port: pair(1).unwrap().0, sent: Arc::clone(&sent) }), sent)
    }
}

impl Port for FarPort {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.port.poll_fd()
    }

    fn receive(&mut self, _: &mut Vec<Frame>) -> io::Result<usize> {
        Ok(0)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        self.sent.lock().unwrap().extend_from_slice(frames);
        Ok(frames.len())
    }

    fn take_back(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        let mut sent = self.sent.lock().unwrap();
        let count = sent.len();
        frames.append(&mut sent);
        Ok(count)
    }
}

/// A guest that looks at what the other host was told before it takes something.
struct LookingPort<L> {
    port: MemoryPort,
    peer: NetChannel,
    look: L,
}

impl<L: FnMut(&mut NetChannel, &[Frame]) + Send> Port for LookingPort<L> {
    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.port.poll_fd()
    }

    fn receive(&mut self, frames: &mut Vec<Frame>) -> io::Result<usize> {
        self.port.receive(frames)
    }

    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        (self.look)(&mut self.peer, frames);
        self.port.send(frames)
    }
}

#[test]
fn the_secondary_is_told_of_input_before_the_guest_has_it() {
    let ((mut guest_end, guest), (mut clients, lan)) = (pair(8).unwrap(), pair(8).unwrap());
    let (ours, theirs) = connection();
    let look = |peer: &mut NetChannel, frames: &[Frame]| {
        let given = frames.iter().map(|frame| frame[0]).collect();
        assert_eq!(told_input(peer), [(1, false, given)]);
    };
    let guest = Box::new(LookingPort { port: guest, peer: theirs.into_net(), look });
    let net = lock_step(guest, lan, ours.into_net());
    assert_eq!(clients.send(&[1, 2].map(|byte| Frame::from(vec![byte; 60]))).unwrap(), 2);
    net.turn(Instant::now()).unwrap();
    assert_eq!(guest_end.receive(&mut Vec::new()).unwrap(), 2);
}

/// On a busy host a guest takes the processor for what it is given.
#[test]
fn a_heartbeat_has_left_before_a_guest_is_given_anything() {
    let look = |peer: &mut NetChannel, _: &[Frame]| {
        // It is the first message, whatever follows.
        let messages = heard(peer, Some);
        assert!(matches!(messages[0], Message::Heartbeat { .. }), "{messages:?}");
    };
    for is_primary in [false, true] {
        let ((mut guest_end, guest), (mut clients, lan)) = (pair(8).unwrap(), pair(8).unwrap());
        let (ours, theirs) = connection();
        let (mut peer, frame) = (theirs.into_net(), Frame::from_static(&[1; 60]));
        if is_primary {
            let guest = Box::new(LookingPort { port: guest, peer, look });
            let net = lock_step(guest, lan, ours.into_net());
            assert_eq!(clients.send(&[frame]).unwrap(), 1);
            net.turn(Instant::now()).unwrap();
        } else {
            let frames = vec![NetFrame { nic: 0, frame }];
            assert_eq!(peer.queue(&Message::Input { epoch: Epoch::FIRST, again: false, frames }).unwrap(), Queued::Yes);
            peer.flush().unwrap();
            let guest = Box::new(LookingPort { port: guest, peer, look });
            let (shutdown, alerts) = (state_channel().0, bounded(8).0);
            let mut net =
                SecondaryNetHandle::new(&hello(), vec![guest], ours.into_net(), shutdown, HEARTBEAT, alerts).unwrap();
            net.begin_epoch(Epoch::FIRST, Vec::new()).unwrap();
            net.turn(Instant::now()).unwrap();
        }
        assert_eq!(guest_end.receive(&mut Vec::new()).unwrap(), 1, "primary: {is_primary}");
    }
}

#[test]
fn what_a_guest_has_not_taken_is_input_of_the_next_epoch_too() {
    let ((mut guest_end, guest), (mut clients, lan)) = (pair(1).unwrap(), pair(8).unwrap());
    let (ours, theirs) = connection();
    let (mut net, mut peer) = (lock_step(Box::new(guest), lan, ours.into_net()), theirs.into_net());
    let now = Instant::now();
    assert_eq!(clients.send(&[1, 2, 3].map(|byte| Frame::from(vec![byte; 60]))).unwrap(), 3);
    net.turn(now).unwrap();
    assert_eq!(told_input(&mut peer), [(1, false, vec![1, 2, 3])]);
    net.freeze().unwrap();
    net.begin_epoch(Epoch(2)).unwrap();
    assert_eq!(told_input(&mut peer), [(2, true, vec![2, 3])]);
    net.thaw().unwrap();
    let mut given = Vec::new();
    while given.len() < 3 {
        net.turn(now).unwrap();
        assert_eq!(guest_end.receive(&mut given).unwrap(), 1);
    }
    assert_eq!(given.iter().map(|frame| frame[0]).collect::<Vec<_>>(), [1, 2, 3]);
    // Each once: the next that is heard is what comes next.
    assert_eq!(clients.send(&[Frame::from(vec![4; 60])]).unwrap(), 1);
    let running = net.clone();
    let thread = std::thread::spawn(move || running.run().map_err(|error| error.to_string()));
    assert_eq!(told_input(&mut peer), [(2, false, vec![4])]);
    net.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn what_was_on_its_way_to_a_guest_is_given_to_it_again_and_told_so() {
    let ((guest, sent), (mut clients, lan)) = (FarPort::over(), pair(8).unwrap());
    let (ours, theirs) = connection();
    let (mut net, mut peer) = (lock_step(guest, lan, ours.into_net()), theirs.into_net());
    assert_eq!(clients.send(&[1, 2].map(|byte| Frame::from(vec![byte; 60]))).unwrap(), 2);
    net.turn(Instant::now()).unwrap();
    assert_eq!((told_input(&mut peer), sent.lock().unwrap().len()), (vec![(1, false, vec![1, 2])], 2));
    net.freeze().unwrap();
    net.begin_epoch(Epoch(2)).unwrap();
    assert_eq!((told_input(&mut peer), sent.lock().unwrap().len()), (vec![(2, true, vec![1, 2])], 0));
    net.thaw().unwrap();
    net.turn(Instant::now()).unwrap();
    assert_eq!(sent.lock().unwrap().iter().map(|frame| frame[0]).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_was_on_its_way_to_a_stopped_secondary_is_nothing_to_it() {
    let ((guest, sent), (ours, theirs)) = (FarPort::over(), connection());
    let (mut peer, shutdown) = (theirs.into_net(), state_channel().0);
    let mut net =
        SecondaryNetHandle::new(&hello(), vec![guest], ours.into_net(), shutdown, HEARTBEAT, bounded(8).0).unwrap();
    net.begin_epoch(Epoch::FIRST, Vec::new()).unwrap();
    let frames = vec![NetFrame { nic: 0, frame: Frame::from_static(&[1; 60]) }];
    assert_eq!(peer.queue(&Message::Input { epoch: Epoch::FIRST, again: false, frames }).unwrap(), Queued::Yes);
    peer.flush().unwrap();
    net.turn(Instant::now()).unwrap();
    assert_eq!(sent.lock().unwrap().len(), 1);
    net.freeze().unwrap();
    net.forget_frames().unwrap();
    assert_eq!(sent.lock().unwrap().len(), 0);
}

#[test]
fn the_net_thread_turns_as_long_as_something_moves_and_nobody_waits() {
    let lane = net_loop::Lane::new(());
    let held = lane.after_others().unwrap();
    let turns = |most: u32| {
        let mut turns = 0;
        let is_more = lane.turns(|| {
            turns += 1;
            turns < most
        });
        (turns, is_more)
    };
    assert_eq!(turns(3), (3, false));
    assert!(matches!(turns(u32::MAX), (2.., true)));
    std::thread::scope(|scope| {
        let engine = scope.spawn(|| drop(lane.first().unwrap()));
        let end = Instant::now() + PATIENCE;
        while turns(u32::MAX).0 > 1 {
            assert!(Instant::now() < end, "the engine waits");
            std::thread::yield_now();
        }
        drop(held);
        engine.join().unwrap();
    });
}

/// How many frames have come.
fn count(port: &mut MemoryPort) -> usize {
    let mut frames = Vec::new();
    while port.receive(&mut frames).unwrap() > 0 {}
    frames.len()
}

#[test]
fn a_turn_of_the_secondary_is_a_portion_whatever_waits() {
    let ((mut guest_end, guest), (ours, theirs)) = (pair(4 * PORTION).unwrap(), connection());
    let (mut peer, shutdown) = (theirs.into_net(), state_channel().0);
    let frames = vec![Frame::from_static(&[1; 60]); 3 * PORTION];
    net_loop::messages(net_loop::tag(0, frames), |frames| {
        assert_eq!(peer.queue(&Message::Input { epoch: Epoch::FIRST, again: false, frames }).unwrap(), Queued::Yes);
    });
    peer.flush().unwrap();
    let mut net =
        SecondaryNetHandle::new(&hello(), vec![Box::new(guest)], ours.into_net(), shutdown, HEARTBEAT, bounded(8).0)
            .unwrap();
    net.begin_epoch(Epoch::FIRST, Vec::new()).unwrap();
    let turns = [(); 4].map(|()| {
        net.turn(Instant::now()).unwrap();
        count(&mut guest_end)
    });
    assert_eq!(turns, [PORTION, PORTION, PORTION, 0]);
}

#[test]
fn a_card_that_takes_nothing_makes_no_other_deaf_and_is_read_no_further() {
    let ((_full_end, mut full), (mut guest_end, guest), (ours, theirs)) =
        (pair(1).unwrap(), pair(1024).unwrap(), connection());
    assert_eq!(full.send(&[Frame::from_static(&[0; 60])]).unwrap(), 1);
    let (mut peer, shutdown) = (theirs.into_net(), state_channel().0);
    let frames = [0, 1].map(|nic| NetFrame { nic, frame: Frame::from(vec![nic; 60]) });
    let input =
        Message::Input { epoch: Epoch::FIRST, again: false, frames: [frames[1].clone(), frames[0].clone()].to_vec() };
    assert_eq!(peer.queue(&input).unwrap(), Queued::Yes);
    peer.flush().unwrap();
    let guests: Vec<Box<dyn Port>> = vec![Box::new(guest), Box::new(full)];
    let mut net =
        SecondaryNetHandle::new(&hello(), guests, ours.into_net(), shutdown, HEARTBEAT, bounded(8).0).unwrap();
    net.begin_epoch(Epoch::FIRST, Vec::new()).unwrap();
    net.turn(Instant::now()).unwrap();
    assert_eq!(count(&mut guest_end), 1);

    // And when it serves.
    let ((mut client, lan), (mut clients, many)) = (pair(1024).unwrap(), pair(1024).unwrap());
    net.go_live(vec![Box::new(lan), Box::new(many)]).unwrap();
    assert_eq!(client.send(&[frames[0].frame.clone()]).unwrap(), 1);
    assert_eq!(clients.send(&vec![frames[1].frame.clone(); 1024]).unwrap(), 1024);
    while net.turn(Instant::now()).unwrap() {}
    assert_eq!(count(&mut guest_end), 1);
    assert_eq!(clients.send(&vec![frames[1].frame.clone(); 1024]).unwrap(), 0, "what waits, waits in the network");
}

#[test]
fn in_a_rehearsal_only_the_latest_input_is_given() {
    let ((mut guest_end, guest), (ours, theirs)) = (pair(1024).unwrap(), connection());
    let (mut peer, shutdown) = (theirs.into_net(), state_channel().0);
    let frames: Vec<_> = (0..1000_u16).map(|number| Frame::from(number.to_be_bytes().repeat(30))).collect();
    net_loop::messages(net_loop::tag(0, frames.clone()), |frames| {
        assert_eq!(peer.queue(&Message::Input { epoch: Epoch::FIRST, again: false, frames }).unwrap(), Queued::Yes);
    });
    peer.flush().unwrap();
    let rehearsal = Hello { rehearse: true, ..hello() };
    let mut net =
        SecondaryNetHandle::new(&rehearsal, vec![Box::new(guest)], ours.into_net(), shutdown, HEARTBEAT, bounded(8).0)
            .unwrap();
    // All that was said is heard, and only then does the guest run.
    while net.turn(Instant::now()).unwrap() {}
    net.begin_epoch(Epoch::FIRST, Vec::new()).unwrap();
    while net.turn(Instant::now()).unwrap() {}
    let mut given = Vec::new();
    while guest_end.receive(&mut given).unwrap() > 0 {}
    assert_eq!(given, frames[frames.len() - PORTION..]);
}

#[test]
fn a_turn_of_the_primary_is_a_portion_whatever_may_leave() {
    let ((mut guest_end, guest), (mut clients, lan)) = (pair(4 * PORTION).unwrap(), pair(4 * PORTION).unwrap());
    let ((ours, _theirs), shutdown) = (connection(), state_channel().0);
    let nics = vec![Nic::new(Box::new(guest), Some(Box::new(lan)))];
    let ends = Ends { nics, peer: ours.into_net(), state: shutdown };
    let gate = Gate::new(Mode::Remus, CompareConfig::default());
    let mut net = PrimaryNetHandle::new(Mode::Remus, gate, ends, HEARTBEAT, bounded(8).0).unwrap();
    net.begin_epoch(Epoch::FIRST).unwrap();
    let frames = vec![Frame::from_static(&[1; 60]); 3 * PORTION];
    assert_eq!(guest_end.send(&frames).unwrap(), frames.len());
    for _ in 0..4 {
        net.turn(Instant::now()).unwrap();
    }
    net.begin_epoch(Epoch(2)).unwrap();
    net.commit(Epoch(2)).unwrap();
    let turns = [(); 4].map(|()| {
        net.turn(Instant::now()).unwrap();
        count(&mut clients)
    });
    assert_eq!(turns, [PORTION, PORTION, PORTION, 0]);
}
