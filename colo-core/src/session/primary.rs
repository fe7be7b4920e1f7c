//! The primary's engine thread.

use super::event::{Event, EventSender, Events, Outcome};
use super::net_loop::{Farewell, Nic};
use super::primary_net::{Ends, PrimaryNetHandle};
use super::recorder::{RecordConfig, RecordFile};
use super::{CONNECT_TIMEOUT, HEARTBEAT, SessionError};
use crate::checkpoint::{EngineError, Primary, PrimaryConfig};
use crate::compare::CompareConfig;
use crate::domain::{Domain, Machine, RunState};
use crate::failover::{Detector, Fence, Loss, PrimaryVerdict, primary_verdict};
use crate::ids::Epoch;
use crate::layers::Timings;
use crate::net::Port;
use crate::net::gate::Gate;
use crate::peer::{
    Channel, GoodbyeReason, Hello, Message, Mode, NetChannel, PeerError, ShutdownHandle, StateChannel, StateReceiver,
    StateSender,
};
use crate::save::layers::{Timed, Verified};
use crate::save::{SaveCallbacks, SaveConfig, SaveError, SaveLoop, Step, StreamSink, Trigger};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Puts layers of the embedder's own around the callbacks of a save.
pub type SaveLayer = Box<dyn FnOnce(Box<dyn SaveCallbacks>) -> Box<dyn SaveCallbacks> + Send>;

/// How a machine is to be protected.
pub struct PrimarySessionConfig {
    /// COLO or Remus, and how often.
    pub checkpoints: PrimaryConfig,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// How outputs are compared.
    pub compare: CompareConfig,
    /// How the domain is saved.
    pub save: SaveConfig,
    /// Whether the guest's whole memory is hashed at each checkpoint, for the secondary to verify.
    pub verify: bool,
    /// Makes sure that a secondary which was lost does not serve, before this side serves on without it.
    pub fence: Option<Box<dyn Fence>>,
    /// Where miscompares are written down, under COLO. Has the comparator keep evidence.
    pub record: Option<RecordConfig>,
    /// Layers of the embedder's own.
    pub layer: Option<SaveLayer>,
}

impl PrimarySessionConfig {
    /// The usual, for that mode.
    pub fn new(mode: Mode) -> Self {
        PrimarySessionConfig {
            checkpoints: PrimaryConfig::new(mode),
            heartbeat: HEARTBEAT,
            compare: CompareConfig::default(),
            save: SaveConfig::default(),
            verify: false,
            fence: None,
            record: None,
            layer: None,
        }
    }
}

/// A machine under protection.
pub struct PrimarySession {
    events: Events,
    control: Sender<Control>,
    thread: JoinHandle<Outcome>,
}

/// What did not begin, with everything that was given to it.
pub struct NotStarted {
    /// Why.
    pub error: SessionError,
    /// The machine, untouched.
    pub machine: Machine,
    /// The ways to its clients.
    pub lans: Vec<Box<dyn Port>>,
}

impl PrimarySession {
    /// Connects with the peer ("host" or "host:port") and begins to protect the machine, which serves its clients through
    /// `lans`, one for each of its cards. A suspended machine is resumed.
    ///
    /// # Errors
    /// [`NotStarted`], with the machine as it was.
    ///
    /// # Panics
    /// When there are not as many `lans` as the machine has cards.
    pub fn start(
        machine: Machine,
        lans: Vec<Box<dyn Port>>,
        peer: &str,
        config: PrimarySessionConfig,
    ) -> Result<PrimarySession, Box<NotStarted>> {
        assert_eq!(machine.nics.len(), lans.len(), "one way to the clients for each card");
        let ready = match Ready::new(&machine, peer, &config) {
            Ok(ready) => ready,
            Err(error) => {
                return Err(Box::new(NotStarted { error, machine, lans }));
            }
        };
        let (events, receiver) = EventSender::new();
        let (control, commands) = bounded(16);
        let peer = peer.to_owned();
        let thread = std::thread::spawn(move || {
            let outcome = protect(machine, lans, &peer, config, ready, &commands, &events);
            events.send(Event::Ended(outcome.clone()));
            outcome
        });
        Ok(PrimarySession { events: receiver, control, thread })
    }

    /// What happens.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// A hand on the session, for other threads.
    pub fn controller(&self) -> PrimaryController {
        PrimaryController(self.control.clone())
    }

