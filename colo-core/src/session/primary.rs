//! A machine under protection: how it is told, and how its threads are wired.

use super::disk_copy::DiskCopy;
use super::disks::Primaries;
use super::event::{Event, EventSender, Events, Outcome};
use super::net_loop::Nic;
use super::primary_engine::{Callbacks, Engine, PeerSink, read_messages};
use super::primary_net::{Ends, PrimaryNetHandle};
use super::recorder::{RecordConfig, RecordFile};
use super::{CONNECT_TIMEOUT, HEARTBEAT, SessionError, WhenUnprotected};
use crate::checkpoint::PrimaryConfig;
use crate::compare::CompareConfig;
use crate::disk::PrimaryDisks;
use crate::domain::{Disks, Machine};
use crate::failover::{Fence, Loss};
use crate::net::Port;
use crate::net::gate::Gate;
use crate::peer::{Channel, Hello, Message, Mode, NetChannel, ShutdownHandle, StateChannel};
use crate::save::{SaveCallbacks, SaveConfig, Trigger};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    /// What becomes of the machine when it is not protected any more.
    pub when_unprotected: WhenUnprotected,
    /// Where miscompares are written down, under COLO. Has the comparator keep evidence.
    pub record: Option<RecordConfig>,
    /// Layers of the embedder's own.
    pub layer: Option<SaveLayer>,
    /// Called once it is known that no other host serves or will serve the machine, before what was held leaves.
    pub on_unprotected: Option<Box<dyn FnOnce() + Send>>,
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
            when_unprotected: WhenUnprotected::Serve,
            record: None,
            layer: None,
            on_unprotected: None,
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
    /// Ends protection; the machine serves on, [here or by itself](WhenUnprotected).
    pub fn end_protection(&self) {
        let _ = self.0.try_send(Control::EndProtection);
    }

    /// Takes a checkpoint soon.
    pub fn checkpoint(&self) {
        let _ = self.0.try_send(Control::Checkpoint);
    }

    /// Ends protection and the machine; with [`WhenUnprotected::Leave`] the machine lives on. Where a fence fails at that moment, so that
    /// the secondary may serve, it is left suspended: see [`Outcome::LeftSuspended`].
    pub fn stop(&self) {
        let _ = self.0.try_send(Control::Stop);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Control {
    EndProtection,
    Checkpoint,
    Stop,
}

/// What the net thread has to say to the engine.
#[derive(Debug)]
pub(super) enum Alert {
    Trigger(Trigger),
    Lost(Loss),
    /// The secondary was heard, since it was asked whether it is.
    Heard,
    /// The machine is being left, and all that was held for its clients is with them.
    Empty,
    /// The net thread itself has ended.
    NetEnded(String),
}

/// A machine's disks, and the way to those that are to be their copy.
pub(super) type DisksAndWay = Option<(Box<dyn PrimaryDisks>, StateChannel)>;

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
    /// Of a machine that has disks.
    disk: Option<StateChannel>,
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
        // By which the other side pairs the two connections.
        session: crate::random::number(),
        mode: config.checkpoints.mode,
        heartbeat_ms: u32::try_from(config.heartbeat.as_millis()).unwrap_or(u32::MAX),
        rehearse: config.checkpoints.rehearse,
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
    let has_disks = !machine.domain.spec().disks.is_empty();
    let disk = if has_disks { Some(open(Channel::Disk)?) } else { None };
    let shutdown = || state.shutdown_handle().map_err(failed);
    let (mut of_net, engine_shutdown, last_shutdown) = (shutdown()?, shutdown()?, shutdown()?);
    if let Some(disk) = &disk {
        of_net = of_net.and(disk.shutdown_handle().map_err(failed)?);
    }
    Ok(Greeted { state, net, disk, shutdown: of_net, engine_shutdown, last_shutdown })
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
    let gate = Gate::new(config.checkpoints.mode, CompareConfig { keep_evidence, ..config.compare })
        .with_rehearsal(config.checkpoints.rehearse);
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
        disks: Primaries::default(),
        disk_events: crossbeam_channel::never(),
        disk_teller: None,
        are_disks_in_step: false,
        disk_copy: DiskCopy::default(),
        sink: PeerSink(sender),
        shutdown: greeted.engine_shutdown,
        messages,
        alerts: alerted,
        control,
        events,
        heartbeat: config.heartbeat,
        fence: config.fence,
        when_unprotected: config.when_unprotected,
        on_unprotected: config.on_unprotected,
        checkpoints: None,
    };
    let callbacks =
        Callbacks { checkpoints: config.checkpoints, save: config.save, verify: config.verify, layer: config.layer };
    let disks = match (machine.disks, greeted.disk) {
        (Disks::Primary(disks), Some(channel)) => Some((disks, channel)),
        _ => None,
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.run(callbacks, disks)));
    if outcome.is_err() {
        // The end of a machine waits for what its disks are doing, and that may wait for what does not come any more.
        let _ = catch_unwind(AssertUnwindSafe(|| engine.disks.with(|disks| disks.detach())));
    }
    let mut outcome = outcome.unwrap_or_else(|_| Outcome::Failed("the engine has panicked".into()));
    if let Outcome::Failed(why) = &outcome {
        if config.when_unprotected == WhenUnprotected::Serve || engine.may_be_taken_over() {
            // Before anything of the connections goes: the other side takes their end for this side's death.
            engine.domain.destroy();
        } else if let Ok(left) = catch_unwind(AssertUnwindSafe(|| engine.leave_unprotected(why))) {
            outcome = left;
        }
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
    outcome
}
