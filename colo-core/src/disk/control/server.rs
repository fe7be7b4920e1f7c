use super::packet::{try_recv, try_send};
use super::wire::{Answer, MAX_PACKET_BYTES, Request, Role, Said};
use super::{ControlError, packet};
use crate::disk::{DiskError, DiskEvent, OnDiskEvent, PrimaryDisks, Replica, SecondaryDisks, Tap};
use crate::net::socket_file::{SocketFile, SocketKind};
use crate::peer::{Handover, PeerError, StateChannel};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::Shutdown;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// So many further connections may be looked at, and told that they are not wanted, before the controller is heard again.
const TURNED_AWAY_AT_ONCE: usize = 16;

/// So many requests may be heard before others are looked at: a controller waits for the answers to most.
const HEARD_AT_ONCE: usize = 64;

/// The disks that a server has: all of one machine's.
pub enum ServedDisks {
    /// A machine's that serves.
    Primary(Tap),
    /// A machine's that follows, or that has taken over.
    Secondary(Replica),
}

/// Lets one process at a time drive disks, by a socket for this user alone. It has a thread, until it is stopped or dropped.
pub struct ControlServer {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<ServedDisks>>,
}

impl ControlServer {
    /// Listens at that path.
    ///
    /// # Errors
    /// Those of [`SocketFile::bind`]; when there are no descriptors or threads left.
    pub fn start(path: &Path, disks: ServedDisks) -> io::Result<ControlServer> {
        let socket = SocketFile::bind(path, SocketKind::Packets)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let mut serving = Serving { socket, stop: stop.clone(), disks, controller: None };
        let thread = std::thread::Builder::new().name("disk control".into()).spawn(move || {
            if let Err(error) = serving.run() {
                tracing::error!("nobody can drive this disk any more: {error}");
            }
            serving.let_go();
            serving.disks
        })?;
        Ok(ControlServer { stop, thread: Some(thread) })
    }

    /// Ends, as if the controller had gone, and gives the disks back; nothing when the thread has panicked, which it has said.
    pub fn stop(mut self) -> Option<ServedDisks> {
        self.end()
    }

    fn end(&mut self) -> Option<ServedDisks> {
        // It is written to once, so that there is room.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        self.thread.take()?.join().ok()
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.end();
    }
}

struct Serving {
    socket: SocketFile,
    stop: Arc<OwnedFd>,
    disks: ServedDisks,
    controller: Option<Controller>,
}

/// Who drives the disks.
struct Controller {
    socket: Arc<OwnedFd>,
    /// The last request's number.
    number: u64,
}

