//! The primary's net thread: clients and guest, the gate between them, and the mirror to the secondary.

use super::line::{Farewell, Heard, Line, part};
use super::net_loop::{IDLE, Lane, Nic, PORTION, Panicked, PollSet, RETRY, Source, messages, note_ready, tag};
use super::primary::Alert;
use super::recorder::Recorder;
use super::wake::Waker;
use crate::checkpoint::PrimaryNet;
use crate::domain::StateRecord;
use crate::failover::Loss;
use crate::ids::Epoch;
use crate::net::gate::{Gate, Report};
use crate::peer::{GoodbyeReason, Message, Mode, NetChannel, NetFrame, ShutdownHandle};
use crate::save::{CallbackError, Trigger};
use crate::stream::NetState;
use crossbeam_channel::Sender;
use rustix::event::PollFlags;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long it may wait until the secondary hears what has left. What it has not heard at a failover, it sends again.
const REPORT_AFTER: Duration = Duration::from_millis(10);

/// As many do not wait.
const MAX_REPORTS: usize = 1024;

/// The engine's hand on the net thread.
#[derive(Clone)]
pub(super) struct PrimaryNetHandle(Arc<Shared>);

struct Shared {
    lane: Lane<State>,
    waker: Waker,
    stop: AtomicBool,
}

struct State {
    mode: Mode,
    gate: Gate,
    nics: Vec<Nic>,
    line: Line,
    /// The guest's memory is the engine's for now.
    frozen: bool,
    /// A checkpoint was asked for in this epoch.
    asked: bool,
    /// The engine waits for the next sign of the peer.
    awaited: bool,
    /// The machine is left as soon as nothing waits here.
    leaving: bool,
    /// What was said to have left, to be reported together, and since when it waits.
    reports: BTreeMap<Epoch, Vec<u64>>,
    reports_since: Option<Instant>,
    alerts: Sender<Alert>,
    /// Where miscompares are written down.
    recorder: Option<Recorder>,
}

/// The ends of a net thread's connections: the domain's cards, and the channel to the secondary.
pub(super) struct Ends {
    pub(super) nics: Vec<Nic>,
    pub(super) peer: NetChannel,
    /// Shut down when the peer is lost, so that nobody waits on the state channel for it, nor on the disks'.
    pub(super) state: ShutdownHandle,
}

impl PrimaryNetHandle {
    /// The state of a net thread that is not running yet.
    pub(super) fn new(
        mode: Mode,
        gate: Gate,
        ends: Ends,
        heartbeat: Duration,
        alerts: Sender<Alert>,
    ) -> io::Result<Self> {
        let state = State {
            mode,
            gate,
            nics: ends.nics,
            line: Line::new(ends.peer, ends.state, heartbeat),
            frozen: false,
            asked: false,
            awaited: false,
            leaving: false,
            reports: BTreeMap::new(),
            reports_since: None,
            alerts,
            recorder: None,
        };
        Ok(PrimaryNetHandle(Arc::new(Shared {
            lane: Lane::new(state),
            waker: Waker::new()?,
            stop: AtomicBool::new(false),
        })))
    }

    /// Miscompares are written down from here on.
    pub(super) fn record(&self, recorder: Recorder) -> Result<(), Panicked> {
        self.0.lane.first()?.recorder = Some(recorder);
        Ok(())
    }

    /// The net thread: until [`PrimaryNetHandle::stop`].
    pub(super) fn run(&self) -> Result<(), CallbackError> {
        let set = {
            let state = self.0.lane.first()?;
            PollSet::new(&state.nics, state.line.channel())?
        };
        let mut ready = vec![Source::Peer];
        while !self.0.stop.load(Ordering::SeqCst) {
            let (wanted, timeout) = {
                let mut state = self.0.lane.after_others()?;
                let is_peer_ready = note_ready(&ready, &mut state.nics);
                state.line.note_ready(is_peer_ready);
                let is_more = self.0.lane.turns(|| state.turn(Instant::now()));
                let timeout = if is_more { Duration::ZERO } else { state.timeout(Instant::now()) };
                (state.wanted(), timeout)
            };
            ready = set.sleep(&self.0.waker, &wanted, timeout)?;
        }
        self.0.lane.first()?.line.finish();
        Ok(())
    }

