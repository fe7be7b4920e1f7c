//! The primary's net thread, in the order of `session/primary_net.rs`.

use crate::guest::Guest;
use crate::points::Points;
use crate::rng::Rng;
use crate::wires::{Side, Wires};
use colo_core::checkpoint::PrimaryNet;
use colo_core::compare::CompareConfig;
use colo_core::domain::StateRecord;
use colo_core::domain::model::ModelDomain;
use colo_core::failover::{Detector, Loss};
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::net::gate::{Gate, Report};
use colo_core::peer::{GoodbyeReason, Message, Mode, NetFrame, PeerError};
use colo_core::save::{CallbackError, Trigger};
use colo_core::stream::NetState;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What the net thread has to say to the engine.
#[derive(Debug)]
pub enum Alert {
    Trigger(Trigger),
    Lost(Loss),
}

pub struct Net {
    mode: Mode,
    pub gate: Gate,
    /// From the clients.
    pub lan_in: VecDeque<Frame>,
    /// To the clients: what has become visible and was not yet looked at.
    pub lan_out: Vec<Frame>,
    input: Vec<Frame>,
    wires: Wires,
    peer: bool,
    detector: Detector,
    pub frozen: bool,
    asked: bool,
    lost: bool,
    reports: BTreeMap<Epoch, Vec<u64>>,
    pub alerts: VecDeque<Alert>,
    /// The most bytes that wait to be sent before packets are left out.
    queue_bytes: usize,
    lan_slowness: usize,
    rng: Rng,
    now: Instant,
}

/// What both net threads are told at the start.
pub struct NetConfig {
    pub mode: Mode,
    pub heartbeat: Duration,
    pub rehearse: bool,
    pub compare: CompareConfig,
    pub queue_bytes: usize,
    /// How often, in a thousand times, the clients' network has room for a part only.
    pub lan_slowness: usize,
}

impl Net {
    pub fn new(config: &NetConfig, wires: Wires, rng: Rng, now: Instant) -> Net {
        Net {
            mode: config.mode,
            gate: Gate::new(config.mode, config.compare.clone()).with_rehearsal(config.rehearse),
            lan_in: VecDeque::new(),
            lan_out: Vec::new(),
            input: Vec::new(),
            wires,
            peer: true,
            detector: Detector::new(config.heartbeat, now),
            frozen: false,
            asked: false,
            lost: false,
            reports: BTreeMap::new(),
            alerts: VecDeque::new(),
            queue_bytes: config.queue_bytes,
            lan_slowness: config.lan_slowness,
            rng,
            now,
        }
    }

    /// One turn of the thread. `domain` is not there while the engine has it.
    pub fn turn(&mut self, now: Instant, domain: Option<&mut ModelDomain>) {
        self.now = now;
        self.hear_peer(now);
        self.watch_peer(now);
        let mut domain = domain.filter(|_| !self.frozen);
        if let Some(domain) = &mut domain {
            if !self.gate.is_full() {
                for frame in Guest(domain).take() {
                    self.gate.handle_primary(0, frame, now);
                }
            }
        }
        self.gate.handle_timeout(now);
        self.release();
        if let Some(domain) = domain {
            self.give_input(domain);
        }
        if let Some(trigger) = self.gate.poll_trigger() {
            self.ask(trigger);
        }
        self.report();
        if self.rng.per_mille(50) {
            // While the thread was busy.
            self.wires.net.flush(Side::Primary);
        }
        if self.peer && self.wires.net.is_broken(Side::Primary) {
            self.hear_peer(now);
            self.lose(Loss::Closed);
        }
    }

    /// Says goodbye, and forgets the peer; its answer is awaited elsewhere. False when there is no peer.
    pub fn part(&mut self, reason: GoodbyeReason) -> bool {
        let _ = self.wires.net.send(Side::Primary, &Message::Goodbye(reason));
        std::mem::take(&mut self.peer)
    }

    pub fn goodbye(&mut self, reason: GoodbyeReason) {
        if std::mem::take(&mut self.peer) {
            let _ = self.wires.net.send(Side::Primary, &Message::Goodbye(reason));
            self.wires.net.close(Side::Primary);
        }
    }

    pub fn open(&mut self) {
        self.drop_peer();
        self.frozen = false;
        self.gate.open();
    }

    fn drop_peer(&mut self) {
        if std::mem::take(&mut self.peer) {
            self.wires.net.close(Side::Primary);
        }
    }

