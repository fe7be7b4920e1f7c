//! The secondary: listens, takes a machine in, and serves in the primary's place when that is lost.

use super::accept::{Door, Pair};
use super::event::{Event, EventSender, Events, Outcome};
use super::secondary_net::{Alert, SecondaryNetHandle};
use super::{SessionError, inquiry};
use crate::checkpoint::Secondary;
use crate::domain::{Domain, DomainSpec, Host, RunState};
use crate::failover::{CommandFence, Detector, Fence, Loss, SecondaryVerdict, secondary_verdict};
use crate::layers::Timings;
use crate::net::Port;
use crate::peer::{GoodbyeReason, Hello, Message, Mode, PeerError, StateChannel};
use crate::restore::layers::{Timed, Verified};
use crate::restore::{ColoRestore, RemusRestore, RestoreCallbacks};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
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
    /// [`CommandFence`].
    pub fence_command: Option<String>,
    /// Layers of the embedder's own.
    pub layer: Option<RestoreLayer>,
}

/// A host that takes machines in, one after the other, and serves the first whose primary is lost.
pub struct SecondarySession {
    events: Events,
    control: Sender<()>,
    thread: JoinHandle<Outcome>,
    address: SocketAddr,
}

impl SecondarySession {
    /// Listens at `address`. The session goes on until it is stopped, or until the machine that it has taken over ends.
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
        let (control, stop) = bounded(4);
        let thread = std::thread::spawn(move || {
            let mut server = Server { door, host, config, events, stop };
            // A guest that this thread held is destroyed by being dropped, and the primary finds its connection closed.
            let outcome = catch_unwind(AssertUnwindSafe(|| server.run()))
                .unwrap_or_else(|_| Outcome::Failed("the engine has panicked".into()));
            server.events.send(Event::Ended(outcome.clone()));
            outcome
        });
        Ok(SecondarySession { events: receiver, control, thread, address })
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
        SecondaryController(self.control.clone())
    }

    /// Waits for the end.
    pub fn wait(self) -> Outcome {
        self.thread.join().unwrap_or_else(|_| Outcome::Failed("a panic".into()))
    }
}

/// Tells a session what to do. A session that has ended does not mind.
#[derive(Clone, Debug)]
pub struct SecondaryController(Sender<()>);

impl SecondaryController {
    /// Ends the session, and the machine with it, also when it serves.
    pub fn stop(&self) {
        let _ = self.0.try_send(());
    }
}

struct Server {
    door: Door,
    host: Box<dyn Host>,
    config: SecondarySessionConfig,
    events: EventSender,
    stop: Receiver<()>,
}

/// How often a waiting thread looks whether it shall stop.
const WATCH: Duration = Duration::from_millis(50);

impl Server {
    fn run(&mut self) -> Outcome {
        loop {
            let ours = self.host.hypervisor().to_owned();
            let host = &mut *self.host;
            let facts = |spec: &DomainSpec| inquiry::facts(host, spec);
            let Some(pair) = self.door.next(&self.stop, |hello| check(hello, &ours), facts) else {
                return Outcome::Stopped;
            };
            match self.protect(pair) {
                Served::Over(outcome) => return outcome,
                Served::Next(why) => self.events.send(Event::Unprotected(why)),
            }
        }
    }