    /// One turn, as if it were that moment.
    #[cfg(test)]
    pub(super) fn turn(&self, now: Instant) -> Result<bool, Panicked> {
        Ok(self.0.lane.first()?.turn(now))
    }

    /// Ends the net thread.
    pub(super) fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.0.waker.wake();
    }

    /// Says goodbye to the secondary, should it be there, and nothing more from here on.
    pub(super) fn goodbye(&self, reason: GoodbyeReason) -> Result<(), Panicked> {
        self.0.lane.first()?.line.say_goodbye(reason);
        self.0.waker.wake();
        Ok(())
    }

    /// Says goodbye to the secondary, and nothing more from here on, and waits for it to have heard. Meanwhile nothing leaves that might not.
    pub(super) fn part(&self, reason: GoodbyeReason) -> Result<Farewell, Panicked> {
        // Not under the lock: clients and guest have nothing to do with it.
        let Some(mut peer) = self.0.lane.first()?.line.take() else {
            return Ok(Farewell::Unheard);
        };
        let farewell = part(&mut peer, reason);
        if farewell == Farewell::Unheard {
            self.0.lane.first()?.line.give_back(peer);
            self.0.waker.wake();
        }
        Ok(farewell)
    }

    /// Lets nothing leave any more.
    pub(super) fn shut(&self) -> Result<(), Panicked> {
        self.0.lane.first()?.gate.shut();
        Ok(())
    }

    /// Lets everything leave from here on.
    pub(super) fn open(&self) -> Result<(), Panicked> {
        let mut state = self.0.lane.first()?;
        state.frozen = false;
        state.gate.open();
        drop(state);
        self.0.waker.wake();
        Ok(())
    }

    /// Tells the engine, by [`Alert::Heard`], when the secondary is heard next; nothing when it is lost, which is told as ever.
    pub(super) fn await_peer(&self) -> Result<(), Panicked> {
        self.0.lane.first()?.awaited = true;
        Ok(())
    }

    /// Tells the engine, by [`Alert::Empty`], when nothing is under way in either direction any more; from then on nothing is taken.
    pub(super) fn leave(&self) -> Result<(), Panicked> {
        let mut state = self.0.lane.first()?;
        state.leaving = true;
        state.nics.iter_mut().for_each(Nic::look_again);
        drop(state);
        self.0.waker.wake();
        Ok(())
    }

    /// In what the outputs differed last.
    pub(super) fn divergence(&self) -> Option<String> {
        self.0.lane.first().ok()?.gate.divergence().map(ToString::to_string)
    }
}

impl PrimaryNet for PrimaryNetHandle {
    fn freeze(&mut self) -> Result<(), CallbackError> {
        self.0.lane.first()?.frozen = true;
        Ok(())
    }

    fn begin_epoch(&mut self, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        let mut state = self.0.lane.first()?;
        state.asked = false;
        let now = Instant::now();
        state.take_left_output(now);
        let held = state.gate.begin_epoch(epoch);
        // What the guest has not taken it will take in this epoch; the secondary's guest, which becomes the same, forgets that it did.
        for index in 0..state.nics.len() {
            let Nic { guest, input, .. } = &mut state.nics[index];
            let mut left = Vec::new();
            // A ring that is gone belongs to a guest that is gone; the engine sees that by itself.
            let _ = guest.take_back(&mut left);
            input.splice(..0, left);
            state.mirror(index, true, now);
        }
        let mut bytes = 0;
        // Beyond the limit clients would have to wait for a retransmission, were the primary to die now.
        let held = held
            .into_iter()
            .map(|release| NetFrame { nic: release.nic, frame: release.frame })
            .take(NetState::MAX_HELD_FRAMES)
            .take_while(|frame| {
                bytes += frame.frame.len();
                bytes <= NetState::MAX_HELD_BYTES
            })
            .collect();
        Ok(NetState { addresses: state.gate.addresses().claims(), held }.to_records()?)
    }

    fn thaw(&mut self) -> Result<(), CallbackError> {
        self.0.lane.first()?.frozen = false;
        self.0.waker.wake();
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), CallbackError> {
        self.0.lane.first()?.gate.commit(epoch);
        self.0.waker.wake();
        Ok(())
    }

    fn applied(&mut self, epoch: Epoch) -> Result<(), CallbackError> {
        self.0.lane.first()?.gate.applied(epoch, Instant::now());
        self.0.waker.wake();
        Ok(())
    }
}