    fn hear_peer(&mut self, now: Instant) {
        if !self.peer || self.lost {
            return;
        }
        let received = loop {
            let message = match self.wires.net.receive(Side::Primary) {
                Ok(Some(message)) => message,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            self.detector.heard(now);
            match message {
                Message::Output { epoch, first, frames } => {
                    for (frame, number) in frames.into_iter().zip(first..) {
                        self.gate.handle_secondary(epoch, number, frame, now);
                    }
                }
                Message::CheckpointWanted => self.ask(Trigger::QueueFull),
                Message::Heartbeat { .. } => {}
                Message::Goodbye(reason) => {
                    self.lose(Loss::Goodbye(reason));
                    return;
                }
                _ => self.lose(Loss::Broken("a message of another channel came on the net channel".into())),
            }
        };
        if let Err(error) = received {
            self.lose(loss_of(error));
        }
    }

    fn watch_peer(&mut self, now: Instant) {
        if !self.peer || self.lost {
            return;
        }
        if self.detector.look(now) {
            self.lose(Loss::Silent);
        } else if let Some(number) = self.detector.heartbeats_due(now) {
            let _ = self.wires.net.send(Side::Primary, &Message::Heartbeat { number });
        }
    }

    fn lose(&mut self, loss: Loss) {
        if matches!(loss, Loss::Closed | Loss::Goodbye(_)) {
            self.drop_peer();
        }
        if !std::mem::replace(&mut self.lost, true) {
            self.gate.shut();
            self.wires.state.close(Side::Primary);
            self.alerts.push_back(Alert::Lost(loss));
        }
    }

    fn release(&mut self) {
        loop {
            let batch = self.gate.next_batch();
            // The clients' network takes what it likes.
            let taken =
                if self.rng.per_mille(self.lan_slowness) { self.rng.below(batch.len() + 1) } else { batch.len() };
            self.lan_out.extend(batch[..taken].iter().map(|release| release.frame.clone()));
            self.gate.released(taken);
            if taken == 0 || taken < batch.len() {
                return;
            }
        }
    }

    fn give_input(&mut self, domain: &mut ModelDomain) {
        if self.input.is_empty() {
            self.input.extend(self.lan_in.drain(..));
        }
        let taken = Guest(domain).give(&self.input);
        self.input[..taken].iter().for_each(|frame| self.gate.handle_input(0, frame));
        let frames: Vec<NetFrame> = self.input.drain(..taken).map(|frame| NetFrame { nic: 0, frame }).collect();
        let epoch = self.gate.epoch();
        if frames.is_empty() || !self.peer || self.mode != Mode::Colo || epoch == Epoch::NONE {
            return;
        }
        if !queue(&self.wires, Side::Primary, self.queue_bytes, &Message::Input { epoch, again: false, frames }) {
            self.ask(Trigger::QueueFull);
        }
    }

    fn report(&mut self) {
        let mut held = None;
        while let Some(report) = self.gate.poll_report() {
            match report {
                Report::Frame { epoch, number } => self.reports.entry(epoch).or_default().push(number),
                Report::Held(epoch) => held = Some(epoch),
            }
        }
        let reports = std::mem::take(&mut self.reports);
        if !self.peer {
            return;
        }
        if let Some(epoch) = held {
            let _ = self.wires.net.send(Side::Primary, &Message::HeldReleased(epoch));
        }
        for (epoch, numbers) in reports {
            queue(&self.wires, Side::Primary, self.queue_bytes, &Message::Released { epoch, numbers });
        }
    }

    fn ask(&mut self, trigger: Trigger) {
        if !std::mem::replace(&mut self.asked, true) {
            self.alerts.push_back(Alert::Trigger(trigger));
        }
    }

    /// The thread runs on while the engine works.
    fn meanwhile(&mut self) {
        if self.rng.per_mille(300) {
            self.turn(self.now, None);
        }
    }
}

/// Packets are left out when there is no room, as `NetChannel::queue` does.
pub fn queue(wires: &Wires, from: Side, limit: usize, message: &Message) -> bool {
    wires.net.queued_bytes(from) < limit && wires.net.send(from, message).is_ok()
}

pub fn loss_of(error: PeerError) -> Loss {
    match error {
        PeerError::Closed | PeerError::Truncated { .. } | PeerError::Io { .. } => Loss::Closed,
        broken => Loss::Broken(broken.to_string()),
    }
}

/// The engine's hand on the net thread.
#[derive(Clone)]
pub struct NetHandle {
    pub net: Rc<RefCell<Net>>,
    pub points: Points,
}

impl PrimaryNet for NetHandle {
    fn freeze(&mut self) -> Result<(), CallbackError> {
        self.points.reach("primary: before the freeze")?;
        let mut net = self.net.borrow_mut();
        net.frozen = true;
        net.meanwhile();
        Ok(self.points.reach("primary: frozen")?)
    }

    fn begin_epoch(&mut self, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        self.points.reach("primary: before the epoch")?;
        let mut net = self.net.borrow_mut();
        net.asked = false;
        let held = net.gate.begin_epoch(epoch);
        let held = held.into_iter().map(|release| NetFrame { nic: release.nic, frame: release.frame }).collect();
        let addresses = net.gate.addresses().claims();
        net.meanwhile();
        self.points.reach("primary: in the epoch")?;
        Ok(NetState { addresses, held }.to_records()?)
    }

    fn thaw(&mut self) -> Result<(), CallbackError> {
        self.points.reach("primary: before the thaw")?;
        self.net.borrow_mut().frozen = false;
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), CallbackError> {
        self.points.reach("primary: before the commit")?;
        let mut net = self.net.borrow_mut();
        net.gate.commit(epoch);
        Ok(self.points.reach("primary: committed, and nothing released")?)
    }

    fn applied(&mut self, epoch: Epoch) -> Result<(), CallbackError> {
        self.points.reach("primary: before it knows of the flush")?;
        let mut net = self.net.borrow_mut();
        let now = net.now;
        net.gate.applied(epoch, now);
        Ok(())
    }
}
