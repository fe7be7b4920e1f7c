//! The secondary's engine: follows its primary, and decides what becomes of the machine when that is lost.

use super::WhenUnprotected;
use super::accept::Knock;
use super::disks::{CommitsDisks, Secondaries};
use super::event::{Event, Outcome};
use super::secondary::{Control, Served, Server, WATCH};
use super::secondary_net::{Alert, SecondaryNetHandle};
use super::stopped::ForgetsFrames;
use crate::checkpoint::{EngineError, Secondary, SecondaryNet};
use crate::domain::{Domain, RunState};
use crate::failover::{CommandFence, Detector, Fence, Loss, OnSilence, SecondaryVerdict, secondary_verdict};
use crate::ids::Epoch;
use crate::layers::Timings;
use crate::net::Port;
use crate::peer::{GoodbyeReason, Hello, Message, Mode, PeerError, StateChannel};
use crate::restore::layers::{Timed, Verified};
use crate::restore::{ColoRestore, RemusRestore, RestoreCallbacks};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often it is looked which connections still need this side: they are many, and end slowly.
const FLOWS_WATCH: Duration = Duration::from_secs(1);

/// How long the guest and the clients that have waited have this host for themselves, before anything is done that they do not wait for.
const SETTLE: Duration = Duration::from_secs(1);

/// Between two attempts to fence.
const FENCE_PAUSE: Duration = Duration::from_secs(1);

/// How long the clients' network may take to accept what waits for it, when the machine is left: one that takes nothing for so long is
/// gone.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what was written to disks may come after the rest of a checkpoint, and the disks may take to have room for it.
const DISKS_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Engine<'a> {
    pub(super) domain: Box<dyn Domain>,
    pub(super) net: SecondaryNetHandle,
    pub(super) disks: Secondaries,
    /// The epoch in which a checkpoint was asked for, for the disks' sake.
    pub(super) has_asked_in: Epoch,
    /// When the primary has last said something on this channel.
    pub(super) heard_at: Instant,
    pub(super) secondary: Secondary<SecondaryNetHandle>,
    pub(super) state: StateChannel,
    pub(super) alerts: Receiver<Alert>,
    pub(super) timings: Timings,
    pub(super) heartbeat: Duration,
    pub(super) peer: String,
    pub(super) hello: Hello,
    pub(super) server: &'a mut Server,
}

/// Why following the primary ended.
enum End {
    Stop,
    Lost(Loss),
    /// This side cannot follow any more.
    Cannot(String),
}