impl State {
    /// Moves some of what can be moved now: the peer must hear from this side in time, whatever waits. Returns whether anything did.
    fn turn(&mut self, now: Instant) -> bool {
        let mut moved = self.line.take_ready() && self.hear_peer(now);
        self.watch_peer(now);
        if !self.frozen {
            moved |= self.take_output(now);
        }
        self.gate.handle_timeout(now);
        moved |= self.release();
        if !self.frozen {
            moved |= self.give_input(now);
        }
        if let Some(trigger) = self.gate.poll_trigger() {
            self.record();
            self.ask(trigger);
        }
        self.report(now);
        if let Some(loss) = self.line.flush() {
            // Its last words may have come meanwhile, and only they tell who serves.
            while self.hear_peer(now) {}
            self.lose(loss);
        }
        let is_empty = self.gate.is_empty() && self.nics.iter().all(|nic| nic.input.is_empty());
        if self.leaving && is_empty && !self.line.is_parting(now) {
            (self.leaving, self.frozen) = (false, true);
            self.tell(Alert::Empty);
        }
        moved
    }

    fn hear_peer(&mut self, now: Instant) -> bool {
        let Heard { any, messages, loss } = self.line.hear(now);
        for message in messages {
            match message {
                Message::Output { epoch, first, frames } => {
                    for (frame, number) in frames.into_iter().zip(first..) {
                        self.gate.handle_secondary(epoch, number, frame, now);
                    }
                }
                Message::CheckpointWanted => self.ask(Trigger::QueueFull),
                _ => self.lose(Loss::Broken("a message of another channel came on the net channel".into())),
            }
        }
        if let Some(loss) = loss {
            self.lose(loss);
        }
        if any && self.line.is_open() && std::mem::take(&mut self.awaited) {
            self.tell(Alert::Heard);
        }
        any
    }

    fn watch_peer(&mut self, now: Instant) {
        if self.line.must_hear(now) {
            self.hear_peer(now);
        }
        if let Some(loss) = self.line.watch(now) {
            self.lose(loss);
        }
    }

    /// From here on nothing leaves until the engine has decided who serves.
    fn lose(&mut self, loss: Loss) {
        if self.line.lose(&loss) {
            self.gate.shut();
            self.tell(Alert::Lost(loss));
        }
    }

    fn take_output(&mut self, now: Instant) -> bool {
        let mut moved = false;
        let mut frames = Vec::new();
        for (index, nic) in self.nics.iter_mut().enumerate() {
            if self.gate.is_full() {
                break;
            }
            moved |= nic.read_guest(&mut frames) > 0;
            for frame in frames.drain(..) {
                self.gate.handle_primary(index as u8, frame, now);
            }
        }
        moved
    }

    /// The guest stands still. What it had said by then belongs to the epoch that ends now, if the captured memory does not have it any
    /// more: the secondary will not say it again.
    fn take_left_output(&mut self, now: Instant) {
        let mut frames = Vec::new();
        for (index, nic) in self.nics.iter_mut().enumerate().filter(|(_, nic)| nic.guest.has_left_guest()) {
            while nic.guest.receive(&mut frames).unwrap_or(0) > 0 {
                frames.drain(..).for_each(|frame| self.gate.handle_primary(index as u8, frame, now));
            }
        }
    }

    fn release(&mut self) -> bool {
        let batch = self.gate.next_batch();
        let Some(nic) = batch.first().map(|first| usize::from(first.nic)) else { return false };
        let frames: Vec<_> = batch.into_iter().take(PORTION).map(|release| release.frame).collect();
        let sent = match self.nics.get_mut(nic).and_then(|nic| nic.lan.as_mut()) {
            Some(lan) => lan.send(&frames),
            None => Ok(frames.len()),
        };
        match sent {
            Ok(sent) => {
                self.gate.released(sent);
                sent > 0
            }
            // A cable that was pulled: what is said into it is gone.
            Err(error) => {
                self.lose_lan(nic, &error);
                true
            }
        }
    }

    fn give_input(&mut self, now: Instant) -> bool {
        let mut moved = false;
        for index in 0..self.nics.len() {
            let mut frames = Vec::new();
            if let Err(error) = self.nics[index].read_lan(&mut frames) {
                self.lose_lan(index, &error);
            }
            if !frames.is_empty() {
                self.nics[index].input.append(&mut frames);
                self.mirror(index, false, now);
            }
            let taken = self.nics[index].feed_guest();
            moved |= !taken.is_empty();
            taken.iter().for_each(|frame| self.gate.handle_input(index as u8, frame));
        }
        moved
    }

