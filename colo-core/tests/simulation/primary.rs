//! The primary's host: its guest, and the engine thread in the order of `session/primary.rs`.

use crate::conditions::Conditions;
use crate::guest::{Guest, Nature};
use crate::points::Points;
use crate::primary_net::{Alert, Net, NetHandle};
use crate::rng::Rng;
use crate::wires::{Side, Wires};
use colo_core::checkpoint::{EngineError, Primary};
use colo_core::domain::model::ModelDomain;
use colo_core::domain::{Control, DirtyLog, Domain, RunState, StateRecord};
use colo_core::failover::{Detector, Loss, PrimaryVerdict, primary_verdict};
use colo_core::ids::{Epoch, PAGE_SIZE, Pfn};
use colo_core::peer::{GoodbyeReason, Message, PeerError};
use colo_core::save::layers::Verified;
use colo_core::save::{CallbackError, SaveCallbacks, SaveError, SaveLoop, Step, StreamSink, Trigger};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often the engine looks whether its guest still runs; as long, against the heartbeat, as in the session.
pub const WATCH_BEATS: u32 = 1;

/// What the guest was when it was captured: memory and vCPU.
pub type Captures = Rc<RefCell<BTreeMap<Epoch, (Vec<u8>, Vec<u8>)>>>;

/// What the engine thread is doing.
#[derive(Debug)]
pub enum Doing {
    Protecting {
        until: Instant,
    },
    /// The state channel broke; waiting for what the net thread makes of it.
    Judging {
        until: Instant,
        why: String,
    },
    /// Goodbye was said, and may not have been heard.
    Parting {
        until: Instant,
        reason: GoodbyeReason,
    },
    /// The secondary must be fenced before this side goes on.
    Fencing {
        why: String,
    },
    Unprotected,
    /// Over, with the guest destroyed.
    Ended(String),
}

pub struct PrimaryHost {
    pub domain: ModelDomain,
    pub net: NetHandle,
    pub doing: Doing,
    nature: Nature,
    points: Points,
    entropy: Rng,
    rng: Rng,
    wires: Wires,
    engine: Rc<RefCell<Primary<NetHandle>>>,
    chain: Box<dyn SaveCallbacks>,
    save: SaveLoop,
    heartbeat: Duration,
    went_on_alone: bool,
    /// In what the two guests differed last.
    pub miscompare: Option<String>,
}

/// What hosts are made from.
pub struct Setup<'a> {
    pub conditions: &'a Conditions,
    pub wires: &'a Wires,
    pub captures: &'a Captures,
    pub now: Instant,
}

impl PrimaryHost {
    pub fn new(mut domain: ModelDomain, setup: &Setup<'_>, rng: &mut Rng) -> PrimaryHost {
        let Setup { conditions, wires, captures, now } = *setup;
        let points = Points::default();
        let net = Net::new(&conditions.net, wires.clone(), rng.fork(), now);
        let net = NetHandle { net: Rc::new(RefCell::new(net)), points: points.clone() };
        let engine = Rc::new(RefCell::new(Primary::new(conditions.checkpoints.clone(), net.clone())));
        let snapshot = Snapshot { inner: engine.clone(), captures: captures.clone() };
        let chain: Box<dyn SaveCallbacks> =
            if conditions.verify { Box::new(Verified::new(snapshot)) } else { Box::new(snapshot) };
        domain.resume().expect("a new domain runs");
        PrimaryHost {
            domain,
            net,
            doing: Doing::Protecting { until: now },
            nature: conditions.nature,
            points,
            entropy: rng.fork(),
            rng: rng.fork(),
            wires: wires.clone(),
            engine,
            chain,
            save: SaveLoop::new(conditions.save.clone()),
            heartbeat: conditions.net.heartbeat,
            went_on_alone: false,
            miscompare: None,
        }
    }

    pub fn guest_step(&mut self) {
        Guest(&mut self.domain).step(&self.nature, &mut self.entropy);
    }

    pub fn net_turn(&mut self, now: Instant) {
        self.net.net.borrow_mut().turn(now, Some(&mut self.domain));
    }

    /// Whether clients can be answered by this guest.
    pub fn serves(&self) -> bool {
        self.domain.run_state() == RunState::Running || self.domain.run_state() == RunState::Suspended
    }

    /// Whether it serves in the belief that the other side is dead.
    pub fn went_on_alone(&self) -> bool {
        self.went_on_alone
    }

    /// The last checkpoint that this side knows to be safe.
    pub fn staged(&self) -> Epoch {
        self.engine.borrow().staged()
    }

