//! The secondary: listens, takes a machine in, and serves in the primary's place when that is lost.

use super::accept::{Door, Knock, Pair};
use super::disks::Secondaries;
use super::event::{Event, EventSender, Events, Outcome};
use super::line::last_word;
use super::secondary_engine::Engine;
use super::secondary_net::{Alert, SecondaryNetHandle};
use super::{SessionError, WhenUnprotected, inquiry};
use crate::checkpoint::Secondary;
use crate::disk::SecondaryDisks;
use crate::domain::{Disks, DomainSpec, Host};
use crate::ids::Epoch;
use crate::layers::Timings;
use crate::peer::{GoodbyeReason, Hello, Message, StateChannel};
use crate::restore::RestoreCallbacks;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Puts layers of the embedder's own around the callbacks of a restore.
pub type RestoreLayer = Arc<dyn Fn(Box<dyn RestoreCallbacks>) -> Box<dyn RestoreCallbacks> + Send + Sync>;

/// How a host takes machines in.
#[derive(Clone, Default)]
pub struct SecondarySessionConfig {
    /// Whether the guest's whole memory is verified after each checkpoint that carries a hash.
    pub verify: bool,
    /// A shell command that makes sure that a primary which was lost does not serve, before this side does. See
    /// [`CommandFence`](crate::failover::CommandFence).
    pub fence_command: Option<String>,
    /// Takes over from a primary that is silent though no fence makes sure that it is dead: if only the link is cut, both serve. Else the
    /// machine is [held](Event::Held) until the operator says who serves.
    pub accept_unfenced: bool,
    /// What [`SecondaryController::stop`] makes of a machine that was taken over.
    pub when_unprotected: WhenUnprotected,
    /// How long after the takeover a machine may be left, as [`WhenUnprotected::Leave`] does it, as soon as none of its connections needs
    /// this side any more: see [`SecondaryController::flows_to_rewrite`]. `None`: it is not left until it is told.
    pub leave_when_idle: Option<Duration>,
    /// Layers of the embedder's own.
    pub layer: Option<RestoreLayer>,
}

/// A host that takes machines in, one after the other, and serves the first whose primary is lost.
pub struct SecondarySession {
    events: Events,
    control: Sender<Control>,
    flows: Arc<Flows>,
    thread: JoinHandle<Outcome>,
    address: SocketAddr,
}