    /// Sends the secondary what waits for the guest, in the same epoch and order, and at once: on a busy host the guest takes the processor
    /// when it is given something, and what it says then waits for what the secondary says.
    fn mirror(&mut self, nic: usize, again: bool, now: Instant) {
        let (epoch, frames) = (self.gate.epoch(), self.nics[nic].input.clone());
        let is_told = self.mode == Mode::Colo && epoch != Epoch::NONE && !frames.is_empty();
        if !is_told || !self.line.is_open() {
            return;
        }
        let mut lost = false;
        messages(tag(nic, frames), |frames| lost |= !self.line.queue(&Message::Input { epoch, again, frames }));
        if lost {
            // The secondary has not seen what the primary has: they differ from here on.
            self.ask(Trigger::QueueFull);
        }
        self.report(now);
        // If it cannot be sent, the end of the turn tells.
        let _ = self.line.flush();
    }

    fn lose_lan(&mut self, nic: usize, error: &io::Error) {
        if self.nics.get_mut(nic).and_then(|nic| nic.lan.take()).is_some() {
            tracing::error!("card {nic}: the clients' network is gone: {error}");
        }
    }

    /// Tells the secondary what has left: along with something else, or when that has waited for a while. A message of its own for each
    /// packet would wake both hosts once more for it.
    fn report(&mut self, now: Instant) {
        let mut held = None;
        while let Some(report) = self.gate.poll_report() {
            match report {
                Report::Frame { epoch, number } => {
                    self.reports.entry(epoch).or_default().push(number);
                    self.reports_since.get_or_insert(now);
                }
                Report::Held(epoch) => held = Some(epoch),
            }
        }
        if !self.line.is_open() {
            self.reports.clear();
            self.reports_since = None;
            return;
        }
        // Unreported frames cost the secondary memory, and at a failover a duplicate: no reason to fail.
        if let Some(epoch) = held {
            self.line.queue(&Message::HeldReleased(epoch));
        }
        let is_due = self.reports_since.is_some_and(|since| now >= since + REPORT_AFTER);
        let are_many = self.reports.values().map(Vec::len).sum::<usize>() >= MAX_REPORTS;
        if self.line.wants_write() || is_due || are_many {
            for (epoch, numbers) in std::mem::take(&mut self.reports) {
                self.line.queue(&Message::Released { epoch, numbers });
            }
            self.reports_since = None;
        }
    }

    /// Hands on what both machines had said, to be written down.
    fn record(&mut self) {
        if let (Some(recorder), Some(divergence)) = (&mut self.recorder, self.gate.take_evidence()) {
            recorder.submit(self.gate.epoch(), divergence);
        }
    }

    /// Asks for a checkpoint, once in an epoch.
    fn ask(&mut self, trigger: Trigger) {
        if !std::mem::replace(&mut self.asked, true) {
            self.tell(Alert::Trigger(trigger));
        }
    }

    fn tell(&self, alert: Alert) {
        // Full only if the engine has ended: there are two alerts in an epoch at most, and two at the end.
        let _ = self.alerts.try_send(alert);
    }

    fn wanted(&self) -> Vec<(Source, PollFlags)> {
        let mut wanted: Vec<_> = self.line.wanted().into_iter().collect();
        if self.frozen {
            return wanted;
        }
        for (index, nic) in self.nics.iter().enumerate() {
            if !self.gate.is_full() {
                wanted.push((Source::Guest(index), PollFlags::IN));
            }
            if nic.lan.is_some() && nic.input.is_empty() {
                wanted.push((Source::Lan(index), PollFlags::IN));
            }
        }
        wanted
    }

    fn timeout(&mut self, now: Instant) -> Duration {
        let mut until = now + IDLE;
        let report = self.reports_since.map(|since| since + REPORT_AFTER);
        for timeout in self.line.poll_timeout().into_iter().chain(self.gate.poll_timeout()).chain(report) {
            until = until.min(timeout);
        }
        let blocked = !self.gate.next_batch().is_empty() || self.nics.iter().any(|nic| !nic.input.is_empty());
        if blocked && !self.frozen {
            until = until.min(now + RETRY);
        }
        until.saturating_duration_since(now)
    }
}
