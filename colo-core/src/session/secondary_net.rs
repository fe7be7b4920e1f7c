//! The secondary's net thread: the primary's mirror to the guest, the guest's output to the primary; and, once it serves, the
//! clients' network.

use super::line::{Heard, Line};
use super::net_loop::{IDLE, Lane, Nic, PORTION, Panicked, PollSet, RETRY, Source, messages, note_ready, tag};
use super::wake::Waker;
use crate::checkpoint::SecondaryNet;
use crate::domain::StateRecord;
use crate::failover::Loss;
use crate::ids::Epoch;
use crate::net::announce::Address;
use crate::net::standby::Standby;
use crate::net::{Frame, Port};
use crate::peer::{GoodbyeReason, Hello, Message, Mode, NetChannel, NetFrame, ShutdownHandle};
use crate::save::CallbackError;
use crate::stream::NetState;
use crossbeam_channel::Sender;
use rustix::event::PollFlags;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The engine's hand on the net thread.
#[derive(Clone)]
pub(super) struct SecondaryNetHandle(Arc<Shared>);

struct Shared {
    lane: Lane<State>,
    waker: Waker,
    stop: AtomicBool,
}

struct State {
    mode: Mode,
    /// Whether the first two epochs are a rehearsal.
    rehearse: bool,
    standby: Standby,
    nics: Vec<Nic>,
    line: Line,
    /// The guest does not run, or its memory is the engine's for now.
    frozen: bool,
    /// A checkpoint was asked for in this epoch.
    asked: bool,
    /// This side serves.
    live: bool,
    /// The machine is left as soon as nothing waits here.
    leaving: bool,
    /// Once it serves: for the clients, who have no room.
    output: VecDeque<NetFrame>,
    /// Counted up when the ports that are polled change.
    ports_changed: u64,
    alerts: Sender<Alert>,
}

/// What the net thread has to say to the engine.
#[derive(Debug)]
pub(super) enum Alert {
    Lost(Loss),
    /// The machine is being left, and all that its clients were to have is with them.
    Empty,
    /// The net thread itself has ended.
    NetEnded(String),
}

/// The most bytes of output that wait for the clients' network once the guest serves: a quarter of a second at full speed. Then
/// its ring fills, as behind a slow card.
const MAX_OUTPUT_FRAMES: usize = 4096;

impl SecondaryNetHandle {
    /// The state of a net thread that is not running yet.
    pub(super) fn new(
        hello: &Hello,
        guests: Vec<Box<dyn Port>>,
        peer: NetChannel,
        state: ShutdownHandle,
        heartbeat: Duration,
        alerts: Sender<Alert>,
    ) -> io::Result<Self> {
        let mut standby = Standby::default();
        // A machine that has said nothing yet must be announced, too.
        for (nic, card) in (0..).zip(&hello.spec.nics) {
            standby.add_address(Address { nic, mac: card.mac, ipv4: card.ipv4 });
        }
        let state = State {
            mode: hello.mode,
            rehearse: hello.rehearse,
            standby,
            nics: guests.into_iter().map(|guest| Nic::new(guest, None)).collect(),
            line: Line::new(peer, state, heartbeat),
            frozen: true,
            asked: false,
            live: false,
            leaving: false,
            output: VecDeque::new(),
            ports_changed: 0,
            alerts,
        };
        Ok(SecondaryNetHandle(Arc::new(Shared {
            lane: Lane::new(state),
            waker: Waker::new()?,
            stop: AtomicBool::new(false),
        })))
    }