impl Engine<'_> {
    pub(super) fn run(&mut self) -> Served {
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
            End::Cannot(why) => self.end(why),
            End::Lost(loss) => self.lost(&loss),
        }
    }

    fn callbacks(&self) -> Box<dyn RestoreCallbacks> {
        let mut chain: Box<dyn RestoreCallbacks> = match self.hello.mode {
            Mode::Colo => Box::new(ColoRestore::default()),
            Mode::Remus => Box::new(RemusRestore::default()),
        };
        chain = Box::new(ForgetsFrames::new(chain, self.net.clone()));
        chain = Box::new(CommitsDisks::new(chain, self.disks.clone()));
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
        // There is nothing to be promoted to while the primary is there.
        if self.server.control.try_recv() == Ok(Control::Stop) {
            return Err(End::Stop);
        }
        let message = match self.state.recv(Instant::now() + WATCH) {
            Ok(Some(Message::Goodbye(reason))) => return Err(End::Lost(Loss::Goodbye(reason))),
            Ok(Some(message)) => message,
            Ok(None) => return self.wait_on(),
            Err(error) => return Err(self.verdict_of_channel(&error)),
        };
        self.heard_at = Instant::now();
        let cannot = |error: EngineError| End::Cannot(error.to_string());
        self.secondary.handle_message(message, &mut *self.domain, callbacks).map_err(cannot)?;
        if self.secondary.is_staged() {
            self.await_disks(self.secondary.epoch().next())?;
        }
        self.answer();
        if self.secondary.is_staged() {
            self.server.events.send(Event::Staged(self.secondary.epoch().next()));
            let applied = self.secondary.apply(&mut *self.domain, callbacks).map_err(cannot)?;
            self.answer();
            let pause = self.timings.last_pause().unwrap_or_default();
            let way = self.domain.load_way();
            self.server.events.send(Event::Applied { applied, pause, way });
        }
        Ok(())
    }

    /// An epoch is here only with what was written to disks in it.
    fn await_disks(&self, epoch: Epoch) -> Result<(), End> {
        self.disks.set_applying(epoch);
        let end = Instant::now() + DISKS_TIMEOUT;
        loop {
            let until = end.min(Instant::now() + WATCH);
            match self.disks.with(|disks| disks.wait_barrier(epoch, until)) {
                None | Some(true) => return Ok(()),
                Some(false) if Instant::now() < until || until == end => break,
                // A primary that is lost meanwhile is not waited for.
                Some(false) => self.hear_of_net()?,
            }
        }
        let what = "does not come, or this host's disks are too slow for it";
        Err(self.verdict_of_net(format!("what was written to the disks in {epoch} {what}")))
    }

    /// Sends what the engine has to say. That a primary is gone is found by the net thread.
    fn answer(&mut self) {
        while let Some(message) = self.secondary.poll_message() {
            let _ = self.state.send(&message);
        }
    }

    /// Nothing has come.
    fn wait_on(&mut self) -> Result<(), End> {
        // Before it is clear that the primary is lost, and not so soon that the next checkpoint would wait for it.
        if self.heard_at.elapsed() >= self.heartbeat * Detector::MISSED / 2 {
            self.domain.make_ready().map_err(|error| End::Cannot(error.to_string()))?;
        }
        if self.has_asked_in != self.secondary.epoch()
            && self.disks.with(|disks| disks.wants_checkpoint()) == Some(true)
        {
            self.has_asked_in = self.secondary.epoch();
            let _ = self.state.send(&Message::CheckpointWanted);
        }
        self.hear_of_net()
    }

    fn hear_of_net(&self) -> Result<(), End> {
        match self.alerts.try_recv() {
            Ok(Alert::Lost(loss)) => Err(End::Lost(loss)),
            Ok(Alert::NetEnded(why)) => Err(End::Cannot(why)),
            Ok(Alert::Empty) | Err(_) => Ok(()),
        }
    }

    fn verdict_of_channel(&self, error: &PeerError) -> End {
        if !matches!(error, PeerError::Closed | PeerError::Truncated { .. } | PeerError::Io { .. }) {
            return End::Cannot(error.to_string());
        }
        self.verdict_of_net(format!("the state channel is gone while the primary lives: {error}"))
    }

    /// A channel broke: what the net thread makes of it counts, since it hears goodbyes and heartbeats.
    fn verdict_of_net(&self, what: String) -> End {
        match self.alerts.recv_timeout(self.heartbeat * (Detector::MISSED + 1) + WATCH) {
            Ok(Alert::Lost(loss)) => End::Lost(loss),
            Ok(Alert::NetEnded(why)) => End::Cannot(why),
            Ok(Alert::Empty) | Err(_) => End::Cannot(what),
        }
    }

    fn lost(&mut self, loss: &Loss) -> Served {
        let lost_at = Instant::now();
        self.server.events.send(Event::PeerLost(loss.to_string()));
        match secondary_verdict(loss, self.secondary.takeover_epoch(), self.on_silence()) {
            SecondaryVerdict::End(why) => self.end(why),
            SecondaryVerdict::Hold(why) => self.hold(why),
            SecondaryVerdict::TakeOver => Served::Over(self.take_over(lost_at)),
        }
    }

    fn on_silence(&self) -> OnSilence {
        let is_shared = self.disks.with(|disks| disks.needs_fence()) == Some(true);
        match (&self.server.config.fence_command, self.server.config.accept_unfenced) {
            (Some(_), _) => OnSilence::Fence,
            // A primary that writes to the same disks must be dead: its process alone is not enough, nor is a risk that is taken.
            (None, _) if is_shared => OnSilence::HoldAlways,
            (None, true) => OnSilence::TakeOver,
            (None, false) => OnSilence::Hold,
        }
    }

    fn end(&mut self, why: String) -> Served {
        self.domain.destroy();
        self.goodbye(GoodbyeReason::Failed(why.clone()));
        Served::Next(why)
    }

    /// Keeps the guest as it is until somebody says who serves: the operator, or a primary that greets and so lives. The old connection
    /// is kept for the word that this side serves, should the primary sleep.
    fn hold(&mut self, why: String) -> Served {
        if let Err(error) = self.net.freeze() {
            return self.end(error.to_string());
        }
        if let Err(error) = self.domain.hold() {
            return self.end(format!("{why}; and the guest cannot be held: {error}"));
        }
        let (domain, epoch) = (self.hello.spec.name.clone(), self.secondary.epoch());
        self.server.events.send(Event::Held { domain, epoch, why });
        match self.server.knock() {
            Knock::Control(Control::Promote) => Served::Over(self.take_over(Instant::now())),
            Knock::Control(Control::Stop) => {
                self.domain.destroy();
                self.goodbye(GoodbyeReason::Stopped);
                Served::Over(Outcome::Stopped)
            }
            Knock::Pair(pair) => {
                self.domain.destroy();
                self.goodbye(GoodbyeReason::Failed("another session has begun".into()));
                Served::Instead(pair)
            }
        }
    }

    fn take_over(&mut self, lost_at: Instant) -> Outcome {
        if !self.fence() {
            return Outcome::Stopped;
        }
        // It was, or a person has said so: without either nobody comes here whose disks want to know.
        self.disks.with(|disks| disks.fenced());
        // Heard only by a primary that lives after all: it must not serve from here on.
        self.goodbye(GoodbyeReason::Promoted);
        match self.go_live() {
            Ok(resent_frames) => {
                let (epoch, took) = (self.secondary.epoch(), lost_at.elapsed());
                self.server.events.send(Event::TookOver { epoch, took, resent_frames });
                let mut settle_from = Some(Instant::now() + SETTLE);
                let outcome = self.serve(&mut settle_from);
                if settle_from.is_some() {
                    self.settle();
                }
                outcome
            }
            Err(error) => Outcome::Failed(error),
        }
    }

    fn go_live(&mut self) -> Result<usize, String> {
        // First, while there is nothing that could not be ended: with other disks than its memory's it must not serve.
        if let Some(Err(error)) = self.disks.with(|disks| disks.fail_over()) {
            self.domain.destroy();
            return Err(format!("the disks: {error}"));
        }
        let spec = self.domain.spec().clone();
        self.server.host.promote(&spec).map_err(|error| error.to_string())?;
        let lans: Result<Vec<Box<dyn Port>>, _> =
            (0..spec.nics.len()).map(|nic| self.server.host.open_lan(&spec, nic)).collect();
        let lans = lans.map_err(|error| format!("the clients' network: {error}"))?;
        self.domain.resume().map_err(|error| error.to_string())?;
        self.net.go_live(lans).map_err(|error| error.to_string())
    }

    /// Fences the primary, as often as it takes, unless the operator says that it is dead. Returns false when told to stop.
    fn fence(&mut self) -> bool {
        let Some(command) = &self.server.config.fence_command else {
            return true;
        };
        let mut fence = CommandFence::new(command, &self.hello.spec.name, "secondary", &self.peer);
        while let Err(error) = fence.fence() {
            self.server.events.send(Event::FenceFailed(error.to_string()));
            match self.server.control.recv_timeout(FENCE_PAUSE) {
                Ok(Control::Promote) => return true,
                Ok(Control::Stop) => return false,
                Err(_) => {}
            }
        }
        true
    }

    /// What a takeover still leaves to be done.
    fn settle(&mut self) {
        let _ = self.domain.disable_dirty_log();
        self.server.host.took_over(self.domain.spec());
    }

    /// Until told to stop, until the guest ends, or until nobody needs this side any more. When it is time for it, settles, and takes the time.
    fn serve(&mut self, settle_from: &mut Option<Instant>) -> Outcome {
        let mut look_at = Instant::now();
        let leave_from = self.server.config.leave_when_idle.map(|after| look_at + after);
        loop {
            if let Some(ended) = self.guest_ended() {
                return ended;
            }
            if settle_from.take_if(|from| *from <= Instant::now()).is_some() {
                self.settle();
            }
            if look_at <= Instant::now() {
                look_at = Instant::now() + FLOWS_WATCH;
                match self.net.flows_to_rewrite() {
                    Ok(0) if leave_from.is_some_and(|from| from <= Instant::now()) => return self.leave(),
                    Ok(flows) => self.server.flows.set(flows),
                    Err(error) => return Outcome::Failed(error.to_string()),
                }
            }
            match self.server.control.recv_timeout(WATCH) {
                Ok(Control::Promote) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return match self.server.config.when_unprotected {
                        WhenUnprotected::Serve => Outcome::Stopped,
                        WhenUnprotected::Leave => self.leave(),
                    };
                }
            }
            if let Ok(Alert::NetEnded(why)) = self.alerts.try_recv() {
                return Outcome::Failed(why);
            }
        }
    }

    fn guest_ended(&self) -> Option<Outcome> {
        match self.domain.run_state() {
            RunState::Crashed => Some(Outcome::GuestCrashed),
            RunState::ShutDown => Some(Outcome::GuestShutDown),
            RunState::Running | RunState::Suspended => None,
        }
    }

    /// The guest goes on by itself, once its clients have all that waited for them.
    fn leave(&mut self) -> Outcome {
        let _ = self.domain.disable_dirty_log();
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        let asked = self.net.leave();
        while asked.is_ok() {
            match self.alerts.recv_deadline(deadline) {
                Ok(Alert::Empty) => break,
                Ok(Alert::Lost(_)) => {}
                Ok(Alert::NetEnded(why)) => {
                    tracing::error!("what waited for the clients is lost: {why}");
                    break;
                }
                Err(_) => {
                    tracing::error!("the clients' network takes nothing: what waited for it is lost");
                    break;
                }
            }
        }
        self.guest_ended().unwrap_or(Outcome::Left)
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
