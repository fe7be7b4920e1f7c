//! The primary's engine: checkpoints until something ends protection, and then what becomes of the machine.

mod give_way;

use super::WhenUnprotected;
use super::disk_copy::DiskCopy;
use super::disks::{Primaries, WithDisks, disk_events};
use super::event::{Event, EventSender, Outcome};
use super::line::Farewell;
use super::net_loop::Panicked;
use super::primary::{Alert, Control, DisksAndWay};
use super::primary_net::PrimaryNetHandle;
use crate::checkpoint::{EngineError, Primary, PrimaryConfig};
use crate::disk::DiskEvent;
use crate::domain::{Domain, DomainError, RunState};
use crate::failover::{Detector, Fence, Loss, PrimaryVerdict, primary_verdict};
use crate::ids::Epoch;
use crate::layers::Timings;
use crate::peer::{GoodbyeReason, Message, PeerError, ShutdownHandle, StateReceiver, StateSender};
use crate::save::layers::{Timed, Verified};
use crate::save::{SaveCallbacks, SaveConfig, SaveError, SaveLoop, Step, StreamSink, Trigger};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long the clients' network may take to accept what was held for it, when the machine is left: one that takes nothing for so long
/// is gone.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The reader thread: until the connection ends.
pub(super) fn read_messages(mut receiver: StateReceiver, inbox: &Sender<Result<Message, PeerError>>) {
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
pub(super) struct PeerSink(pub(super) StateSender);

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

pub(super) struct Callbacks {
    pub(super) checkpoints: PrimaryConfig,
    pub(super) save: SaveConfig,
    pub(super) verify: bool,
    pub(super) layer: Option<super::SaveLayer>,
}

pub(super) struct Engine<'a> {
    pub(super) domain: Box<dyn Domain>,
    pub(super) net: PrimaryNetHandle,
    pub(super) disks: Primaries,
    pub(super) disk_events: Receiver<DiskEvent>,
    /// Kept, so that the channel does not end with the disks.
    pub(super) disk_teller: Option<Sender<DiskEvent>>,
    pub(super) are_disks_in_step: bool,
    pub(super) disk_copy: DiskCopy,
    pub(super) sink: PeerSink,
    pub(super) shutdown: ShutdownHandle,
    pub(super) messages: Receiver<Result<Message, PeerError>>,
    pub(super) alerts: Receiver<Alert>,
    pub(super) control: &'a Receiver<Control>,
    pub(super) events: &'a EventSender,
    pub(super) heartbeat: Duration,
    pub(super) fence: Option<Box<dyn Fence>>,
    pub(super) when_unprotected: WhenUnprotected,
    pub(super) on_unprotected: Option<Box<dyn FnOnce() + Send>>,
    /// Once checkpoints are taken.
    pub(super) checkpoints: Option<Rc<RefCell<Checkpoints>>>,
}

/// The checkpoints' engine, between the packets and the disks.
pub(super) type Checkpoints = Primary<WithDisks<PrimaryNetHandle>>;

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
    /// A disk of this host's has failed, and the other side can take over.
    Disk(String),
    /// The net thread is gone, and with it the clients.
    Net(String),
}

/// How often the engine looks whether its guest still runs.
const WATCH: Duration = Duration::from_millis(100);