    /// Waits for the end.
    pub fn wait(self) -> Outcome {
        self.thread.join().unwrap_or_else(|_| Outcome::Failed("a panic".into()))
    }
}

/// Tells a session what to do. A session that has ended does not mind.
#[derive(Clone, Debug)]
pub struct PrimaryController(Sender<Control>);

impl PrimaryController {
    /// Ends protection; the machine serves on.
    pub fn end_protection(&self) {
        let _ = self.0.try_send(Control::EndProtection);
    }

    /// Takes a checkpoint soon.
    pub fn checkpoint(&self) {
        let _ = self.0.try_send(Control::Checkpoint);
    }

    /// Ends protection and the machine.
    pub fn stop(&self) {
        let _ = self.0.try_send(Control::Stop);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Control {
    EndProtection,
    Checkpoint,
    Stop,
}

/// What the net thread has to say to the engine.
#[derive(Debug)]
pub(super) enum Alert {
    Trigger(Trigger),
    Lost(Loss),
    /// The net thread itself has ended.
    NetEnded(String),
}

/// What a session needs to begin.
struct Ready {
    greeted: Greeted,
    record: Option<RecordFile>,
}

impl Ready {
    fn new(machine: &Machine, peer: &str, config: &PrimarySessionConfig) -> Result<Ready, SessionError> {
        // The file first: what is wrong with it need not bother the peer.
        let open = |record| RecordFile::open(record, config.checkpoints.mode);
        let record = config.record.as_ref().map(open).transpose()?;
        Ok(Ready { greeted: greet(machine, peer, config)?, record })
    }
}

/// The connections of a session that both sides have agreed on.
struct Greeted {
    state: StateChannel,
    net: NetChannel,
    /// One for each thread that may have to unblock another.
    shutdown: ShutdownHandle,
    engine_shutdown: ShutdownHandle,
    last_shutdown: ShutdownHandle,
}

fn greet(machine: &Machine, peer: &str, config: &PrimarySessionConfig) -> Result<Greeted, SessionError> {
    let failed = |source| SessionError::Peer { peer: peer.to_owned(), source };
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut hello = Hello {
        channel: Channel::State,
        session: session_number(),
        mode: config.checkpoints.mode,
        heartbeat_ms: u32::try_from(config.heartbeat.as_millis()).unwrap_or(u32::MAX),
        spec: machine.domain.spec().clone(),
    };
    let mut open = |channel| {
        hello.channel = channel;
        let mut connection = StateChannel::connect(peer, config.checkpoints.ack_timeout, deadline).map_err(failed)?;
        connection.send(&Message::Hello(hello.clone())).map_err(failed)?;
        match connection.recv(deadline).map_err(failed)? {
            Some(Message::Welcome) => Ok(connection),
            Some(Message::Refused(reason)) => Err(SessionError::Refused { peer: peer.to_owned(), reason }),
            Some(_) => Err(SessionError::Greeting { peer: peer.to_owned(), what: "it answered with something else" }),
            None => Err(SessionError::Greeting { peer: peer.to_owned(), what: "it did not answer in time" }),
        }
    };
    let state = open(Channel::State)?;
    let net = open(Channel::Net)?.into_net();
    let shutdown = || state.shutdown_handle().map_err(failed);
    let (shutdown, engine_shutdown, last_shutdown) = (shutdown()?, shutdown()?, shutdown()?);
    Ok(Greeted { state, net, shutdown, engine_shutdown, last_shutdown })
}

/// Pairs the two connections of a session on the other side. Uniqueness is all it needs.
fn session_number() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Wires the threads, and takes them down again.
fn protect(
    mut machine: Machine,
    lans: Vec<Box<dyn Port>>,
    peer: &str,
    config: PrimarySessionConfig,
    Ready { greeted, record }: Ready,
    control: &Receiver<Control>,
    events: &EventSender,
) -> Outcome {
    let (alerts, alerted) = bounded(64);
    let (inbox, messages) = bounded(64);
    let nics = machine.nics.drain(..).zip(lans).map(|(guest, lan)| Nic::new(guest, Some(lan))).collect();
    let keep_evidence = config.compare.keep_evidence || record.is_some();
    let gate = Gate::new(config.checkpoints.mode, CompareConfig { keep_evidence, ..config.compare });
    let ends = Ends { nics, peer: greeted.net, state: greeted.shutdown };
    let net = match PrimaryNetHandle::new(config.checkpoints.mode, gate, ends, config.heartbeat, alerts.clone()) {
        Ok(net) => net,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let recording = match record.map(RecordFile::start).map(|(recorder, recording)| (net.record(recorder), recording)) {
        Some((Err(panicked), _)) => return Outcome::Failed(panicked.to_string()),
        Some((Ok(()), recording)) => Some(recording),
        None => None,
    };
    let (sender, receiver) = greeted.state.split();
    let reader = std::thread::spawn(move || read_messages(receiver, &inbox));
    let net_thread = std::thread::spawn({
        let net = net.clone();
        move || {
            let ended = catch_unwind(AssertUnwindSafe(|| net.run()));
            let why = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the net thread has panicked".into(),
            };
            let _ = alerts.try_send(Alert::NetEnded(why));
        }
    });
    events.send(Event::Connected {
        peer: peer.to_owned(),
        domain: machine.domain.spec().name.clone(),
        dirty_log: machine.domain.dirty_log_kind(),
    });
    let shutdown = greeted.last_shutdown;
    let mut engine = Engine {
        domain: machine.domain,
        net: net.clone(),
        sink: PeerSink(sender),
        shutdown: greeted.engine_shutdown,
        messages,
        alerts: alerted,
        control,
        events,
        heartbeat: config.heartbeat,
        fence: config.fence,
    };
    let callbacks =
        Callbacks { checkpoints: config.checkpoints, save: config.save, verify: config.verify, layer: config.layer };
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.run(callbacks)));
    // Before anything of the connections goes: the other side takes their end for this side's death.
    if outcome.is_err() || matches!(outcome, Ok(Outcome::Failed(_))) {
        engine.domain.destroy();
    }
    net.stop();
    shutdown.shutdown();
    drop(engine);
    let _ = net_thread.join();
    let _ = reader.join();
    drop(net);
    if let Some(recording) = recording {
        recording.finish();
    }
    outcome.unwrap_or_else(|_| Outcome::Failed("the engine has panicked".into()))
}