    /// Whether it knows that the secondary could take over.
    pub fn is_protected(&self) -> bool {
        self.engine.borrow().is_protected()
    }

    pub fn points(&self) -> &Points {
        &self.points
    }

    /// Whether the engine thread has something to do.
    pub fn engine_is_ready(&self, now: Instant) -> bool {
        let alerted = !self.net.net.borrow().alerts.is_empty();
        match &self.doing {
            Doing::Protecting { until } => *until <= now || alerted || self.wires.state.is_readable(Side::Primary),
            Doing::Judging { until, .. } => *until <= now || alerted,
            Doing::Parting { until, .. } => *until <= now || self.wires.net.is_readable(Side::Primary),
            Doing::Fencing { .. } => true,
            Doing::Unprotected | Doing::Ended(_) => false,
        }
    }

    /// The engine thread does one thing. `fence` fences the secondary, when it can.
    pub fn engine_turn(&mut self, now: Instant, fence: &mut dyn FnMut() -> bool) {
        match &self.doing {
            Doing::Protecting { .. } => match self.hear().and_then(|()| self.step(now)) {
                Err(end) if !self.points.is_dead() => self.after(end, now),
                _ => {}
            },
            Doing::Judging { until, why } => {
                let (until, why) = (*until, why.clone());
                let alert = self.net.net.borrow_mut().alerts.pop_front();
                match alert {
                    Some(Alert::Lost(loss)) => return self.lost(&loss),
                    Some(Alert::Trigger(_)) => return,
                    None => {}
                }
                if until <= now {
                    self.leave(GoodbyeReason::Failed(format!("the state channel is gone: {why}")), now);
                }
            }
            Doing::Parting { until, reason } => {
                let (until, reason) = (*until, reason.clone());
                self.hear_farewell(until <= now, reason);
            }
            Doing::Fencing { .. } => {
                if fence() {
                    self.went_on_alone = true;
                    self.serve_unprotected();
                }
            }
            Doing::Unprotected | Doing::Ended(_) => {}
        }
    }

    /// The operator ends protection.
    pub fn end_protection(&mut self, now: Instant) {
        if matches!(self.doing, Doing::Protecting { .. }) {
            self.leave(GoodbyeReason::Stopped, now);
        }
    }

    fn step(&mut self, now: Instant) -> Result<(), End> {
        let mut sink = PeerSink { wires: self.wires.clone(), points: self.points.clone() };
        let step = self.save.step(now, &mut self.domain, &mut *self.chain, &mut sink);
        let until = match step {
            Ok(Step::Waiting(until)) => until.min(now + self.heartbeat * WATCH_BEATS),
            Ok(_) => now,
            Err(SaveError::Sink(error)) => return Err(End::Judge(error.to_string())),
            Err(error) => return Err(End::Cannot(error.to_string())),
        };
        self.doing = Doing::Protecting { until };
        Ok(())
    }

    /// Takes all that others have to say, in any order.
    fn hear(&mut self) -> Result<(), End> {
        loop {
            let readable = self.wires.state.is_readable(Side::Primary);
            let alerted = !self.net.net.borrow().alerts.is_empty();
            if alerted && (!readable || self.rng.per_mille(500)) {
                let alert = self.net.net.borrow_mut().alerts.pop_front();
                match alert {
                    Some(Alert::Trigger(trigger)) => {
                        if trigger == Trigger::Miscompare {
                            self.miscompare = self.net.net.borrow().gate.divergence().map(ToString::to_string);
                        }
                        self.engine.borrow_mut().handle_trigger(trigger);
                    }
                    Some(Alert::Lost(loss)) => return Err(End::Lost(loss)),
                    None => {}
                }
            } else if readable {
                self.message(self.wires.state.receive(Side::Primary))?;
            } else {
                return Ok(());
            }
        }
    }

    fn message(&mut self, message: Result<Option<Message>, PeerError>) -> Result<(), End> {
        match message {
            Ok(Some(Message::Goodbye(reason))) => Err(End::Lost(Loss::Goodbye(reason))),
            Ok(Some(message)) => self.engine.borrow_mut().handle_message(&message).map_err(|error| match error {
                EngineError::Net(why) => End::Net(why.to_string()),
                error => End::Lost(Loss::Broken(error.to_string())),
            }),
            Ok(None) => Ok(()),
            Err(error) => Err(End::Judge(error.to_string())),
        }
    }