impl Engine<'_> {
    pub(super) fn run(&mut self, callbacks: Callbacks, disks: DisksAndWay) -> Outcome {
        let end = match self.domain.resume() {
            Ok(()) => self.keep_protected(callbacks, disks),
            Err(error) => End::Cannot(error.to_string()),
        };
        if let End::Disk(_) = end {
            self.keep_from_hearing();
        }
        // From here on nobody waits for a checkpoint, and what has failed is told.
        self.disks.with(|disks| disks.detach());
        self.after(end)
    }

    /// Takes checkpoints until something ends it.
    fn keep_protected(&mut self, callbacks: Callbacks, disks: DisksAndWay) -> End {
        let net = WithDisks { net: self.net.clone(), disks: self.disks.clone() };
        let primary = Rc::new(RefCell::new(Primary::new(callbacks.checkpoints, net)));
        self.checkpoints = Some(primary.clone());
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
        let (mut rehearsed, mut protected) = (false, false);
        if let Err(end) = self.copy_disks(disks, &primary) {
            return end;
        }
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
                Err(error) => return self.end_of(error, &primary),
            };
            if let Err(end) = self.hear(&primary, until) {
                return end;
            }
            let likeness = primary.borrow_mut().take_likeness();
            if let Some(likeness) = likeness {
                match self.domain.become_like(&likeness) {
                    Ok(None) => {}
                    Ok(Some(why)) => tracing::info!("its devices have connected anew, for its twin's are: {why}"),
                    Err(error) => return End::Cannot(format!("the guest cannot become like its twin: {error}")),
                }
            }
            if !rehearsed && primary.borrow().is_rehearsed() {
                rehearsed = true;
                self.events.send(Event::Rehearsed);
            }
            if !protected && primary.borrow().is_protected() {
                protected = true;
                self.events.send(Event::Protected(primary.borrow().staged()));
            }
        }
    }

    /// Has the secondary's disks made like the primary's, before memory, which changes faster.
    fn copy_disks(&mut self, disks: DisksAndWay, primary: &RefCell<Checkpoints>) -> Result<(), End> {
        let Some((mut disks, way)) = disks else { return Ok(()) };
        if disks.is_shared() && self.fence.is_none() {
            let why = "the disks are shared with the other host, and there is no fence that would make sure it is dead when it is lost";
            return Err(End::Cannot(why.into()));
        }
        let (on_event, events, kept) = disk_events();
        disks.attach(way, on_event).map_err(|error| End::Cannot(format!("the disks: {error}")))?;
        self.disks.set(disks);
        (self.disk_events, self.disk_teller) = (events, Some(kept));
        while !self.are_disks_in_step {
            self.hear(primary, Instant::now() + WATCH)?;
        }
        Ok(())
    }

    /// Takes what others have to say, and waits for it until then.
    fn hear(&mut self, primary: &RefCell<Checkpoints>, until: Instant) -> Result<(), End> {
        let run_state = self.domain.run_state();
        if matches!(run_state, RunState::ShutDown | RunState::Crashed) {
            return Err(End::Guest(run_state));
        }
        let mut wait = until;
        loop {
            select! {
                recv(self.alerts) -> alert => self.alert(alert.ok(), primary)?,
                recv(self.messages) -> message => self.message(message.ok(), primary)?,
                recv(self.disk_events) -> event => self.disk_event(event.ok(), primary)?,
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

    fn alert(&mut self, alert: Option<Alert>, primary: &RefCell<Checkpoints>) -> Result<(), End> {
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
            Some(Alert::Heard | Alert::Empty) => Ok(()),
            None => Err(End::Net("the net thread is gone".into())),
        }
    }

    fn disk_event(&mut self, event: Option<DiskEvent>, primary: &RefCell<Checkpoints>) -> Result<(), End> {
        match event {
            Some(DiskEvent::Copying { done_bytes, all_bytes, sent_bytes }) => {
                let told = self.disk_copy.observe(Instant::now(), done_bytes, all_bytes, sent_bytes);
                told.into_iter().for_each(|event| self.events.send(event));
            }
            Some(DiskEvent::InStep) => self.are_disks_in_step = true,
            Some(DiskEvent::WantsCheckpoint) => primary.borrow_mut().handle_trigger(Trigger::QueueFull),
            Some(DiskEvent::Failed(why)) => return Err(self.give_way(why, primary)),
            Some(DiskEvent::Lost(why)) => return Err(self.verdict_of_net(&why)),
            None => {}
        }
        Ok(())
    }

    fn message(
        &mut self,
        message: Option<Result<Message, PeerError>>,
        primary: &RefCell<Checkpoints>,
    ) -> Result<(), End> {
        match message {
            Some(Ok(Message::Goodbye(reason))) => Err(End::Lost(Loss::Goodbye(reason))),
            Some(Ok(message)) => primary.borrow_mut().handle_message(&message).map_err(|error| match error {
                EngineError::Net(why) => End::Net(why.to_string()),
                error => End::Lost(Loss::Broken(error.to_string())),
            }),
            Some(Err(error)) => Err(self.verdict_of_net(&format!("the state channel is gone: {error}"))),
            None => Err(self.verdict_of_net("the state channel is gone")),
        }
    }

    /// Another channel broke: what the net thread makes of it counts, since it hears goodbyes and heartbeats.
    fn verdict_of_net(&self, what: &str) -> End {
        self.hear_net().err().unwrap_or_else(|| End::Cannot(what.to_owned()))
    }

    /// Waits for as long as the net thread takes at most to find that the secondary is lost. Returns whether it was heard instead, where that
    /// was [asked for](PrimaryNetHandle::await_peer).
    fn hear_net(&self) -> Result<bool, End> {
        let patience = Instant::now() + self.heartbeat * (Detector::MISSED + 1) + WATCH;
        while let Ok(alert) = self.alerts.recv_deadline(patience) {
            match alert {
                Alert::Lost(loss) => return Err(End::Lost(loss)),
                Alert::NetEnded(why) => return Err(End::Net(why)),
                Alert::Heard => return Ok(true),
                Alert::Trigger(_) | Alert::Empty => {}
            }
        }
        Ok(false)
    }

    fn end_of(&mut self, error: SaveError, primary: &RefCell<Checkpoints>) -> End {
        let run_state = self.domain.run_state();
        if matches!(run_state, RunState::ShutDown | RunState::Crashed) {
            return End::Guest(run_state);
        }
        // A guest whose disk does not answer cannot always be captured.
        if let Some(end) = self.failed_disk(primary) {
            return end;
        }
        match error {
            SaveError::Sink(error) => self.verdict_of_net(&format!("the state channel is gone: {error}")),
            error => End::Cannot(error.to_string()),
        }
    }

    /// What becomes of the machine.
    fn after(&mut self, end: End) -> Outcome {
        match end {
            End::Stop if self.when_unprotected == WhenUnprotected::Serve => {
                self.domain.destroy();
                let _ = self.goodbye(GoodbyeReason::GuestEnded);
                Outcome::Stopped
            }
            End::Protection | End::Stop => match self.part(GoodbyeReason::Stopped, "protection was ended") {
                // As told, and not for a loss.
                Outcome::Unprotected(_) => Outcome::Left,
                outcome => outcome,
            },
            End::Guest(state) => {
                // Whoever starts it anew must be able to write: if the secondary does not hear of this, it may go on from its epoch.
                if self.disks.are_shared() && matches!(self.net.part(GoodbyeReason::GuestEnded), Ok(Farewell::Heard)) {
                    self.disks.with(|disks| disks.alone());
                }
                let _ = self.goodbye(GoodbyeReason::GuestEnded);
                guest_ended(state)
            }
            End::Cannot(why) => self.part(GoodbyeReason::Failed(why.clone()), &why),
            // Without its packets this side is dead to its clients; so that the other side takes over, it must be dead.
            End::Net(why) => Outcome::Failed(why),
            // The same: here the guest would be told, and there it need not be.
            End::Disk(why) => Outcome::Failed(format!("{why}, and the secondary is to take over")),
            End::Lost(loss) => self.lost(&loss),
        }
    }

    /// Goes on without the secondary, once that knows. One that may not have heard may take over: then it is as if it were lost.
    fn part(&mut self, reason: GoodbyeReason, why: &str) -> Outcome {
        let farewell = self.net.part(reason.clone());
        let _ = self.goodbye(reason);
        match farewell {
            Ok(Farewell::Heard) => self.go_unprotected(why),
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
                let told = self.goodbye(GoodbyeReason::Failed(loss.to_string()));
                match (self.fence.is_some(), told) {
                    (true, _) if fence && !self.fence() => self.give_up(loss),
                    // It may live, and will take the end of the connection for this side's death.
                    (false, Err(panicked)) if fence && *loss != Loss::Closed => Outcome::Failed(panicked.to_string()),
                    _ => self.go_unprotected(&loss.to_string()),
                }
            }
        }
    }

    /// Fences the secondary, as often as it takes; nothing leaves meanwhile. Returns false when told to stop.
    fn fence(&mut self) -> bool {
        let Some(fence) = &mut self.fence else {
            return true;
        };
        // A net thread that has panicked lets nothing leave either.
        let _ = self.net.shut();
        while let Err(error) = fence.fence() {
            self.events.send(Event::FenceFailed(error.to_string()));
            if let Ok(Control::Stop) = self.control.recv_timeout(Duration::from_secs(1)) {
                return false;
            }
        }
        true
    }

    /// Told to stop while it is not known that the secondary does not serve: the guest here must not.
    fn give_up(&mut self, loss: &Loss) -> Outcome {
        if self.when_unprotected == WhenUnprotected::Leave && self.domain.suspend().is_ok() {
            return Outcome::LeftSuspended(format!("{loss}, and the secondary may serve"));
        }
        self.domain.destroy();
        Outcome::Stopped
    }

    /// The secondary does not serve, nor will it: the guest here does.
    fn go_unprotected(&mut self, why: &str) -> Outcome {
        self.disks.with(|disks| disks.alone());
        // A log that is not needed any more costs the guest a little, and nothing else if it cannot be ended.
        let _ = self.domain.disable_dirty_log();
        if let Some(on_unprotected) = self.on_unprotected.take() {
            on_unprotected();
        }
        // What keeps protection from going on may have left it standing still.
        let resumed = self.domain.resume();
        let opened = self.net.open();
        self.events.send(Event::Unprotected(why.to_owned()));
        match (self.when_unprotected, opened) {
            (WhenUnprotected::Serve, Ok(())) => self.serve(),
            (WhenUnprotected::Serve, Err(error)) => Outcome::Failed(error.to_string()),
            (WhenUnprotected::Leave, opened) => {
                // Without its net thread the guest has lost what was held, and is the only one that is left all the same.
                if opened.is_ok() {
                    self.empty_gate();
                }
                match (self.domain.run_state(), resumed) {
                    (state @ (RunState::ShutDown | RunState::Crashed), _) => guest_ended(state),
                    // Whoever has suspended it sees to what comes then.
                    (RunState::Suspended, Err(error)) if !matches!(error, DomainError::SuspendedByAnother(_)) => {
                        Outcome::LeftSuspended(format!("{why}; and it cannot be resumed: {error}"))
                    }
                    (RunState::Running | RunState::Suspended, _) => Outcome::Unprotected(why.to_owned()),
                }
            }
        }
    }

    /// Whether the secondary may have a checkpoint to take over from, or come to have one.
    pub(super) fn may_be_taken_over(&self) -> bool {
        self.checkpoints.as_ref().is_some_and(|primary| primary.borrow().may_be_taken_over())
    }

    /// After a failure of this side's own, of a machine that nobody can take over yet, and that can do without this side.
    pub(super) fn leave_unprotected(&mut self, why: &str) -> Outcome {
        let _ = self.goodbye(GoodbyeReason::Failed(why.to_owned()));
        self.go_unprotected(why)
    }

    /// Waits until the clients' network has all that was held.
    fn empty_gate(&mut self) {
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        let asked = self.net.leave();
        while asked.is_ok() {
            match self.alerts.recv_deadline(deadline) {
                Ok(Alert::Empty) => return,
                Ok(Alert::Trigger(_) | Alert::Lost(_) | Alert::Heard) => {}
                Ok(Alert::NetEnded(why)) => return tracing::error!("what was held is lost: {why}"),
                Err(_) => return tracing::error!("the clients' network takes nothing: what was held for it is lost"),
            }
        }
    }

    /// Until told to stop, or until the guest ends.
    fn serve(&mut self) -> Outcome {
        loop {
            let run_state = self.domain.run_state();
            if matches!(run_state, RunState::ShutDown | RunState::Crashed) {
                return guest_ended(run_state);
            }
            match self.control.recv_timeout(WATCH) {
                Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.domain.destroy();
                    return Outcome::Stopped;
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
            if let Ok(Alert::NetEnded(why)) = self.alerts.try_recv() {
                return Outcome::Failed(why);
            }
        }
    }

    /// On the net channel first: the other side believes its net thread.
    fn goodbye(&mut self, reason: GoodbyeReason) -> Result<(), Panicked> {
        let told = self.net.goodbye(reason.clone());
        let _ = self.sink.0.send(&Message::Goodbye(reason));
        self.shutdown.shutdown();
        told
    }
}

fn guest_ended(state: RunState) -> Outcome {
    match state {
        RunState::Crashed => Outcome::GuestCrashed,
        _ => Outcome::GuestShutDown,
    }
}
