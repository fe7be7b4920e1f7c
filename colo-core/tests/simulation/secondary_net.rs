//! The secondary's net thread, in the order of `session/secondary_net.rs`.

use crate::guest::Guest;
use crate::points::Points;
use crate::primary_net::{NetConfig, loss_of, queue};
use crate::rng::Rng;
use crate::wires::{Side, Wires};
use colo_core::checkpoint::SecondaryNet;
use colo_core::domain::StateRecord;
use colo_core::domain::model::ModelDomain;
use colo_core::failover::{Detector, Loss};
use colo_core::ids::Epoch;
use colo_core::net::Frame;
use colo_core::net::standby::Standby;
use colo_core::peer::{GoodbyeReason, Message, Mode, NetFrame};
use colo_core::save::CallbackError;
use colo_core::stream::NetState;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

pub struct Net {
    standby: Standby,
    pub lan_in: VecDeque<Frame>,
    pub lan_out: Vec<Frame>,
    input: Vec<Frame>,
    wires: Wires,
    peer: bool,
    detector: Detector,
    pub frozen: bool,
    asked: bool,
    lost: bool,
    pub live: bool,
    output: VecDeque<NetFrame>,
    pub lost_alert: Option<Loss>,
    mode: Mode,
    rehearse: bool,
    queue_bytes: usize,
    lan_slowness: usize,
    /// The primary's system has taken the goodbye.
    pub has_told: bool,
    rng: Rng,
}

impl Net {
    pub fn new(config: &NetConfig, wires: Wires, rng: Rng, now: Instant) -> Net {
        Net {
            standby: Standby::default(),
            lan_in: VecDeque::new(),
            lan_out: Vec::new(),
            input: Vec::new(),
            wires,
            peer: true,
            detector: Detector::new(config.heartbeat, now),
            frozen: true,
            asked: false,
            lost: false,
            live: false,
            output: VecDeque::new(),
            lost_alert: None,
            mode: config.mode,
            rehearse: config.rehearse,
            queue_bytes: config.queue_bytes,
            lan_slowness: config.lan_slowness,
            has_told: false,
            rng,
        }
    }

    /// One turn of the thread.
    pub fn turn(&mut self, now: Instant, domain: &mut ModelDomain) {
        self.hear_peer(now);
        self.watch_peer(now);
        if !self.frozen {
            self.give_input(domain);
            self.take_output(domain);
            self.send_output();
        }
        if self.standby.wants_checkpoint() && !self.asked {
            self.asked = true;
            self.send_peer(&Message::CheckpointWanted);
        }
        if self.rng.per_mille(50) {
            // While the thread was busy.
            self.wires.net.flush(Side::Secondary);
        }
        if self.peer && self.wires.net.is_broken(Side::Secondary) {
            self.hear_peer(now);
            self.lose(Loss::Closed);
        }
    }

    pub fn goodbye(&mut self, reason: GoodbyeReason) {
        if std::mem::take(&mut self.peer) {
            self.has_told = self.wires.net.send(Side::Secondary, &Message::Goodbye(reason)).is_ok();
            self.wires.net.close(Side::Secondary);
        }
    }

    pub fn go_live(&mut self) {
        self.drop_peer();
        self.live = true;
        self.standby.go_live();
        let unreleased = self.standby.take_unreleased();
        let announcements: Vec<_> = self.standby.addresses().announcements().collect();
        self.output.extend(announcements.into_iter().map(|(nic, frame)| NetFrame { nic, frame }));
        self.output.extend(unreleased);
        self.frozen = false;
        self.send_output();
    }

    fn drop_peer(&mut self) {
        if std::mem::take(&mut self.peer) {
            self.wires.net.close(Side::Secondary);
        }
    }

    fn hear_peer(&mut self, now: Instant) {
        if !self.peer || self.lost {
            return;
        }
        let received = loop {
            let message = match self.wires.net.receive(Side::Secondary) {
                Ok(Some(message)) => message,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            self.detector.heard(now);
            match message {
                Message::Input { epoch, again, frames } => self.standby.handle_input(epoch, again, frames),
                Message::Released { epoch, numbers } => self.standby.handle_released(epoch, &numbers),
                Message::HeldReleased(epoch) => self.standby.handle_held_released(epoch),
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
            self.send_peer(&Message::Heartbeat { number });
        }
    }

    fn send_peer(&mut self, message: &Message) {
        if self.peer {
            let limit = if matches!(message, Message::Output { .. }) { self.queue_bytes } else { usize::MAX };
            queue(&self.wires, Side::Secondary, limit, message);
        }
    }

    fn lose(&mut self, loss: Loss) {
        if matches!(loss, Loss::Closed | Loss::Goodbye(_)) {
            self.drop_peer();
        }
        if !std::mem::replace(&mut self.lost, true) {
            self.wires.state.close(Side::Secondary);
            self.lost_alert = Some(loss);
        }
    }

    fn give_input(&mut self, domain: &mut ModelDomain) {
        if self.live && self.input.is_empty() {
            for frame in self.lan_in.drain(..) {
                self.standby.live_input(NetFrame { nic: 0, frame });
            }
        }
        while self.input.is_empty() {
            let batch = self.standby.next_input(0);
            if batch.is_empty() {
                break;
            }
            self.input.extend(batch);
            self.feed_guest(domain);
        }
        self.feed_guest(domain);
    }

    fn feed_guest(&mut self, domain: &mut ModelDomain) {
        let taken = Guest(domain).give(&self.input);
        self.input.drain(..taken);
    }

    fn take_output(&mut self, domain: &mut ModelDomain) {
        if self.standby.is_full() {
            return;
        }
        let frames = Guest(domain).take().into_iter().map(|frame| NetFrame { nic: 0, frame });
        if self.live {
            for frame in frames {
                let frame = self.standby.live_output(frame);
                self.output.push_back(frame);
            }
            return;
        }
        if self.standby.epoch() < Epoch::first_protected(self.rehearse) {
            return frames.for_each(|frame| self.standby.pass_over(frame));
        }
        let mut first = None;
        let mut rewritten = Vec::new();
        for frame in frames {
            let (number, frame) = self.standby.handle_output(frame);
            first.get_or_insert(number);
            rewritten.push(frame);
        }
        if let Some(first) = first {
            let epoch = self.standby.epoch();
            self.send_peer(&Message::Output { epoch, first, frames: rewritten });
        }
    }

    fn send_output(&mut self) {
        let all = self.output.len();
        let taken = if self.rng.per_mille(self.lan_slowness) { self.rng.below(all + 1) } else { all };
        self.lan_out.extend(self.output.drain(..taken).map(|frame| frame.frame));
    }
}

/// The engine's hand on the net thread.
#[derive(Clone)]
pub struct NetHandle {
    pub net: Rc<RefCell<Net>>,
    pub points: Points,
}

impl SecondaryNet for NetHandle {
    fn freeze(&mut self) -> Result<(), CallbackError> {
        self.net.borrow_mut().frozen = true;
        Ok(self.points.reach("secondary: frozen")?)
    }

    fn begin_epoch(&mut self, epoch: Epoch, records: Vec<StateRecord>) -> Result<(), CallbackError> {
        self.points.reach("secondary: flushed, before the epoch begins")?;
        let mut net = self.net.borrow_mut();
        net.standby.begin_epoch(epoch, NetState::from_records(&records)?);
        net.input.clear();
        net.asked = false;
        net.frozen = net.mode == Mode::Remus;
        Ok(self.points.reach("secondary: the epoch has begun")?)
    }
}