/// The reader thread: until the connection ends.
fn read_messages(mut receiver: StateReceiver, inbox: &Sender<Result<Message, PeerError>>) {
    loop {
        let message = match receiver.recv(Instant::now() + WATCH) {
            Ok(None) => continue,
            Ok(Some(message)) => Ok(message),
            Err(error) => Err(error),
        };
        let last = message.is_err();
        if inbox.send(message).is_err() || last {
            return;
        }
    }
}

/// Sends a stream to the peer, and keeps the sums of the epoch.
struct PeerSink(StateSender);

impl StreamSink for PeerSink {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.send_stream(parts).map_err(io::Error::other)
    }

    fn end_epoch(&mut self, epoch: Epoch) -> io::Result<()> {
        let sum = self.0.take_sent_sum();
        let end = Message::EpochEnd { epoch, stream_bytes: sum.bytes(), crc: sum.crc() };
        self.0.send(&end).map_err(io::Error::other)
    }
}

struct Callbacks {
    checkpoints: PrimaryConfig,
    save: SaveConfig,
    verify: bool,
    layer: Option<SaveLayer>,
}

struct Engine<'a> {
    domain: Box<dyn Domain>,
    net: PrimaryNetHandle,
    sink: PeerSink,
    shutdown: ShutdownHandle,
    messages: Receiver<Result<Message, PeerError>>,
    alerts: Receiver<Alert>,
    control: &'a Receiver<Control>,
    events: &'a EventSender,
    heartbeat: Duration,
    fence: Option<Box<dyn Fence>>,
}

/// Why protection ended.
#[derive(Debug)]
enum End {
    /// The operator ended protection.
    Protection,
    /// The operator ended everything.
    Stop,
    /// The guest ended.
    Guest(RunState),
    /// The other side was lost.
    Lost(Loss),
    /// This side cannot go on protecting.
    Cannot(String),
    /// The net thread is gone, and with it the clients.
    Net(String),
}

/// How often the engine looks whether its guest still runs.
const WATCH: Duration = Duration::from_millis(100);