impl Serving {
    /// Until it is to stop.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
            fds.extend(self.controller.iter().map(|controller| PollFd::new(&*controller.socket, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let (stops, somebody) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if stops {
                return Ok(());
            }
            self.hear();
            if somebody {
                self.accept()?;
            }
        }
    }

    /// What the controller has said by now.
    fn hear(&mut self) {
        for _ in 0..HEARD_AT_ONCE {
            let Some(controller) = &mut self.controller else { return };
            match controller.next(&mut self.disks) {
                Ok(true) => continue,
                Ok(false) => return,
                Err(ControlError::Closed) => tracing::info!("whoever drove this disk has gone"),
                Err(error) => tracing::warn!("whoever drove this disk is left: {error}"),
            }
            self.let_go();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..TURNED_AWAY_AT_ONCE {
            let Some(socket) = self.socket.accept()? else { return Ok(()) };
            // One that has gone by now is in nobody's way.
            self.hear();
            if self.controller.is_some() {
                // If it cannot be told it finds the end of the connection.
                let _ = try_send(&socket, &Said::InUse.encode(), None);
                continue;
            }
            let hello = Said::Hello { role: self.disks.role(), sizes: self.disks.sizes() };
            if matches!(try_send(&socket, &hello.encode(), None), Ok(true)) {
                self.controller = Some(Controller { socket: Arc::new(socket), number: 0 });
            }
        }
        Ok(())
    }

    /// Nobody drives the disks: nothing waits for a word that will not come.
    fn let_go(&mut self) {
        let Some(controller) = self.controller.take() else { return };
        match &mut self.disks {
            ServedDisks::Primary(tap) => {
                tap.detach();
                tap.thaw();
            }
            ServedDisks::Secondary(replica) => {
                replica.detach();
                replica.thaw();
            }
        }
        // Only now: whoever sees the end sees its effect.
        drop(controller);
    }
}

impl Controller {
    /// Does what is asked for next; false when nothing is.
    fn next(&mut self, disks: &mut ServedDisks) -> Result<bool, ControlError> {
        let mut buffer = [0; MAX_PACKET_BYTES];
        let Some((length, descriptor)) = try_recv(&*self.socket, &mut buffer)? else { return Ok(false) };
        let (number, request) = Request::decode(&buffer[..length])?;
        if number != self.number.wrapping_add(1) {
            return Err(ControlError::Unexpected("a request's number"));
        }
        self.number = number;
        let answer = match (request, descriptor) {
            (Request::Attach { patience, sent, received }, Some(socket)) => {
                let handover = Handover { socket: TcpStream::from(socket), patience, sent, received };
                answer_of(self.attach(disks, handover))
            }
            (Request::Attach { .. }, None) => return Err(ControlError::Unexpected("no descriptor")),
            (_, Some(_)) => return Err(ControlError::Unexpected("a descriptor")),
            (request, None) => disks.carry_out(&request)?,
        };
        // One that does not take its answers is left. It has a bounded number of them to take: it waits for most.
        packet::send(&*self.socket, &Said::Answer(number, answer).encode(), None, super::ANSWER_WITHIN)?;
        Ok(true)
    }

    fn attach(&self, disks: &mut ServedDisks, handover: Handover) -> Result<(), DiskError> {
        let told = |error: PeerError| {
            tracing::warn!("the connection for disks: {error}");
            DiskError::Invalid
        };
        let channel = StateChannel::from_handover(handover).map_err(told)?;
        match disks {
            ServedDisks::Primary(tap) => tap.attach(channel, events_to(self.socket.clone())),
            ServedDisks::Secondary(replica) => replica.attach(channel),
        }
    }
}

impl ServedDisks {
    fn role(&self) -> Role {
        match self {
            ServedDisks::Primary(_) => Role::Primary,
            ServedDisks::Secondary(_) => Role::Secondary,
        }
    }

    fn sizes(&self) -> Vec<u64> {
        match self {
            ServedDisks::Primary(tap) => tap.sizes(),
            ServedDisks::Secondary(replica) => replica.sizes().to_vec(),
        }
    }

    /// # Errors
    /// When it is none of theirs.
    fn carry_out(&mut self, request: &Request) -> Result<Answer, ControlError> {
        match self {
            ServedDisks::Primary(tap) => {
                match *request {
                    Request::Freeze => tap.freeze(),
                    Request::Thaw => tap.thaw(),
                    Request::Barrier(epoch) => tap.barrier(epoch),
                    Request::Committed(epoch) => tap.committed(epoch),
                    Request::Detach => tap.detach(),
                    _ => return Err(ControlError::Unexpected("a request to a secondary")),
                }
                Ok(Answer::Done)
            }
            ServedDisks::Secondary(replica) => {
                match *request {
                    Request::Freeze => replica.freeze(),
                    Request::Thaw => replica.thaw(),
                    Request::Release => replica.release(),
                    Request::Detach => replica.detach(),
                    Request::Commit(epoch) => return Ok(answer_of(replica.commit(epoch))),
                    Request::FailOver => return Ok(answer_of(replica.fail_over())),
                    Request::WantsCheckpoint if replica.wants_checkpoint() => {}
                    Request::WantsCheckpoint => return Ok(Answer::No),
                    Request::WaitBarrier(epoch, wait) => {
                        let deadline = Instant::now() + wait;
                        return Ok(match replica.wait_barrier(epoch, deadline) {
                            true => Answer::Done,
                            // It gives up early only when nobody sends any more.
                            false if Instant::now() < deadline => Answer::Never,
                            false => Answer::No,
                        });
                    }
                    _ => return Err(ControlError::Unexpected("a request to a primary")),
                }
                Ok(Answer::Done)
            }
        }
    }
}

fn answer_of(result: Result<(), DiskError>) -> Answer {
    result.map_or_else(Answer::Failed, |()| Answer::Done)
}

/// Tells the controller what the disks have to say, and does not wait. One that does not take it is left, but the progress of a copy may be
/// missed.
fn events_to(socket: Arc<OwnedFd>) -> OnDiskEvent {
    Box::new(move |event| {
        let may_be_missed = matches!(event, DiskEvent::Copying { .. });
        let is_sent = matches!(try_send(socket.as_fd(), &Said::Event(event).encode(), None), Ok(true));
        if !is_sent && !may_be_missed {
            // Fails only when it has ended.
            let _ = rustix::net::shutdown(&*socket, Shutdown::Both);
        }
    })
}
