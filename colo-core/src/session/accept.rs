//! Taking in the connections of a session, from among whoever else connects.

use super::CONNECT_TIMEOUT;
use super::inquiry::{self, Told};
use super::line::last_word;
use super::secondary::Control;
use crate::domain::DomainSpec;
use crate::peer::{Channel, Hello, Message, NetChannel, PeerError, StateChannel};
use crossbeam_channel::Receiver;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// The most connections that have not said who they are: a session needs two, and the rest is for port scanners and health
/// checks. Beyond it the oldest is closed.
const MAX_STRANGERS: usize = 16;

/// How long a primary may not take an acknowledgement. Its death is found much sooner, by its heartbeat.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether the operator wants something.
const WATCH: Duration = Duration::from_millis(50);

/// The connections of a session.
pub(super) struct Pair {
    pub(super) state: StateChannel,
    pub(super) net: NetChannel,
    /// Of a machine that has disks.
    pub(super) disk: Option<StateChannel>,
    pub(super) hello: Hello,
    pub(super) address: SocketAddr,
}

/// What was waited for at the [`Door`].
pub(super) enum Knock {
    Pair(Box<Pair>),
    Control(Control),
}

/// A listener, and those who have connected and not greeted yet. None of them can hold up another.
pub(super) struct Door {
    listener: TcpListener,
    /// Oldest first.
    strangers: Vec<Stranger>,
    /// A session that has begun to connect.
    waiting: Option<Waiting>,
}

struct Waiting {
    hello: Hello,
    state: StateChannel,
    net: Option<NetChannel>,
}

struct Stranger {
    connection: StateChannel,
    address: SocketAddr,
    deadline: Instant,
}

impl Door {
    /// # Errors
    /// When the listener's mode cannot be set.
    pub(super) fn new(listener: TcpListener) -> io::Result<Door> {
        listener.set_nonblocking(true)?;
        Ok(Door { listener, strangers: Vec::new(), waiting: None })
    }

    /// Waits for all connections of a session whose greeting passes the check, or for the operator's word, and answers whoever only asks.
    pub(super) fn next(
        &mut self,
        control: &Receiver<Control>,
        check: impl Fn(&Hello) -> Result<(), String>,
        mut facts: impl FnMut(&DomainSpec) -> Told,
    ) -> Knock {
        loop {
            if let Ok(control) = control.try_recv() {
                return Knock::Control(control);
            }
            if let Err(error) = self.accept() {
                tracing::warn!("a connection was not taken: {error}");
                // Such as no more descriptors: it will be there again at once.
                if let Ok(control) = control.recv_timeout(WATCH) {
                    return Knock::Control(control);
                }
            }
            if let Some(pair) = self.hear(&check, &mut facts) {
                return Knock::Pair(Box::new(pair));
            }
            self.sleep();
        }
    }

    /// Takes all who knock.
    fn accept(&mut self) -> Result<(), PeerError> {
        loop {
            match self.listener.accept() {
                Ok((socket, address)) => {
                    if self.strangers.len() == MAX_STRANGERS {
                        let oldest = self.strangers.remove(0);
                        tracing::warn!("{} sent no greeting, and others wait", oldest.address);
                    }
                    let connection = StateChannel::new(socket, PATIENCE)?;
                    self.strangers.push(Stranger { connection, address, deadline: Instant::now() + CONNECT_TIMEOUT });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(source) => return Err(PeerError::Io { call: "accept", source }),
            }
        }
    }

    /// Listens to each of the strangers, without waiting.
    fn hear(
        &mut self,
        check: impl Fn(&Hello) -> Result<(), String>,
        mut facts: impl FnMut(&DomainSpec) -> Told,
    ) -> Option<Pair> {
        let mut index = 0;
        while index < self.strangers.len() {
            let now = Instant::now();
            let stranger = &mut self.strangers[index];
            let heard = stranger.connection.recv(now);
            if matches!(heard, Ok(None)) && now < stranger.deadline {
                index += 1;
                continue;
            }
            let stranger = self.strangers.remove(index);
            let address = stranger.address;
            let pair = match heard {
                Ok(Some(Message::Hello(hello))) => self.greet(stranger, hello, &check),
                Ok(Some(Message::Inquiry(spec))) => {
                    tracing::info!("{address} asks about domain {}", spec.name);
                    inquiry::answer(stranger.connection, facts(&spec)).map(|()| None)
                }
                Ok(_) => {
                    tracing::warn!("{address} sent no greeting");
                    Ok(None)
                }
                Err(error) => {
                    if let PeerError::Version { .. } = error {
                        // It sees by any answer which one is spoken here.
                        last_word(stranger.connection.into_net(), &Message::Refused(error.to_string()));
                    }
                    Err(error)
                }
            };
            match pair {
                Ok(Some(pair)) => return Some(pair),
                Ok(None) => {}
                Err(error) => tracing::warn!("{address} was not taken: {error}"),
            }
        }
        None
    }

    /// Answers a greeting.
    fn greet(
        &mut self,
        stranger: Stranger,
        hello: Hello,
        check: impl Fn(&Hello) -> Result<(), String>,
    ) -> Result<Option<Pair>, PeerError> {
        let Stranger { mut connection, address, .. } = stranger;
        match hello.channel {
            Channel::State => match check(&hello) {
                Ok(()) => {
                    connection.send(&Message::Welcome)?;
                    self.waiting = Some(Waiting { hello, state: connection, net: None });
                }
                Err(reason) => connection.send(&Message::Refused(reason))?,
            },
            channel => match self.waiting.take_if(|first| first.hello.session == hello.session) {
                Some(waiting) => {
                    connection.send(&Message::Welcome)?;
                    return Ok(self.join(waiting, channel, connection, address));
                }
                None => connection.send(&Message::Refused("there is no session of that number".into()))?,
            },
        }
        Ok(None)
    }

    /// One more of a session's connections. Returns them when these are all.
    fn join(
        &mut self,
        waiting: Waiting,
        channel: Channel,
        connection: StateChannel,
        address: SocketAddr,
    ) -> Option<Pair> {
        let Waiting { hello, state, net } = waiting;
        let (net, disk) = match (channel, net) {
            (Channel::Disk, Some(net)) => (net, Some(connection)),
            // Of two, or before the other: whoever does so will hear that no session begins.
            (Channel::State | Channel::Disk, None) | (_, Some(_)) => return None,
            (Channel::Net, None) if hello.spec.disks.is_empty() => (connection.into_net(), None),
            (Channel::Net, None) => {
                self.waiting = Some(Waiting { hello, state, net: Some(connection.into_net()) });
                return None;
            }
        };
        Some(Pair { state, net, disk, hello, address })
    }

    /// Until somebody connects or speaks, or it is time to look up.
    fn sleep(&self) {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        let strangers = self.strangers.iter().map(|stranger| stranger.connection.poll_fd());
        fds.extend(strangers.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let watch = Timespec { tv_sec: 0, tv_nsec: i64::from(WATCH.subsec_nanos()) };
        // Interrupted or not, all are looked at.
        let _ = poll(&mut fds, Some(&watch));
    }
}