impl Engine<'_> {
    fn run(&mut self, callbacks: Callbacks) -> Outcome {
        if let Err(error) = self.domain.resume() {
            return Outcome::Failed(error.to_string());
        }
        let end = self.keep_protected(callbacks);
        self.after(end)
    }

    /// Takes checkpoints until something ends it.
    fn keep_protected(&mut self, callbacks: Callbacks) -> End {
        let primary = Rc::new(RefCell::new(Primary::new(callbacks.checkpoints, self.net.clone())));
        let timings = Timings::default();
        let mut chain: Box<dyn SaveCallbacks> = Box::new(primary.clone());
        if callbacks.verify {
            chain = Box::new(Verified::new(chain));
        }
        if let Some(layer) = callbacks.layer {
            chain = layer(chain);
        }
        let mut chain = Timed::new(chain, timings.clone());
        let mut save = SaveLoop::new(callbacks.save);
        let mut protected = false;
        loop {
            let now = Instant::now();
            let until = match save.step(now, &mut *self.domain, &mut chain, &mut self.sink) {
                Ok(Step::Copying(copy)) => {
                    self.events.send(Event::Copying(copy));
                    now
                }
                Ok(Step::Written(stats)) => {
                    let pause = timings.last_pause().unwrap_or_default();
                    self.events.send(Event::Checkpoint { stats, pause });
                    now
                }
                Ok(Step::Waiting(until)) => until.min(now + WATCH),
                Ok(Step::Working | Step::Done) => now,
                Err(error) => return self.end_of(error),
            };
            if let Err(end) = self.hear(&primary, until) {
                return end;
            }
            if !protected && primary.borrow().staged() >= Epoch::FIRST {
                protected = true;
                self.events.send(Event::Protected(primary.borrow().staged()));
            }
        }
    }

    /// Takes what others have to say, and waits for it until then.
    fn hear(&mut self, primary: &RefCell<Primary<PrimaryNetHandle>>, until: Instant) -> Result<(), End> {
        let run_state = self.domain.run_state();
        if matches!(run_state, RunState::ShutDown | RunState::Crashed) {
            return Err(End::Guest(run_state));
        }
        let mut wait = until;
        loop {
            select! {
                recv(self.alerts) -> alert => self.alert(alert.ok(), primary)?,
                recv(self.messages) -> message => self.message(message.ok(), primary)?,
                recv(self.control) -> control => match control {
                    Ok(Control::Checkpoint) => primary.borrow_mut().handle_trigger(Trigger::Requested),
                    Ok(Control::EndProtection) => return Err(End::Protection),
                    Ok(Control::Stop) | Err(_) => return Err(End::Stop),
                },
                default(wait.saturating_duration_since(Instant::now())) => return Ok(()),
            }
            // Whatever else is there; then back to work.
            wait = Instant::now();
        }
    }

    fn alert(&mut self, alert: Option<Alert>, primary: &RefCell<Primary<PrimaryNetHandle>>) -> Result<(), End> {
        match alert {
            Some(Alert::Trigger(trigger)) => {
                if let (Trigger::Miscompare | Trigger::Unmatched, Some(what)) = (trigger, self.net.divergence()) {
                    self.events.send(Event::Miscompare(what));
                }
                primary.borrow_mut().handle_trigger(trigger);
                Ok(())
            }
            Some(Alert::Lost(loss)) => Err(End::Lost(loss)),
            Some(Alert::NetEnded(why)) => Err(End::Net(why)),
            None => Err(End::Net("the net thread is gone".into())),
        }
    }

    fn message(
        &mut self,
        message: Option<Result<Message, PeerError>>,
        primary: &RefCell<Primary<PrimaryNetHandle>>,
    ) -> Result<(), End> {
        match message {
            Some(Ok(Message::Goodbye(reason))) => Err(End::Lost(Loss::Goodbye(reason))),
            Some(Ok(message)) => primary.borrow_mut().handle_message(&message).map_err(|error| match error {
                EngineError::Net(why) => End::Net(why.to_string()),
                error => End::Lost(Loss::Broken(error.to_string())),
            }),
            Some(Err(error)) => Err(self.verdict_of_net(&error.to_string())),
            None => Err(self.verdict_of_net("the connection broke")),
        }
    }

    /// The state channel broke: what the net thread makes of it counts, since it hears goodbyes and heartbeats.
    fn verdict_of_net(&self, what: &str) -> End {
        let patience = Instant::now() + self.heartbeat * (Detector::MISSED + 1) + WATCH;
        while let Ok(alert) = self.alerts.recv_deadline(patience) {
            match alert {
                Alert::Lost(loss) => return End::Lost(loss),
                Alert::NetEnded(why) => return End::Net(why),
                Alert::Trigger(_) => {}
            }
        }
        End::Cannot(format!("the state channel is gone: {what}"))
    }

    fn end_of(&mut self, error: SaveError) -> End {
        let run_state = self.domain.run_state();
        if matches!(run_state, RunState::ShutDown | RunState::Crashed) {
            return End::Guest(run_state);
        }
        match error {
            SaveError::Sink(error) => self.verdict_of_net(&error.to_string()),
            error => End::Cannot(error.to_string()),
        }
    }

    /// What becomes of the machine.
    fn after(&mut self, end: End) -> Outcome {
        match end {
            End::Protection => self.leave(GoodbyeReason::Stopped, "protection was ended"),
            End::Stop => {
                self.domain.destroy();
                self.goodbye(GoodbyeReason::GuestEnded);
                Outcome::Stopped
            }
            End::Guest(state) => {
                self.goodbye(GoodbyeReason::GuestEnded);
                guest_ended(state)
            }
            End::Cannot(why) => self.leave(GoodbyeReason::Failed(why.clone()), &why),
            // Without its packets this side is dead to its clients; so that the other side takes over, it must be dead.
            End::Net(why) => Outcome::Failed(why),
            End::Lost(loss) => self.lost(&loss),
        }
    }

    /// Serves on without the secondary, once that knows. One that may not have heard may take over: then it is as if it were lost.
    fn leave(&mut self, reason: GoodbyeReason, why: &str) -> Outcome {
        let farewell = self.net.part(reason.clone());
        self.goodbye(reason);
        match farewell {
            Ok(Farewell::Heard) => self.serve_unprotected(why),
            Ok(Farewell::Promoted) => self.lost(&Loss::Goodbye(GoodbyeReason::Promoted)),
            Ok(Farewell::Unheard) => self.lost(&Loss::Broken(format!("no answer to a goodbye ({why})"))),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    fn lost(&mut self, loss: &Loss) -> Outcome {
        self.events.send(Event::PeerLost(loss.to_string()));
        match primary_verdict(loss) {
            PrimaryVerdict::StandDown => {
                self.domain.destroy();
                Outcome::StoodDown
            }
            PrimaryVerdict::GoUnprotected { fence } => {
                // Should it live after all, and be told only now.
                self.goodbye(GoodbyeReason::Failed(loss.to_string()));
                if fence && !self.fence() {
                    self.domain.destroy();
                    return Outcome::Stopped;
                }
                self.serve_unprotected(&loss.to_string())
            }
        }
    }

    /// Fences the secondary, as often as it takes; nothing leaves meanwhile. Returns false when told to stop.
    fn fence(&mut self) -> bool {
        let Some(fence) = &mut self.fence else {
            return true;
        };
        if self.net.shut().is_err() {
            return true;
        }
        while let Err(error) = fence.fence() {
            self.events.send(Event::FenceFailed(error.to_string()));
            if let Ok(Control::Stop) = self.control.recv_timeout(Duration::from_secs(1)) {
                return false;
            }
        }
        true
    }

    fn serve_unprotected(&mut self, why: &str) -> Outcome {
        // A log that is not needed any more costs the guest a little, and nothing else if it cannot be ended.
        let _ = self.domain.disable_dirty_log();
        if let Err(error) = self.net.open() {
            return Outcome::Failed(error.to_string());
        }
        self.events.send(Event::Unprotected(why.to_owned()));
        loop {
            let run_state = self.domain.run_state();
            if matches!(run_state, RunState::ShutDown | RunState::Crashed) {
                return guest_ended(run_state);
            }
            match self.control.recv_timeout(WATCH) {
                Ok(Control::Stop) | Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    self.domain.destroy();
                    return Outcome::Stopped;
                }
                Ok(_) | Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
            }
            if let Ok(Alert::NetEnded(why)) = self.alerts.try_recv() {
                return Outcome::Failed(why);
            }
        }
    }

    /// On the net channel first: the other side believes its net thread.
    fn goodbye(&mut self, reason: GoodbyeReason) {
        let _ = self.net.goodbye(reason.clone());
        let _ = self.sink.0.send(&Message::Goodbye(reason));
        self.shutdown.shutdown();
    }
}

fn guest_ended(state: RunState) -> Outcome {
    match state {
        RunState::Crashed => Outcome::GuestCrashed,
        _ => Outcome::GuestShutDown,
    }
}