    /// The net thread: until [`SecondaryNetHandle::stop`].
    pub(super) fn run(&self) -> Result<(), CallbackError> {
        let (mut set, mut ports) = self.0.lane.first()?.poll_set()?;
        let mut ready = vec![Source::Peer];
        while !self.0.stop.load(Ordering::SeqCst) {
            let (wanted, timeout) = {
                let mut state = self.0.lane.after_others()?;
                if state.ports_changed != ports {
                    (set, ports) = state.poll_set()?;
                }
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

    /// The guest stands still: what is under way between it and this side, and not in its memory, was of the epoch that ends now.
    pub(super) fn forget_frames(&self) -> Result<(), Panicked> {
        let mut state = self.0.lane.first()?;
        let mut frames = Vec::new();
        for nic in &mut state.nics {
            // A ring that is gone belongs to a guest that is gone; the engine sees that by itself.
            let _ = nic.guest.take_back(&mut frames);
            while nic.guest.has_left_guest() && nic.guest.receive(&mut frames).unwrap_or(0) > 0 {
                frames.clear();
            }
        }
        Ok(())
    }

    /// Says goodbye to the primary, should it be there, and nothing more from here on.
    pub(super) fn goodbye(&self, reason: GoodbyeReason) -> Result<(), Panicked> {
        self.0.lane.first()?.line.say_goodbye(reason);
        self.0.waker.wake();
        Ok(())
    }

    /// How many connections break if nobody rewrites their numbers any more.
    pub(super) fn flows_to_rewrite(&self) -> Result<usize, Panicked> {
        Ok(self.0.lane.first()?.standby.flows_to_rewrite(Instant::now()))
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

    /// The guest serves from here on, through these ways to its clients. It is announced, and the output that clients may be
    /// missing is sent first; returns how many frames that is.
    pub(super) fn go_live(&self, lans: Vec<Box<dyn Port>>) -> Result<usize, Panicked> {
        let mut state = self.0.lane.first()?;
        state.live = true;
        state.standby.go_live();
        for (nic, lan) in state.nics.iter_mut().zip(lans) {
            nic.lan = Some(lan);
        }
        let unreleased = state.standby.take_unreleased();
        let resent = unreleased.len();
        let announcements: Vec<_> = state.standby.addresses().announcements().collect();
        state.output.extend(announcements.into_iter().map(|(nic, frame)| NetFrame { nic, frame }));
        state.output.extend(unreleased);
        state.frozen = false;
        state.ports_changed += 1;
        state.send_output();
        drop(state);
        self.0.waker.wake();
        Ok(resent)
    }
}

impl SecondaryNet for SecondaryNetHandle {
    fn freeze(&mut self) -> Result<(), CallbackError> {
        self.0.lane.first()?.frozen = true;
        Ok(())
    }

    fn begin_epoch(&mut self, epoch: Epoch, records: Vec<StateRecord>) -> Result<(), CallbackError> {
        let net_state = NetState::from_records(&records)?;
        let mut state = self.0.lane.first()?;
        state.standby.begin_epoch(epoch, net_state);
        // What the guest did not take belonged to the epoch before: the new memory has it, or does not need it.
        for nic in &mut state.nics {
            nic.input.clear();
        }
        state.asked = false;
        // Under Remus the guest stays as it was captured: what its rings hold is for the time when it serves.
        state.frozen = state.mode == Mode::Remus;
        drop(state);
        self.0.waker.wake();
        Ok(())
    }
}

impl State {
    fn poll_set(&self) -> io::Result<(PollSet, u64)> {
        Ok((PollSet::new(&self.nics, self.line.channel())?, self.ports_changed))
    }

    /// Moves some of what can be moved now: the peer must hear from this side in time, whatever waits. Returns whether anything did.
    fn turn(&mut self, now: Instant) -> bool {
        let mut moved = self.line.take_ready() && self.hear_peer(now);
        self.watch_peer(now);
        if !self.frozen {
            moved |= self.give_input();
            moved |= self.take_output();
            moved |= self.send_output();
        }
        if self.standby.wants_checkpoint() && !self.asked {
            self.asked = true;
            self.line.queue(&Message::CheckpointWanted);
        }
        if let Some(loss) = self.line.flush() {
            // Its last words may have come meanwhile, and only they tell who serves.
            while self.hear_peer(now) {}
            self.lose(loss);
        }
        let is_empty = self.output.is_empty() && self.nics.iter().all(|nic| nic.input.is_empty());
        if self.leaving && is_empty && !self.line.is_parting(now) {
            (self.leaving, self.frozen) = (false, true);
            let _ = self.alerts.try_send(Alert::Empty);
        }
        moved
    }

    fn hear_peer(&mut self, now: Instant) -> bool {
        let Heard { any, messages, loss } = self.line.hear(now);
        for message in messages {
            match message {
                Message::Input { epoch, again, frames } => self.standby.handle_input(epoch, again, frames),
                Message::Released { epoch, numbers } => self.standby.handle_released(epoch, &numbers),
                Message::HeldReleased(epoch) => self.standby.handle_held_released(epoch),
                _ => self.lose(Loss::Broken("a message of another channel came on the net channel".into())),
            }
        }
        if let Some(loss) = loss {
            self.lose(loss);
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

    /// Tells the engine, once.
    fn lose(&mut self, loss: Loss) {
        if self.line.lose(&loss) {
            let _ = self.alerts.try_send(Alert::Lost(loss));
        }
    }

    fn give_input(&mut self) -> bool {
        let mut moved = false;
        for index in 0..self.nics.len() {
            if self.nics[index].lan.is_some() {
                moved |= self.read_clients(index);
            }
            if self.nics[index].input.is_empty() {
                self.nics[index].input = self.next_input(index as u8);
            }
            moved |= !self.nics[index].feed_guest().is_empty();
        }
        moved
    }

    fn next_input(&mut self, nic: u8) -> Vec<Frame> {
        let mut batch = self.standby.next_input(nic);
        if self.is_rehearsing() {
            // What its guest has missed while it was loaded would keep this side from loading the checkpoint that begins protection, and for
            // nothing: that has it all.
            loop {
                let next = self.standby.next_input(nic);
                if next.is_empty() {
                    break;
                }
                batch = next;
            }
            batch.drain(..batch.len().saturating_sub(PORTION));
        }
        batch
    }

    /// Whether nobody compares what its guest says, and nobody will miss it.
    fn is_rehearsing(&self) -> bool {
        self.standby.epoch() < Epoch::first_protected(self.rehearse)
    }

    /// What the clients say goes the same way as the mirror's: through the numbers that the guest knows.
    fn read_clients(&mut self, index: usize) -> bool {
        let mut frames = Vec::new();
        if let Err(error) = self.nics[index].read_lan(&mut frames) {
            self.lose_lan(index, &error);
        }
        let moved = !frames.is_empty();
        for frame in tag(index, frames) {
            self.standby.live_input(frame);
        }
        moved
    }

    fn take_output(&mut self) -> bool {
        let mut moved = false;
        let mut frames = Vec::new();
        for index in 0..self.nics.len() {
            if self.standby.is_full() || self.output.len() >= MAX_OUTPUT_FRAMES {
                break;
            }
            moved |= self.nics[index].read_guest(&mut frames) > 0;
            let tagged = tag(index, std::mem::take(&mut frames));
            if self.live {
                for frame in tagged {
                    let frame = self.standby.live_output(frame);
                    self.output.push_back(frame);
                }
            } else {
                self.send_to_primary(tagged);
            }
        }
        moved
    }

    fn send_to_primary(&mut self, frames: Vec<NetFrame>) {
        if self.is_rehearsing() {
            return frames.into_iter().for_each(|frame| self.standby.pass_over(frame));
        }
        let mut first = None;
        let mut rewritten = Vec::with_capacity(frames.len());
        for frame in frames {
            let (number, frame) = self.standby.handle_output(frame);
            first.get_or_insert(number);
            rewritten.push(frame);
        }
        let Some(mut first) = first else { return };
        let epoch = self.standby.epoch();
        let mut out = Vec::new();
        messages(rewritten, |frames| {
            let count = frames.len() as u64;
            out.push(Message::Output { epoch, first, frames });
            first += count;
        });
        for message in &out {
            // What does not fit leaves the machines different, and the primary finds that by its time-out.
            self.line.queue(message);
        }
    }

    /// Sends the clients some of what waits for them.
    fn send_output(&mut self) -> bool {
        let Some(nic) = self.output.front().map(|first| first.nic) else { return false };
        let frames = self.output.iter().take_while(|frame| frame.nic == nic).take(PORTION);
        let frames: Vec<_> = frames.map(|frame| frame.frame.clone()).collect();
        let nic = usize::from(nic);
        let sent = match self.nics.get_mut(nic).and_then(|nic| nic.lan.as_mut()) {
            Some(lan) => lan.send(&frames),
            None => Ok(frames.len()),
        };
        match sent {
            Ok(sent) => self.output.drain(..sent).count() > 0,
            // A cable that was pulled: what is said into it is gone.
            Err(error) => {
                self.lose_lan(nic, &error);
                true
            }
        }
    }

    fn lose_lan(&mut self, nic: usize, error: &io::Error) {
        if self.nics.get_mut(nic).and_then(|nic| nic.lan.take()).is_some() {
            tracing::error!("card {nic}: the clients' network is gone: {error}");
        }
    }

    fn wanted(&self) -> Vec<(Source, PollFlags)> {
        let mut wanted: Vec<_> = self.line.wanted().into_iter().collect();
        if self.frozen {
            return wanted;
        }
        for (index, nic) in self.nics.iter().enumerate() {
            if !self.standby.is_full() && self.output.len() < MAX_OUTPUT_FRAMES {
                wanted.push((Source::Guest(index), PollFlags::IN));
            }
            if nic.lan.is_some() && nic.input.is_empty() {
                wanted.push((Source::Lan(index), PollFlags::IN));
            }
        }
        wanted
    }

    fn timeout(&self, now: Instant) -> Duration {
        let mut until = self.line.poll_timeout().map_or(now + IDLE, |timeout| timeout.min(now + IDLE));
        let blocked = !self.output.is_empty() || self.nics.iter().any(|nic| !nic.input.is_empty());
        if blocked && !self.frozen {
            until = until.min(now + RETRY);
        }
        until.saturating_duration_since(now)
    }
}