    /// One session, from its greeting to its end.
    fn protect(&mut self, pair: Pair) -> Served {
        let machine = match self.host.create(&pair.hello.spec) {
            Ok(machine) => machine,
            Err(error) => {
                let mut net = pair.net;
                super::net_loop::goodbye(&mut net, GoodbyeReason::Failed(error.to_string()));
                return Served::Next(error.to_string());
            }
        };
        let heartbeat = Duration::from_millis(u64::from(pair.hello.heartbeat_ms));
        let (alerts, alerted) = bounded(64);
        let net = pair.state.shutdown_handle().map_err(io::Error::other).and_then(|shutdown| {
            SecondaryNetHandle::new(&pair.hello, machine.nics, pair.net, shutdown, heartbeat, alerts.clone())
        });
        let net = match net {
            Ok(net) => net,
            Err(error) => return Served::Next(error.to_string()),
        };
        let _net_thread = NetThread::start(net.clone(), alerts);
        self.events.send(Event::Connected {
            peer: pair.address.to_string(),
            domain: pair.hello.spec.name.clone(),
            dirty_log: machine.domain.dirty_log_kind(),
        });
        let mut engine = Engine {
            domain: machine.domain,
            secondary: Secondary::new(&pair.hello.spec, net.clone()),
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
        engine.domain.destroy();
        served
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
enum Served {
    /// And with it this side's work.
    Over(Outcome),
    /// The host is free for the next.
    Next(String),
}

struct Engine<'a> {
    domain: Box<dyn Domain>,
    net: SecondaryNetHandle,
    secondary: Secondary<SecondaryNetHandle>,
    state: StateChannel,
    alerts: Receiver<Alert>,
    timings: Timings,
    heartbeat: Duration,
    peer: String,
    hello: Hello,
    server: &'a mut Server,
}

/// Why following the primary ended.
enum End {
    Stop,
    Lost(Loss),
    /// This side cannot follow any more.
    Cannot(String),
}

impl Engine<'_> {
    fn run(&mut self) -> Served {
        let mut callbacks = self.callbacks();
        let end = loop {
            if let Err(end) = self.follow(&mut *callbacks) {
                break end;
            }
        };
        drop(callbacks);
        match end {
            End::Stop => {
                self.goodbye(GoodbyeReason::Stopped);
                Served::Over(Outcome::Stopped)
            }
            End::Cannot(why) => {
                self.domain.destroy();
                self.goodbye(GoodbyeReason::Failed(why.clone()));
                Served::Next(why)
            }
            End::Lost(loss) => self.lost(&loss),
        }
    }

    fn callbacks(&self) -> Box<dyn RestoreCallbacks> {
        let mut chain: Box<dyn RestoreCallbacks> = match self.hello.mode {
            Mode::Colo => Box::new(ColoRestore::default()),
            Mode::Remus => Box::new(RemusRestore::default()),
        };
        if self.server.config.verify {
            chain = Box::new(Verified::new(chain));
        }
        if let Some(layer) = &self.server.config.layer {
            chain = layer(chain);
        }
        Box::new(Timed::new(chain, self.timings.clone()))
    }

    /// Takes the next message, and does what it asks for.
    fn follow(&mut self, callbacks: &mut dyn RestoreCallbacks) -> Result<(), End> {
        if self.server.stop.try_recv().is_ok() {
            return Err(End::Stop);
        }
        let message = match self.state.recv(Instant::now() + WATCH) {
            Ok(Some(Message::Goodbye(reason))) => return Err(End::Lost(Loss::Goodbye(reason))),
            Ok(Some(message)) => message,
            Ok(None) => return self.look_at_net(),
            Err(error) => return Err(self.verdict_of_net(&error)),
        };
        let cannot = |error: crate::checkpoint::EngineError| End::Cannot(error.to_string());
        self.secondary.handle_message(message, &mut *self.domain, callbacks).map_err(cannot)?;
        self.answer();
        if self.secondary.is_staged() {
            self.server.events.send(Event::Staged(self.secondary.epoch().next()));
            let applied = self.secondary.apply(&mut *self.domain, callbacks).map_err(cannot)?;
            self.answer();
            let pause = self.timings.last_pause().unwrap_or_default();
            self.server.events.send(Event::Applied { applied, pause });
        }
        Ok(())
    }

    /// Sends what the engine has to say. That a primary is gone is found by the net thread.
    fn answer(&mut self) {
        while let Some(message) = self.secondary.poll_message() {
            let _ = self.state.send(&message);
        }
    }

    fn look_at_net(&self) -> Result<(), End> {
        match self.alerts.try_recv() {
            Ok(Alert::Lost(loss)) => Err(End::Lost(loss)),
            Ok(Alert::NetEnded(why)) => Err(End::Cannot(why)),
            Err(_) => Ok(()),
        }
    }

    /// The state channel broke: what the net thread makes of it counts, since it hears goodbyes and heartbeats.
    fn verdict_of_net(&self, error: &PeerError) -> End {
        if !matches!(error, PeerError::Closed | PeerError::Truncated { .. } | PeerError::Io { .. }) {
            return End::Cannot(error.to_string());
        }
        match self.alerts.recv_timeout(self.heartbeat * (Detector::MISSED + 1) + WATCH) {
            Ok(Alert::Lost(loss)) => End::Lost(loss),
            Ok(Alert::NetEnded(why)) => End::Cannot(why),
            Err(_) => End::Cannot(format!("the state channel is gone while the primary lives: {error}")),
        }
    }

    fn lost(&mut self, loss: &Loss) -> Served {
        let lost_at = Instant::now();
        self.server.events.send(Event::PeerLost(loss.to_string()));
        match secondary_verdict(loss, self.secondary.epoch()) {
            SecondaryVerdict::End(why) => {
                self.domain.destroy();
                self.goodbye(GoodbyeReason::Failed(why.clone()));
                Served::Next(why)
            }
            SecondaryVerdict::TakeOver => Served::Over(self.take_over(lost_at)),
        }
    }

    fn take_over(&mut self, lost_at: Instant) -> Outcome {
        if !self.fence() {
            return Outcome::Stopped;
        }
        // Heard only by a primary that lives after all: it must not serve from here on.
        self.goodbye(GoodbyeReason::Promoted);
        match self.go_live() {
            Ok(resent_frames) => {
                let (epoch, took) = (self.secondary.epoch(), lost_at.elapsed());
                self.server.events.send(Event::TookOver { epoch, took, resent_frames });
                self.serve()
            }
            Err(error) => Outcome::Failed(error),
        }
    }

    fn go_live(&mut self) -> Result<usize, String> {
        let spec = self.domain.spec().clone();
        let lans: Result<Vec<Box<dyn Port>>, _> =
            (0..spec.nics.len()).map(|nic| self.server.host.open_lan(&spec, nic)).collect();
        let lans = lans.map_err(|error| format!("the clients' network: {error}"))?;
        let _ = self.domain.disable_dirty_log();
        self.domain.resume().map_err(|error| error.to_string())?;
        self.net.go_live(lans).map_err(|error| error.to_string())
    }

    /// Fences the primary, as often as it takes. Returns false when told to stop.
    fn fence(&mut self) -> bool {
        let Some(command) = &self.server.config.fence_command else {
            return true;
        };
        let mut fence = CommandFence::new(command, &self.hello.spec.name, "secondary", &self.peer);
        while let Err(error) = fence.fence() {
            self.server.events.send(Event::FenceFailed(error.to_string()));
            if self.server.stop.recv_timeout(Duration::from_secs(1)).is_ok() {
                return false;
            }
        }
        true
    }

    /// Until told to stop, or until the guest ends.
    fn serve(&mut self) -> Outcome {
        loop {
            match self.domain.run_state() {
                RunState::Crashed => return Outcome::GuestCrashed,
                RunState::ShutDown => return Outcome::GuestShutDown,
                RunState::Running | RunState::Suspended => {}
            }
            match self.server.stop.recv_timeout(WATCH) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Outcome::Stopped,
            }
            if let Ok(Alert::NetEnded(why)) = self.alerts.try_recv() {
                return Outcome::Failed(why);
            }
        }
    }

    /// On the net channel first: the other side believes its net thread.
    fn goodbye(&mut self, reason: GoodbyeReason) {
        let _ = self.net.goodbye(reason.clone());
        let _ = self.state.send(&Message::Goodbye(reason));
        if let Ok(shutdown) = self.state.shutdown_handle() {
            shutdown.shutdown();
        }
    }
}
