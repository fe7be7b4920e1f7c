use super::ControlError;
use super::connection::{Connection, Heard};
use super::served::ServedDisks;
use super::wire::{Answer, Said};
use crate::disk::Verification;
use crate::net::socket_file::{SocketFile, SocketKind};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// So many may be there beside whoever drives. When one more comes, the one goes that has come first and waits for nothing: whoever wants to
/// drive can always come.
const MAX_OBSERVERS: usize = 16;

/// So many further connections may be accepted before the others are heard again.
const ACCEPTED_AT_ONCE: usize = 16;

/// So many requests of whoever drives may be heard before others are looked at: it waits for the answers to most.
const HEARD_AT_ONCE: usize = 64;

/// Lets one process at a time drive disks, and others ask, by a socket for this user alone. It has a thread, until it is stopped or dropped.
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
        let mut serving =
            Serving { socket, stop: stop.clone(), disks, driver: None, observers: Vec::new(), ending: Vec::new() };
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
    driver: Option<Connection>,
    /// Those that only ask, or have not said yet what they want; oldest first.
    observers: Vec<Connection>,
    /// Comparisons for those who have gone: nobody waits for them.
    ending: Vec<Verification>,
}

impl Serving {
    /// Until it is to stop.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
            let connections = self.driver.iter().chain(&self.observers);
            fds.extend(connections.map(|connection| PollFd::new(connection, PollFlags::IN)));
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let (stops, somebody) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if stops {
                return Ok(());
            }
            self.hear_driver();
            self.hear_observers();
            if somebody {
                self.accept()?;
            }
        }
    }

    /// What whoever drives has said by now.
    fn hear_driver(&mut self) {
        for _ in 0..HEARD_AT_ONCE {
            let Some(driver) = &mut self.driver else { return };
            match driver.hear_driver(&mut self.disks) {
                Ok(Heard::Request) => continue,
                Ok(_) => return,
                Err(ControlError::Closed) => tracing::info!("whoever drove this disk has gone"),
                Err(error) => tracing::warn!("whoever drove this disk is left: {error}"),
            }
            self.let_driver_go();
        }
    }

    /// The next that each of the others has said.
    fn hear_observers(&mut self) {
        let mut index = 0;
        while let Some(observer) = self.observers.get_mut(index) {
            match observer.hear_observer(&self.disks, self.driver.is_some()) {
                Ok(Heard::Drive) => index += usize::from(!self.drive(index)),
                Ok(_) => index += 1,
                Err(error) => {
                    if !matches!(error, ControlError::Closed) {
                        tracing::warn!("somebody who asked about this disk is left: {error}");
                    }
                    self.remove(index);
                }
            }
        }
    }

    /// One of the others wants to drive. Returns whether it is none of the others any more.
    fn drive(&mut self, index: usize) -> bool {
        // One that has gone by now is in nobody's way.
        self.hear_driver();
        let observer = &self.observers[index];
        let answer = if self.driver.is_none() { Answer::Done } else { Answer::No };
        match observer.say(&Said::Answer(observer.number(), answer)) {
            Ok(()) if self.driver.is_some() => false,
            Ok(()) => {
                self.driver = Some(self.observers.remove(index));
                true
            }
            // It has gone, too.
            Err(_) => {
                self.remove(index);
                true
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTED_AT_ONCE {
            let Some(socket) = self.socket.accept()? else { return Ok(()) };
            if self.observers.len() >= MAX_OBSERVERS {
                // There is one: comparisons go on one at a time.
                let idle = self.observers.iter().position(|observer| !observer.compares());
                self.remove(idle.unwrap_or(0));
            }
            let role = self.disks.role();
            let connection = Connection::new(socket, role);
            let (is_shared, sizes) = (self.disks.is_shared(), self.disks.sizes());
            let hello = Said::Hello { role, is_shared, sizes };
            if connection.say(&hello).is_ok() {
                self.observers.push(connection);
            }
        }
        Ok(())
    }

    /// Nobody drives the disks.
    fn let_driver_go(&mut self) {
        if let Some(driver) = self.driver.take() {
            self.disks.let_go();
            // Only now: whoever sees the end sees its effect.
            self.ending.extend(driver.leave());
        }
    }

    fn remove(&mut self, observer: usize) {
        self.ending.retain(|comparison| !comparison.is_over());
        self.ending.extend(self.observers.remove(observer).leave());
    }

    fn let_go(&mut self) {
        self.let_driver_go();
        self.observers.clear();
        self.ending.clear();
    }
}