    fn after(&mut self, end: End, now: Instant) {
        match end {
            End::Judge(why) => {
                let patience = self.heartbeat * (Detector::MISSED + 1 + WATCH_BEATS);
                self.doing = Doing::Judging { until: now + patience, why };
            }
            End::Cannot(why) => self.leave(GoodbyeReason::Failed(why), now),
            End::Net(why) => {
                self.domain.destroy();
                for link in self.wires.both() {
                    link.close(Side::Primary);
                }
                self.doing = Doing::Ended(why);
            }
            End::Lost(loss) => self.lost(&loss),
        }
    }

    fn leave(&mut self, reason: GoodbyeReason, now: Instant) {
        let is_there = self.net.net.borrow_mut().part(reason.clone());
        let until = if is_there { now + self.heartbeat * Detector::MISSED } else { now };
        self.doing = Doing::Parting { until, reason };
    }

    fn hear_farewell(&mut self, is_late: bool, reason: GoodbyeReason) {
        let farewell = self.wires.net.receive(Side::Primary);
        let loss = match farewell {
            Ok(Some(Message::Goodbye(GoodbyeReason::Promoted))) => Some(Loss::Goodbye(GoodbyeReason::Promoted)),
            Err(PeerError::Closed | PeerError::Truncated { .. }) => None,
            Ok(_) if !is_late => return,
            Ok(_) | Err(_) => Some(Loss::Closed),
        };
        self.wires.net.close(Side::Primary);
        self.goodbye(reason);
        match loss {
            Some(loss) => self.lost(&loss),
            None => self.serve_unprotected(),
        }
    }

    fn lost(&mut self, loss: &Loss) {
        match primary_verdict(loss) {
            PrimaryVerdict::StandDown => {
                self.domain.destroy();
                self.doing = Doing::Ended(loss.to_string());
            }
            PrimaryVerdict::GoUnprotected { fence } => {
                self.goodbye(GoodbyeReason::Failed(loss.to_string()));
                if fence {
                    self.net.net.borrow_mut().gate.shut();
                    self.doing = Doing::Fencing { why: loss.to_string() };
                } else {
                    self.serve_unprotected();
                }
            }
        }
    }

    fn serve_unprotected(&mut self) {
        let _ = self.domain.disable_dirty_log();
        self.net.net.borrow_mut().open();
        self.doing = Doing::Unprotected;
    }

    fn goodbye(&mut self, reason: GoodbyeReason) {
        self.net.net.borrow_mut().goodbye(reason.clone());
        let _ = self.wires.state.send(Side::Primary, &Message::Goodbye(reason));
        self.wires.state.close(Side::Primary);
    }
}

/// Why protection ended.
enum End {
    Judge(String),
    Cannot(String),
    Net(String),
    Lost(Loss),
}

/// Sends the stream to the peer, as the session's sink does.
struct PeerSink {
    wires: Wires,
    points: Points,
}

impl StreamSink for PeerSink {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.points.reach("primary: before a record is sent").map_err(io::Error::other)?;
        self.wires.state.send_stream(Side::Primary, parts).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn end_epoch(&mut self, epoch: Epoch) -> io::Result<()> {
        self.points.reach("primary: before the end of the epoch is sent").map_err(io::Error::other)?;
        let sum = self.wires.state.take_sent_sum(Side::Primary);
        let end = Message::EpochEnd { epoch, stream_bytes: sum.bytes(), crc: sum.crc() };
        self.wires.state.send(Side::Primary, &end).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.points.reach("primary: the end of the epoch is sent").map_err(io::Error::other)
    }
}

/// Keeps what was captured, for the check that the secondary becomes just that.
struct Snapshot<C> {
    inner: C,
    captures: Captures,
}

impl<C: SaveCallbacks> SaveCallbacks for Snapshot<C> {
    colo_core::hand_on_save!(inner: wait_checkpoint, suspend, postcopy, checkpoint);

    fn capture(&mut self, domain: &mut dyn Domain, epoch: Epoch) -> Result<Vec<StateRecord>, CallbackError> {
        let pfns: Vec<Pfn> = (0..domain.spec().pfn_limit).map(Pfn).collect();
        let mut ram = vec![0; pfns.len() * PAGE_SIZE];
        domain.read_pages(&pfns, &mut ram)?;
        let registers = domain.save_state()?.remove(0).body;
        let mut captures = self.captures.borrow_mut();
        captures.insert(epoch, (ram, registers));
        while captures.len() > 2 {
            captures.pop_first();
        }
        drop(captures);
        self.inner.capture(domain, epoch)
    }
}