impl SecondarySession {
    /// Listens at `address`. The session goes on until it is stopped, or until the machine that it has taken over ends, or is left.
    ///
    /// # Errors
    /// [`SessionError::Sys`] when the address is not to be had.
    pub fn listen(
        address: impl ToSocketAddrs,
        host: Box<dyn Host>,
        config: SecondarySessionConfig,
    ) -> Result<SecondarySession, SessionError> {
        let sys = |call| move |source| SessionError::Sys { call, source };
        let listener = TcpListener::bind(address).map_err(sys("listening"))?;
        let address = listener.local_addr().map_err(sys("listening"))?;
        let door = Door::new(listener).map_err(sys("listening"))?;
        let (events, receiver) = EventSender::new();
        let (control, commands) = bounded(4);
        let flows = Arc::new(Flows::default());
        let told = flows.clone();
        let thread = std::thread::spawn(move || {
            let mut server = Server { door, host, config, events, control: commands, flows: told };
            // A guest that this thread held is destroyed by being dropped, and the primary finds its connection closed.
            let outcome = catch_unwind(AssertUnwindSafe(|| server.run()))
                .unwrap_or_else(|_| Outcome::Failed("the engine has panicked".into()));
            // What it has taken from this host is put back before anybody hears that this is over, and ends the process.
            drop(server.host);
            server.events.send(Event::Ended(outcome.clone()));
            outcome
        });
        Ok(SecondarySession { events: receiver, control, flows, thread, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What happens.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// A hand on the session, for other threads.
    pub fn controller(&self) -> SecondaryController {
        SecondaryController { control: self.control.clone(), flows: self.flows.clone() }
    }

    /// Waits for the end.
    pub fn wait(self) -> Outcome {
        self.thread.join().unwrap_or_else(|_| Outcome::Failed("a panic".into()))
    }
}

/// Tells a session what to do. A session that has ended does not mind.
#[derive(Clone, Debug)]
pub struct SecondaryController {
    control: Sender<Control>,
    flows: Arc<Flows>,
}

impl SecondaryController {
    /// Ends the session, and the machine with it; one that serves lives on with [`WhenUnprotected::Leave`].
    pub fn stop(&self) {
        let _ = self.control.try_send(Control::Stop);
    }

    /// The operator says that the primary is dead: a machine that is [held](Event::Held), or whose fence fails, serves. Without such
    /// a machine nothing happens.
    pub fn promote(&self) {
        let _ = self.control.try_send(Control::Promote);
    }

    /// How many connections of the machine that serves would break without this side, because both machines began them with numbers
    /// of their own; as of a second ago. `None` while it does not serve.
    pub fn flows_to_rewrite(&self) -> Option<usize> {
        self.flows.get()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Control {
    Stop,
    Promote,
}

/// The count of connections, for other threads. One more than there are: 0 is for none that is known.
#[derive(Default, Debug)]
pub(super) struct Flows(AtomicUsize);

impl Flows {
    pub(super) fn set(&self, flows: usize) {
        self.0.store(flows + 1, Ordering::Relaxed);
    }

    fn get(&self) -> Option<usize> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

pub(super) struct Server {
    pub(super) door: Door,
    pub(super) host: Box<dyn Host>,
    pub(super) config: SecondarySessionConfig,
    pub(super) events: EventSender,
    pub(super) control: Receiver<Control>,
    pub(super) flows: Arc<Flows>,
}

/// How often a waiting thread looks whether the operator wants something.
pub(super) const WATCH: Duration = Duration::from_millis(50);

impl Server {
    fn run(&mut self) -> Outcome {
        let mut next = None;
        loop {
            let knock = next.take().map_or_else(|| self.knock(), Knock::Pair);
            let pair = match knock {
                Knock::Pair(pair) => pair,
                Knock::Control(Control::Stop) => return Outcome::Stopped,
                Knock::Control(Control::Promote) => continue,
            };
            match self.protect(*pair) {
                Served::Over(outcome) => return outcome,
                Served::Next(why) => self.events.send(Event::Unprotected(why)),
                Served::Instead(pair) => {
                    self.events.send(Event::Unprotected("another session has begun".into()));
                    next = Some(pair);
                }
            }
        }
    }

    /// Waits for a session, or for the operator's word.
    pub(super) fn knock(&mut self) -> Knock {
        let ours = self.host.hypervisor().to_owned();
        let host = &mut *self.host;
        let facts = |spec: &DomainSpec| inquiry::facts(host, spec);
        self.door.next(&self.control, |hello| check(hello, &ours), facts)
    }

    /// One session, from its greeting to its end.
    fn protect(&mut self, pair: Pair) -> Served {
        // When the primary is lost, nobody waits for more of it on either.
        let shutdown = pair.state.shutdown_handle().and_then(|state| match &pair.disk {
            Some(disk) => Ok(state.and(disk.shutdown_handle()?)),
            None => Ok(state),
        });
        let machine = self.host.create(&pair.hello.spec).map_err(|error| error.to_string());
        let made = machine.and_then(|machine| {
            let disks = attach_disks(machine.disks, pair.disk)?;
            Ok((machine.domain, machine.nics, disks))
        });
        let (domain, nics, disks) = match made {
            Ok(made) => made,
            Err(why) => {
                last_word(pair.net, &Message::Goodbye(GoodbyeReason::Failed(why.clone())));
                return Served::Next(why);
            }
        };
        let heartbeat = Duration::from_millis(u64::from(pair.hello.heartbeat_ms));
        let (alerts, alerted) = bounded(64);
        let net = shutdown.map_err(io::Error::other).and_then(|shutdown| {
            SecondaryNetHandle::new(&pair.hello, nics, pair.net, shutdown, heartbeat, alerts.clone())
        });
        let net = match net {
            Ok(net) => net,
            Err(error) => return Served::Next(error.to_string()),
        };
        let _net_thread = NetThread::start(net.clone(), alerts);
        self.events.send(Event::Connected {
            peer: pair.address.to_string(),
            domain: pair.hello.spec.name.clone(),
            dirty_log: domain.dirty_log_kind(),
        });
        let mut engine = Engine {
            domain,
            disks: Secondaries::new(disks),
            has_asked_in: Epoch::NONE,
            heard_at: Instant::now(),
            secondary: Secondary::new(&pair.hello.spec, net.clone()).with_rehearsal(pair.hello.rehearse),
            net,
            state: pair.state,
            alerts: alerted,
            timings: Timings::default(),
            heartbeat,
            peer: pair.address.ip().to_string(),
            hello: pair.hello,
            server: self,
        };
        let served = engine.run();
        if !matches!(served, Served::Over(Outcome::Left)) {
            engine.domain.destroy();
        }
        served
    }
}

/// A machine has disks if its primary's has, and they hear it.
fn attach_disks(disks: Disks, way: Option<StateChannel>) -> Result<Option<Box<dyn SecondaryDisks>>, String> {
    match (disks, way) {
        (Disks::Secondary(mut disks), Some(way)) => {
            disks.attach(way).map_err(|error| format!("the disks: {error}"))?;
            Ok(Some(disks))
        }
        (_, None) => Ok(None),
        (_, Some(_)) => Err("this host has no disks for that machine".into()),
    }
}

/// The net thread, which ends with the session, however that ends: were it to live on after a panic of the engine, the
/// primary would go on hearing heartbeats of a machine that is gone.
struct NetThread {
    net: SecondaryNetHandle,
    thread: Option<JoinHandle<()>>,
}

impl NetThread {
    fn start(net: SecondaryNetHandle, alerts: Sender<Alert>) -> NetThread {
        let running = net.clone();
        let thread = std::thread::spawn(move || {
            let why = match catch_unwind(AssertUnwindSafe(|| running.run())) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the net thread has panicked".into(),
            };
            let _ = alerts.try_send(Alert::NetEnded(why));
        });
        NetThread { net, thread: Some(thread) }
    }
}

impl Drop for NetThread {
    fn drop(&mut self) {
        self.net.stop();
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

/// Whether this host can take that machine in.
fn check(hello: &Hello, ours: &str) -> Result<(), String> {
    inquiry::check_hypervisor(&hello.spec, ours)?;
    if hello.heartbeat_ms == 0 {
        return Err("a heartbeat of 0 ms is none".into());
    }
    Ok(())
}

/// How one session ended.
pub(super) enum Served {
    /// And with it this side's work.
    Over(Outcome),
    /// The host is free for the next.
    Next(String),
    /// The host is free, and the next has come.
    Instead(Box<Pair>),
}
